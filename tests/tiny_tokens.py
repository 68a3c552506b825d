"""A tokenizer and token datasets of a few dozen made-up stories, for the tests of training."""

import random
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from lib.store import Config, Dataset, Draft, Stage, build
from lib.text import tokenizer as pieces
from lib.text.template import Template, digest_of, instruction


class TinyTokenizer(Config):
    vocab_size: int = 330


class TinyTokens(Config):
    layout: str = "pretrain"
    stories: int = 60


def story(number: int) -> tuple[str, str]:
    """(summary, text) of one story; lengths differ."""
    draw = random.Random(number)
    who, what = draw.choice(["cat", "dog", "boy", "girl"]), draw.choice(["ball", "tree", "boat", "hat"])
    middle = " ".join(
        draw.choice(["It was red.", "They ran home.", "The sun was up."]) for _ in range(draw.randint(1, 4))
    )
    return f"a story about a {who}", f"One day a {who} saw a {what}. {middle} The {who} was glad."


@cache
def _pieces(vocab_size: int) -> bytes:
    """A SentencePiece model, trained once per test run."""
    with tempfile.TemporaryDirectory() as folder:
        return pieces.train([story(n)[1] for n in range(60)], Path(folder) / "tokenizer.model", vocab_size).model


def tokenizer_of(vocab_size: int = 330) -> Dataset:
    def fill(draft: Draft, config: TinyTokenizer) -> None:
        draft.write_bytes("tokenizer.model", _pieces(config.vocab_size))

    return build(Stage("tokenizer", 1), TinyTokenizer(vocab_size=vocab_size), {}, fill)


def tokens_of(tokenizer: Dataset, **config: object) -> Dataset:
    def fill(draft: Draft, config: TinyTokens, *, tokenizer: Dataset) -> None:
        template = Template(pieces.Tokenizer.load(tokenizer.file("tokenizer.model")))
        summaries, texts = zip(*(story(n) for n in range(config.stories)), strict=True)
        asked = pa.array([instruction(summary) for summary in summaries])
        ids, offsets, prompts = template.training_columns(config.layout, asked, pa.array(texts))
        half = config.stories // 2  # two shards
        cut = offsets[half]
        for shard, part in enumerate((ids[:cut], ids[cut:])):
            draft.write_bytes(f"tokens-{shard:05d}.bin", np.ascontiguousarray(part).tobytes())
        shards = np.arange(config.stories) >= half
        index = {
            "story_id": [f"s{n}" for n in range(config.stories)],
            "split": ["val" if n % 5 == 0 else "train" for n in range(config.stories)],
            "shard": shards.astype(np.int32),
            "offset": offsets[:-1] - shards * cut,
            "length": np.diff(offsets).astype(np.int32),
            "prompt_length": prompts.astype(np.int32),
            "text_bytes": np.array([len(text.encode()) for text in texts], np.int32),
            "layout": [config.layout] * config.stories,
        }
        draft.write_table("part-00000.parquet", pa.table(index))
        draft.fact(dtype=ids.dtype.name, template=digest_of(config.layout))

    return build(Stage("tokens", 1), TinyTokens(**config), {"tokenizer": tokenizer}, fill)
