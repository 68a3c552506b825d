"""What requests cost, and a budget that holds whatever is in flight: whole micro-dollars, no floats.

In:   unit prices, a limit, what was spent before
Out:  Price.cost of an attempt; worst_tokens of a request that has not gone out yet, and Price.at_most of them;
      Budget.reserve and Budget.settle

Before a request goes out its worst case is reserved. spent + reserved never exceeds the limit, so the bill cannot,
however many are in flight. Where the next one does not fit, it waits until those in flight settle (their true cost is
less than their worst), and when nothing is in flight and it still does not fit, the run is at its end. An endpoint that
bills more tokens than a prompt has bytes, or a longer reply than max_tokens, breaks the bound: its ledger rows show it.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lib.errors import Stopped

if TYPE_CHECKING:
    from lib.text.outcomes import Attempt

MICRO = 1_000_000  # micro-dollars in a dollar; dollars per million tokens are micro-dollars per token
PARTS = 10**9  # prices are kept in billionths of a micro-dollar per token: exact for every price list there is
# A token is at least one byte of UTF-8. What frames a message (role, separators) takes 3 to 4 tokens in OpenAI's chat
# format, and the reply's beginning 3 more; 16 for each leaves room for other formats.
FRAME_TOKENS = 16


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, which is micro-dollars per token."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0
    tokens_cached: float | None = None  # None: as tokens_in
    version: str = ""

    def cost(self, attempt: "Attempt") -> int | None:
        """Micro-dollars, rounded up; None where the endpoint did not say what it used."""
        if attempt.unbilled:
            return 0
        if attempt.tokens_in is None or attempt.tokens_out is None:
            return None
        return self.of(attempt.tokens_in, attempt.tokens_out, attempt.tokens_cached or 0)

    def of(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> int:
        """Micro-dollars for so many tokens, rounded up; `tokens_cached` of those that went in are cached."""
        per_in, per_out, per_cached = self._parts
        cached = min(tokens_cached, tokens_in)
        used = (tokens_in - cached) * per_in + cached * per_cached + tokens_out * per_out
        return -(-used // PARTS)

    def at_most(self, tokens_in: int, tokens_out: int) -> int:
        """Micro-dollars for so many tokens, however many of them the endpoint says were cached."""
        return max(self.of(tokens_in, tokens_out, cached) for cached in (0, tokens_in))

    def less(self, discount: float) -> "Price":
        """The same price list with this share taken off everything."""
        share = 1 - _exact(discount)  # in floats, 1 - 0.9 makes 0.15 into 0.014999999999999998
        scaled = {name: getattr(self, name) for name in ("tokens_in", "tokens_out", "tokens_cached")}
        exact = {name: None if each is None else float(_exact(each) * share) for name, each in scaled.items()}
        return replace(self, **exact)

    @property
    def cached(self) -> float:
        return self.tokens_in if self.tokens_cached is None else self.tokens_cached

    @cached_property
    def _parts(self) -> tuple[int, int, int]:
        return tuple(int(_exact(each) * PARTS) for each in (self.tokens_in, self.tokens_out, self.cached))


def _exact(price: float) -> Decimal:
    return Decimal(str(price))  # 0.15 as it was written, not as bits


def microdollars(dollars: float) -> int:
    """Whole micro-dollars, rounded down: a budget is never stretched."""
    return int(_exact(dollars) * MICRO)


def worst_tokens(payload: Mapping[str, Any]) -> tuple[int, int]:
    """Upper bounds of a chat request's prompt tokens and completion tokens."""
    size = sum(map(_bytes, (message.get("content") for message in payload["messages"])))
    size += sum(_bytes(payload[key]) for key in ("response_format", "tools") if key in payload)
    longest = payload.get("max_completion_tokens") or payload.get("max_tokens") or 0
    return size + FRAME_TOKENS * (1 + len(payload["messages"])), longest * (payload.get("n") or 1)


def _bytes(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "backslashreplace"))


class Exhausted(Stopped):
    """Nothing is in flight, and the next request does not fit the budget."""


class Budget:
    """What may be spent in all, what was, and what is kept free for requests in flight. One event loop uses it."""

    def __init__(self, limit: int | None, spent: int = 0) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0
        self._settled = asyncio.Event()

    def fits(self, amount: int) -> bool:
        return self.limit is None or self.spent + self.reserved + amount <= self.limit

    def hold(self, amount: int) -> None:
        """Reserve, whether it fits or not: for what is in flight already, such as a batch of an earlier run."""
        self.reserved += amount

    async def reserve(self, amount: int) -> None:
        """Keep `amount` free, as soon as that much is left; Exhausted when it never will be."""
        while not self.fits(amount):
            if not self.reserved:
                raise Exhausted(f"spent {self.spent} of {self.limit} micro-dollars; the next needs {amount}")
            self._settled.clear()
            await self._settled.wait()
        self.hold(amount)

    def settle(self, reserved: int, cost: int | None) -> None:
        """What was reserved has been used: at this cost, or, where nobody knows it, all of it."""
        self.reserved -= reserved
        self.spent += reserved if cost is None else cost
        self._settled.set()
