"""Parallel: one training run on several processes, each with its share of every batch.

In:   torch.distributed.run's environment (RANK, WORLD_SIZE, LOCAL_RANK, …), Training
Out:  Ranks: who I am, my rows of a batch, sums over all; Spread: the loss function whose gradients are summed over all

The batch is a pure function of (seed, step), so every rank works it out whole and takes its own rows: nothing is sent
but gradients. The loss is nats of all ranks / targets of all ranks, not a mean of means: the same as in one process.

ddp   each rank holds the whole model (torch's DistributedDataParallel); gradients travel while the rest is computed
fsdp  each rank holds 1/N of every weight, gradient and optimiser state (FSDP2, `fully_shard`); a block's weights are
      gathered when it is computed. A GPU never holds more than one block whole until the last look. In rank 0 the
      model that the stage gave stays whole on the CPU and gets the weights at the end; the others keep their shares

Rank 0 alone holds the dataset's lock, writes into its draft and speaks; the others look on, and end with the training.
"""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn

from lib.errors import UserError
from lib.model import compute, shares
from lib.model.batches import Batch
from lib.model.training import Training
from lib.store import Draft

LONG = timedelta(days=7)  # rank 0 may wait for another run's lock, or for the other machines
STUCK = timedelta(minutes=30)  # a rank that is gone is noticed at once; this is for one that hangs


class Trained(Exception):
    """This rank's work is done: what comes behind the training is rank 0's alone."""


