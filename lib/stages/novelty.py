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
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage, schemas
from lib.text.alpaca import seed_tasks
from lib.text.rouge import Pool, words_of
from lib.text.sources import file_digest

STAGE = Stage("novelty", 1)
HELD_OUT = ("val", "test")
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
class Verdict:
    """What became of one row."""

    nearest: list[tuple[str, float]] = field(default_factory=list)  # ids and similarities, the nearest first
    average: float | None = None
    novel: bool = True


def external(config: NoveltyConfig) -> dict[str, str]:
    return {config.against: file_digest(config.against)} if config.against else {}


def novelty(draft: Draft, config: NoveltyConfig, *, stories: Dataset) -> None:
    """Judge every row in the order of the rule, then write one part per part."""
    verdicts = _verdicts(draft, config, stories)
    start = 0
    for n, part in enumerate(stories.parts()):
        table = part.table()
        _write_part(draft, config, n, table, verdicts[start : start + len(table)])
        start += len(table)


def _verdicts(draft: Draft, config: NoveltyConfig, stories: Dataset) -> list[Verdict]:
    """One per row, in the order of the parts."""
    columns = ["story_id", "instruction", "summary", "given_split"]
    rows = pa.concat_tables([part.table(columns) for part in stories.parts()] or [schemas.DEDUP.empty_table()])
    asked = pc.coalesce(rows["instruction"], rows["summary"]).to_pylist()
    pool, ids = Pool(), []
    for seed in seed_tasks(config.against) if config.against else ():
        pool.add(words_of(seed.instruction))
        ids.append(f"seed:{seed.name}")
    verdicts = [Verdict() for _ in asked]
    story_ids = rows["story_id"].to_pylist()
    for done, n in enumerate(_in_order_of_the_rule(rows["given_split"])):
        if words := words_of(asked[n] or ""):
            verdicts[n] = _judged(pool, ids, words, config)
            if verdicts[n].novel:
                pool.add(words)
                ids.append(story_ids[n])
        if done % EACH == 0:
            draft.progress(f"{done:,} of {len(asked):,} rows compared, {len(pool):,} kept", done, len(asked))
    return verdicts


def _in_order_of_the_rule(sides: pa.ChunkedArray) -> Iterator[int]:
    held_out = [side in HELD_OUT for side in sides.to_pylist()]
    for wanted in (True, False):
        yield from (n for n, held in enumerate(held_out) if held == wanted)


def _judged(pool: Pool, ids: list[str], words: list[str], config: NoveltyConfig) -> Verdict:
    least = (
        0.0 if config.neighbours else config.threshold
    )  # without neighbours, only what may drop the row is looked for
    near = pool.nearest(words, max(config.neighbours, 1), least)
    return Verdict(
        nearest=[(ids[row], similarity) for row, similarity in near],
        average=pool.mean(words) if config.average else None,
        novel=not near or near[0][1] <= config.threshold,
    )


def _write_part(draft: Draft, config: NoveltyConfig, n: int, table: pa.Table, verdicts: list[Verdict]) -> None:
    stays = pa.array([verdict.novel for verdict in verdicts], pa.bool_())
    gone = table.filter(pc.invert(stays))
    first = [verdict.nearest[0] for verdict in verdicts if not verdict.novel]
    gone = gone.append_column("reason", pa.array(["not_novel"] * len(gone), pa.string()))
    gone = gone.append_column("kept_id", pa.array([kept for kept, _ in first], pa.string()))
    gone = gone.append_column("similarity", pa.array([similarity for _, similarity in first], pa.float64()))
    ids = table["story_id"].to_pylist()
    near = list(_neighbours(ids, verdicts)) if config.neighbours else []
    scores = [
        {"story_id": story_id, "nearest": max((s for _, s in each.nearest), default=None), "average": each.average}
        for story_id, each in zip(ids, verdicts, strict=True)
    ]
    draft.write_table(f"part-{n:05d}.parquet", table.filter(stays))
    draft.write_table(f"_dropped/part-{n:05d}.parquet", gone)
    for name, rows in (("neighbours", near), ("scores", scores)):
        columns = schemas.TABLES["novelty", name]
        draft.write_table(f"{name}-{n:05d}.parquet", pa.Table.from_pylist(rows, schema=columns))
    drops = Counter(gone["reason"].to_pylist())
    draft.count(rows_in=len(table), rows_out=len(table) - len(gone), drops=drops)


def _neighbours(ids: list[str], verdicts: list[Verdict]) -> Iterator[dict[str, Any]]:
    for story_id, verdict in zip(ids, verdicts, strict=True):
        for rank, (other_id, similarity) in enumerate(verdict.nearest, 1):
            yield {"story_id": story_id, "rank": rank, "other_id": other_id, "similarity": similarity}
