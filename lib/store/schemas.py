"""The columns of every table that a stage writes: the data model in one place.

A table that differs from its schema is refused when it is written; a stage that has not run yet is an empty view with
these columns, so every documented query runs on an empty data folder too.
"""

import pyarrow as pa

STRING, INT, LONG, FLOAT, DOUBLE = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64()


def _extend(schema: pa.Schema, **columns: pa.DataType) -> pa.Schema:
    return pa.schema([*schema, *columns.items()])


HELD_OUT = ("val", "test")
SIDES = ("train", *HELD_OUT)

RAW = pa.schema(
    {
        "story_id": STRING,
        "text": STRING,
        "summary": STRING,  # "a story about ..."; null where the source has none
        "source": STRING,  # who made it: storyteller, openai:<model>, a file's name, hf:<dataset>
        "request_id": STRING,  # the ledger's key; null for stories that were not asked for
        "verb": STRING,
        "noun": STRING,
        "adjective": STRING,
        "features": pa.list_(STRING),
        "model": STRING,
        "given_split": STRING,  # the side the source puts the story on: held-out text comes as 'val'
        "instruction": STRING,  # what a task says, where the row is one; `text` is its answer, `summary` null
        "input": STRING,  # what the task is about; null where it needs nothing
    }
)
PLAN = pa.schema(
    {
        "story_id": STRING,  # of the story that answers this ask, if one does
        "request_id": STRING,
        "story_no": INT,  # its place in the request, from 1
        "ask_no": LONG,  # its place in the plan, from 0
        "design": STRING,  # tinystories, simplestories or combined; what a design leaves open is null
        "verb": STRING,
        "noun": STRING,
        "adjective": STRING,
        "features": pa.list_(STRING),
        "theme": STRING,
        "topic": STRING,
        "style": STRING,
        "persona": STRING,
        "first_word": STRING,
        "paragraphs": INT,
        "extra": pa.bool_(),  # asked for beyond the plan's own, to make up for what the stories lack
        "about": STRING,  # of an extra: what the story shall be about
    }
)
AXES = pa.schema({"axis": STRING, "word": STRING, "expected_share": DOUBLE})
CLEAN = _extend(RAW, words=INT, chars=INT)
DEDUP = _extend(CLEAN, cluster_id=STRING)
SPLIT = _extend(DEDUP, split=STRING)
CONTAMINATED = pa.schema(
    {
        "story_id": STRING,  # of the training row
        "against": STRING,  # val, test: a held-out story; instruction: its request; evaluation, reward: a prompt
        "other_id": STRING,  # the held-out story; null for a prompt
        "other": STRING,  # how the held-out text begins
        "why": STRING,  # copy, part, run, asked: lib/text/contamination.py
        "share": DOUBLE,  # of the held-out text's runs of words, how many stand in the training row
        "shared": STRING,  # the longest run of words that both have
        "dropped_id": STRING,  # which of the two went; null: neither, that was waived
    }
)
WORDS = pa.schema(
    {
        "word": STRING,
        "stem": STRING,
        "split": STRING,
        "uses": LONG,
        "stories": LONG,  # that hold this form
        "stem_stories": LONG,  # each story once per stem, at one of its forms: sums to those that hold any form
    }
)
TRAIN_STEPS = pa.schema(
    {
        "step": INT,
        "tokens": LONG,
        "loss": DOUBLE,
        "lr": DOUBLE,
        "grad_norm": DOUBLE,
        "skipped": pa.bool_(),  # a spike: the weights stayed as they were
    }
)
EVALS = pa.schema(
    {
        "step": INT,
        "split": STRING,
        "nats_per_token": DOUBLE,
        "bits_per_byte": DOUBLE,
        "tokens": LONG,
        "bytes": LONG,
    }
)
SCORED = pa.schema({"story_id": STRING})  # the held-out stories that `evals` are of
SEEN = pa.schema({"step": INT, "row": INT, "story_id": STRING})  # step 1 is the first, as in train_steps
SPEED = pa.schema({"step": INT, "tokens_per_s": DOUBLE, "mfu": DOUBLE, "seconds": DOUBLE, "memory_mb": DOUBLE})
TOKENS = pa.schema(
    {
        "story_id": STRING,
        "split": STRING,
        "shard": INT,  # tokens-00007.bin is shard 7
        "offset": LONG,  # in tokens, from the start of the shard
        "length": INT,  # in tokens, BOS and EOS included
        "prompt_length": INT,  # leading tokens that are the instruction; 0 in the pretrain layout
        "text_bytes": INT,
        "layout": STRING,
    }
)
SPELLING = pa.schema({"word": STRING, "pieces": pa.list_(STRING)})  # of every word in the stories
PIECES = pa.schema({"piece_id": INT, "piece": STRING, "score": FLOAT, "kind": STRING})
ROLLOUTS = pa.schema(
    {
        "update": INT,
        "prompt": STRING,
        "story_id": STRING,  # the first training story whose summary the prompt is
        "text": STRING,
        "reward": DOUBLE,
        "concept": DOUBLE,  # cosine with the concept; null where that reward is off
        "words": DOUBLE,  # share of the asked words present; null where that reward is off
        "logprob": DOUBLE,  # nats, summed over the generated tokens
        "kl": DOUBLE,  # nats per generated token, against the frozen reference
        "advantage": DOUBLE,
        "tokens": INT,
        "ended": pa.bool_(),
        "parts": pa.map_(STRING, DOUBLE),  # every reward by its name, before weights
        "pair": STRING,  # dpo: 'chosen' or 'rejected'; null for a story that was in no pair
    }
)
UPDATES = pa.schema(
    {
        "update": INT,
        "loss": DOUBLE,
        "reward": DOUBLE,
        "kl": DOUBLE,
        "grad_norm": DOUBLE,
        "distinct_2": DOUBLE,
        "concept_per_100": DOUBLE,
        "share_ended": DOUBLE,
        "heldout_reward": DOUBLE,  # null where this update was not measured on held-out prompts
        "val_bits_per_byte": DOUBLE,
        "anchor_nats": DOUBLE,  # loss on train stories, nats per token; null where there is no anchor
        "pairs": INT,  # dpo: pairs that were learned from; null in other forms
        "margin": DOUBLE,  # dpo: how far the chosen are ahead of the rejected, before the step; null without a pair
    }
)
STORY_LOSS = pa.schema(
    {
        "story_id": STRING,
        "model": STRING,
        "nats": DOUBLE,
        "tokens": INT,
        "bytes": INT,
        "bits_per_byte": DOUBLE,
        "asked_nats": DOUBLE,  # behind its instruction; null where the story has no summary
        "asked_tokens": INT,  # fewer than `tokens` where instruction and story do not fit one row
    }
)
SAMPLES = pa.schema(
    {
        "model": STRING,
        "kind": STRING,  # 'opening' to be continued, or 'instruction' to be followed
        "prompt_no": INT,
        "prompt": STRING,
        "text": STRING,
        "ended": pa.bool_(),
        "tokens": INT,
    }
)
GRADES = pa.schema(
    {
        "model": STRING,
        "kind": STRING,
        "prompt_no": INT,
        "judge": STRING,  # who graded; the offline stand-in names itself as such
        "grammar": DOUBLE,
        "creativity": DOUBLE,
        "consistency": DOUBLE,
        "plot": DOUBLE,
        "age": STRING,
    }
)
METRICS = pa.schema({"model": STRING, "metric": STRING, "value": DOUBLE, "n": INT})

