"""Split: give every story a side (train, val, test), and let no training story give away what is held out.

In:   deduplicated stories
Out:  the same rows + `split`; words: in how many stories of each side each word stands; contaminated.parquet: which
      training story gives what away, and how; facts rows_by_split, contaminated (training rows found). With
      on_contamination = "drop" the rows that went, under _dropped/
Relies on `cluster_id`: a side is a hash of it, so all of a cluster is on one side and more stories move no older one;
      on lib/text/contamination.py, which says what counts as giving away.

A side that the source fills itself (`given_split`: held-out text) is not drawn from the other stories.
Corpora too small for the fractions give their stories of lowest hash to val and test, until each holds `min_rows`; in
these alone, more stories may move older ones.
What is made anew after a night that adds stories are the rows of new parts. The gate, though, reads all training rows
again, 35 CPU microseconds each: a night holds out new stories too, and every old row has to be compared with those.
Memory: 9 bytes a story; some 12 KB a held-out story, of which at most 20,000 (and a part) are compared at a time.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Dataset, Draft, PartResult, Stage, digest, schemas
from lib.store.schemas import SIDES
from lib.text.contamination import Found, Gate
from lib.text.counting import word_counts
from lib.text.openings import OPENINGS

STAGE = Stage("split", 2)
HELD_OUT_AT_ONCE = 20_000  # training stories are read once for so many: 35 CPU microseconds each
COMPARED = ["text", "summary", "instruction", "input"]
EXCERPT = 100  # characters of a text where it is only named
TOLD = {
    "copy": "holds {share:.0%} of the 5-word runs of",
    "part": "holds {share:.0%} of the 13-word runs of",
    "run": "shares 13 words with",
    "asked": "has the instruction of",
}


class SplitConfig(Config):
    """How stories are divided, and what becomes of training stories that give held-out text away."""

    val_fraction: float = Field(0.02, ge=0, lt=1, description="share of stories held out to measure with")
    test_fraction: float = Field(0.02, ge=0, lt=1, description="share of stories held out to the very end")
    min_rows: int = Field(8, ge=0, description="rows val and test get at least, where the corpus has 4 times as many")
    reward_prompts: tuple[str, ...] = Field((), description="the reward's prompts, kept out of training rows")
    on_contamination: Literal["fail", "drop", "waive"] = Field(
        "fail",
        description="a training story gives held-out text away: stop, drop the later of the two, or go on; "
        "recorded in the view contamination",
    )


def split(draft: Draft, config: SplitConfig, *, stories: Dataset) -> None:
    """Write one split part per part. Raises UserError for an empty val side or a contaminated train side."""
    draws = [_draws(part.table(["cluster_id", "given_split"])) for part in stories.parts()]
    limits = _limits(config, draws)
    sides = [_sides(each, limits) for each in draws]
    _require_both_sides(sides, config)
    found, gone = _contaminated(draft, stories, sides, config)
    draft.write_table("contaminated.parquet", pa.Table.from_pylist(found, schemas.TABLES["split", "contaminated"]))
    draft.fact(contaminated=len({hit["story_id"] for hit in found}))
    stays = [np.delete(side, list(each)) for side, each in zip(sides, gone, strict=True)]
    _require_both_sides(stays, config)
    salts = [digest([limits, sorted(each.items())]) for each in gone]
    draft.each_part(stories, config, lambda table, n: _split_part(table, n, sides[n], gone[n]), salts.__getitem__)
    counts = np.bincount(np.concatenate(stays), minlength=len(SIDES)).tolist()
    draft.fact(rows_by_split={side: count for side, count in sorted(zip(SIDES, counts, strict=True)) if count})


def _split_part(table: pa.Table, n: int, sides: np.ndarray, gone: dict[int, str]) -> PartResult:
    """The rows with their side; those that go, by their place in the part, with what they give away."""
    rows = table.append_column("split", pa.array(np.array(SIDES, object)[sides], pa.string()))
    goes = np.isin(np.arange(len(rows)), list(gone))
    kept, dropped = rows.filter(pa.array(~goes)), rows.filter(pa.array(goes))
    dropped = dropped.append_column("reason", pa.array(["contaminated"] * len(dropped), pa.string()))
    dropped = dropped.append_column("detail", pa.array([gone[at] for at in sorted(gone)], pa.string()))
    files = {
        f"part-{n:05d}.parquet": kept,
        f"_words/words-{n:05d}.parquet": word_counts(kept["text"], kept["split"]),
        f"_dropped/part-{n:05d}.parquet": dropped,
    }
    drops = {"contaminated": len(dropped)} if len(dropped) else {}
    return PartResult(files, rows_in=len(rows), rows_out=len(kept), drops=drops)


# ---- which side a story is on


def _draws(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For each row a number in [0, 1), its cluster's for ever and everywhere; and the given side's number, or -1."""
    digests = (hashlib.blake2b(each.encode(), digest_size=8).digest() for each in table["cluster_id"].to_pylist())
    given = pc.fill_null(pc.index_in(table["given_split"], pa.array(SIDES)), -1)
    return np.frombuffer(b"".join(digests), ">u8") / 2.0**64, given.to_numpy().astype(np.int8)


