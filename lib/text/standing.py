"""How a plan stands: which of its requests have their last word, and what was spent on them. One byte a request.

In:   requests, made window by window; the ledger, and the batches that were handed over
Out:  Standing, for as many requests as there are: what is missing, how many lead without a gap, what was spent

Nothing here holds more than a window of requests with what the ledger knows of them. Over a whole plan there remain the
state (1 byte a request) and, while they are being asked for, the numbers of the missing ones (4 bytes).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lib.store import root
from lib.text import batch_records, ledger

if TYPE_CHECKING:
    from lib.text.teacher import Request

WINDOW = 8192  # requests worked on at a time, with their answers: some 40 MB
UNASKED, TRIED, SETTLED = range(3)
Numbers = np.ndarray  # of requests, ascending, as uint32


class Requests(Protocol):
    """A plan's requests: a list of them, or what makes a stretch of them when it is looked at."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> "Sequence[Request]": ...


@dataclass(frozen=True)
class Standing:
    """What the ledger says of a plan."""

    states: bytes  # by the number of the request
    spent: int  # micro-dollars, ever, on this plan's requests
    waiting: dict[str, int]  # request id → number, of those inside a batch of an earlier run

    @cached_property
    def missing(self) -> Numbers:
        """Requests that have no last word."""
        return np.flatnonzero(np.frombuffer(self.states, np.uint8) != SETTLED).astype(np.uint32)

    @property
    def answered(self) -> int:
        return len(self.states) - len(self.missing)

    @property
    def leading(self) -> int:
        """How many requests from the first on are answered without a gap."""
        return int(self.missing[0]) if len(self.missing) else len(self.states)


def look(requests: Requests) -> Standing:
    """One pass over the plan, beside the ledger."""
    states, spent, waiting = bytearray(len(requests)), 0, {}
    handed = batch_records.waiting(root())
    for start in range(0, len(requests), WINDOW):
        window = requests[start : start + WINDOW]
        past = ledger.load(root(), [request.request_id for request in window])
        for number, request in enumerate(window, start):
            if known := past.get(request.request_id):
                states[number] = SETTLED if request.settled(known.answers) else TRIED
                spent += known.spent
            if request.request_id in handed:
                waiting[request.request_id] = number
    return Standing(bytes(states), spent, waiting)


def by_window(numbers: Numbers) -> Iterator[list[int]]:
    """These numbers, those of one window together."""
    for some in np.split(numbers, np.flatnonzero(np.diff(numbers // WINDOW)) + 1):
        if len(some):
            yield some.tolist()
