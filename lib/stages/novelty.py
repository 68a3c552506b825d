"""Novelty: keep a story only if what it was asked for is new, and say what it comes nearest to.

In:   deduplicated stories; what is compared is a row's `instruction`, or where it has none its `summary`
Out:  the kept rows, one part per part; the others under _dropped/ with `reason` not_novel, `kept_id`, `similarity`;
      `neighbours`: the nearest earlier kept rows of every row, kept or not; `scores`: the first of them, and the mean
Relies on lib/text/rouge.py: ROUGE-L as rouge_score computes it, every pair that matters counted in full.

The rule is Self-Instruct's (arXiv 2212.10560): a row goes when its ROUGE-L F with an earlier KEPT row is above 0.7.
Rows in order, held-out rows (given_split val or test) before all others, then as they came; a file of seed tasks, where
one is given, stands before them all. So more rows at the end change no older verdict. A row that was asked for nothing
stays.

The `neighbours` nearest are exact, the earlier row first among equals; fewer only where fewer share a word with it.
Memory grows by some 0.8 KB a row with ten neighbours (measured from 20,000 to 60,000 instructions, half of them kept):
2,000,000 rows would take 1.7 GB.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage, schemas
from lib.store.schemas import HELD_OUT
from lib.text.alpaca import seed_tasks
from lib.text.rouge import Pool, words_of
from lib.text.sources import file_digest

STAGE = Stage("novelty", 1)
EACH = 500  # rows between two words on how it goes


class NoveltyConfig(Config):
    """What counts as asked for before."""

    threshold: float = Field(0.7, gt=0, lt=1, description="ROUGE-L F above which an instruction or summary is not new")
    neighbours: int = Field(10, ge=0, le=100, description="nearest earlier rows to store; 0 stores none and is faster")
    average: bool = Field(
        False, description="also store the mean similarity to all earlier kept rows (compares every pair)"
    )
    against: str | None = Field(None, description="seed tasks (.jsonl) that count as kept before all rows")


@dataclass
class Verdicts:
    """Of every row, in the order of the parts."""

    novel: np.ndarray
    nearest: np.ndarray  # for each rank the kept row's place in `ids`, -1 where none is left
    similarity: np.ndarray  # with each of these
    average: np.ndarray  # NaN where it was not asked for
    ids: pa.Array  # of the seed tasks and of the kept rows, in the order of the rule

    def of(self, rows: slice) -> "Verdicts":
        columns = (each[rows] for each in (self.novel, self.nearest, self.similarity, self.average))
        return Verdicts(*columns, self.ids)


def external(config: NoveltyConfig) -> dict[str, str]:
    return {config.against: file_digest(config.against)} if config.against else {}


def novelty(draft: Draft, config: NoveltyConfig, *, stories: Dataset) -> None:
    """Judge every row in the order of the rule, then write one part per part."""
    verdicts = _verdicts(draft, config, stories)
    start = 0
    for n, part in enumerate(stories.parts()):
        table = part.table()
        _write_part(draft, n, table, verdicts.of(slice(start, start + len(table))), has_near=config.neighbours > 0)
        start += len(table)


def _verdicts(draft: Draft, config: NoveltyConfig, stories: Dataset) -> Verdicts:
    columns = ["story_id", "instruction", "summary", "given_split"]
    rows = pa.concat_tables([part.table(columns) for part in stories.parts()] or [schemas.DEDUP.empty_table()])
    asked = pc.coalesce(rows["instruction"], rows["summary"])
    seeds, kept = seed_tasks(config.against) if config.against else [], array("q")
    pool = Pool(words_of(seed.instruction) for seed in seeds)
    shape = len(rows), max(config.neighbours, 1)
    novel, average = np.ones(len(rows), bool), np.full(len(rows), np.nan)
    nearest, similarity = np.full(shape, -1, np.int32), np.zeros(shape)
    # Without neighbours, only what may drop the row is looked for.
    least = 0.0 if config.neighbours else config.threshold
    for done, n in enumerate(_in_order_of_the_rule(rows["given_split"])):
        if words := words_of(asked[n].as_py() or ""):
            near = pool.nearest(words, shape[1], least)
            for rank, (other, score) in enumerate(near):
                nearest[n, rank], similarity[n, rank] = other, score
            if config.average:
                average[n] = pool.mean(words)
            novel[n] = not near or near[0][1] <= config.threshold
            if novel[n]:
                pool.add(words)
                kept.append(n)
        if done % EACH == 0:
            draft.progress(f"{done:,} of {len(rows):,} rows compared, {len(pool):,} kept", done, len(rows))
    names = pa.array([f"seed:{seed.name}" for seed in seeds], pa.string())
    ids = rows["story_id"].take(pa.array(kept, pa.int64())).combine_chunks()
    return Verdicts(novel, nearest, similarity, average, pa.concat_arrays([names, ids]))


def _in_order_of_the_rule(sides: pa.ChunkedArray) -> Iterator[int]:
    held_out = [side in HELD_OUT for side in sides.to_pylist()]
    for wanted in (True, False):
        yield from (n for n, held in enumerate(held_out) if held == wanted)


def _write_part(draft: Draft, n: int, table: pa.Table, verdicts: Verdicts, *, has_near: bool) -> None:
    gone = table.filter(pa.array(~verdicts.novel))
    first = pa.array(verdicts.nearest[~verdicts.novel, 0])
    gone = gone.append_column("reason", pa.array(["not_novel"] * len(gone), pa.string()))
    gone = gone.append_column("kept_id", verdicts.ids.take(first))
    gone = gone.append_column("similarity", pa.array(verdicts.similarity[~verdicts.novel, 0]))
    near = verdicts.nearest >= 0
    scores = {
        "story_id": table["story_id"],
        "nearest": pa.array(verdicts.similarity[:, 0], mask=~near[:, 0]),
        "average": pa.array(verdicts.average, mask=np.isnan(verdicts.average)),
    }
    draft.write_table(f"part-{n:05d}.parquet", table.filter(pa.array(verdicts.novel)))
    draft.write_table(f"_dropped/part-{n:05d}.parquet", gone)
    neighbours = _neighbours(table["story_id"], verdicts, near & has_near)
    for name, rows in (("neighbours", neighbours), ("scores", scores)):
        draft.write_table(f"{name}-{n:05d}.parquet", pa.table(rows, schemas.TABLES["novelty", name]))
    drops = {"not_novel": len(gone)} if len(gone) else {}
    draft.count(rows_in=len(table), rows_out=len(table) - len(gone), drops=drops)


def _neighbours(ids: pa.ChunkedArray, verdicts: Verdicts, near: np.ndarray) -> dict[str, pa.Array | pa.ChunkedArray]:
    rows, ranks = np.nonzero(near)
    return {
        "story_id": ids.take(pa.array(rows)),
        "rank": pa.array(ranks + 1),
        "other_id": verdicts.ids.take(pa.array(verdicts.nearest[near])),
        "similarity": pa.array(verdicts.similarity[near]),
    }
