"""DuckDB over everything that is finished.

In:   the manifests under data/, views.sql
Out:  a connection with a view per stage, <stage>_dropped, <stage>_<table>, and the joined views of views.sql;
      data/storymill.duckdb, the same views for the plain `duckdb` program (it holds no rows)

A stage's view shows the dataset that was made or used last; a stage that has not run is an empty view, so that every
documented query runs at any time.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lib.store import files, schemas
from lib.store.dataset import MANIFEST, CorruptDataset, Dataset, fingerprint_of, read_manifest, verify

VIEWS = Path(__file__).with_name("views.sql")
CATALOGUE = "storymill.duckdb"
RAW = ("generate", "ingest", "selfinstruct")  # the stages that bring stories in
SQL_TYPES = {"string": "varchar", "int32": "integer", "int64": "bigint", "float": "float", "double": "double"}
SQL_TYPES |= {"bool": "boolean", "list<item: string>": "varchar[]", "list<element: string>": "varchar[]"}
SQL_TYPES |= {"map<string, double>": "map(varchar, double)"}
log = logging.getLogger("storymill.store")


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with every view. Nothing is copied: a query reads the Parquet files."""
    con = duckdb.connect()
    for statement in _statements():
        con.execute(statement)
    return con


def write_catalogue() -> Path:
    """(Re)write data/storymill.duckdb. It is derived: swapped in whole, never edited, safe to delete."""
    path = files.root() / CATALOGUE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"_{CATALOGUE}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with duckdb.connect() as con:
        # An older storage version, so that command-line programs of DuckDB 1.x open it too.
        con.execute(f"attach {_quoted(draft)} as catalogue (storage_version 'v1.0.0')")
        con.execute("use catalogue")
        for statement in _statements():
            con.execute(statement)
    draft.replace(path)
    return path


def newest(stage: str, variant: str = "") -> Dataset | None:
    """The finished dataset of a stage that was made or used last."""
    return next((each for each in finished(stage) if not variant or each.manifest["variant"] == variant), None)


def newest_of(stages: Sequence[str]) -> Dataset | None:
    """The finished dataset of any of these stages that was made or used last."""
    found = [each for each in map(newest, stages) if each]
    return max(found, key=lambda each: (each.path / MANIFEST).stat().st_mtime_ns, default=None)


def finished(stage: str) -> Iterator[Dataset]:
    """Every finished dataset of a stage, the last used first."""
    for folder, manifest in _finished(stage):
        yield Dataset(stage=stage, name=folder.name, fingerprint=fingerprint_of(manifest["files"]))


def _finished(stage: str = "[!_]*") -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every finished dataset, the last used first. A damaged one is left out, and said so."""
    records = files.root().glob(f"{stage}/[!_]*/{MANIFEST}")
    for path in sorted(records, key=lambda p: (p.stat().st_mtime_ns, str(p)), reverse=True):
        try:
            manifest = read_manifest(path.parent)
            verify(path.parent, manifest["files"])
        except CorruptDataset as damage:
            log.warning("left out of the views: %s. The next run rebuilds it.", damage)
            continue
        yield path.parent, manifest


def _statements() -> Iterator[str]:
    """The SQL that makes every view, in order."""
    finished = list(_finished())
    shown: dict[tuple[str, str], tuple[Path, dict[str, Any]]] = {}
    for folder, manifest in finished:
        shown.setdefault((manifest["stage"], manifest["variant"]), (folder, manifest))
    _, split = shown.get(("split", ""), (None, None))
    if split and split["inputs"].get("stories", {}).get("stage") != "novelty":
        shown.pop(("novelty", ""), None)  # an optional stage that the split shown has not come through
    for (stage, table), schema in schemas.TABLES.items():
        paths = [
            folder / name
            for (of, _), (folder, manifest) in shown.items()
            if of == stage
            for name in sorted(manifest["files"])
            if name.endswith(".parquet") and schemas.table_of(name) == table
        ]
        yield f"create view {view_name(stage, table)} as {_select(paths, schema)}"
    yield from _raw(_raw_stage(finished))
    yield f"create view manifests as {_manifests(finished, {folder for folder, _ in shown.values()})}"
    yield f"create view requests as {_requests()}"
    yield from (text for text in re.split(r";\s*\n", VIEWS.read_text()) if _has_sql(text))


def view_name(stage: str, table: str) -> str:
    """part → the stage's own name, _dropped → clean_dropped, any other → evaluate_metrics."""
    return stage if table == "part" else f"{stage}_{table.removeprefix('_')}"


def _raw_stage(finished: list[tuple[Path, dict[str, Any]]]) -> str:
    """Stories are made or read: the views follow whichever was used last."""
    return next((m["stage"] for _, m in finished if m["stage"] in RAW), "generate")


def _raw(stage: str) -> Iterator[str]:
    """What this stage brought in, and what it dropped."""
    yield f"create view raw as from {stage}"
    dropped = f"{stage}_dropped" if (stage, "_dropped") in schemas.TABLES else "generate_dropped where false"
    yield f"create view raw_dropped as select '{stage}' as stage, * from {dropped}"


def _select(paths: list[Path], schema: pa.Schema) -> str:
    """The rows of these files; a column that was added to the schema after they were written is null."""
    held = set(pq.read_schema(paths[0]).names) if paths else set()
    columns = ", ".join(  # "offset" is a keyword
        f'"{field.name}"' if field.name in held else f'null::{SQL_TYPES[str(field.type)]} as "{field.name}"'
        for field in schema
    )
    return (
        f"select {columns} from read_parquet([{', '.join(map(_quoted, paths))}])"
        if paths
        else (f"select {columns} where false")
    )


def _manifests(finished: list[tuple[Path, dict[str, Any]]], shown: set[Path]) -> str:
    """One row per finished dataset, as literal values: they are few, and an edited manifest is left out."""
    columns = "stage, name, variant, shown, rows, bytes, seconds, finished, version"
    columns += ", counts, drops, facts, config, inputs"
    empty = (
        "select '' as stage, '' as name, '' as variant, false as shown, 0::bigint as rows, 0::bigint as bytes, "
        "0::double as seconds, ''::varchar as finished, 0 as version, '{}'::json as counts, '{}'::json as drops, "
        "'{}'::json as facts, '{}'::json as config, '{}'::json as inputs where false"
    )
    rows = [
        f"({_quoted(m['stage'])}, {_quoted(folder.name)}, {_quoted(m['variant'])}, {folder in shown}, {m['rows']}, "
        f"{m['bytes']}, {m['seconds']}, {_quoted(m['finished'])}, {m['version']}, "
        + ", ".join(_quoted(json.dumps(m[key])) + "::json" for key in ("counts", "drops", "facts", "config", "inputs"))
        + ")"
        for folder, m in reversed(finished)
    ]
    return f"{empty} union all by name select * from (values {', '.join(rows)}) as m({columns})" if rows else empty


def _requests() -> str:
    from lib.text.ledger import requests_sql  # the ledger knows its own columns; the store only shows it

    return requests_sql(files.root())


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _has_sql(text: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in text.splitlines())
