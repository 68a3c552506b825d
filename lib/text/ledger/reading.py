"""Reading the ledger: what is known of a request, and the whole as a SQL view.

Both read sealed segments and those that are being written, so a command that only looks needs no lock.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lib.errors import UserError
from lib.text.ledger.rows import ANSWERED, IN_FLIGHT, SCHEMA, folder_of, spent
from lib.text.ledger.sealing import GROUP_ROWS, rows_of

READ = ["request_id", "attempt", "status", "raw", "model", "cost_microdollars", "reserved_microdollars"]
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

    attempts: int = 0  # the highest number given to one
    answers: list[Answer] = field(default_factory=list)  # in the order of their attempts
    spent: int = 0  # micro-dollars


# ---- of some requests


def load(root: Path, wanted: Iterable[str], *, sealed: bool = False) -> dict[str, Past]:
    """What is known of these requests; with `sealed`, leaving out what a run is writing now.

    Cheap however much the ledger holds of others: of a segment only the ids are read (24 bytes a row, while it is
    looked through), and the other columns only where the ids are wanted.
    """
    answers: dict[str, dict[int, Answer]] = {}
    past: dict[str, Past] = {}
    for row in _rows(root, set(wanted), sealed):
        request_id = row["request_id"]
        known = past.setdefault(request_id, Past())
        known.attempts = max(known.attempts, row["attempt"])
        known.spent += spent(row)
        if row["status"] in ANSWERED:
            answer = Answer(row["status"], row["raw"] or "", row["model"] or "")
            answers.setdefault(request_id, {})[row["attempt"]] = answer
    for request_id, by_attempt in answers.items():
        past[request_id].answers = [by_attempt[number] for number in sorted(by_attempt)]
    return past


def _rows(root: Path, ids: set[str], only_sealed: bool) -> Iterator[dict[str, Any]]:
    """Every attempt of these requests, with the columns of READ at least."""
    if not ids:
        return
    sealed, written = _segments(root)
    wanted, blank = pa.array(ids, pa.string()), dict.fromkeys(READ)
    for path in sealed:
        yield from _read(path, wanted)
    for path in [] if only_sealed else [each for each in written if each.with_suffix(".parquet") not in sealed]:
        try:
            yield from (blank | row for row in rows_of(path) if row["request_id"] in ids)
        except FileNotFoundError:  # nothing of it was read yet: it was sealed since it was listed, or held nothing
            if path.with_suffix(".parquet").exists():
                yield from _read(path.with_suffix(".parquet"), wanted)


def _segments(root: Path) -> tuple[list[Path], list[Path]]:
    """The sealed ones, and those that are or were written as JSONL.

    The latter are listed first, so that one that is sealed meanwhile is in both lists, where the other order misses it.
    """
    written, sealed = (sorted(folder_of(root).glob(f"requests-*.{kind}")) for kind in ("jsonl", "parquet"))
    return sealed, written


def _read(path: Path, wanted: pa.Array) -> Iterator[dict[str, Any]]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        there = [name for name in READ if name in file.schema_arrow.names]  # a ledger of before has fewer columns
        ours = pc.is_in(file.read(columns=["request_id"])["request_id"], value_set=wanted)
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if pc.any(ours.slice(start, rows)).as_py():
                for batch in file.iter_batches(GROUP_ROWS, row_groups=[group], columns=there):
                    mask = ours.slice(start, batch.num_rows).combine_chunks()
                    yield from batch.filter(mask).to_pylist()
                    start += batch.num_rows
            else:
                start += rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}). It holds answers that were paid for: bring it back from a backup, or move "
            "it away: the requests it answered are then asked again"
        ) from error


# ---- as a view


def requests_sql(root: Path) -> str:
    """A SELECT over the whole ledger, sealed or being written; no rows, but every column, where there is none."""
    sealed, written = _segments(root)
    sealed = [path for path in sealed if _whole(path)]
    written = [path for path in written if path.with_suffix(".parquet") not in sealed]
    columns = {field.name: _sql_type(field.type) for field in SCHEMA}
    blank = ", ".join(f'null::{kind} as "{name}"' for name, kind in columns.items())
    selects = [f"select {blank} where false"]
    if sealed:  # by name: a ledger of before has fewer columns
        selects.append(f"select * from read_parquet([{', '.join(map(_quoted, sealed))}], union_by_name = true)")
    if written:
        types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        files = ", ".join(map(_quoted, written))
        selects.append(
            f"select * from read_json([{files}], format = 'newline_delimited', ignore_errors = true, "
            f"columns = {{{types}}}) where request_id is not null "  # a torn last line reads as nulls
            f"qualify row_number() over (partition by request_id, attempt order by status = '{IN_FLIGHT}') = 1"
        )
    return " union all by name ".join(selects)


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
