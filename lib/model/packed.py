"""Packed weights: a network in the form that decoding wants.

In:   a Llama, with or without LoRA, and a number format
Out:  per layer wqkv, wo, w13 and w2 as (in, out), norms and the attention scale folded in; a copy, so later updates of
      the network do not reach it

Columns of wqkv stand by group: its query heads, its key head, its value head. One view then gives all three, and one
complex product turns them (a value's turn is 1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.model.lora import LoraLinear
from lib.model.network import ROPE, Llama


class Packed:
    """A model's weights in the form that decoding wants. `norm` and `turn` are the two steps that belong to them."""

    def __init__(self, model: Llama, dtype: torch.dtype) -> None:
        assert ROPE == "half"
        shape = self.shape = model.shape
        self.dtype, self.device = dtype, model.norm.weight.device
        # x / hypot(|x|, sqrt(D · eps)) is RMSNorm but for sqrt(D), which goes into the weights behind it: three kernels
        # instead of the eight of F.rms_norm on a CPU, 3.0 µs instead of 6.5 for one row.
        self.least = torch.tensor(math.sqrt(shape.d_model * shape.norm_eps), device=self.device)
        with torch.no_grad():
            self.embedding = model.tok_embeddings.weight.detach().to(dtype)
            self.layers = [self._layer(block) for block in model.layers]
            output = model.output.weight * model.norm.weight * self._width_of_norm()
            self.output = output.T.contiguous().to(dtype)
            turns_SC = torch.complex(model.cos_TC, model.sin_TC)
            heads = shape.n_heads // shape.n_kv_heads + 1  # a group's query heads and its key head are turned
            self.turns_SHC = torch.ones(len(turns_SC), heads + 1, turns_SC.shape[1], dtype=torch.complex64)
            self.turns_SHC[:, :heads] = turns_SC[:, None].cpu()
            self.turns_SHC = self.turns_SHC.to(self.device)

    def _width_of_norm(self) -> float:
        return math.sqrt(self.shape.d_model) if self.dtype == torch.float32 else 1.0

    def _layer(self, block: torch.nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """wqkv, wo, w13, w2, each (in, out). Channel c + C/2 moves next to c: a turn is then a complex product."""
        attention, forward, shape = block.attention, block.feed_forward, self.shape
        head_dim, groups, width = shape.head_dim, shape.n_kv_heads, self._width_of_norm()

        def paired(weight: Tensor) -> Tensor:
            return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

        q, k = paired(effective(attention.wq)) / math.sqrt(head_dim), paired(effective(attention.wk))
        by_group = [weight.view(groups, -1, shape.d_model) for weight in (q, k, effective(attention.wv))]
        wqkv = torch.cat(by_group, dim=1).view(-1, shape.d_model) * block.attention_norm.weight * width
        w13 = torch.cat((effective(forward.w1), effective(forward.w3))) * block.ffn_norm.weight * width
        matrices = (wqkv, effective(attention.wo), w13, effective(forward.w2))
        return tuple(matrix.T.contiguous().to(self.dtype) for matrix in matrices)  # type: ignore[return-value]

    def norm(self, x_ND: Tensor) -> Tensor:
        """RMSNorm without the factors that stand in the weights."""
        if self.dtype == torch.float32:
            return x_ND / torch.linalg.vector_norm(x_ND, 2, -1, True).hypot_(self.least)
        return F.rms_norm(x_ND, x_ND.shape[-1:], eps=self.shape.norm_eps)  # sums in float32

    def turn(self, qkv_NGHC: Tensor, turns_N1HC: Tensor) -> Tensor:
        """Queries and keys turned by their position, values as they are; H: R query heads, the key, the value.

        turns_N1HC: complex, as many rows as qkv_NGHC has, or one where all stand at the same position.
        """
        pairs = qkv_NGHC.float().view(torch.complex64)
        return (pairs * turns_N1HC).view(torch.float32).to(self.dtype)


def effective(layer: torch.nn.Module) -> Tensor:
    """A projection's weights, a LoRA addition included, without dropout."""
    if isinstance(layer, LoraLinear):
        return layer.base.weight + layer.scale * (layer.lora_b @ layer.lora_a)
    return layer.weight
