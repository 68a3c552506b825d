"""One template: what the model samples from is what it was trained on, id for id."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.text.alpaca import flat
from lib.text.requests import requests, rewritten
from lib.text.template import (
    EARLIER,
    FEW_SHOT,
    LAYOUTS,
    PROMPT,
    STORY,
    Block,
    Layout,
    Template,
    Turn,
    digest_of,
    instruction,
    layout_of,
    same_form,
)
from lib.text.tokenizer import train

# Hostile on purpose: a block's own words, a control's spelling, an emoji of four bytes, blanks at every place.
FORGED = st.sampled_from(["### Response:\n", "</s>", "<s>", "{input}", "{instruction}", "Human: ", "\n\n", "🙂", " "])
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"), max_size=12)
TEXTS = st.lists(FORGED | PLAIN, max_size=4).map("".join)
TURNS = st.lists(st.builds(Turn, TEXTS, TEXTS, TEXTS), max_size=3)
STORY_TEXT = 'One day, Tom saw a cat.\nThe cat said "hi" 12 times!'
ASKED = [name for name, layout in LAYOUTS.items() if layout.has_prompt]
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Template:
    path = tmp_path_factory.mktemp("template") / "tokenizer.model"
    stories = [
        f"One day, Tom saw a {animal}. It sat.\nThe {animal} was happy!" for animal in ("cat", "dog", "hen", "cow")
    ]
    return Template(train(stories * 5, path, 310))


@many
@given(layout=st.sampled_from(ASKED), prompt=TEXTS, about=TEXTS, story=TEXTS)
def test_the_sampling_prefix_is_how_a_training_sequence_starts(template, layout, prompt, about, story):
    ids, num_prompt = template.training(layout, prompt, story, about)
    prefix, eos = template.prefix(layout, prompt, about), template.tokenizer.eos_id
    lead = [eos] if layout == "natural" else []  # the EOS of the sequence before
    assert (lead + ids)[: len(prefix)] == prefix
    assert ids[-1] == eos and template.tokenizer.decode(ids[len(prefix) - len(lead) : -1]) == story
    bos_is_a_target = layout in ("natural", "padded")
    assert num_prompt == len(prefix) - len(lead) - bos_is_a_target
    assert not bos_is_a_target or ids[num_prompt] == template.tokenizer.bos_id


@many
@given(turns=TURNS, prompt=TEXTS, about=TEXTS, story=TEXTS)
def test_every_prefix_of_a_conversation_is_how_the_whole_starts(template, turns, prompt, about, story):
    whole, num_prompt = template.training("alpaca", prompt, story, about, turns)
    for n, turn in enumerate(turns):
        prefix = template.prefix("alpaca", turn.prompt, turn.input, turns[:n])
        assert whole[: len(prefix)] == prefix
        ids, _ = template.training("alpaca", turn.prompt, turn.answer, turn.input, turns[:n])
        assert whole[: len(ids)] == ids and ids[-1] == template.tokenizer.eos_id  # EOS between turns
    assert whole[:num_prompt] == template.prefix("alpaca", prompt, about, turns)
    assert whole.count(template.tokenizer.eos_id) == len(turns) + 1 and whole.count(template.tokenizer.bos_id) == 1


@many
@given(words=st.lists(st.text("abc.,\n'12", min_size=1, max_size=6), min_size=1, max_size=8), data=st.data())
def test_a_completion_prefix_of_whole_words_is_how_the_story_starts_in_training(template, words, data):
    ids, prompt_length = template.training("pretrain", "", " ".join(words))
    opening = " ".join(words[: data.draw(st.integers(1, len(words)))])
    prefix = template.completion_prefix(opening)
    assert ids[: len(prefix)] == prefix and prompt_length == 0


@many
@given(turns=TURNS, prompt=TEXTS)
def test_few_shot_is_text_to_go_on_with_and_ends_in_the_answers_title(template, turns, prompt):
    ids = template.prefix(FEW_SHOT, prompt, turns=turns)
    text = template.tokenizer.decode(ids)
    assert ids == template.completion_prefix(text) and text.endswith(f"Human: {prompt}\nAI:")
    assert text.count("\nAI:") >= 3 + len(turns)


def test_a_talk_goes_on_where_the_one_before_it_ended(template):
    """What the model wrote in one turn stands in the next turn's prefix: a cache of keys could be kept."""
    first = template.prefix("alpaca", "Who sat?")
    second = template.prefix("alpaca", "Who ran?", turns=[Turn("Who sat?", "Tom.")])
    assert second[: len(first)] == first


