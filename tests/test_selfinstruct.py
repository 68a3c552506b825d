"""Self-instruct asks for tasks like the seed tasks until there are enough new ones, each request once."""

import json
import re

import pytest
from pydantic import ValidationError

from lib import stages, store
from lib.errors import TransientError, UserError
from lib.stages import selfinstruct
from lib.stages.selfinstruct import SelfinstructConfig
from lib.text import selfinstruct as asking
from lib.text.alpaca import Task, seed_tasks
from lib.text.alpaca_rules import fault_of
from lib.text.prompts.lists import WORDS
from lib.text.rouge import Pool, words_of
from lib.text.storyteller import Mischief, instructions
from tests.teacher import FakeTeacher, completion, failure


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")


def config_for(teacher: FakeTeacher, **more) -> SelfinstructConfig:
    given = {"count": 12, "tasks_per_request": 4, "reasks": 1, "backoff": 0.01, "tries": 3, "concurrency": 4} | more
    return SelfinstructConfig(teacher="openai", model="fake-1", base_url=teacher.base_url, **given)


def build(config: SelfinstructConfig, **more) -> store.Dataset:
    return stages.build("selfinstruct", config, {}, **more)


def written(request: dict, count: int = 4) -> list[dict]:
    """`count` tasks that share hardly a word with each other, for a request of our own making."""
    mark = f"{request['seed']:x}"
    return [
        {"instruction": f"{mark}a{n} {mark}b{n} {mark}c{n} {mark}d{n}", "input": "<noinput>", "output": f"out {n}"}
        for n in range(count)
    ]


def tasks(request: dict, times: int = 1):
    return completion(json.dumps({"tasks": written(request)}))


# ---- what is asked


def test_each_request_shows_three_seed_tasks_and_asks_for_a_list():
    with FakeTeacher(tasks) as teacher:
        made = build(config_for(teacher))
        prompts = [request["messages"][-1]["content"] for request in teacher.requests]
    shown = [json.loads(re.search(r"\{.*?\n\}", prompt, re.DOTALL)[0])["tasks"] for prompt in prompts]
    known = {task.instruction for task in seed_tasks(str(WORDS / "tasks.jsonl"))}
    assert all(len({each["instruction"] for each in three} & known) == 3 for three in shown)
    assert len({json.dumps(three) for three in shown}) == 3 and all("Write 4 more" in prompt for prompt in prompts)
    assert teacher.requests[0]["response_format"]["json_schema"]["name"] == "list_of_tasks"
    assert made.facts == {"requests": 3, "seed_tasks": 24, "wanted": 12}


def test_rows_hold_instruction_input_and_answer():
    with FakeTeacher(tasks) as teacher:
        rows = build(config_for(teacher, part_rows=5)).table().to_pylist()
    assert len(rows) == 12 == len({row["story_id"] for row in rows})
    assert all(row["instruction"].endswith(row["text"][-1]) and row["input"] is None for row in rows)
    assert {(row["source"], row["model"], row["summary"]) for row in rows} == {("openai:fake-1", "fake-1", None)}
    assert {row["story_id"].rpartition(".")[0] for row in rows} == {row["request_id"] for row in rows}


# ---- until there are enough


def test_rounds_go_on_until_there_are_enough_and_all_that_was_paid_for_stays():
    def mostly_known(request, times):
        return completion(json.dumps({"tasks": [*written(request, 1), *written({"seed": 7}, 3)]}))

    with FakeTeacher(mostly_known) as teacher:
        made = build(config_for(teacher))
        asked = len(teacher.requests)
    # 3 requests bring 6 tasks, 2 each: the next round is of 3 as well, and so on at the yield so far.
    assert [each["asked_now"] for each in json.loads(made.file("_record/rounds.json").read_text())] == [3, 3, 2, 1]
    assert asked == 9 == made.facts["requests"]
    assert made.manifest["counts"] == {"rows_in": 36, "rows_out": 12} and made.manifest["drops"] == {"not_novel": 24}
    with FakeTeacher(tasks) as teacher:
        assert len(build(config_for(teacher, count=13)).table()) == 16  # paid for


def test_it_stops_at_the_limit_and_says_how_many_were_wanted():
    with FakeTeacher(lambda request, times: completion(json.dumps({"tasks": written({"seed": 7})}))) as teacher:
        made = build(config_for(teacher, most_requests=5))
    assert made.facts["requests"] == 5 and made.facts["wanted"] == 12
    assert made.manifest["counts"]["rows_out"] == 4 and made.manifest["drops"] == {"not_novel": 16}


