"""Extras: more asks about something, that move no other ask."""

import pytest

from lib import stages, store
from lib.stages.generate import GenerateConfig, Planned
from lib.text.extras import Extra, place
from lib.text.prompts import PromptPlan, asks, groups, messages

TROLLS = Extra(count=4, after=6, noun="troll", about="a boy and a troll")
YAKS = Extra(count=2, after=6, noun="yak", verb="cross")


def ids(plan: PromptPlan) -> list[str]:
    return [each.request_id for each in Planned(GenerateConfig(plan=plan))]


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


def test_a_request_for_several_stories_never_mixes_the_plans_own_with_an_extras():
    plan = PromptPlan(count=10, stories_per_request=4)
    more = PromptPlan(count=17, stories_per_request=4, extra=(TROLLS.model_copy(update={"after": 10, "count": 5}),))
    assert (plan.count, more.count, [(each.count, each.after) for each in more.extra]) == (12, 20, [(8, 12)])
    assert [len(group) for group in groups(more)] == [4] * 7
    assert [group[0].extra for group in groups(more)] == [False] * 3 + [True] * 2 + [False] * 2
    assert all(len({ask.extra for ask in group}) == 1 for group in groups(more))
    assert ids(more)[:3] == ids(plan)


def test_every_request_stays_the_same_when_an_extra_and_more_come_after_it():
    """Ten stories, four a request: the third request asks for four as well."""
    many = {"stories_per_request": 4, "design": "mixed"}
    extra = TROLLS.model_copy(update={"after": 10, "count": 5})
    first, then = ids(PromptPlan(count=10, **many)), ids(PromptPlan(count=10, extra=(extra,), **many))
    assert then[: len(first)] == first
    assert ids(PromptPlan(count=16, extra=(extra,), **many))[: len(then)] == then


def test_extra_asks_do_not_count_for_the_evenness_of_the_plan():
    for plan in (PromptPlan(count=8), PromptPlan(count=8, extra=(TROLLS.model_copy(update={"count": 30}),))):
        made = stages.build("generate", GenerateConfig(plan=plan), {})
        used = store.connect().execute("select sum(uses) from plan_coverage where axis = 'verb'").fetchall()
        assert used == [(8,)]
        assert made.facts["plan_coverage"]["verb"]["worst_ratio"] == pytest.approx(300 / 8, rel=0.1)
    asked = store.connect().execute("select extra, about, count(*) from plan group by all order by all").fetchall()
    assert asked == [(False, "", 8), (True, "a boy and a troll", 30)]
