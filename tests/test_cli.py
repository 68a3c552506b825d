"""The command line: every command has help, bad input is one clear message on stderr, reading commands only read."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runs

pytestmark = pytest.mark.shell
HOUSE = Path(__file__).parent.parent
COMMANDS = [
    "run",
    "generate",
    "plan",
    "presets",
    "sql",
    "sample",
    "chat",
    "coverage",
    "report",
    "export",
    "serve",
    "ui",
    "down",
]


def storymill(*words: str, cwd: Path = HOUSE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command):
    shown = storymill(command, "--help")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) >= 3
    assert re.search(rf"storymill {command}\b", (HOUSE / "README.md").read_text()), f"README: storymill {command}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan", "--pretrain.stepz", "3"], "Unknown option: --pretrain.stepz. Did you mean --pretrain.steps"),
        (["plan", "--pretrain.steps", "0"], "pretrain.steps"),
        (["plan", "--generate.teacher", "parrot"], "parrot"),
        (["plan", "--preset", "desktop"], "desktop"),
        (["plan", "--teacher", "openai"], "needs the name of a model"),
        (["plan", "--stories", "no/such/file.jsonl"], "no/such/file.jsonl"),
        (["sql", "select nonsense"], "nonsense"),
        (["coverage", "the of and"], "the of and"),
        (["report"], "storymill run"),
        (["export", "somewhere"], "storymill run"),
        (["sample", "a story about a cat"], "storymill run"),
        (["sample", "a cat", "--seed", "-1"], "Must be >= 0"),
        (["frobnicate"], "frobnicate"),
        (["run", "--more", "-5"], "-5"),
        (["generate", "--thin", "a boy", "--more", "3"], "leave out --more"),
        (["generate", "--count", "3"], "--generate.plan.count"),
        (["generate", "--thin", "a boy crossing"], "storymill run"),
        (["plan", "--generate.teacher", "openai"], "needs the name of a model"),
    ],
)
def test_bad_input_is_one_clear_message_and_no_traceback(words, told, data_root):
    refused = storymill(*words)
    printed = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert told in printed.replace("\n│ ", " "), printed
    assert "Traceback" not in printed
    assert [path for path in data_root.rglob("*") if path.is_file()] == [], "a refused command wrote something"


def test_plan_says_why_each_stage_would_run():
    planned = storymill("plan", "--preset", "smoke")
    assert planned.returncode == 0, planned.stderr
    assert "never run here" in planned.stdout
    assert "after clean" in planned.stdout


def test_sql_speaks_csv_and_json():
    assert storymill("sql", "select 1 as one, 'a' as letter", "--format", "csv").stdout == "one,letter\n1,a\n"
    assert '"one": 1' in storymill("sql", "select 1 as one", "--format", "json").stdout


def test_sql_without_a_question_lists_the_views():
    listed = storymill("sql").stdout
    for view in ("stories", "requests", "lineage", "train_steps"):
        assert view in listed


def test_control_characters_in_a_story_do_not_reach_the_terminal():
    shown = storymill("sql", "select 'a' || chr(27) || '[2Jb' as text")
    assert "\x1b[2J" not in shown.stdout


def test_control_characters_in_an_error_do_not_reach_the_terminal():
    failed = storymill("sql", "select 'a\x1b[2Jb\x9b31mc' from nowhere")
    assert failed.returncode == 1 and "nowhere" in failed.stderr
    assert "\x1b" not in failed.stderr and "\x9b" not in failed.stderr


def test_csv_is_raw_for_a_program_and_without_control_characters_on_a_terminal():
    from lib.web.tables import show

    rows, (reader, writer) = [("a\x1b[2J\x9b31m\nb", 1)], pty.openpty()
    with os.fdopen(writer, "w", newline="") as terminal:
        show(["text", "n"], rows, "csv", terminal)
        terminal.flush()
        shown = ""
        while ",1" not in shown:  # a terminal may hand on what it got in pieces
            shown += os.read(reader, 1000).decode()
        assert shown.replace("\r", "").rstrip() == 'text,n\n"a[2J31m\nb",1'
    os.close(reader)
    show(["text", "n"], rows, "csv", file := io.StringIO())
    assert "\x1b[2J\x9b31m" in file.getvalue()


def test_text_that_looks_like_an_emoji_code_is_shown_as_it_is():
    assert "a:x:b :smile:" in storymill("sql", "select 'a:x:b :smile:' as text").stdout


def test_the_preset_takes_changes_by_flag():
    from flows.__main__ import Overrides
    from lib.choice import Source, chosen

    changes = Overrides.model_validate({"pretrain": {"steps": 3}})
    changed = chosen(Source(preset="smoke", stories="mine.txt"), changes)
    assert changed.pretrain.steps == 3
    assert changed.pretrain.d_model == 32
    assert changed.ingest.path == "mine.txt"


def test_a_full_disk_outside_of_a_stage_is_one_message(monkeypatch, capsys):
    import flows.__main__ as command_line

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command_line, "app", full)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    told = capsys.readouterr().err
    assert ended.value.code == 1 and told.startswith("storymill: the disk is full") and "Traceback" not in told


def test_environment_of_test_runs_holds_no_key():
    assert runs.environment(Path("home"), Path("data"))["OPENAI_API_KEY"] == ""
