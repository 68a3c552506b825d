"""Ours beside the peers: every case in a process of its own, in turns, on one core by CPU seconds, or on several.

In:   cases: functions `prepare(**arguments) -> work`, where `work()` is what is measured and returns figures to report
Out:  for each case the least CPU seconds over the rounds (user + system, children included), peak memory, its figures

Machines are shared and noisy: cases of one round follow one another, so that a busy minute hits all of them, and only
ratios of one run are worth keeping. Imports and preparation are outside the measured time.

    cases = [Case(name, "bench.near", name, {"rows": 20_000}) for name in ("ours", "rensa")]
    measured = beside(cases, rounds=3)
    measured["rensa"].cpu_s / measured["ours"].cpu_s
"""

import importlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Case:
    """One way to do the work: function `function` of module `module`, called with `arguments` (JSON values)."""

    name: str
    module: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # what the real program sets for itself
    threads: int = 1  # and so many cores; by wall time where it is more than one


@dataclass(frozen=True)
class Measured:
    """The best of the rounds. `figures` is what the work returned: rows, pairs, precision, …"""

    cpu_s: float
    wall_s: float
    peak_mb: float  # resident memory of the process at its highest, its imports included
    figures: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a table: figures as text, how many times better ours is, and what it has to reach."""

    stage: str
    ours: str
    peer: str
    ratio: float | None = None
    bar: float | None = None
    note: str = ""


class CaseFailed(Exception):
    """A case ended with an error; the text holds the last of what it wrote."""


def beside(cases: list[Case], rounds: int = 3, core: int = 0) -> dict[str, Measured]:
    """Measure every case `rounds` times, in turns."""
    runs: dict[str, list[Measured]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            runs[case.name].append(alone(case, core))
    alone_on_a_core = {case.name: case.threads == 1 for case in cases}
    return {
        name: min(each, key=lambda run: run.cpu_s if alone_on_a_core[name] else run.wall_s)
        for name, each in runs.items()
    }


def alone(case: Case, core: int = 0) -> Measured:
    """One case, once, in a process pinned to one core, or to as many as it has threads."""
    cores = list(range(core, core + case.threads))
    request = json.dumps([case.module, case.function, case.arguments, cores])
    environment = os.environ | dict.fromkeys(THREADS, str(case.threads)) | {"PYTHONHASHSEED": "0"} | case.environment
    command = [sys.executable, "-m", "bench.beside", request]
    done = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaseFailed(f"{case.name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _cpu_seconds() -> float:
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _child(request: str) -> None:
    import time

    module, function, arguments, cores = json.loads(request)
    if hasattr(os, "sched_setaffinity") and set(cores) <= os.sched_getaffinity(0):
        os.sched_setaffinity(0, cores)
    work = getattr(importlib.import_module(module), function)(**arguments)
    cpu, wall = _cpu_seconds(), time.perf_counter()
    figures = work() or {}
    cpu, wall = _cpu_seconds() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({"cpu_s": cpu, "wall_s": wall, "peak_mb": peak, "figures": figures}))


def missed(rows: list[Row]) -> bool:
    return any(row.ratio is not None and row.bar is not None and row.ratio < row.bar for row in rows)


def show(rows: list[Row]) -> None:
    """Print the table."""
    from rich.console import Console  # here: a case's own process has no use for it
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for column in ("stage", "ours", "peer"):
        table.add_column(column, overflow="fold")
    for column in ("ratio", "bar"):
        table.add_column(column, justify="right")
    table.add_column("note", overflow="fold")
    for row in rows:
        table.add_row(row.stage, row.ours, row.peer, _times(row.ratio), _times(row.bar), row.note)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


if __name__ == "__main__":
    _child(sys.argv[1])
