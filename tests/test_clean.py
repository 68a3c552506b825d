"""Clean repairs before it judges, keeps what a child could read to the end, and says why each other row went."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import UserError
from lib.stages.clean import STAGE, CleanConfig, clean
from lib.store import Dataset, build
from lib.store.schemas import RAW
from lib.text.repair import repair, repair_column
from lib.text.rules import RULES, RULE_VERSION, judge
from tests import tiny

GOOD = (
    "Once upon a time there was a little cat. "
    "She liked to play in the park with her friend and was happy to see the sun. "
)


def raw(*texts: str, part_rows: int = 100, **columns: list) -> Dataset:
    rows = [{"story_id": f"s{n}", "text": text, "source": "here"} for n, text in enumerate(texts)]
    table = pa.Table.from_pylist(
        [row | {k: v[n] for k, v in columns.items()} for n, row in enumerate(rows)], schema=RAW
    )
    starts = range(0, max(len(rows), 1), part_rows)
    return tiny.publish("ingest", {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)})


def cleaned(stories: Dataset, **config) -> Dataset:
    return build(STAGE, CleanConfig(**config), {"stories": stories}, clean)


# ---- repair


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("He said, \u201cWow!\u201d It\u2019s fun\u2026", 'He said, "Wow!" It\'s fun...'),
        ("He said, â€œWow!â€ Tom ranâ€¦ Itâ€™s", 'He said, "Wow!" Tom ran... It\'s'),
        ("one \u2014 two\u2013three", "one - two-three"),
        ("cafe\u0301\u00a0au\u200b lait", "caf\u00e9 au lait"),
        ("\ufeff a\tb  c \r\n\r\n d\u2028e\x00\x07 ", "a b c\nd\ne"),
        ("plain text.\nTwo lines.", "plain text.\nTwo lines."),
        (" \n ", ""),
    ],
)
def test_text_is_repaired(broken, whole):
    assert repair(broken) == whole


MESSY = st.text(
    st.sampled_from("ab .\n\t\r\u00a0\u2019\u201c\u2014\u200b\x00é\u0301â€œ`") | st.characters(codec="utf-8"),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MESSY, max_size=6))
def test_a_column_is_repaired_as_its_rows_are_and_stays_so(texts):
    expected = [repair(text) for text in texts]
    column = pa.array(["cut", *texts, "cut"])[1 : len(texts) + 1]
    assert repair_column(column).to_pylist() == expected
    assert [repair(text) for text in expected] == expected


# ---- rules

DROPPED = {
    "empty": ["", " \n\u200b "],
    "too_short": ["A cat sat."],
    "too_long": [GOOD * 9],
    "special_token": [
        GOOD + "</s> More.",
        GOOD + "<|endoftext|> More.",
        GOOD + "### Response: more.",
        GOOD + "[INST] More.",
    ],
    "refusal": [
        "I'm sorry, but I can't help with that request. " + GOOD,
        GOOD + "As an AI language model, I cannot feel.",
        "Sure! Here's a short story for you: " + GOOD,
        "Here is a story about a cat. " + GOOD,
    ],
    "personal_data": [GOOD + "Write to bob@mail.com.", GOOD + "See www.cats.org now.", GOOD + "Call 555-123-4567 now."],
    "not_english": [
        "Il y a un petit chat qui aime jouer dans le parc avec ses amis. Il est très content de voir le soleil.",
        "Pada suatu hari ada seekor kucing kecil yang suka bermain di taman. "
        "Dia sangat senang melihat matahari bersinar setiap hari di sana.",
    ],
    "banned_characters": [GOOD + "猫.", GOOD + "🙂.", GOOD + "a\u2581b.", GOOD + "{x}."],
    "repeated": [GOOD + "The cat ran to the big tree and sat down to rest a bit. " * 8],
    "cut_off": [GOOD + "Then the", GOOD + 'She said, "Go', GOOD + "And then,"],
}
KEPT = [
    GOOD,
    GOOD + "\nThe End",
    GOOD + '"Hello!"',
    GOOD + "(It was a dream.)",
    GOOD + "They went to a café for £5 at 10.30.",
    "\"I'm sorry, but I can't help you,\" said the hen. " + GOOD,
    "I can't wait to write to Grandma, said Tim. " + GOOD,
    "Unfortunately, the rain did not stop, and they had to create their own games. " + GOOD,
    "Here is the little cat. " + GOOD,
    GOOD
    + '"Run, run, as fast as you can," said the hen. '
    + GOOD.replace("cat", "dog")
    + '"Run, run, as fast as you can."',
]


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in DROPPED.items() for text in texts])
def test_a_story_goes_for_its_reason(reason, text):
    column = repair_column(pa.array([GOOD, text, GOOD]))
    reasons, details, _ = judge(column, CleanConfig(max_words=200))
    assert reasons == [None, reason, None]
    assert details[0] is None and isinstance(details[1], str)


@pytest.mark.parametrize("text", KEPT)
def test_a_good_story_stays(text):
    column = repair_column(pa.array([text]))
    assert judge(column, CleanConfig())[0] == [None]


def test_every_reason_has_an_example():
    assert set(DROPPED) == set(RULES)


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSY, max_size=5))
def test_a_verdict_does_not_depend_on_the_neighbours(texts):
    limits = CleanConfig(min_words=1, english=False)
    column = repair_column(pa.array(texts, pa.string()))
    alone = [judge(column[n : n + 1], limits) for n in range(len(texts))]
    reasons, details, words = judge(column, limits)
    assert [reasons, details] == [[verdict[at][0] for verdict in alone] for at in (0, 1)]
    assert words.tolist() == [len(text.split(" ")) + text.count("\n") if text else 0 for text in column.to_pylist()]


# ---- the stage


def test_rows_in_are_rows_out_and_drops_with_reasons():
    texts = [text for texts in DROPPED.values() for text in texts] + KEPT
    made = cleaned(raw(*texts, part_rows=7), max_words=200)
    assert made.manifest["counts"]["rows_in"] == len(texts)
    assert made.manifest["counts"]["rows_out"] == len(KEPT) == len(made.table())
    assert made.manifest["drops"] == {reason: len(rows) for reason, rows in DROPPED.items()}
    dropped = made.table(table="_dropped")
    assert set(dropped["text"].to_pylist()) == set(texts) - set(KEPT)  # as they came
    assert set(dropped["rule_version"].to_pylist()) == {RULE_VERSION}


def test_kept_rows_are_repaired_and_measured():
    row = cleaned(raw(GOOD + "It\u2019s  \u201cfun\u201d.")).table().to_pylist()[0]
    assert row["text"] == GOOD + 'It\'s "fun".'
    assert row["words"] == len(row["text"].split()) and row["chars"] == len(row["text"])


def test_every_kept_story_has_a_summary_in_the_house_form():
    summaries = ["A brave cat.", None, " ", "Write a story about a sun.", None]
    made = cleaned(raw(GOOD, GOOD, GOOD, GOOD, "gone", summary=summaries), min_words=5)
    assert made.table()["summary"].to_pylist() == [
        "a story about a brave cat",
        "a story about a little cat, the park and the sun",
        "a story about a little cat, the park and the sun",
        "a story about a sun",
    ]
    assert made.manifest["counts"]["summaries_made"] == 2


def test_no_story_that_passes_names_the_reasons():
    with pytest.raises(UserError, match=r"none of 3 stories \(too_short 2, cut_off 1\)"):
        cleaned(raw("A cat.", "A dog.", GOOD + "And"))


def test_more_stories_leave_older_parts_as_they_were():
    few = cleaned(raw(*KEPT[:6], part_rows=3))
    more = cleaned(raw(*KEPT[:6], "short", part_rows=3))
    assert [part.sha256 for part in few.parts()] == [part.sha256 for part in more.parts()][:2]
