"""What generate would still send, and what that would cost. `storymill plan` prints it before anything is sent.

In:   a generate config; the ledger, where earlier requests with the same model and settings are the pilot sample
Out:  lines of text; `pilot` sends the first few missing requests for real, so that there is a sample
"""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

from lib import store
from lib.stages import generate
from lib.stages.generate import GenerateConfig
from lib.store import Progress
from lib.text import ledger, teacher
from lib.text.budget import MICRO, Price, microdollars, worst_tokens
from lib.text.estimate import Total, seconds, total
from lib.text.standing import SETTLED, look
from lib.text.teacher import Request, settings_of

PILOT = 20  # requests a pilot needs for an interval worth reading


@dataclass(frozen=True)
class Sample:
    """What the ledger knows of answered requests like the missing ones; one figure a request, retries included."""

    costs: list[float]  # micro-dollars at the prices of now
    tokens_in: list[float]
    tokens_out: list[float]
    attempts: float  # a request, on average
    latency: float  # seconds an attempt, on average


def lines(config: GenerateConfig) -> Iterator[str]:
    """What the missing requests of this config would cost, in words."""
    requests = generate.Planned(config)
    stands = look(requests)
    spent, missing = stands.spent, len(stands.missing)
    yield f"{stands.answered:,} of {len(requests):,} requests are answered; {_dollars(spent)} are spent on this plan"
    if not missing:
        return
    prices = {"live": config.price(), "batch": config.price().times(1 - config.batch_discount)}
    (first,) = requests[stands.missing[0] : stands.missing[0] + 1]
    samples = {transport: sampled(first, price) for transport, price in prices.items()}
    costs = {transport: total(sample.costs, missing) for transport, sample in samples.items()}
    if costs["live"] and costs["batch"]:
        seen = len(samples["live"].costs)
        yield f"the {missing:,} missing, judging by {seen:,} answered ones of the same model and settings:"
        yield f"  live      {_range(costs['live'], MICRO, '$', 4)}"
        yield f"  by batch  {_range(costs['batch'], MICRO, '$', 4)}"
        yield from _effort(config, samples["live"], missing)
    most = tokens = 0
    for request, state in zip(requests, stands.states, strict=True):
        worst = worst_tokens(request.payload)
        if state != SETTLED:
            most, tokens = most + prices["live"].at_most(*worst), tokens + sum(worst)
    yield f"at most {_dollars(most)} live without retries: {tokens:,} tokens, with every reply at its longest"
    if not costs["live"]:
        yield f"`storymill plan --pilot {PILOT}` sends the first {PILOT} for real, keeps them, and estimates the rest"
    yield from _budget(config, spent, costs["batch" if config.transport == "batch" else "live"])


def _effort(config: GenerateConfig, sample: Sample, count: int) -> Iterator[str]:
    """Tokens, retries and time."""
    tokens_in, tokens_out = (total(each, count) for each in (sample.tokens_in, sample.tokens_out))
    yield f"  tokens    {_range(tokens_in)} in"
    yield f"            {_range(tokens_out)} out"
    yield f"  attempts  {sample.attempts:.2f} a request"
    yield f"  time      {_duration(config, sample, count)}"


def pilot(config: GenerateConfig, count: int, progress: Progress) -> None:
    """Send the first `count` missing requests for real; they are kept, and never asked again."""
    teacher.settle(config, generate.Planned(config), progress, most=count)


def sampled(like: Request, price: Price) -> Sample:
    """Every answered request with the same settings, whichever plan asked it."""
    query = f"""
        select request_id, count(*), avg(latency_ms) / 1000,
               list(struct_pack(i := tokens_in, o := tokens_out, c := tokens_cached, cost := cost_microdollars,
                                reserved := reserved_microdollars))
        from requests where settings = ? group by request_id having bool_or(status in {ledger.ANSWERED})
    """
    rows = _asked(query, settings_of(like.payload))
    costs, tokens_in, tokens_out = [], [], []
    for _, _, _, tries in rows:
        known = [each for each in tries if each["i"] is not None and each["o"] is not None]
        unknown = [each["reserved"] or 0 for each in tries if each["cost"] is None]
        costs.append(sum(price.of(each["i"], each["o"], each["c"] or 0) for each in known) + sum(unknown))
        tokens_in.append(sum(each["i"] for each in known))
        tokens_out.append(sum(each["o"] for each in known))
    size = max(len(rows), 1)
    attempts, waited = (sum(row[column] or 0 for row in rows) / size for column in (1, 2))
    return Sample(costs, tokens_in, tokens_out, attempts, waited)


def _asked(query: str, *values: str) -> list[tuple]:
    with duckdb.connect() as con:
        con.execute(f"create view requests as {ledger.requests_sql(store.root())}")
        return con.execute(query, values).fetchall()


def _budget(config: GenerateConfig, spent: int, found: Total | None) -> Iterator[str]:
    if config.budget is None:
        return
    left = microdollars(config.budget) - spent
    yield f"budget {_dollars(microdollars(config.budget))}, of which {_dollars(max(left, 0))} are left"
    if found and found.high > left:
        yield "  the estimate's upper end is above that: the run may stop, to be resumed"


def _duration(config: GenerateConfig, sample: Sample, count: int) -> str:
    took = seconds(count, sample.attempts, sample.latency, config.concurrency, config.requests_per_minute)
    text = f"{took:,.0f} s" if took < 120 else f"{took / 60:,.0f} min" if took < 7200 else f"{took / 3600:,.1f} h"
    within = f", within {config.requests_per_minute:g} requests a minute" if config.requests_per_minute else ""
    return f"{text} at {sample.latency:.2f} s an attempt and {config.concurrency} in flight{within}"


def _dollars(micro: float) -> str:
    return f"${micro / MICRO:,.4f}"


def _range(found: Total | None, unit: float = 1, sign: str = "", digits: int = 0) -> str:
    assert found
    low, expected, high = (f"{sign}{each / unit:,.{digits}f}" for each in (found.low, found.expected, found.high))
    return f"{expected} (95 %: {low} to {high})"
