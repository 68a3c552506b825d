"""The whole chain as a user runs it: it ends, it is remembered, and nothing that kills it can change what it makes."""

import random
import subprocess
import time

import duckdb
import pytest

from tests import runs

pytestmark = pytest.mark.chain


def test_a_run_ends_with_what_a_user_wants_to_know(finished):
    _, printed = finished
    for wanted in ("bits per byte", "instructions followed", "reward", "report", "storymill chat", "Prefect's page"):
        assert wanted in printed, printed


def test_a_second_run_finds_every_stage_cached(finished, prefect_home):
    data, _ = finished
    before = runs.digests(data)
    again = runs.storymill(*runs.SMOKE, home=prefect_home, data=data)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("Finished in state Cached") == 13, again.stderr
    assert runs.digests(data) == before


def test_a_damaged_part_is_named_and_rebuilt_and_nothing_after_it_runs(finished, prefect_home):
    data, _ = finished
    before = runs.digests(data)
    victim = next((data / "clean").glob("[!_]*/part-00000.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    again = runs.storymill(*runs.SMOKE, home=prefect_home, data=data)
    assert again.returncode == 0, again.stderr
    assert "part-00000.parquet" in again.stdout + again.stderr
    assert again.stderr.count("Finished in state Cached") == 12, again.stderr
    assert runs.digests(data) == before


def test_killed_at_ten_random_moments_it_makes_the_same(finished, prefect_home, tmp_path):
    """kill -9 of the whole process tree, ten times; then the digests of an undisturbed run."""
    undisturbed, _ = finished
    data, log, moments = tmp_path / "killed", tmp_path / "log", random.Random(5)
    kills = rounds = 0
    while kills < 10:
        child = runs.start(*runs.SMOKE, home=prefect_home, data=data, log=log)
        try:
            child.wait(moments.uniform(2.5, 9.0))
        except subprocess.TimeoutExpired:
            runs.kill_tree(child.pid)
            child.wait()
            kills += 1
            continue
        assert child.returncode == 0, log.read_text()
        assert runs.digests(data) == runs.digests(undisturbed)
        rounds += 1  # it got through before the tenth kill: once more, from nothing
        data = tmp_path / f"killed{rounds}"
    done = runs.storymill(*runs.SMOKE, home=prefect_home, data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.digests(data) == runs.digests(undisturbed)
    asked = duckdb.connect(str(data / "storymill.duckdb"), read_only=True).execute(
        "select count(*) from (select request_id from requests where status = 'ok' group by 1 having count(*) > 1)"
    )
    assert asked.fetchone() == (0,), "an answer that had arrived was asked for again"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stories", "no-such-file.jsonl"], "found no file no-such-file.jsonl"),
        (["--teacher", "openai", "--model", "some-model"], "OPENAI_API_KEY"),
        (["--clean.min-words", "390"], "clean kept none of 160 stories"),
    ],
)
def test_what_a_user_must_mend_is_said_once_and_ends_with_exit_code_one(words, told, prefect_home, tmp_path):
    refused = runs.storymill(*runs.SMOKE, *words, home=prefect_home, data=tmp_path)
    assert refused.returncode == 1
    assert (refused.stdout + refused.stderr).count(told) == 1, refused.stderr
    assert "Traceback" not in refused.stderr


def test_two_runs_at_once_do_the_work_once(finished, prefect_home, tmp_path):
    undisturbed, _ = finished
    data = tmp_path / "shared"
    both = [runs.start(*runs.SMOKE, home=prefect_home, data=data, log=tmp_path / f"log{n}") for n in (1, 2)]
    deadline = time.monotonic() + 240
    assert [child.wait(deadline - time.monotonic()) for child in both] == [0, 0]
    assert runs.digests(data) == runs.digests(undisturbed)
    assert "waiting for it" in (tmp_path / "log1").read_text() + (tmp_path / "log2").read_text()
