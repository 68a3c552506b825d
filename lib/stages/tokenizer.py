"""Tokenizer: learn the vocabulary from the training stories, and from nothing else.

In:   split stories
Out:  tokenizer.model (SentencePiece BPE), pieces.parquet; facts bytes_per_token (on val), vocab_size, digest
Relies on lib/text/tokenizer.py for the flags that make it lossless.
"""

from collections.abc import Iterator

import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage

STAGE = Stage("tokenizer", 1)


class TokenizerConfig(Config):
    """How large a vocabulary to learn."""

    vocab_size: int = Field(2048, ge=260, description="pieces, of which 256 are bytes and 3 controls")


def tokenizer(draft: Draft, config: TokenizerConfig, *, stories: Dataset) -> None:
    """Train on split = train, measure on split = val."""
    from lib.text.tokenizer import train

    draft.progress(f"learning {config.vocab_size:,} pieces")
    trained = train(_texts(stories, "train"), draft.path / "tokenizer.model", config.vocab_size)
    draft.adopt("tokenizer.model")
    draft.write_table("pieces.parquet", trained.pieces())
    draft.fact(bytes_per_token=_bytes_per_token(trained, stories), vocab_size=trained.vocab_size, digest=trained.digest)


def _texts(stories: Dataset, side: str) -> Iterator[str]:
    for part in stories.parts():
        table = part.table(["text", "split"])
        yield from table.filter(pc.equal(table["split"], side))["text"].to_pylist()


def _bytes_per_token(trained, stories: Dataset) -> float:
    """UTF-8 bytes of the val stories for each token of theirs, bos and eos not counted."""
    num_bytes = num_tokens = 0
    for part in stories.parts():
        table = part.table(["text", "split"])
        texts = table.filter(pc.equal(table["split"], "val"))["text"]
        num_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
        num_tokens += len(trained.encode_column(texts)[0])
    return round(num_bytes / max(num_tokens, 1), 4)
