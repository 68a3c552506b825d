"""Money: prices to the micro-dollar, a bound for what was not sent yet, a limit that holds at any concurrency."""

import asyncio
import random

import pytest
from pydantic import ValidationError

from lib.text.budget import Budget, Exhausted, Price, microdollars, worst_tokens
from lib.text.outcomes import Attempt
from lib.text.storyteller.server import TOKEN
from lib.text.teacher import TeacherConfig

MINI = Price(tokens_in=0.15, tokens_out=0.6, tokens_cached=0.075, version="2026-11")


def test_a_cost_is_whole_micro_dollars_rounded_up():
    assert MINI.cost(Attempt("ok", tokens_in=100, tokens_out=50, tokens_cached=40)) == 9 + 3 + 30
    assert MINI.cost(Attempt("ok", tokens_in=1, tokens_out=0)) == 1
    assert MINI.cost(Attempt("ok", tokens_in=20, tokens_out=0)) == 3  # 20 * 0.15 is 3.0000000000000004 in floats
    assert Price(tokens_in=0.1, tokens_out=0.7).of(10**9, 10**9) == 800_000_000


def test_half_of_a_price_is_exactly_half():
    half = MINI.less(0.5)
    assert (half.tokens_in, half.cached, half.tokens_out, half.version) == (0.075, 0.0375, 0.3, "2026-11")
    assert half.of(200, 100) == 45
    assert MINI.less(0.9).tokens_in == 0.015


@pytest.mark.parametrize(
    ("attempt", "cost"),
    [
        (Attempt("rate_limited", http_status=429), 0),
        (Attempt("server_error", http_status=500), 0),
        (Attempt("server_error", http_status=503), 0),
        (Attempt("invalid_request", http_status=400), 0),
        (Attempt("invalid_request", http_status=422), 0),
        (Attempt("unauthorized", http_status=401), 0),
        (Attempt("not_found", http_status=404), 0),
        (Attempt("filtered", http_status=400), None),  # a prompt or a reply that was read to its end, and is billed
        (Attempt("server_error", http_status=408), None),  # a gateway lost patience: what was told behind it counts
        (Attempt("server_error", http_status=502), None),
        (Attempt("server_error", http_status=504), None),
        (Attempt("server_error", http_status=524), None),
        (Attempt("expired"), 0),
        (Attempt("connection", unsent=True), 0),
        (Attempt("connection"), None),
        (Attempt("timeout"), None),
        (Attempt("malformed", http_status=200), None),
        (Attempt("too_large", http_status=200), None),
        (Attempt("ok", http_status=200), None),  # no usage
    ],
)
def test_what_was_refused_costs_nothing_and_what_nobody_knows_stays_unknown(attempt, cost):
    assert MINI.cost(attempt) == cost


def test_a_cached_price_above_the_plain_one_is_what_a_request_can_cost_at_most():
    odd = Price(tokens_in=1.0, tokens_out=2.0, tokens_cached=3.0)
    assert odd.of(10, 5, 10) == odd.at_most(10, 5) == 40
    assert MINI.at_most(10, 5) == MINI.of(10, 5)


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ({"price_in": 0.1, "price_out": 0.6, "price_cached": 0.2}, "price_cached is 0.2"),
        ({"price_in": 0.1}, "give price_in and price_out"),
        ({"price_out": 0.6}, "give price_in and price_out"),
    ],
)
def test_a_budget_is_refused_with_prices_that_cannot_hold_it(prices, problem):
    with pytest.raises(ValidationError, match=problem):
        TeacherConfig(teacher="openai", model="some-1", budget=1.0, **prices)


def test_no_prompt_has_more_tokens_than_its_bound():
    payload = {"max_tokens": 600, "n": 2, "response_format": {"type": "json_object"}}
    for text in ("", "a b c", "Ünïcödé 🎈 " * 20, "\n\"'{}" * 30, "x" * 500):
        messages = [{"role": "system", "content": text}, {"role": "user", "content": text}]
        tokens_in, tokens_out = worst_tokens(payload | {"messages": messages})
        assert tokens_in >= 2 * max(len(TOKEN.findall(text)), len(text.encode())) + 2 * 8
        assert tokens_out == 1200


def test_a_budget_is_read_to_the_micro_dollar():
    assert [microdollars(dollars) for dollars in (0.03, 1.1, 29.999999, 1e-6, 1.9e-6)] == [
        30_000,
        1_100_000,
        29_999_999,
        1,
        1,
    ]


def test_sixty_four_at_once_end_within_the_limit_at_every_moment():
    """Each request reserves its worst case, costs some of it or an unknown sum, and the limit is met to the end."""
    dice = random.Random(4)
    limit, worst, seen = 10_000, 97, []

    async def spend(budget: Budget) -> None:
        await budget.reserve(worst)
        seen.append(budget.spent + budget.reserved)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        budget.settle(worst, dice.choice([None, 0, 1, 50, worst]))
        seen.append(budget.spent + budget.reserved)

    async def many() -> tuple[Budget, int]:
        budget, slots = Budget(limit), asyncio.Semaphore(64)

        async def one() -> bool:
            async with slots:
                try:
                    await spend(budget)
                except Exhausted:
                    return False
                return True

        return budget, sum(await asyncio.gather(*(one() for _ in range(1000))))

    budget, answered = asyncio.run(many())
    assert max(seen) <= limit and budget.reserved == 0
    assert limit - worst < budget.spent <= limit  # it was used up: not one more would have fitted
    assert 100 < answered < 1000


def test_a_request_that_does_not_fit_waits_for_those_in_flight():
    async def story() -> list[str]:
        budget, told = Budget(100), []
        await budget.reserve(80)

        async def second() -> None:
            await budget.reserve(60)
            told.append("second goes")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        told.append("first settles")
        budget.settle(80, 30)
        await waiting
        with pytest.raises(Exhausted):
            budget.settle(60, 60)
            await budget.reserve(11)
        return told

    assert asyncio.run(story()) == ["first settles", "second goes"]


def test_what_nobody_knows_the_cost_of_stays_spent_to_its_worst():
    budget = Budget(100)
    for cost in (None, 10, 0):
        budget.hold(30)
        budget.settle(30, cost)
    assert (budget.spent, budget.reserved) == (40, 0)


def test_what_an_earlier_run_spent_counts():
    budget = Budget(100, spent=95)
    assert budget.fits(5) and not budget.fits(6)
    assert Budget(None, spent=10**12).fits(10**12)
