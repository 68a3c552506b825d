"""Asking's promises: retried as long as that helps, stopped at once where it cannot, everything written down."""

import asyncio
import json
import socket
import time
from dataclasses import replace

import pytest

from lib.errors import TransientError, UserError
from lib.text import ledger, replies
from lib.text.account import Account
from lib.text.asking import Asking
from lib.text.budget import Budget, Exhausted, Price
from lib.text.client import Client
from lib.text.jobs import Formats, Job, Judge, Patience
from lib.text.outcomes import Attempt
from lib.text.pace import REFUSALS_IN_A_ROW, Clock, Pace
from lib.text.teacher import Request
from tests.teacher import Answer, FakeTeacher, completion, failure, told

QUICK = Patience(concurrency=8, tries=4, backoff=0.01)
REASKS = 1


def jobs(count: int) -> list[Job]:
    return [
        Job(
            Request(
                request_id=f"r{n}",
                payload={"model": "fake-1", "messages": [{"role": "user", "content": f"cat {n}"}]},
                read=replies.fault_in,
                settled=lambda answers: replies.verdict(answers, REASKS) is not None,
            ),
            lambda answers: answers,
        )
        for n in range(count)
    ]


def see_through(
    root,
    base_url: str,
    todo: list[Job],
    patience: Patience = QUICK,
    price: Price | None = None,
    budget: int | None = None,
    pace: Pace | None = None,
    clock: Clock | None = None,
    said: list[str] | None = None,
) -> Account:
    """Ask for all of these."""

    async def all_of_them() -> Account:
        client = Client(base_url, "any-key", deadline=5.0, connections=patience.concurrency)
        with ledger.Writer(root) as writer:
            account = Account(writer, "fake", Budget(budget), {"live": price or Price()})
            formats = Formats((said if said is not None else []).append)
            judge = Judge(f"the teacher fake at {base_url}", patience, formats, lambda: "that is all")
            try:
                await Asking(client, account, judge, patience, pace or Pace(), clock).run(todo)
            finally:
                await client.close()
        return account

    return asyncio.run(all_of_them())


def rows(root) -> list[dict]:
    """Every line of the ledger, intents too, in the order in which they were written."""
    paths = sorted(ledger.folder_of(root).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def statuses(root) -> list[str]:
    return sorted(row["status"] for row in rows(root) if row["status"] != ledger.IN_FLIGHT)


def test_what_can_go_away_is_tried_again(data_root):
    faults = [failure(500), failure(429, retry_after="0.02"), Answer("<html>"), None]

    def answer(request, times):
        return (faults[times - 1] if times <= 4 else None) or told(request)

    with FakeTeacher(answer) as teacher:
        todo = jobs(5)
        asking = see_through(data_root, teacher.base_url, todo)
    assert all(job.answers[-1].status == "ok" and job.attempts == 4 for job in todo)
    assert statuses(data_root) == sorted(5 * ["server_error", "rate_limited", "malformed", "ok"])
    assert asking.attempts == 20


def test_retry_after_is_waited_for_and_does_not_hold_up_the_others(data_root):
    arrived = {}

    def answer(request, times):
        name = request["messages"][0]["content"]
        arrived.setdefault(name, []).append(time.monotonic())
        return failure(429, retry_after="0.5") if name == "cat 0" and times == 1 else told(request)

    with FakeTeacher(answer) as teacher:
        see_through(data_root, teacher.base_url, jobs(6), Patience(concurrency=1, backoff=0.01))
    first, second = arrived.pop("cat 0")
    assert second - first >= 0.5
    assert all(first < times[0] < second for times in arrived.values())


def test_a_teacher_that_refuses_everybody_is_left_alone_for_as_long_as_it_says(data_root):
    opened = time.monotonic() + 0.6

    def answer(request, times):
        return told(request) if time.monotonic() >= opened else failure(429, retry_after="0.6")

    with FakeTeacher(answer) as teacher:
        see_through(data_root, teacher.base_url, jobs(200))
    assert statuses(data_root).count("ok") == 200
    assert statuses(data_root).count("rate_limited") <= REFUSALS_IN_A_ROW + 2 * QUICK.concurrency


@pytest.mark.parametrize(
    "answer", [failure(401), failure(403), failure(404), failure(400), failure(429, "insufficient_quota")]
)
def test_what_will_not_go_away_stops_everything_at_once(data_root, answer):
    with (
        FakeTeacher(lambda request, times: answer) as teacher,
        pytest.raises(UserError, match="the teacher fake at http"),
    ):
        see_through(data_root, teacher.base_url, jobs(200))
    assert len(teacher.requests) <= QUICK.concurrency


def test_answers_in_flight_are_kept_when_another_request_fails(data_root):
    def answer(request, times):
        name = request["messages"][0]["content"]
        return failure(404) if name == "cat 0" else Answer(told(request).body, delay=0.2)

    with FakeTeacher(answer) as teacher, pytest.raises(UserError):
        see_through(data_root, teacher.base_url, jobs(8))
    assert statuses(data_root) == sorted(["not_found", *7 * ["ok"]])


def test_an_unreachable_teacher_is_one_transient_error_that_says_what_to_do(data_root):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        TransientError, match=rf"127.0.0.1:{port}/v1 failed 4 times in a row .*connection.*run the same"
    ):
        see_through(data_root, f"http://127.0.0.1:{port}/v1", jobs(20))


