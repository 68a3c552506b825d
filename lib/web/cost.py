"""What generate or self-instruct would still send, and what that would cost. `storymill plan` prints it.

In:   the config of one of them; the ledger, where earlier requests with the same model and settings are the sample
Out:  lines of text; `pilot` sends the first few missing requests for real, so that there is a sample
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from lib import store
from lib.stages import generate, selfinstruct
from lib.stages.generate import GenerateConfig
from lib.stages.selfinstruct import SelfinstructConfig
from lib.store import Progress
from lib.text import ledger, teacher
from lib.text.budget import MICRO, Price, microdollars, worst_tokens
from lib.text.estimate import Total, seconds, total
from lib.text.standing import SETTLED, Requests, look
from lib.text.teacher import Request, TeacherConfig, settings_of

Asking = GenerateConfig | SelfinstructConfig
PILOT = 20  # requests a pilot needs for an interval worth reading


@dataclass(frozen=True)
class Sample:
    """What the ledger knows of answered requests like the missing ones; one figure a request, retries included."""

    costs: dict[str, list[float]]  # by transport: micro-dollars at the prices of now
    tokens_in: list[float]
    tokens_out: list[float]
    attempts: float  # a request, on average
    latency: float | None  # seconds a live attempt, on average; None where there was none


def lines(config: Asking) -> Iterator[str]:
    """What the missing requests of this config would cost, in words."""
    requests = _requests(config)
    stands = look(requests)
    spent, missing = stands.spent, len(stands.missing)
    yield f"{stands.answered:,} of {len(requests):,} requests are answered; {_dollars(spent)} are spent on this plan"
    if isinstance(config, SelfinstructConfig):
        yield f"in the first round; more follow until there are {config.count:,} tasks, or {config.limit:,} requests"
    if not missing:
        return
    prices = config.prices()
    (first,) = requests[stands.missing[0] : stands.missing[0] + 1]
    sample = sampled(first, prices)
    costs = {transport: total(each, missing) for transport, each in sample.costs.items()}
    if costs["live"] and costs["batch"]:
        seen = len(sample.tokens_in)
        yield f"the {missing:,} missing, judging by {seen:,} answered ones of the same model and settings:"
        yield f"  live      {_range(costs['live'], MICRO, '$', 4)}"
        yield f"  by batch  {_range(costs['batch'], MICRO, '$', 4)}"
        yield from _effort(config, sample, missing)
    most = tokens = 0
    for request, state in zip(requests, stands.states, strict=True):
        worst = worst_tokens(request.payload)
        if state != SETTLED:
            most, tokens = most + prices["live"].at_most(*worst), tokens + sum(worst)
    yield f"at most {_dollars(most)} live without retries: {tokens:,} tokens, with every reply at its longest"
    if not costs["live"]:
        yield f"`storymill plan --pilot {PILOT}` sends the first {PILOT} for real, keeps them, and estimates the rest"
    yield from _budget(config, spent, costs["batch" if config.transport == "batch" else "live"])


def _requests(config: Asking) -> Requests:
    return generate.Planned(config) if isinstance(config, GenerateConfig) else selfinstruct.first_round(config)


def _effort(config: TeacherConfig, sample: Sample, count: int) -> Iterator[str]:
    """Tokens, retries and time."""
    tokens_in, tokens_out = (total(each, count) for each in (sample.tokens_in, sample.tokens_out))
    yield f"  tokens    {_range(tokens_in)} in"
    yield f"            {_range(tokens_out)} out"
    yield f"  attempts  {sample.attempts:.2f} a request"
    yield f"  time      {_duration(config, sample, count)}"


def pilot(config: Asking, count: int, progress: Progress) -> None:
    """Send the first `count` missing requests for real; they are kept, and never asked again."""
    teacher.settle(config, _requests(config), progress, most=count)


def sampled(like: Request, prices: Mapping[str, Price]) -> Sample:
    """Every answered request with the same settings, whichever plan asked it."""
    query = f"""
        select count(*), sum(latency_ms) filter (transport = 'live') / 1000, count(*) filter (transport = 'live'),
               list(struct_pack(i := tokens_in, o := tokens_out, c := tokens_cached, cost := cost_microdollars,
                                reserved := reserved_microdollars))
        from requests where settings = ? group by request_id having bool_or(status in {ledger.ANSWERED})
    """
    rows = _asked(query, settings_of(like.payload))
    costs, tokens_in, tokens_out = {transport: [] for transport in prices}, [], []
    for *_, tries in rows:
        known = [each for each in tries if each["i"] is not None and each["o"] is not None]
        unknown = [each["reserved"] or 0 for each in tries if each["cost"] is None]
        for transport, price in prices.items():
            cost = sum(price.of(each["i"], each["o"], each["c"] or 0) for each in known)
            costs[transport].append(cost + sum(unknown))
        tokens_in.append(sum(each["i"] for each in known))
        tokens_out.append(sum(each["o"] for each in known))
    attempts, waited, live = (sum(row[column] or 0 for row in rows) for column in range(3))
    return Sample(costs, tokens_in, tokens_out, attempts / max(len(rows), 1), waited / live if live else None)


def _asked(query: str, *values: str) -> list[tuple]:
    try:
        return _asked_once(query, *values)
    except duckdb.IOException:  # another process sealed a segment since it was listed: look again
        return _asked_once(query, *values)


def _asked_once(query: str, *values: str) -> list[tuple]:
    with duckdb.connect() as con:
        con.execute(f"create view requests as {ledger.requests_sql(store.root())}")
        return con.execute(query, values).fetchall()


def _budget(config: TeacherConfig, spent: int, found: Total | None) -> Iterator[str]:
    if config.budget is None:
        return
    left = microdollars(config.budget) - spent
    yield f"budget {_dollars(microdollars(config.budget))}, of which {_dollars(max(left, 0))} are left"
    if found and found.high > left:
        yield "  the estimate's upper end is above that: the run may stop, to be resumed"


def _duration(config: TeacherConfig, sample: Sample, count: int) -> str:
    if config.transport == "batch":
        return "up to a day for each batch"
    if sample.latency is None:
        return "unknown: none like these were asked live so far"
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
