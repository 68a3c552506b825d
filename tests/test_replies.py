"""What teachers write is read where it can be, and has a reason where it cannot."""

import json

import pytest

from lib.text import replies
from lib.text.ledger import Answer
from lib.text.replies import OPENING, Fault, Reply, response_format, summary_of

GOOD = Answer("ok", '{"story": "S", "summary": "a story about x"}', "fake-1")
BAD = Answer("ok", "no", "fake-1")
LONG = "Once there was a hen. She had a red hat and was glad to have it, and she sang all day long."


def only(content: str) -> Reply | Fault:
    (held,) = replies.read(content)
    return held


@pytest.mark.parametrize(
    ("content", "story", "summary"),
    [
        ('{"story": "S.", "summary": "a story about a cat"}', "S.", "a story about a cat"),
        ('```json\n{"story": "S.", "summary": "A story about a cat."}\n```', "S.", "a story about a cat."),
        ('Here you are: {"story": "S.", "summary": "Story about a cat"} Enjoy!', "S.", "a story about a cat"),
        ('{"story": "One\ntwo", "summary": "This is a story about\\n a cat"}', "One\ntwo", "a story about a cat"),
        ('{"summary": "Summary: a short story about cats", "story": " S "}', "S", "a story about cats"),
        ('a {b} {"story": "S", "summary": "The story is about Al"}', "S", "a story about Al"),
        ('{"story": "S", "summary": "a story about x",}', "S", "a story about x"),
        ('[{"story": "S, [a, ]", "summary": "a story about x", }, ]', "S, [a, ]", "a story about x"),
        ('[{"story": "S", "summary": "a story about x"}]', "S", "a story about x"),
        ('{"stories": [{"story": "S", "summary": "a story about x"}]}', "S", "a story about x"),
        ('{"result": {" Text": "S", "Synopsis ": "a story about x"}}', "S", "a story about x"),
        ('{"story": {"title": "T", "text": "S", "summary": "a story about x"}}', "S", "a story about x"),
        ('{"story": ["One.", "Two."], "summary": "a story about x"}', "One.\nTwo.", "a story about x"),
        ('{"story": "She said "hi" to\n me.", "summary": "a story about x"}', 'She said "hi" to\n me.', OPENING + "x"),
        ("Story: S one.\n\nS two.\nSummary: a story about x", "S one.\n\nS two.", "a story about x"),
        ("**Story:**\nS\n\n**Summary:** *A story about x*\n\nI hope you like it!", "S", "a story about x"),
        ("# Title: T\n## Story\n\nS\n\n## Summary\n\na story about x", "S", "a story about x"),
        ("Summary: a story about x\n\nStory 1 - S", "S", "a story about x"),
        (f"{LONG}\n\nThe end.\n---\nA story about a hen", f"{LONG}\nThe end.", "a story about a hen"),
    ],
)
def test_wrapped_and_slightly_wrong_answers_are_read(content, story, summary):
    assert only(content) == Reply(story, summary)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "unreadable"),
        ("I cannot do that.", "unreadable"),
        ('{"story": "cut off', "unreadable"),
        ("[" * 100_000, "unreadable"),
        ('{"a":' * 100_000, "unreadable"),
        ('["story"]', "unreadable"),
        ('{"story": 7, "summary": "a story about x"}', "no_story"),
        ('{"story": " ", "summary": "a story about x"}', "no_story"),
        ('{"story": "S"}', "bad_summary"),
        ('{"story": "S", "summary": "a story about"}', "bad_summary"),
        ('{"story": "S", "summary": "The boy told a story about x"}', "bad_summary"),
        ('{"text": "S"}', "bad_summary"),
        ("Sorry, I cannot.\nA story about cats?", "refusal"),
        ("Story: S. I did not get to the end", "unreadable"),
        ("Once there was a story time.\nSummary: none", "unreadable"),
        ('{"story": "S\\u0000", "summary": "a story about x"}', "bad_characters"),
        ('{"story": "S\\ud800", "summary": "a story about x"}', "bad_characters"),
    ],
)
def test_what_holds_no_story_has_a_reason(content, reason):
    assert only(content).reason == reason


