"""The chain, written once: which stage reads what.

`do(stage, config, **inputs)` is how a stage gets done: a cached Prefect task in a flow, a look-up in `storymill plan`,
a plain build in a test. Each function returns every dataset so far, by name.
"""

from typing import Protocol

from lib.presets import Chain, StoriesConfig, VocabularyConfig
from lib.store import Config, Dataset

Made = dict[str, Dataset]


class Do(Protocol):
    def __call__(self, stage: str, config: Config, **inputs: Dataset) -> Dataset: ...


def stories(config: StoriesConfig, do: Do) -> Made:
    """From the teacher, or from the user's files, to clean stories with a side of the split each."""
    source = "ingest" if config.ingest else "selfinstruct" if config.selfinstruct else "generate"
    raw = do(source, getattr(config, source))
    clean = do("clean", config.clean, stories=raw)
    dedup = do("dedup", config.dedup, stories=clean)
    made = {"raw": raw, "clean": clean, "dedup": dedup}
    if config.novelty:  # after dedup: a copy goes under its own name, and fewer rows are left to compare
        made["novelty"] = do("novelty", config.novelty, stories=dedup)
    return made | {"split": do("split", config.split, stories=made.get("novelty", dedup))}


def vocabulary(config: VocabularyConfig, do: Do) -> Made:
    """… and on to token shards: whole stories for pretraining, instruction + story for the rest."""
    made = stories(config, do)
    split = made["split"]
    if config.adopt:  # a public model comes with its vocabulary, and needs no pretraining
        tokenizer = do("adopt", config.adopt)
        instructions = do("tokens", config.instructions, stories=split, tokenizer=tokenizer)
        return made | {"adopt": tokenizer, "tokenizer": tokenizer, "instructions": instructions}
    tokenizer = do("tokenizer", config.tokenizer, stories=split)
    tokens = do("tokens", config.tokens, stories=split, tokenizer=tokenizer)
    instructions = do("tokens", config.instructions, stories=split, tokenizer=tokenizer)
    return made | {"tokenizer": tokenizer, "tokens": tokens, "instructions": instructions}


def training(config: Chain, do: Do) -> Made:
    """… and on to the three models."""
    made = vocabulary(config, do)
    split, tokenizer, asked = made["split"], made["tokenizer"], made["instructions"]
    if not config.adopt:
        made["pretrain"] = do("pretrain", config.pretrain, tokens=made["tokens"], tokenizer=tokenizer)
    base = made["adopt" if config.adopt else "pretrain"]
    instruct = do("instruct", config.instruct, base=base, tokens=asked, tokenizer=tokenizer)
    model = instruct
    if config.aligned_from == "base":
        model, asked = base, made.get("tokens") or do("tokens", config.tokens, stories=split, tokenizer=tokenizer)
    aligned = do("align", config.align, model=model, stories=split, tokens=asked, tokenizer=tokenizer)
    return made | {"instruct": instruct, "align": aligned}


def everything(config: Chain, do: Do) -> Made:
    """… and on to the comparison, the exported model and the report."""
    made = training(config, do)
    base = made["adopt" if config.adopt else "pretrain"]
    models = {"base": base, "instruct": made["instruct"], "aligned": made["align"]}
    split, tokenizer = made["split"], made["tokenizer"]
    evaluate = do("evaluate", config.evaluate, **models, stories=split, tokenizer=tokenizer)
    export = do("export", config.export, model=made["align"], tokenizer=tokenizer, stories=split)
    made |= {"evaluate": evaluate, "export": export}
    return made | {"report": do("report", config.report, **made)}
