"""Prompts: which stories are asked for does not depend on how many, and no word is left behind."""

from collections import Counter

import pytest
from pydantic import ValidationError

from lib.errors import UserError
from lib.text.prompts import FEATURES, KINDS, RESPONSE_FORMAT, Ask, PromptPlan, asks, messages, word_list


def test_an_ask_depends_on_seed_and_number_alone():
    few, many = asks(PromptPlan(count=5)), asks(PromptPlan(count=2000))
    assert few == many[:5]
    assert asks(PromptPlan(count=5), 1200, 1210) == many[1200:1210]
    assert [ask.index for ask in many] == list(range(2000))
    assert asks(PromptPlan(seed=1), 0, 5) != few


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


def test_the_answer_format_is_strict():
    schema = RESPONSE_FORMAT["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    assert set(schema["schema"]["required"]) == set(schema["schema"]["properties"]) == {"story", "summary"}


def test_other_words_make_another_plan(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("# my nouns\ntroll\nbridge of stone\n\ntroll\n")
    plan = PromptPlan(nouns=str(mine))
    assert word_list(str(mine)) == ("troll", "bridge")
    assert {ask.noun for ask in asks(plan, 0, 10)} == {"troll", "bridge"}
    assert plan.words_digest != PromptPlan().words_digest == PromptPlan(seed=3).words_digest
    mine.write_text("troll\nrobot\n")
    with pytest.raises(ValidationError, match="found word lists with digest"):
        PromptPlan(**plan.model_dump())


def test_a_missing_or_empty_word_list_is_named(tmp_path):
    with pytest.raises(UserError, match="found no word list 'nuons'.*adjectives, nouns, .*verbs"):
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
