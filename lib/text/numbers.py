"""Many 64-bit numbers in ascending order: in memory up to a limit, beyond it in files.

In:   arrays of uint64 in any order
Out:  the same numbers piece by piece, ascending, each piece as large as memory and cache like it; pieces can be put
      back smaller. No piece ends between two numbers whose highest eight bits are equal

Beyond the limit the numbers are spread over 256 files by their highest eight bits (a distribution sort), so memory
holds the limit and one file at a time, however many they are.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

LIMIT = 1 << 25  # numbers in memory: 256 MB
FILES = 256
PER_PIECE = 1 << 18  # 2 MB: what follows the sort runs in the processor's cache


class Numbers:
    """Add, then iterate; `put` replaces what a piece holds."""

    def __init__(self, scratch: Path, name: str, limit: int = LIMIT) -> None:
        self._folder, self._limit = scratch / name, limit
        self._held = np.empty(limit, np.uint64)  # untouched pages cost nothing
        self._filled = 0
        self._pieces: list[np.ndarray] = []
        self._in_order: set[int] = set()  # files that were put back: they need no sorting

    @property
    def spilled(self) -> bool:
        """Whether there were too many for memory."""
        return self._folder.exists()

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
        for n in range(FILES if self.spilled else len(self._pieces)):
            values = self._read(n) if self.spilled else self._pieces[n]
            if len(values):
                yield n, values

    def put(self, n: int, values: np.ndarray) -> None:
        """`values`, ascending, instead of what piece `n` held."""
        if self.spilled:
            values.tofile(self._path(n))
            self._in_order.add(n)
        else:
            self._pieces[n] = values

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
        self._folder.mkdir(parents=True, exist_ok=True)
        held = self._held[: self._filled]
        held.sort()
        for n, values in enumerate(_cut(held, FILES)):
            if len(values):
                with self._path(n).open("ab") as file:
                    values.tofile(file)
        self._filled = 0

    def _read(self, n: int) -> np.ndarray:
        values = np.fromfile(self._path(n), np.uint64) if self._path(n).exists() else np.empty(0, np.uint64)
        if n not in self._in_order:
            values.sort()
        return values

    def _path(self, n: int) -> Path:
        return self._folder / f"{n:03d}"


def _cut(values: np.ndarray, count: int) -> list[np.ndarray]:
    """Sorted values in `count` pieces (a power of two) of equal range."""
    edges = np.arange(1, count, dtype=np.uint64) * np.uint64((1 << 64) // count) if count > 1 else []
    return np.split(values, np.searchsorted(values, edges))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, … (lengths[0] of them), then the same from starts[1], and so on."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
