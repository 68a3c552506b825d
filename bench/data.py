"""The data half beside its peers: one table, measured in one run.

    pip install -c constraints.txt -e ".[bench]"
    python -m bench.data                                          # everything, on text of the built-in storyteller
    python -m bench.data --stories train.jsonl --llama2c ../llama2.c
    python -m bench.data --only near clean --rounds 1

In:   a .jsonl of stories to imitate, llama2.c's checkout (both optional), how many rounds each case runs
Out:  a table: ours, the peer, how many times better, what it has to reach; exit code 1 where a bar is missed

Ratios of CPU seconds of one run are worth keeping; the figures themselves belong to the machine of that day.
"""

import importlib
import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bench.beside import CaseFailed, Row, missed, show

Name = Literal["clean", "near", "encode", "novelty", "cost", "sql", "cached"]
NAMES: tuple[Name, ...] = ("clean", "near", "encode", "novelty", "cost", "sql", "cached")
app = App(name="bench.data", help="The data half beside its peers, measured in one run.")


@app.default
def run(
    *,
    only: Annotated[list[Name] | None, Parameter(consume_multiple=True)] = None,
    rounds: int = 3,
    stories: str | None = None,
    llama2c: str | None = None,
) -> None:
    """Measure and print.

    Parameters
    ----------
    only
        Some of the benches instead of all of them.
    rounds
        How often each case runs; the best round counts.
    stories
        A .jsonl of real stories to imitate. Without one: the built-in storyteller's.
    llama2c
        The folder of a checkout of llama2.c, for the encoding bench.
    """
    rows: list[Row] = []
    for name in only or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"bench.{name}").table(rounds=rounds, stories=stories, llama2c=llama2c)
        except CaseFailed as error:
            sys.exit(f"bench.{name}: {error}")
    show(rows)
    if missed(rows):
        sys.exit(1)


if __name__ == "__main__":
    app()
