"""Seen: which training step saw which story, as a table.

In:   the Batches of a run, and how many steps it took
Out:  tables of (step, row, story_id) in the order of training; steps count from 1, as in train_steps

A batch is a pure function of (seed, step): the table is worked out behind the run, and a run that was killed and went
on gets the same one. 2,000,000 stories an epoch are rows for a disk, not for memory: they come in pieces.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lib.model.batches import Batches

PIECE = 1_000_000  # rows of a table


def tables(batches: Batches, steps: int, most: int = PIECE) -> Iterator[pa.Table]:
    """The rows of steps 1 to `steps`, in tables of about `most` rows."""
    stories: list[np.ndarray] = []
    step_of: list[np.ndarray] = []
    row_of: list[np.ndarray] = []
    held = 0
    for step in range(steps):
        rows = batches.stories_of(step)
        sizes = [len(row) for row in rows]
        stories += rows
        row_of.append(np.repeat(np.arange(len(rows), dtype=np.int32), sizes))
        step_of.append(np.full(sum(sizes), step + 1, np.int32))
        held += sum(sizes)
        if held >= most or step + 1 == steps:
            story_ids = batches.corpus.story_ids.take(pa.array(np.concatenate(stories)))
            yield pa.table({"step": np.concatenate(step_of), "row": np.concatenate(row_of), "story_id": story_ids})
            stories, step_of, row_of, held = [], [], [], 0
