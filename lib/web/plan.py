"""What a run would do: per stage hit or run, and why. A read-only operation.

In:   a chain config; the manifests under data/
Out:  one line per stage; where an upstream dataset is not there yet, what follows it will run too
"""

from dataclasses import dataclass
from typing import Any

from lib import stages, store
from lib.store import Config, CorruptDataset, Dataset


@dataclass(frozen=True)
class Line:
    stage: str
    what: str  # hit, run, resume
    why: str


@dataclass(frozen=True)
class Pending:
    """Stands for a dataset that is not there yet."""

    stage: str


class Plan:
    """`do` for flows/wiring.py: looks every stage up and makes none."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.unmade: dict[str, Config] = {}  # the configs of stages that would run

    def do(self, stage: str, config: Config, **inputs: Dataset | Pending) -> Dataset | Pending:
        variant = str(getattr(config, "layout", ""))
        found, what, why = look(stage, config, inputs)
        self.lines.append(Line(f"{stage} {variant}".strip(), what, why))
        if found is None:
            self.unmade[stage] = config
        return found or Pending(stage)


def look(stage: str, config: Config, inputs: dict[str, Any]) -> tuple[Dataset | None, str, str]:
    """(the dataset if it is there, hit/run/resume, why)."""
    waits = sorted({each.stage for each in inputs.values() if isinstance(each, Pending)})
    if waits:
        return None, "run", f"after {', '.join(waits)}"
    name = stages.request_name(stage, config, inputs)
    try:
        if found := store.find(stage, name):
            rows = found.manifest["counts"].get("rows_out", found.manifest["rows"])
            return found, "hit", f"{stage}/{name}, {rows:,} rows"
    except CorruptDataset as damage:
        return None, "run", f"damaged: {damage}"
    if (store.root() / stage / f"_draft-{name}").exists():
        return None, "resume", "a stopped attempt is there"
    return None, "run", _difference(stage, config, inputs)


def _difference(stage: str, config: Config, inputs: dict[str, Dataset]) -> str:
    """What has changed since the dataset of this stage that was used last: field, old → new."""
    last = store.newest(stage, str(getattr(config, "layout", "")))
    if last is None:
        return "never run here"
    before = last.manifest
    changes = []
    if before["version"] != (now := stages.module_of(stage).STAGE.version):
        changes.append(f"version {before['version']} → {now}")
    old, new = _flat(before["identity"]), _flat(config.identity())
    shown_old, shown_new = _flat(before["config"]), _flat(config.model_dump(mode="json"))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            changes.append(f"{key} {shown_old.get(key)} → {shown_new.get(key)}")
    for key, dataset in inputs.items():
        if before["inputs"].get(key, {}).get("fingerprint") != dataset.fingerprint:
            changes.append(f"{key} has other rows")
    if before["external"] != stages.external(stage, config):
        changes.append("the file was changed")
    return "; ".join(changes) or "its dataset was deleted"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"plan": {"seed": 1}} → {"plan.seed": 1}"""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, each in value.items():
        flat |= _flat(each, f"{prefix}.{key}" if prefix else key)
    return flat
