"""The estimate's promise: its 95 % interval holds the true total about 95 times in a hundred."""

import math
import random

import pytest

from lib.text.estimate import seconds, total


def test_the_expected_total_is_the_mean_times_the_count():
    found = total([9.0, 10.0, 11.0], 10)
    assert found.expected == pytest.approx(100)
    assert 0 < found.low < 100 < found.high and found.high - 100 == pytest.approx(100 - found.low)


def test_equal_figures_leave_no_doubt_and_one_figure_leaves_all():
    assert total([5.0] * 20, 7).low == total([5.0] * 20, 7).high == 35
    assert total([5.0], 7) is None and total([], 7) is None


def test_a_cost_is_never_below_nothing():
    assert total([0.0, 100.0], 3).low == 0


@pytest.mark.parametrize("size", [3, 20, 200])
def test_the_interval_holds_the_truth_as_often_as_it_says(size):
    dice, count, held, rounds = random.Random(size), 50, 0, 2000
    for _ in range(rounds):
        found = total([dice.gauss(30, 8) for _ in range(size)], count)
        truth = math.fsum(dice.gauss(30, 8) for _ in range(count))
        held += found.low <= truth <= found.high
    assert 0.935 < held / rounds < 0.965


def test_the_interval_narrows_with_the_sample_but_not_below_the_requests_own_scatter():
    dice = random.Random(1)
    figures = [dice.gauss(30, 8) for _ in range(20_000)]
    widths = [(found := total(figures[:size], 400)).high - found.low for size in (20, 200, 20_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.96 * 8 * 20, rel=0.05)


def test_the_time_is_what_is_in_flight_or_what_the_limit_allows():
    assert seconds(1000, 1.5, latency=2.0, concurrency=30, per_minute=None) == pytest.approx(100)
    assert seconds(1000, 1.5, latency=2.0, concurrency=30, per_minute=60) == pytest.approx(1500)
    assert seconds(1000, 0.0, latency=0.0, concurrency=30, per_minute=None) == 0
