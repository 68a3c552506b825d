"""Repair gives text one spelling, mends what was broken on the way, and never changes repaired text again."""

import json
from pathlib import Path

import ftfy
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.text.repair import repair, repair_column

REAL = Path(__file__).parents[2] / "shared/data/tinystories/train.jsonl"


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("He said, \u201cWow!\u201d It\u2019s fun\u2026", 'He said, "Wow!" It\'s fun...'),
        ("one \u2014 two\u2013three\u2014four", "one - two-three - four"),
        ("cafe\u0301\u00a0au\u200b lait", "caf\u00e9 au lait"),
        ("\ufeff a\tb  c \r\n\r\n d\u2028e\x00\x07 ", "a b c\nd\ne"),
        ("\u202aa\u202c \u2066b\u2069\u00ad", "a b"),
        ("plain text.\nTwo lines.", "plain text.\nTwo lines."),
        ("`Hi\u00b4 \u2039ho\u203a \u00abhe\u00bb", "'Hi' 'ho' \"he\""),
        ('He said, \\"Hi.\\"\\n\\nThen it\\\'s over.\\n', 'He said, "Hi."\nThen it\'s over.'),
        ("a \\new b", "a \\new b"),  # no escape: the next letter is small
        (" \n ", ""),
    ],
)
def test_text_gets_one_spelling(broken, whole):
    assert repair(broken) == whole


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("â€œWow!â€\u009d Itâ€™s â€˜soâ€™â€¦", "\"Wow!\" It's 'so'..."),
        ("â€œWow!â€ Tom ran", '"Wow!" Tom ran'),  # the closing quote's last byte lost
        ("â€œWow!â€\ufffd Tom ran", '"Wow!" Tom ran'),  # … or replaced
        ("â€œWow!â€", '"Wow!"'),
        ("â€œHi,â€â€œho,â€", '"Hi,""ho,"'),
        ("one â€” two â€“ three", "one - two - three"),
        ("\u00e2\u0080\u009cHi\u00e2\u0080\u009d donâ\u0080\u0099t", '"Hi" don\'t'),  # read as Latin-1
        ("CafÃ© Ã\u00a0 la, naÃ¯ve", "Café à la, naïve"),
        ("Â£5 Hello.Â\u00a0He ranÂ away", "£5 Hello. He ran away"),
        ("He ranÂ away.", "He ran away."),
        ("ï»¿Once", "Once"),
        ("Ã¢â‚¬Å“HiÃ¢â‚¬Â\u009d", '"Hi"'),  # twice over
        ("itÃ¢â‚¬â„¢s ÃƒÂ©", "it's é"),
        ("don\u0092t \u0093go\u0094\u0085 a\u0096b", 'don\'t "go"... a-b'),  # Windows-1252 taken for Latin-1
        ("â\u200b€œHi", '"Hi'),  # only visible once the zero-width space is gone
        ("e\u200b\u0301", "é"),
        ("\u201cdonâ€™t\u201d", '"don\'t"'),  # whole and broken side by side
        ("ASCII \x80\x81 only", "ASCII only"),
    ],
)
def test_broken_text_is_mended(broken, whole):
    assert repair(broken) == whole


@pytest.mark.parametrize("text", ["Café £5, ¡olé! Zoë's façade", "Ångström âge ïle Ãlvaro", "Pão à la â"])
def test_whole_text_in_other_letters_is_left_alone(text):
    assert repair(text) == text


PIECES = (
    ["a", "b.", "é", " ", "\n", "`", "\\", "\\n", '"', "'"]
    + [*"\t\r\u00a0\u200b\u2019\u201c\u2014\u2026\x00\x85\x92\x9d\u0301\ufffdâ€œÃ©Â"]
    + ["â€", "â€œ", "â€™", "Ã©", "Â\u00a0", "ï»¿", "ï¿½", "ðŸ", "Ã¢â‚¬Å“"]
)
MESSY = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=12).map("".join)


@settings(max_examples=200, deadline=None)
@given(MESSY)
@example("Ã\u00a0\u200b©")
@example('\\\\"\\n\\')
def test_repaired_text_stays_as_it_is(text):
    once = repair(text)
    assert repair(once) == once


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSY, max_size=6))
def test_a_column_is_repaired_as_its_rows_are(texts):
    column = pa.array(["cut ", *texts, " cut"])[1 : len(texts) + 1]
    assert repair_column(column).to_pylist() == [repair(text) for text in texts]
    assert repair_column(column.cast(pa.large_string())).to_pylist() == [repair(text) for text in texts]


@pytest.mark.parametrize(
    "text", ["a  b", "a \nb", "a\n\nb", " a", "a ", "\na", "a\n", "a`", '\\"', "a\tb", "a\x7f", "é", "a\xa0b"]
)
def test_one_flaw_in_a_row_is_enough_to_be_found(text):
    assert repair_column(pa.array(["plain", text, "plain"])).to_pylist() == ["plain", repair(text), "plain"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20))
def test_what_ftfy_does_not_touch_keeps_its_letters(text):
    letters = [each for each in text if each.isalpha() and each not in "âÂ"]
    if ftfy.fix_text(text) == text:
        assert [each for each in repair(text) if each.isalpha() and each not in "âÂ"] == letters


@pytest.mark.skipif(not REAL.exists(), reason="no real stories on this machine")
def test_real_stories_are_plain_after_repair():
    with REAL.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    repaired = repair_column(pa.array(texts)).to_pylist()
    assert {each for text in repaired for each in text if not (each == "\n" or " " <= each <= "~")} == {"¡"}
    changed = [(text, whole) for text, whole in zip(texts, repaired, strict=True) if text != whole]
    assert 300 < len(changed) < 400
    assert all(whole.count('"') >= text.count('"') for text, whole in changed)
