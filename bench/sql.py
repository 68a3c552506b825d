"""SQL at size: every query the pages show, every view, one story's lineage and a question of coverage.

    python -m bench.sql 50000                     # a folder of 50,000 stories, made and measured
    python -m bench.sql 2000000 --keep big        # the folder stays in big/ and is measured again another time

In:   how many stories; a .jsonl of stories to imitate, or none: the built-in storyteller's
Out:  CPU seconds per query on one core: what a free machine of one core waits, whoever else is busy on this one; the
      folder is made of the tables that the stages write, with rows made up in bulk (bench/folder.py)
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import App

from bench.beside import HOUSE, Case, Row, alone
from bench.folder import make
from lib import store

LIMIT_S = 10.0  # what every query must stay under at 2,000,000 stories
ROWS = 2_000_000
QUESTION = "a boy crossing a bridge with a troll under it"
QUERY = re.compile(r'storymill sql(?: --format \w+)? "([^"]+)"', re.DOTALL)
TYPICAL = {
    "one story's lineage": "select * from lineage where story_id = (select max(story_id) from stories)",
    "twenty stories' lineage": "select * from lineage limit 20",
    "hardest stories": "select story_id, base_bits_per_byte from lineage order by 2 desc nulls last limit 10",
    "cost by side": "select split, sum(cost_microdollars), count(*) from lineage group by all",
    "a story's steps": "select stage, step from seen where story_id = (select max(story_id) from stories)",
    "cost of what was dropped": "select dropped_because, sum(cost_microdollars) from lineage group by all",
    "stories by words": "select words // 50, count(*) from stories group by all",
    "a word in the texts": "select count(*) from stories where text like '%troll%'",
    "rare words": "select * from coverage where label = 'thin' order by stories limit 10",
    "largest clusters": "select * from clusters order by cluster_size desc limit 10",
}
app = App(name="bench.sql", help="Seconds of every documented query on a folder of any size.")


@app.default
def run(rows: int = 50_000, /, *, keep: Path | None = None, stories: str | None = None) -> None:
    """Make the folder, ask, print."""
    with tempfile.TemporaryDirectory() as scratch:
        for what, seconds in sorted(measured(keep or Path(scratch), rows, stories).items(), key=lambda each: each[1]):
            print(f"{seconds:8.2f} s  {' '.join(what.split())[:140]}")


def table(*, rounds: int, stories: str | None, llama2c: str | None) -> list[Row]:
    """One row: the slowest query at 2,000,000 stories against its limit."""
    with tempfile.TemporaryDirectory() as scratch:
        seconds = measured(Path(scratch), ROWS, stories)
    slowest = max(seconds, key=seconds.__getitem__)
    ours = f"{len(seconds)} queries, the slowest {seconds[slowest]:.1f} s"
    note = f"{ROWS:,} stories; slowest: {' '.join(slowest.split())[:80]}"
    return [Row("sql", ours, f"limit {LIMIT_S:.0f} s", LIMIT_S / seconds[slowest], 1.0, note)]


def measured(folder: Path, rows: int, stories: str | None) -> dict[str, float]:
    """Seconds by query, asked in a process of its own."""
    os.environ["STORYMILL_DATA"] = str(folder.absolute())
    if store.newest("evaluate") is None:
        started = time.monotonic()
        make(rows, stories)
        print(f"{rows:,} stories made in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return alone(Case("sql", "bench.sql", "prepare", {"folder": str(folder.absolute())})).figures


# ---- what is asked


def prepare(folder: str) -> Callable[[], dict[str, float]]:
    os.environ["STORYMILL_DATA"] = folder
    store.connect().close()  # the first look hashes every file; later ones only their sizes and times
    return ask_all


def ask_all() -> dict[str, float]:
    found: dict[str, float] = {}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        answer = work()
        found[what] = time.process_time() - started
        return answer

    con = timed("connect()", store.connect)
    timed("write_catalogue()", store.write_catalogue)
    views = [name for (name,) in con.execute("select view_name from duckdb_views() where not internal").fetchall()]
    queries = {f"view {name}": f"select count(*) from {name}" for name in views} | TYPICAL
    for what, query in (queries | {query: query for query in documented()}).items():
        timed(what, lambda query=query: con.execute(query).fetchall())
    from lib.web.coverage import coverage

    timed(f"storymill coverage {QUESTION}", lambda: coverage(con, QUESTION))
    return found


def documented() -> list[str]:
    pages = [
        HOUSE / "README.md",
        HOUSE / "data/README.md",
        *(HOUSE / "docs").glob("*.md"),
        *(HOUSE / "lib").rglob("*.py"),
    ]
    return [query for page in pages for query in QUERY.findall(page.read_text()) if "…" not in query]


if __name__ == "__main__":
    app()
