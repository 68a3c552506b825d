"""Thin: what a question lacks is asked for, comes, and stays when the plan grows."""

import pytest

from lib import presets, stages, store
from lib.errors import UserError
from lib.overrides import with_overrides
from lib.store import Dataset
from lib.text.extras import Extra
from lib.text.prompts import PromptPlan
from lib.web import thin
from lib.web.coverage import Coverage, Word, coverage

BRIDGE = "a boy crossing a bridge with a troll under it"
PLAN = PromptPlan(count=90)


def stories(plan: PromptPlan) -> dict[str, Dataset]:
    """Told by the built-in storyteller, and split."""
    config = with_overrides(presets.smoke(), {"generate": {"plan": plan.model_dump()}})
    raw = stages.build("generate", config.generate, {})
    clean = stages.build("clean", config.clean, {"stories": raw})
    dedup = stages.build("dedup", config.dedup, {"stories": clean})
    return {"raw": raw, "split": stages.build("split", config.split, {"stories": dedup})}


def found(together: int = 0, **counts: int) -> Coverage:
    words = tuple(Word(word, n, (), None, "covered" if n >= 20 else "thin") for word, n in counts.items())
    return Coverage(BRIDGE, 1000, words, (together,), (), 20, "")


def test_a_thin_word_becomes_covered():
    stories(PLAN)
    before = coverage(store.connect(), BRIDGE)
    assert {word.word: word.label for word in before.words}["troll"] == "absent"
    plan = thin.with_extras(PLAN, before)
    made = stories(plan)
    after = coverage(store.connect(), BRIDGE)
    assert {word.label for word in after.words} == {"covered"}
    assert after.label == "covered"
    asked = store.connect().execute("select count(*) from requests where status = 'ok'").fetchall()
    assert asked == [(plan.total,)], "what was answered is not asked for again"
    assert made["raw"].manifest["counts"]["rows_out"] == plan.total


def test_a_plan_that_grows_takes_its_extras_along():
    from flows.run import grown

    config = with_overrides(presets.smoke(), {"generate": {"plan": PLAN.model_dump()}})
    plan = PLAN.model_copy(update={"extra": (Extra(count=3, after=90, noun="troll"),)})
    stories(plan)
    assert grown(config, None) == config
    assert grown(config, 0).generate.plan == plan
    bigger = grown(config, 10).generate.plan
    assert (bigger.count, bigger.extra, bigger.total) == (100, plan.extra, 103)
    other = with_overrides(config, {"generate": {"plan": {"seed": 5}}})
    assert grown(other, 10).generate.plan.extra == ()


def test_stories_are_bought_only_for_the_corpus_that_was_counted():
    from flows.run import require_same_plan

    config = with_overrides(presets.smoke(), {"generate": {"plan": PLAN.model_dump()}})
    with pytest.raises(UserError, match="none yet"):
        require_same_plan(config)
    stories(PLAN)
    require_same_plan(with_overrides(config, {"generate": {"plan": {"count": 500}, "price_in": 1.0}}))
    with pytest.raises(UserError, match="were not asked for with this plan"):
        require_same_plan(with_overrides(config, {"generate": {"plan": {"seed": 5}}}))


def test_a_plan_of_several_stories_a_request_grows_by_whole_requests_and_keeps_every_story():
    from flows.run import grown

    plan = PLAN.model_copy(update={"count": 18, "stories_per_request": 4}).model_dump()
    config = with_overrides(presets.smoke(), {"generate": {"plan": plan}})
    extended = thin.with_extras(config.generate.plan, found(troll=0), count=3)
    assert (extended.count, extended.extra[0].count, extended.extra[0].after) == (20, 4, 20)
    before = stories(extended)["raw"].table().to_pylist()
    bigger = grown(config, 1).generate.plan
    assert (bigger.count, bigger.extra, bigger.total) == (24, extended.extra, 28)
    after = stories(bigger)["raw"].table().to_pylist()
    assert after[:24] == before and len(after) == 28
    asked = store.connect().execute("select count(distinct request_id) from requests").fetchall()
    assert asked == [(7,)]


def test_each_thin_word_is_asked_for_beside_the_rest_of_the_question():
    plan = thin.with_extras(PLAN, found(boy=500, crossing=15, bridge=40, troll=0))
    asked = [(extra.count, extra.verb, extra.noun, extra.after, extra.about) for extra in plan.extra]
    assert asked == [(25, "cross", "troll", 90, BRIDGE)]  # 25 hold both words that are thin
    plan = thin.with_extras(plan, found(happy=3, cat=500), count=7)
    assert [(extra.count, extra.adjective, extra.noun) for extra in plan.extra[1:]] == [(7, "happy", "cat")]


def test_words_that_never_meet_are_asked_for_together():
    (extra,) = thin.with_extras(PLAN, found(together=1, crossing=50, bridge=40)).extra
    assert (extra.verb, extra.noun, extra.count) == ("cross", "bridge", thin.NUM_TOGETHER)


def test_what_is_covered_is_not_asked_for():
    with pytest.raises(UserError, match="cover .* already"):
        thin.with_extras(PLAN, found(together=3, crossing=50, bridge=40))


def test_the_printed_flags_make_the_same_plan():
    import shlex

    from flows.__main__ import app

    plan = thin.with_extras(PLAN, found(boy=500, crossing=50, bridge=4, troll=0))
    _, bound, _ = app.parse_args(["plan", "--preset", "smoke", *shlex.split(thin.flags(plan))])
    changes = bound.arguments["changes"].model_dump(exclude_unset=True)
    assert with_overrides(presets.smoke(), changes).generate.plan == plan
