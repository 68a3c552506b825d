"""Dedup keeps one story of each group, by a rule that more stories cannot change."""

import random
import re

import pyarrow as pa

from lib.stages.dedup import STAGE, DedupConfig, dedup
from lib.store import Dataset, build
from lib.store.schemas import CLEAN
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


def test_more_stories_change_nothing_for_older_ones():
    stories = texts(4, 100)
    few, more = deduplicated(clean_rows(stories[:60])), deduplicated(clean_rows(stories))
    assert verdicts(few).items() <= verdicts(more).items()
    assert [part.sha256 for part in few.parts()] == [part.sha256 for part in more.parts()][:3]
    assert [part.sha256 for part in few.parts("_dropped")] == [part.sha256 for part in more.parts("_dropped")][:3]


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
