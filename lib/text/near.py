"""Near duplicates, exactly: texts whose sets of 5-word shingles have a Jaccard similarity of at least 0.8.

In:   texts, any number of them, a thousand at a time
Out:  for each text the most similar earlier text that was kept (`Comparison.verdicts`), or all pairs (`near_pairs`)
Relies on hashes standing for shingles: a verdict is wrong only where two different shingles of one pair of texts have
equal hashes of 43 bits (2 million texts) or more: for 250,000 near pairs a chance of 1 in 100,000.

How: (1) lib/text/sharing.py drops what cannot have a near duplicate. (2) With the rarest shingles first, two texts near
each other meet in their prefixes, the first n - ceil(j n) + 1 of n (Bayardo et al., "Scaling up all pairs similarity
search", 2007): only those are looked up, so phrases which every text has cost nothing. (3) Of two texts that met, the
sketches (a bit per 256th of the tokens) must not differ in more bits than near texts' sets differ in tokens ("bitmap
filter", Sandes et al. 2020): 8 numbers instead of 400 tell of nearly all that they are not near. (4) Pairs that are
left are counted in full. No step can lose a pair; only (4) says yes.

Texts are compared block by block, in order. Whoever has a near text kept before it is not looked up any more, so that
ten thousand variants of one story cost as much as ten thousand stories.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from lib.errors import UserError
from lib.text.meetings import Lists
from lib.text.numbers import LIMIT, Numbers, ranges
from lib.text.sharing import Sets, row_bits, shared_sets
from lib.text.shingles import shingles

MOST_TEXTS = 1 << 24  # 40 bits of a hash are left beside a text's number
BLOCK = 4096  # texts of one block, where they meet seldom
COUNTED = 1 << 20  # tokens counted at once


class Verdicts(NamedTuple):
    """For every text, in the order of adding."""

    kept: np.ndarray  # the text it is a duplicate of; -1 where it stays
    similarity: np.ndarray
    exact: np.ndarray  # the same words in the same order


class Comparison:
    """Add `num_texts` texts, then ask once for the verdicts. A context: its files, if it needs any, go when it ends."""

    def __init__(
        self, num_texts: int, jaccard: float = 0.8, shingle: int = 5, folder: Path | None = None, _limit: int = LIMIT
    ) -> None:
        if num_texts > MOST_TEXTS:
            raise UserError(
                f"found {num_texts:,} texts to compare, expected at most {MOST_TEXTS:,}; take fewer at once"
            )
        self.jaccard, self.shingle, self._limit = jaccard, shingle, _limit
        self._scratch = tempfile.TemporaryDirectory(prefix="_compare-", dir=folder)
        self._keys = Numbers(Path(self._scratch.name), "by-shingle", _limit)
        self._sizes, self._digests = np.zeros(num_texts, np.int64), np.zeros(num_texts, np.uint64)
        self._added = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._keys.close()
        self._scratch.cleanup()

    def add(self, texts: pa.Array | pa.ChunkedArray) -> None:
        """More texts, behind those added before."""
        bits = row_bits(len(self._sizes))
        for some in shingles(texts, self.shingle):
            rows = np.arange(self._added, self._added + len(some.counts))
            self._added += len(rows)
            self._sizes[rows], self._digests[rows] = some.counts, some.digests
            keys = (some.hashes >> bits) << bits
            keys |= np.repeat(rows.astype(np.uint64), some.counts)
            self._keys.add(keys)

    def verdicts(self, order: np.ndarray | None = None) -> Verdicts:
        """A text goes with the most similar one that stands before it in `order` and is kept; the first of equals."""
        rows = len(self._sizes)
        kept, similarity = np.full(rows, -1), np.zeros(rows, np.float64)
        for texts, others, how in self._pairs(np.arange(rows) if order is None else order, drop=True):
            kept[texts], similarity[texts] = others, how
        exact = (kept >= 0) & (self._digests == self._digests[kept]) & (similarity == 1)
        return Verdicts(kept, similarity, exact)

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """All near pairs, block by block: texts, earlier texts, similarities."""
        return self._pairs(np.arange(len(self._sizes)), drop=False)

    def _pairs(self, order: np.ndarray, drop: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        assert self._added == len(self._sizes), f"{self._added:,} of {len(self._sizes):,} texts were added"
        # Half the limit: what is held by shingle is in memory at the same time.
        with closing(Numbers(Path(self._scratch.name), "by-text", self._limit // 2)) as by_text:
            sets = shared_sets(self._keys, by_text, self._sizes, order, self.jaccard)
        for rows, others, similarity in _Join(sets, self.jaccard, drop).blocks():
            yield sets.texts[rows], sets.texts[others], similarity


def near_pairs(texts: Iterable[str], jaccard: float = 0.8, shingle: int = 5) -> list[tuple[int, int, float]]:
    """All pairs i < j of texts at least `jaccard` similar, with their similarity. A text without words is in none."""
    column = pa.array(list(texts), pa.string())
    with Comparison(len(column), jaccard, shingle) as comparison:
        comparison.add(column)
        blocks = list(comparison.pairs())
    rows, others, similarity = (
        (np.concatenate(each).tolist() for each in zip(*blocks, strict=True)) if blocks else ((),) * 3
    )
    return sorted(zip(others, rows, similarity, strict=True))


class _Join:
    """Finds pairs among `sets`, block by block."""

    def __init__(self, sets: Sets, jaccard: float, drop: bool) -> None:
        self.sets, self.jaccard, self.drop = sets, jaccard, drop
        self.num_tokens = np.diff(sets.starts)
        self.lists = Lists(sets, jaccard)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(rows, others, similarities), with `drop` one a row: its verdict."""
        start, size = 0, 64
        while start < len(self.sets.texts):
            stop, rows, others = self.lists.meetings(start, min(start + size, len(self.sets.texts)))
            pairs = self._near(start, rows, others)
            if self.drop:
                pairs = first_kept(*pairs)
                self.lists.remove(start, stop, gone=pairs[0])
            yield pairs
            start, size = stop, min(BLOCK, 2 * (stop - start))

    def _near(self, start: int, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs that are near. With `drop`: of rows that a text before the block lets go, no row is a partner."""
        rows, others = self._maybe_near(rows, others)
        if not self.drop:
            return self._counted(rows, others)
        before = others < start
        found = self._counted(rows[before], others[before])
        gone = np.zeros(len(self.sets.texts) - start, bool)
        gone[found[0] - start] = True
        within = np.flatnonzero(~before)
        within = within[~gone[others[within] - start]]
        more = self._counted(rows[within], others[within])
        return tuple(np.concatenate(both) for both in zip(found, more, strict=True))

    def _maybe_near(self, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each pair once, without those that the sketches tell to be different."""
        pairs = np.sort((rows << 32) | others)
        pairs = pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])] if len(pairs) else pairs
        rows, others = pairs >> 32, pairs & 0xFFFFFFFF
        least = self.jaccard / (1 + self.jaccard) * (self.sets.sizes[rows] + self.sets.sizes[others])
        most_differ = self.num_tokens[rows] + self.num_tokens[others] - 2 * least + 1e-6
        differ = np.bitwise_count(self.sets.sketches[rows] ^ self.sets.sketches[others]).sum(1, dtype=np.int64)
        fits = differ <= most_differ
        return rows[fits], others[fits]

    def _counted(self, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs that are near, by counting every token they share."""
        common = np.zeros(len(rows), np.int64)
        bounds = np.cumsum(self.num_tokens[rows] + self.num_tokens[others])
        start, tokens = 0, self.sets.tokens()
        while start < len(rows):
            done = bounds[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(bounds, done + COUNTED, "right")))
            numbers = np.arange(stop - start, dtype=np.uint64) << np.uint64(32)
            both = [
                np.repeat(numbers, self.num_tokens[side])
                | tokens[ranges(self.sets.starts[side], self.num_tokens[side])]
                for side in (rows[start:stop], others[start:stop])
            ]
            merged = np.sort(np.concatenate(both))
            twice = merged[1:][merged[1:] == merged[:-1]] >> np.uint64(32)
            common[start:stop] = np.bincount(twice.view(np.int64), minlength=stop - start)
            start = stop
        similarity = common / (self.sets.sizes[rows] + self.sets.sizes[others] - common)
        near = similarity >= self.jaccard
        return rows[near], others[near], similarity[near]


def first_kept(rows: np.ndarray, others: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each row with a kept partner, the pair with the most similar one, the first of equals."""
    best = np.lexsort((others, -similarity, rows))
    gone: dict[int, int] = {}
    for at, row, other in zip(best.tolist(), rows[best].tolist(), others[best].tolist(), strict=True):
        if row not in gone and other not in gone:  # the other stands before it: its own verdict is settled
            gone[row] = at
    chosen = np.array(list(gone.values()), np.int64)
    return rows[chosen], others[chosen], similarity[chosen]
