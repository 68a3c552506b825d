"""How the storyteller misbehaves when it is told to: the faults of a paid API, at given rates, for tests and demos.

In:   `Mischief`, a frozen config of rates; the digest of a request and how often it came
Out:  yes or no for each fault, always the same for the same question

What a fault depends on:
    rate_limited, server_error, unavailable     the request and how often it was asked: a retry may succeed. Nothing is
                                                used, so nothing is billed
    garbled, slow_drip, cut, oversized          the same, but the story was told and is billed: it gets lost on the way
    no_usage                                    the same; the story arrives without its bill
    malformed, refusal, truncated, filtered,
    empty                                       the request and how often it was answered: asking again may help
    near_copies, planted                        the request alone: asking again gives the same story
    batch_expired                               the batch
The counts live in the server's memory, so a new server begins at nought.
"""

import hashlib
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

REFUSED = ("rate_limited", "server_error", "unavailable")  # nothing was used
UNDELIVERED = ("garbled", "slow_drip", "cut", "oversized")  # told and billed, and lost on the way
UNTOLD = ("refusal", "malformed", "truncated", "filtered", "empty")  # delivered, but with no story to read
# Mischief that changes no answer: requests that differ in nothing else have one name, and are asked once.
HARMLESS = {*REFUSED, *UNDELIVERED, "no_usage", "batch_expired", "drip_seconds", "slow", "retry_after"}
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class Mischief(BaseModel):
    """Rates of faults. As strict as a store Config, but not one: importing the store would double the start-up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_limited: Rate = Field(0.0, description="share of requests answered 429 with Retry-After")
    server_error: Rate = Field(0.0, description="share of requests answered 500")
    unavailable: Rate = Field(0.0, description="share of requests answered 503")
    garbled: Rate = Field(0.0, description="share of answers whose body is no chat completion")
    slow_drip: Rate = Field(0.0, description="share of answers that come in one byte at a time")
    cut: Rate = Field(0.0, description="share of answers whose connection is cut half-way")
    oversized: Rate = Field(0.0, description="share of answers of five million bytes")
    no_usage: Rate = Field(0.0, description="share of answers that do not say how many tokens they took")
    malformed: Rate = Field(0.0, description="share of answers that are broken JSON")
    refusal: Rate = Field(0.0, description="share of answers that politely refuse")
    truncated: Rate = Field(0.0, description="share of answers cut off with finish_reason length")
    filtered: Rate = Field(0.0, description="share of answers withheld with finish_reason content_filter")
    empty: Rate = Field(0.0, description="share of answers without a word")
    near_copies: Rate = Field(0.0, description="share of answers that are another story with one sentence more")
    planted: dict[str, Rate] = Field({}, description='share of stories about a concept: {"troll": 0.01}')
    batch_expired: Rate = Field(0.0, description="share of batches that end half-done")
    drip_seconds: float = Field(5.0, ge=0.0, description="seconds that a slow drip takes in all")
    slow: float = Field(0.0, ge=0.0, description="seconds before each answer")
    retry_after: float = Field(1.0, ge=0.0, description="seconds in the Retry-After header of a 429")

    def flags(self) -> list[str]:
        """The same mischief for the command line of `python -m lib.text.storyteller`."""
        given = []
        for name, value in self.model_dump(exclude={"planted"}).items():
            given += [f"--{name.replace('_', '-')}", str(value)]
        for concept, rate in self.planted.items():
            given += ["--planted", f"{concept}={rate}"]
        return given


def parse_planted(pairs: list[str]) -> dict[str, float]:
    """["troll=0.01"] -> {"troll": 0.01}; raises ValueError for another form."""
    found = {}
    for pair in pairs:
        match = re.fullmatch(r"\s*([^=]+?)\s*=\s*([0-9.eE+-]+)\s*", pair)
        if match is None:
            raise ValueError(f"found --planted {pair!r}, expected CONCEPT=RATE, for example troll=0.01")
        found[match[1]] = float(match[2])
    return found


def happens(rate: float, *question: object) -> bool:
    """A coin with this rate that always falls the same way for the same question."""
    return rate > 0.0 and share(*question) < rate


def share(*question: object) -> float:
    """A number in [0, 1) for this question."""
    return number(*question) / 2**64


def number(*question: object) -> int:
    """Sixty-four bits for this question: its blake2b digest."""
    text = "\x1f".join(map(str, question))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
