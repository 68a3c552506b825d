"""A finished dataset: a folder whose manifest lists every file with its size and its sha256.

    data/clean/3f2a9c81b7d04e55/part-00000.parquet    rows
    data/clean/3f2a9c81b7d04e55/_dropped/…            rows that went, each with its reason
    data/clean/3f2a9c81b7d04e55/_record/…             measured times, and what follows from the rest: hashed, but no
                                                      part of the fingerprint
    data/clean/3f2a9c81b7d04e55/_manifest.json        written last: it alone marks the folder finished

Readers take their file names from the manifest, never from a glob. Sizes are checked each time, sha256 once per file
and again whenever the file's size or time has changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from lib.store import files, identity, schemas

MANIFEST = "_manifest.json"
VERIFIED = "_verified.json"  # which files were hashed, with the size and time they had then
RECORD = "_record/"


class CorruptDataset(Exception):
    """A file is not what its manifest says. The message names the file, what was found and what was expected."""


@dataclass(frozen=True)
class Part:
    """One verified Parquet file of a dataset: the unit of row-wise work."""

    path: Path
    sha256: str
    rows: int

    def table(self, columns: list[str] | None = None) -> pa.Table:
        return pq.ParquetFile(self.path, page_checksum_verification=True).read(columns)


class Dataset(BaseModel):
    """A handle on a finished folder. Tasks pass this, never rows and never bare paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    name: str
    fingerprint: str  # of the content: equal rows have equal fingerprints, whoever made them and when

    @property
    def path(self) -> Path:
        return files.root() / self.stage / self.name

    @property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.path)

    @property
    def facts(self) -> dict[str, Any]:
        """The stage's own small results: bits per byte, vocabulary size, …"""
        return self.manifest["facts"]

    def file(self, name: str) -> Path:
        """One file, verified."""
        verify(self.path, [name])
        return self.path / name

    def parts(self, table: str = "part") -> list[Part]:
        """The files of one table in order, verified."""
        listed = self.manifest["files"]
        names = sorted(n for n in listed if n.endswith(".parquet") and schemas.table_of(n) == table)
        verify(self.path, names)
        return [Part(self.path / name, listed[name]["sha256"], listed[name]["rows"]) for name in names]

    def table(self, columns: list[str] | None = None, table: str = "part") -> pa.Table:
        """All rows of one table."""
        parts = self.parts(table)
        if not parts:
            schema = schemas.TABLES[self.stage, table]
            return (schema if columns is None else pa.schema([schema.field(c) for c in columns])).empty_table()
        return pa.concat_tables([part.table(columns) for part in parts])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, checked against its own digest."""
    path = folder / MANIFEST
    if not path.exists():
        raise CorruptDataset(f"{folder} is gone or unfinished: it has no manifest. Run the chain again to make it anew")
    try:
        manifest = json.loads(path.read_bytes())
        stated = manifest.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataset(f"{path} is not a whole manifest ({error})") from error
    if stated != identity.digest(manifest):
        raise CorruptDataset(f"{path} was changed after it was written: its digest does not fit its content")
    return manifest


def fingerprint_of(listed: dict[str, dict[str, Any]]) -> str:
    """One digest over what the files hold; times and speeds under _record/ stay out."""
    return identity.digest({n: entry["sha256"] for n, entry in listed.items() if not n.startswith(RECORD)})


def find(stage: str, name: str) -> Dataset | None:
    """The finished dataset of that name, every file verified; None if there is none.

    Raises CorruptDataset where the folder claims to be finished and is not what it claims.
    """
    folder = files.root() / stage / name
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    verify(folder, manifest["files"])
    return Dataset(stage=stage, name=name, fingerprint=fingerprint_of(manifest["files"]))


def verify(folder: Path, names: Any) -> None:
    """Check these files of a finished folder against its manifest; raise CorruptDataset naming the first bad one."""
    listed, known = read_manifest(folder)["files"], _known(folder)
    fresh = {}
    for name in names:
        if name not in listed:
            raise CorruptDataset(f"{folder / name} is not in the manifest, which lists {sorted(listed)}")
        seen = _check(folder / name, listed[name], known.get(name))
        if seen != known.get(name):
            fresh[name] = seen
    if fresh:
        files.write_json(folder / VERIFIED, known | fresh)


def _known(folder: Path) -> dict[str, list[int]]:
    """What was hashed before. A broken memo costs one more hashing, nothing else."""
    try:
        return json.loads((folder / VERIFIED).read_bytes())
    except (OSError, ValueError):
        return {}


def _check(path: Path, entry: dict[str, Any], known: list[int] | None) -> list[int]:
    """The [size, time] under which this file is good."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise CorruptDataset(f"{path} is missing; its manifest lists it with {entry['bytes']:,} bytes") from None
    if stat.st_size != entry["bytes"]:
        raise CorruptDataset(f"{path} has {stat.st_size:,} bytes; its manifest says {entry['bytes']:,}")
    seen = [stat.st_size, stat.st_mtime_ns]
    if known != seen and (found := files.sha256_of(path)) != entry["sha256"]:
        raise CorruptDataset(f"{path} has sha256 {found[:12]}…; its manifest says {entry['sha256'][:12]}…")
    return seen
