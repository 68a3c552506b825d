"""What `storymill plan` says about money before anything is sent, and what its pilot sends."""

import json
import re

import pyarrow.parquet as pq
import pytest

from lib.errors import Stopped
from lib.stages.selfinstruct import SelfinstructConfig
from lib.text import ledger as text_ledger
from lib.text.storyteller import Mischief, running
from lib.web import cost
from tests.economy import SPENT, build, config_for, stats
from tests.economy import ledger as ask


def said(config) -> str:
    return "\n".join(cost.lines(config))


def silent(*_) -> None:
    """Progress that nobody reads."""


def test_without_a_sample_there_is_a_bound_and_the_way_to_a_sample(data_root):
    with running() as base_url:
        text = said(config_for(base_url, 50))
        assert stats(base_url)["requests"] == 0 and not list(data_root.iterdir())
    assert "0 of 50 requests are answered; $0.0000 are spent" in text
    assert "at most $0.0" in text and "storymill plan --pilot 20" in text and "95 %" not in text


def test_the_pilot_is_kept_and_the_estimate_holds_what_the_rest_then_costs():
    with running(Mischief(refusal=0.1, malformed=0.1, server_error=0.1)) as base_url:
        config = config_for(base_url, 200)
        cost.pilot(config, 40, silent)
        pilot = ask(SPENT)[0]
        assert ask("select count(distinct request_id) from requests") == (40,)
        text = said(config)
        build(config)
        rest = (ask(SPENT)[0] - pilot) / 1e6
        assert stats(base_url)["answered_again"] == 0
    low, high = map(float, re.search(r"live .*95 %: \$([\d.]+) to \$([\d.]+)", text).groups())
    assert low < rest < high < 2 * low
    assert "40 of 200 requests are answered" in text and "judging by 40 answered ones" in text
    assert 1.0 < float(text.split("attempts")[1].split()[0]) < 2.0
    half = float(text.split("by batch  $")[1].split()[0])
    assert half == pytest.approx(float(text.split("live      $")[1].split()[0]) / 2, abs=2e-3)
    assert said(config).startswith("200 of 200 requests are answered") and "95 %" not in said(config)


def test_another_plan_with_the_same_settings_is_a_sample_and_other_settings_are_none():
    with running() as base_url:
        cost.pilot(config_for(base_url, 30), 20, silent)
        other = config_for(base_url, 30)
        other = other.model_copy(update={"plan": other.plan.model_copy(update={"seed": 7})})
        assert "0 of 30" in said(other) and "judging by 20 answered ones" in said(other)
        assert "95 %" not in said(other.model_copy(update={"max_tokens": 700}))


def test_the_pilot_keeps_to_the_budget_and_a_tight_budget_is_said():
    with running() as base_url:
        with pytest.raises(Stopped, match="stopped for the budget"):
            cost.pilot(config_for(base_url, 50, budget=0.001), 20, silent)
        assert ask(SPENT)[0] <= 1000
        text = said(config_for(base_url, 50, budget=0.002))
    assert "budget $0.0020, of which $0.00" in text and "the run may stop" in text


def test_free_requests_are_estimated_in_tokens_and_time():
    with running() as base_url:
        free = {"price_in": 0.0, "price_out": 0.0, "price_cached": None}
        cost.pilot(config_for(base_url, 50, **free), 20, silent)
        text = said(config_for(base_url, 50, **free, requests_per_minute=60.0))
    assert "live      $0.0000" in text and "30 s at" in text and "within 60 requests a minute" in text
    assert "tokens" in text and "(95 %:" in text


def test_what_was_answered_by_batch_says_nothing_about_the_time_of_a_live_run():
    with running() as base_url:
        cost.pilot(config_for(base_url, 100, transport="batch", batch_poll_seconds=0.01), 20, silent)
        assert "judging by 20 answered ones" in said(config_for(base_url, 100))
        assert "time      unknown: none like these were asked live so far" in said(config_for(base_url, 100))
        assert "time      up to a day for each batch" in said(config_for(base_url, 100, transport="batch"))
        cost.pilot(config_for(base_url, 100), 20, silent)
        found = re.search(r"at ([\d.]+) s an attempt", said(config_for(base_url, 100)))
    row = ask("select avg(latency_ms) / 1000 from requests where transport = 'live'")
    assert float(found[1]) == pytest.approx(row[0], abs=0.006)


def test_the_cost_of_self_instruct_is_said_for_its_first_round():
    with running() as base_url:
        given = {"base_url": base_url, "price_in": 0.15, "price_out": 0.6, "tasks_per_request": 4}
        config = SelfinstructConfig(count=100, **given)
        text = said(config)
        assert stats(base_url)["requests"] == 0
        assert "0 of 25 requests are answered" in text and "at most $0.0" in text
        assert "until there are 100 tasks, or 125 requests" in text
        cost.pilot(config, 10, silent)
        assert "10 of 25 requests are answered" in said(config) and "judging by 10" in said(config)
        assert ask("select count(*) from requests") == (10,)


def test_a_segment_that_is_sealed_before_the_view_is_asked_is_found_again(data_root, monkeypatch):
    sql = text_ledger.requests_sql
    with running() as base_url:
        config = config_for(base_url, 50)
        cost.pilot(config, 20, silent)
        (sealed,) = (data_root / "requests").glob("requests-*.parquet")
        rows = [json.dumps(each) for each in pq.read_table(sealed).to_pylist()]
        sealed.with_suffix(".jsonl").write_text("\n".join(rows) + "\n")
        sealed.unlink()

        def late(root):
            found = sql(root)
            text_ledger.seal(root)
            return found

        monkeypatch.setattr(text_ledger, "requests_sql", late)
        assert "judging by 20 answered ones" in said(config)
