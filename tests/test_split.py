"""Split puts whole clusters on one side, for ever, and lets no training story give an evaluation prompt away."""

import pyarrow as pa
import pytest

from lib.errors import UserError
from lib.stages.split import STAGE, SplitConfig, split
from lib.store import Dataset, build, connect
from lib.store.schemas import DEDUP
from tests import tiny

GIVEAWAY = "Once upon a time there is a girl named Lily! One day SHE ran."  # 13 words of an opening, other punctuation


def dedup_rows(count: int, part_rows: int = 100, start: int = 0, **columns: dict[int, object]) -> Dataset:
    rows = [
        {
            "story_id": f"s{n}",
            "cluster_id": f"c{n // 2}",
            "text": f"story {n}.",
            "source": "here",
            "summary": f"a story about {n}",
        }
        | {name: values[n] for name, values in columns.items() if n in values}
        for n in range(start, start + count)
    ]
    table = pa.Table.from_pylist(rows, schema=DEDUP)
    starts = range(0, max(count, 1), part_rows)
    return tiny.publish("dedup", {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)})


def done(stories: Dataset, **config) -> Dataset:
    return build(STAGE, SplitConfig(**config), {"stories": stories}, split)


def sides(made: Dataset) -> dict[str, str]:
    table = made.table(["story_id", "split"])
    return dict(zip(table["story_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_a_cluster_is_on_one_side():
    found = sides(done(dedup_rows(1000), val_fraction=0.2, test_fraction=0.2))
    assert all(found[f"s{n}"] == found[f"s{n + 1}"] for n in range(0, 1000, 2))
    assert set(found.values()) == {"train", "val", "test"}


def test_sides_have_about_their_fractions():
    facts = done(dedup_rows(4000), val_fraction=0.1, test_fraction=0.05).facts["rows_by_split"]
    assert 320 < facts["val"] < 480 and 140 < facts["test"] < 260 and sum(facts.values()) == 4000


def test_more_stories_move_no_older_one_and_change_no_older_part():
    few, more = done(dedup_rows(1000)), done(dedup_rows(1100))
    assert sides(few).items() <= sides(more).items()
    assert [part.sha256 for part in few.parts()] == [part.sha256 for part in more.parts()][:10]


def test_a_given_side_wins_and_is_not_filled_up_by_others():
    made = done(dedup_rows(500, given_split={0: "val", 1: "val"}), val_fraction=0.5)
    found = sides(made)
    assert [story for story, side in found.items() if side == "val"] == ["s0", "s1"]
    assert "test" in found.values()


def test_a_small_corpus_gets_enough_rows_on_each_side():
    counts = done(dedup_rows(60)).facts["rows_by_split"]
    assert 8 <= counts["val"] <= 12 and 8 <= counts["test"] <= 12
    assert done(dedup_rows(8)).facts["rows_by_split"] == {"test": 2, "train": 4, "val": 2}


def test_no_val_row_is_an_error_that_says_what_to_do():
    with pytest.raises(UserError, match="found 1 stories and no val row"):
        done(dedup_rows(1))
    with pytest.raises(UserError, match="found 0 stories and no val row"):
        done(dedup_rows(0))
    with pytest.raises(UserError, match="no val row among them"):
        done(dedup_rows(50), val_fraction=0)


def test_a_training_story_with_an_opening_in_it_fails_and_both_are_named():
    stories = dedup_rows(300, text={n: GIVEAWAY for n in range(20)})
    with pytest.raises(
        UserError,
        match=r"story s\d+ shares 13 words with the evaluation prompt 'Once upon a time, there is a girl named",
    ):
        done(stories)


def test_twelve_words_in_a_row_are_no_contamination():
    done(dedup_rows(300, text={n: GIVEAWAY.replace("SHE", "they") for n in range(20)}))


def test_a_training_row_that_is_asked_a_reward_prompt_fails():
    stories = dedup_rows(300, summary={n: "a story about a troll" for n in range(20)})
    prompts = ("Write a story about a Troll.",)
    with pytest.raises(
        UserError, match=r"story s\d+ has the instruction of the reward prompt 'Write a story about a Tro"
    ):
        done(stories, reward_prompts=prompts)
    assert done(stories).facts["contaminated"] == 0


def test_what_is_held_out_may_hold_a_prompt():
    given = {n: "val" for n in range(20)}
    assert done(dedup_rows(300, text={n: GIVEAWAY for n in range(20)}, given_split=given)).facts["contaminated"] == 0


WORDS = [f"word{n}" for n in range(100)]
STORY, COPY = " ".join(WORDS), " ".join(["so", *WORDS[1:40], "so", *WORDS[41:]])


def with_a_copy(original: int, copy: int, count: int = 300, **columns: dict[int, object]) -> Dataset:
    return dedup_rows(count, text={original: STORY, copy: COPY}, **columns)


def test_a_near_copy_of_a_held_out_story_fails_and_both_are_named():
    with pytest.raises(UserError, match=r"story s9 holds 94% of the 5-word runs of val story s4: 'word41 word42"):
        done(with_a_copy(4, 9, given_split={4: "val", 9: "train"}))
    with pytest.raises(UserError, match=r"of test story s4: .* set split.on_contamination: drop leaves out the later"):
        done(with_a_copy(4, 9, given_split={4: "test", 9: "train"}))


def test_a_near_copy_on_the_same_side_is_no_contamination():
    made = done(with_a_copy(4, 9, given_split={4: "train", 9: "train"}))
    assert made.facts["contaminated"] == 0
    assert len(made.table(table="contaminated")) == len(made.table(table="_dropped")) == 0


def test_a_held_out_instruction_among_the_training_rows_fails():
    long = {
        n: "a story about a cat who lost her hat and found a fish that knew where all the hats of the sea are kept"
        for n in (4, 9)
    }
    with pytest.raises(
        UserError, match="story s9 holds 100% of the 5-word runs of the instruction of held-out story s4"
    ):
        done(dedup_rows(300, summary=long, given_split={4: "val", 9: "train"}))


def test_a_training_task_that_asks_what_a_held_out_task_asks_goes_whatever_it_answers():
    asked = {4: "Is the sea salt?", 9: "Is the sea salt?", 11: "Is tea salt?"}
    stories = dedup_rows(300, instruction=asked, summary=dict.fromkeys(asked), given_split={4: "val", 9: "train"})
    with pytest.raises(UserError, match=r"story s9 has the instruction of val story s4: 'Is the sea salt\?'"):
        done(stories)
    made = done(stories, on_contamination="drop")
    (found,) = made.table(table="contaminated").to_pylist()
    assert (found["other"], found["why"], found["dropped_id"]) == ("Is the sea salt?", "asked", "s9")
    assert "s9" not in sides(made) and sides(made).keys() >= {"s4", "s11"}


def test_the_held_out_stories_may_be_compared_a_few_at_a_time(monkeypatch):
    given = {n: "val" for n in range(0, 300, 2)} | {n: "train" for n in range(1, 300, 2)}
    stories = dedup_rows(300, 20, text={n: f"{STORY} {GIVEAWAY}" for n in (40, 51, 280)}, given_split=given)
    whole = done(stories, on_contamination="waive").table(table="contaminated").to_pylist()
    monkeypatch.setattr("lib.stages.split.HELD_OUT_AT_ONCE", 25)
    pieces = done(stories, on_contamination="waive", min_rows=9).table(table="contaminated").to_pylist()
    assert [(row["story_id"], row["other_id"]) for row in whole] == [("s51", "s40"), ("s51", "s280"), ("s51", None)]
    assert sorted(map(str, pieces)) == sorted(map(str, whole))


def test_waived_contamination_is_recorded_and_can_be_queried():
    made = done(with_a_copy(4, 9, given_split={4: "val", 9: "train"}), on_contamination="waive")
    assert made.facts["contaminated"] == 1 and sides(made)["s9"] == "train"
    with connect() as con:
        asked = "select story_id, against, other_id, why, round(share, 2), shared, dropped_id from contamination"
        (row,) = con.sql(asked).fetchall()
    assert row == ("s9", "val", "s4", "copy", 0.94, " ".join(WORDS[41:]), None)


def test_what_gives_a_given_side_away_is_dropped_with_a_reason_that_can_be_queried():
    made = done(with_a_copy(9, 4, given_split={4: "train", 9: "val"}), on_contamination="drop")
    assert "s4" not in sides(made) and sides(made)["s9"] == "val"
    assert made.manifest["drops"] == {"contaminated": 1} and sum(made.facts["rows_by_split"].values()) == 299
    with connect() as con:
        (row,) = con.sql("select stage, story_id, reason, detail from drops").fetchall()
        assert con.sql("select dropped_id from contamination").fetchall() == [("s4",)]
    assert row[:3] == ("split", "s4", "contaminated") and row[3].startswith("story s4 holds 94% of the 5-word runs of")


def drawn(side: str, count: int = 300) -> int:
    """A story that the hash of its cluster puts on that side."""
    found = sides(done(dedup_rows(count), val_fraction=0.2))
    return next(int(story[1:]) for story, its in found.items() if its == side and 20 < int(story[1:]) < count - 20)


@pytest.mark.parametrize("at", [0, 299])
def test_of_two_drawn_sides_the_later_story_is_dropped(at):
    val = drawn("val")
    made = done(with_a_copy(val, at, given_split={at: "train"}), on_contamination="drop", val_fraction=0.2)
    assert {f"s{val}", f"s{at}"} - sides(made).keys() == {f"s{max(val, at)}"}


def test_more_stories_drop_no_older_one_and_change_no_older_part():
    val, how = drawn("val"), {"on_contamination": "drop", "val_fraction": 0.2, "test_fraction": 0.2}
    few = done(dedup_rows(300, text={val: STORY}), **how)
    more = done(with_a_copy(val, 339, 340, given_split={339: "train"}), **how)
    assert [part.sha256 for part in few.parts()] == [part.sha256 for part in more.parts()][:3]
    assert "s339" not in sides(more) and sides(few).items() <= sides(more).items()


def test_a_held_out_story_that_comes_later_takes_an_older_copy_with_it():
    # The same part, config and limits as before, and yet another part is made of it.
    how, given = {"on_contamination": "drop", "min_rows": 0}, {4: "train", 5: "val"}
    assert "s4" in sides(done(dedup_rows(300, text={4: STORY}, given_split=given), **how))
    more = done(with_a_copy(4, 310, 320, given_split=given | {310: "val"}), **how)
    assert "s4" not in sides(more) and "s310" in sides(more)


def test_a_side_emptied_by_the_gate_is_said():
    with pytest.raises(UserError, match="no train row among them"):
        done(with_a_copy(0, 1, 2, given_split={0: "val", 1: "train"}), on_contamination="drop")