# ---- several stories in one answer


def several(*nouns: str, summary: str = "a story about {}") -> list[dict[str, str]]:
    return [{"story": f"The {noun} sat.", "summary": summary.format(noun)} for noun in nouns]


def told(content: str, count: int) -> list[str]:
    """The noun of each story, or why there is none."""
    return [
        held.summary.removeprefix(OPENING) if isinstance(held, Reply) else held.reason
        for held in replies.read(content, count)
    ]


HEN, OWL = several("hen", "owl")
LISTS = {
    "as asked": json.dumps({"stories": [HEN, OWL]}),
    "a bare list": json.dumps([HEN, OWL]),
    "fenced, with commas": f"Here:\n```json\n[{json.dumps(HEN)},\n{json.dumps(OWL)},\n]\n```",
    "one object a line": f"{json.dumps(HEN)}\n{json.dumps(OWL)}",
    "by name": json.dumps({"story_1": HEN, "story_2": OWL}),
    "bare quotation marks": '[{"story": "A "hen" sat.", "summary": "a story about hen"}, '
    '{"story": "An "owl" sat.", "summary": "a story about owl"}]',
    "headings": "### Story 1\nThe hen sat.\n**Summary 1:** a story about hen\n\n---\n\n### Story 2\nThe owl sat.\n\n"
    "**Summary 2:** a story about owl",
    "headings, the summary first": "Summary: a story about hen\nStory: The hen sat.\n\n---\n"
    "Summary: a story about owl\nStory: The owl sat.",
    "closing lines": f"{LONG}\n\na story about hen\n\n{LONG}\n\na story about owl",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_several_stories_are_read_however_they_are_listed(content):
    assert told(content, 2) == ["hen", "owl"]
    assert not any("---" in held.story for held in replies.read(content, 2))


def test_a_bad_story_leaves_the_others_in_their_places():
    wrong = several("cat", summary="Rain")[0]
    assert told(json.dumps({"stories": [HEN, wrong, OWL]}), 3) == ["hen", "bad_summary", "owl"]
    assert told(json.dumps({"stories": [HEN]}), 3) == ["hen", "missing", "missing"]
    assert told(json.dumps({"stories": [HEN, OWL, wrong]}), 2) == ["hen", "owl"]
    assert told("no", 2) == ["unreadable"] * 2


def test_no_story_takes_the_place_of_one_that_cannot_be_read():
    broken = json.dumps({"stories": [HEN, OWL]}).replace('"summary": ', '"summary ', 1)
    assert told(broken, 2) == ["unreadable", "unreadable"]
    broken = json.dumps({"stories": [HEN, HEN, OWL]}).replace(
        '"summary": "a story about hen"}, {"story": "The o', "", 1
    )
    assert told(broken, 3) == ["hen", "missing", "missing"]


HOLES = [
    None,
    {},
    [],
    42,
    "I cannot.",
    {"error": "refused"},
    {"summary": "a story about x"},
    [HEN, OWL],
    {"a": [HEN, OWL]},
]


@pytest.mark.parametrize("hole", HOLES, ids=json.dumps)
def test_every_element_of_a_list_has_a_place_of_its_own(hole):
    assert told(json.dumps({"stories": [HEN, hole, OWL]}), 3) == ["hen", "missing", "owl"]
    assert told(json.dumps([hole, OWL]), 2) == ["missing", "owl"]
    assert told(json.dumps([HEN, hole, OWL]), 2) == ["hen", "missing"]  # too long: what is behind may have moved


BROKEN = '{"story": "She said "hi", "summary": "a story about x"}'
WHERE_IT_IS_NOT_CERTAIN = {
    "keys, one left out": (json.dumps({"story_1": HEN, "story_3": OWL}), ["hen", "missing", "owl"]),
    "keys, swapped": (json.dumps({"Story 2": OWL, "Story 1": HEN}), ["hen", "owl", "missing"]),
    "keys from 0": (json.dumps({"0": HEN, "1": {"error": "no"}, "2": OWL}), ["hen", "missing", "owl"]),
    "keys beyond": (json.dumps({"story_1": HEN, "story_9": OWL}), ["hen", "missing", "missing"]),
    "names, one empty": (json.dumps({"first": HEN, "second": None, "third": OWL}), ["unreadable"] * 3),
    "objects of one key each": (
        f'{{"story_1": {json.dumps(HEN)}}}\n{{"story_3": {json.dumps(OWL)}}}',
        ["hen", "missing", "owl"],
    ),
    "a list of objects of one key each": (json.dumps([{"story_1": HEN}, {"story_3": OWL}]), ["hen", "missing", "owl"]),
    "lists one after another, a hole in the second": (
        f"[{json.dumps(HEN)}]\n[null, {json.dumps(OWL)}]",
        ["hen", "missing", "missing"],
    ),
    "a list with numbers in it": (
        json.dumps({"stories": [HEN | {"Number": 1}, OWL | {"Number": 3}]}),
        ["hen", "missing", "owl"],
    ),
    "objects with numbers in them": (
        f"{json.dumps({'story_number': '2', **OWL})}\n{json.dumps({'story_number': '1', **HEN})}",
        ["hen", "owl", "missing"],
    ),
    "a list of one, with its number": (json.dumps([OWL | {"number": 2}]), ["missing", "owl", "missing"]),
    "a key twice": (f'{{"story": {json.dumps(HEN)}, "story": {json.dumps(OWL)}}}', ["hen", "missing", "missing"]),
    "objects, one without a story": (
        f'{json.dumps(HEN)}\n{{"note": "no"}}\n{json.dumps(OWL)}',
        ["hen", "missing", "missing"],
    ),
    "objects, words for one": (f"{json.dumps(HEN)}\nI cannot.\n{json.dumps(OWL)}", ["hen", "missing", "missing"]),
    "objects, words for the first": (f"I cannot.\n{json.dumps(HEN)}\n{json.dumps(OWL)}", ["unreadable"] * 3),
    "objects, the first without a story": (f'{{"note": "no"}}{json.dumps(HEN)}', ["unreadable"] * 3),
    "objects, one in brackets": (f"{json.dumps(HEN)}\n[no story]\n{json.dumps(OWL)}", ["hen", "missing", "missing"]),
    "objects with numbers": (
        f"Story 1:\n{json.dumps(HEN)}\n\n**Story 3:**\n{json.dumps(OWL)}",
        ["hen", "missing", "missing"],
    ),
    "bare quotation marks, one object torn": (
        f'[{{"story": "torn "no", "x": 1}}, {BROKEN}, {BROKEN}, {BROKEN}]',
        ["unreadable"] * 3,
    ),
    "headings, one left out": (
        "Story 1: The hen sat.\nSummary: a story about hen\n\nStory 3: The owl sat.\nSummary: a story about owl",
        ["hen", "missing", "owl"],
    ),
    "headings, swapped": (
        "Story 2: The owl sat.\nSummary: a story about owl\n\nStory 1: The hen sat.\nSummary: a story about hen",
        ["hen", "owl", "missing"],
    ),
    "headings with titles": (
        "## Story 1\n\nTitle: Hen\nThe hen sat.\nSummary: a story about hen\n\n"
        "## Story 3\n\nTitle: Owl\nThe owl sat.\nSummary: a story about owl",
        ["hen", "missing", "owl"],
    ),
    "headings, one without a summary": (
        "Story 1: The hen sat.\nSummary: a story about hen\n\nStory 2: No.\n\n"
        "Story 3: The owl sat.\nSummary: a story about owl",
        ["hen", "bad_summary", "owl"],
    ),
    "headings, a summary without its story": (
        "Story 1: The hen sat.\nSummary: a story about hen\nSummary: a story about rain\n\nStory 3: The owl sat.",
        ["hen", "missing", "bad_summary"],
    ),
    "headings without numbers": (
        "Story: The hen sat.\nSummary: a story about hen\n\nI cannot.\n\n"
        "Story: The owl sat.\nSummary: a story about owl",
        ["unreadable"] * 3,
    ),
}


@pytest.mark.parametrize(("content", "expected"), WHERE_IT_IS_NOT_CERTAIN.values(), ids=WHERE_IT_IS_NOT_CERTAIN)
def test_no_story_is_booked_under_another_ask(content, expected):
    assert told(content, 3) == expected


def test_words_around_as_many_objects_as_were_asked_for_do_no_harm():
    objects = f"Here they are. The first:\n{json.dumps(HEN)}\nand story 2, of an owl:\n{json.dumps(OWL)}\nEnjoy!"
    assert told(objects, 2) == ["hen", "owl"]
    assert told(objects.replace("story 2", "story 3"), 2) == ["hen", "missing"]
    whole = json.dumps({"stories": [HEN, OWL]})
    assert told(f'{{"thoughts": "Two stories."}}\n{whole}', 2) == ["hen", "owl"]
    assert told(json.dumps({"a hen": HEN, "an owl": OWL}), 2) == ["hen", "owl"]
    assert told(json.dumps([{"stories": [HEN, OWL]}]), 2) == ["hen", "owl"]
    assert told(json.dumps({"number": 2, "stories": [HEN, OWL]}), 2) == ["hen", "owl"]
    assert told(json.dumps([{"number": 1, "story": HEN}, {"number": 2, "story": OWL}]), 2) == ["hen", "owl"]


@pytest.mark.parametrize("stories", [[None, OWL], [{"error": "no"}, OWL], {"story_2": OWL, "story_3": HEN}, {"2": OWL}])
def test_a_list_that_broke_off_behind_a_hole_gives_no_story_its_place(stories):
    cut = json.dumps({"stories": stories})[:-2] + ', {"story": "The'
    assert replies.read(cut, 3, whole=False)[0].reason != "bad_summary"
    assert told(cut, 3) == ["unreadable"] * 3


def test_of_a_list_that_broke_off_the_whole_stories_count():
    cut = Answer("truncated", json.dumps({"stories": [HEN, OWL, HEN]})[:-30], "fake-1")
    slots = replies.verdict([cut], 0, 3)
    assert [type(held) for _, held in slots] == [Reply, Reply, Fault] and slots[2][1].reason == "truncated"
    assert (
        replies.verdict([Answer("truncated", "Story: S\nSummary: a story about x", "")], 0, 2)[0][1].reason
        == "truncated"
    )


def test_each_ask_takes_the_first_answer_with_a_good_story_in_its_place():
    wrong = several("cat", summary="Rain")[0]
    first, second, third = (
        Answer("ok", json.dumps({"stories": each}), name)
        for each, name in (([HEN, wrong], "1"), ([wrong, OWL], "2"), ([OWL, OWL], "3"))
    )
    assert replies.verdict([first], 2, 2) is None
    assert replies.verdict([], 0, 2) is None
    slots = replies.verdict([first, second, third], 2, 2)
    assert [(answer.model, held.summary) for answer, held in slots] == [("1", OPENING + "hen"), ("2", OPENING + "owl")]
    slots = replies.verdict([first, BAD], 1, 2)
    assert [(answer.raw, type(held)) for answer, held in slots] == [(first.raw, Reply), ("no", Fault)]


def test_what_is_wrong_names_the_story():
    assert replies.fault_in(LISTS["as asked"], 2) is None
    fault = replies.fault_in(json.dumps([HEN, {"story": "S"}]), 2)
    assert fault.reason == "bad_summary" and fault.detail.startswith("story 2 of 2: ")


# ---- one answer, and many


def test_the_first_story_counts_and_only_the_allowed_answers_are_looked_at():
    assert replies.verdict([BAD, GOOD], reasks=2) == [(GOOD, Reply("S", "a story about x"))]
    assert replies.verdict([BAD], reasks=1) is None
    assert replies.verdict([], reasks=0) is None
    [(answer, held)] = replies.verdict([BAD, BAD, GOOD], reasks=1)
    assert (answer, held.reason) == (BAD, "unreadable")


def test_a_truncated_answer_is_no_story_even_where_its_json_is_whole():
    [(_, held)] = replies.verdict([Answer("truncated", GOOD.raw, "fake-1")], reasks=0)
    assert held.reason == "truncated"


# ---- summaries


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("a story about a cat", "a cat"),
        ("This is the tale of Bo the bear.", "Bo the bear."),
        ("A short, sweet bedtime story about a hen", "a hen"),
        ("The story follows Tim", "Tim"),
        ("**Summary:** It's about a cat", "a cat"),
        ("A story in which Tim finds a hat", "how Tim finds a hat"),
        ("The story tells how Tim was lost", "how Tim was lost"),
        ("Summary: Tim finds a hat.", "how Tim finds a hat."),
        ("Tim and Sue find a hat", "how Tim and Sue find a hat"),
        ("A little boy named Tim learns to share", "how a little boy named Tim learns to share"),
        # no rule can tell whether these are sentences, or what they are about
        ("A little dog who loves to run.", None),
        ("A boy named Tim who loves to run.", None),
        ("Tim, who loves to run", None),
        ("Tim finds a hat. He runs home.", None),
        ("The boy told us a story about x", None),
        ("a story about ", None),
        ("Tim!", None),
        ("", None),
    ],
)
def test_a_summary_is_repaired_where_only_its_first_words_change(summary, expected):
    assert summary_of(summary) == (None if expected is None else OPENING + expected)


