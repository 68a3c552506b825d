"""The promise to whoever pays: every story asked for, none bought twice, never a micro-dollar over budget."""

import pytest

from lib.errors import Stopped
from lib.text.storyteller import running
from tests.economy import (
    EVERY_KIND,
    EXACT,
    KINDS,
    SPENT,
    UNKNOWN,
    billed,
    build,
    config_for,
    killed_after,
    ledger,
    stats,
)

pytestmark = pytest.mark.shell  # teachers and runs in processes of their own


def test_twenty_percent_errors_of_every_kind_and_still_every_story_once_and_every_sum_right():
    with running(EVERY_KIND) as base_url:
        made = build(config_for(base_url, 300))
        seen = stats(base_url)
    assert made.manifest["counts"] == {"rows_in": 300, "rows_out": 300}
    assert set(seen["faults"]) == set(KINDS)
    assert seen["answered_again"] == 0  # no answer that arrived was asked for again
    known = {kind: bill for kind, bill in seen["bill"]["live"].items() if kind not in UNKNOWN}
    tokens = [sum(bill[name] for bill in known.values()) for name in ("prompt_tokens", "completion_tokens")]
    tokens.append(sum(bill["cached_tokens"] for bill in known.values()))
    assert ledger("select sum(tokens_in), sum(tokens_out), sum(tokens_cached) from requests") == tuple(tokens)
    assert ledger("select count(*), count(distinct request_id) from requests") == (seen["requests"], 300)
    unknown = sum(seen["bill"]["live"][kind]["answers"] for kind in UNKNOWN)
    assert ledger("select count(*) from requests where cost_microdollars is null") == (unknown,)
    assert ledger(f"select count(*) from requests where tokens_in is not null and cost_microdollars <> {EXACT}") == (0,)
    refused = "http_status >= 400 and (cost_microdollars <> 0 or tokens_in is not null)"
    assert ledger(f"select count(*) from requests where {refused}") == (0,)
    assert ledger("select any_value(price_in), any_value(price_out), any_value(price_cached) from requests") == (
        0.15,
        0.6,
        0.075,
    )


def test_sixty_four_at_once_never_exceed_the_budget_and_a_larger_one_goes_on():
    with running(EVERY_KIND) as base_url:
        with pytest.raises(Stopped, match=r"of 300 requests are answered, \$0\.0\d+ of \$0\.030000") as stop:
            build(config_for(base_url, 300, budget=0.03))
        spent = ledger(SPENT)[0]
        assert 29_000 < spent <= 30_000
        assert billed(stats(base_url)) <= spent
        before = stats(base_url)["requests"]
        with pytest.raises(Stopped, match=r"raise|Raise"):
            build(config_for(base_url, 300, budget=0.03))  # the same command with the same budget buys nothing more
        assert stats(base_url)["requests"] == before and ledger(SPENT)[0] == spent
        leading = int(str(stop.value).rpartition("--generate.plan.count to ")[2].split()[0])
        fewer = build(config_for(base_url, leading, budget=0.03))
        assert fewer.manifest["rows"] == leading and stats(base_url)["requests"] == before
        whole = build(config_for(base_url, 300, budget=1.0))
        assert whole.manifest["counts"] == {"rows_in": 300, "rows_out": 300}
        assert stats(base_url)["answered_again"] == 0


def test_kill_9_in_the_middle_neither_buys_twice_nor_loosens_the_budget():
    mischief = EVERY_KIND.model_copy(update={"slow": 0.01})
    with running(mischief) as base_url:
        config = config_for(base_url, 200, budget=0.2, concurrency=16)
        for requests in (40, 110):
            killed_after(config, lambda most=requests: stats(base_url)["requests"] >= most)
        made = build(config)
        seen = stats(base_url)
    assert made.manifest["counts"] == {"rows_in": 200, "rows_out": 200}
    lost = ledger("select count(*) from requests where status = 'lost' and cost_microdollars is null")[0]
    assert 0 < lost <= 2 * 16
    assert seen["answered_again"] <= lost  # only what was on its way when the process died
    assert ledger("select count(*) from requests")[0] - lost <= seen["requests"]
    assert billed(seen) <= ledger(SPENT)[0] <= 200_000
    doubled = "select count(*) from (select request_id, attempt from requests group by all having count(*) > 1)"
    assert ledger(doubled) == (0,)
