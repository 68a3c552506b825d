"""Split puts whole clusters on one side, for ever, and lets no training story give an evaluation prompt away."""

import pyarrow as pa
import pytest

from lib.errors import UserError
from lib.stages.split import STAGE, SplitConfig, split
from lib.store import Dataset, build
from lib.store.schemas import DEDUP
from lib.text.openings import OPENINGS
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
        UserError, match=r"story s\d+ shares 13 words with 'Once upon a time, there is a girl named Lily. One"
    ):
        done(stories)


def test_twelve_words_in_a_row_are_no_contamination():
    done(dedup_rows(300, text={n: GIVEAWAY.replace("SHE", "they") for n in range(20)}))


def test_a_training_row_that_is_asked_a_reward_prompt_fails():
    stories = dedup_rows(300, summary={n: "a story about a troll" for n in range(20)})
    with pytest.raises(UserError, match=r"story s\d+ has the instruction 'Write a story about a Troll\.'"):
        done(stories, reward_prompts=("Write a story about a Troll.",))
    assert done(stories).facts["contaminated"] == 0


def test_what_is_held_out_may_hold_a_prompt():
    given = {n: "val" for n in range(20)}
    assert done(dedup_rows(300, text={n: GIVEAWAY for n in range(20)}, given_split=given)).facts["contaminated"] == 0


def test_waived_contamination_is_recorded():
    facts = done(dedup_rows(300, text={7: GIVEAWAY}, given_split={7: "train"}), waive=True).facts
    assert facts["contaminated"] == 1
    assert facts["contaminated_rows"] == [{"story_id": "s7", "prompt": OPENINGS[3], "why": "shares 13 words with"}]