def test_real_tasks_keep_their_prefix(template):
    """Joined text, encoded as one, does not: that is what the ids are put together for."""
    found = [Path(os.environ.get("STORYMILL_ALPACA", "")), *Path(__file__).parents[2].glob("shared/data/extra/*seed*")]
    path = next((each for each in found if each.is_file()), None)
    if path is None:
        pytest.skip("found no seed tasks: set STORYMILL_ALPACA to a seed_tasks.jsonl")
    tasks = [task for line in path.read_text().splitlines() for task in list(flat(json.loads(line), ""))[:1]]
    broken = 0
    for task in tasks:
        prompt, about = task["instruction"], task["input"] or ""
        ids, num_prompt = template.training("alpaca", prompt, task["text"], about)
        broken += ids[:num_prompt] != template.prefix("alpaca", prompt, about)
    assert (len(tasks), broken) == (175, 0)


def test_a_blank_at_the_end_of_an_opening_is_left_to_the_next_word(template):
    assert template.completion_prefix("One day, ") == template.completion_prefix("One day,")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_cannot_forge_a_control_id(template, layout):
    ids, _ = template.training(layout, "Write </s><s> now", "A </s> and a <s>.", "<s>")
    controls = [i for i in ids if i in (template.tokenizer.bos_id, template.tokenizer.eos_id)]
    assert controls == [template.tokenizer.bos_id, template.tokenizer.eos_id]


def test_braces_in_a_task_are_text(template):
    ids = template.prefix("alpaca", "Print {input} and {0}", "x = {instruction}")
    assert "Print {input} and {0}\n\n### Input:\nx = {instruction}\n" in template.tokenizer.decode(ids)


@pytest.mark.parametrize("layout", SAMPLED := [*LAYOUTS, FEW_SHOT])
def test_cut_ends_before_the_first_stop_id(template, layout):
    story = template.tokenizer.encode(STORY_TEXT)
    for stop in template.stop_ids(layout):
        assert template.cut(layout, [*story, stop, 300, stop]) == story
    assert template.cut(layout, story) == story
    assert template.cut(layout, [template.tokenizer.eos_id]) == template.cut(layout, []) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_equal_one_row_at_a_time(template, layout):
    asked = ["Write a story about a cat", "Write about  two dogs\n", "x", "{input}"]
    inputs = [None, "", "7 hens", " odd  {instruction} "]
    stories = [STORY_TEXT, "", " odd  blanks ", "It sat."]
    columns = pa.array(asked), pa.chunked_array([stories]), pa.array(inputs)
    ids, offsets, prompt_lengths = template.training_columns(layout, *columns)
    for n, (prompt, about, story) in enumerate(zip(asked, inputs, stories, strict=True)):
        expected, prompt_length = template.training(layout, prompt, story, about or "")
        assert ids[offsets[n] : offsets[n + 1]].tolist() == expected
        assert prompt_lengths[n] == prompt_length
    assert len(ids) == offsets[-1]


def test_columns_of_conversations_equal_one_conversation_at_a_time(template):
    turns = [Turn("Who sat?", "Tom."), Turn("Who ran?", "A cat", "in the sun"), Turn("x", STORY_TEXT)]
    talks = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 2]])
    columns = (pa.array([getattr(turn, name) for turn in turns]) for name in ("prompt", "answer", "input"))
    ids, offsets, prompt_lengths = template.training_columns("alpaca", *columns, conversations=talks)
    for n, turn in enumerate(turns):
        expected = template.training("alpaca", turn.prompt, turn.answer, turn.input, turns[:n])
        assert (ids[offsets[n] : offsets[n + 1]].tolist(), prompt_lengths[n]) == expected


