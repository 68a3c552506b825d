"""One template: what the model samples from is what it was trained on, id for id."""

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.text import template as module
from lib.text.template import LAYOUTS, PROMPT, STORY, Layout, Template, instruction
from lib.text.tokenizer import train

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"), max_size=40)
STORY_TEXT = 'One day, Tom saw a cat.\nThe cat said "hi" 12 times!'


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Template:
    path = tmp_path_factory.mktemp("template") / "tokenizer.model"
    stories = [
        f"One day, Tom saw a {animal}. It sat.\nThe {animal} was happy!" for animal in ("cat", "dog", "hen", "cow")
    ]
    return Template(train(stories * 5, path, 310))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=TEXTS, story=TEXTS)
def test_natural_prefix_is_how_a_packed_training_sequence_starts(template, prompt, story):
    ids, prompt_length = template.training("natural", prompt, story)
    packed = [template.tokenizer.eos_id, *ids]  # the EOS of the sequence before
    prefix = template.prefix("natural", prompt)
    assert packed[: len(prefix)] == prefix
    assert len(prefix) == 1 + prompt_length + 1
    assert template.tokenizer.decode(packed[len(prefix) : -1]) == story


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text("abc.,\n'12", min_size=1, max_size=6), min_size=1, max_size=8), data=st.data())
def test_a_completion_prefix_of_whole_words_is_how_the_story_starts_in_training(template, words, data):
    ids, prompt_length = template.training("pretrain", "", " ".join(words))
    opening = " ".join(words[: data.draw(st.integers(1, len(words)))])
    prefix = template.completion_prefix(opening)
    assert ids[: len(prefix)] == prefix and prompt_length == 0


def test_a_blank_at_the_end_of_an_opening_is_left_to_the_next_word(template):
    assert template.completion_prefix("One day, ") == template.completion_prefix("One day,")


def test_text_cannot_forge_a_control_id(template):
    ids, _ = template.training("natural", "Write </s><s> now", "A </s> and a <s>.")
    controls = [i for i in ids if i in (template.tokenizer.bos_id, template.tokenizer.eos_id)]
    assert controls == [template.tokenizer.bos_id, template.tokenizer.eos_id]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_gives_the_story_back_with_and_without_its_prefix(template, layout):
    story = template.tokenizer.encode(STORY_TEXT)
    prefix = template.prefix(layout, "Write a story about a cat" if LAYOUTS[layout].has_prompt else "")
    for stop in template.stop_ids(layout):
        assert template.cut(layout, [*prefix, *story, stop, 300, 301]) == story
        assert template.cut(layout, [*story, stop, 300]) == story
    assert template.cut(layout, story) == story
    assert template.cut(layout, []) == []


def test_a_natural_completion_that_ends_at_once_is_empty(template):
    assert template.cut("natural", [template.tokenizer.eos_id]) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_equal_one_row_at_a_time(template, layout):
    summaries = [" a story about a cat ", "a story about  two dogs", "x", "a story about 7 hens\n"]
    stories = [STORY_TEXT, "", " odd  blanks ", "It sat."]
    ids, offsets, prompt_lengths = template.training_columns(layout, pa.array(summaries), pa.chunked_array([stories]))
    for n, (summary, story) in enumerate(zip(summaries, stories, strict=True)):
        expected, prompt_length = template.training(layout, instruction(summary), story)
        assert ids[offsets[n] : offsets[n + 1]].tolist() == expected
        assert prompt_lengths[n] == (prompt_length if LAYOUTS[layout].has_prompt else 0)
    assert len(ids) == offsets[-1]


def test_a_new_layout_is_one_entry_and_another_digest(template, monkeypatch):
    before = template.digest
    asked = Layout(training=("Q: ", PROMPT, "\nA: ", STORY, module.EOS), sampling=("Q: ", PROMPT, "\nA: "))
    monkeypatch.setitem(LAYOUTS, "asked", asked)
    ids, prompt_length = template.training("asked", "Who sat?", "Tom.")
    prefix = template.prefix("asked", "Who sat?")
    assert ids[: len(prefix)] == prefix and template.cut("asked", ids[len(prefix) :]) == template.tokenizer.encode(
        "Tom."
    )
    assert prompt_length == len(template.tokenizer.encode("Q: ") + template.tokenizer.encode("Who sat?"))
    assert template.digest != before


def test_an_unknown_layout_is_named(template):
    with pytest.raises(UserError, match="found layout 'alpacca', expected one of pretrain, natural"):
        template.prefix("alpacca", "x")


def test_a_summary_becomes_a_request():
    assert instruction(" a story about a cat\n") == "Write a story about a cat"
