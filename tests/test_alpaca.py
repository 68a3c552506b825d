"""Instruction data: read as it is published, mended, judged by named rules, carried to the split."""

import json
import random

import pyarrow as pa
import pytest

from flows import wiring
from lib import stages
from lib.errors import UserError
from lib.overrides import with_overrides
from lib.presets import laptop_stories
from lib.stages.ingest import IngestConfig
from lib.store import connect, schemas
from lib.text import sources
from lib.text.alpaca import Task, seed_tasks
from lib.text.alpaca_rules import REASONS, fault_of, judge_instructions, repair, repair_instructions
from lib.text.arithmetic import missing_value
from lib.text.prompts.lists import WORDS
from lib.text.storyteller import words as lists
from lib.web import chain


def rows(path, **config) -> list[dict]:
    return stages.build("ingest", IngestConfig(path=str(path), **config), {}).table().to_pylist()


def published(path, *records: dict):
    path.write_text(json.dumps(records, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


def task(instruction: str, given: str = "", output: str = "An answer.") -> Task:
    return Task("", instruction, given, output)


# ---- reading


def test_alpaca_data_is_read_as_it_is_published(tmp_path):
    first = {"instruction": "Name a fruit.", "input": "", "output": "A plum."}
    second = {"instruction": "Is it big?", "input": "a whale", "output": "Yes"}
    made = rows(published(tmp_path / "alpaca_data.json", first, second))
    assert [(row["instruction"], row["input"], row["text"], row["summary"]) for row in made] == [
        ("Name a fruit.", None, "A plum.", None),
        ("Is it big?", "a whale", "Yes", None),
    ]
    assert made[0]["source"] == "alpaca_data.json"


def test_every_instance_of_a_seed_task_is_a_row(tmp_path):
    record = {"id": "seed_7", "instruction": "Is it big?"}
    record["instances"] = [{"input": "a whale", "output": "Yes"}, {"input": "a cliff", "output": "Yes"}]
    path = tmp_path / "seeds.jsonl"
    path.write_text(json.dumps(record) + "\n")
    made = rows(path)
    assert [(row["input"], row["text"]) for row in made] == [("a whale", "Yes"), ("a cliff", "Yes")]
    assert len({row["story_id"] for row in made}) == 2


def test_equal_answers_to_different_tasks_are_different_rows(tmp_path):
    tasks = [{"instruction": f"Is {n} odd?", "input": "", "output": "Yes"} for n in (1, 3, 5)]
    assert not [row for row in rows(published(tmp_path / "a.json", *tasks)) if "-" in row["story_id"]]


def test_an_instruction_of_tinystories_is_no_task(tmp_path):
    asked = {"words": ["quit", "oak", "gloomy"], "features": []}
    row = rows(published(tmp_path / "a.json", {"story": "A cat.", "instruction": asked}))[0]
    assert (row["instruction"], row["verb"], row["text"]) == (None, "quit", "A cat.")


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_list_is_read_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sources, "BLOCK", block)
    records = [{"text": 'Ünë "cat", {sat} [here],\n😀', "n": n} for n in range(5)]
    for name, text in (("dense", json.dumps(records)), ("wide", "\ufeff \n" + json.dumps(records, indent=2) + "\n\n")):
        path = tmp_path / f"{name}.json"
        path.write_text(text, encoding="utf-8")
        assert [record for _, record in sources.records(str(path))] == records


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "A"}', "found no JSON list in .*after record 0 stands"),
        (b'[{"text": "A"}, {"text": ', "after record 1 stands ', {\"text\":'"),
        (b'[{"text": "A"} {"text": "B"}]', "after record 1 stands"),
        (b'[{"text": "A"}] more', "after record 1 stands '. more'"),
        (b'[{"text": "A"}, ]', "after record 1 stands ', .'"),
        (b'[{"text": "A"}, 7]', "found int in .*record 2, expected an object"),
        (b"[]", "found no story in"),
        (b'[{"text": "\xff"}]', "not UTF-8"),
        (b'[{"instruction": "Go.", "instances": [1]}]', r"found instances = \[1\] in .*record 1"),
        (b'[{"instruction": "Go.", "output": 3}]', "found text = 3"),
    ],
)
def test_what_is_no_list_of_objects_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        rows(tmp_path / "a.json")


# ---- mending


