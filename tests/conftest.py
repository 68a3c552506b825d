"""What every test relies on: a data folder of its own, and no Prefect server unless it asks for one."""

import os
import subprocess
import sys

os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"  # a task called by mistake fails instead of starting a server

import pytest


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    """An empty data folder, this test's alone."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("STORYMILL_DATA", str(folder))
    return folder


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory):
    """A running Prefect server of the tests' own, stopped at the end."""
    from tests import runs

    home, data = tmp_path_factory.mktemp("prefect"), tmp_path_factory.mktemp("data")
    code = "from flows import server; print(server.ensure())"
    subprocess.run([sys.executable, "-c", code], cwd=runs.HOUSE, env=runs.environment(home, data), check=True)
    yield home
    runs.storymill("down", home=home, data=data)


@pytest.fixture(scope="session")
def finished(prefect_home, tmp_path_factory):
    """The data folder of one undisturbed run of the smallest preset, and what it printed."""
    from tests import runs

    data = tmp_path_factory.mktemp("finished")
    done = runs.storymill(*runs.SMOKE, home=prefect_home, data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    return data, done.stdout
