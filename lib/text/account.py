"""No request goes out but through the account: its worst case reserved, its intent written down, its outcome booked.

In:   a ledger writer, a budget, unit prices
Out:  two ledger lines per attempt, before and after; sums for the run's record

The intent is in the ledger before the first byte is sent. Whatever kills the process in between, the next run finds it
and counts its reservation as spent.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.text.budget import Budget, Price, worst_tokens
from lib.text.ledger import IN_FLIGHT, Writer
from lib.text.outcomes import Attempt
from lib.text.teacher import UNNAMED, settings_of


@dataclass(frozen=True)
class Sent:
    """One attempt that went out, or is about to."""

    request_id: str
    attempt: int
    payload: Mapping[str, Any]
    tokens: int  # at most, in and out
    reserved: int  # micro-dollars
    price: Price
    transport: str
    settings: str


class Account:
    """What one run sends, and what that costs."""

    def __init__(self, writer: Writer, teacher: str, budget: Budget, prices: Mapping[str, Price]) -> None:
        """`prices` by transport."""
        self._writer, self.teacher, self.budget, self.prices = writer, teacher, budget, dict(prices)
        self.statuses: Counter[str] = Counter()
        self.cost_microdollars = self.unknown_microdollars = 0
        self._settings: dict[str, str] = {}

    @property
    def attempts(self) -> int:
        return self.statuses.total()

    def priced(
        self,
        request_id: str,
        attempt: int,
        payload: Mapping[str, Any],
        transport: str = "live",
        price: Price | None = None,
        planned: Mapping[str, Any] | None = None,
    ) -> Sent:
        """This attempt with what it can cost at most.

        `price` is that of an earlier run, which sent it; `planned` the payload before its format was stepped down.
        """
        price, tokens = price or self.prices[transport], worst_tokens(payload)
        settings = self._settings_of(planned or payload)
        return Sent(request_id, attempt, payload, sum(tokens), price.at_most(*tokens), price, transport, settings)

    def intend(self, sent: Sent) -> None:
        """Write down that this goes out now; it was reserved before."""
        self._writer.append(self._row(sent) | {"status": IN_FLIGHT})

    def flush(self) -> None:
        """Everything booked so far is on the disk."""
        self._writer.flush()

    def book(self, sent: Sent, attempt: Attempt, ours: bool = True) -> None:
        """Write down what came of it, and give back what it did not cost; unless it was reserved by another plan."""
        cost = sent.price.cost(attempt)
        self._writer.append(self._row(sent, attempt, cost))
        if not ours:
            return
        self.budget.settle(sent.reserved, cost)
        self.statuses[attempt.status] += 1
        self.cost_microdollars += cost or 0
        self.unknown_microdollars += sent.reserved if cost is None else 0

    def _row(self, sent: Sent, attempt: Attempt | None = None, cost: int | None = None) -> dict[str, Any]:
        price, model = sent.price, sent.payload["model"]
        row = {
            "request_id": sent.request_id,
            "attempt": sent.attempt,
            "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "teacher": self.teacher,
            "model": model,
            "price_version": price.version,
            "prompt": sent.payload["messages"][-1]["content"],
            "transport": sent.transport,
            "reserved_microdollars": sent.reserved,
            "price_in": price.tokens_in,
            "price_cached": price.cached,
            "price_out": price.tokens_out,
            "settings": sent.settings,
        }
        if attempt is None:
            return row
        return row | {
            "model": attempt.model or model,
            "status": attempt.status,
            "http_status": attempt.http_status,
            "latency_ms": attempt.latency_ms,
            "tokens_in": attempt.tokens_in,
            "tokens_out": attempt.tokens_out,
            "tokens_cached": attempt.tokens_cached,
            "cost_microdollars": cost,
            "retry_after": attempt.retry_after,
            "error": attempt.error,
            "raw": attempt.content,
        }

    def _settings_of(self, payload: Mapping[str, Any]) -> str:
        text = repr({key: value for key, value in payload.items() if key not in UNNAMED})
        if text not in self._settings:
            self._settings[text] = settings_of(payload)
        return self._settings[text]
