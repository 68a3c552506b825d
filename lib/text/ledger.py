"""The ledger: every attempt to get a story from a teacher, one row each, never changed and never lost.

In:   rows (dicts with the columns of SCHEMA), appended when an answer arrives
Out:  data/requests/requests-<segment>.jsonl while a run writes it, requests-<segment>.parquet once it is sealed;
      `load` finds what was answered, `requests_sql` shows both forms as one view

One line is one os.write on an O_APPEND descriptor, so kill -9 loses nothing that had arrived; fdatasync follows within
a second and at the end. A torn last line (the machine lost power) is ignored and counted. A segment is sealed by
writing its Parquet file in one step and deleting the JSONL after it; where both are there, the Parquet file counts, so
a crash between the two doubles nothing. Whoever writes holds the lock of the data folder (`store.lock`): every JSONL
that a new holder finds belongs to a dead process.
"""

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.errors import UserError

SCHEMA = pa.schema(
    {
        "request_id": pa.string(),  # hash of what was asked: model, messages, sampling parameters, copy
        "attempt": pa.int32(),  # 1 is the first
        "ended_at": pa.string(),  # UTC; a label, nothing is ordered or decided by it
        "teacher": pa.string(),
        "model": pa.string(),  # as the reply names it, else as it was asked for
        "status": pa.string(),  # ok, or what went wrong: see lib/text/client.py
        "http_status": pa.int32(),
        "latency_ms": pa.float64(),
        "tokens_in": pa.int32(),
        "tokens_out": pa.int32(),
        "tokens_cached": pa.int32(),
        "price_version": pa.string(),
        "cost_microdollars": pa.int64(),  # null where the endpoint did not say how many tokens it used
        "retry_after": pa.float64(),  # seconds
        "error": pa.string(),
        "raw": pa.string(),  # the content as it came; of a reply that is no chat completion, its first 2,000 characters
        "prompt": pa.string(),  # the user's message
    }
)
ANSWERED = ("ok", "refusal", "truncated", "filtered", "empty", "unreadable")  # the teacher's last word on that attempt
READABLE = ("ok", "unreadable")  # those whose content may hold a story
SYNC_SECONDS = 1.0
log = logging.getLogger("storymill.ledger")


@dataclass(frozen=True)
class Answer:
    """What one answered attempt said."""

    status: str
    raw: str
    model: str


@dataclass
class Past:
    """What the ledger knows of one request."""

    attempts: int  # of any outcome
    answers: list[Answer]  # in the order of their attempts


def folder_of(root: Path) -> Path:
    return root / "requests"


# ---- writing


class Writer:
    """A segment of this process's own. Use it in a `with` block, under the data folder's lock."""

    def __init__(self, root: Path) -> None:
        folder_of(root).mkdir(parents=True, exist_ok=True)
        self.path = folder_of(root) / f"requests-{time.time_ns()}-{os.getpid()}.jsonl"  # a label: only unique
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._size = 0
        self._dirty = False
        self._failure: OSError | None = None
        self._closing = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, name="ledger", daemon=True)
        self._syncing.start()

    def append(self, row: dict[str, Any]) -> None:
        """Write one attempt down. When this returns, the row survives the death of the process."""
        if self._failure:
            raise self._failure
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._handle, line)
        if written != len(line):  # the disk is full: no half line stays
            os.ftruncate(self._handle, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += written
        self._dirty = True

    def close(self) -> None:
        """Flush to the disk; the segment stays JSONL until somebody seals it."""
        self._closing.set()
        self._syncing.join()
        os.fdatasync(self._handle)
        os.close(self._handle)
        if self._failure:
            raise self._failure

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sync_now_and_then(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                try:
                    os.fdatasync(self._handle)
                except OSError as error:
                    self._failure = error  # append and close raise it
                    return


# ---- sealing


def seal(root: Path) -> int:
    """Turn every JSONL segment into Parquet. Call it under the lock. Returns how many torn lines were left out."""
    folder, torn = folder_of(root), 0
    for path in sorted(folder.glob("requests-*.jsonl")):
        target = path.with_suffix(".parquet")
        if not target.exists():
            rows, bad = _rows_of(path)
            torn += len(bad)
            if rows:
                _write_parquet(target, pa.Table.from_pylist(rows, schema=SCHEMA))
            if bad:
                log.warning("%s: left out %d torn line(s), numbers %s", path, len(bad), bad[:5])
                path.replace(path.with_name(f"_torn-{path.name}"))  # kept for whoever wants to look
                continue
        path.unlink()
    return torn


def _rows_of(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a JSONL segment, and the numbers of the lines that are none."""
    rows, bad = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)  # an object that was cut anywhere is no JSON
        except ValueError:
            row = None
        if isinstance(row, dict) and row.get("request_id"):
            rows.append(row)
        else:
            bad.append(number)
    return rows, bad


def _write_parquet(path: Path, table: pa.Table) -> None:
    """Whole or not there. (The store's own writer does not replace in one step: its folders are drafts.)"""
    draft = path.with_name(f"_{path.name}.{os.getpid()}")
    pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
    for each in (draft, draft.parent):
        if each == draft.parent:
            draft.replace(path)
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


# ---- reading


def load(root: Path, wanted: Iterable[str]) -> dict[str, Past]:
    """What is known of these requests. Call it under the lock, after `seal`."""
    ids = set(wanted)
    rows: dict[str, dict[int, Answer | None]] = {}
    for path in sorted(folder_of(root).glob("requests-*.parquet")):
        for request_id, attempt, status, raw, model in _read(path):
            if request_id in ids:
                answer = Answer(status, raw or "", model or "") if status in ANSWERED else None
                rows.setdefault(request_id, {})[attempt] = answer
    return {
        request_id: Past(max(by_attempt), [by_attempt[n] for n in sorted(by_attempt) if by_attempt[n]])
        for request_id, by_attempt in rows.items()
    }


def _read(path: Path) -> Iterator[tuple[Any, ...]]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for batch in file.iter_batches(columns=["request_id", "attempt", "status", "raw", "model"]):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}). It holds answers that were paid for: bring it back from a backup, or move "
            "it away: the requests it answered are then asked again"
        ) from error


def requests_sql(root: Path) -> str:
    """A SELECT over the whole ledger, sealed or being written; no rows, but every column, where there is none."""
    folder = folder_of(root)
    sealed = [path for path in sorted(folder.glob("requests-*.parquet")) if _whole(path)]
    written = [p for p in sorted(folder.glob("requests-*.jsonl")) if p.with_suffix(".parquet") not in sealed]
    columns = {field.name: _sql_type(field.type) for field in SCHEMA}
    names = ", ".join(f'"{name}"' for name in columns)
    blank = ", ".join(f'null::{kind} as "{name}"' for name, kind in columns.items())
    selects = [f"select {blank} where false"]
    if sealed:
        selects.append(f"select {names} from read_parquet([{', '.join(map(_quoted, sealed))}])")
    if written:
        types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        files = ", ".join(map(_quoted, written))
        selects.append(
            f"select {names} from read_json([{files}], format = 'newline_delimited', ignore_errors = true, "
            f"columns = {{{types}}}) where request_id is not null"  # a torn last line reads as nulls
        )
    return " union all ".join(selects)


def _whole(path: Path) -> bool:
    """Whether the segment can be opened; one that cannot is left out of the views, and named."""
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        log.warning("left out of the views: %s is damaged (%s)", path, error)
        return False
    return True


def _sql_type(kind: pa.DataType) -> str:
    return {pa.string(): "varchar", pa.int32(): "integer", pa.int64(): "bigint"}.get(kind, "double")


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
