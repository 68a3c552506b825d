"""Sealing: JSONL segments of processes that ended become Parquet files.

An intent and its outcome become one row. An intent without one was in flight when its process died: its row says
`lost`, and its reservation counts as spent. A torn last line (the machine lost power) is ignored and counted.
"""

import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.text.ledger.rows import IN_FLIGHT, LOST, SCHEMA, folder_of

NO_OUTCOME = "the process ended while this was in flight; it may have been answered and billed"
GROUP_ROWS = 8192  # of a row group, which is what sealing and loading hold in memory: some 30 MB
log = logging.getLogger("storymill.ledger")


def seal(root: Path) -> int:
    """Turn every JSONL segment into Parquet. Call it under the lock. Returns how many torn lines were left out."""
    folder, torn = folder_of(root), 0
    for path in sorted(folder.glob("requests-*.jsonl")):
        target = path.with_suffix(".parquet")
        if not target.exists():
            bad: list[int] = []
            _write_parquet(target, rows_of(path, bad))
            torn += len(bad)
            if bad:
                log.warning("%s: left out %d torn line(s), numbers %s", path, len(bad), bad[:5])
                path.replace(path.with_name(f"_torn-{path.name}"))  # kept for whoever wants to look
                continue
        path.unlink()
    return torn


def rows_of(path: Path, bad: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """One row per attempt of a JSONL segment that nobody writes any more. Lines that are no row go to `bad` by number.

    Rows come in the order in which they ended; the lost ones last. Only what is in flight is held in memory.
    """
    intents: dict[tuple[str, int], dict[str, Any]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)  # an object that was cut anywhere is no JSON
            except ValueError:
                row = None
            if not isinstance(row, dict) or not row.get("request_id"):
                if bad is not None:
                    bad.append(number)
            elif row["status"] == IN_FLIGHT:
                intents[row["request_id"], row["attempt"]] = row
            else:
                intents.pop((row["request_id"], row.get("attempt")), None)
                yield row
    yield from (row | {"status": LOST, "error": NO_OUTCOME} for row in intents.values())


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Whole or not there, and not there without a row. (The store's own writer does not replace in one step.)"""
    draft = path.with_name(f"_{path.name}.{os.getpid()}")
    some = list(islice(rows, GROUP_ROWS))
    if not some:
        return
    with pq.ParquetWriter(draft, SCHEMA, compression="zstd", write_page_checksum=True) as out:
        while some:
            out.write_table(pa.Table.from_pylist(some, schema=SCHEMA))
            some = list(islice(rows, GROUP_ROWS))
    for each in (draft, draft.parent):
        if each == draft.parent:
            draft.replace(path)
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
