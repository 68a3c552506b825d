"""What Prefect's users see: states, artifacts, deployments, scheduled runs that execute."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import runs

pytestmark = pytest.mark.server


def test_the_flow_and_its_tasks_are_recorded(finished, prefect_home):
    flow_runs = runs.api(prefect_home, "/flow_runs/filter", {"sort": "START_TIME_ASC"})
    assert flow_runs[0]["state"]["type"] == "COMPLETED"
    names = {run["name"] for run in runs.api(prefect_home, "/task_runs/filter", {})}
    assert {"generate", "clean", "tokens-pretrain", "tokens-natural", "align", "report"} <= names


def test_rows_and_report_are_artifacts(finished, prefect_home):
    artifacts = {a["key"]: a for a in runs.api(prefect_home, "/artifacts/latest/filter", {})}
    assert "dropped" in artifacts["rows"]["data"]
    assert "bits per byte" in artifacts["report"]["data"].lower()
    assert "sk-" not in str(artifacts)


def test_without_a_password_the_server_says_no(prefect_home):
    server = (prefect_home / "server.json").read_text()
    port = server.split('"port": ')[1].split(",")[0]
    code = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/api/flows/count', data=b'{{}}')"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "401" in refused.stderr


@pytest.fixture(scope="module")
def deployed(prefect_home, tmp_path_factory):
    """`storymill ui` with its worker, on the tests' server."""
    data, log = tmp_path_factory.mktemp("deployed"), tmp_path_factory.mktemp("log") / "ui.log"
    child = runs.start("ui", home=prefect_home, data=data, log=log)
    wait_for(lambda: runs.api(prefect_home, "/deployments/count", {}) == 4, 90)
    wait_for(lambda: runs.api(prefect_home, "/work_pools/storymill/workers/filter", {}), 60)
    yield data
    os.kill(child.pid, signal.SIGINT)
    child.wait(120)


def wait_for(what, seconds):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.5)
    return found


def test_schedules_make_scheduled_runs(deployed, prefect_home):
    """With some versions of SQLAlchemy deploying succeeds and nothing is ever scheduled."""
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    found = wait_for(lambda: runs.api(prefect_home, "/flow_runs/filter", scheduled), 90)
    assert all(run["auto_scheduled"] for run in found)


def test_a_scheduled_run_executes(deployed, prefect_home):
    from lib.presets import StoriesConfig, smoke

    deployment = runs.api(prefect_home, "/deployments/name/stories/stories")
    config = {name: getattr(smoke(), name).model_dump(mode="json") for name in ("generate", "clean", "dedup", "split")}
    assert set(config) < set(StoriesConfig.model_fields)
    body = {"parameters": {"config": config, "more": 5}, "state": {"type": "SCHEDULED"}}
    run = runs.api(prefect_home, f"/deployments/{deployment['id']}/create_flow_run", body)

    def finished_run():
        state = runs.api(prefect_home, f"/flow_runs/{run['id']}")["state"]
        assert state["type"] not in ("FAILED", "CRASHED"), state
        return state["type"] == "COMPLETED"

    wait_for(finished_run, 120)
    assert list((deployed / "split").glob("[!_]*/_manifest.json"))


