"""Many asks at once: so many in flight, each retried as long as that can help, every attempt written down.

In:   Jobs, a client, a ledger writer
Out:  answers appended to every Job; every attempt in the ledger before anything else happens to it

What may go away by itself (429, 5xx, timeouts, cut connections, replies that are no chat completion) is tried again
after a growing, jittered pause, or after the Retry-After however long; such a job gives its place to the next one
meanwhile. Only `tries` failures in a row with no Retry-After end in a TransientError: everything answered so far is in
the ledger, and the next run goes on from there. A wrong key, an unknown model or a spent quota end it at once. An
answer that does not settle its request is asked for again with another seed.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from lib.errors import TransientError, UserError
from lib.text.client import Client
from lib.text.ledger import ANSWERED, Answer, Writer
from lib.text.outcomes import FATAL, NO_STORY, Attempt, Price
from lib.text.teacher import Request

TICK_SECONDS = 0.5
LONGEST_PAUSE = 30.0  # seconds, where no Retry-After says otherwise
REFUSALS_IN_A_ROW = 8  # 429s with no other answer between them: everything waits, not only the refused


@dataclass(frozen=True)
class Patience:
    """How long to go on. Nothing in it can change an answer."""

    concurrency: int = 32
    tries: int = 6
    backoff: float = 0.5  # seconds before the second try; doubles


@dataclass
class Job:
    """One request that has to be answered."""

    request: Request
    seeds: Callable[[int], int] | None  # answers so far -> the seed of the next ask: equal in every run
    attempts: int = 0
    answers: list[Answer] = field(default_factory=list)
    sent: int = 0  # in this run
    failures: int = 0  # in a row, those with a Retry-After left out


class Asking:
    """One run of asks against one endpoint."""

    def __init__(
        self, client: Client, ledger: Writer, teacher: str, base_url: str, patience: Patience, price: Price
    ) -> None:
        self._client, self._ledger, self._patience, self._price = client, ledger, patience, price
        self.teacher, self.base_url = teacher, base_url
        self.statuses: Counter[str] = Counter()
        self.cost_microdollars = self.begun = self.finished = self.waiting = 0  # begun, finished, waiting: jobs
        self._slots = asyncio.Semaphore(patience.concurrency)
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        self._refused, self._closed_until = 0, 0.0
        self._dice = random.Random()  # for pauses only

    @property
    def attempts(self) -> int:
        return self.statuses.total()

    async def run(self, jobs: Iterable[Job]) -> None:
        """Ask until every job has its last answer. Raises UserError or TransientError.

        When one job fails, those in flight end first (their answers are paid for), and nothing new is sent.
        """
        running: set[asyncio.Task[None]] = set()
        try:
            for job in jobs:
                await self._slots.acquire()
                if self._stopping.is_set():
                    break
                task = asyncio.create_task(self._see_through(job))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)
        finally:
            for task in running:  # only when something else went wrong, or on Ctrl-C
                task.cancel()
        if self._failure:
            raise self._failure

    async def report(self, progress: Callable[[str, float, float], None], known: int, total: int) -> None:
        """Say twice a second how far it is, until cancelled."""
        started = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            rate, retries = self.attempts / (time.monotonic() - started), max(self.attempts - self.begun, 0)
            line = f"{known + self.finished:,} of {total:,} stories, {rate:,.0f} requests/s, {retries:,} retries"
            progress(line + (f", {self.waiting:,} waiting" if self.waiting else ""), known + self.finished, total)

    async def _see_through(self, job: Job) -> None:
        """Ask until there is a last answer. Starts holding a slot, and gives it back."""
        try:
            while not self._stopping.is_set():
                await self._wait_for_the_gate()
                pause = self._judge(job, await self._attempt(job))
                if pause is None:
                    self.finished += 1
                    return
                if pause:
                    await self._step_aside(pause)
        except Exception as error:  # also a full disk under the ledger; `run` raises it
            self._failure = self._failure or error
            self._stopping.set()
        finally:
            self._slots.release()

    async def _step_aside(self, seconds: float) -> None:
        """Wait without holding a slot."""
        self._slots.release()
        self.waiting += 1
        await self._sleep(seconds)
        self.waiting -= 1
        await self._slots.acquire()

    async def _attempt(self, job: Job) -> Attempt:
        """Send once, and write down what came."""
        seed = {"seed": job.seeds(len(job.answers))} if job.seeds else {}
        attempt = await self._client.ask({**job.request.payload, **seed})
        status, error = attempt.status, attempt.error
        if status == "ok" and (fault := job.request.read(attempt.content or "")):
            status, error = "unreadable", f"{fault.reason}: {fault.detail}"
        job.attempts += 1
        job.sent += 1
        self.begun += job.sent == 1
        cost = self._price.cost(attempt)
        self._ledger.append(self._row(job, replace(attempt, status=status, error=error), cost))
        self.statuses[status] += 1
        self.cost_microdollars += cost or 0
        if status in ANSWERED:
            job.answers.append(Answer(status, attempt.content or "", attempt.model or job.request.payload["model"]))
        return attempt

    def _row(self, job: Job, attempt: Attempt, cost: int | None) -> dict[str, Any]:
        """The attempt as the ledger keeps it."""
        return {
            "request_id": job.request.request_id,
            "attempt": job.attempts,
            "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "teacher": self.teacher,
            "model": attempt.model or job.request.payload["model"],
            "status": attempt.status,
            "http_status": attempt.http_status,
            "latency_ms": attempt.latency_ms,
            "tokens_in": attempt.tokens_in,
            "tokens_out": attempt.tokens_out,
            "tokens_cached": attempt.tokens_cached,
            "price_version": self._price.version,
            "cost_microdollars": cost,
            "retry_after": attempt.retry_after,
            "error": attempt.error,
            "raw": attempt.content,
            "prompt": job.request.payload["messages"][-1]["content"],
        }

    def _judge(self, job: Job, attempt: Attempt) -> float | None:
        """Seconds until the next try; None when this was the last answer. Raises where no try can help."""
        status = attempt.status
        self._refused = self._refused + 1 if status == "rate_limited" else 0
        if status == "ok" or status in NO_STORY:
            job.failures = 0
            return None if job.request.settled(job.answers) else 0.0
        if status in FATAL:
            raise UserError(f"{self._where()} answered {attempt.http_status} ({attempt.error}): {FATAL[status]}")
        pause = min(self._patience.backoff * 2 ** min(job.failures, 30), LONGEST_PAUSE) * self._dice.uniform(0.5, 1.0)
        if attempt.retry_after is not None:
            pause += attempt.retry_after  # as asked, however long; the jitter keeps the waiting from coming back as one
        else:
            job.failures += 1
            if job.failures >= self._patience.tries:
                raise TransientError(self._gave_up(job, attempt))
        if self._refused >= REFUSALS_IN_A_ROW:
            self._closed_until = max(self._closed_until, time.monotonic() + pause)
        return pause

    def _where(self) -> str:
        return f"the teacher {self.teacher} at {self.base_url}"

    def _gave_up(self, job: Job, attempt: Attempt) -> str:
        answered = sum(self.statuses[status] for status in ANSWERED)
        return (
            f"{self._where()} failed {job.failures} times in a row on request {job.request.request_id}, the last time "
            f"with {attempt.status} ({attempt.error}); {answered:,} of {self.attempts:,} attempts of this run were "
            "answered. Check that it is running and reachable, then run the same command again: what was answered is "
            "kept, and nothing is asked for twice."
        )

    async def _wait_for_the_gate(self) -> None:
        while (closed := self._closed_until - time.monotonic()) > 0 and not self._stopping.is_set():
            await self._sleep(closed)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but wake up when the run stops."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
