"""Sealing: JSONL segments of processes that ended become Parquet files.

An intent and its outcome become one row. An intent without one was in flight when its process died: its row says
`lost`, and its reservation counts as spent. A torn last line (the machine lost power) is ignored and counted.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.text.ledger.rows import IN_FLIGHT, LOST, SCHEMA, folder_of

NO_OUTCOME = "the process ended while this was in flight; it may have been answered and billed"
log = logging.getLogger("storymill.ledger")


def seal(root: Path) -> int:
    """Turn every JSONL segment into Parquet. Call it under the lock. Returns how many torn lines were left out."""
    folder, torn = folder_of(root), 0
    for path in sorted(folder.glob("requests-*.jsonl")):
        target = path.with_suffix(".parquet")
        if not target.exists():
            rows, bad = rows_of(path)
            torn += len(bad)
            if rows:
                _write_parquet(target, pa.Table.from_pylist(rows, schema=SCHEMA))
            if bad:
                log.warning("%s: left out %d torn line(s), numbers %s", path, len(bad), bad[:5])
                path.replace(path.with_name(f"_torn-{path.name}"))  # kept for whoever wants to look
                continue
        path.unlink()
    return torn


def rows_of(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """One row per attempt of a JSONL segment that nobody writes any more, and the numbers of the lines that are none.

    Rows come in the order in which they ended; the lost ones last.
    """
    rows, intents, bad = [], {}, []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)  # an object that was cut anywhere is no JSON
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.get("request_id"):
            bad.append(number)
        elif row["status"] == IN_FLIGHT:
            intents[row["request_id"], row["attempt"]] = row
        else:
            intents.pop((row["request_id"], row.get("attempt")), None)
            rows.append(row)
    return rows + [row | {"status": LOST, "error": NO_OUTCOME} for row in intents.values()], bad


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
