"""Cross-entropy without the logits: the output layer and the loss, some positions at a time, both ways at once.

In:   x_ND behind the last norm, the output layer's weight_VD, targets_N
Out:  nats summed over the targets that are not IGNORE; its gradients in x_ND and weight_VD

Of logits_NV only CHUNK · V exist at any time; for 2,048 positions and 32,000 pieces all of them are 262 MB in float32,
and as much again for their gradient. The gradient of a sum is known as soon as the logits are, so it is worked out
while they are there, and the backward pass has nothing left to compute: three matrix products, as in the plain form.
After Hsu et al. 2024, "Liger Kernel" (arXiv:2410.10989).

Letters of shapes: N positions, M of them in a chunk, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 256  # positions

Step = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def chunk_step(x_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, ignore: int) -> tuple[Tensor, Tensor]:
    """Nats of a chunk (float32), and their gradient in the logits in x_MD's dtype (M, V)."""
    logits_MV = (x_MD @ weight_VD.T).float()
    scored_M = targets_M != ignore
    index_M1 = targets_M.clamp(min=0)[:, None]
    log_sum_M1 = logits_MV.logsumexp(-1, keepdim=True)
    nats = ((log_sum_M1 - logits_MV.gather(1, index_M1))[:, 0] * scored_M).sum()
    hit_MV = torch.arange(weight_VD.shape[0], device=x_MD.device) == index_M1
    grad_MV = ((logits_MV - log_sum_M1).exp() - hit_MV.float()) * scored_M[:, None]
    return nats, grad_MV.to(x_MD.dtype)


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, ignore: int, step: Step) -> Tensor:
        kind = x_ND.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x_ND.dtype
        narrow_VD, nats = weight_VD.to(dtype), torch.zeros((), device=x_ND.device)
        wanted = any(ctx.needs_input_grad[:2])
        grad_ND, grad_VD = (torch.zeros_like(each) if wanted else None for each in (x_ND, weight_VD))
        for start in range(0, len(x_ND), CHUNK):
            here = slice(start, start + CHUNK)
            x_MD = x_ND[here].to(dtype)
            more, grad_MV = step(x_MD, narrow_VD, targets_N[here], ignore)
            nats += more
            if wanted:
                grad_ND[here] = grad_MV @ narrow_VD
                grad_VD += grad_MV.T @ x_MD  # the sum in float32, whatever the products are in
        ctx.grads = (grad_ND, grad_VD)
        return nats

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(each * grad for each in ctx.grads), None, None, None


def nats_of(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, ignore: int, step: Step = chunk_step) -> Tensor:
    """Nats summed over the targets that are not `ignore`, float32; `step` may be compiled. No second derivative."""
    return _Nats.apply(x_ND, weight_VD, targets_N, ignore, step)
