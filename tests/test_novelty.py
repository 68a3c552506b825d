"""Novelty drops what was asked for before in nearly the same words, by a rule that more rows cannot change."""

import json
import random

import pyarrow as pa
import pytest

from bench.novelty import instructions, kept_by_all_pairs, kept_one_by_one, same_verdicts
from lib.errors import UserError
from lib.stages.novelty import STAGE, NoveltyConfig, external, novelty
from lib.store import Dataset, build, connect
from lib.store.schemas import DEDUP
from tests import tiny


def dedup_rows(asked: list[str | None], held_out: frozenset[int] = frozenset(), of: str = "instruction") -> Dataset:
    rows = [
        {"story_id": f"s{n:04d}", "text": f"text {n}", "cluster_id": f"s{n:04d}", of: text}
        | {"given_split": "val" if n in held_out else None}
        for n, text in enumerate(asked)
    ]
    table = pa.Table.from_pylist(rows, schema=DEDUP)
    return tiny.publish(
        "dedup", {f"part-{at // 20:05d}.parquet": table[at : at + 20] for at in range(0, len(rows), 20)}
    )


def judged(
    asked: list[str | None], held_out: frozenset[int] = frozenset(), of: str = "instruction", **config
) -> Dataset:
    wanted = NoveltyConfig(**config)
    return build(STAGE, wanted, {"stories": dedup_rows(asked, held_out, of)}, novelty, external=external(wanted))


def dropped(made: Dataset) -> dict[str, str]:
    return {row["story_id"]: row["kept_id"] for row in made.table(table="_dropped").to_pylist()}


def test_the_verdicts_are_those_of_all_pairs():
    pytest.importorskip("rouge_score")
    asked = instructions(220, seed=1, copies=0.4)
    kept = kept_by_all_pairs(asked)
    assert 40 < sum(kept) < 190
    for config in ({}, {"neighbours": 0}):
        made = judged(asked, **config)
        assert made.table(["story_id"])["story_id"].to_pylist() == [
            f"s{n:04d}" for n, stays in enumerate(kept) if stays
        ]


def test_the_bench_counts_verdicts_that_differ(monkeypatch):
    pytest.importorskip("rouge_score")
    assert same_verdicts(200)() == {"same": 200, "rows": 200}
    monkeypatch.setattr("bench.novelty.kept_by_all_pairs", lambda texts: [True] * len(texts))
    assert same_verdicts(200)()["same"] == sum(kept_one_by_one(instructions(200))) < 200


def test_a_row_at_the_threshold_stays_and_one_above_it_goes():
    ten = "a b c d e f g h i j"
    made = judged([ten, "a b c d e f g x y z", "A, b: c d e f g h? y z", "k l m", ten])
    rows = made.table(table="_dropped").to_pylist()
    assert [(row["story_id"], row["reason"], row["kept_id"], row["similarity"]) for row in rows] == [
        ("s0002", "not_novel", "s0001", 0.9),
        ("s0004", "not_novel", "s0000", 1.0),
    ]
    assert made.manifest["counts"] == {"rows_in": 5, "rows_out": 3} and made.manifest["drops"] == {"not_novel": 2}


def test_only_kept_rows_count_against_later_ones():
    # The second is too like the first and goes; the third is like the second alone, and stays.
    assert dropped(judged(["a b c d e f g h i j", "a b c d e f g h k l", "c d e f g h k l m n"])) == {"s0001": "s0000"}


def test_summaries_count_where_there_is_no_instruction_and_rows_asked_for_nothing_stay():
    made = judged(["a story about a cat", None, "a story about a cat", "", None], of="summary")
    assert dropped(made) == {"s0002": "s0000"}


def test_held_out_rows_come_first():
    asked = ["a b c d e f", "k l m n o p", "a b c d e f"]
    assert dropped(judged(asked, frozenset({2}))) == {"s0000": "s0002"}


def test_more_rows_change_no_older_verdict():
    asked = instructions(120, seed=2, copies=0.5)
    few, more = judged(asked[:60]), judged(asked)
    for table in ("part", "_dropped", "neighbours", "scores"):
        assert [p.sha256 for p in few.parts(table)] == [p.sha256 for p in more.parts(table)][:3]
    assert len(more.parts()) == 6 and dropped(few).items() < dropped(more).items()


def test_the_nearest_are_stored_in_order_for_kept_and_dropped_rows():
    made = judged(["a b c d", "a b x y", "a b c z", "q r s t", "a b c d"], neighbours=2, average=True)
    near = [tuple(row.values()) for row in made.table(table="neighbours").to_pylist()]
    assert near == [
        ("s0001", 1, "s0000", 0.5),
        ("s0002", 1, "s0000", 0.75),
        ("s0002", 2, "s0001", 0.5),
        ("s0004", 1, "s0000", 1.0),
        ("s0004", 2, "s0001", 0.5),
    ]
    assert dropped(made) == {"s0002": "s0000", "s0004": "s0000"}
    scores = {row["story_id"]: (row["nearest"], row["average"]) for row in made.table(table="scores").to_pylist()}
    assert scores["s0000"] == (None, 0.0) and scores["s0003"] == (None, 0.0)
    assert scores["s0004"] == (1.0, pytest.approx((1 + 0.5 + 0) / 3))


def test_seed_tasks_stand_before_all_rows(tmp_path):
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text(json.dumps({"id": "x", "instruction": "Name a big animal.", "output": "A whale."}) + "\n")
    made = judged(["name a big animal", "Name a colour."], against=str(seeds))
    assert dropped(made) == {"s0000": "seed:x"}
    before = made.name
    seeds.write_text(json.dumps({"id": "y", "instruction": "Name a colour.", "output": "Red."}) + "\n")
    after = judged(["name a big animal", "Name a colour."], against=str(seeds))
    assert after.name != before and dropped(after) == {"s0001": "seed:y"}
    with pytest.raises(UserError, match="found no file"):
        judged(["a"], against=str(tmp_path / "none.jsonl"))


def test_its_drops_show_only_where_the_split_came_through_it(data_root):
    from lib.stages import build as build_stage
    from lib.stages.split import SplitConfig

    dice = random.Random(1)
    asked = [" ".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(40)] * 2
    rows = dedup_rows(asked, of="summary")
    config = NoveltyConfig()
    novel = build(STAGE, config, {"stories": rows}, novelty)
    for stories, count in ((novel, 40), (rows, 0)):
        build_stage("split", SplitConfig(), {"stories": stories})
        assert connect().execute("select count(*) from drops where stage = 'novelty'").fetchone() == (count,)
    detail = "select min(detail) from drops where stage = 'novelty'"
    build_stage("split", SplitConfig(), {"stories": novel})
    assert connect().execute(detail).fetchone() == ("asked like s0000, similarity 1.00",)
