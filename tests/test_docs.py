"""What the pages say is true: every query they show runs, every file they name is there."""

import re
from pathlib import Path

import pytest

from lib import store

HOUSE = Path(__file__).parent.parent
PAGES = sorted([HOUSE / "README.md", HOUSE / "data/README.md", *(HOUSE / "docs").glob("*.md")])
MAY_BE_EMPTY = re.compile("drop|clusters|quarantine|contamination|novelty|selfinstruct")  # where nothing was amiss
QUERY = re.compile(r'storymill sql(?: --format \w+)? "([^"]+)"', re.DOTALL)


def queries() -> list[tuple[str, str]]:
    sources = [*PAGES, *sorted((HOUSE / "lib").rglob("*.py"))]
    return [
        (path.name, query)
        for path in sources
        for query in QUERY.findall(path.read_text())
        if not query.startswith("select …")
    ]


def test_the_readme_shows_five_questions():
    part = (HOUSE / "README.md").read_text().split("## Five questions")[1].split("\n## ")[0]
    assert len(QUERY.findall(part)) == 5


@pytest.mark.parametrize(("page", "query"), queries())
def test_every_query_shown_runs_on_an_empty_data_folder(page, query):
    store.connect().execute(query).fetchall()


@pytest.mark.chain
def test_every_query_shown_answers_on_a_finished_run(finished, monkeypatch):
    data, _ = finished
    monkeypatch.setenv("STORYMILL_DATA", str(data))
    con = store.connect()
    for page, query in queries():
        assert con.execute(query).fetchall() or MAY_BE_EMPTY.search(query), f"{page}: {query}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_tree_names_what_is_there():
    tree = (HOUSE / "README.md").read_text().split("```text\nREADME.md")[1].split("```")[0]
    folder = HOUSE
    for line in tree.splitlines()[1:]:
        name = line.strip().split(" ")[0]
        if not name:
            continue
        indent = len(line) - len(line.lstrip())
        base = HOUSE if indent == 0 else folder
        assert (base / name).exists(), f"the README's tree names {name}"
        if indent == 0 and name.endswith("/"):
            folder = HOUSE / name


def test_no_host_path_or_secret_in_what_is_published():
    banned = re.compile(r"/work/|/root/|/home/\w+/|sk-[A-Za-z0-9]{20,}")
    for path in [*PAGES, *HOUSE.glob("*.toml"), *HOUSE.glob("*.txt"), *HOUSE.glob("*.yaml"), HOUSE / "CHANGELOG.md"]:
        assert not banned.search(path.read_text()), path
