"""Which texts have a rare token in common: a list of texts for every token of a prefix, filled as texts go by.

In:   sets of tokens (lib/text/sharing.py), the texts block by block, in order
Out:  the pairs (text, earlier text) whose prefixes share a token and that could be near, judged by where it stands:
      before the first token they share, neither has one of the other's ("positional filter", Xiao et al., "Efficient
      similarity joins for near duplicate detection", 2008)

A list stands for a slot, the token modulo a power of two, so that memory depends on the number of entries alone. Tokens
that share a slot make a few more pairs meet, which is harmless.
"""

import numpy as np

from lib.text.numbers import ranges
from lib.text.sharing import Sets

MEETINGS = 1 << 20  # of one block: some 50 MB
MANY = 0.25  # of a block's rows
ROWS_AT_ONCE = 4096
MOST_SLOT_BITS = 25  # with 8 bytes a slot: 256 MB

Entries = tuple[np.ndarray, ...]  # slots, rows, positions


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
        self._last_slot = (1 << min(MOST_SLOT_BITS, max(10, total.bit_length()))) - 1
        room = np.zeros(self._last_slot + 2, np.uint32)
        for start in range(0, len(sets.texts), ROWS_AT_ONCE):
            slots = self._entries(start, min(start + ROWS_AT_ONCE, len(sets.texts)))[0]
            np.add.at(room, slots + 1, np.uint32(1))
        self._starts = np.cumsum(room, out=room)
        self._ends = self._starts[:-1].copy()
        self._held = np.empty(total, np.uint32)  # row << 8 | position, so that looking one up is one miss of the cache

    def meetings(self, start: int, stop: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Enter rows from `start` to `stop`, or fewer where they meet too many; (that stop, rows, whom they met)."""
        entries = self._entries(start, stop)
        ends = self._ends_before(entries[0])
        firsts = np.stack([self._starts[entries[0] & ~1], self._starts[entries[0] | 1]]).astype(np.int64)
        counts = ends - firsts
        counts[1, (entries[0] & 1) == 1] = 0
        met = np.cumsum(np.bincount(entries[1] - start, counts.sum(0), minlength=stop - start))
        if met[-1] > MEETINGS:
            stop = start + max(1, int(np.searchsorted(met, MEETINGS, "right")))
            ours = slice(0, np.searchsorted(entries[1], stop))
            entries = tuple(each[ours] for each in entries)
            firsts, counts, ends = firsts[:, ours], counts[:, ours], ends[:, ours]
        self._enter(entries, ends)
        return stop, *self._could_be_near(entries, firsts, counts)

    def _could_be_near(self, entries: Entries, firsts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of each entry with those in its two lists, by what stands behind the token."""
        _, rows, positions = entries
        held = self._held[ranges(firsts.ravel(), counts.ravel())]
        others, entry = held >> 8, np.repeat(np.tile(np.arange(len(rows)), 2), counts.ravel())
        fits = self._spare[others] - (held & 255) >= self._half[rows][entry]
        others, entry = others[fits].astype(np.int64), entry[fits]
        fits = (self._spare[rows] - positions)[entry] >= self._half[others]
        fits &= rows[entry] != others  # two tokens of one text can share a slot
        return rows[entry[fits]], others[fits]

    def remove(self, start: int, stop: int, gone: np.ndarray) -> None:
        """Of the rows entered last, those that are gone meet nobody any more. Where they are many, they leave room."""
        self._spare[gone] = -np.inf
        if len(gone) > MANY * (stop - start):
            entries = self._entries(start, stop)
            np.subtract.at(self._ends, entries[0], np.uint32(1))
            stays = np.isfinite(self._spare[entries[1]])
            entries = tuple(each[stays] for each in entries)
            self._enter(entries, self._ends_before(entries[0]))

    def _entries(self, start: int, stop: int) -> Entries:
        """The slots of the prefixes of these rows, row after row; whose they are, and where they stand there."""
        prefixes = self._sets.prefixes[start:stop]
        tokens = self._sets.tokens()[ranges(self._sets.starts[start:stop], prefixes)]
        rows, positions = np.repeat(np.arange(start, stop), prefixes), ranges(np.zeros_like(prefixes), prefixes)
        positions = np.minimum(positions, 255)  # less is safe: more could be near
        late = positions > self._early[rows]
        return ((tokens.astype(np.int64) << 1) | late) & self._last_slot, rows, positions

    def _ends_before(self, slots: np.ndarray) -> np.ndarray:
        """Where the early and the late list of each entry's token end, with the entries before it here."""
        by_token = np.sort(((slots >> 1) << 32) | (np.arange(len(slots)) << 1) | (slots & 1))
        tokens, entries, late = by_token >> 32, (by_token & 0xFFFFFFFF) >> 1, by_token & 1
        firsts = np.flatnonzero(np.diff(tokens, prepend=-1))
        lengths = np.diff(np.append(firsts, len(slots)))
        before, late_before = np.arange(len(slots)), np.cumsum(late) - late
        before, late_before = (each - np.repeat(each[firsts], lengths) for each in (before, late_before))
        ends = np.empty((2, len(slots)), np.int64)
        ends[0, entries] = self._ends[2 * tokens] + (before - late_before)
        ends[1, entries] = self._ends[2 * tokens + 1] + late_before
        return ends

    def _enter(self, entries: Entries, ends: np.ndarray) -> None:
        slots, rows, positions = entries
        self._held[np.where(slots & 1, ends[1], ends[0])] = (rows << 8) | positions
        np.add.at(self._ends, slots, np.uint32(1))
