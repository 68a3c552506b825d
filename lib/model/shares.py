"""Shares: tensors of which each rank holds some rows, and whole ones, read and filled alike.

In:   tensors, some of them torch's DTensor, sharded along their first dimension; a DTensor is known by `to_local`
Out:  this rank's rows, all rows, and an optimiser's memories by name, whatever number of ranks wrote them
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed


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
