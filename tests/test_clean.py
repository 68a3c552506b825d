"""Clean repairs before it judges, keeps what a child could read to the end, and says why each other row went."""

import pyarrow as pa
import pytest

from lib.errors import UserError
from lib.stages.clean import STAGE, CleanConfig, clean
from lib.store import Dataset, build
from lib.store.schemas import RAW
from lib.text import rules
from lib.text.repair import repair
from lib.text.rules import RULE_VERSION
from tests import tiny
from tests.test_rules import DROPPED, GOOD, KEPT


def raw(*texts: str, part_rows: int = 100, **columns: list) -> Dataset:
    rows = [{"story_id": f"s{n}", "text": text, "source": "here"} for n, text in enumerate(texts)]
    table = pa.Table.from_pylist(
        [row | {k: v[n] for k, v in columns.items()} for n, row in enumerate(rows)], schema=RAW
    )
    starts = range(0, max(len(rows), 1), part_rows)
    return tiny.publish("ingest", {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)})


def cleaned(stories: Dataset, **config) -> Dataset:
    return build(STAGE, CleanConfig(**config), {"stories": stories}, clean)


def test_rows_in_are_rows_out_and_drops_with_reasons():
    texts = [text for dropped in DROPPED.values() for text, _ in dropped] + KEPT
    made = cleaned(raw(*texts, part_rows=7), max_words=200)
    assert made.manifest["counts"]["rows_in"] == len(texts)
    assert made.manifest["counts"]["rows_out"] == len(KEPT) == len(made.table())
    assert made.manifest["drops"] == {reason: len(rows) for reason, rows in DROPPED.items()}
    dropped = made.table(table="_dropped")
    assert set(dropped["text"].to_pylist()) == set(texts) - set(KEPT)  # as they came
    assert set(dropped["rule_version"].to_pylist()) == {RULE_VERSION}
    judged = {(row["reason"], row["text"], row["detail"]) for row in dropped.to_pylist()}
    assert {row[:2] for row in judged} == {(reason, text) for reason, each in DROPPED.items() for text, _ in each}
    assert all(detail for reason, _, detail in judged if reason != "empty")


def test_kept_rows_are_repaired_and_measured():
    row = cleaned(raw(GOOD + "It\u2019s  \u201cfun\u201d.")).table().to_pylist()[0]
    assert row["text"] == GOOD + 'It\'s "fun".'
    assert row["words"] == len(row["text"].split()) and row["chars"] == len(row["text"])


def test_every_kept_story_has_a_summary_in_the_house_form():
    summaries = ["A brave cat.", None, " ", "Write a story about a sun.", None]
    made = cleaned(raw(GOOD, GOOD, GOOD, GOOD, "gone", summary=summaries), min_words=5)
    assert made.table()["summary"].to_pylist() == [
        "a story about a brave cat",
        "a story about a little cat, the park and the sun",
        "a story about a little cat, the park and the sun",
        "a story about a sun",
    ]
    assert made.manifest["counts"]["summaries_made"] == 2


def test_no_story_that_passes_names_the_reasons():
    with pytest.raises(UserError, match=r"none of 3 stories \(too_short 2, cut_off 1\)"):
        cleaned(raw("A cat.", "A dog.", GOOD + "And"))


def test_more_stories_leave_older_parts_as_they_were():
    few = cleaned(raw(*KEPT[:6], part_rows=3))
    more = cleaned(raw(*KEPT[:6], "short", part_rows=3))
    assert [part.sha256 for part in few.parts()] == [part.sha256 for part in more.parts()][:2]


def test_another_rule_judges_the_same_raw_rows_again(monkeypatch):
    stories = raw(*KEPT[:2], GOOD + "What the fuck.")
    before = [(part.path.stat().st_mtime_ns, part.sha256) for part in stories.parts()]
    strict = cleaned(stories)
    assert strict.table(table="_dropped")["reason"].to_pylist() == ["profanity"]
    monkeypatch.setattr(rules, "RULE_VERSION", RULE_VERSION + 1)
    monkeypatch.setattr(rules, "RULES", {name: rule for name, rule in rules.RULES.items() if name != "profanity"})
    mild = cleaned(stories)
    assert mild.name != strict.name and mild.table()["story_id"].to_pylist() == ["s0", "s1", "s2"]
    assert [(part.path.stat().st_mtime_ns, part.sha256) for part in stories.parts()] == before


def test_own_words_make_another_dataset_when_the_list_changes(tmp_path):
    stories, path = raw(*KEPT[:2], GOOD + "No broccoli."), tmp_path / "words.txt"
    path.write_text("spinach\n")
    assert len(cleaned(stories, profanity=str(path)).table()) == 3
    path.write_text("broccoli\nspinach\n")
    assert cleaned(stories, profanity=str(path)).manifest["drops"] == {"profanity": 1}


def test_dropped_rows_keep_their_text_as_it_came():
    came = GOOD + "It\u2019s  \u201cfucking\u201d fun."
    dropped = cleaned(raw(GOOD + "The end.", came)).table(table="_dropped").to_pylist()
    assert [(row["text"], row["detail"]) for row in dropped] == [(came, "fucking")] and repair(came) != came
