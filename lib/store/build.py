"""Get a dataset: the one that is there, or a new one, published in one step.

    write into _draft-<name>/  →  manifest (last)  →  rename to <name>/  →  fsync the parent

A reader never sees half a dataset: a folder without a manifest is nobody's. Deleting goes the other way, manifest
first. One writer a name, by flock: the kernel frees it when the holder dies, however it dies.
"""

import errno
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.store import files, schemas
from lib.store.dataset import MANIFEST, CorruptDataset, Dataset, find, fingerprint_of
from lib.store.draft import RESUME, Draft, Progress
from lib.store.identity import Config, Stage, digest, name_of
from lib.store.locks import lock

LIBRARIES = ("pyarrow", "duckdb", "numpy", "sentencepiece", "torch", "openai", "storymill")
log = logging.getLogger("storymill.store")


def build(
    stage: Stage,
    config: Config,
    inputs: Mapping[str, Dataset],
    fill: Callable[..., None],
    *,
    external: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> Dataset:
    """The dataset this request names. Where it is not there yet, `fill(draft, config, **inputs)` writes it.

    `external` holds content digests of what lies outside the store (the user's own files).
    """
    name = request_name(stage, config, inputs, external)
    try:
        with lock(f"{stage.name}-{name}", f"{stage.name}/{name}", on_progress):
            if found := find_or_discard(stage.name, name):
                return found
            started = time.monotonic()
            draft = Draft(stage, name, config, on_progress)
            fill(draft, config, **inputs)
            manifest = _manifest(draft, inputs, external, round(time.monotonic() - started, 2))
            return _publish(draft, name, manifest)
    except Exception as error:
        raise_if_full(error, f"{stage.name}/{name}")
        raise


def request_name(
    stage: Stage, config: Config, inputs: Mapping[str, Dataset], external: Mapping[str, str] | None = None
) -> str:
    return name_of(stage, config, {key: each.fingerprint for key, each in inputs.items()} | dict(external or {}))


def find_or_discard(stage: str, name: str) -> Dataset | None:
    """The finished dataset, marked as used just now. A damaged one is named, unpublished, and made again."""
    try:
        found = find(stage, name)
    except CorruptDataset as damage:
        log.warning("damaged: %s. It will be rebuilt.", damage)
        delete(stage, name)
        return None
    if found:
        mark_used(found)
    return found


def mark_used(dataset: Dataset) -> None:
    """The views show what was used last."""
    os.utime(dataset.path / MANIFEST)


def delete(stage: str, name: str) -> None:
    """Unpublish, then delete: the manifest goes first, so no reader meets a half-deleted dataset."""
    folder = files.root() / stage / name
    (folder / MANIFEST).unlink(missing_ok=True)
    files.fsync(folder)
    shutil.rmtree(folder)


def _publish(draft: Draft, name: str, manifest: dict[str, Any]) -> Dataset:
    draft.tidy()
    files.write_json(draft.path / MANIFEST, manifest | {"digest": digest(manifest)})
    folder = draft.path.with_name(name)
    if folder.exists():  # a folder with no manifest is nobody's
        shutil.rmtree(folder)
    draft.path.rename(folder)
    files.fsync(folder.parent)
    shutil.rmtree(folder / RESUME, ignore_errors=True)  # only now: killed before this, the next run still has it
    return Dataset(stage=draft.stage.name, name=name, fingerprint=fingerprint_of(manifest["files"]))


def _manifest(
    draft: Draft, inputs: Mapping[str, Dataset], external: Mapping[str, str] | None, seconds: float
) -> dict[str, Any]:
    counts, drops = dict(draft.counts), dict(draft.drops)
    if "rows_in" in counts:
        rows_out, dropped = counts.get("rows_out", 0), sum(drops.values())
        assert counts["rows_in"] == rows_out + dropped, f"{draft.stage.name}: {counts} and {drops} do not close"
    return {
        "stage": draft.stage.name,
        "version": draft.stage.version,
        "config": draft.config.model_dump(mode="json"),
        "identity": draft.config.identity(),
        "variant": str(getattr(draft.config, "layout", "")),  # a chain holds tokens in two layouts
        "inputs": {key: each.model_dump() for key, each in inputs.items()},
        "external": dict(external or {}),
        "files": draft.files,
        "rows": _rows(draft.files),
        "bytes": sum(entry["bytes"] for entry in draft.files.values()),
        "counts": counts,
        "drops": drops,
        "facts": draft.facts,
        "seconds": seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "versions": _versions(),
    }


def _rows(listed: Mapping[str, dict[str, Any]]) -> int:
    """The rows of the parts, or of every table where there are none; what stands under _dropped/ never counts."""
    tables = {name: entry["rows"] for name, entry in listed.items() if "rows" in entry and not name.startswith("_")}
    parts = [rows for name, rows in tables.items() if schemas.table_of(name) == "part"]
    return sum(parts or tables.values())


@cache
def _commit() -> str | None:
    """The git commit of this code, if it runs from a checkout."""
    here = Path(__file__).parent
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None  # no git on this machine
    return run.stdout.strip() or None


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


# ---- a full disk


def raise_if_full(error: Exception, what: str) -> None:
    """Turn whatever a library raised on a full disk into one clear error."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        place = files.root() if files.root().exists() else files.root().parent
        free = shutil.disk_usage(place).free
        raise UserError(
            f"the disk is full: {free:,} bytes are free under {files.root()} while writing {what}. "
            "Free some space and run the same command again; everything finished so far is kept."
        ) from error
