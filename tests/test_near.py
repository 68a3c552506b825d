"""The near-duplicate join finds exactly the pairs that comparing all pairs finds."""

import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.text import meetings
from lib.text.near import Comparison, near_pairs
from tests.test_shingles import shingle_list


def all_pairs(texts: list[str], jaccard: float = 0.8, length: int = 5) -> list[tuple[int, int, float]]:
    sets, found = [set(shingle_list(text, length)) for text in texts], []
    for j in range(len(sets)):
        for i in range(j):
            common = len(sets[i] & sets[j])
            if common and common / (len(sets[i]) + len(sets[j]) - common) >= jaccard:
                found.append((i, j, common / (len(sets[i]) + len(sets[j]) - common)))
    return sorted(found)


def greedy(texts: list[str], order: list[int], jaccard: float = 0.8, length: int = 5) -> dict[int, tuple[int, float]]:
    """The rule by hand: each text in order against those kept before it."""
    place = {text: at for at, text in enumerate(order)}
    near: dict[int, list[tuple[float, int, int]]] = {}
    for i, j, similarity in all_pairs(texts, jaccard, length):
        first, second = sorted((i, j), key=place.__getitem__)
        near.setdefault(second, []).append((-similarity, place[first], first))
    gone: dict[int, tuple[int, float]] = {}
    for text in order:
        kept = [pair for pair in near.get(text, []) if pair[2] not in gone]
        if kept:
            gone[text] = (min(kept)[2], -min(kept)[0])
    return gone


def verdicts(texts: list[str], order: np.ndarray | None = None, **options) -> dict[int, tuple[int, float]]:
    with Comparison(len(texts), **options) as comparison:
        comparison.add(pa.array(texts[:3], pa.string()))
        comparison.add(pa.chunked_array([pa.array(texts[3:5], pa.string()), pa.array(texts[5:], pa.string())]))
        kept, similarity, _ = comparison.verdicts(order)
    return {n: (k, s) for n, (k, s) in enumerate(zip(kept.tolist(), similarity.tolist(), strict=True)) if k >= 0}


def planted(seed: int, size: int = 120) -> list[str]:
    """Random texts, then copies of them with 0 to 4 words changed, cut or added."""
    dice = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(300)]
    texts = [" ".join(dice.choices(vocabulary, k=dice.randint(1, 50))) for _ in range(size)]
    for _ in range(size):
        words = dice.choice(texts).split()
        for _ in range(dice.randint(0, 4)):
            words[dice.randrange(len(words))] = dice.choice([*vocabulary, "W1,", "", "w2 w3"])
        texts.append(" ".join(words))
    return [*texts, "", "!!", "a", "A!", "a b"]


def repetitive(seed: int, size: int = 150) -> list[str]:
    """Texts of a few phrases, over and over: nearly every shingle is in nearly every text."""
    dice = random.Random(seed)
    phrases = [" ".join(dice.choices("abcdefghij", k=9)) for _ in range(10)]
    texts = [" ".join(dice.choices(phrases, k=dice.randint(1, 12))) for _ in range(size)]
    return texts + ["the cat " * dice.randint(1, 30) for _ in range(30)]


def variants(seed: int, size: int) -> list[str]:
    """One story, told each time with two of its words exchanged: every two are near each other."""
    dice = random.Random(seed)
    told = []
    for n in range(size):
        words = [f"w{at}" for at in range(200)]
        for at in dice.sample(range(200), 2):
            words[at] = f"x{n}"
        told.append(" ".join(words))
    return told


@pytest.mark.parametrize("texts", [planted(1), planted(2), repetitive(3), [], ["one text"]])
@pytest.mark.parametrize("jaccard", [0.5, 0.8, 1.0])
def test_every_pair_and_no_other_is_found_with_its_exact_similarity(texts, jaccard):
    found = near_pairs(texts, jaccard)
    assert found == all_pairs(texts, jaccard)
    assert len(found) > 10 or len(texts) < 2


@pytest.mark.parametrize("texts", [planted(4), repetitive(5)])
def test_a_text_goes_with_the_most_similar_one_kept_before_it(texts):
    assert verdicts(texts) == greedy(texts, list(range(len(texts))))


