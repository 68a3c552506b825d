"""Generate: stories with their summaries, asked from a teacher.

In:   a prompt plan; what the ledger in data/requests/ says was answered before
Out:  one RAW row per ask that was answered with a story, in the plan's order; the others under _dropped with the reason
      and what the teacher wrote; `plan`, what was asked for, one row per ask; `axes`, every word that could have been;
      _record/asking.json on how this run went
Relies on lib/text/teacher.py: what was answered is never asked again, whichever run or config asked it.

First everything is asked for, then everything is written, each a window of requests at a time. What stays in memory of
the whole plan is 31 bytes a request: its id 10, for equal ones to be told apart 8, its state 1, and its number among
the missing ones up to 12.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import pyarrow as pa
from pydantic import Field

from lib.errors import UserError
from lib.store import Draft, Stage, schemas
from lib.text import ledger, prompts, replies, standing
from lib.text.teacher import Key, Names, Request, TeacherConfig, known, settle

STAGE = Stage("generate", 2)
ID_BYTES = 10  # of a request id, which is 20 hex digits


class GenerateConfig(TeacherConfig):
    """Which stories to ask for, and from whom."""

    plan: prompts.PromptPlan = prompts.PromptPlan()
    max_tokens: int = Field(600, ge=16, description="longest reply, in tokens, for each story that it is asked for")
    part_rows: int = Field(2000, ge=1, description="asks per part file")


def generate(draft: Draft, config: GenerateConfig, *, api_key: Key | None = None) -> None:
    """Ask for what the ledger does not hold, then write the parts. `api_key` is called where the key is needed."""
    requests = Planned(config)
    fewer = partial(_fewer, stories_per_request=config.plan.stories_per_request)
    draft.write_json("_record/asking.json", settle(config, requests, draft.progress, api_key, fewer))
    per_part = max(config.part_rows // config.plan.stories_per_request, 1)
    window = max(standing.WINDOW // per_part, 1) * per_part
    uses: prompts.Uses = Counter()
    for start in range(0, len(requests), window):
        asked = requests.asked(start, start + window)
        past = known(request_id for request_id, _ in asked)
        for first in range(0, len(asked), per_part):
            _write_part(draft, config, (start + first) // per_part, asked[first : first + per_part], past)
        uses += prompts.uses(ask for _, asks in asked for ask in asks if not ask.extra)
    _write_coverage(draft, config, uses)
    if not draft.counts["rows_out"]:
        raise UserError(
            f"{config.model} gave no story for {len(requests):,} requests ({dict(draft.drops)}); "
            "`select status, error, raw from requests` shows what it wrote instead"
        )


# ---- what to ask


class Planned:
    """Every request of the plan, in order. They are made when they are looked at; only their ids stay."""

    def __init__(self, config: GenerateConfig) -> None:
        self._config, self._names, self._ids = config, Names(config), bytearray()
        self._settings = cache(partial(_settings, config))
        self._reading = cache(partial(_reading, config.reasks))

    def __len__(self) -> int:
        return prompts.num_groups(self._config.plan)

    def __iter__(self) -> Iterator[Request]:
        for start in range(0, len(self), standing.WINDOW):
            yield from self[start : start + standing.WINDOW]

    def __getitem__(self, stretch: slice) -> list[Request]:
        start, stop, _ = stretch.indices(len(self))
        named = min(start, len(self._ids) // ID_BYTES)  # a name says how many were equal before it: none is left out
        return list(self._made(named, stop))[start - named :]

    def asked(self, start: int, stop: int) -> list[tuple[str, list[prompts.Ask]]]:
        """The ids of these requests, and what each asks for. They have been looked at before."""
        groups = prompts.groups(self._config.plan, start, stop)
        return [(self._id(number), group) for number, group in enumerate(groups, start)]

    def _made(self, start: int, stop: int) -> Iterator[Request]:
        for number, group in enumerate(prompts.groups(self._config.plan, start, stop), start):
            payload = self._settings(len(group)) | {"messages": prompts.messages(*group)}
            if number * ID_BYTES == len(self._ids):
                self._ids += bytes.fromhex(self._names.name(payload))
            yield Request(self._id(number), payload, *self._reading(len(group)))

    def _id(self, number: int) -> str:
        return self._ids[number * ID_BYTES : (number + 1) * ID_BYTES].hex()


def _settings(config: GenerateConfig, count: int) -> dict[str, Any]:
    """What a request for `count` stories says besides its messages."""
    length = "two to five paragraphs" if config.plan.design == "tinystories" else ""
    schema = replies.response_format(count, length)
    return config.settings(schema) | {config.token_limit: config.max_tokens * count}


def _fewer(requests: int, *, stories_per_request: int) -> str:
    return f"lower --generate.plan.count to {requests * stories_per_request}"


def _reading(reasks: int, count: int) -> tuple[Callable, Callable]:
    """How the answers to a request for `count` stories are read: one of them, and all of them."""
    return partial(replies.fault_in, count=count), partial(_settled, reasks=reasks, count=count)


def _settled(answers: Sequence[ledger.Answer], *, reasks: int, count: int) -> bool:
    return replies.verdict(answers, reasks, count) is not None


# ---- what came of it


def _write_part(
    draft: Draft,
    config: GenerateConfig,
    number: int,
    asked: list[tuple[str, list[prompts.Ask]]],
    past: dict[str, ledger.Past],
) -> None:
    """What these requests asked for, the stories they brought, and beside them the answers that held none."""
    plan, rows, dropped = [], [], []
    for request_id, asks in asked:
        counts = replies.verdict(past[request_id].answers, config.reasks, len(asks))
        assert counts, f"{request_id} was never settled"
        for story_no, (ask, (answer, held)) in enumerate(zip(asks, counts, strict=True), 1):
            names = {"story_id": f"{request_id}.{story_no}", "request_id": request_id}
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


def _write_coverage(draft: Draft, config: GenerateConfig, uses: prompts.Uses) -> None:
    """Every word that the plan may ask for with its even share, so that unused ones are seen; and the sums as facts."""
    covers = prompts.coverage(config.plan, uses)
    axes = [{"axis": each.axis, "word": each.word, "expected_share": each.expected_share} for each in covers]
    draft.write_table("axes.parquet", pa.Table.from_pylist(axes, schema=schemas.TABLES["generate", "axes"]))
    draft.fact(plan_coverage=prompts.summed_up(config.plan, covers))
