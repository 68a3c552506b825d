"""Which texts have a rare token in common: a list of texts for every token of a prefix, filled as texts go by.

In:   sets of tokens (lib/text/sharing.py), the texts block by block, in order
Out:  the pairs (text, earlier text) whose prefixes share a token and that could be near, judged by where it stands:
      before the first token they share, neither has one of the other's ("positional filter", Xiao et al., "Efficient
      similarity joins for near duplicate detection", 2008)

Of two near texts the shorter one, or either where they are alike, has the first token they share early: at least
2 j / (1 + j) of its shingles stand from there on ("indexing prefix", the same paper). So a token has two lists, of the
texts that have it early and of those that have it late in their prefix, and those that have it late are not looked up
against one another: that would be most of the work, the later tokens being the common ones.

The lists stand for slots, the token modulo a power of two, so that memory depends on the number of entries alone.
Tokens that share a slot make a few more pairs meet, which is harmless.
"""

import numpy as np

from lib.text.numbers import ranges
from lib.text.sharing import Sets

MEETINGS = 1 << 20  # of one block: some 50 MB
MANY = 0.25  # of a block's rows
ROWS_AT_ONCE = 4096
MOST_SLOT_BITS = 24  # with 16 bytes a slot: 256 MB

Entries = tuple[np.ndarray, ...]  # lists (2 * slot, and 1 more where late), rows, positions; by slot, then by row


class Lists:
    """The lists of all slots in one array, each with room for every text that will ever be in it."""

    def __init__(self, sets: Sets, jaccard: float) -> None:
        self._sets = sets
        # Near texts a and b share at least half[a] + half[b] tokens.
        half = jaccard / (1 + jaccard) * sets.sizes
        self._half = (half * (1 - 1e-6)).astype(np.float32)  # a little less, for rounding
        self._spare = (np.diff(sets.starts) * (1 + 1e-6) - self._half).astype(np.float32)
        self._early = self._spare - self._half  # the last position at which a larger text can share its first token
        total = int(sets.prefixes.sum())
        assert total < 1 << 31, f"{total:,} tokens of prefixes need more than 31 bits"
        self._last_slot = (1 << min(MOST_SLOT_BITS, max(10, total.bit_length() - 1))) - 1
        starts = np.zeros(2 * self._last_slot + 3, np.uint32)
        for start in range(0, len(sets.texts), ROWS_AT_ONCE):
            packed = self._packed(start, min(start + ROWS_AT_ONCE, len(sets.texts)))
            np.add.at(starts, ((packed >> 32) << 1 | packed & 1) + 1, np.uint32(1))
        self._lists = np.cumsum(starts, out=starts)[:-1].astype(np.int64)
        self._lists *= (1 << 32) + 1  # start << 32 | end; a slot's two lists side by side, for one miss of the cache
        self._held = np.empty(total, np.uint32)  # row << 8 | position, so that looking one up is one miss of the cache

    def meetings(self, start: int, stop: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Enter rows from `start` to `stop`, or fewer where they meet too many; (that stop, rows, whom they met)."""
        entries = self._entries(start, stop)
        firsts, ends = self._bounds(entries[0])
        counts = ends - firsts
        counts[1] *= 1 - (entries[0] & 1)  # late ones do not look up late ones
        met = np.cumsum(np.bincount(entries[1] - start, counts[0] + counts[1], minlength=stop - start))
        if met[-1] > MEETINGS:
            stop = start + max(1, int(np.searchsorted(met, MEETINGS, "right")))
            ours = entries[1] < stop
            entries = tuple(each[ours] for each in entries)
            firsts, counts, ends = firsts[:, ours], counts[:, ours], ends[:, ours]
        self._enter(entries, ends)
        return stop, *self._could_be_near(entries, firsts, counts)

    def _could_be_near(self, entries: Entries, firsts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of each entry with those in its two lists, by what stands behind the token."""
        _, rows, positions = entries
        early, late = (np.flatnonzero(each) for each in counts)
        counts = np.concatenate([counts[0, early], counts[1, late]])
        held = self._held[ranges(np.concatenate([firsts[0, early], firsts[1, late]]), counts)]
        some = np.concatenate([early, late])
        others = held >> 8
        fits = np.flatnonzero(self._spare[others] - (held & 255) >= np.repeat(self._half[rows[some]], counts))
        others, entry = others[fits].astype(np.int64), np.repeat(some, counts)[fits]
        fits = (self._spare[rows] - positions)[entry] >= self._half[others]
        fits &= rows[entry] != others  # two tokens of one text can share a slot
        return rows[entry[fits]], others[fits]

    def remove(self, start: int, stop: int, gone: np.ndarray) -> None:
        """Of the rows entered last, those that are gone meet nobody any more. Where they are many, they leave room."""
        self._spare[gone] = -np.inf
        if len(gone) > MANY * (stop - start):
            entries = self._entries(start, stop)
            np.subtract.at(self._lists, entries[0], 1)
            stays = np.isfinite(self._spare[entries[1]])
            entries = tuple(each[stays] for each in entries)
            self._enter(entries, self._bounds(entries[0])[1])

    def _entries(self, start: int, stop: int) -> Entries:
        """The prefixes of these rows by token: into which list each goes, whose it is, and where it stands there."""
        packed = np.sort(self._packed(start, stop))
        return (packed >> 32) << 1 | packed & 1, start + ((packed & 0xFFFFFFFF) >> 9), (packed >> 1) & 255

    def _packed(self, start: int, stop: int) -> np.ndarray:
        """Slot, row from `start` on (23 bits), position (8 bits; less is safe: more could be near), whether late."""
        prefixes = self._sets.prefixes[start:stop]
        tokens = self._sets.tokens()[ranges(self._sets.starts[start:stop], prefixes)].astype(np.int64)
        positions = np.minimum(ranges(np.zeros_like(prefixes), prefixes), 255)
        late = positions > np.repeat(self._early[start:stop], prefixes)
        rows = np.repeat(np.arange(stop - start), prefixes)
        return (tokens & self._last_slot) << 32 | rows << 9 | positions << 1 | late

    def _bounds(self, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the early and the late list of each entry's token start and end, with the entries before it here."""
        places, slots, late = np.arange(len(lists)), lists >> 1, lists & 1
        first = np.maximum.accumulate(np.where(np.diff(slots, prepend=-1), places, 0))  # of the same slot
        before_late = np.cumsum(late) - late
        before_late -= before_late[first]
        before = np.stack([places - first - before_late, before_late])
        bounds = np.stack([self._lists[lists & ~1], self._lists[lists | 1]])
        return bounds >> 32, (bounds & 0xFFFFFFFF) + before

    def _enter(self, entries: Entries, ends: np.ndarray) -> None:
        lists, rows, positions = entries
        self._held[np.where(lists & 1, ends[1], ends[0])] = rows << 8 | positions
        np.add.at(self._lists, lists, 1)
