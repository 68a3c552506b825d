"""Texts as runs of n words, each run one 64-bit number: for comparing many texts with few at the speed of numpy.

In:   a column of texts
Out:  Words: a number for every word (lower case, letters and digits only); `ngrams(n)`, a number for every run of n
Relies on 64 bits: among 400 million runs looked up in 10 million, one equals another by chance once in 5,000 times.

A word is what stands between blanks. Its number is a digest of its letters, the same in every process; a run's number
is a polynomial in its words' numbers, so that runs of any length come from one pass of sums.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.text.hashing import BASE, INVERSE, mixed, powers

NOT_IN_WORDS = re.compile(r"[\W_]+")
ROWS_AT_ONCE = 2000  # some 2 MB of stories while their words are split
MAX_CACHED = 500_000  # different chunks between blanks whose numbers are remembered: some 60 MB


@dataclass(frozen=True)
class Words:
    """The words of many texts, text after text: those of text i are numbers[bounds[i] : bounds[i + 1]]."""

    numbers: np.ndarray
    bounds: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.bounds)

    def take(self, places: np.ndarray) -> "Words":
        """The texts at these places, in that order."""
        lengths = self.lengths[places]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(bounds[-1]) + np.repeat(self.bounds[places] - bounds[:-1], lengths)
        return Words(self.numbers[at], bounds)

    def blocks(self) -> Iterator[tuple[int, "Words"]]:
        """The texts a few thousand at a time, so that arrays made of them stay small; and the first one's place."""
        for start in range(0, len(self.lengths), ROWS_AT_ONCE):
            yield start, self.take(np.arange(start, min(start + ROWS_AT_ONCE, len(self.lengths))))

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The runs of n words, and the text each stands in. A text of fewer words has none."""
        counts = np.maximum(self.lengths - n + 1, 0)
        texts = np.repeat(np.arange(len(counts)), counts)
        starts = np.arange(len(texts)) + np.repeat(self.bounds[:-1] - (np.cumsum(counts) - counts), counts)
        return self._runs(starts, starts + n), texts

    def whole(self) -> np.ndarray:
        """One number a text: equal for the same words in the same order."""
        return self._runs(self.bounds[:-1], self.bounds[1:])

    def _runs(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The number of the words from each start to its end: the sum of number[k] * BASE**(k - start), mixed."""
        sums = np.concatenate([[np.uint64(0)], np.cumsum(self.numbers * powers(BASE, len(self.numbers)))])
        return mixed((sums[ends] - sums[starts]) * powers(INVERSE, len(self.numbers) + 1)[starts])


class Reader:
    """Turns texts into Words, and remembers the numbers of the chunks it met."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def words(self, texts: pa.Array | pa.ChunkedArray) -> Words:
        """The words of every text. A null has none."""
        blocks = [self._words(texts.slice(at, ROWS_AT_ONCE)) for at in range(0, len(texts), ROWS_AT_ONCE)]
        lengths = np.concatenate([np.empty(0, np.int64), *(block.lengths for block in blocks)])
        numbers = np.concatenate([np.empty(0, np.uint64), *(block.numbers for block in blocks)])
        return Words(numbers, np.concatenate([[0], np.cumsum(lengths)]))

    def _words(self, texts: pa.Array | pa.ChunkedArray) -> Words:
        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        split = pc.utf8_split_whitespace(pc.fill_null(column, "").cast(pa.large_string()))
        chunks = split.flatten().dictionary_encode()
        numbers = np.fromiter(map(self._number, chunks.dictionary.to_pylist()), np.uint64, len(chunks.dictionary))
        numbers = numbers[chunks.indices.to_numpy()]
        before = np.concatenate([[0], np.cumsum(numbers > 0)])
        return Words(numbers[numbers > 0], before[split.offsets.to_numpy() - split.offsets[0].as_py()])

    def _number(self, chunk: str) -> int:
        """0 for a chunk without a letter or a digit."""
        if len(self._known) > MAX_CACHED:
            self._known.clear()
        if chunk not in self._known:
            word = plain(chunk)
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            self._known[chunk] = int.from_bytes(digest, "little") | 1 if word else 0
        return self._known[chunk]


def plain(chunk: str) -> str:
    """What of a chunk between blanks counts as its word."""
    return NOT_IN_WORDS.sub("", chunk.lower())
