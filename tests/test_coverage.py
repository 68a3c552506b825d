"""Coverage: how many training stories know the words of a question."""

import subprocess
import sys

import pyarrow as pa
import pytest
from rich.console import Console

from lib import store
from lib.errors import UserError
from lib.store.schemas import SPLIT
from lib.text.counting import word_counts
from lib.web.coverage import coverage
from lib.web.terminal import render_coverage
from tests import tiny

KINDS = [(field.name, field.type) for field in SPLIT]
BRIDGE = "a boy crossing a bridge with a troll under it"


def stories(*texts, split="train"):
    """The views over a split dataset of these stories."""
    if not texts:
        return store.connect()
    told = [text if isinstance(text, tuple) else (text, split) for text in texts]
    ids = [f"s{n:05d}" for n in range(len(told))]
    columns = {
        "story_id": ids,
        "cluster_id": ids,
        "text": [text for text, _ in told],
        "split": [side for _, side in told],
    }
    rows = pa.Table.from_pydict({name: pa.array(columns.get(name, [None] * len(told)), kind) for name, kind in KINDS})
    counts = word_counts(rows["text"], rows["split"])
    tiny.publish("split", {"part-00000.parquet": rows, "_words/words-00000.parquet": counts})
    return store.connect()


@pytest.fixture
def con():
    return stories(
        *["A boy ran home."] * 30,
        *["The boy crossed the old bridge."] * 25,
        *["Two boys cross many bridges."] * 5,
        "A boy crossing a bridge met a troll.",
        "A drawbridge is not a bri dge.",
        ("A boy and a troll on a bridge they cross.", "val"),
    )


def test_words_are_counted_by_stem_in_training_stories_alone(con):
    found = coverage(con, BRIDGE)
    assert found.stories == 62
    assert {word.word: word.stories for word in found.words} == {"boy": 61, "crossing": 31, "bridge": 31, "troll": 1}
    assert set(found.words[1].forms) == {"crossed", "cross", "crossing"}


def test_a_story_with_two_forms_of_a_word_counts_once():
    (word,) = coverage(stories("The boy saw boys.", "Boys ran."), "a boy").words
    assert (word.stories, word.forms) == (2, ("boys", "boy"))


def test_labels_follow_their_thresholds(con):
    found = coverage(con, BRIDGE + " and a zeppelin")
    labels = {word.word: word.label for word in found.words}
    assert labels == {
        "boy": "covered",
        "crossing": "covered",
        "bridge": "covered",
        "troll": "thin",
        "zeppelin": "absent",
    }
    assert found.label == "absent"
    assert coverage(con, BRIDGE).label == "thin"
    assert coverage(con, "boy crossing a bridge").label == "covered"


def test_words_that_never_meet_are_thin_together():
    con = stories(*["A frog sat."] * 30, *["A drum fell."] * 30)
    found = coverage(con, "a frog with a drum")
    assert [word.label for word in found.words] == ["covered", "covered"]
    assert (found.together, found.label) == (0, "thin")


def test_stories_are_counted_jointly(con):
    assert coverage(con, BRIDGE).at_least == (61, 31, 31, 1)


def test_the_nearest_story_holds_the_rare_word(con):
    nearest = coverage(con, BRIDGE).nearest
    assert nearest[0].text == "A boy crossing a bridge met a troll."
    assert nearest[0].weight == pytest.approx(1)
    assert nearest[1].words == ("boy", "crossing", "bridge")
    alone = coverage(stories(*["A cat sat."] * 9, "A yak slept."), "a cat and a yak")
    assert alone.nearest[0].text == "A yak slept."


def test_cried_counts_for_cry():
    assert coverage(stories("He cried.", "She cries.", "Cry!"), "to cry").words[0].stories == 3


def test_pieces_are_shown_where_there_is_a_tokenizer(con):
    assert coverage(con, "a boy").words[0].pieces is None
    assert coverage(con, "a boy", spell=lambda word: list(word)).words[0].pieces == ("b", "o", "y")


@pytest.mark.parametrize("question", ["", "the of and", "?!"])
def test_a_question_without_content_is_refused(con, question):
    with pytest.raises(UserError, match="carries meaning"):
        coverage(con, question)


def test_no_stories_is_said_so():
    with pytest.raises(UserError, match="storymill run"):
        coverage(stories(), "a boy")


def test_the_terminal_shows_counts_labels_and_harmless_text():
    console = Console(record=True, width=120)
    render_coverage(coverage(stories("A troll \x1b[2J sat."), BRIDGE, spell=lambda w: [w]), console)
    text = console.export_text()
    for told in ("troll", "absent", "1 hold 1", "s00000"):
        assert told in text
    assert "\x1b" not in text


def test_it_imports_neither_torch_nor_prefect():
    code = "import sys, lib.web.coverage, lib.web.terminal; print(sorted({'torch', 'prefect'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