def test_a_budget_that_is_used_up_ends_the_run_cancelled_with_exit_code_3(prefect_home, tmp_path):
    words = ["run", "--preset", "smoke", "--generate.plan.count", "60", "--generate.plan.seed", "5"]
    words += ["--generate.price-out", "1", "--generate.budget"]
    stopped = runs.storymill(*words, "0.005", home=prefect_home, data=tmp_path)
    assert stopped.returncode == 3, stopped.stdout + stopped.stderr
    assert "storymill: stopped for the budget" in stopped.stderr and "of 60 requests are answered" in stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    cancelled = {"flow_runs": {"state": {"type": {"any_": ["CANCELLED"]}}}}
    (flow_run,) = runs.api(prefect_home, "/flow_runs/filter", cancelled)
    assert "stopped for the budget" in flow_run["state"]["message"]
    task_runs = runs.api(prefect_home, "/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
    assert [(each["state"]["type"], each["run_count"]) for each in task_runs] == [("CANCELLED", 1)]


def test_a_flow_with_a_teacher_that_errs_in_every_way_ends_with_every_story_and_an_exact_bill(
    prefect_home, tmp_path, monkeypatch
):
    from lib.text.storyteller import running
    from tests.economy import EVERY_KIND, EXACT, PRICES, UNKNOWN, billed, ledger, stats

    monkeypatch.setenv("STORYMILL_DATA", str(tmp_path))
    with running(EVERY_KIND) as base_url:
        given = {"base_url": base_url, "budget": 1.0, "reasks": 9, "tries": 12, "backoff": 0.01, "deadline": 3.0}
        given |= {"concurrency": 64, "plan.count": 300} | PRICES
        flags = [word for name, value in given.items() for word in (f"--generate.{name}", str(value))]
        made = runs.storymill("generate", "--preset", "smoke", *flags, home=prefect_home, data=tmp_path)
        assert made.returncode == 0, made.stdout + made.stderr
        seen = stats(base_url)
    assert ledger("select count(*) from raw") == ledger("select count(*) from plan where outcome = 'story'") == (300,)
    assert seen["answered_again"] == 0
    assert ledger("select count(*), count(distinct request_id) from requests") == (seen["requests"], 300)
    known = [bill for kind, bill in seen["bill"]["live"].items() if kind not in UNKNOWN]
    names = ("prompt_tokens", "cached_tokens", "completion_tokens")
    tokens = tuple(sum(bill[name] for bill in known) for name in names)
    assert ledger("select sum(tokens_in), sum(tokens_cached), sum(tokens_out) from requests") == tokens
    attempts, exact, paid = ledger(
        f"select count(*), sum({EXACT}), sum(cost_microdollars) from requests where tokens_in > 0"
    )
    assert ledger(
        f"select count(*) from requests where tokens_in > 0 and cost_microdollars is distinct from {EXACT}"
    ) == (0,)
    assert paid == exact == ledger("select sum(cost_microdollars) from requests")[0]  # the refused cost nothing
    owed = tokens[0] * 0.15 + tokens[1] * (0.075 - 0.15) + tokens[2] * 0.6
    assert owed <= paid < owed + attempts  # each attempt is rounded up to whole micro-dollars
    spent, of_stories = ledger(
        "select (select sum(spent_microdollars) from costs), sum(cost_microdollars) from lineage"
    )
    assert of_stories == pytest.approx(spent, abs=1e-6) and billed(seen) <= spent


KEYED = """
import os, sys
from flows import server
server.ensure()
from prefect import flow
from prefect.blocks.system import Secret
from lib.stages.generate import GenerateConfig
from tasks.generate import generate
Secret(value=sys.argv[2]).save("openai-api-key", overwrite=True)
config = GenerateConfig.model_validate_json(sys.argv[1])
flow(lambda: generate(config), name="keyed")()
assert sys.argv[2] not in str(os.environ), "children inherit the key"
"""


def test_the_key_of_the_secret_block_reaches_the_teacher_and_no_child(prefect_home, tmp_path):
    from lib.stages.generate import GenerateConfig
    from tests.teacher import FakeTeacher, told

    key = "my-own-key-123456789"
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        config = GenerateConfig(teacher="openai", model="fake-1", base_url=teacher.base_url, plan={"count": 5})
        words = [sys.executable, "-c", KEYED, config.model_dump_json(), key]
        env = runs.environment(prefect_home, tmp_path)
        done = subprocess.run(words, cwd=runs.HOUSE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert teacher.heads and all(f"bearer {key}" in head for head in teacher.heads)
    assert key not in done.stdout + done.stderr
