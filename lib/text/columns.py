"""A column of stories as one array of bytes: where rows and words begin, and which rows hold what.

In:   an Arrow string column without nulls
Out:  numpy views of it; masks over its bytes or words, reduced to one value a row
Relies on Arrow's layout: all rows lie in one buffer, one after the other.

Whole-column arithmetic costs 0.1–0.5 ns a byte, a Python loop over rows 50 ns: rules look here first.
"""

from functools import cached_property

import numpy as np
import pyarrow as pa

BLANK, NEWLINE = ord(" "), ord("\n")
PADDING = 40  # zero bytes behind the last row, so that fixed-size reads near the end stay inside


class Column:
    """The bytes of a string column. No copy is made until `padded` is read."""

    def __init__(self, texts: pa.Array):
        assert texts.null_count == 0
        _, offsets, data = texts.buffers()
        kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
        bounds = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        first, last = (int(bounds[0]), int(bounds[-1])) if len(bounds) else (0, 0)
        self.texts, self.num_rows = texts, len(texts)
        self.flat = np.frombuffer(data, np.uint8)[first:last] if data else np.empty(0, np.uint8)
        self.starts, self.ends = bounds[:-1] - first, bounds[1:] - first

    def any_in_rows(self, bytes_that: np.ndarray) -> np.ndarray:
        """Which rows (bool) hold at least one of the bytes that this mask marks."""
        found, filled = np.zeros(self.num_rows, np.uint8), self.ends > self.starts
        if filled.any():
            found[filled] = np.bitwise_or.reduceat(bytes_that.view(np.uint8), self.starts[filled])
        return found.view(bool)

    def text(self, row: int) -> str:
        return self.texts[int(row)].as_py()

    # ---- words: what lies between single blanks or newlines, as in repaired text

    @cached_property
    def _gaps(self) -> np.ndarray:
        return np.flatnonzero((self.flat == BLANK) | (self.flat == NEWLINE))

    @cached_property
    def _first_gaps(self) -> np.ndarray:
        """For each row, and once more for the end, the number of gaps before it."""
        return np.searchsorted(self._gaps, np.append(self.starts, len(self.flat)))

    @cached_property
    def words(self) -> np.ndarray:
        """Words of each row."""
        return np.where(self.ends > self.starts, np.diff(self._first_gaps) + 1, 0)

    @cached_property
    def word_starts(self) -> np.ndarray:
        """Where each word begins, but for the first of a row."""
        return self._gaps + 1

    @cached_property
    def heads(self) -> np.ndarray:
        """The first four bytes of each of `word_starts`, as one little-endian number."""
        return self.at_each_byte("<u4")[self.word_starts]

    def at_each_byte(self, kind: str) -> np.ndarray:
        """The number of this type that begins at each byte: an overlapping view."""
        size = np.dtype(kind).itemsize
        return np.ndarray((len(self.padded) - size + 1,), kind, self.padded, strides=(1,))

    @cached_property
    def padded(self) -> np.ndarray:
        return np.concatenate([self.flat, np.zeros(PADDING, np.uint8)])

    def words_starting(self, *starts: str) -> np.ndarray:
        """Which of `word_starts` (bool) begin with one of these: up to four ASCII characters each."""
        found = np.zeros(len(self.heads), bool)
        for start in starts:
            mask = np.uint32((1 << 8 * len(start)) - 1)
            found |= (self.heads & mask) == np.uint32(int.from_bytes(start.encode(), "little"))
        return found

    def per_row(self, chosen: np.ndarray) -> np.ndarray:
        """How many of these indices into `word_starts` (ascending) lie in each row."""
        return np.diff(np.searchsorted(chosen, self._first_gaps))
