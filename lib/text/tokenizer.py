"""The tokenizer: SentencePiece, trained on stories, or a public model's own; with a fast exact path for whole columns.

In:   stories (training), strings or Arrow columns (encoding)
Out:  ids as Python lists or as one flat numpy array with offsets
Relies on lib/text/pieces.py for the library behind it, and on flags (`FLAGS`) that make a model trained here lossless:
decode(encode(text)) == text wherever no U+2581 stands.

bos and eos are *control* pieces: text that says "<s>" is spelled out, never one of them, so no story can forge a turn.
"""

import hashlib
import io
import itertools
import re
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.errors import UserError
from lib.text.columns import Column
from lib.text.pieces import SentencePieces, opened

ModelType = Literal["bpe", "unigram"]  # pairs merged by their count, or the likeliest way to cut a text up
BLANK = "\u2581"  # what SentencePiece writes for a space: the one character that does not survive a round trip
NUM_BYTES_AND_CONTROLS = 256 + 3
BLOCK = 1000  # rows encoded at once where chunks cannot be
MAX_CACHED_CHUNKS = 2_000_000  # about 300 MB; real stories have 10 new chunks each at first, then ever fewer
FLAGS = {
    "normalization_rule_name": "identity",
    "byte_fallback": True,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": True,
    "unk_surface": " \u2047 ",
    "character_coverage": 1.0,
    "self_test_sample_size": 0,
    "max_sentence_length": 1 << 24,  # bytes; longer sentences are skipped in silence, so this must exceed any story
    "num_threads": 1,  # one request, one model: never let the order of threads decide a tie
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "minloglevel": 2,
}


def train(stories: Iterable[str], path: Path, vocab_size: int, model_type: ModelType = "bpe") -> "Tokenizer":
    """Train on whole stories and write the model to `path`.

    Whole stories, not their paragraphs: the first word of a paragraph is then learned as it will be met (`One` after a
    newline, not ` One`), and `.` + newline becomes one piece. Real TinyStories, 2,048 pieces: 3.70 against 3.61 bytes a
    token. Raises UserError if the text cannot fill `vocab_size` (naming the largest that fits), needs more, or is
    empty.
    """
    import sentencepiece

    model = io.BytesIO()
    sentences = _countable(stories)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=model, vocab_size=vocab_size, model_type=model_type, **FLAGS
        )
    except RuntimeError as error:
        raise _explained(error, vocab_size) from error
    path.write_bytes(model.getvalue())
    return Tokenizer(model.getvalue())


def _countable(stories: Iterable[str]) -> Iterator[str]:
    """The stories that hold anything. None at all is said here: SentencePiece would say `!sentences_.empty()`."""
    any_text = False
    for story in stories:
        if story.strip():
            any_text = True
            yield story
    if not any_text:
        raise UserError("found no text to train a tokenizer on, expected at least one story: look at what split kept")


def _explained(error: RuntimeError, vocab_size: int) -> Exception:
    """SentencePiece's two refusals in words a user can act on; anything else unchanged."""
    if found := re.search(r"set it to a value <= (\d+)", str(error)):
        return UserError(
            f"found text that fills at most {found[1]} pieces, expected {vocab_size}: "
            f"set tokenizer.vocab_size to {found[1]} or less, or give more stories"
        )
    if found := re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error)):
        return UserError(
            f"found {int(found[1]) - NUM_BYTES_AND_CONTROLS} different characters in the stories, which with 256 bytes "
            f"and 3 controls need {found[1]} pieces, expected at most {vocab_size}: raise tokenizer.vocab_size"
        )
    return error


