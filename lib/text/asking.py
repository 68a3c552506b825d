"""Many live asks at once: so many in flight, each retried as long as that can help, every attempt written down.

In:   Jobs, a client, an account (the ledger and the budget), a pace
Out:  answers appended to every Job; every attempt in the ledger before and after it goes out

What may go away by itself (429, 5xx, timeouts, cut connections, replies that are no chat completion) is tried again
after a growing, jittered pause, or after the Retry-After however long; such a job gives its place to the next one
meanwhile. Only `tries` failures in a row with no Retry-After end in a TransientError: everything answered so far is in
the ledger, and the next run goes on from there. A wrong key, an unknown model or a spent quota end it at once. An
answer that does not settle its request is asked for again with another seed.
"""

import asyncio
from collections.abc import Callable, Iterable

from lib.text.account import Account
from lib.text.client import Client
from lib.text.jobs import Job, Judge, Patience
from lib.text.ledger import LOST
from lib.text.outcomes import Attempt
from lib.text.pace import Clock, Pace

TICK_SECONDS = 0.5


class Asking:
    """One run of asks against one endpoint."""

    def __init__(
        self, client: Client, account: Account, judge: Judge, patience: Patience, pace: Pace, clock: Clock | None = None
    ) -> None:
        self._client, self._account, self._judge, self._pace = client, account, judge, pace
        self._clock = clock or Clock()
        self.begun = self.finished = self.waiting = self.sent = 0  # jobs, but `sent`: attempts
        self._slots = asyncio.Semaphore(patience.concurrency)
        self._turn = asyncio.Lock()  # who waits for the pace; first come, first served
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    async def run(self, jobs: Iterable[Job]) -> None:
        """Ask until every job has its last answer. Raises Stopped, UserError or TransientError.

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

    async def report(self, say: Callable[[int, str], None]) -> None:
        """Say twice a second how many jobs are finished, and how it goes, until cancelled."""
        started = self._clock.now()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            rate = self.sent / max(self._clock.now() - started, 1e-9)
            line = f"{rate:,.0f} requests/s, {max(self.sent - self.begun, 0):,} retries"
            say(self.finished, line + (f", {self.waiting:,} waiting" if self.waiting else ""))

    def stop(self) -> None:
        """Send nothing new."""
        self._stopping.set()

    async def _see_through(self, job: Job) -> None:
        """Ask until there is a last answer. Starts holding a slot, and gives it back."""
        try:
            while not self._stopping.is_set():
                pause = await self._try(job)
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
        await self._clock.sleep(seconds, self._stopping)
        self.waiting -= 1
        await self._slots.acquire()

    async def _try(self, job: Job) -> float | None:
        """Send once; seconds until the next try, None after the last answer."""
        payload = self._judge.formats.fitted(job.payload())
        sent = self._account.priced(job.request.request_id, job.attempts + 1, payload, planned=job.request.payload)
        await self._account.budget.reserve(sent.reserved)
        if not await self._may_go(sent.tokens):
            self._account.budget.settle(sent.reserved, 0)
            return 0.0
        job.attempts += 1
        job.sent += 1
        self.begun += job.sent == 1
        self.sent += 1
        self._account.intend(sent)
        try:
            attempt = job.heard(await self._client.ask(payload))
        except Exception as error:  # a fault of ours; what was sent may be billed all the same
            self._account.book(sent, Attempt(LOST, error=f"{type(error).__name__} while this was asked"))
            raise
        self._account.book(sent, attempt)
        pause = self._judge.pause(job, payload, attempt)
        self._learn(sent.tokens, attempt, pause)
        return pause

    async def _may_go(self, tokens: int) -> bool:
        """Wait until the pace allows this; False when the run stops before."""
        async with self._turn:
            while not self._stopping.is_set():
                seconds = self._pace.wait(tokens, self._clock.now())
                if seconds <= 0:
                    return True
                await self._clock.sleep(seconds, self._stopping)
        return False

    def _learn(self, tokens: int, attempt: Attempt, pause: float | None) -> None:
        if attempt.status == "rate_limited":
            self._pace.refused(pause or 0.0, self._clock.now())
        else:
            self._pace.answered()
        used = None if attempt.tokens_in is None else attempt.tokens_in + (attempt.tokens_out or 0)
        self._pace.settled(tokens, 0 if attempt.unbilled else used)
