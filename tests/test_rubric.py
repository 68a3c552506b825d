"""The rubric: it counts, says that it is no judge, and prefers whole stories to broken ones."""

import pytest

from lib.text.openings import OPENINGS
from lib.text.rubric import JUDGE, grade

PROMPT = "Once upon a time, there was a little boy named Tom."
GOOD = (
    " Tom had a red ball. One day he lost the ball in the garden and he was sad. Then he saw a small dog. "
    '"Can you help me find my ball?" asked Tom. The dog ran under a tree and found it. '
    "Tom thanked the dog, and they played together until night. Tom was happy to have a new friend. The end."
)
KNOWN = frozenset(GOOD.lower().replace(".", "").replace(",", "").replace('"', "").replace("?", "").split())


def marks(text, ended=True, prompt=PROMPT, known=frozenset()):
    return grade(prompt, text, ended=ended, known=known)


def test_a_whole_story_gets_high_marks():
    found = marks(GOOD)
    assert found.grammar == 10
    assert found.plot > 9
    assert found.consistency > 7
    assert found.age in ("A: 3 or under", "B: 4-5", "C: 6-7")


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        (GOOD.replace("The dog ran", "the the dog ran").replace("Then he", "then he"), "grammar"),
        (GOOD.replace(" a small dog", " an small dog"), "grammar"),
        (GOOD.replace('"Can', "Can"), "grammar"),
        (" Tom ran to Tom." * 12, "creativity"),
        (GOOD.replace("thanked the dog", "thanked Lily and Mia and Sam"), "consistency"),
        (GOOD.replace("Tom had a red ball.", "Tom was happy to have a new friend."), "consistency"),
        (GOOD.replace("lost", "had").replace("sad", "there"), "plot"),
        (GOOD.removesuffix(" The end.").removesuffix("."), "plot"),
    ],
)
def test_each_fault_lowers_its_own_mark(text, mark):
    assert getattr(marks(text), mark) < getattr(marks(GOOD), mark)


def test_a_story_cut_off_loses_plot_only():
    whole, cut = marks(GOOD), marks(GOOD, ended=False)
    assert cut.plot < whole.plot
    assert (cut.grammar, cut.creativity, cut.consistency) == (whole.grammar, whole.creativity, whole.consistency)


def test_made_up_words_are_found_where_the_words_of_the_stories_are_known():
    invented = GOOD.replace("garden", "gardorf").replace("tree", "trelk")
    assert marks(invented, known=KNOWN).grammar < marks(GOOD, known=KNOWN).grammar
    assert marks(invented).grammar == marks(GOOD).grammar


@pytest.mark.parametrize("text", ["", " ", "...", "\n", "“", "123", "🐸", "a", "A"])
def test_odd_texts_are_graded_between_0_and_10(text):
    found = marks(text)
    assert all(0 <= mark <= 10 for mark in (found.grammar, found.creativity, found.consistency, found.plot))


def test_long_words_and_sentences_need_older_readers():
    hard = (
        "Notwithstanding considerable international disagreement, representatives established organizations " * 2 + "."
    )
    assert marks(hard).age == "F: 13-16"


def test_the_judge_names_itself_a_stand_in():
    assert "stand-in" in JUDGE
    assert "not a language model" in JUDGE


def test_there_are_25_openings_with_their_blanks():
    assert len(OPENINGS) == len(set(OPENINGS)) == 25
    assert sum(text.endswith(" ") for text in OPENINGS) == 3
    assert OPENINGS[14] == "Once"
