"""The promise of windows: a plan of any size is asked and written as if it were held whole, and is not held whole."""

import gc
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lib import store
from lib.errors import Stopped, TransientError
from lib.stages import generate
from lib.stages.generate import GenerateConfig, Planned
from lib.text import batch_records, batches, ledger, prompts, standing, tally
from lib.text.extras import Extra
from lib.text.ledger import sealing
from lib.text.storyteller import running
from lib.text.teacher import Request
from tests.economy import SPENT, stats
from tests.economy import config_for as paid
from tests.economy import ledger as asked_ledger
from tests.teacher import Answer, FakeTeacher, completion, failure, told

pytestmark = pytest.mark.shell  # teachers and runs in processes of their own

SMALL = 7


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setattr(standing, "WINDOW", SMALL)


def config_for(teacher: FakeTeacher, count: int = 60, **more) -> GenerateConfig:
    plan = more.pop("plan", {})
    given = {"part_rows": 4, "reasks": 1, "backoff": 0.01, "tries": 4, "concurrency": 8} | more
    planned = prompts.PromptPlan(count=count, **plan)
    return GenerateConfig(teacher="openai", model="fake-1", base_url=teacher.base_url, plan=planned, **given)


def build(config: GenerateConfig) -> store.Dataset:
    return store.build(generate.STAGE, config, {}, generate.generate)


def record(dataset: store.Dataset) -> dict:
    return json.loads(dataset.file("_record/asking.json").read_text())


def listed(request: dict, times: int) -> Answer:
    """A story for each that is asked for; of some requests none at the first try."""
    prompt = request["messages"][-1]["content"]
    if times == 0 and len(prompt) % 5 == 0:
        return completion("no story here")
    lines = [line for line in prompt.splitlines() if line.startswith("Story ")]
    if not lines:
        return told(request)
    return completion(json.dumps({"stories": [{"story": each, "summary": "a story about Tim"} for each in lines]}))


PLANS = {
    "one story a request": {},
    "lists of both designs": {"stories_per_request": 3, "design": "mixed"},
    "extras in between": {"stories_per_request": 4, "extra": (Extra(count=9, after=22, about="trolls"),)},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_windows_of_any_size_give_the_same_dataset(plan, tmp_path, monkeypatch):
    made = []
    for number, window in enumerate((10_000, SMALL, 1)):
        monkeypatch.setattr(standing, "WINDOW", window)
        monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / str(number)))
        with FakeTeacher(listed) as teacher:
            made.append(build(config_for(teacher, plan=plan)))
    assert len({each.fingerprint for each in made}) == 1
    assert len({json.dumps(record(each)["statuses"]) for each in made}) == 1
    assert len(made[0].parts()) == len(made[0].parts("plan")) > 4


def test_equal_asks_in_different_windows_keep_their_own_names(tmp_path, monkeypatch):
    monkeypatch.setattr(tally, "RECENT", 5)
    for name in ("verbs", "nouns", "adjectives"):
        (tmp_path / f"{name}.txt").write_text("one\n")
    lists = {name: str(tmp_path / f"{name}.txt") for name in ("verbs", "nouns", "adjectives")}
    config = GenerateConfig(plan=prompts.PromptPlan(count=40, features=0.0, **lists))
    ids = [each.request_id for each in Planned(config)]
    assert len(set(ids)) == 40
    monkeypatch.setattr(standing, "WINDOW", 10_000)
    monkeypatch.setattr(tally, "RECENT", 10_000)
    assert [each.request_id for each in Planned(config)] == ids
    assert [each.request_id for each in Planned(config)[25:30]] == ids[25:30]  # the names before count, seen or not


def test_a_tally_counts_like_a_counter(monkeypatch):
    monkeypatch.setattr(tally, "RECENT", 50)
    dice, counter, counted = random.Random(0), Counter(), tally.Tally()
    for _ in range(5000):
        number = dice.choice([dice.randrange(300), 2**64 - 1 - dice.randrange(300)])
        assert counted.add(number) == counter[number]
        counter[number] += 1


def test_no_more_than_a_few_windows_of_requests_are_alive_at_once():
    alive = []

    def answer(request, times):
        if len(teacher.requests) % 10 == 0:
            alive.append(sum(type(each) is Request for each in gc.get_objects()))
        return told(request)

    gc.collect()
    with FakeTeacher(answer) as teacher:
        config = config_for(teacher, 300)
        build(config)
    assert len(alive) >= 25 and 0 < max(alive) <= 3 * SMALL + config.concurrency


def test_a_run_that_failed_in_a_later_window_goes_on_there():
    def answer(request, times):
        return failure(500) if broken and len(teacher.requests) > 3 * SMALL else told(request)

    broken = True
    with FakeTeacher(answer) as teacher:
        with pytest.raises(TransientError):
            build(config_for(teacher))
        broken, before = False, len(teacher.requests)
        made = build(config_for(teacher))
        again = record(made)
        assert (again["asks"], again["answered_before"], again["asked_now"]) == (60, 3 * SMALL, 60 - 3 * SMALL)
        assert len(teacher.requests) - before == 60 - 3 * SMALL
    attempts = store.connect().execute("select count(*), count(distinct request_id) from requests").fetchone()
    assert attempts[1] == 60 and attempts[0] == sum(teacher.calls.values())


