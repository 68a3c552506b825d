"""An endpoint whose batches go wrong: nothing paid for is held up or bought twice, and the key stays out of it all."""

import asyncio
import json

import pytest

from lib import store
from lib.errors import TransientError, UserError
from lib.text import batch_records
from lib.text.client import Client, Failed
from tests.batch_endpoint import BatchEndpoint
from tests.economy import build, config_for
from tests.teacher import Answer, FakeTeacher, failure

KEY = "my-own-key-123456789"  # which looks like no other
FAKE = {"teacher": "openai", "model": "fake-1", "mischief": None, "transport": "batch", "batch_poll_seconds": 0.01}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def made(endpoint: BatchEndpoint, **more) -> store.Dataset:
    with FakeTeacher(endpoint) as teacher:
        return build(config_for(teacher.base_url, 5, **FAKE | {"tries": 3} | more))


def said_by(endpoint: BatchEndpoint, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        made(endpoint)
    return str(caught.value)


def statuses() -> dict[str, int]:
    return dict(store.connect().execute("select status, count(*) from requests group by all").fetchall())


def in_the_first(change):
    """Only the first batch goes wrong."""
    return lambda number, value: change(value) if number == 0 else value


# ---- one bad line


def torn(lines):
    return [lines[0][:50], *lines[1:]]


def torn_with_its_name(lines):
    return [json.dumps({"custom_id": json.loads(lines[0])["custom_id"], "response": [1]}), *lines[1:]]


def nameless(lines):
    return [json.dumps({"response": None}), *lines[1:]]


def missing(lines):
    return lines[1:]


def no_object(lines):
    return ["[1, 2]", *lines[1:]]


def bottomless(lines):
    return ['{"custom_id": ' + "[" * 100_000, *lines[1:]]


def odd_finish(lines):
    line = json.loads(lines[0])
    line["response"]["body"]["choices"][0]["finish_reason"] = ["stop"]
    return [json.dumps(line), *lines[1:]]


@pytest.mark.parametrize(
    ("spoilt", "status"),
    [
        (torn, "lost"),
        (nameless, "lost"),
        (missing, "lost"),
        (no_object, "lost"),
        (bottomless, "lost"),
        (torn_with_its_name, "malformed"),
        (odd_finish, "malformed"),
    ],
)
def test_one_bad_line_holds_up_no_other(spoilt, status):
    endpoint = BatchEndpoint(lines=in_the_first(spoilt))
    assert made(endpoint).manifest["counts"] == {"rows_in": 5, "rows_out": 5}
    assert statuses() == {"ok": 5, status: 1}
    assert [len(lines) for lines in endpoint.files] == [5, 1]  # only the one is asked again
    unknown = "select cost_microdollars, reserved_microdollars > 0 from requests where status <> 'ok'"
    assert store.connect().execute(unknown).fetchall() == [(None, True)]


def test_an_output_file_that_was_deleted_leaves_its_lines_lost_and_counted():
    endpoint = BatchEndpoint(content=in_the_first(lambda answer: failure(404)))
    assert made(endpoint).manifest["rows"] == 5
    assert statuses() == {"ok": 5, "lost": 5}


# ---- a batch that fails as a whole


def failing(code: str, message: str = "no"):
    errors = {"object": "list", "data": [{"code": code, "message": message}]}
    return lambda batch: batch | {"status": "failed", "output_file_id": None, "errors": errors}


@pytest.mark.parametrize("code", ["model_not_found", "invalid_json_line", "billing_hard_limit_reached", "odd"])
def test_a_batch_that_is_not_taken_is_handed_over_once(code):
    endpoint = BatchEndpoint(batch=lambda number, batch: failing(code)(batch))
    assert f"{code}: no" in said_by(endpoint, UserError)
    assert len(endpoint.batches) == 1 and not list(batch_records.pending(store.root()))
    assert store.connect().execute("select sum(cost_microdollars) from requests").fetchone() == (0,)


def test_a_batch_too_many_is_handed_over_again():
    assert made(BatchEndpoint(batch=in_the_first(failing("token_limit_exceeded")))).manifest["rows"] == 5
    assert statuses() == {"ok": 5, "rate_limited": 5}


def test_what_no_file_can_hold_is_booked_all_the_same():
    endpoint = BatchEndpoint(batch=in_the_first(failing("server_error", "bad \ud800 text")))
    assert made(endpoint).manifest["rows"] == 5
    errors = store.connect().execute("select distinct error from requests where error is not null").fetchall()
    assert errors == [("server_error: bad \\ud800 text",)]


def test_a_list_of_batches_without_an_end_is_an_error_not_a_wait():
    page = {"object": "list", "data": [{"id": "b", "object": "batch", "metadata": None}], "has_more": True}

    async def find(base_url: str, deadline: float) -> None:
        client = Client(base_url, KEY, deadline=deadline, connections=1)
        try:
            await client.find_batch("mine")
        finally:
            await client.close()

    for delay, deadline, problem in (
        (0.0, 30.0, "does not end within 100 pages"),
        (0.1, 0.5, "no whole reply within 0.5 s"),
    ):
        answer = Answer(json.dumps(page), delay=delay)
        with FakeTeacher(lambda request, times, given=answer: given) as teacher, pytest.raises(Failed, match=problem):
            asyncio.run(find(teacher.base_url, deadline))


# ---- the key


@pytest.mark.parametrize(
    ("endpoint", "error"),
    [
        (BatchEndpoint(upload=lambda *_: failure(400, "bad", f"wrong {KEY}")), UserError),
        (BatchEndpoint(upload=lambda *_: failure(500, "bad", f"crashed over {KEY}")), TransientError),
        (BatchEndpoint(content=lambda *_: failure(500, "bad", f"crashed over {KEY}")), TransientError),
        (BatchEndpoint(batch=lambda _, batch: failing("model_not_found", f"not for {KEY}")(batch)), UserError),
        (BatchEndpoint(batch=lambda _, batch: failing("server_error", f"not for {KEY}")(batch)), TransientError),
        (BatchEndpoint(lines=lambda _, lines: [line.replace("Tim saw", KEY) for line in lines]), None),
        (BatchEndpoint(lines=lambda _, lines: [line.replace("choices", KEY) for line in lines]), TransientError),
    ],
)
def test_the_key_is_in_no_file_and_no_error(endpoint, error, data_root):
    text = said_by(endpoint, error) if error else str(made(endpoint).manifest)
    assert KEY not in text and KEY[-8:] not in text
    kept = [path for path in data_root.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if KEY[-8:].encode() in path.read_bytes()]
