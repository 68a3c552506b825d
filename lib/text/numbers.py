"""Many 64-bit numbers in ascending order: in memory up to a limit, beyond it in files.

In:   arrays of uint64 in any order
Out:  the same numbers piece by piece, ascending, each piece as large as memory and cache like it; pieces can be put
      back smaller. No piece ends between two numbers whose highest six bits are equal

Beyond the limit the numbers are spread over 64 files by their highest six bits (a distribution sort), so memory
holds the limit and one file at a time, however many they are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

LIMIT = 1 << 22  # numbers in memory: 32 MB, the shingles of 20,000 stories
FILES = 64  # with 2 million stories some 50 MB each
PER_PIECE = 1 << 18  # 2 MB: what follows the sort runs in the processor's cache


class Numbers:
    """Add, then iterate; `put` replaces what a piece holds."""

    def __init__(self, scratch: Path, name: str, limit: int = LIMIT) -> None:
        self.folder, self._limit = scratch / name, limit
        self._held = np.empty(limit, np.uint64)  # untouched pages cost nothing
        self._filled = 0
        self._pieces: list[np.ndarray] = []
        self._files: list[BinaryIO] = []
        self._in_order: set[int] = set()  # files that were put back: they need no sorting

    @property
    def spilled(self) -> bool:
        """Whether there were too many for memory."""
        return bool(self._files)

    def add(self, values: np.ndarray) -> None:
        for start in range(0, len(values), self._limit):
            some = values[start : start + self._limit]
            if self._filled + len(some) > self._limit:
                self._spill()
            self._held[self._filled : self._filled + len(some)] = some
            self._filled += len(some)

    def pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number, ascending values) of each piece in ascending order; the empty ones are left out."""
        self._close()
        for n in range(len(self._files or self._pieces)):
            values = self._read(n) if self.spilled else self._pieces[n]
            if len(values):
                yield n, values

    def put(self, n: int, values: np.ndarray) -> None:
        """`values`, ascending, instead of what piece `n` held."""
        if self.spilled:
            self._files[n].seek(0)
            self._files[n].write(values.data)
            self._files[n].truncate()  # afterwards: the system keeps the pages that are written over
            self._in_order.add(n)
        else:  # in place: a page of memory touched for the first time costs more than sorting what it holds
            self._pieces[n] = self._pieces[n][: len(values)]
            self._pieces[n][:] = values

    def close(self) -> None:
        """No more numbers, and none left."""
        for file in self._files:
            file.close()
        self._held, self._pieces, self._files = np.empty(0, np.uint64), [], []

    def _close(self) -> None:
        """What is held in memory becomes pieces, or goes to the others in the files."""
        if self.spilled:
            self._spill()
        elif self._filled:
            held = self._held[: self._filled]
            held.sort()
            wanted = max(1, len(held) // PER_PIECE)
            self._pieces = _cut(held, min(FILES, 1 << (wanted - 1).bit_length()))
        self._held, self._filled = np.empty(0, np.uint64), 0

    def _spill(self) -> None:
        if not self._files:
            self.folder.mkdir()
            self._files = [(self.folder / f"{n:02d}").open("w+b") for n in range(FILES)]
        held = self._held[: self._filled]
        held.sort()
        for file, values in zip(self._files, _cut(held, FILES), strict=True):
            file.write(values.data)
        self._filled = 0

    def _read(self, n: int) -> np.ndarray:
        self._files[n].seek(0)
        values = np.fromfile(self._files[n], np.uint64)
        if n not in self._in_order:
            values.sort()
        return values


def _cut(values: np.ndarray, count: int) -> list[np.ndarray]:
    """Sorted values in `count` pieces (a power of two) of equal range."""
    edges = np.arange(1, count, dtype=np.uint64) * np.uint64((1 << 64) // count) if count > 1 else []
    return np.split(values, np.searchsorted(values, edges))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, … (lengths[0] of them), then the same from starts[1], and so on."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