def test_what_is_like_a_seed_task_is_not_new():
    seed = seed_tasks(str(WORDS / "tasks.jsonl"))[4]

    def answer(request, times):
        copied = {"instruction": seed.instruction.replace("puddles", "clouds"), "input": "", "output": "They do."}
        return completion(json.dumps({"tasks": [copied, *written(request)]}))

    with FakeTeacher(answer) as teacher:
        dropped = build(config_for(teacher, count=4)).table(table="_dropped").to_pylist()
    assert [(row["reason"], row["text"]) for row in dropped] == [("not_novel", "They do.")]
    assert dropped[0]["detail"] == "0.90 like seed:task_05"


def test_nothing_is_asked_twice_and_more_begin_with_the_same():
    with FakeTeacher(tasks) as teacher:
        few = build(config_for(teacher))
        more = build(config_for(teacher, count=20))
        again = build(config_for(teacher, count=20, part_rows=3))
    assert set(teacher.calls.values()) == {1} and len(teacher.requests) == 5
    assert more.table().to_pylist()[:12] == few.table().to_pylist() and len(again.table()) == 20


def test_a_stopped_run_goes_on_where_it_was():
    down = {"after": 2}

    def answer(request, times):
        return failure(500) if down and len(teacher.requests) > down["after"] else tasks(request)

    with FakeTeacher(answer) as teacher:
        config = config_for(teacher, concurrency=1)
        with pytest.raises(TransientError):
            build(config)
        down.clear()
        before = len(teacher.requests)
        assert len(build(config).table()) == 12
        assert len(teacher.requests) == before + 1


# ---- what cannot be used


def test_each_task_that_cannot_be_used_goes_with_its_reason():
    good = {"instruction": "Name four kinds of bread.", "input": "", "output": "Rye."}
    bad = {
        "too_short": good | {"instruction": "Name a bread."},
        "too_long": good | {"instruction": "bread " * 151},
        "no_output": good | {"output": " "},
        "not_for_text": good | {"instruction": "Look at the picture and describe it."},
        "program": good | {"instruction": "Write a program that counts bread."},
        "not_english": good | {"instruction": "Ähnlich wie Brot ist was?"},
        "odd_start": good | {"instruction": "- Name four kinds of bread."},
        "malformed": good | {"output": ["Rye."]},
        "bad_characters": good | {"output": "Rye\x00"},
    }
    near = [
        "Photograph albums: name four uses.",
        "Explain what a programme of a concert is.",
        "Name four drawbacks of maples.",
    ]
    found = asking.candidates(json.dumps({"tasks": [good, *bad.values()]}), truncated=False)
    assert [fault and fault.reason for _, fault in found] == [None, *bad]
    assert not [each for each in near if asking.candidates(json.dumps(good | {"instruction": each}), False)[0][1]]


def test_of_a_list_that_breaks_off_the_whole_tasks_are_kept():
    whole = json.dumps({"tasks": written({"seed": 1})})

    def answer(request, times):
        return completion(json.dumps({"tasks": written(request)})[:-30], finish="length")

    with FakeTeacher(answer) as teacher:
        made = build(config_for(teacher, count=9))
    assert made.manifest["counts"]["rows_out"] == 9 and made.manifest["drops"] == {"unfinished": 3}
    assert set(teacher.calls.values()) == {1}
    for cut in range(len(whole)):
        usable = [task for task, fault in asking.candidates(whole[:cut], truncated=True) if fault is None]
        assert [task.output for task in usable] == [f"out {n}" for n in range(len(usable))]


def test_numbered_text_and_fenced_json_are_read():
    listed = "Sure!\n\n1. Instruction: Sort the four words.\nInput: b, a\nOutput: 1. a\n2. b\n\n"
    listed += "2. Instruction: Say it all again.\nInput: <noinput>\nOutput: It"
    expected = [Task("", "Sort the four words.", "b, a", "1. a\n2. b"), Task("", "Say it all again.", "", "It")]
    assert [task for task, _ in asking.candidates(listed, truncated=False)] == expected
    assert [fault and fault.reason for _, fault in asking.candidates(listed, truncated=True)] == [None, "unfinished"]
    objects = [{"instruction": each.instruction, "input": each.input, "output": each.output} for each in expected]
    for text in (f"```json\n{json.dumps(objects, indent=1)}\n```", "\n".join(map(json.dumps, objects)) + " {"):
        assert [task for task, _ in asking.candidates(text, truncated=False)] == expected


@pytest.mark.parametrize(
    "text", ["", "No.", "{" * 5000, "[" * 5000, '{"tasks": [1, {}]}', '{"tasks": {}}', "1. Instruction:"]
)
def test_whatever_a_teacher_writes_is_read_without_an_error(text):
    assert not [task for task, fault in asking.candidates(text, truncated=True) if fault is None]
    assert asking.fault_in(text) is not None


