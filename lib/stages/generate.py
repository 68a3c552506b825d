"""Generate: stories with their summaries, asked from a teacher.

In:   a prompt plan; what the ledger in data/requests/ says was answered before
Out:  one RAW row per ask that was answered with a story, in the plan's order; the others under _dropped with the reason
      and what the teacher wrote; `plan`, what was asked for, one row per ask; `axes`, every word that could have been;
      _record/asking.json on how this run went
Relies on lib/text/teacher.py: what was answered is never asked again, whichever run or config asked it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
    max_tokens: int = Field(600, ge=16, description="longest reply, in tokens, for each story that it is asked for")
    part_rows: int = Field(2000, ge=1, description="asks per part file")


@dataclass(frozen=True)
class Asked:
    """The asks of one request, and the request that they become."""

    asks: tuple[prompts.Ask, ...]
    request: Request


def generate(draft: Draft, config: GenerateConfig, *, api_key: Key | None = None) -> None:
    """Ask for what the ledger does not hold, then write the parts. `api_key` is called where the key is needed."""
    asked = list(planned(config))
    fewer = partial(_fewer, stories_per_request=config.plan.stories_per_request)
    past = answered(draft, config, [each.request for each in asked], api_key, fewer)
    per_part = max(config.part_rows // config.plan.stories_per_request, 1)
    for number, start in enumerate(range(0, len(asked), per_part)):
        _write_part(draft, config, number, asked[start : start + per_part], past)
    _write_coverage(draft, config, asked)
    if not draft.counts["rows_out"]:
        raise UserError(
            f"{config.model} gave no story for {len(asked):,} requests ({dict(draft.drops)}); "
            "`select status, error, raw from requests` shows what it wrote instead"
        )


# ---- what to ask


def planned(config: GenerateConfig) -> Iterator[Asked]:
    """Every request of the plan, in order."""
    names, settings = Names(config), cache(partial(_settings, config))
    for group in prompts.groups(config.plan):
        payload = settings(len(group)) | {"messages": prompts.messages(*group)}
        read = partial(replies.fault_in, count=len(group))
        settled = partial(_settled, reasks=config.reasks, count=len(group))
        yield Asked(tuple(group), Request(names.name(payload), payload, read, settled))


def _settings(config: GenerateConfig, count: int) -> dict[str, Any]:
    """What a request for `count` stories says besides its messages."""
    length = "two to five paragraphs" if config.plan.design == "tinystories" else ""
    shapes = {"schema": replies.response_format(count, length), "json": {"type": "json_object"}, "text": None}
    shape = shapes[config.structured]
    settings = config.settings() | {config.token_limit: config.max_tokens * count}
    return settings | ({"response_format": shape} if shape else {})


def _fewer(requests: int, *, stories_per_request: int) -> str:
    return f"lower --generate.plan.count to {requests * stories_per_request}"


def _settled(answers: Sequence[ledger.Answer], *, reasks: int, count: int) -> bool:
    return replies.verdict(answers, reasks, count) is not None


# ---- what came of it


def _write_part(
    draft: Draft, config: GenerateConfig, number: int, asked: list[Asked], past: dict[str, ledger.Past]
) -> None:
    """What these requests asked for, the stories they brought, and beside them the answers that held none."""
    plan, rows, dropped = [], [], []
    for each in asked:
        counts = replies.verdict(past[each.request.request_id].answers, config.reasks, len(each.asks))
        assert counts, f"{each.request.request_id} was never settled"
        for story_no, (ask, (answer, held)) in enumerate(zip(each.asks, counts, strict=True), 1):
            names = {"story_id": f"{each.request.request_id}.{story_no}", "request_id": each.request.request_id}
            plan.append(names | {"story_no": story_no, "ask_no": ask.index} | _axes(ask))
            row = names | _axes(ask) | {"source": config.source, "model": answer.model}
            if isinstance(held, replies.Reply):
                rows.append(row | {"text": held.story, "summary": held.summary})
            else:
                dropped.append(row | {"text": answer.raw, "reason": held.reason, "detail": held.detail})
    name = f"part-{number:05d}.parquet"
    for path, found in ((f"plan-{number:05d}.parquet", plan), (name, rows), (f"_dropped/{name}", dropped)):
        schema = schemas.TABLES["generate", schemas.table_of(path)]
        draft.write_table(path, pa.Table.from_pylist(found, schema=schema))
    draft.count(rows_in=len(plan), rows_out=len(rows), drops=Counter(row["reason"] for row in dropped))


def _axes(ask: prompts.Ask) -> dict[str, Any]:
    """What the ask says, under the names of the columns."""
    return {**vars(ask), "features": list(ask.features)}


def _write_coverage(draft: Draft, config: GenerateConfig, asked: list[Asked]) -> None:
    """Every word that the plan may ask for with its even share, so that unused ones are seen; and the sums as facts."""
    covers = prompts.coverage(config.plan, [ask for each in asked for ask in each.asks if not ask.extra])
    axes = [{"axis": each.axis, "word": each.word, "expected_share": each.expected_share} for each in covers]
    draft.write_table("axes.parquet", pa.Table.from_pylist(axes, schema=schemas.TABLES["generate", "axes"]))
    draft.fact(plan_coverage=prompts.summed_up(config.plan, covers))
