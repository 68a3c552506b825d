"""Dedup: keep one story of each group that tells the same in the same words.

In:   cleaned stories
Out:  the kept rows + `cluster_id`, one part per part; the others under _dropped/ with `reason, kept_id, similarity`
Relies on lib/text/shingles.py: 5-word shingles, Jaccard similarity, every pair counted in full.

A task (a row with an `instruction`) is its instruction, input and answer together: many tasks have the answer "Yes".

The rule: rows in order, held-out rows (given_split val or test) before all others, then as they came. A story goes when
an earlier KEPT story is its exact duplicate (the same words in order; case and punctuation do not count) or its
near duplicate (at least `jaccard` similar). It joins the cluster of the most similar such story, whose story_id names
it. So more stories at the end change nothing for older ones, and no training row repeats a held-out one.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage
from lib.text.shingles import Shingles, first_kept

STAGE = Stage("dedup", 2)
HELD_OUT = ("val", "test")


class DedupConfig(Config):
    """What counts as the same story."""

    jaccard: float = Field(0.8, gt=0, le=1, description="similarity from which two stories are the same")
    shingle: int = Field(5, ge=1, description="words of a shingle")


def dedup(draft: Draft, config: DedupConfig, *, stories: Dataset) -> None:
    """Compare all stories, then write one part per part."""
    draft.progress(f"comparing {sum(part.rows for part in stories.parts()):,} stories")
    verdicts = _verdicts(stories, config)
    start = 0
    for n, part in enumerate(stories.parts()):
        table = part.table()
        mine = verdicts.slice(start, len(table))
        start += len(table)
        stays = pc.is_null(mine["reason"])
        table = table.append_column("cluster_id", pc.coalesce(mine["kept_id"], table["story_id"]))
        kept, gone = table.filter(stays), table.filter(pc.invert(stays))
        for name in ("reason", "kept_id", "similarity"):
            gone = gone.append_column(name, mine[name].filter(pc.invert(stays)))
        draft.write_table(f"part-{n:05d}.parquet", kept)
        draft.write_table(f"_dropped/part-{n:05d}.parquet", gone)
        drops = {entry["values"]: entry["counts"] for entry in pc.value_counts(gone["reason"]).to_pylist()}
        draft.count(rows_in=len(table), rows_out=len(kept), drops=drops)


def _verdicts(stories: Dataset, config: DedupConfig) -> pa.Table:
    """reason, kept_id, similarity for every row in the order of the parts; null for those that stay."""
    ids, shingles, order = _in_order_of_the_rule(stories, config)
    digests = shingles.digests()
    gone = first_kept(shingles, config.jaccard)
    at = np.array(sorted(gone), np.int64)
    kept = np.array([gone[i][0] for i in at.tolist()], np.int64)
    reason, kept_id, similarity = (np.full(len(order), None, object) for _ in range(3))
    rows = order[at]
    reason[rows] = np.where(digests[at] == digests[kept], "exact", "near")
    kept_id[rows] = np.array(ids, object)[order[kept]]
    similarity[rows] = [gone[i][1] for i in at.tolist()]
    return pa.table(
        {
            "reason": pa.array(reason, pa.string()),
            "kept_id": pa.array(kept_id, pa.string()),
            "similarity": pa.array(similarity, pa.float32()),
        }
    )


def _in_order_of_the_rule(stories: Dataset, config: DedupConfig) -> tuple[list[str], Shingles, np.ndarray]:
    """story_ids as they came; shingles in the order of the rule; the row (as it came) at each place of that order."""
    ids: list[str] = []
    shingles, places = Shingles(config.shingle), []
    for wants_held_out in (True, False):
        start = 0
        for part in stories.parts():
            table = part.table(["story_id", "text", "instruction", "input", "given_split"])
            wanted = pc.equal(pc.fill_null(pc.is_in(table["given_split"], pa.array(HELD_OUT)), False), wants_held_out)
            shingles.add(_whole_text(table.filter(wanted)))
            places.append(start + np.flatnonzero(wanted.to_numpy()))
            start += len(table)
            if wants_held_out:
                ids += table["story_id"].to_pylist()
    return ids, shingles, np.concatenate(places) if places else np.empty(0, np.int64)


def _whole_text(table: pa.Table) -> pa.ChunkedArray:
    """What a row says: a story's text; a task's instruction, input and answer."""
    asked = pc.binary_join_element_wise(
        pc.fill_null(table["instruction"], ""), pc.fill_null(table["input"], ""), table["text"], "\n"
    )
    return pc.if_else(pc.is_valid(table["instruction"]), asked, table["text"])
