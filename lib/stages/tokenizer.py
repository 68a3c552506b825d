"""Tokenizer: learn the vocabulary from the training stories, and from nothing else.

In:   split stories
Out:  tokenizer.model (SentencePiece BPE), pieces; spelling: the pieces of every word in the stories;
      facts bytes_per_token (on val), vocab_size, digest
Relies on lib/text/tokenizer.py for the flags that make it lossless.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage

STAGE = Stage("tokenizer", 2)


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
    # A record: it follows from the model and the words, and a new word alone shall not make all tokens anew.
    draft.write_table("_record/spelling.parquet", _spelling(trained, stories))
    draft.fact(bytes_per_token=_bytes_per_token(trained, stories), vocab_size=trained.vocab_size, digest=trained.digest)


def _texts(stories: Dataset, side: str) -> Iterator[str]:
    for part in stories.parts():
        table = part.table(["text", "split"])
        yield from table.filter(pc.equal(table["split"], side))["text"].to_pylist()


def _spelling(trained, stories: Dataset) -> pa.Table:
    """How each word is spelt inside a sentence: the dummy blank before a text makes a lone word the same."""
    words = sorted(set(stories.table(["word"], table="words")["word"].to_pylist()))
    pieces = trained.pieces()["piece"].to_pylist()
    spelt = [[pieces[token] for token in trained.encode(word)] for word in words]
    return pa.table({"word": pa.array(words, pa.string()), "pieces": pa.array(spelt, pa.list_(pa.string()))})


def _bytes_per_token(trained, stories: Dataset) -> float:
    """UTF-8 bytes of the val stories for each token of theirs, bos and eos not counted."""
    num_bytes = num_tokens = 0
    for part in stories.parts():
        table = part.table(["text", "split"])
        texts = table.filter(pc.equal(table["split"], "val"))["text"]
        num_bytes += pc.sum(pc.binary_length(texts)).as_py() or 0
        num_tokens += len(trained.encode_column(texts)[0])
    return round(num_bytes / max(num_tokens, 1), 4)
