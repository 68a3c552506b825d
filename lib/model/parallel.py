"""Parallel: one training run on several processes, each with its share of every batch.

In:   torch.distributed.run's environment (RANK, WORLD_SIZE, LOCAL_RANK, …), Training
Out:  Ranks: who I am, my rows of a batch, sums over all; Spread: the loss function whose gradients are summed over all

The batch is a pure function of (seed, step), so every rank works it out whole and takes its own rows: nothing is sent
but gradients. The loss is nats of all ranks / targets of all ranks, not a mean of means: the same as in one process.

ddp   each rank holds the whole model (torch's DistributedDataParallel); gradients travel while the rest is computed
fsdp  each rank holds 1/N of every weight, gradient and optimiser state (FSDP2, `fully_shard`); a block's weights are
      gathered when it is computed. The model that the stage gave stays whole on the CPU and gets the weights at the end

Rank 0 alone holds the dataset's lock, writes into its draft and speaks; the others look on, and end with the training.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, distributed, nn

from lib.errors import UserError
from lib.model.batches import Batch
from lib.model.training import Training
from lib.store import Draft

if TYPE_CHECKING:
    from lib.model.compute import Nats

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
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), training.sharding == "fsdp")
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


def twin(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The model that is trained: the given one, or, where weights are sharded, a copy that will be."""
    return deepcopy(model) if ranks.sharded else model


class _Loss(nn.Module):
    """What torch wraps: the model, entered through the loss."""

    def __init__(self, model: nn.Module, nats: "Nats") -> None:
        super().__init__()
        self.model, self.nats = model, nats

    def forward(self, ids_BT: Tensor, document_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self.nats(ids_BT, document_BT, targets_BT)


class Spread:
    """The loss over this rank's rows, in nats; behind `backward` of the last piece, gradients are those of all ranks.

    Both wrappers divide the sum by the number of ranks; `scale` undoes it.
    """

    def __init__(self, model: nn.Module, nats: "Nats", ranks: Ranks, dtype: torch.dtype) -> None:
        self.nats, self.ranks, self.scale = nats, ranks, ranks.size
        if ranks.size == 1:
            return
        loss = _Loss(model, nats)
        self.wrapped = _sharded(loss, dtype) if ranks.sharded else _replicated(loss)

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


def _sharded(loss: _Loss, dtype: torch.dtype) -> Any:
    """Blocks travel in `dtype`; embedding, norm and what stands between two blocks stay float32, as in one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(loss.parameters()).device.type
    mesh = init_device_mesh(device, (distributed.get_world_size(),))
    blocks = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # the tables of RoPE would be rounded
    )
    for block in loss.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=blocks)
    return fully_shard(loss, mesh=mesh)


# ---- shares of tensors; a DTensor is known by `to_local`


def local(tensor: Tensor) -> Tensor:
    """This rank's rows."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def is_share(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")


def whole(tensor: Tensor) -> Tensor:
    """All rows, at every rank; every rank has to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(target: Tensor, full: Tensor) -> None:
    """Copy a whole tensor's values into `target`, or into this rank's rows of it. ValueError for another shape."""
    if target.shape != full.shape:
        raise ValueError(f"found a tensor of shape {tuple(full.shape)}, expected {tuple(target.shape)}")
    mine = local(target)
    if is_share(target):
        most = -(-full.shape[0] // distributed.get_world_size())  # torch.chunk's size, which Shard(0) uses
        start = min(distributed.get_rank() * most, full.shape[0])
        full = full[start : start + mine.shape[0]]
    mine.copy_(full)


def optimizer_tensors(parts: Sequence[torch.optim.Optimizer], names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimisers' memories by name: 'optimizer.0.layers.0.attention.wq.weight.exp_avg'."""
    return {
        f"optimizer.{number}.{names[weight]}.{key}": value
        for number, part in enumerate(parts)
        for weight, memory in part.state.items()
        for key, value in memory.items()
        if isinstance(value, Tensor)
    }


def set_optimizer_tensors(
    parts: Sequence[torch.optim.Optimizer], names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    """Give them back, whatever number of ranks they were written by."""
    for number, part in enumerate(parts):
        weights = [weight for group in part.param_groups for weight in group["params"]]
        state = {}
        for index, weight in enumerate(weights):
            head = f"optimizer.{number}.{names[weight]}."
            state[index] = {
                name.removeprefix(head): _like(weight, tensors[name]) for name in tensors if name.startswith(head)
            }
        kept = {index: memory for index, memory in state.items() if memory}
        part.load_state_dict({"state": kept, "param_groups": part.state_dict()["param_groups"]})


def _like(weight: Tensor, full: Tensor) -> Tensor:
    """A memory of the weight's own shape is shared as the weight is; a counter is everybody's."""
    if full.shape != weight.shape:
        return full.clone()
    memory = torch.zeros_like(weight, dtype=full.dtype, requires_grad=False)
    fill(memory, full)
    return memory
