"""What a dataset is called: a hash of everything that can change a byte of it, and of nothing else.

In:   a stage, its config, the content fingerprints of its inputs
Out:  sixteen hexadecimal digits, the same in every process and on every machine
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Stage:
    """One kind of work. Raise `version` when the same request should write different rows."""

    name: str
    version: int


class Config(BaseModel):
    """What steers a stage: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> dict[str, Any]:
        """The fields that can change a byte, as plain JSON values."""
        return _identity(self)


def runtime(default: Any, **field: Any) -> Any:
    """A config field that cannot change a byte (workers, device, deadline): it stays out of the dataset's name."""
    return Field(default, json_schema_extra={"runtime": True}, **field)


def _identity(value: Any) -> Any:
    if not isinstance(value, BaseModel):
        return value.model_dump(mode="json") if hasattr(value, "model_dump") else _plain(value)
    kept = {}
    for name, field in type(value).model_fields.items():
        extra = field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get("runtime")):
            kept[name] = _identity(getattr(value, name))
    return kept


def _plain(value: Any) -> Any:
    """`value` as JSON has it; a value with no stable identity raises."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value.hex()  # 0.1 is the same on every machine only as bits
    if isinstance(value, list | tuple):
        return [_identity(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _identity(each) for key, each in value.items()}
    raise TypeError(f"{value!r} ({type(value).__name__}) has no stable identity; use JSON values in a config")


def digest(value: Any) -> str:
    """sha256 of canonical JSON."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def name_of(stage: Stage, config: Config, fingerprints: Mapping[str, str]) -> str:
    """The dataset that this request names: its folder under data/<stage>/."""
    return digest([stage.name, stage.version, config.identity(), dict(fingerprints)])[:16]