def test_an_answer_without_a_story_is_asked_again_with_another_seed_and_then_left(data_root):
    def answer(request, times):
        name = request["messages"][0]["content"]
        return completion("no JSON") if name == "cat 0" or request["seed"] == 0 else told(request)

    with FakeTeacher(answer) as teacher:
        todo = jobs(3)
        see_through(data_root, teacher.base_url, todo, QUICK)
    assert [[answer.status for answer in job.answers] for job in todo] == [
        ["unreadable", "unreadable"],
        ["unreadable", "ok"],
        ["unreadable", "ok"],
    ]
    assert set(teacher.calls.values()) == {1}  # never the same question twice


def test_a_fault_of_ours_leaves_no_intent_without_its_outcome(data_root):
    def stumble(_content):
        raise RecursionError("too deep")

    (job,) = jobs(1)
    job.request = replace(job.request, read=stumble)
    with FakeTeacher(lambda request, times: told(request)) as teacher, pytest.raises(RecursionError):
        see_through(data_root, teacher.base_url, [job], price=Price(1.0, 1.0))
    intent, outcome = rows(data_root)
    assert (intent["status"], outcome["status"], outcome["cost_microdollars"]) == ("sent", "lost", None)
    assert outcome["reserved_microdollars"] == intent["reserved_microdollars"] > 0


def test_a_ledger_that_cannot_be_written_ends_the_run(data_root, monkeypatch):
    def full(self, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger.Writer, "append", full)
    with FakeTeacher(lambda request, times: told(request)) as teacher, pytest.raises(OSError, match="No space"):
        see_through(data_root, teacher.base_url, jobs(50))
    assert len(teacher.requests) <= QUICK.concurrency


def test_the_cost_is_exact_to_the_micro_dollar(data_root):
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        price = Price(tokens_in=0.15, tokens_out=0.6, tokens_cached=0.075, version="2026-11")
        asking = see_through(data_root, teacher.base_url, jobs(10), price=price)
    assert asking.cost_microdollars == 10 * (9 + 3 + 30)  # 60 new at 0.15, 40 cached at 0.075, 50 written at 0.6
    assert price.cost(Attempt("ok", tokens_in=1, tokens_out=0)) == 1  # rounded up: never below the bill
    assert price.cost(Attempt("timeout")) is None


# ---- pace and money


