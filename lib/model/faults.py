"""Faults: what a training run does by itself about a loss spike and about too little memory.

In:   the rows of train_steps so far; an exception
Out:  the largest gradient norm and loss that the next update may have; the next number of pieces

A spike: `spike` s > 0, at least ENOUGH updates done. An update is skipped, and its row says so, where its gradient norm
is over s times the median of the last RECENT, or its loss over their median by more than s times their spread (1.4826 ·
median absolute deviation, which is the standard deviation of a normal distribution) and by more than a twentieth.
Skipped updates are not part of what is recent. All of this is a function of the log: a resumed run decides the same.

Out of memory: the same step or look again, in twice as many pieces. The gradients are summed over the same rows, so the
loss stays what it was but for rounding; the run keeps a step's number, also when it is resumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from lib.errors import UserError
from lib.model.training import Diverged, Training

RECENT, ENOUGH = 50, 20  # updates
SMALLEST_RISE = 0.05  # of the loss: 1/20 above the median is no spike, however steady the run was


@dataclass(frozen=True)
class Limits:
    """What an update may have at most."""

    loss: float = math.inf
    grad_norm: float = math.inf

    def broken_by(self, *, loss: float, grad_norm: float) -> bool:
        return loss > self.loss or grad_norm > self.grad_norm


NO_LIMITS = Limits()


def limits(rows: Sequence[dict[str, Any]], spike: float) -> Limits:
    """For the update behind `rows` of train_steps."""
    if not spike:
        return NO_LIMITS
    recent = [row for row in rows[-4 * RECENT :] if not row["skipped"]][-RECENT:]
    if len(recent) < ENOUGH:
        return NO_LIMITS
    losses = [row["loss"] for row in recent]
    middle = median(losses)
    spread = 1.4826 * median(abs(loss - middle) for loss in losses)
    return Limits(
        loss=middle + max(spike * spread, SMALLEST_RISE * middle),
        grad_norm=spike * median(row["grad_norm"] for row in recent),
    )


def stop_after_many(rows: Sequence[dict[str, Any]], training: Training, last_good: int | None) -> None:
    """Raises Diverged where the last `most_spikes` updates were skipped, every one."""
    latest = rows[-training.most_spikes :]
    if len(latest) == training.most_spikes and all(row["skipped"] for row in latest):
        kept = f"the last good checkpoint is step {last_good}" if last_good else "there is no checkpoint yet"
        raise Diverged(
            f"step {latest[-1]['step']}: {len(latest)} updates in a row were skipped as spikes, the last with loss "
            f"{latest[-1]['loss']:.3f} and gradient norm {latest[-1]['grad_norm']:.3g}; {kept}. Use a smaller lr "
            f"(now {training.lr:g}), a longer warmup (now {training.warmup}) or a larger spike (now {training.spike:g})"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Of a GPU (torch's own class), of torch on the CPU (a RuntimeError of its allocator), or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def more_pieces(pieces: int, *, rows: int, ranks: int, error: Exception) -> int:
    """Twice as many. Raises UserError where that cannot be, or where other ranks would wait for this one."""
    short = str(error).splitlines()[0] if str(error) else type(error).__name__
    if rows % (2 * pieces):
        raise UserError(
            f"out of memory with {rows // pieces} rows at once ({short}), and {rows} rows cannot be computed in "
            f"{2 * pieces} pieces; use a power of two as batch_size, shorter rows (max_length) or a smaller model"
        ) from error
    if ranks > 1:
        raise UserError(
            f"out of memory with {rows} rows a process in {pieces} pieces ({short}); "
            f"set accumulate to {2 * pieces} and run again, or use sharding 'fsdp' or more processes"
        ) from error
    return 2 * pieces


def fitting(pieces: int, *, rows: int) -> int:
    """The least number of equal pieces of `rows` that is `pieces` or more; at most one a row."""
    return next(number for number in range(min(pieces, rows), rows + 1) if rows % number == 0)
