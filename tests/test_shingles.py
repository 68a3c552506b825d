"""The near-duplicate join finds exactly the pairs that comparing all pairs finds."""

import random
import re
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.text.shingles import Shingles, first_kept, near_pairs


def shingle_set(text: str, length: int = 5) -> set[tuple[str, ...]]:
    words = [word for chunk in text.split() if (word := re.sub(r"[^\w]+|_", "", chunk.lower()))]
    return {tuple(words[at : at + length]) for at in range(max(len(words) - length + 1, min(len(words), 1)))}


def all_pairs(texts: list[str], jaccard: float = 0.8, length: int = 5) -> list[tuple[int, int, float]]:
    sets, found = [shingle_set(text, length) for text in texts], []
    for j in range(len(sets)):
        for i in range(j):
            common = len(sets[i] & sets[j])
            if common and common / (len(sets[i]) + len(sets[j]) - common) >= jaccard:
                found.append((i, j, common / (len(sets[i]) + len(sets[j]) - common)))
    return sorted(found)


def greedy(texts: list[str], jaccard: float = 0.8) -> dict[int, tuple[int, float]]:
    gone: dict[int, tuple[int, float]] = {}
    near: dict[int, list[tuple[int, float]]] = {}
    for i, j, similarity in all_pairs(texts, jaccard):
        near.setdefault(j, []).append((i, similarity))
    for j in sorted(near):
        kept = [(i, similarity) for i, similarity in near[j] if i not in gone]
        if kept:
            gone[j] = min(kept, key=lambda pair: (-pair[1], pair[0]))
    return gone


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


@pytest.mark.parametrize("texts", [planted(1), planted(2), repetitive(3), [], ["one text"]])
@pytest.mark.parametrize("jaccard", [0.5, 0.8, 1.0])
def test_every_pair_and_no_other_is_found_with_its_exact_similarity(texts, jaccard):
    found = list(zip(*(each.tolist() for each in near_pairs(texts, jaccard)), strict=True))
    assert found == all_pairs(texts, jaccard)
    assert len(found) > 10 or len(texts) < 2


@pytest.mark.parametrize("texts", [planted(4), repetitive(5)])
def test_a_text_goes_with_the_most_similar_one_kept_before_it(texts):
    shingles = Shingles()
    shingles.add(pa.array(texts[:50]))
    shingles.add(pa.chunked_array([pa.array(texts[50:70]), pa.array(texts[70:])]))
    assert first_kept(shingles) == greedy(texts)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=8), st.sampled_from([0.3, 0.6, 0.8])
)
def test_any_small_texts_are_compared_exactly(texts, jaccard):
    found = list(zip(*(each.tolist() for each in near_pairs(texts, jaccard, shingle=2)), strict=True))
    assert found == all_pairs(texts, jaccard, length=2)


def test_digests_see_words_and_their_order_only():
    shingles = Shingles()
    shingles.add(pa.array(["The cat, sat.", "the CAT sat", "cat the sat", "the cat", "the cat sat sat"]))
    digests = shingles.digests()
    assert digests[0] == digests[1] and len(np.unique(digests)) == 4


def test_ten_thousand_copies_are_as_cheap_as_ten_thousand_texts():
    shingles = Shingles()
    shingles.add(pa.array(["one two three four five six seven eight nine ten"] * 10_000))
    started = time.process_time()
    assert len(first_kept(shingles)) == 9_999  # comparing all pairs would be 50 million
    assert time.process_time() - started < 5