NEIGHBOURS = pa.schema({"story_id": STRING, "rank": INT, "other_id": STRING, "similarity": DOUBLE})
NOVELTY_SCORES = pa.schema(
    {
        "story_id": STRING,
        "nearest": DOUBLE,  # similarity to the nearest; null where no earlier row shares a word
        "average": DOUBLE,  # mean similarity to every earlier kept row; null unless novelty.average
    }
)

# (stage, table) -> columns. The rows a stage drops keep every column they came with.
TABLES: dict[tuple[str, str], pa.Schema] = {
    ("generate", "part"): RAW,
    ("generate", "_dropped"): _extend(RAW, reason=STRING, detail=STRING),
    ("generate", "plan"): PLAN,
    ("generate", "axes"): AXES,
    ("selfinstruct", "part"): RAW,
    ("selfinstruct", "_dropped"): _extend(RAW, reason=STRING, detail=STRING),
    ("ingest", "part"): RAW,
    ("clean", "part"): CLEAN,
    ("clean", "_dropped"): _extend(RAW, reason=STRING, detail=STRING, rule_version=INT),
    ("dedup", "part"): DEDUP,
    ("dedup", "_dropped"): _extend(DEDUP, reason=STRING, kept_id=STRING, similarity=FLOAT),
    ("novelty", "part"): DEDUP,
    ("novelty", "_dropped"): _extend(DEDUP, reason=STRING, kept_id=STRING, similarity=DOUBLE),
    ("novelty", "neighbours"): NEIGHBOURS,
    ("novelty", "scores"): NOVELTY_SCORES,
    ("split", "part"): SPLIT,
    ("split", "_dropped"): _extend(SPLIT, reason=STRING, detail=STRING),
    ("split", "contaminated"): CONTAMINATED,
    ("split", "words"): WORDS,
    ("tokenizer", "pieces"): PIECES,
    ("tokenizer", "spelling"): SPELLING,
    ("tokens", "part"): TOKENS,
    ("tokens", "_dropped"): pa.schema({"story_id": STRING, "reason": STRING, "detail": STRING}),
    ("pretrain", "train_steps"): TRAIN_STEPS,
    ("pretrain", "evals"): EVALS,
    ("pretrain", "scored"): SCORED,
    ("pretrain", "seen"): SEEN,
    ("pretrain", "speed"): SPEED,
    ("instruct", "train_steps"): TRAIN_STEPS,
    ("instruct", "evals"): EVALS,
    ("instruct", "scored"): SCORED,
    ("instruct", "seen"): SEEN,
    ("instruct", "speed"): SPEED,
    ("instruct", "_dropped"): pa.schema({"story_id": STRING, "reason": STRING, "detail": STRING}),
    ("align", "rollouts"): ROLLOUTS,
    ("align", "updates"): UPDATES,
    ("align", "evals"): EVALS,
    ("align", "scored"): SCORED,
    ("align", "speed"): SPEED,
    ("evaluate", "story_loss"): STORY_LOSS,
    ("evaluate", "samples"): SAMPLES,
    ("evaluate", "grades"): GRADES,
    ("evaluate", "metrics"): METRICS,
    ("adopt", "pieces"): PIECES,
    ("adopt", "scored"): SCORED,
}


def table_of(file_name: str) -> str:
    """The table that a file holds rows of: part-00003.parquet → part, _dropped/part-00003.parquet → _dropped."""
    folder, _, base = file_name.rpartition("/")
    if folder == "_dropped":
        return "_dropped"
    stem = base.rpartition(".")[0]
    head, _, number = stem.rpartition("-")
    return head if head and number.isdigit() else stem


def fitted(stage: str, file_name: str, table: pa.Table) -> pa.Table:
    """`table` in its schema's column order and types; a missing or an extra column raises."""
    schema = TABLES.get((stage, table_of(file_name)))
    if schema is None:
        return table
    if set(schema.names) != set(table.column_names):
        missing, extra = set(schema.names) - set(table.column_names), set(table.column_names) - set(schema.names)
        raise ValueError(
            f"{stage}/{file_name}: missing columns {sorted(missing)}, extra columns {sorted(extra)}; "
            "lib/store/schemas.py says what this table holds"
        )
    return table.select(schema.names).cast(schema)
