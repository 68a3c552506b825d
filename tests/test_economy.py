"""The promise to whoever pays: exactly the stories asked for, nothing bought twice, never a micro-dollar over budget."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lib import store
from lib.errors import Stopped
from lib.stages import generate
from lib.stages.generate import GenerateConfig
from lib.text import prompts
from lib.text.storyteller import Mischief, running
from lib.text.storyteller.mischief import UNDELIVERED

PRICES = {"price_in": 0.15, "price_cached": 0.075, "price_out": 0.6, "price_version": "2026-11"}
KINDS = ("rate_limited", "server_error", "unavailable", "garbled", "slow_drip", "cut", "oversized", "no_usage")
KINDS += ("malformed", "refusal", "truncated", "filtered", "empty")
EVERY_KIND = Mischief(**dict.fromkeys(KINDS, 0.2 / len(KINDS)), retry_after=0.01, drip_seconds=3.0)  # 20 % in all
UNKNOWN = (*UNDELIVERED, "no_usage")  # whose bill the client never sees


def config_for(base_url: str, count: int, **more) -> GenerateConfig:
    given = {"part_rows": 50, "reasks": 9, "backoff": 0.01, "tries": 12, "concurrency": 64, "deadline": 0.5} | PRICES
    return GenerateConfig(base_url=base_url, plan=prompts.PromptPlan(count=count), **given | more)


def build(config: GenerateConfig) -> store.Dataset:
    return store.build(generate.STAGE, config, {}, generate.generate)


def stats(base_url: str) -> dict:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats?keys=1") as answer:
        return json.load(answer)


def ledger(query: str) -> tuple:
    return store.connect().execute(query).fetchone()


SPENT = "select sum(coalesce(cost_microdollars, reserved_microdollars)) from requests"


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
    exact = "ceil(round(((tokens_in - tokens_cached) * 0.15 + tokens_cached * 0.075 + tokens_out * 0.6), 6))"
    assert ledger(f"select count(*) from requests where tokens_in is not null and cost_microdollars <> {exact}") == (0,)
    refused = "http_status >= 400 and (cost_microdollars <> 0 or tokens_in is not null)"
    assert ledger(f"select count(*) from requests where {refused}") == (0,)
    assert ledger("select any_value(price_in), any_value(price_out), any_value(price_cached) from requests") == (
        0.15,
        0.6,
        0.075,
    )


def billed(seen: dict) -> int:
    """What the endpoint would put on its bill, in micro-dollars, were it rounded up once an answer or less often."""
    total = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
    for bill in seen["bill"]["live"].values():
        total = {name: total[name] + bill[name] for name in total}
    new = total["prompt_tokens"] - total["cached_tokens"]
    return int(new * 0.15 + total["cached_tokens"] * 0.075 + total["completion_tokens"] * 0.6)


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


CHILD = """
import sys
from lib import store
from lib.stages import generate
config = generate.GenerateConfig.model_validate_json(sys.argv[1])
store.build(generate.STAGE, config, {}, generate.generate)
"""


def killed_after(config: GenerateConfig, moment) -> None:
    """Run this in a process of its own, and kill -9 it as soon as `moment()` is true."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, config.model_dump_json()], cwd=Path(__file__).parent.parent)
    while not moment() and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


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