class FakeClock(Clock):
    """Time that passes only while somebody waits for it."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float, unless: asyncio.Event) -> None:
        until = self.time + seconds
        await asyncio.sleep(0)
        self.time = max(self.time, until)


def test_a_retry_after_of_a_day_is_waited_for(data_root):
    clock, opened = FakeClock(), 86_400.0

    def answer(request, times):
        return told(request) if clock.now() >= opened else failure(429, retry_after=str(opened))

    (job,) = jobs(1)
    with FakeTeacher(answer) as teacher:
        see_through(data_root, teacher.base_url, [job], clock=clock)
    assert (job.answers[-1].status, job.attempts) == ("ok", 2)
    assert opened <= clock.time < 1.1 * opened


def test_limits_per_minute_are_kept_by_the_asking(data_root):
    clock = FakeClock()
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        see_through(data_root, teacher.base_url, jobs(31), pace=Pace(requests_per_minute=60), clock=clock)
        assert clock.time == pytest.approx(30.0)
        clock.time = 0.0
        # 150 tokens are used and known of at most: 5 bytes, 600 tokens of reply, the frame
        see_through(data_root, teacher.base_url, jobs(31), pace=Pace(tokens_per_minute=60 * 150), clock=clock)
    assert clock.time == pytest.approx(30.0, rel=0.3)


def test_an_endpoint_that_takes_no_format_is_asked_with_less_of_one(data_root):
    def answer(request, times):
        kind = request.get("response_format", {}).get("type", "")
        return failure(400, "bad", f"Invalid parameter: 'response_format' {kind}") if kind else told(request)

    todo, said = jobs(30), []
    for job in todo:
        job.request.payload["response_format"] = {"type": "json_schema", "json_schema": {"name": "story"}}
    with FakeTeacher(answer) as teacher:
        see_through(data_root, teacher.base_url, todo, Patience(concurrency=1, tries=1), said=said)
        kinds = [request.get("response_format", {}).get("type", "") for request in teacher.requests]
    assert kinds == ["json_schema", "json_object", *30 * [""]]
    assert len(said) == 2 and "json_schema" in said[0] and "json_object" in said[1]
    assert all(job.answers[-1].status == "ok" and not job.failures for job in todo)


def test_a_400_about_something_else_still_stops(data_root):
    todo = jobs(5)
    for job in todo:
        job.request.payload["response_format"] = {"type": "json_schema"}
    with (
        FakeTeacher(lambda request, times: failure(400, "bad", "seed is not supported")) as teacher,
        pytest.raises(UserError, match="seed is not supported"),
    ):
        see_through(data_root, teacher.base_url, todo)


def test_what_is_on_its_way_is_in_the_ledger_before_it_is_answered(data_root):
    seen = []

    def answer(request, times):
        seen.append([(row["request_id"], row["attempt"], row["status"]) for row in rows(data_root)])
        return told(request)

    with FakeTeacher(answer) as teacher:
        see_through(data_root, teacher.base_url, jobs(2), Patience(concurrency=1), Price(tokens_in=1.0, tokens_out=2.0))
    assert seen[0] == [("r0", 1, "sent")]
    assert seen[1] == [("r0", 1, "sent"), ("r0", 1, "ok"), ("r1", 1, "sent")]
    first = rows(data_root)[0]
    assert first["reserved_microdollars"] == 5 + 2 * 16  # of the prompt "cat 0" and its frame; no limit on the reply
    assert (first["price_in"], first["price_cached"], first["price_out"]) == (1.0, 1.0, 2.0)


def test_the_budget_is_met_to_the_micro_dollar_and_never_exceeded_by_unknown_costs(data_root):
    """Every third reply is cut off: what it cost is unknown, and all that was reserved for it stays spent."""
    price = Price(tokens_in=1.0, tokens_out=1.0)

    def answer(request, times):
        cut = int(request["messages"][0]["content"].split()[1]) % 3 == 0 and times == 1
        return Answer(told(request).body, cut=True) if cut else told(request)

    todo = jobs(200)
    for job in todo:
        job.request.payload["max_tokens"] = 100
        job.request.payload["messages"][0]["content"] += " " + 100 * "x"  # so that 100 tokens are not too many for it
    with FakeTeacher(answer) as teacher, pytest.raises(Exhausted):
        see_through(data_root, teacher.base_url, todo, Patience(64, 9, 0.01), price, budget=10_000)
    ended = [row for row in rows(data_root) if row["status"] != ledger.IN_FLIGHT]
    known = sum(row["cost_microdollars"] for row in ended if row["cost_microdollars"] is not None)
    unknown = [row["reserved_microdollars"] for row in ended if row["cost_microdollars"] is None]
    assert {row["cost_microdollars"] for row in ended if row["status"] == "ok"} == {150}
    assert unknown and all(row["status"] == "connection" for row in ended if row["cost_microdollars"] is None)
    assert 10_000 - max(unknown) < known + sum(unknown) <= 10_000
