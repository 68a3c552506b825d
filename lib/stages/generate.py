"""Generate: stories with their summaries, asked from a teacher.

In:   a prompt plan; what the ledger in data/requests/ says was answered before
Out:  one RAW row per ask that was answered with a story, in the plan's order; the others under _dropped with the reason
      and what the teacher wrote; _record/asking.json on how this run went

The ledger is looked at first, and a request that was answered is never sent again, whichever run or config asked it. A
request is named by what decides its answer: model, messages, sampling parameters, and its number among equal requests.
Where the teacher lives, keys, prices and speed are no part of the name. The built-in storyteller is started and stopped
here; any other OpenAI-compatible endpoint is reached at `base_url`, with a key that enters no config, file or log.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from lib.errors import UserError
from lib.store import Config, Draft, Stage, digest, lock, root, runtime, schemas
from lib.text import ledger, prompts, replies
from lib.text.storyteller import MODEL, Mischief, running

if TYPE_CHECKING:
    from lib.text.asking import Job

STAGE = Stage("generate", 1)
HARMLESS = {"rate_limited", "server_error", "slow", "retry_after"}  # mischief that changes no answer
KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
Key = Callable[[], str]


class GenerateConfig(Config):
    """Which stories to ask for, and from whom."""

    teacher: Literal["storyteller", "openai"] = Field(
        "storyteller", description="the built-in storyteller, or any OpenAI-compatible endpoint"
    )
    model: str = Field(MODEL, min_length=1, description="the model to ask")
    base_url: str = runtime(
        "", pattern=r"^(https?://[^\s@]+)?$", description="where the teacher is, for example http://host/v1"
    )
    plan: prompts.PromptPlan = prompts.PromptPlan()
    temperature: float | None = Field(1.0, ge=0, le=2, description="of the teacher's sampling; null sends none")
    max_tokens: int = Field(600, ge=16, description="longest reply, in tokens")
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the endpoint calls that limit; OpenAI's reasoning models know only the second"
    )
    seeded: bool = Field(True, description="send a seed of its own with each request; some endpoints refuse one")
    structured: Literal["schema", "json", "text"] = Field(
        "schema", description="ask for a JSON schema, for JSON, or for plain text, whichever the endpoint can"
    )
    reasks: int = Field(2, ge=0, le=20, description="how often an answer without a story is asked for again")
    part_rows: int = Field(2000, ge=1, description="asks per part file")
    mischief: Mischief | None = Field(None, description="how the built-in storyteller misbehaves, for tests")
    concurrency: int = runtime(32, ge=1, le=1000, description="requests in flight")
    deadline: float = runtime(120.0, gt=0, description="seconds for one whole reply")
    tries: int = runtime(6, ge=1, description="failures in a row of one request before the run stops, to be resumed")
    backoff: float = runtime(0.5, gt=0, description="seconds before the second try; doubles with each further one")
    price_in: float = runtime(0.0, ge=0, description="dollars per million prompt tokens")
    price_cached: float | None = runtime(None, ge=0, description="dollars per million cached prompt tokens, if cheaper")
    price_out: float = runtime(0.0, ge=0, description="dollars per million completion tokens")
    price_version: str = runtime("", description="which price list these are from, for example 2026-11")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.teacher == "openai" and self.model == MODEL:
            raise ValueError("teacher openai needs the name of a model; give --model, and --base-url if not OpenAI's")
        if self.teacher == "openai" and self.mischief:
            raise ValueError("only the built-in storyteller can be told to misbehave; leave out mischief")
        return self


@dataclass(frozen=True)
class Request:
    """One ask of the plan as it is sent."""

    request_id: str
    ask: prompts.Ask
    payload: dict[str, Any]


def generate(draft: Draft, config: GenerateConfig, *, api_key: Key | None = None) -> None:
    """Ask for what the ledger does not hold, then write the parts. `api_key` is called where the key is needed."""
    requests = list(planned(config))
    with lock("requests", "the ledger in data/requests", draft.progress):
        ledger.seal(root())
        past = ledger.load(root(), (request.request_id for request in requests))
        _ask_for_the_missing(draft, config, requests, past, api_key)
        ledger.seal(root())
    for number, start in enumerate(range(0, len(requests), config.part_rows)):
        _write_part(draft, config, number, requests[start : start + config.part_rows], past)
    if not draft.counts["rows_out"]:
        raise UserError(
            f"{config.model} gave no story for {len(requests):,} requests ({dict(draft.drops)}); "
            "`select status, error, raw from requests` shows what it wrote instead"
        )


# ---- what to ask


def planned(config: GenerateConfig) -> Iterator[Request]:
    """Every request of the plan, in order. Equal asks are told apart by number: each gets a story of its own."""
    settings = _settings(config)
    mischief = config.mischief.model_dump(exclude=HARMLESS, exclude_defaults=True) if config.mischief else {}
    common = digest([settings, mischief])
    seen: Counter[str] = Counter()
    for ask in prompts.asks(config.plan, 0, config.plan.count):
        messages = prompts.messages(ask)
        asked = digest([common, messages])
        request_id = digest([asked, seen[asked]])[:20]
        seen[asked] += 1
        yield Request(request_id, ask, settings | {"messages": messages})


def _settings(config: GenerateConfig) -> dict[str, Any]:
    """What every request of a config says, besides its messages and its seed."""
    shapes = {"schema": prompts.RESPONSE_FORMAT, "json": {"type": "json_object"}, "text": None}
    settings = {
        "model": config.model,
        config.token_limit: config.max_tokens,
        "temperature": config.temperature,
        "response_format": shapes[config.structured],
    }
    return {name: value for name, value in settings.items() if value is not None}


def _job(config: GenerateConfig, request: Request, past: ledger.Past) -> "Job":
    from lib.text.asking import Job  # here, because configs import without the openai client

    def seed(answers: int) -> int:
        return int(digest([request.request_id, answers])[:7], 16)

    return Job(request.request_id, request.payload, seed if config.seeded else None, past.attempts, past.answers)


# ---- asking


def _ask_for_the_missing(
    draft: Draft, config: GenerateConfig, requests: list[Request], past: dict[str, ledger.Past], api_key: Key | None
) -> None:
    """Bring `past` to an answer for every request, and record how that went."""
    for request in requests:
        past.setdefault(request.request_id, ledger.Past(attempts=0, answers=[]))
    missing = [r for r in requests if replies.verdict(past[r.request_id].answers, config.reasks) is None]
    known = len(requests) - len(missing)
    draft.progress(f"{known:,} of {len(requests):,} requests were answered before", known, len(requests))
    record: dict[str, Any] = {"asks": len(requests), "answered_before": known, "asked_now": len(missing)}
    if missing:
        with _teacher(config, api_key) as (base_url, key):
            jobs = [_job(config, request, past[request.request_id]) for request in missing]
            record |= asyncio.run(_run(draft, config, jobs, known, base_url, key))
    draft.write_json("_record/asking.json", record)


async def _run(
    draft: Draft, config: GenerateConfig, jobs: "list[Job]", known: int, base_url: str, key: str
) -> dict[str, Any]:
    """Ask for these jobs; what was sent, what came, what it cost."""
    from lib.text.asking import Asking, Patience, Price
    from lib.text.client import Client

    client = Client(base_url, key, deadline=config.deadline, connections=config.concurrency)
    patience = Patience(config.concurrency, config.tries, config.backoff, config.reasks)
    price = Price(config.price_in, config.price_out, config.price_cached, config.price_version)
    started = time.monotonic()
    with ledger.Writer(root()) as writer:
        asking = Asking(client, writer, source_of(config), base_url, patience, price)
        ticking = asyncio.create_task(asking.report(draft.progress, known, known + len(jobs)))
        try:
            await asking.run(jobs)
        finally:
            ticking.cancel()
            await client.close()
    seconds = time.monotonic() - started
    return {
        "attempts": asking.attempts,
        "statuses": dict(sorted(asking.statuses.items())),
        "cost_microdollars": asking.cost_microdollars,
        "seconds": round(seconds, 3),
        "requests_per_second": round(asking.attempts / seconds, 1),
    }


@contextmanager
def _teacher(config: GenerateConfig, api_key: Key | None) -> Iterator[tuple[str, str]]:
    """The base URL and the key of a teacher that can be asked now."""
    if config.teacher == "storyteller":
        with nullcontext(config.base_url) if config.base_url else running(config.mischief) as base_url:
            yield base_url, "no-key-needed"
        return
    key = (api_key() if api_key else os.environ.get(KEY_VARIABLE, "")).strip()
    if not key:
        raise UserError(
            f"found no API key for {config.model}; put it in {KEY_VARIABLE}, or in a Prefect Secret block "
            "(an endpoint that checks no key takes any word)"
        )
    yield config.base_url or OPENAI_URL, key


# ---- what came of it


def _write_part(
    draft: Draft, config: GenerateConfig, number: int, requests: list[Request], past: dict[str, ledger.Past]
) -> None:
    """The stories of these requests, and beside them the answers that held none."""
    rows, dropped = [], []
    for request in requests:
        counts = replies.verdict(past[request.request_id].answers, config.reasks)
        assert counts, f"{request.request_id} was never settled"
        answer, held = counts
        row = _row(config, request, answer.model)
        if isinstance(held, replies.Reply):
            rows.append(row | {"text": held.story, "summary": held.summary})
        else:
            dropped.append(row | {"text": answer.raw, "reason": held.reason, "detail": held.detail})
    columns = schemas.TABLES["generate", "_dropped"]
    draft.write_table(f"part-{number:05d}.parquet", pa.Table.from_pylist(rows, schema=schemas.RAW))
    draft.write_table(f"_dropped/part-{number:05d}.parquet", pa.Table.from_pylist(dropped, schema=columns))
    draft.count(rows_in=len(requests), rows_out=len(rows), drops=Counter(row["reason"] for row in dropped))


def _row(config: GenerateConfig, request: Request, model: str) -> dict[str, Any]:
    ask = request.ask
    return {
        "story_id": f"{request.request_id}.1",  # the first story of the request, which can hold more
        "source": source_of(config),
        "request_id": request.request_id,
        "verb": ask.verb,
        "noun": ask.noun,
        "adjective": ask.adjective,
        "features": list(ask.features),
        "model": model,
    }


def source_of(config: GenerateConfig) -> str:
    """Who made the stories, as it stands in every row."""
    return "storyteller" if config.teacher == "storyteller" else f"openai:{config.model}"
