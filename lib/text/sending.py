"""One run of sending: who goes live and who by batch, under one pace and one budget, and how it ended.

In:   a plan's requests, which of them are to be asked, how the plan stands in the ledger
Out:  every attempt in the ledger; a record of what was sent, what came, what it cost. Stopped where the budget ends
Relies on asking.py (live), batches.py (by batch), account.py (ledger and budget)

Jobs are made a window at a time, as they are sent: no window waits for the one before it to end.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.errors import Stopped, UserError
from lib.store import Progress, digest, root
from lib.text import batch_records, ledger
from lib.text.account import Account
from lib.text.asking import Asking
from lib.text.batches import Batches, Flight, Terms
from lib.text.budget import MICRO, Budget, Exhausted, microdollars
from lib.text.client import Client
from lib.text.jobs import Formats, Job, Judge, Patience
from lib.text.pace import Pace
from lib.text.standing import TRIED, Numbers, Requests, Standing, by_window, look
from lib.text.teacher import TeacherConfig


@dataclass(frozen=True)
class Plan:
    """What is wanted, what of it is asked for now, and how it stands."""

    config: TeacherConfig
    requests: Requests
    chosen: Numbers
    standing: Standing

    def jobs(self, numbers: Numbers) -> Iterator[Job]:
        """Those requests as jobs, made a window at a time."""
        for wanted in by_window(numbers):
            window = self.requests[wanted[0] : wanted[-1] + 1]
            tried = [number - wanted[0] for number in wanted if self.standing.states[number] == TRIED]
            past = ledger.load(root(), (window[place].request_id for place in tried), sealed=True)
            for number in wanted:
                request = window[number - wanted[0]]

                def seed(answers: int, request_id: str = request.request_id) -> int:
                    return int(digest([request_id, answers])[:7], 16)

                known = past.get(request.request_id) or ledger.Past()
                yield Job(request, seed if self.config.seeded else None, known.attempts, known.answers)


def send(
    plan: Plan, base_url: str, key: str, progress: Progress, fewer: Callable[[int], str] | None = None
) -> dict[str, Any]:
    """Ask for what the plan has chosen; what was sent, what came, what it cost."""
    return asyncio.run(_send(plan, base_url, key, progress, fewer))


async def _send(
    plan: Plan, base_url: str, key: str, progress: Progress, fewer: Callable[[int], str] | None
) -> dict[str, Any]:
    config = plan.config
    budget = Budget(None if config.budget is None else microdollars(config.budget), plan.standing.spent)
    client = Client(base_url, key, deadline=config.deadline, connections=config.concurrency + 1)  # one for batches
    started = time.monotonic()
    try:
        with ledger.Writer(root()) as writer:
            account = Account(writer, config.source, budget, config.prices())
            run = _Run(plan, client, account, base_url, progress)
            ticking = asyncio.create_task(run.asking.report(run.say))
            try:
                await run.through()
            finally:
                ticking.cancel()
                await client.close()
    except Exhausted:
        ledger.seal(root())
        raise Stopped(_out_of_budget(look(plan.requests), budget, fewer)) from None
    seconds = time.monotonic() - started
    return {
        "attempts": account.attempts,
        "statuses": dict(sorted(account.statuses.items())),
        "cost_microdollars": account.cost_microdollars,
        "unknown_microdollars": account.unknown_microdollars,  # of attempts whose cost nobody knows: the most it can be
        "spent_microdollars": budget.spent,  # by this plan's requests, ever
        "seconds": round(seconds, 3),
        "requests_per_second": round(account.attempts / seconds, 1),
    }


class _Run:
    """The two ways of sending, side by side."""

    def __init__(self, plan: Plan, client: Client, account: Account, base_url: str, progress: Progress) -> None:
        config = plan.config
        self._plan, self._account, self._progress = plan, account, progress
        patience = Patience(config.concurrency, config.tries, config.backoff)
        formats = Formats(lambda text: progress(text, None, None))
        judge = Judge(f"the teacher {config.source} at {base_url}", patience, formats, self._kept)
        pace = Pace(config.requests_per_minute, config.tokens_per_minute)
        terms = Terms(config.base_url, config.batch_poll_seconds, config.batch_requests)
        self.asking = Asking(client, account, judge, patience, pace)
        self._batches = Batches(client, account, judge, patience, terms, root())
        self._before = len(plan.requests) - len(plan.chosen)

    async def through(self) -> None:
        """Send until every job has its last answer. One that fails ends the other, whose answers are kept."""
        live, handed = map(self._plan.jobs, self._parted(self._left_after_adopting()))
        ways = [asyncio.create_task(self.asking.run(live)), asyncio.create_task(self._by_batch(handed))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:  # Ctrl-C: nobody waits for those in flight
            ways[0].cancel()
            raise
        finally:
            self.asking.stop()
            ways[1].cancel()  # what is in a batch is written down: the next run fetches it
            ended = await asyncio.gather(*ways, return_exceptions=True)
        for failure in (each for each in ended if isinstance(each, Exception)):
            raise failure

    async def _by_batch(self, jobs: Iterator[Job]) -> None:
        left = await self._batches.run(jobs, repeat=self._plan.config.transport == "batch")
        await self.asking.run(left)

    def _parted(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Those to send live, those to hand over."""
        config = self._plan.config
        share = {"live": 0.0, "batch": 1.0, "mixed": config.batch_share}[config.transport]
        first = len(numbers) - round(share * len(numbers))
        return numbers[:first], numbers[first:]

    def _left_after_adopting(self) -> Numbers:
        """Take over every batch of an earlier run that holds some of these; gives back who is in none."""
        chosen, wanted = self._plan.chosen, self._plan.standing.waiting
        in_batches = np.intersect1d(chosen, np.fromiter(wanted.values(), np.uint32))
        by_id = {job.request.request_id: job for job in self._plan.jobs(in_batches)}
        taken: list[int] = []
        for record in batch_records.pending(root()):
            names = {name: batch_records.parted(name) for name in record.lines(root())}
            past = ledger.load(root(), (each for each, _ in names.values()), sealed=True)
            booked = {
                name for name, (each, attempt) in names.items() if each in past and attempt <= past[each].attempts
            }
            if len(booked) == len(names):  # a run was killed just before it could forget this one
                record.forget(root())
                continue
            ours = {name for name, (each, _) in names.items() if each in wanted} - booked
            inside = {name: by_id.pop(names[name][0]) for name in sorted(ours) if names[name][0] in by_id}
            taken += (wanted[names[name][0]] for name in inside)
            flight = Flight(record, inside, ours, booked)
            if inside:
                self._refuse_another_address(record, len(names))
                self._batches.adopt(flight)
            elif ours:  # nobody fetches it in this run, and it can cost all that
                self._account.budget.settle(0, self._batches.worst(flight))
        return np.setdiff1d(chosen, np.array(taken, np.uint32))

    def _refuse_another_address(self, record: batch_records.Record, lines: int) -> None:
        here, there = self._plan.config.base_url, record.base_url
        if here != there:
            raise UserError(
                f"batch {record.batch_id or record.key} with {lines:,} requests was handed over to "
                f"{there or 'the default address'}, and now base_url is {here or 'the default address'}. Go on with "
                f"the first to fetch it, or delete {record.path(root())} to give it up"
            )

    def say(self, finished: int, line: str) -> None:
        """One line of progress."""
        done, total = self._before + finished + self._batches.finished, len(self._plan.requests)
        parts = [f"{done:,} of {total:,} requests answered", line, self._batches.state(), self._money()]
        self._progress(", ".join(filter(None, parts)), done, total)

    def _money(self) -> str:
        budget = self._account.budget
        if budget.limit is None:
            return f"${budget.spent / MICRO:.4f} spent" if budget.spent else ""
        return f"${budget.spent / MICRO:.4f} of ${budget.limit / MICRO:.4f} spent"

    def _kept(self) -> str:
        answered = sum(self._account.statuses[status] for status in ledger.ANSWERED)
        return f"{answered:,} of {self._account.attempts:,} attempts of this run were answered"


def _out_of_budget(standing: Standing, budget: Budget, fewer: Callable[[int], str] | None) -> str:
    limit = budget.limit or 0
    text = (
        f"stopped for the budget: {standing.answered:,} of {len(standing.states):,} requests are answered, "
        f"${budget.spent / MICRO:.6f} of ${limit / MICRO:.6f} are spent, and the next request could cost more than is "
        "left. Everything is kept. Raise the budget (for stories: --generate.budget) and run the same command again"
    )
    return text + (
        f", or {fewer(standing.leading)} to go on with what is there." if fewer and standing.leading else "."
    )