CHILD = """
import sys
from lib import store
from lib.stages import generate
from lib.text import standing
standing.WINDOW = int(sys.argv[2])
config = generate.GenerateConfig.model_validate_json(sys.argv[1])
store.build(generate.STAGE, config, {}, generate.generate)
"""


@pytest.mark.parametrize("moment", [5, 33, 58])
def test_after_kill_9_in_any_window_the_same_dataset_comes_out(moment, tmp_path, monkeypatch):
    def answer(request, times):
        if len(teacher.requests) == moment:
            child.send_signal(signal.SIGKILL)
        return Answer(told(request).body, delay=0.01)

    with FakeTeacher(answer) as teacher:
        config = config_for(teacher)
        command = [sys.executable, "-c", CHILD, config.model_dump_json(), str(SMALL)]
        child = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
        assert child.wait() == -signal.SIGKILL
        made = build(config)
        assert sum(teacher.calls.values()) - 60 <= config.concurrency and len(teacher.calls) == 60
        monkeypatch.setenv("STORYMILL_DATA", str(tmp_path / "undisturbed"))
        assert build(config).fingerprint == made.fingerprint


def test_a_budget_that_ends_in_a_later_window_names_the_whole_prefix_and_counts_all_that_was_spent():
    with running() as base_url:
        with pytest.raises(Stopped, match=r"\d+ of 200 requests are answered, \$0\.00\d+ of \$0\.010000") as stop:
            build(paid(base_url, 200, budget=0.01))
        spent, before = asked_ledger(SPENT)[0], stats(base_url)["requests"]
        leading = int(str(stop.value).rpartition("--generate.plan.count to ")[2].split()[0])
        ids = [each.request_id for each in Planned(paid(base_url, 200))]
        done = {
            row[0] for row in store.connect().execute("select request_id from requests where status = 'ok'").fetchall()
        }
        assert leading == next(number for number, each in enumerate(ids) if each not in done) > 2 * SMALL
        with pytest.raises(Stopped, match=f"lower --generate.plan.count to {leading} "):
            build(paid(base_url, 200, budget=0.01))  # what was spent on every window counts before anything is sent
        assert (stats(base_url)["requests"], asked_ledger(SPENT)[0]) == (before, spent)
        assert build(paid(base_url, leading, budget=0.01)).manifest["rows"] == leading
        assert stats(base_url)["requests"] == before
        assert build(paid(base_url, 200, budget=1.0)).manifest["rows"] == 200
        assert stats(base_url)["answered_again"] == 0


def test_batches_are_filled_from_several_windows_and_only_so_many_fly_at_once(monkeypatch):
    monkeypatch.setattr(batches, "MOST_FLYING", 40)
    prepare, flying = batch_records.prepare, []

    def seen(root: Path, record: batch_records.Record, payloads: dict) -> bytes:
        lines = prepare(root, record, payloads)
        flying.append((len(payloads), sum(len(each.lines(root)) for each in batch_records.pending(root))))
        return lines

    monkeypatch.setattr(batches, "prepare", seen)
    with running() as base_url:
        config = paid(base_url, 130, transport="batch", batch_requests=20, batch_poll_seconds=0.02)
        assert build(config).manifest["rows"] == 130
        assert stats(base_url)["answered_again"] == 0
    assert [lines for lines, _ in flying] == [20] * 6 + [10]
    assert max(inside for _, inside in flying) == 40


# ---- the ledger beneath


def rows(count: int) -> Sequence[dict]:
    return [
        {"request_id": f"r{n}", "attempt": 1, "status": "ok", "raw": f"{n} " * 40, "model": "m"} for n in range(count)
    ]


def test_sealing_keeps_intents_with_outcomes_however_far_apart_in_small_row_groups(data_root, monkeypatch):
    monkeypatch.setattr(sealing, "GROUP_ROWS", 4)
    with ledger.Writer(data_root) as writer:
        for row in rows(30):
            writer.append(row | {"status": "sent", "raw": None})
        for row in rows(29):
            writer.append(row)
    ledger.seal(data_root)
    (path,) = (data_root / "requests").glob("requests-*.parquet")
    assert pq.read_metadata(path).num_row_groups == 8
    assert pq.read_table(path, columns=["status"])["status"].to_pylist() == ["ok"] * 29 + ["lost"]


def test_answers_of_other_windows_are_not_read(data_root, monkeypatch):
    monkeypatch.setattr(sealing, "GROUP_ROWS", 10)
    with ledger.Writer(data_root) as writer:
        for row in rows(40):
            writer.append(row)
    ledger.seal(data_root)
    (path,) = (data_root / "requests").glob("requests-*.parquet")
    data, column = bytearray(path.read_bytes()), ledger.SCHEMA.names.index("raw")
    data[pq.read_metadata(path).row_group(2).column(column).dictionary_page_offset + 60] ^= 1
    path.write_bytes(data)
    wanted = [f"r{n}" for n in (3, 19, 30)]
    past = ledger.load(data_root, wanted)
    assert {each: past[each].answers[0].raw.split()[0] for each in wanted} == {"r3": "3", "r19": "19", "r30": "30"}
