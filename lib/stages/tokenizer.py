"""Tokenizer: learn the vocabulary from the training stories, and from nothing else.

In:   split stories
Out:  tokenizer.model (SentencePiece), pieces; spelling: the pieces of every word in the stories;
      facts bytes_per_token (on val), vocab_size, digest, stories
Relies on lib/text/tokenizer.py for the flags that make it lossless.

It learns from the first training stories: the largest power of two of them, at most `most_stories`. So a corpus that
grows by a little keeps its vocabulary, and with it the tokens of every older story; one that doubles gets a new one.
What that costs: of 9,037 real TinyStories, 8,192 give 0.05 % fewer bytes a token than all, 4,096 give 0.26 % fewer.
"""

import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage
from lib.text.tokenizer import ModelType

STAGE = Stage("tokenizer", 2)


class TokenizerConfig(Config):
    """How large a vocabulary to learn."""

    vocab_size: int = Field(2048, ge=260, description="pieces, of which 256 are bytes and 3 controls")
    model_type: ModelType = Field("bpe", description="bpe merges pairs; unigram keeps the likeliest pieces")
    most_stories: int = Field(65_536, ge=1, description="training stories it is learned from at most, the first ones")


def tokenizer(draft: Draft, config: TokenizerConfig, *, stories: Dataset) -> None:
    """Train on split = train, measure on split = val."""
    from lib.text.tokenizer import train

    draft.progress(f"learning {config.vocab_size:,} pieces")
    num_stories = min(config.most_stories, _power_of_two_up_to(_num_train(stories)))
    texts = itertools.islice(_texts(stories, "train"), num_stories)
    trained = train(texts, draft.path / "tokenizer.model", config.vocab_size, config.model_type)
    draft.adopt("tokenizer.model")
    draft.write_table("pieces.parquet", trained.pieces())
    # A record: it follows from the model and the words, and a new word alone shall not make all tokens anew.
    draft.write_table("_record/spelling.parquet", _spelling(trained, stories))
    draft.fact(bytes_per_token=_bytes_per_token(trained, stories), vocab_size=trained.vocab_size)
    draft.fact(digest=trained.digest, stories=num_stories)


def _power_of_two_up_to(number: int) -> int:
    return 1 << max(number.bit_length() - 1, 0)


def _num_train(stories: Dataset) -> int:
    sides = (part.table(["split"])["split"] for part in stories.parts())
    return sum(pc.sum(pc.equal(side, "train")).as_py() or 0 for side in sides)


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
