"""The storyteller's themes, topics, styles, tellers, first words and lists of stories."""

import json
import re

import pytest

from lib.text.prompts import Ask, PromptPlan, asks, groups, messages, word_list
from lib.text.storyteller import axes, words
from lib.text.storyteller.story import Told, Wish, tell, written
from lib.text.storyteller.wish import wish_of, wishes_of
from tests.test_storyteller import CHARACTERS, jaccard, shingles


def told(num: int, **plan) -> list[tuple[Ask, Wish, Told]]:
    asked = asks(PromptPlan(count=num, design="simplestories", **plan))
    wishes = [wish_of(messages(ask), ask.index) for ask in asked]
    return [(ask, wish, tell(wish, ask.index)) for ask, wish in zip(asked, wishes, strict=True)]


def test_every_entry_of_our_lists_is_known_to_the_grammar():
    for theme in word_list("themes", phrases=True):
        assert not axes.moral_of(theme).startswith("think about")
    for topic in word_list("topics", phrases=True):
        assert set(axes.nouns_of(topic)) <= set(words.listed("nouns")), topic
    for style in word_list("styles", phrases=True):
        assert axes.features_of(style) or axes.last_sentences(style, ""), style
    for persona in word_list("personas", phrases=True):
        assert not axes.last_sentences("", persona)[0].startswith("This story was told"), persona
    for word in word_list("first_words"):
        assert "That was the first word" not in axes.first_sentence(word), word


def test_first_word_paragraphs_topic_theme_and_teller_are_honoured():
    for ask, wish, each in told(600):
        assert re.match(r"[A-Za-z]+", each.story)[0].lower() == ask.first_word, (ask, each.story)
        assert len(each.story.split("\n")) == ask.paragraphs, (ask, each.story)
        assert wish.noun in axes.nouns_of(ask.topic) and re.search(rf"\b{wish.noun}\b", each.story), (ask, each.story)
        assert axes.moral_of(ask.theme).split(" our ")[0] in each.story, (ask, each.story)
        assert each.story.endswith(axes.last_sentences("", ask.persona)[0]), (ask, each.story)
        assert set(axes.features_of(ask.style)) <= set(wish.features), ask
        assert "Once upon a time" not in each.story


def test_a_theme_is_in_the_summary_unless_the_story_ends_badly():
    for ask, wish, each in told(200):
        assert each.summary.startswith("a story about ")
        assert wish.bad or f"learns to {axes.moral_of(ask.theme).split(' our ')[0]}" in each.summary, each


def test_such_stories_are_as_clean_as_the_others():
    for _, _, each in told(600):
        assert not re.search(r"^(?:He|She) ", each.story, re.MULTILINE), each.story
        assert CHARACTERS.fullmatch(each.story) and len(each.story.split()) <= 250, each.story
        assert all(text == text.strip() and text[-1] in '.!?"' for text in each.story.split("\n")), each.story
        assert not re.search(r"(?:^|[a-z][.!] )[a-z]", each.story), each.story
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiouh]", each.story), each.story


def test_no_two_of_many_such_stories_are_near_duplicates():
    sets = [shingles(each.story) for _, _, each in told(1000)]
    owners: dict[tuple, list[int]] = {}
    for n, shingled in enumerate(sets):
        for shingle in shingled:
            owners.setdefault(shingle, []).append(n)
    pairs = {(a, b) for few in owners.values() if len(few) <= 15 for a in few for b in few if a < b}
    assert not [pair for pair in pairs if jaccard(sets[pair[0]], sets[pair[1]]) >= 0.8]


def test_what_is_in_no_list_is_named():
    ask = Ask(0, theme="{fog}", topic="zebras at night", style="opera", persona="a wizard", first_word="bananas")
    each = tell(wish_of(messages(ask), 3), 3)
    assert each.story.startswith("Bananas! ") and each.story.endswith("This story was told by a wizard.")
    assert "zebra" in each.story
    foggy = tell(Wish("jump", "hat", "red", ("moral value",), theme="fog"), 1)
    assert "think about fog" in foggy.story


@pytest.mark.parametrize("as_json", [True, False])
def test_a_list_is_answered_story_by_story_each_with_its_own_words(as_json):
    group = next(groups(PromptPlan(design="mixed", stories_per_request=5)))
    wishes = wishes_of(messages(*group), 8)
    assert [wish.noun for wish, _ in wishes][::2] == [ask.noun for ask in group][::2]
    assert [wish.theme or None for wish, _ in wishes] == [ask.theme for ask in group]
    assert [wish.paragraphs or None for wish, _ in wishes] == [ask.paragraphs for ask in group]
    tales = [tell(wish, seed) for wish, seed in wishes]
    assert len({each.story.split(".")[0] for each in tales}) == 5
    answer = written(tales, as_json)
    if as_json:
        assert [each["story"] for each in json.loads(answer)["stories"]] == [each.story for each in tales]
    else:
        assert answer.count("\n\nSummary ") == 5 and answer.startswith("Story 1: ")


def test_one_story_of_a_list_of_one_is_the_story_asked_for_alone():
    ask = Ask(0, "jump", "hat", "brave", ("conflict",))
    assert wishes_of(messages(ask), 7) == [(wish_of(messages(ask), 7), 7)]
