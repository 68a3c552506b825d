"""Desk: one thread that writes every row asked of a model; rows join and leave between its steps.

In:   rows (lib/model/sampling.py), from any thread
Out:  tickets: each gives its row's ids as they are drawn, to a thread (`for`) or to an event loop (`async for`)
On:   nothing else touches the model's Batch; the thread ends when there is nothing left to write

At most BATCH rows are written at once; others wait in the order they came. Waking 64 readers takes longer than the step
of a small model: an event loop is called once for all of its rows, and where many are written, those that neither began
nor ended are told every few steps, a fiftieth of a second.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from lib.model.sampling import BATCH, Row, Sampler

CALM = 8  # rows: with so many times n of them, readers are told every n steps


class Ticket:
    """One row being written. Iterate once for lists of (id, log-probability); stop ids are not among them."""

    def __init__(self, desk: "Desk", row: Row) -> None:
        self.row = row
        self._desk = desk
        self._given = 0
        self._error: Exception | None = None
        self._news = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_news: asyncio.Event | None = None

    def cancel(self) -> None:
        """The row leaves before the next step."""
        self.row.done = True

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        self._desk.submit(self)
        try:
            while True:
                self._news.wait()
                self._news.clear()
                done = self.row.done  # looked at before the ids: what is drawn in between is the next round's
                if new := self._new():
                    yield new
                if done:
                    return
        finally:
            self.cancel()

    async def until(self, deadline: float) -> AsyncIterator[list[tuple[int, float]]]:
        """The same in an event loop; ends at `deadline` (the loop's time)."""
        self._loop, self._loop_news = asyncio.get_running_loop(), asyncio.Event()
        self._desk.submit(self)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._loop_news.wait()
                except TimeoutError:
                    return
                self._loop_news.clear()
                done = self.row.done
                if new := self._new():
                    yield new
                if done:
                    return
        finally:
            self.cancel()

    def _new(self) -> list[tuple[int, float]]:
        if self._error is not None:
            raise self._error
        begin, self._given = self._given, len(self.row.logprobs)  # appended to after the ids
        new = zip(self.row.ids[begin : self._given], self.row.logprobs[begin : self._given], strict=True)
        return [(piece, logprob) for piece, logprob in new if piece not in self.row.stop_ids]


class Desk:
    """A sampler that many callers share."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, ticket: Ticket) -> None:
        with self._lock:
            self._waiting.append(ticket)
            if self._thread is None:
                # Not a daemon: the interpreter ends after the last row, and not in the middle of a product (SIGABRT).
                self._thread = threading.Thread(target=self._write, name="desk")
                self._thread.start()

    def _write(self) -> None:
        """Until nobody is left: take in who waits, one step, hand out."""
        batch, writing, steps = self.sampler.batch(), [], 0
        while True:
            with self._lock:
                writing = [ticket for ticket in writing if not ticket.row.done]
                coming = [self._waiting.popleft() for _ in range(min(BATCH - len(writing), len(self._waiting)))]
                if not writing and not coming:
                    self._thread = None
                    return
            batch.join([ticket.row for ticket in coming])
            writing += coming
            try:
                batch.step()
            except Exception as error:  # it belongs to those who wait for these rows, who raise it
                for ticket in writing:
                    ticket._error, ticket.row.done = error, True
                batch = self.sampler.batch()
            steps += 1
            pause = max(len(writing) // CALM, 1)
            _tell([each for each in writing if each.row.done or len(each.row.ids) < 2 or steps % pause == 0])


def _tell(tickets: Sequence[Ticket]) -> None:
    """Wake who waits for these rows: each thread by its own event, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    for ticket in tickets:
        if ticket._loop is None:
            ticket._news.set()
        elif ticket._loop_news is not None:
            by_loop.setdefault(ticket._loop, []).append(ticket._loop_news)
    for loop, events in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set, events)


def _set(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()
