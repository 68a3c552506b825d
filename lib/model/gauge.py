"""Gauge: how fast a run is, how near to the machine's peak, how much memory it takes, how long it still needs.

In:   Compute, a model, tokens and seconds of each step
Out:  rows of the table speed; the middle and the end of a run's line
"""

import os
import sys
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lib.model import compute
from lib.model.network import Llama

RECENT = 20  # steps: the time left is told by their median
FIRST_S, AGAIN_S = 0.15, 0.05  # of timing the peak, at the start and at every look


class Gauge:
    """The speed of one run on `ranks` equal processes.

    MFU (model FLOP/s utilisation, Chowdhery et al. 2022, arXiv:2204.02311) is measured against this machine's own
    matrix products. A busy machine is slow at those, too: so the peak is timed again at every look, and counts as the
    best of all timings and of what the run itself has done. MFU is never above 1.
    """

    def __init__(self, machine: compute.Compute, model: Llama, *, row_length: int, ranks: int) -> None:
        self.machine, self.ranks = machine, ranks
        self.flop_per_token = compute.flop_per_token(model, row_length)
        self.seconds: deque[float] = deque(maxlen=RECENT)
        self.peak = 0.0
        self.time_peak(FIRST_S)

    def time_peak(self, seconds: float = AGAIN_S) -> None:
        flops = compute.peak_flops(self.machine.device, self.machine.dtype, seconds=seconds)
        self.peak = max(self.peak, self.ranks * flops)

    def row(self, *, tokens: int, positions: int, seconds: float) -> dict[str, Any]:
        """tokens are those of stories; the share of peak counts every position that was computed, filled or not."""
        self.seconds.append(seconds)
        flops = positions * self.flop_per_token / seconds
        self.peak = max(self.peak, flops)
        speed = {"tokens_per_s": tokens / seconds, "mfu": flops / self.peak, "flops": flops, "seconds": seconds}
        return speed | {"memory_mb": memory_mb(self.machine.device)}

    def table_rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with every MFU against the best peak of the whole run."""
        peak = max([self.peak] + [row["flops"] for row in rows])
        return [{name: row[name] for name in row if name != "flops"} | {"mfu": row["flops"] / peak} for row in rows]

    def left(self, steps: int) -> str:
        """How long so many steps take."""
        return duration(median(self.seconds) * steps)


def told(row: dict[str, Any]) -> str:
    """A row of speed in words."""
    mfu = f" · MFU {row['mfu']:.0%}" if row.get("mfu") is not None else ""
    return f"{row['tokens_per_s']:,.0f} tokens/s{mfu} · {row['memory_mb'] / 1000:.2f} GB"


def memory_mb(device: torch.device) -> float:
    """Of a GPU the most that tensors have held at once; else what this process holds now. In 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes, and the most ever


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
