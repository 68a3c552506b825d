"""Memory: what a mode promises is what the model is given, and the newest turns are those that stay."""

import pytest
from hypothesis import given as always
from hypothesis import settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.text.template import LAYOUTS, Template, Turn
from lib.text.tokenizer import Tokenizer
from lib.web.memory import MODES, Memory, as_request, given, memory_of, modes_of, turns_of
from tests import tiny

LONG = 2000
TURNS = (Turn("Sort a list.", "Use sort."), Turn("Which way?", "Timsort."), Turn("Who made it?", "Tim."))
BLOCK = "### Instruction:\n{}\n\n### Response:\n"


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(Tokenizer(tiny._pieces()))


def shown(template: Template, mode: str, turns=TURNS, layout="alpaca", max_length=LONG) -> str:
    """The given text, with EOS written as |. An answer begins with the blank before its first word, as stories do."""
    ids = given(template, layout, memory_of(mode, layout), turns, "More.", max_length=max_length).ids
    text, run = "", []
    for i in [*ids, None]:
        if i in (None, template.tokenizer.eos_id):
            text, run = text + template.tokenizer.decode(run) + ("" if i is None else "|"), []
        else:
            run.append(i)
    return text.split("the request.\n\n")[-1]


def test_none_gives_the_request_alone(template):
    assert shown(template, "none") == BLOCK.format("More.")


def test_blocks_repeat_every_turn_with_an_eos_behind_each_answer(template):
    turns = "".join(f"{BLOCK.format(turn.prompt)} {turn.answer}|" for turn in TURNS)
    assert shown(template, "blocks") == turns + BLOCK.format("More.")


def test_a_window_gives_the_last_k_turns(template):
    assert shown(template, "window 2") == shown(template, "blocks", TURNS[1:])
    assert shown(template, "window 9") == shown(template, "blocks")


def test_joined_is_one_instruction(template):
    talk = "Sort a list.\nUse sort.\nWhich way?\nTimsort.\nWho made it?\nTim.\nMore."
    assert shown(template, "joined") == BLOCK.format(talk)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_few_shot_puts_the_talk_under_titles_that_end_an_answer(template, layout):
    found = given(template, layout, memory_of("few-shot", layout), TURNS, "More.", max_length=LONG)
    text = template.tokenizer.decode(found.ids)
    assert text.endswith("Human: Who made it?\nAI: Tim.\nHuman: More.\nAI:") and "Human: Sort a list.\nAI: Use" in text
    assert found.ids[0] == template.tokenizer.bos_id and template.tokenizer.eos_id not in found.ids
    assert {"\nHuman:", "\nAI:"} <= set(found.stops)


def test_other_modes_have_no_stop_strings(template):
    assert all(given(template, "alpaca", Memory(mode), TURNS, "x", max_length=LONG).stops == () for mode in MODES[:4])


@settings(deadline=None, max_examples=40)
@always(mode=st.sampled_from(["blocks", "window 4", "joined", "few-shot"]), lengths=st.lists(st.integers(1, 40)))
def test_the_oldest_turns_go_first_and_are_counted(mode, lengths):
    template = Template(Tokenizer(tiny._pieces()))
    turns = [Turn(f"{n}?", "cat " * length) for n, length in enumerate(lengths)]
    memory = memory_of(mode, "alpaca")
    found = given(template, "alpaca", memory, turns, "More.", max_length=400)
    wanted = turns[-4:] if memory.most else turns
    kept = wanted[found.forgotten :]
    assert found.ids == given(template, "alpaca", memory, kept, "More.", max_length=10**6).ids
    assert not kept or len(found.ids) <= 300
    if found.forgotten:  # one more would not have fitted
        more = given(template, "alpaca", memory, wanted[found.forgotten - 1 :], "More.", max_length=10**6)
        assert len(more.ids) > 300


@pytest.mark.parametrize("layout", ["pretrain", "natural", "padded"])
def test_a_model_of_one_request_a_story_is_given_the_request(template, layout):
    assert modes_of(layout) == ("none", "few-shot")
    found = given(template, layout, memory_of(None, layout), TURNS, "Write", max_length=LONG)
    assert found.ids == template.prefix("natural" if layout == "pretrain" else layout, "Write")
    with pytest.raises(UserError, match=f"expected one of none, few-shot for this model: .* layout {layout}, with one"):
        memory_of("blocks", layout)


@pytest.mark.parametrize("typed", ["windw", "window 0", "blocks 3", "", "window -1", "window 3 4"])
def test_an_unknown_mode_is_named(typed):
    with pytest.raises(UserError, match="expected one of blocks, window K, joined, none, few-shot"):
        memory_of(typed, "alpaca")


def test_a_mode_is_read_as_it_is_shown():
    assert memory_of(None, "alpaca") == Memory("blocks")
    assert memory_of("Window", "alpaca") == memory_of("window:3", "alpaca") == memory_of("window 3", "alpaca")
    assert str(memory_of("window", "alpaca")) == "window 3"


def test_messages_become_turns_and_what_was_not_answered_is_asked_again(template):
    said = [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("user", "More.")]
    turns, request = turns_of([*said, ("assistant", "not yet read")])
    assert (turns, request) == ([Turn("a", "b"), Turn("c", "")], "More.")
    assert shown(template, "blocks", turns) == f"{BLOCK.format('a')} b|{BLOCK.format('c' + chr(10) + 'More.')}"
    assert shown(template, "none", turns) == BLOCK.format("More.")
    with pytest.raises(UserError, match="no message of role user"):
        turns_of([("system", "x")])


@pytest.mark.parametrize(
    ("layout", "asked"),
    [
        ("natural", "Write a story about a cat"),
        ("alpaca", "a story about a cat"),
        ("padded", "Write a story. Summary: a story about a cat Possible story:"),
    ],
)
def test_what_people_type_becomes_what_the_layout_was_trained_on(layout, asked):
    assert as_request("a story about a cat", layout) == asked


def test_a_padded_prompt_is_taken_as_it_is():
    prompt = 'Write a story. In the story, try to use the verb "run". Possible story:'
    assert as_request(prompt, "padded") == prompt
