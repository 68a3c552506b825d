"""Dedup: keep one story of each group that tells the same in the same words.

In:   cleaned stories
Out:  the kept rows + `cluster_id`, one part per part; the others under _dropped/ with `reason, kept_id, similarity`
Relies on lib/text/near.py: 5-word shingles, Jaccard similarity, every pair counted in full

A task (a row with an `instruction`) is its instruction, input and answer together: many tasks have the answer "Yes".

The rule: rows in order, held-out rows (given_split val or test) before all others, then as they came. A story goes when
an earlier KEPT story is its exact duplicate (the same words in order; case and punctuation do not count) or its
near duplicate (at least `jaccard` similar). It joins the cluster of the most similar such story, the first of equals,
whose story_id names it. So more stories at the end change nothing for older ones, and no training row repeats a
held-out one. (A new held-out story comes before older training stories, on purpose, and may let one of them go.)

With `embedding`, the same rule once more among the stories kept so far, by the cosine of their MiniLM vectors (reason
`embedding`). A story whose kept one goes in this way follows it: `kept_id` is always a story that is kept, `similarity`
what the story itself was judged by.

Texts and rows stream part by part; what is compared stands in files of the draft above 10,000 stories (4 KB a story,
gone at the end). Memory grows by 0.5 KB a story: 270 MB for 100,000 stories of 200 words, 1.2 GB for 2,000,000.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config, Dataset, Draft, Stage
from lib.store.schemas import HELD_OUT
from lib.text.near import Comparison

STAGE = Stage("dedup", 2)
COMPARED = ["text", "instruction", "input"]


class DedupConfig(Config):
    """What counts as the same story."""

    jaccard: float = Field(0.8, gt=0, le=1, description="similarity from which two stories are the same")
    shingle: int = Field(5, ge=1, description="words of a shingle")
    embedding: float | None = Field(
        None, gt=0, le=1, description="cosine of MiniLM vectors from which two stories are the same; none: not compared"
    )


@dataclass
class Verdicts:
    """For every row in the order of the parts. `kept` is the row that stands for it; -1 where it stays itself."""

    kept: np.ndarray
    similarity: np.ndarray
    reason: np.ndarray


def dedup(draft: Draft, config: DedupConfig, *, stories: Dataset) -> None:
    """Compare all stories, then write one part per part."""
    parts = stories.parts()
    draft.progress(f"comparing {sum(part.rows for part in parts):,} stories")
    ids, order, verdicts = _compared(draft, config, parts)
    if config.embedding is not None:
        _compare_meanings(draft, config.embedding, parts, order, verdicts)
    start = 0
    for n, part in enumerate(parts):
        table = part.table()
        rows = slice(start, start + len(table))
        start += len(table)
        _write(draft, n, table, ids, verdicts, rows)
        draft.progress(f"part {n + 1} of {len(parts)}", n + 1, len(parts))


def _compared(draft: Draft, config: DedupConfig, parts: list) -> tuple[pa.ChunkedArray, np.ndarray, Verdicts]:
    """The story_ids as they came, the rows in the order of the rule, and the verdicts by words."""
    ids, held_out = [], []
    with Comparison(sum(part.rows for part in parts), config.jaccard, config.shingle, draft.path) as comparison:
        for part in parts:
            table = part.table(["story_id", "given_split", *COMPARED])
            comparison.add(_whole_text(table))
            ids += table["story_id"].chunks
            held_out.append(pc.is_in(table["given_split"], pa.array(HELD_OUT)).to_numpy())
        order = np.argsort(~np.concatenate([np.empty(0, bool), *held_out]), kind="stable")
        kept, similarity, exact = comparison.verdicts(order)
    reason = np.where(kept < 0, "", np.where(exact, "exact", "near")).astype("U9")
    return pa.chunked_array(ids, pa.string()), order, Verdicts(kept, similarity, reason)


def _compare_meanings(draft: Draft, cosine: float, parts: list, order: np.ndarray, verdicts: Verdicts) -> None:
    """Let go whose vector is near that of an earlier kept story; whoever it stood for follows it."""
    from lib.model.likeness import Likeness

    stays = verdicts.kept < 0
    likeness, start = Likeness(np.count_nonzero(stays)), 0
    for n, part in enumerate(parts):
        texts = _whole_text(part.table(COMPARED)).filter(pa.array(stays[start : start + part.rows]))
        start += part.rows
        likeness.add(texts.to_pylist())
        draft.progress(f"embedding part {n + 1} of {len(parts)}", n + 1, len(parts))
    places = np.flatnonzero(stays)  # the row of each vector
    numbers = np.cumsum(stays) - 1  # the vector of each row that stays
    gone, kept, similarity = likeness.first_kept(cosine, numbers[order[stays[order]]])
    rows = places[gone]
    verdicts.kept[rows], verdicts.similarity[rows], verdicts.reason[rows] = places[kept], similarity, "embedding"
    follow = np.flatnonzero(~stays)
    leader = verdicts.kept[follow]
    verdicts.kept[follow] = np.where(verdicts.kept[leader] >= 0, verdicts.kept[leader], leader)


def _write(draft: Draft, n: int, table: pa.Table, ids: pa.ChunkedArray, verdicts: Verdicts, rows: slice) -> None:
    """One part: the rows that stay and, beside it, those that go."""
    kept, reason, similarity = (each[rows] for each in (verdicts.kept, verdicts.reason, verdicts.similarity))
    gone = kept >= 0
    named = ids.take(pa.array(np.where(gone, kept, np.arange(rows.start, rows.stop))))
    table = table.append_column("cluster_id", named)
    stays, goes = table.filter(pa.array(~gone)), table.filter(pa.array(gone))
    goes = goes.append_column("reason", pa.array(reason[gone], pa.string()))
    goes = goes.append_column("kept_id", named.filter(pa.array(gone)))
    goes = goes.append_column("similarity", pa.array(similarity[gone], pa.float32()))
    draft.write_table(f"part-{n:05d}.parquet", stays)
    draft.write_table(f"_dropped/part-{n:05d}.parquet", goes)
    drops = dict(zip(*(each.tolist() for each in np.unique(reason[gone], return_counts=True)), strict=True))
    draft.count(rows_in=len(table), rows_out=len(stays), drops=drops)


def _whole_text(table: pa.Table) -> pa.ChunkedArray:
    """What a row says: a story's text; a task's instruction, input and answer."""
    asked = pc.binary_join_element_wise(
        pc.fill_null(table["instruction"], ""), pc.fill_null(table["input"], ""), table["text"], "\n"
    )
    return pc.if_else(pc.is_valid(table["instruction"]), asked, table["text"])
