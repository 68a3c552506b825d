"""The pace: limits are kept, refusals are learnt from, and a Retry-After is waited for however long. Time is told."""

import pytest

from lib.text.pace import CUT, MANY, REFUSALS_IN_A_ROW, Pace


def sent_in(pace: Pace, seconds: float, tokens: int = 100, start: float = 0.0) -> list[float]:
    """When requests go out, asked for as fast as the pace allows, for so long."""
    now, times = start, []
    while now < start + seconds:
        wait = pace.wait(tokens, now)
        if wait:
            now += wait
        else:
            times.append(now)
            now += 1e-4
    return times


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(first <= each < first + 60 for each in times) for first in times)


def test_without_limits_nothing_waits():
    pace = Pace()
    assert all(pace.wait(10**9, 0.0) == 0 for _ in range(1000))


@pytest.mark.parametrize("limit", [1, 30, 600])
def test_a_minute_holds_the_limit_and_at_most_one_second_more(limit):
    times = sent_in(Pace(requests_per_minute=limit), 300)
    assert limit <= most_in_a_minute(times) <= limit + max(1, limit / 60) + 1
    assert len(times) == pytest.approx(5 * limit, rel=0.05, abs=2)


def test_tokens_a_minute_are_a_limit_of_their_own_and_unused_ones_come_back():
    assert len(sent_in(Pace(tokens_per_minute=60_000), 120, tokens=1000)) == pytest.approx(120, abs=3)
    pace, now, sent = Pace(tokens_per_minute=60_000), 0.0, 0
    while now < 120:
        if wait := pace.wait(1000, now):
            now += wait
        else:
            pace.settled(1000, 250)  # a quarter was used
            sent += 1
    assert sent == pytest.approx(480, abs=8)


def test_a_request_larger_than_the_bucket_goes_and_its_debt_is_paid_off():
    pace = Pace(tokens_per_minute=60)
    assert pace.wait(120, 0.0) == 0.0
    assert pace.wait(1, 0.0) == pytest.approx(120.0)


def test_nothing_saved_up_in_an_idle_hour_is_spent_at_once():
    pace = Pace(requests_per_minute=60)
    sent_in(pace, 5)
    assert len(sent_in(pace, 10, start=3600)) == pytest.approx(11, abs=1)


def test_a_lone_refusal_slows_nobody_down():
    pace = Pace()
    for n in range(200):
        pace.wait(1, n / 100)
        pace.answered() if n % 20 else pace.refused(1.0, n / 100)
    assert pace.requests_per_second(2.0) is None


def test_refusals_cut_the_rate_once_a_second_and_it_grows_back():
    pace, now, allowed, refused, answered = Pace(), 0.0, 50, 0, 0  # an endpoint that allows fifty a second
    history: list[float] = []
    while now < 120:
        if wait := pace.wait(1, now):
            now += wait
            continue
        history = [each for each in history if each > now - 1]
        if len(history) < allowed:
            history.append(now)
            answered += 1
            pace.answered()
        else:
            refused += 1
            pace.refused(0.1, now)
        now += 0.002
    assert answered > 0.6 * 120 * allowed  # most of what it allows
    assert refused < MANY * (answered + refused)  # instead of nine in ten


def test_the_cut_is_a_share_of_what_was_sent_and_ends_at_the_limit_again():
    pace = Pace(requests_per_minute=600)
    for n in range(9):
        pace.wait(1, n / 10)
        pace.refused(0.0, n / 10)
    assert pace.requests_per_second(0.8) == pytest.approx(CUT * 10, rel=0.3)
    assert pace.requests_per_second(60.0) == 10


def test_when_only_refusals_come_everything_waits_for_the_longest_retry_after():
    pace = Pace()
    for n in range(REFUSALS_IN_A_ROW):
        assert pace.wait(1, 0.0) == 0.0
        pace.refused(86_400.0 if n == REFUSALS_IN_A_ROW - 1 else 1.0, 0.0)
    assert pace.wait(1, 10.0) == pytest.approx(86_390.0)
    assert pace.wait(1, 86_400.0) == 0.0
