"""The ledger's columns, and what its statuses mean.

A row's cost is `cost_microdollars`. Where that is null nobody knows it (a timeout, a cut connection, a killed process,
an endpoint that keeps its usage to itself), and `reserved_microdollars` counts: the most that it can have been.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    {
        "request_id": pa.string(),  # hash of what was asked: model, messages, sampling parameters, copy
        "attempt": pa.int32(),  # 1 is the first
        "ended_at": pa.string(),  # UTC; a label, nothing is ordered or decided by it
        "teacher": pa.string(),
        "model": pa.string(),  # as the reply names it, else as it was asked for
        "status": pa.string(),  # ok, or what went wrong: see lib/text/outcomes.py; sent, lost: below
        "http_status": pa.int32(),
        "latency_ms": pa.float64(),
        "tokens_in": pa.int32(),
        "tokens_out": pa.int32(),
        "tokens_cached": pa.int32(),
        "price_version": pa.string(),
        "cost_microdollars": pa.int64(),  # null where nobody knows what was used
        "retry_after": pa.float64(),  # seconds
        "error": pa.string(),
        "raw": pa.string(),  # the content as it came; of a reply that is no chat completion, its first 2,000 characters
        "prompt": pa.string(),  # the user's message
        "transport": pa.string(),  # live or batch
        "reserved_microdollars": pa.int64(),  # the most that it could cost, kept free in the budget before it went out
        "price_in": pa.float64(),  # dollars per million tokens of this attempt: half in a batch
        "price_cached": pa.float64(),
        "price_out": pa.float64(),
        "settings": pa.string(),  # hash of everything in the request but its messages and seed
    }
)
ANSWERED = ("ok", "refusal", "truncated", "filtered", "empty", "unreadable")  # the teacher's last word on that attempt
READABLE = ("ok", "unreadable")  # those whose content may hold a story
IN_FLIGHT = "sent"  # an intent: about to go out, or on its way
LOST = "lost"  # sent, and nobody knows what came of it: the process died, or a batch brought nothing back for it


def folder_of(root: Path) -> Path:
    return root / "requests"


def storable(text: str) -> str:
    """`text` with what no UTF-8 file can hold spelt out, so that the ledger can keep it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def spent(row: Mapping[str, Any]) -> int:
    """Micro-dollars that this row counts for."""
    cost = row.get("cost_microdollars")
    return (row.get("reserved_microdollars") or 0) if cost is None else cost
