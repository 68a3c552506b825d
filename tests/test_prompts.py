"""Prompts: which stories are asked for does not depend on how many, and every word gets its share."""

from collections import Counter
from dataclasses import replace

import pytest
from pydantic import ValidationError

from lib.errors import UserError
from lib.overrides import with_overrides
from lib.presets import laptop
from lib.text.prompts import (
    FEATURES,
    KINDS,
    PHRASES,
    Ask,
    PromptPlan,
    asks,
    coverage,
    groups,
    messages,
    summed_up,
    uses,
    word_list,
)
from lib.text.prompts.coverage import ROUNDS

DESIGNS = ("tinystories", "simplestories", "mixed", "combined")


@pytest.mark.parametrize("design", DESIGNS)
def test_an_ask_depends_on_seed_and_number_alone(design):
    few, many = asks(PromptPlan(count=5, design=design)), asks(PromptPlan(count=2000, design=design))
    assert few == many[:5]
    assert asks(PromptPlan(count=5, design=design), 1200, 1210) == many[1200:1210]
    assert [ask.index for ask in many] == list(range(2000))
    assert asks(PromptPlan(seed=1, design=design), 0, 5) != few


def test_each_design_asks_for_its_own():
    words, taste = ("verb", "noun", "adjective"), ("theme", "topic", "style", "persona", "first_word", "paragraphs")
    tiny, simple, both = (asks(PromptPlan(count=60, design=each)) for each in ("tinystories", *DESIGNS[1::2]))
    assert all(getattr(ask, name) for ask in tiny + both for name in words)
    assert all(getattr(ask, name) for ask in simple + both for name in taste)
    assert not any(getattr(ask, name) for ask in simple for name in words)
    assert not any(getattr(ask, name) for ask in tiny for name in taste)
    assert {ask.paragraphs for ask in simple} == {1, 2, 3, 4, 5} and not any(ask.features for ask in simple)
    mixed = asks(PromptPlan(count=60, design="mixed"))
    assert [ask.design for ask in mixed] == ["tinystories", "simplestories"] * 30
    assert [ask.noun for ask in mixed[::2]] == [ask.noun for ask in tiny[:30]]
    assert [ask.topic for ask in mixed[1::2]] == [ask.topic for ask in simple[:30]]


