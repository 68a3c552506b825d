"""Checkpoints: everything a run needs to go on, bit for bit, or nothing.

    _resume/step-00000200/weights.safetensors   trained and frozen weights
                          state.pt              optimisers and random generators; loaded with weights_only=True
                          meta.json             sha256 of all, written last by rename: it marks the checkpoint whole
    _resume/log.jsonl                           every step so far; a checkpoint hashes the bytes that were there then

A checkpoint that is not what its meta.json says is named, deleted, and the one before it is used. Two are kept.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib.store import Draft, files

WEIGHTS, STATE, META, LOG = "weights.safetensors", "state.pt", "meta.json", "log.jsonl"
KEEP = 2  # the second is there for the day the first is damaged


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint, verified."""

    step: int  # steps done
    log_bytes: int
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run. `say` is told what a person should know."""

    def __init__(self, folder: Path, *, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say

    def save(self, *, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], log: "Log") -> None:
        """Write one whole checkpoint; only then let the oldest go."""
        folder = self.folder / f"step-{step:08d}"
        _remove(folder)
        folder.mkdir(parents=True)
        save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
        memory = io.BytesIO()  # torch.save to a full disk fails with an internal error of its own
        torch.save(dict(state), memory)
        files.write_whole(folder / STATE, memory.getbuffer())
        files.fsync(folder / WEIGHTS)
        hashes = {name: files.sha256_of(folder / name) for name in (WEIGHTS, STATE)}
        log_bytes = log.flush()
        hashes[LOG] = hashlib.sha256(log.path.read_bytes()).hexdigest()
        files.write_json(folder / META, {"step": step, "log_bytes": log_bytes, "files": hashes})
        files.fsync(self.folder)
        for old in self._folders()[KEEP:]:
            _remove(old)

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint. What a kill left unfinished is deleted, what is damaged is named and deleted."""
        for folder in self._folders():
            if not (folder / META).exists():
                _remove(folder)
                continue
            try:
                return _load(folder)
            except (OSError, ValueError, KeyError) as damage:
                self.say(f"checkpoint {folder.name} is damaged ({damage}); going back to the one before it")
                _remove(folder)
        return None

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _load(folder: Path) -> Checkpoint:
    meta = json.loads((folder / META).read_bytes())
    log = (folder.parent / LOG).read_bytes()[: meta["log_bytes"]]
    found_hashes = {name: files.sha256_of(folder / name) for name in (WEIGHTS, STATE)}
    found_hashes[LOG] = hashlib.sha256(log).hexdigest()
    for name, found in found_hashes.items():
        if found != (expected := meta["files"][name]):
            raise ValueError(f"{name} has sha256 {found[:12]}…, expected {expected[:12]}…")
    weights = load_file(folder / WEIGHTS)
    state = torch.load(folder / STATE, weights_only=True)
    return Checkpoint(step=meta["step"], log_bytes=meta["log_bytes"], weights=weights, state=state)


def _remove(folder: Path) -> None:
    """meta.json first, so that a half-deleted checkpoint is none."""
    (folder / META).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


class Log:
    """The rows a run has made so far, by table: in memory, and up to the last flush in a JSONL file.

    Rows behind the last checkpoint need no disk: a run that is killed makes them again.
    """

    def __init__(self, path: Path, *, keep_bytes: int = 0) -> None:
        """Go on after the first `keep_bytes`; what comes behind them in the file is cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, keep_bytes)
        self.path = path
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self._new: list[bytes] = []
        for table, row in map(json.loads, path.read_bytes().splitlines()):
            self.rows.setdefault(table, []).append(row)

    def add(self, table: str, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)
        self._new.append(json.dumps([table, row]).encode() + b"\n")

    def flush(self) -> int:
        """Bring every row to the disk; the file's length in bytes."""
        with self.path.open("ab") as file:
            file.writelines(self._new)
        files.fsync(self.path)
        self._new.clear()
        return self.path.stat().st_size

    def close(self) -> None:
        """Nothing stays open between two flushes; this one is the last."""
        self.flush()

    def last(self, table: str) -> dict[str, Any]:
        return self.rows[table][-1] if self.rows.get(table) else {}


def random_state() -> dict[str, Any]:
    """torch's generators; nothing here uses Python's or numpy's."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def set_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy every named parameter; a name too many or too few raises KeyError or ValueError."""
    parameters = dict(model.named_parameters())
    if extra := set(weights) - set(parameters):
        raise ValueError(f"the checkpoint has weights that the model has not: {sorted(extra)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def publish(draft: Draft, *, model: nn.Module, pieces: Path, **about: Any) -> None:
    """Put model.safetensors, model.json and tokenizer.model into the draft."""
    from lib.model.network import MODEL_FILES, save_model

    save_model(model, draft.path, **about)
    for name in MODEL_FILES:
        draft.adopt(name)
    draft.write_bytes("tokenizer.model", pieces.read_bytes())
