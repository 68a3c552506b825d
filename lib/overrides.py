"""What a user changes of a configuration: nested values, checked as a whole; and the flags that the command line has.

In:   a frozen pydantic configuration, changes as nested dictionaries
Out:  the changed configuration; a model of every field that may be changed, all optional
"""

from types import UnionType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from lib.errors import UserError


def with_overrides(config: Any, changes: dict[str, Any]) -> Any:
    """`config` with nested changes, checked as a whole; a value that cannot be is a UserError naming its key."""
    try:
        return type(config).model_validate(_merged(type(config), config.model_dump(), changes))
    except ValidationError as error:
        told = "; ".join(_problem(each) for each in error.errors())
        raise UserError(f"this configuration cannot be: {told}") from None


def _problem(error: Any) -> str:
    """One thing pydantic has against a configuration: where, what was found (unless it is a whole stage), and why."""
    where, found = ".".join(map(str, error["loc"])), error["input"]
    return f"{where}: {error['msg']}" if isinstance(found, dict) else f"{where} = {_short(found)}: {error['msg']}"


def _merged(model: type[BaseModel], base: dict[str, Any] | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Changes go into the fields that are models; any other value, a dictionary too, takes the place of the old one."""
    merged = dict(base or {})
    for key, value in changes.items():
        nested = _nested(model.model_fields[key].annotation) if key in model.model_fields else None
        merged[key] = _merged(nested, merged.get(key), value) if nested and isinstance(value, dict) else value
    return merged


def overrides_of(model: type[BaseModel], preset: BaseModel | None) -> type[BaseModel]:
    """`model` with every field optional and none set: what the command line may change of a preset."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        now = getattr(preset, name, None)
        nested = _nested(field.annotation)
        kind = overrides_of(nested, now) if nested else field.annotation
        text = field.description or ""
        fields[name] = (kind | None, Field(None, description=text if nested else f"{text} ({_short(now)})".strip()))
    return create_model(f"{model.__name__}Overrides", __config__=ConfigDict(extra="forbid"), **fields)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model` or `Model | None`; a list of models is a value."""
    options = [annotation, *(getattr(annotation, "__args__", ()) if isinstance(annotation, UnionType) else ())]
    return next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
