"""Generate's promises: the plan's stories in the plan's order, each asked once, whatever happens on the way."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from lib import store
from lib.errors import TransientError, UserError
from lib.stages import generate
from lib.stages.generate import GenerateConfig, Planned
from lib.text import prompts, replies
from lib.text.storyteller import Mischief
from tests.teacher import Answer, FakeTeacher, completion, failure, told

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def config_for(teacher: FakeTeacher | str, count: int = 20, **more) -> GenerateConfig:
    base_url = teacher if isinstance(teacher, str) else teacher.base_url
    given = {"part_rows": 8, "reasks": 1, "backoff": 0.01, "tries": 4, "concurrency": 8} | more
    return GenerateConfig(
        teacher="openai", model="fake-1", base_url=base_url, plan=prompts.PromptPlan(count=count), **given
    )


def build(config: GenerateConfig, **more) -> store.Dataset:
    def fill(draft, config):
        generate.generate(draft, config, **more)

    return store.build(generate.STAGE, config, {}, fill)


def asking(dataset: store.Dataset) -> dict:
    return json.loads(dataset.file("_record/asking.json").read_text())


# ---- what comes out


def test_stories_come_in_the_order_of_the_plan_with_what_was_asked():
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        config = config_for(teacher)
        made = build(config)
    rows, plan = made.table().to_pylist(), prompts.asks(config.plan)
    assert [part.rows for part in made.parts()] == [8, 8, 4]
    assert [(r["verb"], r["noun"], r["adjective"], tuple(r["features"])) for r in rows] == [
        (a.verb, a.noun, a.adjective, a.features) for a in plan
    ]
    assert [row["request_id"] for row in rows] == [each.request_id for each in Planned(config)]
    assert {(row["source"], row["model"], row["summary"]) for row in rows} == {
        ("openai:fake-1", "fake-1", "a story about Tim")
    }
    assert made.manifest["counts"] == {"rows_in": 20, "rows_out": 20}


def test_two_runs_of_one_request_have_equal_fingerprints_though_their_times_differ(tmp_path, monkeypatch):
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        first = build(config_for(teacher))
        monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "other"))
        assert build(config_for(teacher, concurrency=2)).fingerprint == first.fingerprint


def test_answers_without_a_story_go_with_their_reason_and_the_counts_close():
    faults = [
        (completion(None, refusal="I cannot"), "refusal"),
        (completion('{"story": "half', finish="length"), "truncated"),
        (completion("Sure! Once upon a time."), "unreadable"),
        (completion(json.dumps({"story": "x", "summary": "Rain"})), "bad_summary"),
        (completion(json.dumps({"story": "x\ud800", "summary": "a story about x"})), "bad_characters"),
    ]
    by_prompt = {}

    def answer(request, times):
        number = by_prompt.setdefault(request["messages"][-1]["content"], len(by_prompt))
        return faults[number][0] if number < len(faults) else told(request)

    with FakeTeacher(answer) as teacher:
        made = build(config_for(teacher))
    dropped = made.table(table="_dropped").to_pylist()
    assert made.manifest["drops"] == {reason: 1 for _, reason in faults}
    assert made.manifest["counts"] == {"rows_in": 20, "rows_out": 15}
    texts = {row["reason"]: row["text"] for row in dropped}
    assert texts["refusal"] == "I cannot" and texts["truncated"] == '{"story": "half'
    assert all(row["noun"] and row["request_id"] and row["detail"] for row in dropped)


def test_equal_asks_get_a_story_each(tmp_path):
    for name in ("verbs", "nouns", "adjectives"):
        (tmp_path / f"{name}.txt").write_text("one\n")
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("verbs", "nouns", "adjectives")}
    plan = prompts.PromptPlan(count=5, features=0.0, **lists)
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        rows = build(config_for(teacher).model_copy(update={"plan": plan})).table().to_pylist()
    assert len({row["story_id"] for row in rows}) == len({row["text"] for row in rows}) == 5


def test_no_story_at_all_is_one_clear_error():
    with (
        FakeTeacher(lambda request, times: completion("no")) as teacher,
        pytest.raises(UserError, match="no story for 20"),
    ):
        build(config_for(teacher))


# ---- a plan, and several stories a request


def listed(request: dict, wrong: Sequence[int] = ()) -> Answer:
    """A story for each that is asked for; those at the places in `wrong` have no summary to use."""
    asked = [line for line in request["messages"][-1]["content"].splitlines() if line.startswith("Story ")]
    if not asked:
        return told(request)
    stories = [
        {"story": f"{line} {request['seed']}", "summary": "no" if n in wrong else "a story about Tim"}
        for n, line in enumerate(asked)
    ]
    return completion(json.dumps({"stories": stories}))


def several(teacher: FakeTeacher, count: int, **more) -> GenerateConfig:
    plan = prompts.PromptPlan(count=count, stories_per_request=4, design="mixed")
    return config_for(teacher, **more).model_copy(update={"plan": plan})


def test_a_request_for_several_stories_gives_each_ask_its_own():
    with FakeTeacher(lambda request, times: listed(request)) as teacher:
        made = build(several(teacher, 18))
    assert [request["max_tokens"] for request in teacher.requests] == [4 * 600] * 5
    rows, plan = made.table().to_pylist(), made.table(table="plan").to_pylist()
    assert made.manifest["counts"] == {"rows_in": 20, "rows_out": 20}  # whole requests
    assert [part.rows for part in made.parts()] == [part.rows for part in made.parts("plan")] == [8, 8, 4]
    assert [row["story_id"] for row in rows] == [ask["story_id"] for ask in plan]
    assert [ask["story_no"] for ask in plan] == [1, 2, 3, 4] * 5
    assert [ask["ask_no"] for ask in plan] == list(range(20))
    for row, ask in zip(rows, plan, strict=True):
        assert row["story_id"] == f"{row['request_id']}.{ask['story_no']}"
        assert (ask["noun"] or ask["topic"]) in row["text"]
        assert (row["verb"], row["features"]) == (ask["verb"], ask["features"])
    assert [row["noun"] is None for row in rows] == [False, True] * 10


def test_a_story_that_is_refused_leaves_the_others_under_the_asks_they_answer():
    def answer(request, times):
        nouns = re.findall(r'the noun "(\w+)"', request["messages"][-1]["content"])
        stories = [{"story": f"The {noun} sat.", "summary": f"a story about a {noun}"} for noun in nouns]
        return completion(json.dumps({"stories": [stories[0], {"error": "I cannot."}, *stories[2:]]}))

    plan = prompts.PromptPlan(count=8, stories_per_request=4)
    with FakeTeacher(answer) as teacher:
        made = build(config_for(teacher, reasks=0).model_copy(update={"plan": plan}))
    rows, dropped = made.table().to_pylist(), made.table(table="_dropped").to_pylist()
    assert [row["story_id"][-1] for row in rows] == ["1", "3", "4"] * 2
    assert all(row["text"] == f"The {row['noun']} sat." for row in rows)
    assert [(row["story_id"][-1], row["reason"]) for row in dropped] == [("2", "missing")] * 2


def test_the_costs_of_the_stories_add_up_to_those_of_their_requests():
    with FakeTeacher(lambda request, times: listed(request)) as teacher:
        build(several(teacher, 18, price_in=1.0, price_out=2.0))
    con = store.connect()
    stories = con.execute("select count(*), sum(cost_microdollars) from lineage").fetchone()
    paid = con.execute("select 20, sum(cost_microdollars) from requests").fetchone()
    assert stories == pytest.approx(paid) and paid[1] == 5 * 200


def test_growing_a_plan_asks_only_for_what_is_new_with_several_stories_a_request():
    with FakeTeacher(lambda request, times: listed(request)) as teacher:
        small, same, grown = (build(several(teacher, count)) for count in (18, 19, 26))
        assert same == small and len(teacher.requests) == 5 + 2
    asked = [ask for request in teacher.requests for ask in request["messages"][-1]["content"].splitlines()[2:6]]
    assert len(asked) == len(set(asked)) == 28  # no ask is bought twice
    assert grown.table().to_pylist()[:20] == small.table().to_pylist()
    assert [part.sha256 for part in grown.parts()][:2] == [part.sha256 for part in small.parts()][:2]


def test_a_partly_bad_answer_is_asked_for_again_and_every_place_takes_its_first_good_story(data_root):
    def answer(request, times):
        number = calls.setdefault(request["messages"][-1]["content"], [])
        number.append(0)
        return listed(request, {1: (1, 3), 2: (0, 3)}.get(len(number), ()) if number is first() else (2,))

    calls: dict[str, list[int]] = {}

    def first() -> list[int]:
        return next(iter(calls.values()))

    with FakeTeacher(answer) as teacher:
        made = build(several(teacher, 8, concurrency=1, reasks=1))
    dropped = made.table(table="_dropped").to_pylist()
    assert made.manifest["counts"] == {"rows_in": 8, "rows_out": 6} and made.manifest["drops"] == {"bad_summary": 2}
    assert [(row["story_id"][-1], row["reason"]) for row in dropped] == [("4", "bad_summary"), ("3", "bad_summary")]
    seeds = [row["text"].rpartition(" ")[2] for row in made.table().to_pylist()]
    assert len(teacher.requests) == 4 and seeds[0] == seeds[2] != seeds[1]
    raw = store.connect().execute("select story_id, reason, raw from quarantine order by story_id").fetchall()
    assert sorted((row["story_id"], row["reason"], row["text"]) for row in dropped) == raw
    assert all(json.loads(each[2])["stories"] for each in raw)


def test_the_plan_and_its_coverage_are_queryable_and_agree_with_the_manifest():
    with FakeTeacher(lambda request, times: listed(request, (3,))) as teacher:
        made = build(several(teacher, 120, reasks=0))
    con = store.connect()
    outcomes = con.execute("select outcome, count(*) from plan group by 1 order by 1").fetchall()
    assert outcomes == [("bad_summary", 30), ("story", 90)]
    facts = made.facts["plan_coverage"]
    found = con.execute(
        "select axis, count(*), avg(within_20_percent::int), max_by(ratio, abs(ratio - 1)), sum(share), sum(uses) "
        "from plan_coverage group by axis"
    ).fetchall()
    assert {axis for axis, *_ in found} == set(facts) == set(prompts.AXES)
    for axis, num, fair, worst, share, uses in found:
        told = facts[axis]
        assert (num, share) == (told["words"], pytest.approx(1))
        assert fair == pytest.approx(told["within_20_percent"], abs=1e-4)
        assert abs(worst - 1) == pytest.approx(abs(told["worst_ratio"] - 1), abs=1e-3)
        assert axis == "feature" or uses == 60
    assert con.execute("select count(*) from plan_coverage where uses = 0 and axis = 'noun'").fetchone() == (418 - 60,)


# ---- never twice


def test_what_was_answered_is_never_asked_again_across_configs():
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        small = build(config_for(teacher, count=12))
        grown = build(config_for(teacher, count=20, part_rows=4, deadline=9.0))
        assert asking(grown)["answered_before"] == 12
        assert len(teacher.requests) == 20
        store.delete(grown.stage, grown.name)
        assert build(config_for(teacher, count=20, part_rows=4)).fingerprint == grown.fingerprint
    assert set(teacher.calls.values()) == {1}
    assert grown.table().to_pylist()[:12] == small.table().to_pylist()


def test_another_temperature_is_another_request():
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        first, second = config_for(teacher), config_for(teacher, temperature=0.5)
    assert not {r.request_id for r in Planned(first)} & {r.request_id for r in Planned(second)}


def test_where_the_teacher_is_and_what_it_costs_changes_no_name():
    first, second = config_for("http://a/v1"), config_for("http://b/v1", price_in=2.0, tries=9, concurrency=3)
    assert [r.request_id for r in Planned(first)] == [r.request_id for r in Planned(second)]
    assert store.request_name(generate.STAGE, first, {}) == store.request_name(generate.STAGE, second, {})


def test_a_better_rule_readmits_stories_without_asking(monkeypatch):
    with FakeTeacher(lambda request, times: completion(json.dumps({"story": "x y", "summary": "Tim!"}))) as teacher:
        with pytest.raises(UserError, match="no story"):
            build(config_for(teacher))
        sent = len(teacher.requests)
        monkeypatch.setattr(replies, "summary_of", lambda text: f"a story about {text}")
        assert build(config_for(teacher)).manifest["counts"]["rows_out"] == 20
    assert len(teacher.requests) == sent == 40


def test_a_later_rule_repairs_the_bad_stories_of_a_list_without_asking_and_leaves_the_good_ones(monkeypatch):
    with FakeTeacher(lambda request, times: listed(request, (1,))) as teacher:
        config = several(teacher, 8, reasks=0)
        made = build(config)
        assert made.manifest["drops"] == {"bad_summary": 2}
        kept = {row["story_id"]: row for row in made.table().to_pylist()}
        old_rule = replies.summary_of
        monkeypatch.setattr(replies, "summary_of", lambda text: old_rule(text) or "a story about nothing")
        store.delete(made.stage, made.name)
        again = build(config)
        assert len(teacher.requests) == 2
    assert again.manifest["counts"] == {"rows_in": 8, "rows_out": 8} and not again.manifest["drops"]
    rows = {row["story_id"]: row for row in again.table().to_pylist()}
    assert kept.items() <= rows.items()
    assert [rows[each]["summary"] for each in rows.keys() - kept.keys()] == ["a story about nothing"] * 2


def test_a_failed_run_keeps_its_answers_and_the_next_one_goes_on():
    broken = threading.Event()
    broken.set()

    def answer(request, times):
        number = len(teacher.requests)
        return failure(500) if broken.is_set() and number > 10 else told(request)

    with FakeTeacher(answer) as teacher:
        with pytest.raises(TransientError, match="run the same command again"):
            build(config_for(teacher))
        broken.clear()
        before = len(teacher.requests)
        made = build(config_for(teacher))
        assert asking(made)["answered_before"] == 10
        assert len(teacher.requests) - before == 10


CHILD = """
import sys
from lib import store
from lib.stages import generate
config = generate.GenerateConfig.model_validate_json(sys.argv[1])
print("ready", flush=True)
store.build(generate.STAGE, config, {}, generate.generate)
"""


@pytest.mark.shell
def test_after_kill_9_only_what_has_not_arrived_is_asked_again(tmp_path, monkeypatch):
    with FakeTeacher(lambda request, times: Answer(told(request).body, delay=0.02)) as teacher:
        config = config_for(teacher, count=150)
        child = subprocess.Popen([sys.executable, "-c", CHILD, config.model_dump_json()], cwd=Path.cwd())
        moment = random.SystemRandom().randrange(1, 140)
        while len(teacher.requests) < moment and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        made = build(config)
        assert sum(teacher.calls.values()) - len(teacher.calls) <= config.concurrency
        assert len(teacher.calls) == 150 and asking(made)["answered_before"] >= moment - config.concurrency
        monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "undisturbed"))
        assert build(config).fingerprint == made.fingerprint
    rows = store.connect().execute("select count(distinct request_id), count(*) from requests").fetchone()
    assert rows == (150, 150)


@pytest.mark.shell
def test_two_runs_at_once_ask_everything_once():
    with FakeTeacher(lambda request, times: Answer(told(request).body, delay=0.02)) as teacher:
        config, other = config_for(teacher, count=60), config_for(teacher, count=60, part_rows=7)
        child = subprocess.Popen([sys.executable, "-c", CHILD, other.model_dump_json()], cwd=Path.cwd())
        while not teacher.requests and child.poll() is None:
            time.sleep(0.001)
        lines = []
        store.build(generate.STAGE, config, {}, generate.generate, on_progress=lambda text, *_: lines.append(text))
        assert child.wait() == 0
    assert set(teacher.calls.values()) == {1} and len(teacher.calls) == 60
    assert f"process {child.pid} is working on the ledger in data/requests; waiting for it" in lines


# ---- the built-in storyteller


def test_the_built_in_storyteller_needs_no_key_and_a_misbehaving_one_gives_the_same_stories(monkeypatch, data_root):
    monkeypatch.delenv("OPENAI_API_KEY")
    plan = prompts.PromptPlan(count=60)
    honest = build(GenerateConfig(plan=plan))
    assert honest.manifest["counts"] == {"rows_in": 60, "rows_out": 60}
    assert set(honest.table(["source", "model"]).to_pylist()[0].values()) == {"storyteller", "storyteller-1"}
    for path in (data_root / "requests").iterdir():
        path.unlink()
    mischief = Mischief(rate_limited=0.2, server_error=0.2, retry_after=0.01)
    harried = build(GenerateConfig(plan=plan, mischief=mischief, backoff=0.01, tries=12))
    assert harried.fingerprint == honest.fingerprint
    assert set(asking(harried)["statuses"]) == {"ok", "rate_limited", "server_error"}


def test_every_kind_of_mischief_ends_with_as_many_stories_as_were_asked_for():
    mischief = Mischief(
        rate_limited=0.05, server_error=0.05, malformed=0.05, refusal=0.05, truncated=0.05, retry_after=0.01
    )
    config = GenerateConfig(plan=prompts.PromptPlan(count=80), mischief=mischief, backoff=0.01, tries=12, reasks=9)
    made = build(config)
    assert made.manifest["counts"] == {"rows_in": 80, "rows_out": 80}
    assert {"ok", "unreadable", "truncated"} < set(asking(made)["statuses"])
    con = store.connect()
    totals = con.execute("select count(*), count(distinct request_id) from requests").fetchone()
    assert totals == (asking(made)["attempts"], 80)
    assert con.execute("select count(*) from lineage where prompt like '%verb%' and attempts >= 1").fetchone() == (80,)


@pytest.mark.parametrize("structured", ["schema", "json", "text"])
def test_the_built_in_storyteller_is_understood_however_it_is_asked(structured):
    plan = prompts.PromptPlan(count=30, design="mixed", stories_per_request=4)
    made = build(GenerateConfig(plan=plan, structured=structured))
    assert made.manifest["counts"] == {"rows_in": 32, "rows_out": 32}
    by_id = {row["story_id"]: row for row in made.table().to_pylist()}
    for ask in made.table(table="plan").to_pylist():
        text = by_id[ask["story_id"]]["text"]
        assert ask["noun"] is None or ask["noun"] in text
        assert ask["first_word"] is None or text.lower().startswith(ask["first_word"])


def test_a_misbehaving_storyteller_gives_every_story_of_every_list():
    mischief = Mischief(malformed=0.1, refusal=0.1, truncated=0.1, rate_limited=0.05, retry_after=0.01)
    plan = prompts.PromptPlan(count=90, design="simplestories", stories_per_request=3)
    made = build(GenerateConfig(plan=plan, mischief=mischief, backoff=0.01, tries=12, reasks=9))
    assert made.manifest["counts"] == {"rows_in": 90, "rows_out": 90}
    assert {"ok", "unreadable", "truncated"} < set(asking(made)["statuses"])


# ---- what the user gets wrong


def test_a_missing_key_is_one_clear_error(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        with pytest.raises(UserError, match="OPENAI_API_KEY"):
            build(config_for(teacher))
        assert build(config_for(teacher), api_key=lambda: KEY + "\n").manifest["counts"]["rows_out"] == 20


def test_a_wrong_key_is_one_clear_error_without_the_key(data_root):
    answer = failure(401, "invalid_api_key", f"Incorrect API key provided: {KEY[:8]}***{KEY[-4:]}")
    with (
        FakeTeacher(lambda request, times: answer) as teacher,
        pytest.raises(UserError, match="check that the key") as caught,
    ):
        build(config_for(teacher))
    assert "sk-" not in str(caught.value)


def test_the_key_is_nowhere_below_the_data_folder(data_root):
    def answer(request, times):
        return completion(f"echo {KEY}") if "7" in str(request["seed"]) else told(request)

    with FakeTeacher(answer) as teacher:
        assert build(config_for(teacher, reasks=3)).manifest["counts"]["rows_in"] == 20
    kept = [path for path in data_root.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": "openai"},
        {"base_url": "localhost:8000"},
        {"concurrency": 0},
        {"temperature": 3},
        {"modle": "x"},
        {"teacher": "openai", "model": "m", "mischief": {"refusal": 0.1}},
        {"teacher": "openai", "model": "m", "budget": 5.0},
        {"budget": -1.0},
        {"requests_per_minute": 0},
        {"batch_requests": 60_000},
        {"transport": "pigeon"},
    ],
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(ValidationError):
        GenerateConfig(**wrong)
