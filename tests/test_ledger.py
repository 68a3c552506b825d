"""The ledger's promises: what was appended is never lost, never doubled, and seen in one view."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from lib.errors import UserError
from lib.text import batch_records, ledger
from lib.text.budget import Price
from lib.text.ledger import reading
from lib.text.ledger.sealing import rows_of


def row(request_id: str, attempt: int = 1, status: str = "ok", raw: str = "text") -> dict:
    blank = dict.fromkeys(ledger.SCHEMA.names)
    return blank | {"request_id": request_id, "attempt": attempt, "status": status, "raw": raw, "cost_microdollars": 3}


def write(root, *rows) -> None:
    with ledger.Writer(root) as writer:
        for each in rows:
            writer.append(each)


def seen(root) -> list[tuple]:
    with duckdb.connect() as con:
        return con.execute(
            f"select request_id, attempt, raw from ({ledger.requests_sql(root)}) order by all"
        ).fetchall()


def segments(root, kind: str) -> list:
    return sorted(ledger.folder_of(root).glob(f"requests-*.{kind}"))


def test_an_empty_ledger_is_a_view_with_every_column(data_root):
    with duckdb.connect() as con:
        con.execute(f"create view requests as {ledger.requests_sql(data_root)}")
        assert [name for name, *_ in con.execute("describe requests").fetchall()] == ledger.SCHEMA.names
        assert con.execute("select count(*), sum(cost_microdollars) from requests").fetchone() == (0, None)


def test_the_view_has_the_same_types_empty_written_and_sealed(data_root):
    def types() -> list:
        with duckdb.connect() as con:
            return [line[:2] for line in con.execute(f"describe {ledger.requests_sql(data_root)}").fetchall()]

    empty = types()
    write(data_root, row("a"))
    written = types()
    ledger.seal(data_root)
    assert empty == written == types()


def test_what_utf8_cannot_hold_is_appended_and_sealed(data_root):
    write(data_root, row("a", raw="b\ud800c\x00"))
    ledger.seal(data_root)
    assert seen(data_root) == [("a", 1, "b\\ud800c\\x00")]


def test_an_appended_row_is_readable_before_the_writer_is_closed(data_root):
    with ledger.Writer(data_root) as writer:
        writer.append(row("a", raw='line\r\n "end" \u2028'))
        assert seen(data_root) == [("a", 1, 'line\r\n "end" \u2028')]


def test_sealing_keeps_every_row_and_leaves_no_jsonl(data_root):
    write(data_root, row("a"), row("b", 1, "server_error"), row("b", 2))
    before = seen(data_root)
    assert ledger.seal(data_root) == 0
    assert seen(data_root) == before
    assert not segments(data_root, "jsonl")
    assert len(segments(data_root, "parquet")) == 1


def test_a_crash_between_the_parquet_file_and_the_end_of_the_jsonl_doubles_nothing(data_root):
    write(data_root, row("a"), row("b"))
    jsonl = segments(data_root, "jsonl")[0]
    kept = jsonl.read_bytes()
    ledger.seal(data_root)
    jsonl.write_bytes(kept)  # as if the process had died before deleting it
    assert [request for request, *_ in seen(data_root)] == ["a", "b"]
    ledger.seal(data_root)
    assert [request for request, *_ in seen(data_root)] == ["a", "b"]
    assert not segments(data_root, "jsonl")
    assert ledger.load(data_root, ["a"])["a"].attempts == 1


def test_a_torn_last_line_is_counted_and_left_out(data_root):
    write(data_root, row("a"), row("b"))
    jsonl = segments(data_root, "jsonl")[0]
    jsonl.write_bytes(jsonl.read_bytes()[:-30])
    assert [request for request, *_ in seen(data_root)] == ["a"]
    assert ledger.seal(data_root) == 1
    assert list(ledger.load(data_root, ["a", "b"])) == ["a"]
    assert [request for request, *_ in seen(data_root)] == ["a"]


def test_a_damaged_sealed_segment_is_noticed(data_root):
    write(data_root, *(row(f"r{n}", raw=str(n) * 50) for n in range(200)))
    ledger.seal(data_root)
    path = segments(data_root, "parquet")[0]
    data = bytearray(path.read_bytes())
    at = pq.read_metadata(path).row_group(0).column(ledger.SCHEMA.names.index("raw")).dictionary_page_offset + 60
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="CRC"):
        ledger.load(data_root, ["r1"])


def test_load_gives_attempts_and_answers_in_order_and_only_what_is_wanted(data_root):
    write(data_root, row("b"), row("a", 1, "rate_limited"), row("a", 2, "refusal", "no"), row("a", 3, "ok", "yes"))
    write(data_root, row("a", 4, "server_error"))
    ledger.seal(data_root)
    past = ledger.load(data_root, ["a", "never-asked"])
    assert list(past) == ["a"]
    assert past["a"].attempts == 4
    assert [(answer.status, answer.raw) for answer in past["a"].answers] == [("refusal", "no"), ("ok", "yes")]


def test_a_full_disk_leaves_no_half_line(data_root, monkeypatch):
    with ledger.Writer(data_root) as writer:
        writer.append(row("a"))
        real = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            writer.append(row("b"))
        monkeypatch.undo()
        writer.append(row("c"))
    assert [json.loads(line)["request_id"] for line in segments(data_root, "jsonl")[0].read_text().splitlines()] == [
        "a",
        "c",
    ]


def test_a_failed_flush_is_raised_not_swallowed(data_root, monkeypatch):
    monkeypatch.setattr(ledger.writing, "SYNC_SECONDS", 0.01)
    writer = ledger.Writer(data_root)
    writer.append(row("a"))

    def fail(handle):
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fdatasync", fail)
    deadline = time.monotonic() + 5
    while writer._failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(OSError, match="the disk is gone"):
        writer.append(row("b"))
    monkeypatch.undo()
    with pytest.raises(OSError, match="the disk is gone"):
        writer.close()


def test_kill_9_loses_no_appended_row(data_root):
    code = (
        "import sys; from pathlib import Path; from lib.text import ledger\n"
        "writer = ledger.Writer(Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    writer.append({'request_id': f'r{n}', 'attempt': 1, 'status': 'ok', 'raw': 'x' * 900})\n"
        "    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(data_root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(300):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        last = max([299, *(int(line) for line in child.stdout if line.endswith("\n"))])
    ledger.seal(data_root)
    wanted = [f"r{n}" for n in range(last + 1)]  # what the child said it had written
    assert list(ledger.load(data_root, wanted)) == wanted


def test_only_wanted_requests_are_loaded(data_root):
    write(data_root, *(row(f"r{n}", raw="Once upon a time there was a cat.") for n in range(500)))
    ledger.seal(data_root)
    assert set(ledger.load(data_root, ["r3", "r77", "unknown"])) == {"r3", "r77"}


# ---- intents


def intent(request_id: str, attempt: int = 1, reserved: int = 70) -> dict:
    return row(request_id, attempt, ledger.IN_FLIGHT) | {"cost_microdollars": None, "reserved_microdollars": reserved}


def test_an_intent_and_its_outcome_are_one_row(data_root):
    write(data_root, intent("a"), intent("b"), row("b"), row("a"))
    assert [request for request, *_ in seen(data_root)] == ["a", "b"]
    ledger.seal(data_root)
    assert [request for request, *_ in seen(data_root)] == ["a", "b"]
    assert {past.spent for past in ledger.load(data_root, ["a", "b"]).values()} == {3}


def test_an_intent_without_an_outcome_is_in_flight_and_then_lost_and_counts_as_spent(data_root):
    def statuses() -> list[tuple]:
        with duckdb.connect() as con:
            query = f"select request_id, attempt, status from ({ledger.requests_sql(data_root)}) order by all"
            return con.execute(query).fetchall()

    write(data_root, intent("a"), row("a"), intent("a", 2), intent("b"))
    assert statuses() == [("a", 1, "ok"), ("a", 2, "sent"), ("b", 1, "sent")]
    before = ledger.load(data_root, ["a", "b"])
    ledger.seal(data_root)
    assert statuses() == [("a", 1, "ok"), ("a", 2, "lost"), ("b", 1, "lost")]
    assert ledger.load(data_root, ["a", "b"]) == before
    assert before["a"] == ledger.Past(2, [ledger.Answer("ok", "text", "")], 3 + 70)
    assert before["b"] == ledger.Past(1, [], 70)


def test_a_ledger_of_before_these_columns_is_still_read(data_root):
    new = ["transport", "reserved_microdollars", "price_in", "price_cached", "price_out", "settings"]
    write(data_root, row("a"))
    ledger.seal(data_root)
    path = segments(data_root, "parquet")[0]
    table = pq.read_table(path).drop_columns(new)
    pq.write_table(table, path)
    write(data_root, row("b") | {"transport": "live"})
    ledger.seal(data_root)
    assert ledger.load(data_root, ["a", "b"])["a"].spent == 3
    assert [request for request, *_ in seen(data_root)] == ["a", "b"]
    with duckdb.connect() as con:
        columns = [name for name, *_ in con.execute(f"describe {ledger.requests_sql(data_root)}").fetchall()]
        known = con.execute(f"select transport from ({ledger.requests_sql(data_root)}) order by request_id").fetchall()
    assert columns == ledger.SCHEMA.names and known == [(None,), ("live",)]


# ---- while another process works


def sealing_after_the_first_look(root, monkeypatch) -> None:
    """As soon as a folder has been listed once, what was written in it is sealed."""
    real, looked = Path.glob, []

    def glob(self, pattern):
        found = list(real(self, pattern))
        if not looked:
            looked.append(pattern)
            ledger.seal(root)
        return iter(found)

    monkeypatch.setattr(Path, "glob", glob)


def test_a_segment_that_is_sealed_while_it_is_looked_for_is_found(data_root, monkeypatch):
    write(data_root, row("a"))
    with monkeypatch.context() as meanwhile:
        sealing_after_the_first_look(data_root, meanwhile)
        assert ledger.load(data_root, ["a"])["a"].spent == 3
    write(data_root, row("b"))
    with monkeypatch.context() as meanwhile:
        sealing_after_the_first_look(data_root, meanwhile)
        assert seen(data_root) == [("a", 1, "text"), ("b", 1, "text")]


def test_a_segment_that_is_sealed_before_it_is_opened_is_read_sealed(data_root, monkeypatch):
    write(data_root, row("a"))

    def late(path, *more):
        ledger.seal(data_root)
        return rows_of(path, *more)

    monkeypatch.setattr(reading, "rows_of", late)
    assert ledger.load(data_root, ["a"])["a"].spent == 3


def test_a_batch_that_is_booked_while_the_plan_is_looked_at_is_no_error(data_root, monkeypatch):
    line = {"a-1": {"model": "m", "messages": []}}
    for _ in range(2):
        batch_records.prepare(data_root, batch_records.Record("t", "", Price()), line)
    found = batch_records.pending(data_root)
    first = next(found)
    for each in list(batch_records.pending(data_root)):
        if each.key != first.key:
            each.forget(data_root)
    assert list(found) == []
    assert batch_records.waiting(data_root) == {"a"}
    first.path(data_root, "jsonl").unlink()
    assert batch_records.waiting(data_root) == set()
