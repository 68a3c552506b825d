"""A tally of millions: how often each of them was seen, at 8 bytes a sighting.

In:   numbers below 2^64, one after the other
Out:  for each, how often it came before

A Counter takes some 130 bytes for each of a million keys. Here what was seen long ago is one sorted array, and a
Counter holds the last ones only.
"""

from bisect import bisect_left, bisect_right
from collections import Counter

import numpy as np

RECENT = 65_536  # sightings between two merges


class Tally:
    """How often each number came."""

    def __init__(self) -> None:
        self._recent: Counter[int] = Counter()
        self._old = memoryview(np.empty(0, np.uint64))  # a memoryview gives Python ints, which bisect compares quickly

    def add(self, number: int) -> int:
        """One more of these; how many there were before it."""
        old = self._old
        place = bisect_left(old, number)
        there = bisect_right(old, number, place) - place if place < len(old) and old[place] == number else 0
        before = there + self._recent[number]
        self._recent[number] += 1
        if len(self._recent) >= RECENT:
            new = np.fromiter(self._recent.elements(), np.uint64)
            self._old = memoryview(np.sort(np.concatenate([np.asarray(old), new]), kind="stable"))
            self._recent.clear()
        return before
