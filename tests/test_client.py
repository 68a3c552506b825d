"""What the client promises against an endpoint that misbehaves: every fault has its name, and no key ever leaks."""

import asyncio
import gzip
import json
import time

import pytest

from lib.errors import UserError
from lib.text.batch_outcomes import batch_line
from lib.text.client import Client
from lib.text.outcomes import Attempt
from tests.teacher import Answer, FakeTeacher, completion, failure, told

KEY = "sk-canary-0123456789abcdef"


def ask(teacher: FakeTeacher, deadline: float = 5.0, max_bytes: int = 50_000, key: str = KEY) -> Attempt:
    """One attempt."""

    async def once() -> Attempt:
        client = Client(teacher.base_url, key, deadline=deadline, connections=2, max_bytes=max_bytes)
        try:
            return await client.ask({"model": "fake-1", "messages": [{"role": "user", "content": "cat"}], "seed": 1})
        finally:
            await client.close()

    return asyncio.run(once())


# ---- one attempt, one name


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (completion("a story"), "ok"),
        (completion("", finish="stop"), "empty"),
        (completion(None), "empty"),
        (completion(None, refusal="I cannot"), "refusal"),
        (completion("half", finish="length"), "truncated"),
        (completion("x", finish="content_filter"), "filtered"),
        (failure(400, "content_filter"), "filtered"),
        (failure(429, "rate_limit_exceeded"), "rate_limited"),
        (failure(429, "insufficient_quota"), "no_quota"),
        (failure(500), "server_error"),
        (Answer("<html>bad gateway</html>", 502), "server_error"),
        (failure(529), "server_error"),
        (failure(408), "server_error"),
        (failure(401, "invalid_api_key"), "unauthorized"),
        (failure(403), "forbidden"),
        (failure(404), "not_found"),
        (failure(400), "invalid_request"),
        (failure(422), "invalid_request"),
        (Answer("<html>hello</html>", headers={"content-type": "text/html"}), "malformed"),
        (Answer('{"choices": [{"mess'), "malformed"),
        (Answer('{"choices": []}'), "malformed"),
        (Answer('{"choices": null}'), "malformed"),
        (Answer('{"error": {"message": "overloaded"}}'), "malformed"),
        (Answer("[" * 100_00), "malformed"),
        (Answer(b'{"choices": "\xff\xfe"}'), "malformed"),
        (Answer(""), "malformed"),
        (completion(17), "malformed"),
        (Answer(gzip.compress(completion("bomb").body.encode()), headers={"content-encoding": "gzip"}), "malformed"),
        (Answer("{}", cut=True), "connection"),
        (completion("x" * 60_000), "too_large"),
        (Answer("x" * 60_000, 500), "too_large"),
        (Answer("x" * 100, drip=0.05), "timeout"),
        (Answer("x", delay=3), "timeout"),
    ],
)
def test_each_fault_has_its_name(answer, status):
    slow = answer.drip or answer.delay
    with FakeTeacher(lambda request, times: answer) as teacher:
        started = time.monotonic()
        attempt = ask(teacher, deadline=0.3 if slow else 5.0)
        assert attempt.status == status
        assert time.monotonic() - started < 2.5
    assert len(teacher.requests) == 1  # the openai client's own retries are off


def test_an_answer_brings_its_usage_and_model():
    with FakeTeacher(lambda request, times: completion("a story")) as teacher:
        attempt = ask(teacher)
    assert (attempt.tokens_in, attempt.tokens_out, attempt.tokens_cached) == (100, 50, 40)
    assert (attempt.model, attempt.content, attempt.http_status) == ("fake-1", "a story", 200)


