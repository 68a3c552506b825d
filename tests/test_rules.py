"""Each rule drops what it is for, says what tripped it, and leaves alone what merely looks like it."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.text import patterns
from lib.text.columns import Column
from lib.text.repair import repair_column
from lib.text.repeats import WINDOW, repetitive
from lib.text.rules import RULES, Limits, judge

GOOD = (
    "Once upon a time there was a little cat. "
    "She liked to play in the park with her friend and was happy to see the sun. "
)
LOOP = "The cat ran to the big tree and sat down to rest a bit. "

# reason -> (what goes, what is said about it)
DROPPED = {
    "empty": [("", ""), (" \n\u200b ", "")],
    "too_short": [("A cat sat.", "3 words"), (" ".join(["cat"] * 19) + ".", "19 words")],
    "too_long": [(GOOD * 9, "234 words"), (GOOD * 13, "338 words")],
    "special_token": [
        (GOOD + "</s> More.", "</s>"),
        (GOOD + "<|endoftext|> More.", "<|endoftext|>"),
        (GOOD + "<|im_start|>user More.", "<|im_start|>"),
        (GOOD + "### Response: more.", "### Response"),
        (GOOD + "[INST] More.", "[INST]"),
        (GOOD + "A [MASK] sat.", "[MASK]"),
        (GOOD + "It ended.<0x0A>", "<0x0A>"),
    ],
    "template": [
        ("Story: " + GOOD, "Story:"),
        ("**Title:** The Cat\n" + GOOD, "**Title:"),
        ("Features: Dialogue, BadEnding\nWords: cat, run, big\n" + GOOD, "Features:"),
        (GOOD + "\nSummary: A cat is happy.", "Summary:"),
        (GOOD + "The end. Summary: A cat is happy.", ". Summary:"),
        ("Possible story:\n" + GOOD, "Possible story:"),
        (GOOD + "\nMoral value: Be kind.", "Moral value:"),
        ("Paragraph 1: " + GOOD, "Paragraph 1:"),
        (GOOD + "His name was [insert name].", "[insert name]"),
        (GOOD + "He met [Your Name] there.", "[Your Name]"),
        (GOOD + "He met {name} there.", "{name}"),
        (GOOD + "He met <name> there.", "<name>"),
        (GOOD + "He met ____ there.", "____"),
        (GOOD + "The end. (150 words)", "(150 words)"),
        (GOOD + "The story should use the verb run.", "The story should use"),
    ],
    "refusal": [
        ("I'm sorry, but I can't help with that request. " + GOOD, "I'm sorry, but I can't"),
        (GOOD + "As an AI language model, I cannot feel.", "As an AI"),
        ("Sure! Here's a short story for you: " + GOOD, "Sure! Here's"),
        ("Here is a story about a cat. " + GOOD, "Here is a story about"),
        ("Sure, here's a short story about a cat. " + GOOD, "Sure, here's a short story"),
        ("Okay, here is what I came up with:\n" + GOOD, "Okay, here is what I came up with:"),
        ("Of course! I'd be happy to write that. " + GOOD, "Of course! I'd be happy to"),
        ("Certainly! I can create a tale for you. " + GOOD, "Certainly! I can create"),
        (GOOD + "I am just an AI language model, and cannot feel.", "I am just an AI language model,"),
        (GOOD + "I'm an AI assistant trained to help.", "I'm an AI assistant trained"),
        (GOOD + "I hope you enjoyed this story!", "I hope you enjoyed this story"),
        (GOOD + "Let me know if you'd like another one.", "Let me know if you'd like"),
    ],
    "personal_data": [
        (GOOD + "Write to bob.b@mail.co.uk now.", "bob.b@mail.co.uk"),
        (GOOD + "Write to tim at mail dot com now.", "tim at mail dot com"),
        (GOOD + "Call 5551234567 now.", "5551234567"),
        (GOOD + "See www.cats.org now.", "www.cats.org"),
        (GOOD + "See cats.com now.", "cats.com"),
        (GOOD + "See https://a.b/c now.", "https://a.b/c"),
        (GOOD + "Call 555-123-4567 now.", "555-123-4567"),
        (GOOD + "Call (020) 794-0000 now.", "(020) 794-0000"),
        (GOOD + "Call 555-1234 now.", "555-1234"),
        (GOOD + "Call +44 20 7946 0958 now.", "+44 20 7946 0958"),
    ],
    "profanity": [(GOOD + "What the FUCK, said the hen.", "FUCK"), (GOOD + '"Bullshit!"', "Bullshit")],
    "not_english": [
        (
            "Il y a un petit chat qui aime jouer dans le parc avec ses amis. Il est très content de voir le soleil.",
            "fr",
        ),
        (
            "Pada suatu hari ada seekor kucing kecil yang suka bermain di taman. "
            "Dia sangat senang melihat matahari bersinar setiap hari di sana.",
            "id",
        ),
    ],
    "banned_characters": [
        (GOOD + "猫.", "猫"),
        (GOOD + "🙂.", "🙂"),
        (GOOD + "a\u2581b.", "\u2581"),
        (GOOD + "It was x^2 = ~1.", "= ^ ~"),
        (GOOD + "He said \ufffd.", "\ufffd"),
    ],
    "repeated": [
        (GOOD + LOOP * 8, "70% repeated"),
        (GOOD + "\n".join([LOOP.strip()] * 8), "70% repeated"),
        (GOOD + "the cat and the dog and " * 20 + "the end.", "77% repeated"),  # no full stop in it
        (
            "A cat sat. A dog ran. A hen had an egg. A fox is sad. A bee can hum. " + "cat and dog and " * 40 + "end.",
            "%",
        ),
    ],
    "cut_off": [
        (GOOD + "Then the", "the park with her friend and was happy"),
        (GOOD + 'She said, "Go', "Go"),
        (GOOD + "And then,", "And then,"),
        (GOOD + "THE", "THE"),
    ],
}
KEPT = [
    GOOD,
    GOOD + "\nThe End",
    GOOD + '"Hello!"',
    GOOD + "(It was a dream.)",
    "The cat and the dog ran to a tree. She sat in it and the sun was hot. He was glad.",  # twenty words
    # special_token, template
    GOOD + "They gave the hen an A+ for trying, number #1.",
    GOOD + "The moral of the story is: be kind.",
    GOOD + "\nMoral: be kind.",
    "Narrator: " + GOOD,
    GOOD + "Mom said: here is the story: it was long.",
    GOOD + "She told him a story. Words were not needed.",
    # refusal
    "\"I'm sorry, but I can't help you,\" said the hen. " + GOOD,
    "I can't wait to write to Grandma, said Tim. " + GOOD,
    "Unfortunately, the rain did not stop, and they had to create their own games. " + GOOD,
    "Here is the little cat. " + GOOD,
    "Sure, here is the thing, said Tim. " + GOOD,
    "Okay, I can do that, said Tim. " + GOOD,
    '"I am an AI model of a train," said the robot. ' + GOOD,
    GOOD + "Ai was a girl. Mail came.",
    # personal_data
    GOOD + "They went to a café for £5 at 10.30.",
    GOOD + "She called 911 and counted 100, 200, 3000 sheep.",
    GOOD + "It was 1995-2001, or 12-34.",
    GOOD + "She counted to 1000000000, and then to 2000000000.",
    GOOD + "They sat at home. The dot was red. He looked at a red dot come and go.",
    GOOD + "They ran to the net.The dog commanded.",
    # profanity: what has another sense in a story stays, and so does what only holds such a word
    GOOD + "The ass and the cock sat in the pussy willow by a dam. Dick saw a blue tit. What the hell, damn it.",
    GOOD + "In Scunthorpe the shitake and the stupid assassin pass the bass class.",
    # not_english: few of the commonest words
    "Tom runs. Mia jumps. Ben laughs. Tom waves. Mia smiles. Ben sits down. Tom too. Everyone eats apples. Yum! Good.",
    # repeated
    GOOD
    + '"Run, run, as fast as you can," said the hen. '
    + GOOD.replace("cat", "dog")
    + '"Run, run, as fast as you can."',
    GOOD + "¡Hola! Señor Müller said. The cat and the hen ran to the sea, and the sun was hot.",
]


@pytest.mark.parametrize(
    ("reason", "text", "detail"), [(reason, *each) for reason, dropped in DROPPED.items() for each in dropped]
)
def test_a_story_goes_for_its_reason_and_says_what_tripped_it(reason, text, detail):
    column = repair_column(pa.array([GOOD, text, GOOD]))
    reasons, details, _ = judge(column, Limits(max_words=200))
    assert reasons == [None, reason, None]
    assert details[0] is None and (detail in details[1] or reason == "cut_off" and details[1] in text)


@pytest.mark.parametrize("text", KEPT)
def test_a_good_story_stays(text):
    assert judge(repair_column(pa.array([text])), Limits())[:2] == ([None], [None])


def test_a_teller_may_begin_with_here():
    text = "Here is a story that is good to hear. " + GOOD
    assert judge(repair_column(pa.array([text])), Limits())[0] == [None]


def test_limits_that_no_story_can_keep_are_refused():
    with pytest.raises(ValidationError, match="min_words 500 above max_words 10"):
        Limits(min_words=500, max_words=10)


def test_every_reason_has_an_example():
    assert list(DROPPED) == list(RULES)


def test_rules_can_be_turned_off():
    texts = pa.array([GOOD + "What the fuck.", DROPPED["not_english"][1][0], GOOD + "a~b."])
    assert judge(texts, Limits())[0] == ["profanity", "not_english", "banned_characters"]
    assert judge(texts, Limits(profanity="", english=False, banned=""))[0] == [None] * 3


def test_banned_characters_may_be_any_class():
    texts = pa.array([GOOD + "7 up.", GOOD + "zebra.", GOOD + "naïve.", GOOD.strip()])
    assert judge(texts, Limits(banned="[7zï]"))[0] == ["banned_characters"] * 3 + [None]


def test_own_words_are_a_word_list(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# what we do not say\nbroccoli\n")
    mine = Limits(profanity=str(path))
    assert judge(pa.array([GOOD + "He ate Broccoli.", GOOD + "Fuck."]), mine)[0] == ["profanity", None]
    assert mine.rules_digest != Limits().rules_digest == Limits(rules_digest="stale").rules_digest


@pytest.mark.parametrize("banned", ["[a", "x*", "foo", "a|bc", "[ab]{2}", "a?", "x)(?:y", "x)|(?:y"])
def test_a_pattern_that_cannot_ban_a_character_is_refused(banned):
    with pytest.raises(ValidationError, match="expected a"):
        Limits(banned=banned)


# ---- what is found by columns is what is there

SHARDS = (
    "Story:|Summary: |\n|. |the |a|1|555|-|1234|123|@|x.com|www.|http://|AI|As an |[|]|insert name|{|}|name|<|>|/s|INST"
    "|shit|Sure, here's |I'm sorry, I can't |___|*|#|## |Response|é|ſ|猫|\u0131|K|(150 words)|+44 | "
)
TEXT = st.lists(st.sampled_from(SHARDS.split("|")) | st.characters(codec="utf-8"), max_size=10).map("".join)
ALL = patterns.PATTERNS | {"profanity": patterns.any_word(("shit", "ask"))}


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=4))
def test_patterns_are_found_wherever_they_stand(texts):
    found = patterns.find(pa.array(texts, pa.string()), ALL)
    for name, pattern in ALL.items():
        there = [row for row, text in enumerate(texts) if re.search(pattern, text, re.ASCII)]
        assert sorted(found[name]) == there


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT | st.sampled_from([text for each in DROPPED.values() for text, _ in each]), max_size=5))
def test_a_verdict_does_not_depend_on_the_neighbours(texts):
    limits = Limits(min_words=1)
    column = repair_column(pa.array(texts, pa.string()))
    alone = [judge(column[n : n + 1], limits) for n in range(len(texts))]
    reasons, details, words = judge(column, limits)
    assert [reasons, details] == [[verdict[at][0] for verdict in alone] for at in (0, 1)]
    assert words.tolist() == [len(text.split(" ")) + text.count("\n") if text else 0 for text in column.to_pylist()]


def repeated_share(text: str) -> float:
    """By the definition: of the words with a whole window behind them, those whose window stood there before."""
    data = text.encode()
    starts = [n + 1 for n, byte in enumerate(data) if byte in b" \n" and n + 1 + WINDOW <= len(data)]
    windows = [data[start : start + WINDOW] for start in starts]
    return 1 - len(set(windows)) / len(windows) if windows else 0.0


SENTENCES = st.sampled_from(
    [f"The {a} {b} a big {c}." for a in ("cat", "dog") for b in ("saw", "had") for c in ("hat", "bee")]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(SENTENCES, min_size=1, max_size=14).map(" ".join), min_size=1, max_size=4))
def test_what_goes_in_circles_is_measured_by_all_windows(texts):
    shares = [repeated_share(text) for text in texts]
    found = repetitive(Column(pa.array(texts)), 0.3)
    assert found == pytest.approx({row: share for row, share in enumerate(shares) if share > 0.3})


@given(st.lists(st.text(max_size=6), max_size=6))
def test_a_column_counts_by_row(texts):
    column = Column(pa.array(["é ", *texts])[1:])
    data = [text.encode() for text in texts]
    assert column.flat.tobytes() == b"".join(data)
    assert column.any_in_rows(column.flat > 0x7E).tolist() == [any(byte > 0x7E for byte in each) for each in data]
    assert column.count_in_rows(np.flatnonzero(column.white)).tolist() == [
        each.count(b" ") + each.count(b"\n") for each in data
    ]