@pytest.mark.parametrize("design", DESIGNS)
def test_every_word_of_every_list_is_within_20_percent_of_its_share_once_a_plan_is_big_enough(design):
    plan = PromptPlan(design=design)
    asked = asks(plan, 0, 5000)
    whole = summed_up(plan, coverage(plan, uses(asked)))
    assert {axis: each["within_20_percent"] for axis, each in whole.items()} == dict.fromkeys(whole, 1.0)
    assert all(0.8 <= each["worst_ratio"] <= 1.2 for each in whole.values())
    for axis, enough in ((axis, each["certain_from"]) for axis, each in whole.items() if axis != "feature"):
        for count in (enough, enough + 1, enough + enough // ROUNDS // 2, enough + enough // ROUNDS - 1):
            told = summed_up(plan, coverage(plan, uses(asked[:count])))[axis]
            assert told["within_20_percent"] == 1.0, (axis, count)


def test_a_small_plan_says_which_words_it_leaves_out():
    plan = PromptPlan(count=40)
    nouns = [cover for cover in coverage(plan, uses(asks(plan))) if cover.axis == "noun"]
    assert len(nouns) == len(word_list("nouns")) and sum(cover.uses for cover in nouns) == 40
    assert sum(cover.uses == 0 and not cover.fair for cover in nouns) == len(nouns) - 40
    told = summed_up(plan, nouns)["noun"]
    assert told["within_20_percent"] == 0 and told["worst_ratio"] > 10


def test_the_stories_of_a_request_stay_together_when_a_plan_grows():
    few, many = (list(groups(PromptPlan(count=count, stories_per_request=4))) for count in (10, 200))
    assert [len(group) for group in few] == [4, 4, 4] and few == many[:3]
    assert [ask.index for group in many for ask in group] == list(range(200))


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_gets_its_share(kind):
    counts = Counter(getattr(ask, kind[:-1]) for ask in asks(PromptPlan(count=4000)))
    share = 4000 / len(word_list(kind))
    assert len(counts) == len(word_list(kind))
    assert all(abs(count - share) <= 0.2 * share for count in counts.values())


def test_words_come_in_another_order_in_every_round():
    num = len(word_list("verbs"))
    verbs = [ask.verb for ask in asks(PromptPlan(), 0, 2 * num)]
    assert sorted(verbs[:num]) == sorted(verbs[num:])
    assert verbs[:num] != verbs[num:]


def test_words_are_combined_anew_in_every_round():
    pairs = Counter((ask.verb, ask.noun) for ask in asks(PromptPlan(count=4000)))
    assert max(pairs.values()) <= 3


def test_each_feature_is_as_likely_as_the_plan_says():
    counts = Counter(feature for ask in asks(PromptPlan(count=3000, features=0.3)) for feature in ask.features)
    assert set(counts) == set(FEATURES)
    assert all(0.25 < count / 3000 < 0.35 for count in counts.values())
    assert not any(ask.features for ask in asks(PromptPlan(count=50, features=0)))
    assert all(ask.features == FEATURES for ask in asks(PromptPlan(count=50, features=1)))


def test_messages_ask_for_everything():
    system, user = messages(Ask(7, "jump", "hat", "brave", ("dialogue", "bad ending", "moral value")))
    assert (system["role"], user["role"]) == ("system", "user")
    for wanted in ('"jump"', '"hat"', '"brave"', "dialogue, a bad ending and a moral value", '"a story about"', "JSON"):
        assert wanted in user["content"]
    _, plain = messages(Ask(7, "jump", "hat", "brave", ()))
    assert not any(feature in plain["content"] for feature in FEATURES)


def test_messages_ask_for_theme_topic_style_teller_first_word_and_paragraphs():
    ask = Ask(7, design="simplestories", theme="sharing", topic="the sea", style="mystery", persona="a sailor")
    _, user = messages(replace(ask, first_word="under", paragraphs=3))
    for wanted in ("3 paragraphs", '"sharing"', '"the sea"', '"mystery"', "a sailor would", '"Under"'):
        assert wanted in user["content"]
    assert "verb" not in user["content"] and "1 paragraph," in messages(replace(ask, paragraphs=1))[1]["content"]


def test_messages_for_several_stories_list_what_each_must_hold():
    one, two = Ask(0, "jump", "hat", "brave", ("dialogue",)), Ask(1, "hop", "hen", "red", ())
    text = messages(one, two)[1]["content"]
    first, second = (line for line in text.splitlines() if line.startswith("Story "))
    assert '"hat"' in first and "dialogue" in first and '"hen"' in second and "dialogue" not in second
    assert "2 short stories" in text and '"stories"' in text and '"a story about"' in text


def test_a_prompt_for_one_story_is_the_one_that_earlier_answers_were_paid_for():
    wanted = (
        "Tell a short story in two to five paragraphs, about 130 words long, that a three-year-old understands. Use "
        'the verb "jump", the noun "hat" and the adjective "brave" in it. Give the story dialogue. Then sum the story '
        'up in one sentence that begins with "a story about" and names who it is about. Answer with JSON that has two '
        'fields, "story" and "summary".'
    )
    assert messages(Ask(7, "jump", "hat", "brave", ("dialogue",)))[1]["content"] == wanted


def test_other_words_make_another_plan(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("# my nouns\ntroll\nbridge of stone\n\ntroll\n")
    plan = PromptPlan(nouns=str(mine))
    assert word_list(str(mine)) == ("troll", "bridge")
    assert {ask.noun for ask in asks(plan, 0, 10)} == {"troll", "bridge"}
    assert plan.words_digest != PromptPlan().words_digest == PromptPlan(seed=3).words_digest
    mine.write_text("troll\nrobot\n")
    with pytest.raises(ValidationError, match="found word lists verbs .*mine.txt adjectives with digest"):
        PromptPlan(**plan.model_dump())


def test_lists_that_a_design_does_not_use_do_not_name_it(tmp_path):
    themes = tmp_path / "themes.txt"
    themes.write_text("# mine\nbeing  seven | grow\nbeing eight\n")
    simple = PromptPlan(design="simplestories", themes=str(themes))
    assert {ask.theme for ask in asks(simple, 0, 9)} == {"being seven", "being eight"}
    assert simple.words_digest != PromptPlan(design="simplestories").words_digest
    assert PromptPlan(themes=str(themes)).words_digest == PromptPlan().words_digest
    with pytest.raises(ValidationError, match="least_paragraphs 4"):
        PromptPlan(least_paragraphs=4, most_paragraphs=2)


def test_a_preset_takes_another_design_and_other_lists(tmp_path):
    (tmp_path / "mine.txt").write_text("troll\nrobot\n")
    changes = {"design": "mixed", "nouns": str(tmp_path / "mine.txt")}
    plan = with_overrides(laptop(), {"generate": {"plan": changes}}).generate.plan
    assert {ask.noun for ask in asks(plan, 0, 10)} == {"troll", "robot", None}


def test_a_missing_or_empty_word_list_is_named(tmp_path):
    with pytest.raises(UserError, match="found no word list 'nuons'.*adjectives, .*nouns, .*verbs"):
        PromptPlan(nouns="nuons")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no word"):
        PromptPlan(verbs=str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(("kind", "least"), [("verbs", 300), ("nouns", 400), ("adjectives", 200)])
def test_our_lists_are_simple_words_each_once(kind, least):
    words = word_list(kind)
    assert len(words) >= least
    assert list(words) == sorted(set(words))
    assert all(word.isascii() and word.islower() and word.isalpha() for word in words)


@pytest.mark.parametrize("kind", [*PHRASES, "first_words"])
def test_our_other_lists_are_a_few_dozen_each_once(kind):
    entries = word_list(kind, phrases=kind in PHRASES)
    assert 20 <= len(entries) <= 80 and list(entries) == sorted(set(entries))
    assert all(entry.isascii() and entry.islower() and entry.replace(" ", "").isalpha() for entry in entries)
