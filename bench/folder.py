"""A data folder of any size: the tables that the stages write, with rows made up in bulk.

In:   how many stories; a .jsonl of stories to imitate, or none: the built-in storyteller's
Out:  finished datasets of every stage that has tables, and a ledger, under the data folder: about 2.5 GB a million
Texts repeat every POOL stories; no two rows of one part have the same one, so files compress as real ones do.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.texts import markov
from lib import presets, stages, store
from lib.store import Config, Dataset, Draft, schemas

PART = 2000
POOL = 20_000  # different stories


@dataclass(frozen=True)
class Source:
    """Where texts come from."""

    rows: int
    stories: str | None

    @property
    def texts(self) -> pa.Array:
        return _markov(min(POOL, self.rows), self.stories)


@cache
def _markov(count: int, path: str | None) -> pa.Array:
    return pa.array(markov(count, path=path, words=150), pa.string())


def make(rows: int, stories: str | None) -> None:
    """Every stage's tables, as if a chain had run over `rows` stories."""
    parts = range(-(-rows // PART))
    chain = presets.laptop()
    source = Source(len(parts) * PART, stories)
    raw = publish("generate", chain.generate, {}, lambda n: {"part": _raw(n, source)}, parts)
    clean = publish("clean", chain.clean, {"stories": raw}, lambda n: _parted(_raw(n, source), "clean", n), parts)
    dedup = publish("dedup", chain.dedup, {"stories": clean}, lambda n: _parted(_cleaned(n, source), "dedup", n), parts)
    split = publish("split", chain.split, {"stories": dedup}, lambda n: _split(n, source), parts)
    tokenizer = publish("tokenizer", chain.tokenizer, {"stories": split}, {"tokenizer.model": _pieces(source)})
    both = {"stories": split, "tokenizer": tokenizer}
    made = [
        publish("tokens", c, both, lambda n, c=c: _tokens(n, source, c.layout), parts)
        for c in (chain.tokens, chain.instructions)
    ]
    _ledger(parts, source)
    base = publish("pretrain", chain.pretrain, {"tokens": made[0], "tokenizer": tokenizer}, dict(_trained(split)))
    inputs = {"base": base, "tokens": made[1], "tokenizer": tokenizer}
    instruct = publish("instruct", chain.instruct, inputs, dict(_trained(split)))
    inputs = {"model": instruct, "stories": split, "tokens": made[1], "tokenizer": tokenizer}
    aligned = publish("align", chain.align, inputs, _aligned(split), kept_update=2)
    inputs = {"base": base, "instruct": instruct, "aligned": aligned, **both}
    publish("evaluate", chain.evaluate, inputs, {"story_loss.parquet": _losses(split)})


def publish(
    stage: str, config: Config, inputs: dict[str, Dataset], content: Any, parts: range = range(0), **facts: Any
) -> Dataset:
    """A finished dataset of these files, or of these tables part by part."""

    def fill(draft: Draft, _: Config, **__: Dataset) -> None:
        draft.fact(**facts)
        for n in parts:
            for name, rows in content(n).items():
                where = {"_dropped": f"_dropped/part-{n:05d}.parquet", "words": f"_words/words-{n:05d}.parquet"}
                draft.write_table(where.get(name, f"{name}-{n:05d}.parquet"), rows)
        for name, rows in {} if parts else content.items():
            (draft.write_table if isinstance(rows, pa.Table) else draft.write_bytes)(name, rows)

    return store.build(stages.module_of(stage).STAGE, config, inputs, fill, external={"made up": stage})


def _ids(n: int) -> list[str]:
    digits = np.random.default_rng([1, n]).bytes(10 * PART).hex()
    return [digits[at : at + 20] for at in range(0, 20 * PART, 20)]


def _raw(n: int, source: Source) -> pa.Table:
    ids = _ids(n)
    text = source.texts.slice(n * PART % len(source.texts), PART)
    some = pa.array(["cross", "bridge", "little", "boy"] * (PART // 4))
    rows = {
        "story_id": [f"{each}.1" for each in ids],
        "text": text,
        "summary": [f"a story about {' '.join(each.split()[:12])}" for each in text.to_pylist()],
        "source": ["made up"] * PART,
        "request_id": ids,
        "verb": some,
        "noun": some,
        "adjective": some,
        "features": [["dialogue"]] * PART,
        "model": ["made up"] * PART,
    }
    return _fitted(rows, schemas.RAW)


def _fitted(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """The columns in the schema's order and types; those that are not given are null."""
    length = len(next(iter(columns.values())))
    given = {
        field.name: pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(length, field.type)
        for field in schema
    }
    return pa.table(given, schema=schema)


@cache
def _dice(stage: str, n: int) -> np.ndarray:
    return np.random.default_rng([len(stage), n]).random(PART)


def _parted(rows: pa.Table, stage: str, n: int) -> dict[str, pa.Table]:
    """Some 4 % dropped, the rest kept with what the stage adds."""
    gone = _dice(stage, n % (POOL // PART))[: len(rows)] < 0.04
    ids = rows["story_id"].to_pylist()
    more = {
        "words": np.full(len(rows), 150),
        "chars": np.full(len(rows), 800),
        "cluster_id": np.where(gone, np.roll(ids, 1), ids) if len(ids) else ids,
        "reason": ["near"] * len(rows),
        "detail": ["of another"] * len(rows),
        "kept_id": np.roll(ids, 1) if len(ids) else ids,
        "similarity": np.full(len(rows), 0.9),
        "rule_version": np.full(len(rows), 1),
    }
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    return {
        table: _fitted({k: v for k, v in (more | columns).items() if k in schema.names}, schema).filter(pa.array(mask))
        for table, mask in (("part", ~gone), ("_dropped", gone))
        if (schema := schemas.TABLES[stage, table])
    }


def _cleaned(n: int, source: Source) -> pa.Table:
    return _parted(_raw(n, source), "clean", n)["part"]


def _sides(rows: int, n: int) -> np.ndarray:
    dice = _dice("split", n % (POOL // PART))[:rows]
    return np.where(dice < 0.02, "val", np.where(dice < 0.04, "test", "train"))


def _split(n: int, source: Source) -> dict[str, pa.Table]:
    rows = _parted(_cleaned(n, source), "dedup", n)["part"]
    sides = pa.array(_sides(len(rows), n), pa.string())
    return {"part": rows.append_column("split", sides), "words": _counts(n % (len(source.texts) // PART), source)}


@cache
def _counts(n: int, source: Source) -> pa.Table:
    from lib.text.counting import word_counts

    rows = _parted(_cleaned(n, source), "dedup", n)["part"]
    return word_counts(rows["text"], pa.chunked_array([_sides(len(rows), n)]))


def _tokens(n: int, source: Source, layout: str) -> dict[str, pa.Table]:
    rows = _split(n, source)["part"]
    length = np.full(len(rows), 200)
    more = {"shard": np.full(len(rows), n), "offset": np.cumsum(length) - length, "length": length}
    more |= {"text_bytes": length * 4, "layout": [layout] * len(rows), "prompt_length": np.zeros(len(rows))}
    return {
        "part": _fitted({name: rows[name].combine_chunks() for name in ("story_id", "split")} | more, schemas.TOKENS)
    }


@cache
def _pieces(source: Source) -> bytes:
    from lib.text.tokenizer import train

    with tempfile.TemporaryDirectory() as folder:
        return train(source.texts.slice(0, 2000).to_pylist(), Path(folder) / "pieces.model", 2048).model


def _ledger(parts: range, source: Source) -> None:
    """Every story's request, answered at the first attempt; a segment for every hundred parts."""
    from lib.text import ledger

    folder = ledger.folder_of(store.root())
    folder.mkdir(parents=True, exist_ok=True)
    prompt = "Tell a short story in two to five paragraphs, about 130 words long, that a three-year-old understands. "
    for start in range(0, len(parts), 50):
        rows = pa.concat_tables(
            _fitted(
                {
                    "request_id": _ids(n),
                    "attempt": np.ones(PART),
                    "model": ["made up"] * PART,
                    "status": ["ok"] * PART,
                    "latency_ms": np.full(PART, 80.0),
                    "tokens_in": np.full(PART, 128),
                    "tokens_out": np.full(PART, 230),
                    "cost_microdollars": np.full(PART, 180),
                    "raw": source.texts.slice(n * PART % len(source.texts), PART),
                    "prompt": [prompt + each for each in _ids(n)],
                },
                ledger.SCHEMA,
            )
            for n in parts[start : start + 50]
        )
        pq.write_table(rows, folder / f"requests-{start}-0.parquet", compression="zstd")


def _trained(split: Dataset) -> Iterator[tuple[str, pa.Table]]:
    """Two epochs, 32 rows of two stories a step."""
    ids = split.table(["story_id", "split"])
    train, val = (
        ids.filter(pa.compute.equal(ids["split"], side))["story_id"].combine_chunks() for side in ("train", "val")
    )
    order = np.concatenate([np.random.default_rng(epoch).permutation(len(train)) for epoch in (0, 1)])
    place = np.arange(len(order))
    for n, start in enumerate(range(0, len(order), 1_000_000)):
        here = slice(start, start + 1_000_000)
        rows = {
            "step": place[here] // 64 + 1,
            "row": place[here] // 2 % 32,
            "story_id": train.take(pa.array(order[here])),
        }
        yield f"_seen/seen-{n:05d}.parquet", _fitted(rows, schemas.SEEN)
    steps = np.arange(1, len(order) // 64 + 1)
    loss = 6 / steps**0.2
    rows = {"step": steps, "tokens": steps * 12_000, "loss": loss, "lr": loss, "grad_norm": loss}
    yield "train_steps.parquet", _fitted(rows, schemas.TRAIN_STEPS)
    yield "_record/speed.parquet", _fitted({"step": steps, "seconds": loss, "tokens_per_s": loss}, schemas.SPEED)
    yield (
        "_seen/scored.parquet",
        _fitted({"story_id": np.sort(val.to_numpy(zero_copy_only=False))[:500]}, schemas.SCORED),
    )
    few = steps[-1:]
    rows = {"step": few, "split": ["val"], "nats_per_token": [1.25], "bits_per_byte": [0.5], "tokens": [100_000]}
    yield "evals.parquet", _fitted(rows, schemas.EVALS)


def _aligned(split: Dataset) -> dict[str, pa.Table]:
    rows = split.parts()[0].table(["summary", "text"]).slice(0, 1000)
    count = len(rows)
    update = np.arange(count) // 32 + 1
    made = {"update": update, "reward": np.linspace(0, 1, count), "tokens": np.full(count, 150), "kl": np.zeros(count)}
    made |= {"prompt": [f"Write {each}" for each in rows["summary"].to_pylist()], "text": rows["text"].combine_chunks()}
    updates = _fitted({"update": np.unique(update)}, schemas.UPDATES)
    return {"rollouts.parquet": _fitted(made, schemas.ROLLOUTS), "updates.parquet": updates}


def _losses(split: Dataset) -> pa.Table:
    ids = split.table(["story_id", "split"])
    val = np.sort(ids.filter(pa.compute.equal(ids["split"], "val"))["story_id"].to_numpy())[:500]
    rows = {
        "story_id": np.tile(val, 3),
        "model": np.repeat(["base", "instruct", "aligned"], len(val)),
        "nats": np.full(3 * len(val), 250.0),
        "tokens": np.full(3 * len(val), 200),
        "bytes": np.full(3 * len(val), 800),
        "bits_per_byte": np.full(3 * len(val), 0.45),
        "asked_nats": np.full(3 * len(val), 250.0),
        "asked_tokens": np.full(3 * len(val), 200),
    }
    return _fitted(rows, schemas.STORY_LOSS)