def _limits(config: SplitConfig, draws: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Draws below the first limit go to val, the next ones up to the second to test."""
    free = np.sort(np.concatenate([drawn[given < 0] for drawn, given in draws] or [np.empty(0)]))
    filled = {SIDES[side] for _, given in draws for side in np.unique(given) if side >= 0}
    val = 0.0 if "val" in filled else _limit(config.val_fraction, config.min_rows, free, 0.0)
    test = val if "test" in filled else _limit(config.test_fraction, config.min_rows, free, val)
    return val, test


def _limit(fraction: float, min_rows: int, free: np.ndarray, start: float) -> float:
    """Where a side that starts at `start` ends: at its fraction, or after as many draws as make `min_rows`."""
    taken = int(np.searchsorted(free, start))
    wanted = min(min_rows, len(free) // 4)
    if fraction == 0 or not wanted:
        return start + fraction
    return max(start + fraction, float(np.nextafter(free[taken + wanted - 1], 1)))


def _sides(draws: tuple[np.ndarray, np.ndarray], limits: tuple[float, float]) -> np.ndarray:
    """Each row's side, as its place in SIDES."""
    drawn, given = draws
    return np.where(given >= 0, given, np.where(drawn < limits[0], 1, np.where(drawn < limits[1], 2, 0))).astype(
        np.int8
    )


def _require_both_sides(sides: list[np.ndarray], config: SplitConfig) -> None:
    for side in ("val", "train"):
        if not any((each == SIDES.index(side)).any() for each in sides):
            raise UserError(
                f"found {sum(map(len, sides))} stories and no {side} row among them, expected at least one: give more "
                f"stories, give held-out text, or set split.val_fraction ({config.val_fraction}) and split.min_rows "
                f"({config.min_rows}) to fit them"
            )


# ---- the gate: what the models will be measured with must not stand in what they learn from


def _contaminated(
    draft: Draft, stories: Dataset, sides: list[np.ndarray], config: SplitConfig
) -> tuple[list[dict[str, Any]], list[dict[int, str]]]:
    """Rows of the table `contaminated`; for each part the rows to drop, with why. Raises UserError if that is asked."""
    prompts = _prompts(config)
    found: list[dict[str, Any]] = []
    gone: list[dict[int, str]] = [{} for _ in sides]
    for held_out in _held_out(stories, sides):
        gate, prompts = Gate(held_out, prompts), {}  # prompts are compared once
        for n, (part, side) in enumerate(zip(stories.parts(), sides, strict=True)):
            done = f"compared with {len(held_out):,} held-out stories: part {n + 1} of {len(sides)}"
            train, places = part.table(["story_id", *COMPARED]), np.flatnonzero(side == 0)
            train = train.take(places)
            for hit in gate.check(train):
                row = _row(hit, train["story_id"][hit.row].as_py(), held_out, config)
                if config.on_contamination == "drop":
                    of_part, place = goes = _who_goes((n, int(places[hit.row])), hit, held_out)
                    row["dropped_id"] = row["story_id" if goes == (n, places[hit.row]) else "other_id"]
                    gone[of_part].setdefault(place, _told(row))
                found.append(row)
            draft.progress(done, n + 1, len(sides))
    if found and config.on_contamination == "fail":
        raise UserError(
            f"found {len({hit['story_id'] for hit in found}):,} training stories that give held-out text away, "
            f"expected none: {'; '.join(_told(hit) for hit in found[:5])}. Remove those stories or prompts, or set "
            "split.on_contamination: drop leaves out the later of the two, waive goes on; the view contamination "
            "then lists them"
        )
    return found, gone


def _prompts(config: SplitConfig) -> dict[str, Sequence[str]]:
    """By what they are asked for."""
    return {"evaluation": OPENINGS, "reward": config.reward_prompts}


def _held_out(stories: Dataset, sides: list[np.ndarray]) -> Iterator[pa.Table]:
    """The val and test rows, so many at a time, with the part and the place in it where each stands."""
    rows: list[pa.Table] = []
    for n, (part, side) in enumerate(zip(stories.parts(), sides, strict=True)):
        places = np.flatnonzero(side)
        table = part.table(["story_id", "given_split", *COMPARED]).take(places)
        table = table.append_column("split", pa.array(np.array(SIDES, object)[side[places]], pa.string()))
        table = table.append_column("part", pa.array(np.full(len(places), n)))
        rows.append(table.append_column("place", pa.array(places)))
        if sum(map(len, rows)) >= HELD_OUT_AT_ONCE:
            yield pa.concat_tables(rows)
            rows = []
    if rows:
        yield pa.concat_tables(rows)


def _row(hit: Found, story_id: str, held_out: pa.Table, config: SplitConfig) -> dict[str, Any]:
    """One row of the table `contaminated`."""
    prompts = _prompts(config).get(hit.against)
    other = held_out.slice(hit.other, 1).to_pylist()[0] if prompts is None else {}
    column = "summary" if hit.against == "instruction" else "instruction" if hit.why == "asked" else "text"
    text = prompts[hit.other] if prompts else other[column]
    return {
        "story_id": story_id,
        "against": hit.against,
        "other_id": other.get("story_id"),
        "other": text[:EXCERPT],
        "why": hit.why,
        "share": hit.share,
        "shared": hit.shared,
        "dropped_id": None,
    }


def _who_goes(train: tuple[int, int], hit: Found, held_out: pa.Table) -> tuple[int, int]:
    """(part, place) of the row to drop: the later of the two, so that more stories at the end drop no older one.

    Against a prompt, or a story that the source holds out itself, it is the training row.
    """
    if hit.against in ("evaluation", "reward"):
        return train
    other = held_out.slice(hit.other, 1).to_pylist()[0]
    return train if other["given_split"] else max(train, (other["part"], other["place"]))


def _told(row: dict[str, Any]) -> str:
    """Both rows by name, and the words they share."""
    against = f"{row['against']} story {row['other_id']}"
    if row["against"] == "instruction":
        against = f"the instruction of held-out story {row['other_id']}"
    if row["other_id"] is None:
        against = f"the {row['against']} prompt {row['other']!r}"
    shared = row["shared"] if len(row["shared"]) <= EXCERPT else row["shared"][:EXCERPT] + "…"
    return f"story {row['story_id']} {TOLD[row['why']].format(**row)} {against}: {shared!r}"
