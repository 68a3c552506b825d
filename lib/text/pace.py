"""How fast requests may go out: a token bucket for requests, one for tokens, and what refusals (429) teach.

In:   limits per minute, or none; the time, which every call is told, so that tests need none of it
Out:  Pace.wait: seconds until the next request may go; 0 takes its place

A bucket holds at most one second's worth, so a minute holds at most the limit and one second's worth more. Where the
endpoint refuses more than one in five although the limits are kept (or none are set), its own limit is lower: the rate
is cut to 0.7 of what was really sent, then grows by 5 % a second until it is refused again or the limits are reached.
A lone 429 changes nothing: its own request waits as long as it is told to. When nothing but refusals come, everything
waits for the longest Retry-After among them, however long.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

REFUSALS_IN_A_ROW = 8  # 429s with no other answer between them: everything waits, not only the refused
MANY = 0.2  # share of refusals among the last answers
MEMORY = 32  # answers that share goes back to, and sends that the measured rate does
CUT, GROWTH = 0.7, 1.05  # of the rate, at a refusal; per second without one
SLOWEST = 1 / 60  # requests per second: below that, Retry-After and pauses do the work


class Clock:
    """Time as this machine has it; never the time of day, which can be set back."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float, unless: asyncio.Event) -> None:
        """Sleep, but wake up when `unless` is set."""
        try:
            async with asyncio.timeout(seconds):
                await unless.wait()
        except TimeoutError:
            return


@dataclass
class Bucket:
    """So much per second, saved up for at most one second. A large amount may leave a debt, which is paid off first."""

    per_second: float | None  # None: no limit
    level: float = 0.0
    at: float | None = None  # the time of `level`

    def wait(self, now: float) -> float:
        """Seconds until something may be taken."""
        if self.per_second is None:
            return 0.0
        full = max(self.per_second, 1.0)
        earned = self.per_second * (now - self.at) if self.at is not None else full
        self.level, self.at = min(full, self.level + earned), now
        needed = min(1.0, full) - self.level
        return needed / self.per_second if needed > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self.level -= amount if self.per_second is not None else 0.0


@dataclass
class Pace:
    """The pace of one run against one endpoint. Times are seconds of any clock that never goes back."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    closed_until: float = float("-inf")
    _learnt: float | None = None  # requests per second that the endpoint seems to allow
    _learnt_at: float = float("-inf")
    _in_a_row: int = 0
    _share: float = 0.0  # of refusals among the last answers
    _sent: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))

    def __post_init__(self) -> None:
        self._requests = Bucket(_per_second(self.requests_per_minute))
        self._tokens = Bucket(_per_second(self.tokens_per_minute))

    def wait(self, tokens: int, now: float) -> float:
        """Seconds to wait before asking again; at 0 a request of at most `tokens` tokens goes out now."""
        self._requests.per_second = self.requests_per_second(now)
        seconds = max(self.closed_until - now, self._requests.wait(now), self._tokens.wait(now))
        if seconds > 0:
            return seconds
        self._requests.take(1)
        self._tokens.take(tokens)
        self._sent.append(now)
        return 0.0

    def requests_per_second(self, now: float) -> float | None:
        """What may be sent now: the limit, or less where the endpoint refused more; None: as fast as it goes."""
        limit = _per_second(self.requests_per_minute)
        if self._learnt is None:
            return limit
        allowed = self._learnt * GROWTH ** min(now - self._learnt_at, 600.0)
        return allowed if limit is None else min(allowed, limit)

    def settled(self, reserved: int, used: int | None) -> None:
        """Tokens that were taken and not used come back."""
        if used is not None:
            self._tokens.take(used - reserved)

    def answered(self) -> None:
        """Something other than a refusal came."""
        self._in_a_row = 0
        self._share -= self._share / MEMORY

    def refused(self, pause: float, now: float) -> None:
        """A 429 came, whose request waits `pause` seconds."""
        self._in_a_row += 1
        self._share += (1 - self._share) / MEMORY
        if self._in_a_row >= REFUSALS_IN_A_ROW:
            self.closed_until = max(self.closed_until, now + pause)
        if self._share > MANY and now - self._learnt_at >= 1.0:  # those in flight come back refused together: one cut
            self._share = 0.0  # the next cut needs refusals of its own
            rates = [each for each in (self._measured(now), self.requests_per_second(now)) if each is not None]
            self._learnt, self._learnt_at = max(CUT * min(rates), SLOWEST), now

    def _measured(self, now: float) -> float:
        first = self._sent[0] if self._sent else now
        return len(self._sent) / max(now - first, 1e-3)


def _per_second(per_minute: float | None) -> float | None:
    return None if per_minute is None else per_minute / 60
