"""What a user chooses on the command line: a preset, where the stories come from, and what differs.

In:   Source, an `overrides_of` Chain
Out:  the Chain that is run
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from lib.errors import UserError
from lib.overrides import with_overrides
from lib.presets import PRESETS, Chain

Preset = Literal[tuple(PRESETS)]
FROM_A_BASE = ("alpaca",)


@dataclass(frozen=True)
class Source:
    """Where the stories come from, in a few words.

    Parameters
    ----------
    preset
        The configuration to start from.
    stories
        Your own stories instead of the teacher's: FILE.jsonl, .json, .txt, .parquet or hf:DATASET.
    heldout
        Text that is only measured on, never trained on.
    teacher
        Who writes the stories: the built-in grammar, or an OpenAI-compatible service (key in OPENAI_API_KEY).
    base_url
        The service's address.
    model
        The service's model.
    """

    preset: Preset = "laptop"
    stories: str | None = None
    heldout: str | None = None
    teacher: Literal["storyteller", "openai"] | None = None
    base_url: str | None = None
    model: str | None = None


def chosen(source: Source, changes: BaseModel | None) -> Chain:
    """The preset with what the user changes of it; `changes` is an `overrides_of` Chain."""
    given = changes.model_dump(exclude_unset=True) if changes else {}
    read = {"path": source.stories, "heldout": source.heldout}
    asked = {"teacher": source.teacher, "base_url": source.base_url, "model": source.model}
    teachers = ("generate", "selfinstruct") if "selfinstruct" in given else ("generate",)
    for stage, short in (("ingest", read), *((teacher, asked) for teacher in teachers)):
        if short := {key: value for key, value in short.items() if value is not None}:
            given[stage] = given.get(stage, {}) | short
    if given.get("generate", {}).get("teacher") == "openai":
        given["generate"].setdefault("mischief", None)  # the presets tell only the built-in storyteller to misbehave
    return with_overrides(PRESETS[source.preset](), given)


def require_base(source: Source, config: Chain) -> None:
    """UserError where a preset that begins with a public model was given none."""
    if source.preset in FROM_A_BASE and config.adopt is None:
        raise UserError(
            f"the preset {source.preset} begins with a public base model, expected --adopt.path FOLDER (of a Hugging "
            f"Face checkpoint), a llama2.c .bin or hf:OWNER/NAME; found none, and would pretrain one from nothing"
        )