@pytest.mark.parametrize("texts", [planted(6), repetitive(7)])
def test_before_means_before_in_the_order_given(texts):
    order = random.Random(8).sample(range(len(texts)), len(texts))
    assert verdicts(texts, np.array(order)) == greedy(texts, order)


SMALL = st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=12)


@settings(max_examples=150, deadline=None)
@given(SMALL, st.sampled_from([0.1, 0.3, 0.5, 0.6, 2 / 3, 0.75, 0.8, 0.9, 1.0]), st.integers(1, 6))
def test_any_small_texts_are_compared_exactly(texts, jaccard, length):
    assert near_pairs(texts, jaccard, length) == all_pairs(texts, jaccard, length)
    assert verdicts(texts, jaccard=jaccard, shingle=length) == greedy(texts, list(range(len(texts))), jaccard, length)


@pytest.mark.parametrize("texts", [planted(9), repetitive(10)])
def test_files_give_what_memory_gives(texts, tmp_path):
    with Comparison(len(texts), folder=tmp_path, _limit=100) as comparison:
        comparison.add(pa.array(texts))
        assert len(list(tmp_path.glob("*/by-shingle/*"))) > 20  # of 64 files, by the highest bits
        kept, similarity, _ = comparison.verdicts()
        assert len(list(tmp_path.glob("*/by-text/*"))) > 20 and list(tmp_path.glob("*/by-text/tokens"))
    expected = verdicts(texts)
    assert {n: (kept[n], similarity[n]) for n in range(len(texts)) if kept[n] >= 0} == expected and expected
    assert not list(tmp_path.glob("_compare-*"))


@pytest.mark.parametrize("texts", [planted(11), repetitive(12), variants(13, 80)])
def test_the_size_of_the_blocks_changes_nothing(texts, monkeypatch):
    expected, pairs = verdicts(texts), near_pairs(texts)
    monkeypatch.setattr(meetings, "MEETINGS", 20)
    monkeypatch.setattr("lib.text.near.COUNTED", 100)
    assert verdicts(texts) == expected and near_pairs(texts) == pairs


@st.composite
def of_many_sizes(draw) -> list[str]:
    """Pieces of one text, so that near pairs differ in size as much as they can, the longer before or after."""
    words = [f"w{n}" for n in range(60)]
    starts = st.tuples(st.integers(0, 12), st.integers(40, 60), st.sampled_from(["", "x1 x2", "x1", "y"]))
    return [" ".join([*words[start:stop], more]) for start, stop, more in draw(st.lists(starts, max_size=25))]


@settings(max_examples=100, deadline=None)
@given(of_many_sizes(), st.sampled_from([0.5, 0.7, 0.8, 0.95]), st.randoms(use_true_random=False))
def test_a_longer_and_a_shorter_text_are_compared_whichever_comes_first(texts, jaccard, dice):
    order = dice.sample(range(len(texts)), len(texts))
    assert near_pairs(texts, jaccard) == all_pairs(texts, jaccard)
    assert verdicts(texts, np.array(order, int), jaccard=jaccard) == greedy(texts, order, jaccard)


@pytest.mark.parametrize("texts", [planted(16), repetitive(17), variants(18, 30)])
@pytest.mark.parametrize("bits", [0, 3])
def test_tokens_that_share_a_list_change_nothing_and_no_text_meets_itself(texts, bits, monkeypatch):
    monkeypatch.setattr(meetings, "MOST_SLOT_BITS", bits)
    assert near_pairs(texts) == all_pairs(texts)
    assert verdicts(texts) == greedy(texts, list(range(len(texts))))


def test_ten_thousand_variants_of_a_story_are_not_compared_with_one_another():
    few, many = ([*variants(14, 1) * 50, *variants(15, size)] for size in (500, 2000))
    spent = []
    for texts in (few, many):
        started = time.process_time()
        assert len(verdicts(texts)) == len(texts) - 1
        spent.append(time.process_time() - started)
    assert spent[1] < 8 * spent[0]  # comparing all would take 16 times as long


def test_too_many_texts_are_refused_with_the_number_that_can_be_compared():
    with pytest.raises(UserError, match="16,777,217 texts.*at most 16,777,216"):
        Comparison((1 << 24) + 1)