def test_nonsense_in_the_usage_is_no_number():
    usage = {"prompt_tokens": -1, "completion_tokens": "many", "prompt_tokens_details": []}
    with FakeTeacher(lambda request, times: completion("a story", usage=usage)) as teacher:
        attempt = ask(teacher)
    assert (attempt.status, attempt.tokens_in, attempt.tokens_out, attempt.tokens_cached) == ("ok", None, None, None)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry_after": "2"}, 2.0),
        ({"retry_after": "86400"}, 86400.0),
        ({"retry_after_ms": "250", "retry_after": "9"}, 0.25),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "Fri, 31 Dec 2027 23:59:59 +99999999999999999999"}, None),  # more than a C int holds
        ({"retry_after": "Fri, 31 Dec 9999 23:59:59 -2359"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_form(header, seconds):
    with FakeTeacher(lambda request, times: failure(429, **header)) as teacher:
        assert ask(teacher).retry_after == seconds


def test_what_utf8_cannot_hold_is_spelt_out():
    with FakeTeacher(lambda request, times: completion("a\ud800b\x00c")) as teacher:
        assert ask(teacher).content == "a\\ud800b\\x00c"


# ---- the key


@pytest.mark.parametrize(
    "answer",
    [
        failure(401, "invalid_api_key", f"Incorrect API key provided: {KEY[:8]}*****{KEY[-4:]}. You can find your key"),
        failure(401, "invalid", f"{KEY[3:11]}...{KEY[-4:]} is not a key of this organization"),
        failure(400, "bad", f"header Authorization: Bearer {KEY} is too long"),
        failure(500, "bad", f"crashed while serving {KEY}"),
        completion(f"the key is {KEY}"),
        Answer(f"<html>{KEY}</html>"),
    ],
)
def test_the_key_is_in_nothing_that_is_kept(answer):
    with FakeTeacher(lambda request, times: answer) as teacher:
        text = repr(ask(teacher))
    assert KEY not in text
    assert KEY[:8] not in text and KEY[3:11] not in text
    assert KEY[-4:] not in text


@pytest.mark.parametrize("key", [KEY, "sk-canary/0123456789ABCDEF", "my-own-key-123456789"])
@pytest.mark.parametrize(("cut", "answer"), [(500, lambda text: failure(400, "bad", text)), (2000, Answer)])
def test_a_key_that_lies_across_the_place_where_a_text_is_cut_leaves_no_part_of_it(key, cut, answer):
    for inside in range(5, 80, 6):  # characters of it before the cut, if no words of ours come first
        with FakeTeacher(lambda request, times, text="." * (cut - inside) + key: answer(text)) as teacher:
            attempt = ask(teacher, key=key)
        kept = f"{attempt.error} {attempt.content}"
        assert "..." in kept
        assert not [part for part in (key[:5], key[4:9], key[-6:]) if part in kept]


def test_what_never_reached_the_endpoint_costs_nothing_for_certain():
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        pass
    assert (ask(teacher).status, ask(teacher).unbilled) == ("connection", True)
    with FakeTeacher(lambda request, times: Answer("{}", cut=True)) as teacher:
        assert (ask(teacher).status, ask(teacher).unbilled) == ("connection", False)


@pytest.mark.parametrize(
    ("line", "status", "unbilled"),
    [
        ({"response": {"status_code": 200, "body": json.loads(completion("a story").body)}}, "ok", False),
        ({"response": {"status_code": 200, "body": {}}}, "malformed", False),
        ({"response": {"status_code": 200}}, "malformed", False),
        ({"response": {"status_code": 500, "body": "<html>"}}, "server_error", True),
        ({"response": {"status_code": 429, "body": {"error": {"code": "insufficient_quota"}}}}, "no_quota", True),
        ({"response": {"status_code": 400, "body": {"error": {"message": "no"}}}}, "invalid_request", True),
        ({"response": None, "error": {"code": "batch_expired", "message": "late"}}, "expired", True),
        ({"response": None, "error": {"code": "odd"}}, "server_error", True),
        ({}, "malformed", False),
        ({"response": [1]}, "malformed", False),
        (
            {"response": {"status_code": 200, "body": {"choices": [{"finish_reason": [], "message": {}}]}}},
            "malformed",
            False,
        ),
    ],
)
def test_each_line_of_a_batch_has_its_name(line, status, unbilled):
    name, attempt = batch_line(json.dumps({"custom_id": "r-1", **line}).encode())
    assert name == "r-1"
    assert (attempt.status, attempt.unbilled) == (status, unbilled)


@pytest.mark.parametrize("key", ["", "two words", "line\nend", "clé"])
def test_an_impossible_key_is_refused_before_anything_is_sent(key):
    with FakeTeacher(lambda request, times: told(request)) as teacher, pytest.raises(UserError, match="API key"):
        ask(teacher, key=key)
    assert not teacher.requests
