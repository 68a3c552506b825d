"""Words and shingles come out as Python would make them, whatever the text."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.text import shingles as module
from lib.text.shingles import shingles


def words_of(text: str) -> list[str]:
    return [word for chunk in text.split() if (word := re.sub(r"[^\w]+|_", "", chunk.lower()))]


def shingle_list(text: str, length: int = 5) -> list[tuple[str, ...]]:
    words = words_of(text)
    return [tuple(words[at : at + length]) for at in range(max(len(words) - length + 1, min(len(words), 1)))]


def made(texts: list[str], length: int = 5) -> tuple[list[list[int]], list[int]]:
    """The hashes of each text, and the digests."""
    hashes, digests = [], []
    for some in shingles(pa.array(texts, pa.string()), length):
        hashes += [each.tolist() for each in np.split(some.hashes, np.cumsum(some.counts)[:-1])]
        digests += some.digests.tolist()
    return hashes, digests


def assert_alike(texts: list[str], length: int) -> None:
    """Hashes are equal where the shingles are, and digests where the words are."""
    found, digests = made(texts, length)
    expected = [shingle_list(text, length) for text in texts]
    assert [len(each) for each in found] == [len(each) for each in expected]
    pairs = {(a, b) for ours, theirs in zip(found, expected, strict=True) for a, b in zip(ours, theirs, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    by_words = {(digest, tuple(words_of(text))) for digest, text in zip(digests, texts, strict=True)}
    assert len(by_words) == len({a for a, _ in by_words}) == len({b for _, b in by_words})


ODD = [
    "", " ", "...", "a", "A b", "Don't stop!", "dont stop", "well-known\tfact", "one_two", "x\x00y z", "\x1fa\x1fb",
    "seventeenletters eightlet ninelette " + "long" * 50 + "x", "long" * 50 + "y",
    "Zoë's café, cafe\u0301 naïve", "ΣΑΣ ΣΑΣ.", "İstanbul ß ẞ",
    "你好 世界", "a\u00a0b\u2003c\u0085d", "\u201cHi,\u201d she said\u2014twice", "½ x² ٣ \U0001f600 smile",
    "\u00ff\u00fe",
]  # fmt: skip


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6])
def test_odd_texts_have_the_words_that_python_finds(length):
    assert_alike(ODD, length)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=6), st.integers(1, 6))
def test_any_text_has_the_words_that_python_finds(texts, length):
    assert_alike(texts, length)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "B!", "eightlet", "ninelette", "-"])).map(" ".join)), st.integers(1, 6))
def test_shingles_of_a_small_alphabet_are_told_apart(texts, length):
    assert_alike(texts, length)


def test_digests_see_words_and_their_order_only():
    _, digests = made(["The cat, sat.", "the CAT sat", "cat the sat", "the cat", "the cat sat sat"])
    assert digests[0] == digests[1] and len(set(digests)) == 4


def test_where_the_work_is_cut_changes_nothing(monkeypatch):
    texts = [*ODD, "the cat sat on the mat and " * 20, *ODD]
    whole = made(texts)
    monkeypatch.setattr(module, "BYTES_AT_ONCE", 50)
    assert len(list(shingles(pa.array(texts)))) > 10
    assert made(texts) == whole
    chunked = pa.chunked_array([pa.array(texts[:7]), pa.array(texts[7:])])
    monkeypatch.undo()
    assert next(shingles(chunked)).hashes.tolist() == sum(whole[0], [])