def test_a_new_layout_is_one_entry_and_the_digests_of_the_others_stay(template, monkeypatch):
    before = {name: digest_of(name) for name in LAYOUTS}
    assert len(set(before.values())) == len(before)
    asked = Layout(training=(PROMPT, STORY, "<eos>"), sampling=(PROMPT,), block=Block("Q: {instruction}\nA:"))
    monkeypatch.setitem(__import__("lib.text.template", fromlist=["SAMPLED"]).SAMPLED, "asked", asked)
    ids, prompt_length = template.training("asked", "Who sat?", "Tom.")
    prefix = template.prefix("asked", "Who sat?")
    assert ids[: len(prefix)] == prefix and prompt_length == len(prefix)
    assert template.cut("asked", ids[len(prefix) :]) == template.tokenizer.encode("Tom.")
    assert digest_of("asked") not in before.values()
    assert {name: digest_of(name) for name in LAYOUTS} == before


def test_what_was_made_under_the_earlier_digest_is_still_known():
    assert same_form("natural", EARLIER["natural"]) and same_form("alpaca", digest_of("alpaca"))
    assert not same_form("alpaca", EARLIER["natural"]) and not same_form("natural", digest_of("padded"))


def test_what_is_scored_is_no_part_of_the_form():
    assert "loss_on" not in layout_of("padded").form and "packed" not in layout_of("padded").form


def test_an_unknown_layout_is_named(template):
    with pytest.raises(UserError, match="found layout 'alpacca', expected one of pretrain, natural, padded, alpaca"):
        template.prefix("alpacca", "x")


def test_a_layout_that_holds_one_request_refuses_turns(template):
    with pytest.raises(UserError, match="holds one request"):
        template.prefix("natural", "x", turns=[Turn("a", "b")])


# ---- in which words a row is asked for

ORIGINAL = (
    "Write a short story (3-5 paragraphs) which only uses very simple words that a 3 year old child would understand. "
    'In the story, try to at some point use the verb "run", the noun "cat" and the adjective "sad". The story has the '
    "following features: the story should contain at least one dialogue, the story has a moral value. Remember to only "
    "use simple words!\n\nPossible story:"
)


def rows(**columns: object) -> pa.Table:
    names = ("summary", "verb", "noun", "adjective", "instruction", "input")
    strings = {name: pa.array([columns.get(name)], pa.string()) for name in names}
    return pa.table(strings | {"features": pa.array([columns.get("features")], pa.list_(pa.string()))})


def one(layout: str, **columns: object) -> tuple[str | None, str | None]:
    asked, about = requests(rows(**columns), layout)
    return asked[0].as_py(), about[0].as_py()


def test_the_padded_prompt_is_tiny_stories_own_after_the_four_replacements():
    words = {"verb": "run", "noun": "cat", "adjective": "sad", "features": ["Dialogue", "MoralValue"]}
    assert one("padded", **words)[0] == rewritten(ORIGINAL) == rewritten(rewritten(ORIGINAL))
    assert one("padded", **words | {"features": ["dialogue", "moral value"]})[0] == rewritten(ORIGINAL)
    plain = one("padded", **words | {"features": None})[0]
    assert plain.endswith('the adjective "sad". Possible story:') and plain.startswith("Write a story. In the story, ")


def test_a_story_without_its_words_is_asked_for_by_its_summary():
    told = {"summary": " a story about a cat "}
    assert one("padded", **told)[0] == "Write a story. Summary: a story about a cat Possible story:"
    assert one("padded", **told, verb="run")[0] == one("padded", **told)[0]
    assert one("natural", **told)[0] == one("alpaca", **told)[0] == instruction("a story about a cat")
    assert one("natural", summary=" ") == one("padded", features=["Twist"]) == (None, None)


@pytest.mark.parametrize("layout", ASKED)
def test_a_task_is_asked_for_in_its_own_words(layout):
    task = {"instruction": "Sort these.", "input": "3 1 2", "summary": "a story about numbers", "verb": "run"}
    assert one(layout, **task) == ("Sort these.", "3 1 2")
    assert one(layout, **task | {"input": None}) == ("Sort these.", None)
    assert one(layout, summary="a story", input="of nothing")[1] is None
