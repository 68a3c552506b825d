"""The learning half beside its peers, as one table.

    python -m bench.learning --stories train.jsonl --heldout valid.jsonl --llama2c ../llama2.c --nanogpt ../nanoGPT
    python -m bench.learning --only train rollouts --rounds 1

In:   a .jsonl of real stories, one of held-out ones, checkouts of the peers (all optional), how many rounds a case runs
Out:  a table: ours, the peer, how many times better, what it has to reach; exit code 1 where a bar is missed or a case
      failed; curve.json and curve.png in --out

A peer that is not there is named in its row and compared with nothing. Ratios of one run are worth keeping; the figures
themselves belong to the machine of that day. `curve` trains for 24 minutes; the others take some minutes each.
"""

import importlib
import sys
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from bench.beside import CaseFailed, Row, missed, show

Name = Literal["train", "curve", "rollouts", "embedding", "update", "chat", "gpu"]
NAMES: tuple[Name, ...] = ("train", "curve", "rollouts", "embedding", "update", "chat", "gpu")
app = App(name="bench.learning", help="The learning half beside its peers, measured in one run.")


@app.default
def run(
    *,
    only: Annotated[list[Name] | None, Parameter(consume_multiple=True)] = None,
    rounds: int = 3,
    stories: str | None = None,
    heldout: str | None = None,
    llama2c: str | None = None,
    nanogpt: str | None = None,
    out: str = ".",
) -> None:
    """Measure and print.

    Parameters
    ----------
    only
        Some of the benches instead of all of them.
    rounds
        How often each case runs; the best round counts.
    stories
        A .jsonl of real stories. Without one: the built-in storyteller's.
    heldout
        A .jsonl of stories that the curve is measured on. Without one: every 20th of the others.
    llama2c
        The folder of a checkout of llama2.c.
    nanogpt
        The folder of a checkout of nanoGPT.
    out
        The folder for the curve's curve.json and curve.png.
    """
    given: dict[str, Any] = {"rounds": rounds, "stories": stories, "llama2c": llama2c, "nanogpt": nanogpt}
    rows: list[Row] = []
    failed = False
    try:
        for name in only or NAMES:
            print(f"{name} …", file=sys.stderr, flush=True)
            more = {"heldout": heldout, "out": out} if name == "curve" else {}
            try:
                rows += importlib.import_module(f"bench.{name}").table(**given, **more)
            except CaseFailed as error:
                failed = True
                rows.append(Row(name, "failed", "–", note=str(error)))
    finally:  # what took minutes to measure is shown, whatever ended the rest
        show(rows)
    if failed or missed(rows):
        sys.exit(1)


if __name__ == "__main__":
    app()