# ---- what is asked for


@pytest.mark.parametrize("count", [1, 3])
def test_the_answer_format_is_strict_all_the_way_down(count):
    shape = response_format(count)["json_schema"]
    assert shape["strict"] is True and "$" not in json.dumps(shape) and "title" not in json.dumps(shape)
    objects = [shape["schema"]] + ([shape["schema"]["properties"]["stories"]["items"]] if count > 1 else [])
    for each in objects:
        assert each["additionalProperties"] is False and each["required"] == list(each["properties"])
    assert set(objects[-1]["properties"]) == {"story", "summary"}


def test_a_refusal_in_plain_text_is_called_one():
    declined = "I'm sorry, but I can't help with that.\n"
    assert [held.reason for held in replies.read(declined, 2)] == ["refusal", "refusal"]
    assert replies.read("I am sorry to say the hen slept.")[0].reason == "unreadable"


HEN_STORY = (
    "Once there was a little hen named Pim. Every day she looked for corn in the garden. One day she found a shiny "
    'button under a leaf. "What a fine thing!" said Pim.'
)


def test_a_story_told_without_any_form_is_one_with_a_summary_of_its_own_words():
    (held,) = replies.read(f"{HEN_STORY}\n")
    assert isinstance(held, replies.Reply) and held.story == HEN_STORY
    assert held.summary.startswith("a story about") and "Pim" in held.summary


@pytest.mark.parametrize(
    "content",
    [HEN_STORY[:-20], f'{{"story": {HEN_STORY}', f"Sure, here is a story about a hen:\n{HEN_STORY}", "Pim ran off."],
    ids=["cut off", "broken JSON", "assistant talk", "too short"],
)
def test_what_only_looks_like_one_stays_quarantined(content):
    assert [held.reason for held in replies.read(content)] == ["unreadable"]
    assert [held.reason for held in replies.read(HEN_STORY, 2)] == ["unreadable"] * 2
