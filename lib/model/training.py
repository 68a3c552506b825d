"""What steers a training run: the fields that pretrain and instruct share. Imports no torch, so that configs load fast.

Digests are promised per machine: `device`, `threads`, `compile` and `accumulate` change the last bits of a sum (and, as
`processes`, which inputs dropout drops), and stay out of the dataset's name all the same, because the same request on
another machine is still the same request. So a run that was out of memory goes on in more pieces.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lib.errors import UserError
from lib.store import Config, runtime

LARGEST_SEED = 2**32 - 1  # times steps and processes it is still a seed of torch's, which has 64 bits
WARMUP_SHARE = 5  # of a run: where steps are lowered and the warm-up is not, the run still gets to its learning rate
Memory = Annotated[float, Field(ge=0, lt=1)]


class Diverged(UserError):
    """The loss or the gradient is no number any more. Trying again would give the same."""


class Training(Config):
    """Steps, rows, learning rate; what is optimised and how; when to measure and to save."""

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1, description="rows in a step")
    accumulate: int = runtime(1, ge=1, description="pieces a step is computed in; it must divide batch_size")
    lr: float = Field(3e-3, gt=0, allow_inf_nan=False, description="learning rate after the warm-up")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up; at most a fifth of all")
    schedule: Literal["cosine", "wsd"] = Field("cosine", description="wsd: level, then a linear decay at the end")
    decay_share: float = Field(0.3, ge=0, le=1, description="wsd: share of the steps that decay")
    final_lr: float = Field(0.0, ge=0, le=1, description="learning rate of the last step, as a share of lr")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="muon: for hidden matrices, AdamW for the rest")
    weight_decay: float = Field(0.1, ge=0, description="on matrices only")
    betas: tuple[Memory, Memory] = Field((0.9, 0.95), description="AdamW's two memories")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the machine is fast at it")
    spike: float = Field(
        0.0, ge=0, description="skip an update whose gradient norm is over this many times the recent median; 0: never"
    )
    most_spikes: int = Field(10, ge=1, description="so many skipped updates in a row end the run")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="of weights, order of stories and dropout")
    eval_every: int = Field(100, ge=1, description="steps between two looks at held-out stories")
    eval_stories: int = Field(500, ge=1, description="at most so many held-out stories are scored each time")
    checkpoint_every: int = runtime(100, ge=1, description="steps between two checkpoints")
    processes: int = runtime(1, ge=1, description="processes on this machine, one a GPU; they share each step's rows")
    sharding: Literal["ddp", "fsdp"] = runtime(
        "ddp", description="several processes: ddp, each holds the whole model; fsdp, each holds its share of it"
    )
    device: str = runtime("auto", description="auto: cuda if there is one, else cpu")
    threads: int | None = runtime(None, ge=1, description="processor threads; all if not given")
    loader_workers: int = runtime(1, ge=0, description="threads that prepare batches ahead; 0: none, when needed")
    compile: Literal["auto", "on", "off"] = runtime("auto", description="auto: torch.compile where it pays")

    @model_validator(mode="after")
    def _pieces_are_equal(self) -> Self:
        if self.rows % self.accumulate:
            raise ValueError(f"found accumulate {self.accumulate}, expected a divisor of {self._told_rows()}")
        return self

    @property
    def rows(self) -> int:
        """That the network sees in a step."""
        return self.batch_size

    def _told_rows(self) -> str:
        return f"batch_size {self.batch_size}"

    @property
    def warmed(self) -> int:
        """Steps of warm-up in this run."""
        return min(self.warmup, self.steps // WARMUP_SHARE)
