"""What teachers write is read where it can be, and has a reason where it cannot."""

import pytest

from lib.text import replies
from lib.text.ledger import Answer

GOOD = Answer("ok", '{"story": "S", "summary": "a story about x"}', "fake-1")
BAD = Answer("ok", "no", "fake-1")


@pytest.mark.parametrize(
    ("content", "story", "summary"),
    [
        ('{"story": "S.", "summary": "a story about a cat"}', "S.", "a story about a cat"),
        ('```json\n{"story": "S.", "summary": "A story about a cat."}\n```', "S.", "a story about a cat."),
        ('Here you are: {"story": "S.", "summary": "Story about a cat"} Enjoy!', "S.", "a story about a cat"),
        ('{"story": "One\ntwo", "summary": "This is a story about\\n a cat"}', "One\ntwo", "a story about a cat"),
        ('{"summary": "Summary: a short story about cats", "story": " S "}', "S", "a story about cats"),
        ('a {b} {"story": "S", "summary": "The story is about Al"}', "S", "a story about Al"),
    ],
)
def test_wrapped_and_slightly_wrong_answers_are_read(content, story, summary):
    assert replies.read(content) == replies.Reply(story, summary)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "unreadable"),
        ("I cannot do that.", "unreadable"),
        ('{"story": "cut off', "unreadable"),
        ("[" * 100_000, "unreadable"),
        ('{"a":' * 100_000, "unreadable"),
        ('["story"]', "unreadable"),
        ('{"story": 7, "summary": "a story about x"}', "no_story"),
        ('{"story": " ", "summary": "a story about x"}', "no_story"),
        ('{"story": "S"}', "bad_summary"),
        ('{"story": "S", "summary": "a story about"}', "bad_summary"),
        ('{"story": "S", "summary": "Al has a story about x"}', "bad_summary"),
        ('{"story": "S\\u0000", "summary": "a story about x"}', "bad_characters"),
        ('{"story": "S\\ud800", "summary": "a story about x"}', "bad_characters"),
    ],
)
def test_what_holds_no_story_has_a_reason(content, reason):
    assert replies.read(content).reason == reason


def test_the_first_story_counts_and_only_the_allowed_answers_are_looked_at():
    assert replies.verdict([BAD, GOOD], reasks=2) == (GOOD, replies.Reply("S", "a story about x"))
    assert replies.verdict([BAD], reasks=1) is None
    assert replies.verdict([], reasks=0) is None
    answer, held = replies.verdict([BAD, BAD, GOOD], reasks=1)
    assert (answer, held.reason) == (BAD, "unreadable")


def test_a_truncated_answer_is_no_story_even_where_its_json_is_whole():
    answer, held = replies.verdict([Answer("truncated", GOOD.raw, "fake-1")], reasks=0)
    assert held.reason == "truncated"