@pytest.mark.parametrize(
    ("came", "mended"),
    [
        ("caf\u00c3\u00a9\x00 \r\nopen\u200b", "café \nopen"),
        ("One\\nTwo\\n\\nThree", "One\nTwo\n\nThree"),
        ("Use \\n for a new line.", "Use \\n for a new line."),
        ("$a \\neq b$, \\nabla, \\nu", "$a \\neq b$, \\nabla, \\nu"),
        ('She said \\"hi\\" twice', 'She said "hi" twice'),
        ("It\\u2019s \\ud83d", "It’s \\ud83d"),
        ("print('A\\nB\\nC');", "print('A\\nB\\nC');"),
        ("\n    return 1\nend \n", "    return 1\nend"),
        ("“Quotes” stay – here", "“Quotes” stay – here"),
    ],
)
def test_odd_characters_are_mended_and_code_is_left_alone(came, mended):
    assert repair(came) == mended == repair(mended)


def test_an_input_that_says_there_is_none_becomes_null_and_stories_stay_as_they_are():
    inputs = ["<noinput>", "No input.", "NOINPUT", " ", "No input was lost", None]
    given = [{"instruction": "Go.", "input": each, "text": "x\x00"} for each in inputs]
    story = {"instruction": None, "input": None, "text": "x\x00"}
    mended = repair_instructions(pa.Table.from_pylist([*given, story], schema=schemas.RAW)).to_pylist()
    assert [row["input"] for row in mended] == [None, None, None, None, "No input was lost", None, None]
    assert [row["text"] for row in mended] == ["x"] * 6 + ["x\x00"]


# ---- judging: for each class of defects what is caught, and beside it what is nearly the same and right


CASES = [
    ("special_token", task("Go on.", output="Yes.\n### Response: No."), task("Go on.", output="The response: # 3.")),
    ("special_token", task("Say <|endoftext|> twice."), task("Say <b>go</b> twice.")),
    ("internet", task("Summarize this article.", "https://example.org/1"), task("Is https://example.org a valid URL?")),
    ("internet", task("List the main points of the following website."), task("Write a slogan for a website.")),
    ("internet", task("Search the web for owls."), task("Explain how to search for a lost cat.")),
    ("merged_instructions", task("Name a fruit.\nInstruction: Go."), task("Label it with Instruction, Input, Output.")),
    (
        "merged_instructions",
        task("Name one.", output="A\n\n21. Instruction: Go."),
        task("Cook.", output="Steps: stir."),
    ),
    ("empty_output", task("Name a fruit.", output=" \n"), task("Type a smile.", output=":)")),
    ("empty_code", task("What does this function do?"), task("What does this function do?", "def f(x): return x")),
    ("empty_code", task("Explain the following code"), task("Explain the following code: x = 5")),
    ("empty_code", task("Sort it.", output="```python\n```"), task("Sort it.", output="```python\nsorted(x)\n```")),
    ("image_request", task("Draw a picture of a cat"), task("Describe a picture of a cat")),
    ("image_request", task("Generate an image of the sea."), task("Create a caption for an image of the sea.")),
    ("image_request", task("Create a funny infographic"), task("Draw a conclusion from the facts.", "Cats sleep.")),
    ("image_request", task("Draw a house."), task("Draw a house with turtle graphics in Python.")),
    ("not_applicable", task("Name the capital.", output="N/A"), task("Give the symbol of sodium.", output="Na")),
    ("not_applicable", task("Who is it?", output="<nooutput>"), task("What is N/A?", output="It is not applicable.")),
    ("unclear", task("?? 12 !"), task("Why?")),
    ("unclear", task("Summarize the following text."), task("Summarize the following text.", "Cats sleep.")),
    (
        "unclear",
        task("Edit it.", output="Please provide the text."),
        task("Say it.", output="Please provide for them."),
    ),
    ("wrong_answer", task("What is 12 + 15?", output="It is 26."), task("What is 12 + 15?", output="12 + 15 = 27")),
    ("wrong_answer", task("Solve the equation.", "(3+4) x 2", "11"), task("Solve the equation.", "(3+4) x 2", "14")),
]


@pytest.mark.parametrize(
    ("reason", "defect", "near_miss"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)]
)
def test_each_class_of_defects_and_its_near_miss(reason, defect, near_miss):
    assert fault_of(defect)[0] == reason
    assert fault_of(near_miss) == (None, None)


def test_every_rule_has_its_case():
    assert {reason for reason, _, _ in CASES} == set(REASONS)


