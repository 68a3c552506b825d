"""A teacher and how it is asked: what every stage that buys text from a language model shares.

In:   requests (an id and a payload), the ledger in data/requests/, a TeacherConfig
Out:  what the ledger knows of each request once all are settled; _record/asking.json on how this run went
Relies on lib/text/asking.py (many at once, retries), client.py (one attempt), ledger.py (every attempt written down)

The ledger is looked at first, and a request that was answered is never sent again, whichever run or config asked it. A
request is named by what decides its answer: model, messages, sampling parameters, and its number among equal requests.
Where the teacher lives, keys, prices and speed are no part of the name. The built-in storyteller is started and stopped
here; any other OpenAI-compatible endpoint is reached at `base_url`, with a key that enters no config, file or log.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from lib.errors import UserError
from lib.store import Config, Draft, digest, lock, root, runtime
from lib.text import ledger
from lib.text.replies import Fault
from lib.text.storyteller import MODEL, Mischief, running

if TYPE_CHECKING:
    from lib.text.asking import Job

HARMLESS = {"rate_limited", "server_error", "slow", "retry_after"}  # mischief that changes no answer
KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
Key = Callable[[], str]


class TeacherConfig(Config):
    """Whom to ask, and how."""

    teacher: Literal["storyteller", "openai"] = Field(
        "storyteller", description="the built-in storyteller, or any OpenAI-compatible endpoint"
    )
    model: str = Field(MODEL, min_length=1, description="the model to ask")
    base_url: str = runtime(
        "", pattern=r"^(https?://[^\s@]+)?$", description="where the teacher is, for example http://host/v1"
    )
    temperature: float | None = Field(1.0, ge=0, le=2, description="of the teacher's sampling; null sends none")
    max_tokens: int = Field(600, ge=16, description="longest reply, in tokens")
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the endpoint calls that limit; OpenAI's reasoning models know only the second"
    )
    seeded: bool = Field(True, description="send a seed of its own with each request; some endpoints refuse one")
    reasks: int = Field(2, ge=0, le=20, description="how often an answer without a story is asked for again")
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

    @property
    def source(self) -> str:
        """Who answers, as it stands in every row."""
        return "storyteller" if self.teacher == "storyteller" else f"openai:{self.model}"

    def settings(self) -> dict[str, Any]:
        """What every request says, besides its messages, its response format and its seed."""
        given = {"model": self.model, self.token_limit: self.max_tokens, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Request:
    """One request as it is sent, and how its answers are read."""

    request_id: str
    payload: dict[str, Any]
    read: Callable[[str], Fault | None]  # what is wrong with one answer's content; None: it holds what was asked for
    settled: Callable[[Sequence[ledger.Answer]], bool]  # whether these answers are the last word


class Names:
    """Names requests. Equal ones are told apart by number: each gets an answer of its own."""

    def __init__(self, config: TeacherConfig) -> None:
        mischief = config.mischief.model_dump(exclude=HARMLESS, exclude_defaults=True) if config.mischief else {}
        self._mischief, self._seen = mischief, Counter[str]()

    def name(self, payload: dict[str, Any]) -> str:
        settings = {key: value for key, value in payload.items() if key != "messages"}
        asked = digest([digest([settings, self._mischief]), payload["messages"]])
        request_id = digest([asked, self._seen[asked]])[:20]
        self._seen[asked] += 1
        return request_id


def answered(
    draft: Draft, config: TeacherConfig, requests: Sequence[Request], api_key: Key | None = None
) -> dict[str, ledger.Past]:
    """What the ledger knows of these requests once every one is settled: asks for what it does not know yet.

    `api_key` is called where the key is needed.
    """
    with lock("requests", "the ledger in data/requests", draft.progress):
        ledger.seal(root())
        past = ledger.load(root(), (request.request_id for request in requests))
        _ask_for_the_missing(draft, config, requests, past, api_key)
        ledger.seal(root())
    return past


def _ask_for_the_missing(
    draft: Draft,
    config: TeacherConfig,
    requests: Sequence[Request],
    past: dict[str, ledger.Past],
    api_key: Key | None,
) -> None:
    """Bring `past` to a last word for every request, and record how that went."""
    for request in requests:
        past.setdefault(request.request_id, ledger.Past(attempts=0, answers=[]))
    missing = [request for request in requests if not request.settled(past[request.request_id].answers)]
    known = len(requests) - len(missing)
    draft.progress(f"{known:,} of {len(requests):,} requests were answered before", known, len(requests))
    record: dict[str, Any] = {"asks": len(requests), "answered_before": known, "asked_now": len(missing)}
    if missing:
        with _reachable(config, api_key) as (base_url, key):
            jobs = list(_jobs(config, missing, past))
            record |= asyncio.run(_run(draft, config, jobs, known, base_url, key))
    draft.write_json("_record/asking.json", record)


def _jobs(config: TeacherConfig, requests: Iterable[Request], past: dict[str, ledger.Past]) -> Iterator["Job"]:
    from lib.text.asking import Job  # here, because configs import without the openai client

    for request in requests:
        known = past[request.request_id]

        def seed(answers: int, request_id: str = request.request_id) -> int:
            return int(digest([request_id, answers])[:7], 16)

        yield Job(request, seed if config.seeded else None, known.attempts, known.answers)


async def _run(
    draft: Draft, config: TeacherConfig, jobs: "list[Job]", known: int, base_url: str, key: str
) -> dict[str, Any]:
    """Ask for these jobs; what was sent, what came, what it cost."""
    from lib.text.asking import Asking, Patience, Price
    from lib.text.client import Client

    client = Client(base_url, key, deadline=config.deadline, connections=config.concurrency)
    patience = Patience(config.concurrency, config.tries, config.backoff)
    price = Price(config.price_in, config.price_out, config.price_cached, config.price_version)
    started = time.monotonic()
    with ledger.Writer(root()) as writer:
        asking = Asking(client, writer, config.source, base_url, patience, price)
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
def _reachable(config: TeacherConfig, api_key: Key | None) -> Iterator[tuple[str, str]]:
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
