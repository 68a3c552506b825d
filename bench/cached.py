"""A second run of everything, when nothing has changed and the Prefect server is warm.

    python -m bench.cached [--rounds 3]

In:   preset smoke, a Prefect server and a data folder of its own, both gone afterwards
Out:  seconds from the command to its end, the first run's for comparison, CPU seconds of the process itself
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from bench.beside import HOUSE, Row

AT_MOST_S = 10.0
RUN = ("run", "--preset", "smoke")
DEADLINE_S = 900


@dataclass(frozen=True)
class Spent:
    wall_s: float
    cpu_s: float


class RunFailed(Exception):
    """A run ended with an error; the text holds the last of what it wrote."""


def measure(rounds: int) -> tuple[Spent, list[Spent]]:
    """The first run, and `rounds` cached ones."""
    with tempfile.TemporaryDirectory(prefix="cached-") as folder:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        environment = kept | {"PREFECT_HOME": f"{folder}/prefect", "STORYMILL_DATA": f"{folder}/data"}
        try:
            first = _spent(RUN, environment)
            return first, [_spent(RUN, environment) for _ in range(rounds)]
        finally:
            _spent(("down",), environment)


def _spent(words: tuple[str, ...], environment: dict[str, str]) -> Spent:
    cpu, wall = _cpu_seconds(), time.perf_counter()
    command = [sys.executable, "-m", "flows", *words]
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    if done.returncode:
        raise RunFailed(f"`{' '.join(words)}` ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return Spent(time.perf_counter() - wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(*, rounds: int, stories: str | None, llama2c: str | None) -> list[Row]:
    """One row: seconds of the quickest cached run. `ratio` is how many times under the limit it is."""
    first, cached = measure(rounds)
    best = min(cached, key=lambda each: each.wall_s)
    return [
        Row(
            stage="a cached run of everything",
            ours=f"{best.wall_s:.1f} s, {best.cpu_s:.1f} CPU s",
            peer=f"at most {AT_MOST_S:.0f} s",
            ratio=AT_MOST_S / best.wall_s,
            bar=1.0,
            note=f"preset smoke, server warm; the first run took {first.wall_s:.1f} s, server's start included",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    for row in table(rounds=parser.parse_args().rounds, stories=None, llama2c=None):
        print(f"{row.stage}: {row.ours} ({row.peer}); {row.note}")


if __name__ == "__main__":
    main()
