"""The batch transport: requests handed over by the thousand, answered within a day, at a discount.

In:   Jobs; batches of earlier runs that hold some of them; a client, an account
Out:  answers appended to every Job, one ledger row per line of every batch

OpenAI's batch API: a file of up to 50,000 lines and 200 MB is uploaded, a batch is created of it, and when that has
ended its output file and its error file hold one line per request, in any order, told apart by custom_id. What a batch
did not come to within its day is not billed. Every batch is written down before it goes out (batch_records.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lib.errors import TransientError, UserError
from lib.text.account import Account, Sent
from lib.text.batch_records import Record, custom_id, parted, prepare
from lib.text.budget import Exhausted
from lib.text.client import Client, Failed
from lib.text.jobs import LONGEST_PAUSE, Job, Judge, Patience
from lib.text.ledger import LOST
from lib.text.outcomes import FATAL, Attempt
from lib.text.pace import Clock

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000  # of one batch, as OpenAI has it
MOST_FLYING = 4 * MOST_REQUESTS  # requests in batches at a time, at some 3 KB each: the next go when one has ended
LINE_BYTES = 200  # of a line, besides its payload


@dataclass
class Flight:
    """One batch on its way."""

    record: Record
    jobs: dict[str, Job]  # by custom_id: the lines that this run waits for
    ours: set[str]  # custom_ids of this plan, whose cost is held in its budget; lines of other plans are just booked
    booked: set[str] = field(default_factory=set)  # custom_ids that are in the ledger: a run was killed while it booked


@dataclass(frozen=True)
class Terms:
    """How batches are made."""

    base_url: str = ""  # as the config has it
    poll_seconds: float = 30.0
    most_requests: int = MOST_REQUESTS


class Batches:
    """One run's batches."""

    def __init__(
        self, client: Client, account: Account, judge: Judge, patience: Patience, terms: Terms, root: Path
    ) -> None:
        self._client, self._account, self._judge, self._patience = client, account, judge, patience
        self._terms, self._root, self._clock, self._never = terms, root, Clock(), asyncio.Event()
        self.flying: dict[str, Flight] = {}
        self.finished = 0

    def adopt(self, flight: Flight) -> None:
        """Take over a batch of an earlier run."""
        for name, job in flight.jobs.items():
            job.attempts = parted(name)[1]
        self._account.budget.hold(self.worst(flight))
        self.flying[flight.record.key] = flight

    def worst(self, flight: Flight) -> int:
        """Micro-dollars that this plan's lines in it can cost at most."""
        lines = flight.record.lines(self._root)
        return sum(self._sent(flight.record, name, lines[name]).reserved for name in flight.ours)

    async def run(self, jobs: Iterable[Job], repeat: bool = True) -> list[Job]:
        """Until every batch has ended. What is left then, because `repeat` says not to hand it over again."""
        source, waiting, left = iter(jobs), list[Job](), list[Job]()
        for key in list(self.flying):
            waiting += await self._locate(key)
        while (waiting := await self._hand_over(waiting, source)) or self.flying:
            again = [job for key in list(self.flying) for job in await self._look_at(key)]
            (waiting if repeat else left).extend(again)
            if waiting or self.flying:
                await self._clock.sleep(self._terms.poll_seconds, self._never)
        return left

    def state(self) -> str:
        """For a progress line."""
        return f"{self._inside:,} in {len(self.flying)} batch{'es' * (len(self.flying) > 1)}" if self.flying else ""

    # ---- handing over

    @property
    def _inside(self) -> int:
        return sum(len(flight.jobs) for flight in self.flying.values())

    async def _hand_over(self, waiting: list[Job], source: Iterator[Job]) -> list[Job]:
        """As many batches as there is room for now, in the budget and in memory; gives back who has to wait."""
        most = self._terms.most_requests
        while self._inside + most <= max(MOST_FLYING, most):
            waiting = waiting + list(islice(source, max(most - len(waiting), 0)))
            if not waiting:
                break
            taken = self._fill(waiting)
            if not taken:
                if not self.flying and not self._account.budget.reserved:
                    raise Exhausted("not one more request fits the budget")
                break
            record = Record(self._account.teacher, self._terms.base_url, self._account.prices["batch"])
            jobs = dict(zip(taken, waiting, strict=False))
            text = prepare(self._root, record, taken)
            for job in jobs.values():
                job.attempts += 1
                job.sent += 1
            self.flying[record.key] = Flight(record, jobs, ours=set(jobs))
            await self._create(record, text)
            waiting = waiting[len(taken) :]
        return waiting

    def _fill(self, waiting: list[Job]) -> dict[str, dict[str, Any]]:
        """The first of these that make a batch: custom_id → payload, each reserved."""
        taken, size = {}, 0
        for job in waiting[: self._terms.most_requests]:
            payload = self._judge.formats.fitted(job.payload())
            sent = self._account.priced(job.request.request_id, job.attempts + 1, payload, "batch")
            size += sent.tokens + LINE_BYTES  # its prompt has no more tokens than bytes
            if not self._account.budget.fits(sent.reserved) or (taken and size > MOST_BYTES):
                break
            self._account.budget.hold(sent.reserved)
            taken[custom_id(sent.request_id, sent.attempt)] = payload
        return taken

    async def _create(self, record: Record, text: bytes) -> None:
        """Upload and create. Where it is not certain that it was created, look before doing it again."""
        file_id = await self._insist(lambda: self._client.upload(f"storymill-{record.key}.jsonl", text))

        async def once() -> str:
            found = await self._client.find_batch(record.key) if tried else None
            tried.append(True)
            return found or await self._client.create_batch(file_id, record.key)

        tried: list[bool] = []
        record.batch_id = await self._insist(once)
        record.write(self._root)

    async def _locate(self, key: str) -> list[Job]:
        """Find a batch whose run ended before it knew the id. One that was never created gives its jobs back."""
        flight = self.flying[key]
        record = flight.record
        if record.batch_id is None:
            record.batch_id = await self._insist(lambda: self._client.find_batch(key))
            if record.batch_id is None:
                self._account.budget.settle(self.worst(flight), 0)
                for job in flight.jobs.values():
                    job.attempts -= 1
                self._forget(key)
                return list(flight.jobs.values())
            record.write(self._root)
        return []

    # ---- fetching

    async def _look_at(self, key: str) -> list[Job]:
        """If this batch has ended, book what it holds; gives back who has to be asked again."""
        batch_id = str(self.flying[key].record.batch_id)
        end = await self._insist(lambda: self._client.batch(batch_id))
        if end is None:
            return []
        found: dict[str, Attempt] = {}
        otherwise = end.otherwise
        for file_id in end.files:
            lines = await self._insist(lambda file_id=file_id: self._client.batch_lines(file_id))
            if lines is None:  # deleted, with answers that are paid for
                otherwise = Attempt(LOST, error="the endpoint has no such file of this batch any more")
            found |= lines or {}
        return self._booked(key, found, otherwise)

    def _booked(self, key: str, found: dict[str, Attempt], otherwise: Attempt) -> list[Job]:
        """Every line into the ledger, then judged; gives back who has to be asked again."""
        flight = self.flying[key]
        heard: list[tuple[Job, dict[str, Any], Attempt]] = []
        for name, payload in flight.record.lines(self._root).items():
            if name in flight.booked:
                continue
            attempt = found.get(name, otherwise)
            if job := flight.jobs.get(name):
                attempt = job.heard(attempt)
                heard.append((job, payload, attempt))
            self._account.book(self._sent(flight.record, name, payload), attempt, ours=name in flight.ours)
        self._account.flush()
        self._forget(key)
        again = [job for job, payload, attempt in heard if self._judge.pause(job, payload, attempt) is not None]
        self.finished += len(heard) - len(again)
        return again

    def _forget(self, key: str) -> None:
        self.flying.pop(key).record.forget(self._root)

    def _sent(self, record: Record, name: str, payload: dict[str, Any]) -> Sent:
        return self._account.priced(*parted(name), payload, "batch", record.price)

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What a call about batches gives, tried again as long as that can help."""
        for failures in range(self._patience.tries):
            try:
                return await call()
            except Failed as failed:
                attempt = failed.attempt
                if attempt.status in FATAL:
                    why = f"{attempt.http_status} ({attempt.error}): {FATAL[attempt.status]}"
                    raise UserError(f"the endpoint takes no batch, {why}; transport live needs none") from None
                pause = min(self._patience.backoff * 2**failures, LONGEST_PAUSE) + (attempt.retry_after or 0.0)
                last = f"{attempt.status} ({attempt.error})"
            await self._clock.sleep(pause, self._never)
        raise TransientError(
            f"{self._patience.tries} calls about batches failed in a row, the last one with {last}. Nothing is lost: "
            "run the same command again, and it goes on with the batches that were handed over"
        )
