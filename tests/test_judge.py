"""Judge: marks over HTTP, the ledger that pays once, and a judge that will not judge."""

import json

import pytest

from lib.errors import TransientError, UserError
from lib.model.rewards import Rewards
from lib.store import connect
from lib.text.judge import JudgeConfig, marks_in
from tests.teacher import FakeTeacher, completion, failure

PROMPTS = ["Write a story about a cat", "Write a story about a dog", "Write a story about a cat"]
STORIES = ["A cat sat.", "A dog ran far.", "A cat sat."]
MARKS = {"grammar": 8, "creativity": 4, "consistency": 6, "plot": 2}


def by_length(request, times):
    """Longer stories get a better plot."""
    story = request["messages"][1]["content"].rpartition("The story:\n")[2]
    return completion(json.dumps(MARKS | {"plot": len(story.split())}))


def rewards(teacher, **config):
    judge = JudgeConfig(model="marker-1", base_url=teacher.base_url, backoff=0.01, **config)
    return Rewards({"judge": 2.0}, concept="", judge=judge)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")


def test_the_reward_is_the_mean_of_four_marks():
    with FakeTeacher(by_length) as teacher:
        found = rewards(teacher)(PROMPTS, STORIES)
    cat, dog = (8 + 4 + 6 + 3) / 40, (8 + 4 + 6 + 4) / 40
    assert found.parts["judge"] == pytest.approx([cat, dog, cat])
    assert found.total == pytest.approx([2 * cat, 2 * dog, 2 * cat])
    sent = teacher.requests[0]
    assert sent["temperature"] == 0
    assert sent["response_format"]["json_schema"]["name"] == "marks"
    assert "authorization: bearer secret" in teacher.heads[0]


def test_no_story_is_paid_for_twice_by_another_run_either():
    with FakeTeacher(by_length) as teacher:
        first = rewards(teacher)(PROMPTS, STORIES)
        assert len(teacher.requests) == 2  # the cat's story came twice
        judge = rewards(teacher)
        assert judge(PROMPTS, STORIES) == first
        assert len(teacher.requests) == 2
        judge(PROMPTS[:1], ["Another story."])
        assert len(teacher.requests) == 3
    with connect() as db:
        assert db.sql("select count(*) from requests where status = 'ok'").fetchall() == [(3,)]


def test_an_answer_without_marks_is_asked_for_again_and_a_story_without_any_gets_none():
    def grumbles(request, times):
        if "dog" in request["messages"][1]["content"]:
            return completion("I would rather not.")
        return completion("Well: " + json.dumps(MARKS)) if request["seed"] % 2 else completion("{}")

    with FakeTeacher(grumbles) as teacher:
        found = rewards(teacher, reasks=20)(PROMPTS[:2], STORIES[:2]).parts["judge"]
    assert found == pytest.approx([0.5, 0.0])
    assert sum("dog" in each["messages"][1]["content"] for each in teacher.requests) == 21


def test_a_judge_that_marks_nothing_is_named_with_what_it_wrote():
    with (
        FakeTeacher(lambda request, times: completion("Nice stories!")) as teacher,
        pytest.raises(UserError, match="marker-1 gave no marks for any of 2 stories.*'Nice stories!'.*judge.model"),
    ):
        rewards(teacher, reasks=1)(PROMPTS, STORIES)


def test_a_wrong_key_ends_it_and_an_outage_may_pass():
    with FakeTeacher(lambda request, times: failure(401)) as teacher, pytest.raises(UserError, match="OPENAI_API_KEY"):
        rewards(teacher)(PROMPTS, STORIES)
    gives_up = pytest.raises(TransientError, match="failed 2 times in a row")
    with FakeTeacher(lambda request, times: failure(503)) as teacher, gives_up:
        rewards(teacher, tries=2)(PROMPTS, STORIES)


def test_a_missing_key_is_told(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with FakeTeacher(by_length) as teacher, pytest.raises(UserError, match="no API key for marker-1"):
        rewards(teacher)(PROMPTS, STORIES)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (json.dumps(MARKS), MARKS),
        ("```json\n" + json.dumps(MARKS) + "\n```", MARKS),
        (json.dumps(MARKS | {"age": 5}), MARKS),
        (json.dumps(MARKS | {"plot": 11}), None),
        (json.dumps(MARKS | {"plot": True}), None),
        (json.dumps(MARKS | {"plot": 2.5}), None),
        ('{"grammar": 1}', None),
        ("} {", None),
        ("", None),
    ],
    ids=str,
)
def test_marks_are_read_whatever_stands_around_them(content, found):
    assert marks_in(content) == found
