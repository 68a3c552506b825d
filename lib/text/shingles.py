"""Near-duplicates, exactly: pairs of texts whose sets of 5-word shingles have a Jaccard similarity of at least 0.8.

In:   texts
Out:  pairs (near_pairs), or for each text the most similar earlier text that was kept (first_kept)
Relies on 64-bit hashes standing for the shingles (two among 10 million collide with a chance of 3 in a million).

How: two texts as similar as j share at least j of the shingles of each. So (1) shingles that only one text has are
dropped, then texts with less than j of their shingles left, and again, until nothing changes: 5 of 6 real stories go.
(2) With rare shingles first, such a pair meets in its first n - ceil(j n) + 1 shingles (Bayardo et al., "Scaling up all
pairs similarity search", 2007): only those are looked up, so that phrases which every text has cost nothing.
(3) Every pair that meets is counted in full. Nothing is estimated.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, splitmix64's step
ROWS_AT_ONCE = 2000  # some 2 MB of stories while their words are split
NOT_IN_WORDS = re.compile(r"[^\w]+|_")


class Shingles:
    """The shingle sets of many texts, and a digest of each text's words in their order."""

    def __init__(self, length: int = 5):
        self.length = length
        self._words: dict[str, int] = {}
        self._hashes: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._digests: list[np.ndarray] = []

    def add(self, texts: pa.Array | pa.ChunkedArray) -> None:
        """More texts, behind those added before."""
        for start in range(0, len(texts), ROWS_AT_ONCE):
            self._add(texts.slice(start, ROWS_AT_ONCE))

    def _add(self, texts: pa.Array | pa.ChunkedArray) -> None:
        codes, bounds = self._codes(texts)
        num_words = np.diff(bounds)
        # A text of fewer words than a shingle is one shingle: padding with code 0 behind each text makes that come out.
        padded = np.maximum(num_words, np.where(num_words > 0, self.length, 0))
        ends = np.cumsum(padded)
        line = np.zeros(int(padded.sum()), np.uint64)
        rows = np.repeat(np.arange(len(texts)), num_words)
        line[np.arange(len(codes)) - bounds[:-1][rows] + (ends - padded)[rows]] = codes
        num_shingles = np.maximum(padded - self.length + 1, 0)
        owner = np.repeat(np.arange(len(texts)), num_shingles)
        shift = ends - padded - (np.cumsum(num_shingles) - num_shingles)
        starts = np.arange(len(owner)) + np.repeat(shift, num_shingles)
        places = np.arange(len(line)) - np.repeat(ends - padded, padded)
        sums = np.concatenate([[np.uint64(0)], np.cumsum(_mixed(line * MIX + places.astype(np.uint64)))])
        self._digests.append(sums[ends] - sums[ends - padded])
        hashes = np.zeros(len(starts), np.uint64)
        for at in range(self.length):
            hashes = _mixed(hashes + line[starts + at] + MIX)
        _, once = np.unique(_mixed(hashes ^ (owner.astype(np.uint64) * MIX)), return_index=True)  # a set, text by text
        once.sort()
        self._hashes.append(hashes[once])
        self._sizes.append(np.bincount(owner[once], minlength=len(texts)))

    def _codes(self, texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """A number for every word of every text (lower case, letters and digits only), and where each text starts."""
        column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        split = pc.utf8_split_whitespace(column.cast(pa.large_string()))
        chunks = split.flatten().dictionary_encode()
        numbers = np.array([self._number(chunk) for chunk in chunks.dictionary.to_pylist()], np.uint64)
        codes = numbers[chunks.indices.to_numpy()]
        words_before = np.concatenate([[0], np.cumsum(codes > 0)])
        bounds = words_before[split.offsets.to_numpy() - split.offsets[0].as_py()]
        return codes[codes > 0], bounds

    def _number(self, chunk: str) -> int:
        word = NOT_IN_WORDS.sub("", chunk.lower())
        return self._words.setdefault(word, len(self._words) + 1) if word else 0

    def sets(self) -> tuple[np.ndarray, np.ndarray]:
        """All hashes, text by text, and how many each text has."""
        if not self._hashes:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        return np.concatenate(self._hashes), np.concatenate(self._sizes)

    def digests(self) -> np.ndarray:
        """One number a text: equal for the same words in the same order, whatever their case and punctuation."""
        return np.concatenate(self._digests) if self._digests else np.empty(0, np.uint64)


def near_pairs(
    texts: Iterable[str] | pa.Array | pa.ChunkedArray, jaccard: float = 0.8, shingle: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs i < j of texts at least `jaccard` similar: arrays i, j, similarity. A text without words is in none."""
    shingles = Shingles(shingle)
    shingles.add(texts if isinstance(texts, pa.Array | pa.ChunkedArray) else pa.array(list(texts), pa.string()))
    found = [(i, row, s) for row, near in _meetings(shingles, jaccard, drop=False) for i, s in near]
    i, j, similarity = zip(*sorted(found), strict=True) if found else ((), (), ())
    return np.array(i, np.int64), np.array(j, np.int64), np.array(similarity, np.float64)


def first_kept(shingles: Shingles, jaccard: float = 0.8) -> dict[int, tuple[int, float]]:
    """The texts that go: text -> (the most similar text kept before it, similarity), at least `jaccard`."""
    gone = {}
    for row, near in _meetings(shingles, jaccard, drop=True):
        if near:
            gone[row] = min(near, key=lambda pair: (-pair[1], pair[0]))
    return gone


def _meetings(shingles: Shingles, jaccard: float, drop: bool) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    """(text, [(earlier text, similarity), ...]) in order. With `drop`, whoever has such a text is met no more."""
    hashes, sizes = shingles.sets()
    rows, ranks = _pruned(hashes, np.repeat(np.arange(len(sizes)), sizes), sizes, jaccard)
    starts = np.searchsorted(rows, np.arange(len(sizes) + 1))
    marked = np.zeros(int(ranks.max()) + 1 if len(ranks) else 0, bool)
    holders: dict[int, list[int]] = defaultdict(list)
    for row in np.unique(rows).tolist():
        mine = ranks[starts[row] : starts[row + 1]]
        prefix = mine[: len(mine) - _least(sizes[row], jaccard) + 1].tolist()
        candidates = sorted({other for rank in prefix if rank in holders for other in holders[rank]})
        near = _verified(row, mine, candidates, ranks, starts, sizes, marked, jaccard) if candidates else []
        if near or not drop:
            yield row, near
        if not (near and drop):
            for rank in prefix:
                holders[rank].append(row)


def _verified(row, mine, candidates, ranks, starts, sizes, marked, jaccard) -> list[tuple[int, float]]:
    """The candidates that are near, with their exact similarity."""
    others = np.array(candidates)
    others = others[(sizes[others] >= jaccard * sizes[row] - 1e-9) & (jaccard * sizes[others] <= sizes[row] + 1e-9)]
    if not len(others):
        return []
    marked[mine] = True
    lengths = starts[others + 1] - starts[others]
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(starts[others] - (ends - lengths), lengths)
    common = np.add.reduceat(marked[ranks[places]].astype(np.int64), ends - lengths)
    marked[mine] = False
    similarity = common / (sizes[row] + sizes[others] - common)
    near = similarity >= jaccard
    return list(zip(others[near].tolist(), similarity[near].tolist(), strict=True))


def _pruned(hashes: np.ndarray, rows: np.ndarray, sizes: np.ndarray, jaccard: float) -> tuple[np.ndarray, np.ndarray]:
    """What can still take part: rows (ascending) and, for each, its shared shingles as ranks, the rarest first."""
    least = np.array([_least(size, jaccard) for size in range(int(sizes.max(initial=0)) + 1)])[sizes]
    while len(hashes):
        stays = _maybe_shared(hashes)
        left = np.bincount(rows[stays], minlength=len(sizes))
        stays &= (left >= least)[rows]
        if stays.all():
            break
        hashes, rows = hashes[stays], rows[stays]
    _, codes, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    shared = counts[codes] > 1
    by_rarity = np.empty(len(counts), np.int64)
    by_rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    keys = np.sort((rows[shared] << 32) | by_rarity[codes[shared]])
    rows, ranks = keys >> 32, keys & 0xFFFFFFFF
    enough = (np.bincount(rows, minlength=len(sizes)) >= least)[rows]
    return rows[enough], ranks[enough]


def _maybe_shared(hashes: np.ndarray) -> np.ndarray:
    """False only where no other text has this hash. Counts in 8 buckets a hash, no sort: one single in 8 stays."""
    bits = np.uint64(64 - max(16, math.ceil(math.log2(len(hashes))) + 3))
    buckets = (hashes >> bits).astype(np.int64)
    return np.bincount(buckets)[buckets] > 1


def _least(size: int, jaccard: float) -> int:
    """The least number of shingles a text of `size` shares with any text near it."""
    return max(1, math.ceil(jaccard * size - 1e-9))


def _mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the input moves half the bits of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
