"""Split: give every story a side (train, val, test), and refuse training stories that give an evaluation away.

In:   deduplicated stories
Out:  the same rows + `split`; facts: rows by side, contaminated rows that were waived
Relies on `cluster_id`: a side is a hash of it, so all of a cluster is on one side and more stories move no older one.

A side that the source fills itself (`given_split`: held-out text) is not drawn from the other stories.
Corpora too small for the fractions give their stories of lowest hash to val and test, until each holds `min_rows`.
"""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Dataset, Draft, PartResult, Stage
from lib.text.openings import OPENINGS
from lib.text.template import instruction

STAGE = Stage("split", 2)
NGRAM = 13  # words; the usual length for contamination checks since GPT-3 (arXiv 2005.14165, appendix C)
HELD_OUT = ("val", "test")


class SplitConfig(Config):
    """How stories are divided, and which prompts they must not contain."""

    val_fraction: float = Field(0.02, ge=0, lt=1, description="share of stories held out to measure with")
    test_fraction: float = Field(0.02, ge=0, lt=1, description="share of stories held out to the very end")
    min_rows: int = Field(8, ge=0, description="rows val and test get at least, where the corpus has 4 times as many")
    reward_prompts: tuple[str, ...] = Field((), description="the reward's prompts, kept out of training rows")
    waive: bool = Field(False, description="go on although training stories contain evaluation prompts; recorded")


def split(draft: Draft, config: SplitConfig, *, stories: Dataset) -> None:
    """Write one split part per part. Raises UserError for an empty val side or a contaminated train side."""
    tables = [part.table(["story_id", "cluster_id", "given_split"]) for part in stories.parts()]
    limits = _limits(config, pa.concat_tables(tables) if tables else None)
    sides = [_sides(table, limits) for table in tables]
    _require_both_sides(np.concatenate(sides) if sides else np.empty(0, object), config)
    found = _gate(stories, sides, config)
    draft.fact(contaminated=len(found), contaminated_rows=found[:100])
    salt = ",".join(limit.hex() for limit in limits)
    draft.each_part(stories, config, lambda table, n: _split_part(table, n, limits), salt)
    names, counts = np.unique(np.concatenate(sides), return_counts=True)
    draft.fact(rows_by_split={str(name): int(count) for name, count in zip(names, counts, strict=True)})


def _split_part(table: pa.Table, n: int, limits: tuple[float, float]) -> PartResult:
    rows = table.append_column("split", pa.array(_sides(table, limits), pa.string()))
    return PartResult({f"part-{n:05d}.parquet": rows}, rows_in=len(table), rows_out=len(table))


def _draws(cluster_ids: pa.ChunkedArray) -> np.ndarray:
    """A number in [0, 1) for each cluster, the same for ever and everywhere."""
    digests = (hashlib.blake2b(each.encode(), digest_size=8).digest() for each in cluster_ids.to_pylist())
    return np.frombuffer(b"".join(digests), ">u8") / 2.0**64


def _limits(config: SplitConfig, table: pa.Table | None) -> tuple[float, float]:
    """Draws below the first limit go to val, the next ones up to the second to test."""
    if table is None or not len(table):
        return 0.0, 0.0
    given = set(pc.unique(table["given_split"]).to_pylist())
    free = np.sort(_draws(table.filter(pc.is_null(table["given_split"]))["cluster_id"]))
    val = 0.0 if "val" in given else _limit(config.val_fraction, config.min_rows, free, 0.0)
    test = val if "test" in given else _limit(config.test_fraction, config.min_rows, free, val)
    return val, test


def _limit(fraction: float, min_rows: int, free: np.ndarray, start: float) -> float:
    """Where a side that starts at `start` ends: at its fraction, or after as many draws as make `min_rows`."""
    taken = int(np.searchsorted(free, start))
    wanted = min(min_rows, len(free) // 4)
    if fraction == 0 or not wanted:
        return start + fraction
    return max(start + fraction, float(np.nextafter(free[taken + wanted - 1], 1)))


def _sides(table: pa.Table, limits: tuple[float, float]) -> np.ndarray:
    draws = _draws(table["cluster_id"])
    drawn = np.where(draws < limits[0], "val", np.where(draws < limits[1], "test", "train")).astype(object)
    given = table["given_split"].to_numpy()
    return np.where(given == None, drawn, given)  # noqa: E711 - elementwise


def _require_both_sides(sides: np.ndarray, config: SplitConfig) -> None:
    for side in ("val", "train"):
        if not (sides == side).any():
            raise UserError(
                f"found {len(sides)} stories and no {side} row among them, expected at least one: give more stories, "
                f"give held-out text, or set split.val_fraction ({config.val_fraction}) and split.min_rows "
                f"({config.min_rows}) to fit them"
            )


# ---- the gate: what the models will be asked must not stand in what they learn from


def _gate(stories: Dataset, sides: list[np.ndarray], config: SplitConfig) -> list[dict[str, str]]:
    """The contaminated training rows, each with its prompt; raises UserError naming them unless that is waived."""
    prompts = (*OPENINGS, *config.reward_prompts)
    found: list[dict[str, str]] = []
    for part, side in zip(stories.parts(), sides, strict=True):
        table = part.table(["story_id", "text", "summary"])
        found += _contaminated(table.filter(pa.array(side == "train")), prompts)
    if found and not config.waive:
        first = "; ".join(f"story {hit['story_id']} {hit['why']} {hit['prompt']!r}" for hit in found[:5])
        raise UserError(
            f"found {len(found)} training rows that give evaluation prompts away, expected none: {first}. "
            "Remove those rows or those prompts, or set split.waive to go on and have it recorded"
        )
    return found


def _contaminated(table: pa.Table, prompts: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Training rows that share 13 words in a row with a prompt, or whose instruction is a prompt."""
    plain = _plain_column(table["text"])
    for prompt in prompts:
        for ngram in _ngrams(prompt):
            for story_id in table.filter(pc.match_substring(plain, f" {ngram} "))["story_id"].to_pylist():
                yield {"story_id": story_id, "prompt": prompt, "why": f"shares {NGRAM} words with"}
    asked = {_plain(prompt): prompt for prompt in prompts}
    for story_id, summary in zip(table["story_id"].to_pylist(), table["summary"].to_pylist(), strict=True):
        if summary and (prompt := asked.get(_plain(instruction(summary)))):
            yield {"story_id": story_id, "prompt": prompt, "why": "has the instruction"}


def _plain(text: str) -> str:
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def _plain_column(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    spaced = pc.replace_substring_regex(pc.utf8_lower(texts), r"[^a-z0-9]+", " ")
    return pc.binary_join_element_wise(" ", spaced, " ", "")


def _ngrams(prompt: str) -> list[str]:
    words = _plain(prompt).split()
    return [" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]
