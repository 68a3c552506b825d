"""A chain in miniature for tests of what reads a chain: fifty stories, 300-odd pieces, networks of random weights.

Nothing here is trained; `chain` publishes real datasets through lib.store, so that readers meet real manifests.
"""

import hashlib
import random
import tempfile
from functools import cache
from pathlib import Path

import pyarrow as pa

from lib.store import Config, Dataset, Draft, Stage, build

NAMES = ("Tom", "Lily", "Mia", "Sam", "Anna")
THINGS = ("ball", "kite", "boat", "cake", "drum", "apple")
PLACES = ("park", "garden", "forest", "house")
ANIMALS = ("cat", "dog", "bird", "frog")
SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 64, "max_length": 160}


class TinyConfig(Config):
    seed: int = 0


def stories(count: int = 50) -> pa.Table:
    """`count` rows as the split stage writes them; one in five is val, one in ten is test."""
    dice = random.Random(7)
    rows = []
    for number in range(count):
        name, thing, place, animal = (dice.choice(words) for words in (NAMES, THINGS, PLACES, ANIMALS))
        text = (
            f"One day, {name} took a {thing} to the {place}. A little {animal} was there, but it was sad. "
            f'"Do you want to play?" asked {name}. They played with the {thing} all day.\n\nThe {animal} was happy.'
        )
        split = "test" if number % 10 == 9 else "val" if number % 5 == 0 else "train"
        rows.append(
            {
                "story_id": f"s{number:03d}",
                "text": text,
                "summary": f"a story about {name} and a {animal} with a {thing}",
                "source": "tiny",
                "features": [],
                "words": len(text.split()),
                "chars": len(text),
                "cluster_id": f"s{number:03d}",
                "split": split,
            }
        )
    from lib.store.schemas import SPLIT

    return pa.Table.from_pylist(rows, schema=SPLIT)


def publish(
    stage: str,
    files: dict[str, pa.Table | bytes],
    inputs: dict[str, Dataset] | None = None,
    counts: dict[str, int] | None = None,
    drops: dict[str, int] | None = None,
    **facts,
) -> Dataset:
    """A finished dataset that holds these files."""

    def fill(draft: Draft, config: Config, **_: Dataset) -> None:
        for name, content in files.items():
            (draft.write_table if isinstance(content, pa.Table) else draft.write_bytes)(name, content)
        draft.fact(**facts)
        draft.count(**(counts or {}), drops=drops)

    content = hashlib.sha256(repr(sorted((name, _digest(each)) for name, each in files.items())).encode()).hexdigest()
    return build(Stage(stage, 1), TinyConfig(), inputs or {}, fill, external={"content": content})


def _digest(content: pa.Table | bytes) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else repr(content.to_pylist()).encode()).hexdigest()


NUMBERS = ["Seven 7 frogs; 12 cats - and 345 birds! Oh no? Yes: (yes)."]


@cache
def _pieces() -> bytes:
    """A SentencePiece model trained on the tiny stories, once per test run."""
    from lib.text import tokenizer as tool

    with tempfile.TemporaryDirectory() as folder:
        return tool.train(stories()["text"].to_pylist() + NUMBERS, Path(folder) / "tiny.model", 340).model


def tokenizer() -> Dataset:
    return publish("tokenizer", {"tokenizer.model": _pieces()}, vocab_size=340)


@cache
def _weights(seed: int, tied: bool, layout: str, max_length: int) -> dict[str, bytes]:
    """A network of random weights, large enough that its logits differ between tokens."""
    import torch

    from lib.model.network import Llama, Shape, save_model
    from lib.text.template import digest_of
    from lib.text.tokenizer import Tokenizer

    loaded = Tokenizer(_pieces())
    torch.manual_seed(seed)
    network = Llama(Shape(vocab_size=loaded.vocab_size, tied=tied, **SIZES | {"max_length": max_length}))
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(8 if weight.dim() == 2 else 1).add_(0.1 * torch.randn_like(weight) if weight.dim() == 1 else 0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(network, Path(folder), layout=layout, template=digest_of(layout), tokenizer="", stage="tiny")
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return files | {"tokenizer.model": loaded.model}


def model(
    stage: str,
    *,
    seed: int,
    tied: bool = True,
    layout: str = "natural",
    max_length: int | None = None,
    **more: pa.Table,
) -> Dataset:
    """A model dataset as pretrain, instruct and align write it, with further tables if given."""
    files = _weights(seed, tied, layout, max_length or SIZES["max_length"]) | {
        f"{name}.parquet": table for name, table in more.items()
    }
    return publish(stage, files, {"tokenizer": tokenizer()}, bits_per_byte=2.5, reward_before=0.014, reward_after=0.571)


def models() -> dict[str, Dataset]:
    stages = {"base": "pretrain", "instruct": "instruct", "aligned": "align"}
    return {name: model(stage, seed=number) for number, (name, stage) in enumerate(stages.items())}


def chain(**evaluate_files: pa.Table) -> dict[str, Dataset]:
    """A whole chain by name, as the report gets it; its curves are made up, its samples are given or none."""
    from lib.store import schemas

    rows = stories()
    raw = rows.select(schemas.RAW.names)
    steps = range(1, 41)
    trained = [{"step": n, "tokens": n * 1000, "loss": 6 / n**0.4, "lr": 1e-3, "grad_norm": 1.0} for n in steps]
    evals = [
        {"step": n, "split": "val", "nats_per_token": 3.0, "bits_per_byte": 2 / n**0.2, "tokens": 10, "bytes": 30}
        for n in range(10, 41, 10)
    ]
    updates = [
        {"update": n, "loss": 0.1, "reward": n / 60, "kl": n / 900, "grad_norm": 1.0, "distinct_2": 0.8 - n / 200}
        | {"concept_per_100": 1.0, "share_ended": 1.0, "heldout_reward": n / 70 if n in (1, 40) else None}
        for n in steps
    ]

    def table(stage: str, name: str, values: list[dict]) -> pa.Table:
        return pa.Table.from_pylist(values, schema=schemas.TABLES[stage, name])

    curves = {"train_steps": table("pretrain", "train_steps", trained), "evals": table("pretrain", "evals", evals)}
    files = {name: table("evaluate", name, []) for name in ("samples", "metrics", "grades")} | evaluate_files
    return {
        "raw": publish("ingest", {"part-00000.parquet": raw}),
        "clean": publish(
            "clean",
            {"part-00000.parquet": rows.select(schemas.CLEAN.names)},
            counts={"rows_in": 57, "rows_out": 50},
            drops={"too_short": 6, "cut_off": 1},
        ),
        "split": publish("split", {"part-00000.parquet": rows}),
        "tokenizer": tokenizer(),
        "pretrain": model("pretrain", seed=0, **curves),
        "instruct": model("instruct", seed=1, **curves),
        "align": model("align", seed=2, updates=table("align", "updates", updates)),
        "evaluate": publish("evaluate", {f"{name}.parquet": rows for name, rows in files.items()}),
    }
