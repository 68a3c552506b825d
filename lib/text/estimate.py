"""What so many further requests will cost, from what a sample of them did cost. Only arithmetic.

In:   one figure per answered request of the sample, its retries included
Out:  the expected total and its 95 % interval

The total of n further requests differs from n times the sample's mean for two reasons: the requests scatter
(s * sqrt(n)), and the mean itself is known from m requests only (n * s / sqrt(m)). Both go into the interval, with
Student's t for m - 1 degrees of freedom. It says nothing about how representative the sample is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959964  # of 95 %, two-sided


@dataclass(frozen=True)
class Total:
    """What n requests come to."""

    expected: float
    low: float
    high: float


def total(sample: Sequence[float], count: int) -> Total | None:
    """The total of `count` further requests; None where fewer than two tell nothing about their scatter."""
    size = len(sample)
    if size < 2:
        return None
    mean = math.fsum(sample) / size
    scatter = math.sqrt(math.fsum((each - mean) ** 2 for each in sample) / (size - 1))
    margin = _t(size - 1) * scatter * math.sqrt(count + count**2 / size)
    return Total(count * mean, max(0.0, count * mean - margin), count * mean + margin)


def _t(freedom: int) -> float:
    """Student's t of 95 %, two-sided: exact for 1 and 2, within 1 % from 3 on (Abramowitz and Stegun 26.7.5)."""
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]
    terms = ((Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96, (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384)
    return Z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def seconds(count: int, attempts: float, latency: float, concurrency: int, per_minute: float | None) -> float:
    """How long `count` requests take of so many attempts each, at this latency or within this limit."""
    at_most = math.inf if per_minute is None else per_minute / 60
    rate = min(concurrency / latency if latency else math.inf, at_most)
    return count * attempts / rate if rate < math.inf else 0.0