class Tokenizer:
    """A model: ids of text and text of ids. One trained here has unk 0, bos 1, eos 2; a public one has its own.

    bos and eos may be one id, as in SmolLM2's vocabulary.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._pieces = opened(model)
        self.bos_id, self.eos_id, self.unk_id = self._pieces.bos_id, self._pieces.eos_id, self._pieces.unk_id
        self.vocab_size = self._pieces.vocab_size
        self._lock = threading.Lock()
        self._forget()

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        if not Path(path).is_file():
            raise UserError(f"found no tokenizer at {path}, expected a SentencePiece .model file")
        return cls(Path(path).read_bytes())

    @cached_property
    def digest(self) -> str:
        """sha256 of the model file, 12 hex digits."""
        return hashlib.sha256(self.model).hexdigest()[:12]

    @property
    def is_sentencepiece(self) -> bool:
        """Whether `model` is a SentencePiece .model, which other programs open as it is."""
        return isinstance(self._pieces, SentencePieces)

    @property
    def dtype(self) -> np.dtype:
        """What one id needs on disk: uint16 up to 65,536 pieces, uint32 above (uint16 would wrap in silence)."""
        return np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)

    def encode(self, text: str) -> list[int]:
        return self._pieces.encode([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of these ids; bos and eos have none."""
        return self._pieces.decode(ids)

    def pieces(self) -> pa.Table:
        """piece_id, piece, score, kind (normal, byte, control, unknown): the whole vocabulary."""
        return self._pieces.table()

    def encode_column(self, texts: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The ids of every row, one after the other, and where each row starts (n + 1 offsets). No row may be null.

        Equal to `encode` row by row. In a vocabulary trained here by pairs, a piece never spans a blank, so each
        distinct blank-separated chunk is encoded once in the life of this object and the rows are gathered. Rows with
        odd blanks (leading, trailing, double) go through `encode`, and so do all rows of any other vocabulary.
        """
        rows = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        if not self._pieces.by_chunks:
            return self._row_by_row(rows)
        column = Column(rows)
        chunks, bounds = _chunks(column)
        chunks = chunks.dictionary_encode()
        codes, odd = chunks.indices.to_numpy(), _odd_rows(column, chunks, bounds)
        if len(odd):  # leave them out for now: the entry behind the last one spells nothing
            codes = codes.copy()
            codes[np.repeat(np.isin(np.arange(len(rows)), odd), np.diff(bounds))] = len(chunks.dictionary)
        spelled = self._spelled([*chunks.dictionary.to_pylist(), None]).take(pa.array(codes))
        _, ends, data = spelled.buffers()
        offsets = np.frombuffer(ends, np.int64)[bounds] // self.dtype.itemsize
        ids = np.frombuffer(data, self.dtype, offsets[-1]) if data else np.empty(0, self.dtype)
        return self._with_odd_rows(rows, odd, ids, offsets)

    def _row_by_row(self, rows: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """As `encode_column`, a block of rows at a time: Python's lists of ids take ten times their room."""
        blocks = (rows.slice(start, BLOCK).to_pylist() for start in range(0, len(rows), BLOCK))
        lengths, flat = [np.zeros(1, np.int64)], [np.empty(0, self.dtype)]
        for ids in map(self._pieces.encode, blocks):
            lengths.append(np.array([len(one) for one in ids], np.int64))
            flat.append(np.fromiter(itertools.chain.from_iterable(ids), self.dtype))
        return np.concatenate(flat), np.cumsum(np.concatenate(lengths))

    def _with_odd_rows(self, rows: pa.Array, odd: np.ndarray, ids: np.ndarray, offsets: np.ndarray):
        """`ids` with the rows at `odd` (so far without an id) spelled out by SentencePiece itself."""
        if not len(odd):
            return ids, offsets
        spelled = [np.array(self.encode(rows[int(i)].as_py()), self.dtype) for i in odd]
        lengths = np.diff(offsets)
        lengths[odd] = [len(one) for one in spelled]
        places = np.repeat(offsets[odd], lengths[odd])
        return np.insert(ids, places, np.concatenate(spelled)), np.concatenate([[0], np.cumsum(lengths)])

    def _spelled(self, chunks: list[str | None]) -> pa.Array:
        """The ids of each of these distinct chunks as bytes; those not met before are encoded. None has no ids.

        As bytes, because Arrow gathers a column of byte strings three times as fast as numpy gathers slices.
        """
        with self._lock:
            if len(self._known) > MAX_CACHED_CHUNKS:
                self._forget()
            new = [chunk for chunk in chunks if chunk not in self._known]
            for chunk, ids in zip(new, self._pieces.encode([each.removeprefix(" ") for each in new]), strict=True):
                self._known[chunk] = np.array(ids, self.dtype).tobytes()
            return pa.array([self._known[chunk] for chunk in chunks], pa.large_binary())

    def _forget(self) -> None:
        self._known: dict[str | None, bytes] = {None: b""}


def _chunks(column: Column) -> tuple[pa.Array, np.ndarray]:
    """The column cut before every blank, without copying a byte, and where each row's chunks begin (n + 1 offsets).

    A chunk keeps the blank before it. That blank is what SentencePiece puts before a row's first chunk anyway.
    """
    cut, filled = column.flat == ord(" "), column.ends > column.starts
    cut[column.starts[filled]] = True
    places = np.flatnonzero(cut)
    offsets = pa.py_buffer(np.append(places, len(cut)))
    chunks = pa.Array.from_buffers(pa.large_string(), len(places), [None, offsets, pa.py_buffer(column.flat)])
    return chunks, np.searchsorted(places, np.append(column.starts, len(cut)))


def _odd_rows(column: Column, chunks: pa.DictionaryArray, bounds: np.ndarray) -> np.ndarray:
    """Rows with a blank at an end, two side by side, or U+2581: there a chunk's ids are not those it has in its row."""
    different = chunks.dictionary
    odd = pc.or_(pc.equal(different, " "), pc.match_substring(different, BLANK)).to_numpy(zero_copy_only=False)
    rows, filled = np.zeros(column.num_rows, bool), column.ends > column.starts
    if odd.any():
        places = np.flatnonzero(odd[chunks.indices.to_numpy()])
        rows[np.searchsorted(bounds, places, side="right") - 1] = True
    rows[filled] |= column.flat[column.starts[filled]] == ord(" ")
    return np.flatnonzero(rows)
