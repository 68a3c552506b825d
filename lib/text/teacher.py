"""A teacher and how it is asked: what every stage that buys text from a language model shares.

In:   requests (an id and a payload), the ledger in data/requests/, a TeacherConfig
Out:  every request settled in the ledger, a record of how this run went; `known`, what the ledger says of some requests
Relies on lib/text/sending.py (live or by batch, within the budget), lib/text/ledger (every attempt written down)

The ledger is looked at first, and a request that was answered is never sent again, whichever run or config asked it. A
request is named by what decides its answer: model, messages, sampling parameters, and its number among equal requests.
Where the teacher lives, keys, prices, pace and budget are no part of the name. Requests are made, looked up and sent a
window at a time (lib/text/standing.py); whoever wants their answers asks `known` for as many as it can hold.

The built-in storyteller is started and stopped here; any other OpenAI-compatible endpoint is reached at `base_url`,
with a key that enters no config, file or log.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lib.errors import UserError
from lib.store import Config, Progress, digest, lock, root, runtime
from lib.text import ledger
from lib.text.budget import Price
from lib.text.replies import Fault
from lib.text.standing import Requests, look
from lib.text.storyteller import HARMLESS, MODEL, Mischief, running
from lib.text.tally import Tally

KEY_VARIABLE = "OPENAI_API_KEY"
UNNAMED = ("messages", "seed")  # what is no part of a request's settings
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
    structured: Literal["schema", "json", "text"] = Field(
        "schema", description="ask for a JSON schema, for JSON, or for plain text, whichever the endpoint can"
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
    budget: float | None = runtime(None, ge=0, description="dollars that all of this plan's requests may ever cost")
    requests_per_minute: float | None = runtime(None, gt=0, description="most requests a minute; null: no limit")
    tokens_per_minute: float | None = runtime(None, gt=0, description="most tokens a minute; null: no limit")
    transport: Literal["live", "batch", "mixed"] = runtime(
        "live", description="ask at once, hand over batches that are answered within a day for less, or both"
    )
    batch_share: float = runtime(0.5, ge=0, le=1, description="share of the requests that mixed hands over")
    batch_discount: float = runtime(0.5, ge=0, lt=1, description="what a batch takes off the price")
    batch_requests: int = runtime(50_000, ge=1, le=50_000, description="most requests in one batch")
    batch_poll_seconds: float = runtime(30.0, gt=0, description="seconds between two looks at a batch")

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.teacher == "openai" and self.model == MODEL:
            raise ValueError("teacher openai needs the name of a model; give --model, and --base-url if not OpenAI's")
        if self.teacher == "openai" and self.mischief:
            raise ValueError("only the built-in storyteller can be told to misbehave; leave out mischief")
        if self.teacher == "openai" and self.budget is not None and not (self.price_in and self.price_out):
            raise ValueError(
                f"a budget needs prices to count with, found price_in {self.price_in:g} and price_out "
                f"{self.price_out:g}: give price_in and price_out, or leave out budget"
            )
        if self.price_cached is not None and self.price_cached > self.price_in:
            raise ValueError(
                f"price_cached is {self.price_cached:g} and price_in {self.price_in:g}, but cached tokens are the "
                "cheaper ones; set price_cached to at most price_in, or leave it out"
            )
        return self

    @property
    def source(self) -> str:
        """Who answers, as it stands in every row."""
        return "storyteller" if self.teacher == "storyteller" else f"openai:{self.model}"

    def prices(self) -> dict[str, Price]:
        """By transport: a batch costs `batch_discount` less."""
        live = Price(self.price_in, self.price_out, self.price_cached, self.price_version)
        return {"live": live, "batch": live.less(self.batch_discount)}

    def settings(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What every request says, besides its messages and its seed; `schema` is the format to have answers in."""
        given = {"model": self.model, self.token_limit: self.max_tokens, "temperature": self.temperature}
        given["response_format"] = {"schema": schema, "json": {"type": "json_object"}, "text": None}[self.structured]
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Request:
    """One request as it is sent, and how its answers are read."""

    request_id: str
    payload: dict[str, Any]
    read: Callable[[str], Fault | None]  # what is wrong with one answer's content; None: it holds what was asked for
    settled: Callable[[Sequence[ledger.Answer]], bool]  # whether these answers are the last word


class Names:
    """Names requests. Equal ones are told apart by number: each gets an answer of its own.

    What was named before is known by 8 bytes each: two different requests that share them (among a million, once in
    forty million plans) are numbered as if they were equal, and have different names all the same.
    """

    def __init__(self, config: TeacherConfig) -> None:
        mischief = config.mischief.model_dump(exclude=HARMLESS, exclude_defaults=True) if config.mischief else {}
        self._mischief, self._seen = mischief, Tally()
        self._settings: dict[str, str] = {}  # most of the work is in them, and a plan has two or three

    def name(self, payload: dict[str, Any]) -> str:
        settings = {key: value for key, value in payload.items() if key != "messages"}
        if (said := repr(settings)) not in self._settings:
            self._settings[said] = digest([settings, self._mischief])
        asked = digest([self._settings[said], payload["messages"]])
        return digest([asked, self._seen.add(int(asked[:16], 16))])[:20]


def settings_of(payload: Mapping[str, Any]) -> str:
    """A name for everything in a request but its messages and its seed: what its price per story depends on."""
    return digest({key: value for key, value in payload.items() if key not in UNNAMED})[:12]


def settle(
    config: TeacherConfig,
    requests: Requests,
    progress: Progress,
    api_key: Key | None = None,
    fewer: Callable[[int], str] | None = None,
    most: int | None = None,
) -> dict[str, Any]:
    """Bring requests to their last word, all of them or the first `most` that have none; gives back how that went.

    `api_key` is called where the key is needed. `fewer` says how to go on with the first so many requests alone, when
    the budget ends the run.
    """
    with lock("requests", "the ledger in data/requests", progress):
        ledger.seal(root())
        standing, total = look(requests), len(requests)
        before, chosen = standing.answered, standing.missing[:most]
        progress(f"{before:,} of {total:,} requests were answered before", before, total)
        record: dict[str, Any] = {"asks": total, "answered_before": before, "asked_now": len(chosen)}
        if len(chosen):
            from lib.text.sending import Plan, send  # here, because configs import without the openai client

            with _reachable(config, api_key) as (base_url, key):
                record |= send(Plan(config, requests, chosen, standing), base_url, key, progress, fewer)
        ledger.seal(root())
    return record


def known(request_ids: Iterable[str]) -> dict[str, ledger.Past]:
    """What the ledger knows of these requests."""
    wanted = list(request_ids)
    past = ledger.load(root(), wanted)
    return {request_id: past.get(request_id) or ledger.Past() for request_id in wanted}


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
            f"found no API key for {config.model}; put it in {KEY_VARIABLE}, or in the Prefect Secret block "
            "openai-api-key (an endpoint that checks no key takes any word)"
        )
    yield config.base_url or OPENAI_URL, key
