"""A corpus that grows by 1 %: nothing is asked twice, almost nothing is worked on twice, and the result is the same.

Two ways to grow: 1,000 stories of a teacher, which fill their parts; a file of 1,005, which do not, with lines added.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lib import stages
from lib.stages.clean import CleanConfig
from lib.stages.dedup import DedupConfig
from lib.stages.generate import GenerateConfig
from lib.stages.ingest import IngestConfig
from lib.stages.split import SplitConfig
from lib.stages.tokenizer import TokenizerConfig
from lib.stages.tokens import TokensConfig
from lib.store import Config, Dataset
from lib.text.prompts import PromptPlan
from lib.text.storyteller.story import tell
from lib.text.storyteller.wish import wish_of
from tests.teacher import FakeTeacher, completion

NUMBERED = re.compile(r"-(\d{5})\.(?:parquet|bin)$")  # part-00003.parquet, _dropped/part-…, tokens-00003.bin
PART_ROWS, MORE = 20, 10
ROW_STAGES = ("clean", "split", "tokens", "instructions")
COPIES = {1006: 17, 1008: 23}  # a new story that is an older one with a sentence more

pytestmark = pytest.mark.chain  # some 20 CPU seconds


@dataclass(frozen=True)
class Seen:
    """A chain's datasets, read while its data folder was there."""

    fingerprints: dict[str, str]
    rows: dict[str, list[dict[str, Any]]]
    dropped: dict[str, list[dict[str, Any]]]
    parts: dict[str, dict[str, str]]  # of each part file its sha256
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Grown:
    """The chain of some stories, then in the same folder of 1 % more, and that again from scratch."""

    before: Seen
    after: Seen
    scratch: Seen
    kind: str  # teacher or file
    calls: list[int]  # how often the teacher was asked: for `before`, and for `after` on top


def story(number: int) -> dict[str, str]:
    original = COPIES.get(number, number)
    told = tell(wish_of([], original), original)
    return {"story": told.story + " Good night!" * (number in COPIES), "summary": told.summary}


def seen(raw: Dataset) -> Seen:
    """Everything from raw stories to token shards, as the flows wire it."""

    def build(stage: str, config: Config, **inputs: Dataset) -> Dataset:
        return stages.build(stage, config, inputs)

    clean = build("clean", CleanConfig(), stories=raw)
    dedup = build("dedup", DedupConfig(), stories=clean)
    split = build("split", SplitConfig(on_contamination="drop"), stories=dedup)
    tokenizer = build("tokenizer", TokenizerConfig(vocab_size=512), stories=split)
    tokens = build("tokens", TokensConfig(layout="pretrain"), stories=split, tokenizer=tokenizer)
    asked = build("tokens", TokensConfig(layout="natural"), stories=split, tokenizer=tokenizer)
    made = {"raw": raw, "clean": clean, "dedup": dedup, "split": split, "tokens": tokens, "instructions": asked}
    files = {name: each.manifest["files"] for name, each in made.items()}
    return Seen(
        fingerprints={name: each.fingerprint for name, each in (made | {"tokenizer": tokenizer}).items()},
        rows={name: each.table().to_pylist() for name, each in made.items()},
        dropped={name: each.table(table="_dropped").to_pylist() for name, each in made.items() if name != "raw"},
        parts={
            name: {file: entry["sha256"] for file, entry in listed.items() if NUMBERED.search(file)}
            for name, listed in files.items()
        },
        counts={name: each.manifest["counts"] for name, each in made.items()},
    )


@pytest.fixture(scope="module", params=["teacher-1000", "file-1005"])
def grown(request, tmp_path_factory) -> Iterator[Grown]:
    kind, _, few = request.param.partition("-")
    folder = tmp_path_factory.mktemp("grown")
    numbers: dict[str, int] = {}

    def answer(asked: dict[str, Any], _: int):
        return completion(json.dumps(story(numbers.setdefault(json.dumps(asked, sort_keys=True), len(numbers)))))

    def raw(count: int) -> Dataset:
        if kind == "file":
            lines = (json.dumps({"text": story(n)["story"], "summary": story(n)["summary"]}) for n in range(count))
            Path(folder / "stories.jsonl").write_text("\n".join(lines))
            config: Config = IngestConfig(path=str(folder / "stories.jsonl"), part_rows=PART_ROWS)
            return stages.build("ingest", config, {})
        plan = PromptPlan(count=count)
        teacher_config = {"teacher": "openai", "model": "fake-1", "base_url": teacher.base_url, "concurrency": 16}
        return stages.build("generate", GenerateConfig(plan=plan, part_rows=PART_ROWS, **teacher_config), {})

    with FakeTeacher(answer) as teacher, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-test")
        patch.setenv("STORYMILL_DATA", str(folder / "data"))
        before, calls = seen(raw(int(few))), [len(teacher.requests)]
        after = seen(raw(int(few) + MORE))
        calls.append(len(teacher.requests) - calls[0])
        patch.setenv("STORYMILL_DATA", str(folder / "scratch"))
        yield Grown(before, after, seen(raw(int(few) + MORE)), kind, calls)


def test_no_answered_request_is_sent_again(grown):
    assert grown.calls == {"teacher": [1000, MORE], "file": [0, 0]}[grown.kind]


@pytest.mark.parametrize("stage", ROW_STAGES)
def test_at_most_2_percent_of_the_rows_are_worked_on_again(grown, stage):
    counts = grown.after.counts[stage]
    assert 0 < counts["rows_made"] <= 0.02 * counts["rows_in"]
    assert grown.before.counts[stage]["rows_made"] == grown.before.counts[stage]["rows_in"]


@pytest.mark.parametrize("stage", ["raw", "clean", "dedup", "split", "tokens", "instructions"])
def test_older_parts_keep_their_digest(grown, stage):
    full = len(grown.before.rows["raw"]) // PART_ROWS  # a part that was not full is filled up
    before = {name: sha for name, sha in grown.before.parts[stage].items() if number_of(name) < full}
    assert len({number_of(name) for name in before}) == full
    assert before.items() <= grown.after.parts[stage].items()


def number_of(name: str) -> int:
    found = NUMBERED.search(name)
    assert found
    return int(found[1])


def test_no_older_story_moves(grown):
    sides = [{row["story_id"]: row["split"] for row in each.rows["split"]} for each in (grown.before, grown.after)]
    assert sides[0].items() <= sides[1].items()


def test_the_vocabulary_stays(grown):
    assert grown.before.fingerprints["tokenizer"] == grown.after.fingerprints["tokenizer"]


def test_duplicates_between_old_and_new_are_found(grown):
    old = {row["story_id"] for row in grown.before.rows["raw"]}
    new = [row for row in grown.after.dropped["dedup"] if row["story_id"] not in old]
    assert len(new) == len(COPIES) and {row["kept_id"] for row in new} <= old


@pytest.mark.parametrize("stage", ["raw", "clean", "dedup", "split", "tokens", "instructions"])
def test_it_equals_a_run_from_scratch_row_for_row(grown, stage):
    assert grown.after.rows[stage] == grown.scratch.rows[stage]
    assert grown.after.dropped.get(stage) == grown.scratch.dropped.get(stage)
    assert grown.after.fingerprints == grown.scratch.fingerprints
