"""Which texts have a rare token in common: a list of texts for every token of a prefix, filled as texts go by.

In:   sets of tokens (lib/text/sharing.py), the texts block by block, in order
Out:  the pairs (text, earlier text) whose prefixes share a token, a pair once for each such token

A list stands for a slot, the token modulo a power of two, so that memory depends on the number of entries alone. Tokens
that share a slot make a few more pairs meet, which is harmless.
"""

import numpy as np

from lib.text.numbers import ranges
from lib.text.sharing import Sets

MEETINGS = 1 << 20  # of one block: some 50 MB
ROWS_AT_ONCE = 4096
MOST_SLOT_BITS = 26  # with 8 bytes a slot: 512 MB


class Lists:
    """The lists of all slots in one array, each with room for every text that will ever be in it."""

    def __init__(self, sets: Sets) -> None:
        self._sets = sets
        total = int(sets.prefixes.sum())
        self._last_slot = (1 << min(MOST_SLOT_BITS, max(10, total.bit_length()))) - 1
        room = np.zeros(self._last_slot + 2, np.uint32)
        for start in range(0, len(sets.texts), ROWS_AT_ONCE):
            slots, _ = self._entries(start, min(start + ROWS_AT_ONCE, len(sets.texts)))
            np.add.at(room, slots + 1, np.uint32(1))
        self._starts = np.cumsum(room, out=room)
        self._ends = self._starts[:-1].copy()
        self._rows = np.empty(total, np.uint32)

    def meetings(self, start: int, stop: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Enter rows from `start` to `stop`, or fewer where they meet too many; (that stop, rows, whom they met)."""
        slots, rows = self._entries(start, stop)
        places = self._places(slots)
        earlier = places - self._starts[slots]
        met = np.cumsum(np.bincount(rows - start, earlier, minlength=stop - start))
        if met[-1] > MEETINGS:
            stop = start + max(1, int(np.searchsorted(met, MEETINGS, "right")))
            ours = slice(0, np.searchsorted(rows, stop))
            slots, rows, places, earlier = slots[ours], rows[ours], places[ours], earlier[ours]
        self._enter(slots, rows, places)
        others = self._rows[ranges(places - earlier, earlier)]
        return stop, np.repeat(rows, earlier), others.astype(np.int64)

    def remove(self, start: int, stop: int, gone: np.ndarray) -> None:
        """Of the rows entered last, take out those that are gone."""
        if len(gone):
            slots, rows = self._entries(start, stop)
            np.subtract.at(self._ends, slots, np.uint32(1))
            stays = np.ones(stop - start, bool)
            stays[gone - start] = False
            stays = stays[rows - start]
            self._enter(slots[stays], rows[stays], self._places(slots[stays]))

    def _entries(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The slots of the prefixes of these rows, and whose they are, row after row."""
        prefixes = self._sets.prefixes[start:stop]
        tokens = self._sets.tokens()[ranges(self._sets.starts[start:stop], prefixes)]
        return tokens.astype(np.int64) & self._last_slot, np.repeat(np.arange(start, stop), prefixes)

    def _places(self, slots: np.ndarray) -> np.ndarray:
        """Where each entry goes: behind its list, and behind the entries of the same slot before it here."""
        by_slot = np.sort((slots << 32) | np.arange(len(slots)))
        entries, sorted_slots = by_slot & 0xFFFFFFFF, by_slot >> 32
        firsts = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
        within = np.arange(len(slots)) - np.repeat(firsts, np.diff(np.append(firsts, len(slots))))
        places = np.empty(len(slots), np.int64)
        places[entries] = self._ends[sorted_slots] + within
        return places

    def _enter(self, slots: np.ndarray, rows: np.ndarray, places: np.ndarray) -> None:
        self._rows[places] = rows
        np.add.at(self._ends, slots, np.uint32(1))
