"""The house rules a reader relies on: who may import whom, one word per stage, and names that must stay free."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

HOUSE = Path(__file__).parent.parent
ROOMS = ("lib", "tasks", "flows")
FORBIDDEN = {"lib": {"prefect", "tasks", "flows"}, "tasks": {"flows"}, "flows": set()}
MODULES = sorted(path for room in ROOMS for path in (HOUSE / room).rglob("*.py"))
STAGES = sorted(path.stem for path in (HOUSE / "lib/stages").glob("[!_]*.py"))
TOOLS = sorted(path for room in ("store", "text", "model") for path in (HOUSE / "lib" / room).rglob("*.py"))
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60
HEAVY = {"torch", "prefect", "transformers", "matplotlib", "openai", "datasets", "fastapi", "sentencepiece"}


def name_of(path: Path) -> str:
    return str(path.relative_to(HOUSE))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported_by(path: Path, top_level: bool = False) -> set[str]:
    """Every dotted name a module imports: anywhere in it, or only when it is imported itself."""
    tree = tree_of(path)
    names = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_inward(path):
    room = path.relative_to(HOUSE).parts[0]
    assert not packages(imported_by(path)) & FORBIDDEN[room]


@pytest.mark.parametrize("path", TOOLS, ids=name_of)
def test_tools_do_not_know_stages_or_pages(path):
    assert not {name for name in imported_by(path) if name.startswith(("lib.stages", "lib.web", "lib.presets"))}


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_know_each_other(stage):
    # What two stages share goes down into a tool; only presets.py sees them all.
    others = {f"lib.stages.{other}" for other in STAGES if other != stage}
    assert not imported_by(HOUSE / f"lib/stages/{stage}.py") & others


@pytest.mark.parametrize("stage", STAGES)
def test_one_word_per_stage(stage):
    from lib import stages
    from lib.presets import Chain

    module = stages.module_of(stage)
    assert module.STAGE.name == stage
    assert callable(getattr(module, stage)), f"lib/stages/{stage}.py has no function {stage}"
    assert stages.config_type(stage)
    assert stage in Chain.model_fields
    assert (HOUSE / f"tasks/{stage}.py").exists()
    assert (HOUSE / f"tests/test_{stage}.py").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_what_is_heavy_only_when_it_runs(stage):
    # The command line and `prefect deploy` import every config; torch alone takes two seconds.
    assert not packages(imported_by(HOUSE / f"lib/stages/{stage}.py", top_level=True)) & HEAVY


def test_reading_commands_import_neither_prefect_nor_torch():
    code = (
        "import sys; from flows.__main__ import app; import lib.web.plan, lib.web.tables, lib.web.coverage; "
        "from lib import store; store.connect(); "
        f"print(sorted({HEAVY | {'pandas'}!r} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_relative_imports():
    pattern = re.compile(r"^\s*from \.", re.MULTILINE)
    assert not [name_of(path) for path in MODULES if pattern.search(path.read_text())]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(path):
    assert path.stat().st_size == 0 or ast.get_docstring(tree_of(path)), "no module docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_and_its_functions_can_be_read_in_one_sitting(path):
    source = path.read_text()
    functions = (each for each in ast.walk(tree_of(path)) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {each.name: each.end_lineno - each.lineno + 1 for each in functions}
    assert len(source.splitlines()) <= MOST_LINES
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_OF_A_FUNCTION} == {}


@pytest.mark.parametrize("path", sorted((HOUSE / "flows").glob("[!_]*.py")), ids=name_of)
def test_no_flow_shadows_a_package(path):
    # Loaded by file, a flow puts flows/ first on sys.path, and flows/datasets.py would be `datasets`.
    assert path.stem not in set(packages_distributions()) | set(sys.stdlib_module_names) | set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_ours(room):
    # Another distribution may ship a top-level `lib` or `tasks`; ours must be the one that is imported.
    assert Path(__import__(room).__file__).is_relative_to(HOUSE)


def test_deployments_name_flows_that_exist():
    deployments = yaml.safe_load((HOUSE / "prefect.yaml").read_text())["deployments"]
    assert {each["name"] for each in deployments} == {"stories", "vocabulary", "training", "nightly"}
    for each in deployments:
        module, _, function = each["entrypoint"].rpartition(".")
        source = (HOUSE / f"{module.replace('.', '/')}.py").read_text()
        assert f"def {function}(" in source
        assert each["description"] and each["tags"] and each["concurrency_limit"]


def test_nothing_unpickles_or_trusts_remote_code():
    banned = re.compile(r"pickle\.load|weights_only=False|trust_remote_code=True|allow_pickle=True|yaml\.load\(")
    assert not [name_of(path) for path in MODULES if banned.search(path.read_text())]
