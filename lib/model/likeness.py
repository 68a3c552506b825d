"""Stories that tell the same in other words: pairs of MiniLM vectors with a cosine of at least so much, all of them.

In:   stories, some at a time; a least cosine; the order in which they are to be compared
Out:  the stories that go, each with the most alike one kept before it, and their cosine

Exact, not approximate: every story's vector is multiplied with those of all kept before it, block by block in float32,
and what comes near the least cosine is computed again in float64. Each story is embedded by itself, so that its vector
depends on nothing but its text: not on the part it is in, not on its neighbours (and that is 1.2 times faster than
batches of 16 on a CPU).

Cost on one core: embedding 45 stories a second (37 minutes for 100,000), comparing 100,000 with one another a minute;
the latter grows with the square. Hence the cap.
"""

import numpy as np

from lib.errors import UserError
from lib.model.minilm import WIDTH, MiniLM
from lib.text.near import first_kept

MOST_STORIES = 100_000  # 154 MB of vectors
BLOCK = 256  # stories compared at once: 100 MB of cosines
ROUNDING = 1e-4  # what float32 may be off


class Likeness:
    """Add `num_stories` stories, then ask which go."""

    def __init__(self, num_stories: int) -> None:
        if num_stories > MOST_STORIES:
            raise UserError(
                f"found {num_stories:,} stories to compare by embedding, expected at most {MOST_STORIES:,} (the cost "
                "grows with the square); set dedup.embedding to null, or take fewer stories"
            )
        self._minilm = MiniLM()
        self._vectors, self._added = np.empty((num_stories, WIDTH), np.float32), 0

    def add(self, texts: list[str]) -> None:
        for text in texts:
            self._vectors[self._added] = self._minilm.embed([text])[0].numpy()
            self._added += 1

    def first_kept(self, cosine: float, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(stories that go, the most alike kept before each in `order`, their cosine)."""
        gone, kept, similarity = first_alike(self._vectors[order], cosine)
        return order[gone], order[kept], similarity


def first_alike(vectors: np.ndarray, cosine: float) -> tuple[np.ndarray, ...]:
    """Of unit vectors in order: those that go, the most alike one kept before each, their cosine."""
    stays, found = np.ones(len(vectors), bool), []
    for start in range(0, len(vectors), BLOCK):
        stop = min(start + BLOCK, len(vectors))
        rows, others = np.nonzero(vectors[start:stop] @ vectors[:stop].T >= cosine - ROUNDING)
        rows += start
        wanted = (others < rows) & stays[others]
        rows, others = rows[wanted], others[wanted]
        exact = (vectors[rows].astype(np.float64) * vectors[others]).sum(1)
        near = exact >= cosine
        pairs = first_kept(rows[near], others[near], exact[near])
        stays[pairs[0]] = False
        found.append(pairs)
    return tuple(np.concatenate(each) for each in zip(*found, strict=True)) if found else (np.empty(0, np.int64),) * 3
