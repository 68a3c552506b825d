"""Generate: stories with their summaries, asked from a teacher.

In:   a prompt plan; what the ledger in data/requests/ says was answered before
Out:  one RAW row per ask that was answered with a story, in the plan's order; the others under _dropped with the reason
      and what the teacher wrote; _record/asking.json on how this run went
Relies on lib/text/teacher.py: what was answered is never asked again, whichever run or config asked it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from lib.errors import UserError
from lib.store import Draft, Stage, schemas
from lib.text import ledger, prompts, replies
from lib.text.teacher import Key, Names, Request, TeacherConfig, answered

STAGE = Stage("generate", 2)


class GenerateConfig(TeacherConfig):
    """Which stories to ask for, and from whom."""

    plan: prompts.PromptPlan = prompts.PromptPlan()
    structured: Literal["schema", "json", "text"] = Field(
        "schema", description="ask for a JSON schema, for JSON, or for plain text, whichever the endpoint can"
    )
    part_rows: int = Field(2000, ge=1, description="asks per part file")


@dataclass(frozen=True)
class Asked:
    """One ask of the plan, and the request that it becomes."""

    ask: prompts.Ask
    request: Request


def generate(draft: Draft, config: GenerateConfig, *, api_key: Key | None = None) -> None:
    """Ask for what the ledger does not hold, then write the parts. `api_key` is called where the key is needed."""
    asked = list(planned(config))
    past = answered(draft, config, [each.request for each in asked], api_key)
    for number, start in enumerate(range(0, len(asked), config.part_rows)):
        _write_part(draft, config, number, asked[start : start + config.part_rows], past)
    if not draft.counts["rows_out"]:
        raise UserError(
            f"{config.model} gave no story for {len(asked):,} requests ({dict(draft.drops)}); "
            "`select status, error, raw from requests` shows what it wrote instead"
        )


# ---- what to ask


def planned(config: GenerateConfig) -> Iterator[Asked]:
    """Every request of the plan, in order."""
    shapes = {"schema": prompts.RESPONSE_FORMAT, "json": {"type": "json_object"}, "text": None}
    shape = shapes[config.structured]
    settings = config.settings() | ({"response_format": shape} if shape else {})
    names = Names(config)
    settled = partial(_settled, reasks=config.reasks)
    for ask in prompts.asks(config.plan, 0, config.plan.count):
        payload = settings | {"messages": prompts.messages(ask)}
        yield Asked(ask, Request(names.name(payload), payload, replies.fault_in, settled))


def _settled(answers: list[ledger.Answer], *, reasks: int) -> bool:
    return replies.verdict(answers, reasks) is not None


# ---- what came of it


def _write_part(
    draft: Draft, config: GenerateConfig, number: int, asked: list[Asked], past: dict[str, ledger.Past]
) -> None:
    """The stories of these requests, and beside them the answers that held none."""
    rows, dropped = [], []
    for each in asked:
        counts = replies.verdict(past[each.request.request_id].answers, config.reasks)
        assert counts, f"{each.request.request_id} was never settled"
        answer, held = counts
        row = _row(config, each, answer.model)
        if isinstance(held, replies.Reply):
            rows.append(row | {"text": held.story, "summary": held.summary})
        else:
            dropped.append(row | {"text": answer.raw, "reason": held.reason, "detail": held.detail})
    columns = schemas.TABLES["generate", "_dropped"]
    draft.write_table(f"part-{number:05d}.parquet", pa.Table.from_pylist(rows, schema=schemas.RAW))
    draft.write_table(f"_dropped/part-{number:05d}.parquet", pa.Table.from_pylist(dropped, schema=columns))
    draft.count(rows_in=len(asked), rows_out=len(rows), drops=Counter(row["reason"] for row in dropped))


def _row(config: GenerateConfig, asked: Asked, model: str) -> dict[str, Any]:
    ask = asked.ask
    return {
        "story_id": f"{asked.request.request_id}.1",  # the first story of the request, which can hold more
        "source": config.source,
        "request_id": asked.request.request_id,
        "verb": ask.verb,
        "noun": ask.noun,
        "adjective": ask.adjective,
        "features": list(ask.features),
        "model": model,
    }
