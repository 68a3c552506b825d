"""Summaries all ask in one form, and one taken from a story is followed by that story."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.text.repair import repair
from lib.text.summary import extractive_summary, request_summaries, request_summary
from lib.text.words import follows


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a story about a cat", "a story about a cat"),
        ("A story about a cat.", "a story about a cat"),
        ("Write a story about a cat.", "a story about a cat"),
        ("This is a short story about Tom and Mia!", "a story about Tom and Mia"),
        ('"The tale of a brave hen"', "a story about a brave hen"),
        ("A brave hen", "a story about a brave hen"),
        ("Tom and Mia find a kite.", "a story about how Tom and Mia find a kite"),
        ("The hen finds\n a  kite.", "a story about how the hen finds a kite"),
        ("", ""),
        (" . ", ""),
        ("a story about ", ""),
    ],
)
def test_every_summary_starts_the_same_way(given, expected):
    assert request_summary(given) == expected


def test_a_long_summary_keeps_its_first_sentences():
    long = "Tom finds a kite. " + "He runs and runs. " * 30
    assert request_summary(long).startswith("a story about how Tom finds a kite. He runs")
    assert len(request_summary(long).split()) <= 44
    assert len(request_summary("word " * 100).split()) == 43


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        (
            "Once upon a time, there was a little boy named Ben. Ben saw a vase in the store. He liked the vase.",
            "a story about a little boy named Ben, a vase and the store",
        ),
        ("Once there was a reliable otter. The otter lived by a river.", "a story about a reliable otter and a river"),
        ("Tom and Mia ran to Tom. They saw a kite in the tree.", "a story about Tom and Mia, a kite and the tree"),
        ("Hop!", "a story about something"),
        ("", "a story about something"),
    ],
)
def test_a_story_without_a_summary_gets_its_own_who_and_what(story, expected):
    assert extractive_summary(story) == expected


def test_a_story_follows_the_summary_taken_from_it():
    story = (
        "One day, a tiny frog called Hop sat on a leaf. A duck took the leaf. Hop was sad, but the duck gave it back."
    )
    assert follows(extractive_summary(story), story) == 1.0


WORDS = st.sampled_from(
    [
        "a story about ",
        "A story about ",
        "a",
        "The",
        "A",
        "Tom",
        "cat",
        "tale of",
        '"',
        "'",
        ".",
        "!",
        ",",
        " ",
        "\n",
        "é",
        "word " * 39,
    ]
)
SUMMARIES = st.lists(WORDS, max_size=8).map("".join) | st.lists(WORDS, max_size=4).map(
    lambda words: "a story about " + " ".join(words)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SUMMARIES.map(repair), max_size=5))
def test_a_column_of_summaries_becomes_what_its_rows_become(summaries):
    story = "Once there was a reliable otter. The otter lived by a river."
    expected = [request_summary(each) or extractive_summary(story) for each in summaries]
    column = pa.array(summaries, pa.string())
    assert request_summaries(column, pa.array([story] * len(column), pa.string())).to_pylist() == expected
