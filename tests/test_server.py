"""The local Prefect server: found however slow, never ended while it lives, replaced when it is gone."""

import json

import pytest

from flows import server


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "server.json").write_text(json.dumps({"pid": 1, "port": 1, "auth": "admin:x"}))
    return tmp_path / "server.json"


def test_a_busy_server_is_waited_for_and_not_replaced(recorded, monkeypatch):
    answers = iter([False, False, True])
    monkeypatch.setattr(server, "_is_ours", lambda pid: True)
    monkeypatch.setattr(server, "_healthy", lambda found: next(answers))
    assert server._awaited()["pid"] == 1
    assert recorded.exists()


def test_a_server_that_is_gone_is_not_waited_for(recorded, monkeypatch):
    monkeypatch.setattr(server, "_is_ours", lambda pid: False)
    assert server._awaited() is None


@pytest.mark.parametrize("broken", ["", "{", "admin"])
def test_a_broken_record_is_none_and_a_broken_password_is_made_anew(recorded, broken):
    recorded.write_text(broken)
    assert server.running() is None
    (recorded.parent / "password").write_text("")
    assert server._password().startswith("admin:")