class Onlooker(Draft):
    """The draft of ranks other than 0: what rank 0 wrote can be read, nothing is written or said."""

    def write_table(self, *_: Any) -> None: ...
    def write_bytes(self, *_: Any) -> None: ...
    def adopt(self, *_: Any) -> None: ...
    def count(self, *_: Any, **__: Any) -> None: ...
    def fact(self, **_: Any) -> None: ...
    def progress(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    sharded: bool = False  # each holds its share of the weights

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def mine(self, batch: Batch) -> Batch:
        """This rank's rows; text_bytes in proportion."""
        if self.size == 1:
            return batch
        columns = (batch.ids_BT, batch.document_BT, batch.targets_BT)
        return Batch(*(column.chunk(self.size)[self.rank] for column in columns), batch.text_bytes / self.size)

    def sum(self, *numbers: float) -> list[float]:
        """Each number summed over the ranks, in float64."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, at every rank."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every rank has come here."""
        self.sum(0.0)


ALONE = Ranks()


def in_ranks() -> bool:
    """Whether torch.distributed.run started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(training: Training) -> Ranks:
    """The processes of this run, connected. Raises UserError where they cannot share its batches evenly."""
    if not in_ranks():
        return ALONE
    if not distributed.is_initialized():
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        on_gpu = training.device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, store=_store(), rank=rank, world_size=size, timeout=STUCK)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    ranks = Ranks(rank, size, sharded=size > 1 and training.sharding == "fsdp")
    if training.batch_size % (ranks.size * training.accumulate):
        raise UserError(
            f"batch_size {training.batch_size} cannot be shared by {ranks.size} processes × accumulate "
            f"{training.accumulate}; use a multiple of {ranks.size * training.accumulate}"
        )
    return ranks


def leave(ranks: Ranks) -> None:
    """Behind the last exchange. Raises Trained in every rank but the first."""
    ranks.wait()
    if not ranks.leads:
        raise Trained


def quit_rank(code: int = 0) -> NoReturn:
    """The end of a rank's process, without destructors.

    destroy_process_group leaves the group to DDP's reference; when that is freed, the group joins its threads while it
    holds Python's lock, which they may want: seen to hang in one of five runs (torch 2.13, gloo).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ---- whose turn it is: rank 0 may find the dataset made already, and then nobody has to train


def tell(what: str, answer: str) -> None:
    """Rank 0 lets the others know."""
    _store().set(what, answer)


def ask(what: str) -> str:
    """Wait until rank 0 has told."""
    _store().wait([what], LONG)
    return _store().get(what).decode()


def _store() -> distributed.Store:
    """The exchange that the launcher opened."""
    global _opened
    if _opened is None:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        _opened = distributed.TCPStore(host, port, is_master=False, timeout=LONG)
    return _opened


_opened: distributed.Store | None = None


# ---- models


def twins(model: Any, ranks: Ranks) -> tuple[Any, Any]:
    """(what gets the trained weights, what is trained): one model, or two where weights are sharded.

    Rank 0 copies the model and lets the copy be sharded. In the others the given one is, and the first is without
    weights: they need them for the last look alone.
    """
    if not ranks.sharded:
        return model, model
    return (model, deepcopy(model)) if ranks.leads else (_emptied(model, "meta"), model)


def hand_back(whole: Any, trained: Any, device: torch.device) -> Any:
    """The trained weights in the first of the twins, on the device. Every rank has to ask for it."""
    if whole is trained:
        return whole
    if next(whole.parameters()).is_meta:
        whole = _emptied(whole, device)
    whole.to(device).train(trained.training)
    mine = dict(trained.named_parameters())
    for name, weight in whole.named_parameters():  # one after the other: a dict would hold the model once more
        shares.fill(weight, shares.whole(mine[name].detach()))
    return whole


def _emptied(model: Any, device: torch.device | str) -> Any:
    """The model anew, with weights that say nothing yet; tied ones stay tied, buffers keep their values."""
    empty = {
        id(weight): nn.Parameter(torch.empty_like(weight, device=device), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    return deepcopy(model, empty)


def prepare(model: Any, training: Training, row_length: int, ranks: Ranks) -> compute.Compute:
    """As compute.prepare; where weights are sharded, blocks are compiled one by one, between their gatherings, and the
    model stays where it is: Spread moves the shares."""
    settings = {"model": model, "row_length": row_length, "move": not ranks.sharded}
    machine = compute.prepare(training=training, **settings)
    if not (ranks.sharded and machine.compiled):
        return machine
    explicit, eager = model.explicit_attention, training.model_copy(update={"compile": "off"})
    machine = compute.prepare(training=eager, **settings)
    model.explicit_attention = explicit
    for block in model.layers:
        block.forward = torch.compile(block.forward, dynamic=False)  # not the block: its hooks do the gathering
    return machine


class _Loss(nn.Module):
    """What torch wraps: the model, entered through the loss."""

    def __init__(self, model: nn.Module, nats: compute.Nats) -> None:
        super().__init__()
        self.model, self.nats = model, nats

    def forward(self, ids_BT: Tensor, document_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self.nats(ids_BT, document_BT, targets_BT)


class Spread:
    """The loss over this rank's rows, in nats; behind `backward` of the last piece, gradients are those of all ranks.

    Both wrappers divide the sum by the number of ranks; `scale` undoes it.
    """

    def __init__(self, model: nn.Module, machine: compute.Compute, ranks: Ranks) -> None:
        self.nats, self.ranks, self.scale = machine.nats, ranks, ranks.size
        if ranks.size == 1:
            return
        loss = _Loss(model, machine.nats)
        self.wrapped = _sharded(loss, machine) if ranks.sharded else _replicated(loss)

    def __call__(self, *columns: Tensor) -> Tensor:
        return self.nats(*columns) if self.ranks.size == 1 else self.wrapped(*columns)

    def piece(self, *, last: bool) -> AbstractContextManager:
        """Around forward and backward of one piece of a batch: only behind the last one gradients travel."""
        if self.ranks.size == 1:
            return nullcontext()
        if self.ranks.sharded:
            self.wrapped.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.wrapped.no_sync()

    def look(self, *columns: Tensor) -> Tensor:
        """The same without gradients: each rank for itself, but for the weights it has to be given."""
        return self.wrapped(*columns) if self.ranks.sharded else self.nats(*columns)

    def tidy(self) -> None:
        """Behind a look: let the gathered weights go, so that named_parameters are this rank's shares again."""
        if self.ranks.sharded:
            self.wrapped.reshard()


def _replicated(loss: _Loss) -> nn.Module:
    # The tables of RoPE are the same everywhere. torch 2.13 has renamed the word for it, and warns of the old one.
    known = signature(nn.parallel.DistributedDataParallel).parameters
    word = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return nn.parallel.DistributedDataParallel(loss, gradient_as_bucket_view=True, **{word: False})


def _sharded(loss: _Loss, machine: compute.Compute) -> Any:
    """Blocks travel in the machine's dtype; embedding, norm and what stands between two blocks stay float32, as in one
    process. `fully_shard` moves a block to the device and keeps this rank's rows of it before it takes the next."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh, dtype = init_device_mesh(machine.device.type, (distributed.get_world_size(),)), machine.dtype
    blocks = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # the tables of RoPE would be rounded
    )
    for block in loss.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=blocks)
    return fully_shard(loss, mesh=mesh)