@pytest.mark.parametrize(
    ("asked", "right", "wrong"),
    [
        ("What is 15% of 80?", "It is 12.", "It is 15."),
        ("Find the square root of 144", "12", "14"),
        ("Calculate 10 / 3", "About 3.33", "About 3.4"),
        ("Calculate 2 / 3", "0.66", "0.5"),
        ("Compute 2^10.", "1,024", "1,000"),
        ("What is 3/4 - 1/4?", "1/2", "1/3"),
        ("Evaluate -3 × (2 − 5) =", "9", "-9"),
    ],
)
def test_bare_sums_are_computed(asked, right, wrong):
    assert missing_value(asked, "", right) is None
    assert missing_value(asked, "", wrong)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("How many legs do 3 + 2 dogs have?", "7"),
        ("What is 12 + 15?", "twenty-six"),
        ("What is 1/0?", "7"),
        ("What is 9^9^9^9?", "7"),
        ("What is ((((9^20)^20)^20)^20)^20?", "7"),
        ("What is 12-05-2020?", "7"),
        ("What is " + "9" * 5000 + " + 1?", "7"),
        ("What is 1 + 1?", "9" * 5000),
        ("What is " + "(" * 500 + "1 + 1" + ")" * 500 + "?", "7"),
    ],
)
def test_what_cannot_be_computed_is_left_alone(asked, answer):
    assert missing_value(asked, "", answer) is None


def test_rows_that_are_no_tasks_are_not_judged():
    table = pa.Table.from_pylist([{"text": ""}, {"instruction": "Go.", "text": ""}], schema=schemas.RAW)
    assert judge_instructions(table) == ([None, "empty_output"], [None, ""])


def test_our_own_seed_tasks_pass_every_rule():
    tasks = seed_tasks(str(WORDS / "tasks.jsonl"))
    assert len(tasks) == 24 and [fault_of(each) for each in tasks] == [(None, None)] * 24
    assert all(repair(text) == text for each in tasks for text in (each.instruction, each.input, each.output))


# ---- down the chain


def test_tasks_travel_to_the_split_and_drops_say_why(tmp_path):
    dice = random.Random(1)
    four = [dice.sample(lists.listed("nouns"), 4) for _ in range(40)]
    four += [[*each[:3], "whistle"] for each in four[:5]]  # asked before, but for one word
    orders = ["Rank {}, {}, {} and {} by size.".format(*each) for each in four]
    tasks = [{"instruction": each, "input": "", "output": "Yes"} for each in orders]
    code = {"instruction": "Write a loop.", "input": "<noinput>", "output": "for x in y:\n    print(x)"}
    story = {"text": "Tom had a red ball. He liked to play with it in the park. One day the ball was gone, and Tom "
             "was sad. Then a dog brought it back to him."}  # fmt: skip
    bad = {"instruction": "Name a river.", "input": "", "output": "N/A"}
    path = published(tmp_path / "alpaca_data.json", *tasks, code, story, bad)
    changes = {"ingest": {"path": str(path)}, "novelty": {}, "split": {"min_rows": 4}}
    config = with_overrides(laptop_stories(), changes)
    made = wiring.stories(config, lambda stage, config, **inputs: stages.build(stage, config, inputs))
    assert list(made) == ["raw", "clean", "dedup", "novelty", "split"]
    assert made["clean"].manifest["drops"] == {"not_applicable": 1}
    assert made["clean"].manifest["counts"]["summaries_made"] == 1
    assert made["dedup"].manifest["drops"].get("exact", 0) == 0
    kept = {row["text"]: row for row in made["split"].table().to_pylist()}
    loop = kept[code["output"]]
    assert (loop["instruction"], loop["input"], loop["summary"]) == ("Write a loop.", None, None)
    assert kept[story["text"]]["instruction"] is None and kept[story["text"]]["summary"].startswith("a story about ")
    assert [row.stage for row in chain.funnel(chain.open_chain(made))] == [
        "ingest",
        "clean",
        "dedup",
        "novelty",
        "split",
    ]
    con = connect()
    assert made["novelty"].manifest["drops"] == {"not_novel": 5}
    gone = dict(con.execute("select stage, count(*) from drops group by stage").fetchall())
    assert gone == {"clean": 1, "novelty": 5}
    assert con.execute("select count(*) from stories").fetchone() == (len(made["split"].table()),)
    assert con.execute("select count(*), count(distinct story_id) from lineage").fetchone() == (len(tasks) + 3,) * 2
