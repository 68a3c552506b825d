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
        places = self._places(entries[0])
        earlier = places - self._starts[entries[0]]
        met = np.cumsum(np.bincount(entries[1] - start, earlier, minlength=stop - start))
        if met[-1] > MEETINGS:
            stop = start + max(1, int(np.searchsorted(met, MEETINGS, "right")))
            ours = slice(0, np.searchsorted(entries[1], stop))
            entries, places, earlier = tuple(each[ours] for each in entries), places[ours], earlier[ours]
        self._enter(entries, places)
        return stop, *self._could_be_near(entries, places - earlier, earlier)

    def _could_be_near(self, entries: Entries, firsts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of each entry with those in its list, from places `firsts` on, by what stands behind the token."""
        _, rows, positions = entries
        held = self._held[ranges(firsts, counts)]
        others = held >> 8
        fits = self._spare[others] - (held & 255) >= np.repeat(self._half[rows], counts)
        others, entry = others[fits].astype(np.int64), np.repeat(np.arange(len(rows)), counts)[fits]
        fits = (self._spare[rows] - positions)[entry] >= self._half[others]
        return rows[entry[fits]], others[fits]

    def remove(self, start: int, stop: int, gone: np.ndarray) -> None:
        """Of the rows entered last, those that are gone meet nobody any more. Where they are many, they leave room."""
        self._spare[gone] = -np.inf
        if len(gone) > MANY * (stop - start):
            entries = self._entries(start, stop)
            np.subtract.at(self._ends, entries[0], np.uint32(1))
            stays = np.isfinite(self._spare[entries[1]])
            entries = tuple(each[stays] for each in entries)
            self._enter(entries, self._places(entries[0]))

    def _entries(self, start: int, stop: int) -> Entries:
        """The slots of the prefixes of these rows, row after row; whose they are, and where they stand there."""
        prefixes = self._sets.prefixes[start:stop]
        tokens = self._sets.tokens()[ranges(self._sets.starts[start:stop], prefixes)]
        positions = np.minimum(ranges(np.zeros_like(prefixes), prefixes), 255)  # less is safe: more could be near
        return tokens.astype(np.int64) & self._last_slot, np.repeat(np.arange(start, stop), prefixes), positions

    def _places(self, slots: np.ndarray) -> np.ndarray:
        """Where each entry goes: behind its list, and behind the entries of the same slot before it here."""
        by_slot = np.sort((slots << 32) | np.arange(len(slots)))
        entries, sorted_slots = by_slot & 0xFFFFFFFF, by_slot >> 32
        firsts = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
        within = np.arange(len(slots)) - np.repeat(firsts, np.diff(np.append(firsts, len(slots))))
        places = np.empty(len(slots), np.int64)
        places[entries] = self._ends[sorted_slots] + within
        return places

    def _enter(self, entries: Entries, places: np.ndarray) -> None:
        slots, rows, positions = entries
        self._held[places] = (rows << 8) | positions
        np.add.at(self._ends, slots, np.uint32(1))
