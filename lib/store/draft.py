"""A dataset while it is being written.

In:   tables and files from a stage's one function
Out:  data/<stage>/_draft-<name>/, every file fsynced and hashed; `build` turns it into a finished dataset

A killed attempt leaves its draft; the next one finds `_resume/` in it and goes on from there.
"""

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.store import files, schemas
from lib.store.dataset import MANIFEST, CorruptDataset, Dataset, read_manifest
from lib.store.identity import Config, Stage, digest
from lib.store.locks import Progress, lock

RESUME = "_resume"


@dataclass(frozen=True)
class PartResult:
    """What a stage makes of one part: files by name, and where every row went."""

    files: Mapping[str, pa.Table | np.ndarray]
    rows_in: int
    rows_out: int
    drops: Mapping[str, int] = field(default_factory=dict)


class Draft:
    """The folder a stage writes into. Nobody reads it before it is published."""

    def __init__(self, stage: Stage, name: str, config: Config, on_progress: Progress | None = None) -> None:
        self.stage, self.config = stage, config
        self.path = files.root() / stage.name / f"_draft-{name}"
        self.path.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.facts: dict[str, Any] = {}
        self._on_progress = on_progress

    # ---- files

    def write_table(self, name: str, table: pa.Table) -> None:
        """A finished Parquet file; its columns must be the ones lib/store/schemas.py lists."""
        path = self._fresh(name)
        files.write_parquet(path, schemas.fitted(self.stage.name, name, table))
        self.adopt(name)

    def write_bytes(self, name: str, data: bytes | memoryview) -> None:
        path = self._fresh(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.adopt(name)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=1, sort_keys=True) + "\n")

    def adopt(self, name: str) -> None:
        """List a file that stands in the draft already: SentencePiece's, matplotlib's, a linked part."""
        path = self.path / name
        files.fsync(path)
        entry: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
        if name.endswith(".parquet"):
            entry["rows"] = pq.read_metadata(path).num_rows
        self.files[name] = entry

    def _fresh(self, name: str) -> Path:
        """A name with no file behind it: writing through a hard link would change an older dataset."""
        path = self.path / name
        path.unlink(missing_ok=True)
        return path

    # ---- what the manifest says about them

    def count(
        self,
        rows_in: int | None = None,
        rows_out: int | None = None,
        drops: Mapping[str, int] | None = None,
        **more: int,
    ) -> None:
        """Add to the counts. Where rows_in is counted, the store asserts rows_in = rows_out + drops."""
        given = {"rows_in": rows_in, "rows_out": rows_out, **more}
        self.counts.update({what: number for what, number in given.items() if number is not None})
        self.drops.update(drops or {})

    def fact(self, **facts: Any) -> None:
        """Small results that readers want without opening a table."""
        self.facts.update(facts)

    def progress(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """One line on how it goes. Whoever listens throttles it: call it as often as is handy."""
        if self._on_progress:
            self._on_progress(text, done, total)

    # ---- row-wise work

    def each_part(
        self,
        source: Dataset,
        config: Config,
        work: Callable[[pa.Table, int], PartResult],
        salt: str | Callable[[int], str] = "",
    ) -> None:
        """Run `work(table, number)` on each part of `source`, or link what the same work made of the same part before.

        The memo's key is the stage, its version, the config, the part's sha256 and number, and `salt` for what else the
        work depends on, or the work on the part of that number. So 1 % more stories recompute the last part, and every
        older part keeps its digest. The count `rows_made` says how many rows were worked on now.
        """
        parts = source.parts()
        for number, part in enumerate(parts):
            salted = salt if isinstance(salt, str) else salt(number)
            key = digest([self.stage.version, config.identity(), part.sha256, number, salted])[:16]
            memo = self.path.parent / "_parts" / key
            made = _usable(memo)
            self.count(rows_made=0 if made else part.rows)
            made = made or self._make(memo, work(part.table(), number))
            for name, entry in made["files"].items():
                self._link(memo / name.replace("/", "."), name, entry["sha256"])
            self.count(**made["counts"], drops=made["drops"])
            self.progress(f"part {number + 1} of {len(parts)}", number + 1, len(parts))

    def _make(self, memo: Path, result: PartResult) -> dict[str, Any]:
        """Write one part's files aside, then publish them as the memo: two datasets may want the same part at once."""
        aside = memo.with_name(f"_draft-{memo.name}.{os.getpid()}.{threading.get_ident()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        listed = {}
        for name, content in result.files.items():
            path = aside / name.replace("/", ".")
            if isinstance(content, pa.Table):
                files.write_parquet(path, schemas.fitted(self.stage.name, name, content))
            else:
                path.write_bytes(np.ascontiguousarray(content).data)
                files.fsync(path)
            listed[name] = {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
        counts = {"rows_in": result.rows_in, "rows_out": result.rows_out}
        manifest = {"files": listed, "counts": counts, "drops": dict(result.drops)}
        files.write_json(aside / MANIFEST, manifest | {"digest": digest(manifest)})
        with lock(f"{self.stage.name}-parts", f"the parts of {self.stage.name}", self._on_progress):
            if theirs := _usable(memo):  # made by another run meanwhile
                shutil.rmtree(aside)
                return theirs
            shutil.rmtree(memo, ignore_errors=True)
            aside.rename(memo)
        return manifest

    def _link(self, source: Path, name: str, sha256: str) -> None:
        path = self._fresh(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)
        self.adopt(name)
        if (found := self.files[name]["sha256"]) != sha256:
            raise CorruptDataset(f"{source} has sha256 {found[:12]}…; its manifest says {sha256[:12]}…")

    # ---- before publishing

    def tidy(self) -> None:
        """Delete what this attempt did not write: a killed attempt's leftovers. What it could resume from stays."""
        for path in _files_below(self.path):
            name = path.relative_to(self.path).as_posix()
            if name not in self.files and not name.startswith(f"{RESUME}/"):
                path.unlink()
        for folder in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()


def _usable(memo: Path) -> dict[str, Any] | None:
    """A memo's manifest if its files are what it says. A damaged memo is made again."""
    try:
        manifest = read_manifest(memo)
        for name, entry in manifest["files"].items():
            path = memo / name.replace("/", ".")
            if path.stat().st_size != entry["bytes"] or files.sha256_of(path) != entry["sha256"]:
                return None
        return manifest
    except (FileNotFoundError, CorruptDataset):
        return None


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
