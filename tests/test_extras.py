"""Extras: more asks about something, that move no other ask."""

import pytest

from lib.stages.generate import GenerateConfig, planned
from lib.text.extras import Extra, ends_of, place
from lib.text.prompts import PromptPlan, asks, groups, messages

TROLLS = Extra(count=4, after=6, noun="troll", about="a boy and a troll")
YAKS = Extra(count=2, after=6, noun="yak", verb="cross")


def ids(plan: PromptPlan) -> list[str]:
    return [each.request.request_id for each in planned(GenerateConfig(plan=plan))]


def test_an_extra_comes_after_what_was_there():
    places = [place((TROLLS, YAKS), 8, index) for index in range(14)]
    assert [number for extra, number in places if extra is None] == list(range(8))
    assert [extra for extra, _ in places[6:10]] == [TROLLS] * 4
    assert places[10:12] == [(YAKS, 0), (YAKS, 1)]
    assert places[12:] == [(None, 6), (None, 7)]


def test_a_plan_that_is_shorter_than_that_has_its_extras_at_the_end():
    assert [place((TROLLS,), 2, index)[0] for index in range(6)] == [None, None, *[TROLLS] * 4]


def test_what_was_asked_keeps_its_place_and_its_request_whatever_is_added():
    """Extras first, then 5 more of the plan's own, then other extras: each time the older requests are the first."""
    stages = [
        PromptPlan(count=6),
        PromptPlan(count=6, extra=(TROLLS,)),
        PromptPlan(count=11, extra=(TROLLS,)),
        PromptPlan(count=11, extra=(TROLLS, YAKS.model_copy(update={"after": 11}))),
    ]
    for before, after in zip(stages, stages[1:], strict=False):
        assert ids(after)[: before.total] == ids(before)
        assert len(ids(after)) == after.total == len(set(ids(after)))
    own = [each for each in ids(stages[-1]) if each in set(ids(PromptPlan(count=11)))]
    assert own == ids(PromptPlan(count=11))


def test_no_request_changes_when_an_extra_is_put_in_though_it_asks_for_several_stories():
    """Ten stories, four a request: the last request asks for two, and stays the same when more come after it."""
    many = {"stories_per_request": 4, "design": "mixed"}
    before = ids(PromptPlan(count=10, **many))
    extra = TROLLS.model_copy(update={"after": 10, "count": 5})
    after = ids(PromptPlan(count=10, extra=(extra,), **many))
    assert after[: len(before)] == before
    assert [len(group) for group in groups(PromptPlan(count=16, extra=(extra,), **many))] == [4, 4, 2, 4, 1, 4, 2]
    assert ids(PromptPlan(count=16, extra=(extra,), **many))[: len(after)] == after


def test_runs_of_asks_end_where_their_kind_does():
    extras = (TROLLS, YAKS, Extra(count=3, after=0, noun="yak"))
    kinds = [place(extras, 8, index)[0] for index in range(17)]
    changes = [n for n in range(1, 17) if kinds[n] != kinds[n - 1]]
    assert ends_of(extras, 8) == [*changes, 17]
    assert ends_of((), 8) == [8]


def test_an_extra_asks_for_its_words_whatever_the_design():
    for design in ("tinystories", "simplestories", "mixed", "combined"):
        for ask in asks(PromptPlan(count=6, design=design, extra=(TROLLS,)))[6:]:
            assert ask.noun == "troll"
            assert ask.verb


def test_extra_asks_do_not_count_for_the_evenness_of_the_plan(data_root):
    from lib import stages, store

    extra = TROLLS.model_copy(update={"count": 30, "after": 8})
    for plan in (PromptPlan(count=8), PromptPlan(count=8, extra=(extra,))):
        made = stages.build("generate", GenerateConfig(plan=plan), {})
        rows = (
            store.connect().execute("select axis, word, uses from plan_coverage where uses > 0 order by all").fetchall()
        )
        assert sum(uses for axis, _, uses in rows if axis == "verb") == 8
        assert made.facts["plan_coverage"]["verb"]["worst_ratio"] == pytest.approx(300 / 8, rel=0.1)
    asked = store.connect().execute("select about, count(*) from plan group by 1 order by 1").fetchall()
    assert asked == [("a boy and a troll", 30), (None, 8)]


def test_the_fixed_words_are_asked_for_and_the_others_differ():
    plan = PromptPlan(count=1, extra=(TROLLS.model_copy(update={"count": 40}),))
    extra = asks(plan)[1:]
    assert {ask.noun for ask in extra} == {"troll"}
    assert len({ask.verb for ask in extra}) == 40
    assert [ask.verb for ask in extra] != [ask.verb for ask in asks(PromptPlan(count=40))]
    text = messages(extra[0])[1]["content"]
    assert 'the noun "troll"' in text
    assert "Let the story be about a boy and a troll." in text
    assert "be about" not in messages(asks(plan)[0])[1]["content"]


def test_the_storyteller_tells_of_what_an_extra_asks_for():
    from lib.text.storyteller.story import tell
    from lib.text.storyteller.wish import wish_of

    for ask in asks(PromptPlan(count=1, extra=(TROLLS,)))[1:]:
        assert "troll" in tell(wish_of(messages(ask), ask.index), ask.index).story
