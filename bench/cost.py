"""What a story costs, by stage, in a small corpus and in one 16 times as large: both should be the same.

    python -m bench.cost [--stories FILE.jsonl] [--rounds 3] [--base 4000]

In:   stories like the built-in storyteller's or a file's (bench/texts.py), read through ingest; for `generate` and
      `selfinstruct` the storyteller itself, asked for an eighth as many
Out:  CPU seconds a story at 1x and at 16x, their ratio, and the peak memory of both

Each case is a process of its own, which has worked on a few stories before, so that imports flatter nobody; its inputs
are made in another one, so that they do not count as its memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.beside import HOUSE, Case, Row, beside
from bench.texts import markov, with_copies
from flows.wiring import vocabulary
from lib import presets, stages
from lib.overrides import with_overrides
from lib.stages.generate import GenerateConfig
from lib.stages.ingest import IngestConfig
from lib.stages.novelty import NoveltyConfig
from lib.stages.selfinstruct import SelfinstructConfig
from lib.store import Config, Dataset
from lib.text.prompts import PromptPlan

STAGES = ("generate", "selfinstruct", "ingest", "clean", "dedup", "novelty", "split", "tokenizer", "tokens")
ASKED = ("generate", "selfinstruct")  # of the built-in storyteller
TIMES = 16
WARM = 200  # stories
# These compare a row with those before it; the others look at each by itself.
BARS = {"dedup": 1.8, "novelty": 1.8, "selfinstruct": 1.8}
BAR = 1.15
PART_ROWS = 1000
LEARNED_FROM = 2048  # stories of the vocabulary, at both sizes: it is learned from a fixed number of them


class Reached(Exception):
    """The chain has come to the stage that is to be measured; what it would do now."""


def prepare(stage: str, count: int, source: str | None, folder: str) -> Callable[[], dict[str, Any]]:
    """Work on a few stories, then make ready to work on all."""
    _ready(stage, WARM, source, folder)()
    return _ready(stage, count, source, folder)


def _ready(stage: str, count: int, source: str | None, folder: str) -> Callable[[], dict[str, Any]]:
    """Make what the stage reads, in another process; forget what it wrote before."""
    data = Path(folder) / f"{stage if stage in ASKED else 'read'}-{count}"
    os.environ["STORYMILL_DATA"] = str(data)
    arguments = json.dumps([stage, count, source])
    subprocess.run([sys.executable, "-m", "bench.cost", "--inputs", arguments], cwd=HOUSE, check=True)
    shutil.rmtree(data / stage, ignore_errors=True)
    shutil.rmtree(data / "requests", ignore_errors=True)
    config, inputs = _run_until(stage, count)

    def work() -> dict[str, Any]:
        made = stages.build(stage, config, inputs)
        return {"rows": made.manifest["rows"], "bytes": made.manifest["bytes"]}

    return work


def make_inputs(stage: str, count: int, source: str | None) -> None:
    """The file of stories, and every dataset up to the stage."""
    path = _file(count)
    if stage not in ASKED and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        stories = with_copies(markov(count, path=source), share=0.02)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in stories))
    _run_until(stage, count)


def _run_until(stage: str, count: int) -> tuple[Config, dict[str, Dataset]]:
    """Run the chain up to a stage: its config and its inputs."""

    def do(name: str, config: Config, **inputs: Dataset) -> Dataset:
        if name == stage:
            raise Reached(config, inputs)
        return stages.build(name, config, inputs)

    try:
        vocabulary(_config(stage, count), do)
    except Reached as reached:
        return reached.args
    raise ValueError(f"found no stage {stage!r} in the chain, expected one of {', '.join(STAGES)}")


def _config(stage: str, count: int) -> presets.VocabularyConfig:
    changes: dict[str, Any] = {
        "split": {"on_contamination": "waive"},  # copies are planted
        "tokenizer": {"most_stories": LEARNED_FROM, "vocab_size": 1024},
    }
    config = with_overrides(presets.laptop_vocabulary(), changes)
    given: dict[str, Config] = {"ingest": IngestConfig(path=str(_file(count)), part_rows=PART_ROWS)}
    if stage == "generate":
        given = {"generate": GenerateConfig(plan=PromptPlan(count=count), part_rows=PART_ROWS)}
    if stage == "selfinstruct":
        given = {"selfinstruct": SelfinstructConfig(count=count, part_rows=PART_ROWS)}
    if stage == "novelty":
        given["novelty"] = NoveltyConfig()
    return config.model_copy(update=given)


def _file(count: int) -> Path:
    return Path(os.environ["STORYMILL_DATA"]) / f"stories-{count}.jsonl"


# ---- the table


def table(
    *, rounds: int, stories: str | None, llama2c: str | None, base: int = 4000, only: Sequence[str] = STAGES
) -> list[Row]:
    """One row a stage. `ratio` is the cost at 1x over the cost at 16x, so that more is better, as in every row."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        for stage in only:
            count = base // 8 if stage in ASKED else base
            sizes = (count, count * TIMES)
            arguments = {"stage": stage, "source": stories, "folder": folder}
            cases = [Case(str(size), "bench.cost", "prepare", arguments | {"count": size}) for size in sizes]
            few, many = beside(cases, rounds).values()
            costs = [1e6 * each.cpu_s / size for each, size in zip((few, many), sizes, strict=True)]
            rows.append(
                Row(
                    stage=f"{stage}, cost of a story",
                    ours=f"{costs[1]:.0f} µs at {sizes[1]:,}",
                    peer=f"{costs[0]:.0f} µs at {sizes[0]:,} (itself)",
                    ratio=costs[0] / costs[1],
                    bar=1 / BARS.get(stage, BAR),
                    note=f"peak memory {few.peak_mb:.0f} → {many.peak_mb:.0f} MB",
                )
            )
            print(rows[-1], file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", help="a .jsonl of real stories to imitate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--base", type=int, default=4000, help="stories at 1x")
    parser.add_argument("--inputs", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inputs:
        make_inputs(*json.loads(given.inputs))
        return
    for row in table(rounds=given.rounds, stories=given.stories, llama2c=None, base=given.base, only=given.only):
        print(
            f"{row.stage:26} {row.ours:20} {row.peer:28} {1 / row.ratio:5.2f}x, at most {1 / row.bar:.2f}  {row.note}"
        )


if __name__ == "__main__":
    main()
