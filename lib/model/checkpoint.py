"""Checkpoints: everything a run needs to go on, bit for bit, or nothing.

    _resume/step-00000200/weights-00000.safetensors   weights, trained and frozen, and the optimisers' memories
                          state.pt      the rest, as random generators; loaded with weights_only=True
                          meta.json     sha256 of all, written last by rename: it marks the checkpoint whole
    _resume/log.jsonl     every step so far; a checkpoint hashes the bytes that were there then

Where weights are sharded, each rank writes its rows into a file of its own, and a tensor is the rows of all files one
after the other: any number of processes reads what any number wrote. Every rank looks through all hashes, so all of
them go back to the same checkpoint.

A checkpoint that is not what its meta.json says is named, deleted, and the one before it is used. Two are kept.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.model import parallel, shares
from lib.store import Draft, files

CPU = torch.device("cpu")
STATE, META, LOG = "state.pt", "meta.json", "log.jsonl"
KEEP = 2  # the second is there for the day the first is damaged


class Shards(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name, each read when it is asked for: only one is in memory whole."""

    def __init__(self, paths: list[Path]) -> None:
        self.files = [safe_open(path, framework="pt") for path in paths]
        self.holders: dict[str, list[Any]] = {}
        for file in self.files:
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                self.holders.setdefault(name, []).append(file)

    def __getitem__(self, name: str) -> Tensor:
        rows = [file.get_tensor(name) for file in self.holders[name]]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.holders)

    def __len__(self) -> int:
        return len(self.holders)


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint, verified."""

    step: int  # steps done
    log_bytes: int
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run. `say` is told what a person should know."""

    def __init__(self, folder: Path, *, say: Callable[[str], None], ranks: parallel.Ranks = parallel.ALONE) -> None:
        self.folder, self.say, self.ranks = folder, say, ranks

    def save(self, *, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], log: "Log") -> None:
        """Write one whole checkpoint; only then let the oldest go. Every rank of a run calls this."""
        folder = self.folder / f"step-{step:08d}"
        if self.ranks.leads:
            _remove(folder)
            folder.mkdir(parents=True)
        self.ranks.wait()
        hashes: dict[str, str] = {}
        for written in self.ranks.gather(self._write_weights(folder, weights)):
            hashes |= written
        if self.ranks.leads:
            memory = io.BytesIO()  # torch.save to a full disk fails with an internal error of its own
            torch.save(dict(state), memory)
            files.write_whole(folder / STATE, memory.getbuffer())
            hashes[STATE] = files.sha256_of(folder / STATE)
            log_bytes = log.flush()
            hashes[LOG] = hashlib.sha256(log.path.read_bytes()).hexdigest()
            files.write_json(folder / META, {"step": step, "log_bytes": log_bytes, "files": hashes})
            files.fsync(self.folder)
            for old in self._folders()[KEEP:]:
                _remove(old)
        self.ranks.wait()

    def _write_weights(self, folder: Path, weights: Mapping[str, Tensor]) -> dict[str, str]:
        """This rank's rows of what is shared, and, from rank 0, what everyone has. The file's sha256 by its name."""
        mine = {name: each for name, each in weights.items() if self.ranks.leads or shares.is_share(each)}
        if not mine:
            return {}
        path = folder / f"weights-{self.ranks.rank:05d}.safetensors"
        save_file({name: shares.local(each.detach()).cpu().contiguous() for name, each in mine.items()}, path)
        files.fsync(path)
        return {path.name: files.sha256_of(path)}

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint. What a kill left unfinished is deleted, what is damaged is named and deleted."""
        found = self._newest() if self.ranks.leads else None
        self.ranks.wait()  # the others look when rank 0 has tidied up
        return found if self.ranks.leads else self._newest()

    def _newest(self) -> Checkpoint | None:
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
    kinds = {"step": int, "log_bytes": int, "files": dict}
    if not (isinstance(meta, dict) and all(isinstance(meta.get(name), kind) for name, kind in kinds.items())):
        raise ValueError(f"{META} holds {json.dumps(meta)[:40]}, expected an object with step, log_bytes and files")
    log = (folder.parent / LOG).read_bytes()[: meta["log_bytes"]]
    found_hashes = {name: files.sha256_of(folder / name) for name in meta["files"] if name != LOG}
    found_hashes[LOG] = hashlib.sha256(log).hexdigest()
    for name, expected in meta["files"].items():
        if (found := found_hashes[name]) != expected:
            raise ValueError(f"{name} has sha256 {found[:12]}…, expected {expected!s:.12}…")
    weights = Shards([folder / name for name in sorted(meta["files"]) if name.startswith("weights-")])
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

    def __init__(self, path: Path, *, keep_bytes: int = 0, write: bool = True) -> None:
        """Go on after the first `keep_bytes`; what comes behind them in the file is cut off.

        Without `write` the rows are in memory alone: another rank has the file.
        """
        self.path, self.write = path, write
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.listener: Callable[[str, dict[str, Any]], None] | None = None
        self._new: list[bytes] = []
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.truncate(path, keep_bytes)
        kept = path.read_bytes()[:keep_bytes] if keep_bytes else b""
        for table, row in map(json.loads, kept.splitlines()):
            self.rows.setdefault(table, []).append(row)

    def add(self, table: str, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)
        if self.write:
            self._new.append(json.dumps([table, row]).encode() + b"\n")
        if self.listener:
            self.listener(table, row)

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


def random_state(device: torch.device = CPU) -> dict[str, Any]:
    """torch's generators, of the CPU and of `device`; nothing here uses Python's or numpy's."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any], device: torch.device = CPU) -> None:
    """Whatever number of GPUs the machine had that wrote it; some checkpoints hold the generators of all."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0], device)


def set_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy every named parameter; a name too many or too few raises KeyError or ValueError."""
    parameters = dict(model.named_parameters())
    if extra := set(weights) - set(parameters):
        raise ValueError(f"the checkpoint has weights that the model has not: {sorted(extra)}")
    for name, parameter in parameters.items():
        shares.fill(parameter, weights[name])


def publish(draft: Draft, *, model: nn.Module, pieces: Path, **about: Any) -> None:
    """Put model.safetensors, model.json and tokenizer.model into the draft."""
    from lib.model.network import MODEL_FILES, save_model

    save_model(model, draft.path, **about)
    for name in MODEL_FILES:
        draft.adopt(name)
    draft.write_bytes("tokenizer.model", pieces.read_bytes())