def test_an_answer_without_tasks_is_asked_for_again_and_then_dropped_with_what_it_said():
    first: list[str] = []

    def answer(request, times):
        asked = request["messages"][-1]["content"]
        first[:] = first or [asked]
        return completion("I would rather not.") if asked == first[0] else tasks(request)

    with FakeTeacher(answer) as teacher:
        made = build(config_for(teacher, concurrency=1))
    dropped = made.table(table="_dropped").to_pylist()
    assert [(row["reason"], row["text"]) for row in dropped] == [("unreadable", "I would rather not.")]
    assert len(teacher.requests) == 1 + made.facts["requests"]
    con = store.connect()
    assert con.execute("select stage, reason from drops").fetchall() == [("selfinstruct", "unreadable")]
    came = "select dropped_by, count(*), sum(attempts) from lineage group by all order by all"
    assert con.execute(came).fetchall() == [("selfinstruct", 1, 2), (None, 16, 16)]


def test_no_usable_task_at_all_is_one_clear_error():
    with (
        FakeTeacher(lambda request, times: completion("no")) as teacher,
        pytest.raises(UserError, match="no usable task"),
    ):
        build(config_for(teacher))


def test_more_adds_to_the_tasks_that_came_to_a_split():
    from flows import run, wiring
    from lib.overrides import with_overrides
    from lib.presets import laptop_stories

    def do(stage, config, **inputs):
        return stages.build(stage, config, inputs)

    config = with_overrides(laptop_stories(), {"selfinstruct": {"count": 40}, "split": {"min_rows": 2}})
    assert run.grown(config, 5).selfinstruct.count == 45 and run.grown(config, None) == config
    wiring.stories(run.grown(config, 10), do)
    assert run.grown(config, 5).selfinstruct.count == 55
    other = with_overrides(config, {"selfinstruct": {"seed": 1}})
    assert run.grown(other, 5).selfinstruct.count == 45


# ---- seed tasks


def test_seed_tasks_can_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"instruction": f"Do thing {n}.", "input": "", "output": "Done."} for n in range(3)]))
    with FakeTeacher(tasks) as teacher:
        config = config_for(teacher, seed_tasks=str(path))
        assert build(config).facts["seed_tasks"] == 3
        assert "Do thing 2." in teacher.requests[0]["messages"][-1]["content"]
        with pytest.raises(UserError, match="found 3 seed tasks .* expected at least 4"):
            build(config_for(teacher, seed_tasks=str(path), examples=4))
        with pytest.raises(UserError, match="found no file"):
            build(config_for(teacher, seed_tasks="none.jsonl"))
        before = store.request_name(selfinstruct.STAGE, config, {}, selfinstruct.external(config))
        path.write_text(path.read_text().replace("Done", "Made"))
        assert store.request_name(selfinstruct.STAGE, config, {}, selfinstruct.external(config)) != before


def test_impossible_configs_are_refused():
    for wrong in ({"count": 0}, {"examples": 0}, {"max_similarity": 2}, {"plan": {}}):
        with pytest.raises(ValidationError):
            SelfinstructConfig(**wrong)


# ---- the built-in storyteller


def test_the_storyteller_writes_tasks_and_misbehaving_ends_with_as_many(monkeypatch, data_root):
    monkeypatch.delenv("OPENAI_API_KEY")
    honest = build(SelfinstructConfig(count=60))
    rows = honest.table().to_pylist()
    assert len(rows) >= 60 and {row["model"] for row in rows} == {"storyteller-1"}
    told = [words_of(row["instruction"]) for row in rows]
    assert max(Pool([a]).mean(b) for n, a in enumerate(told) for b in told[:n]) <= 0.7
    for path in (data_root / "requests").iterdir():
        path.unlink()
    mischief = Mischief(rate_limited=0.1, server_error=0.1, refusal=0.1, truncated=0.2, retry_after=0.01)
    harried = build(SelfinstructConfig(count=60, mischief=mischief, backoff=0.01, tries=12, reasks=9))
    assert len(harried.table()) >= 60


def test_the_storytellers_answers_are_right_and_break_no_rule():
    made = [each for seed in range(20) for each in json.loads(instructions.answer(20, seed, True))["tasks"]]
    assert not [each for each in made if fault_of(Task("", *each.values()))[0]]
    for each in made:
        if found := re.fullmatch(r"Put (.*) in order, from A to Z\.", each["instruction"]):
            assert each["output"].split(", ") == sorted(re.split(", | and ", found[1]))
        if each["instruction"].startswith("Count the words"):
            assert int(each["output"]) == len(each["input"].split())
    as_text = asking.candidates(instructions.answer(20, 3, False), truncated=False)
    as_json = asking.candidates(instructions.answer(20, 3, True), truncated=False)
    assert len(as_text) == 20 and [task for task, _ in as_text] == [task for task, _ in as_json]
