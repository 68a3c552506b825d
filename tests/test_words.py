"""Content words and what it means that a story follows its summary."""

import pytest

from lib.text.words import content_words, follows, stem


def test_stop_words_and_possessives_carry_no_meaning():
    assert content_words("The cat's toy is under Tom\u2019s big bed, isn't it?") == ["cat", "toy", "tom", "big", "bed"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cats", "cat"),
        ("boxes", "box"),
        ("dresses", "dress"),
        ("stories", "story"),
        ("cried", "cry"),
        ("baking", "bake"),
        ("baked", "bakes"),
        ("running", "run"),
        ("hopped", "hop"),
        ("calling", "called"),
        ("played", "play"),
    ],
)
def test_forms_of_one_word_meet(one, other):
    assert stem(one) == stem(other)


@pytest.mark.parametrize(("one", "other"), [("bus", "bu"), ("glass", "glas"), ("king", "k"), ("bed", "b")])
def test_other_words_do_not_meet(one, other):
    assert stem(one) != stem(other)


def test_a_story_follows_what_it_holds_in_any_form():
    summary = "a story about a brave cat who finds two lost kittens"
    assert follows(summary, "A brave cat was sad. She found no one. A kitten lost its way.") == pytest.approx(4 / 6)
    assert follows(summary, "The braves cats find the lost kitten two by two.") == 1.0


def test_the_words_a_story_about_are_not_asked_for():
    assert follows("a story about a dog", "The dog ran.") == 1.0
    assert follows("Write a story about a dog", "The dog ran.") == 1.0


def test_nothing_asked_is_nothing_followed():
    assert follows("a story about", "The dog ran.") == 0.0
