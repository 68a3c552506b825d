"""Packed weights: a network in the form that decoding wants.

In:   a Llama, with or without LoRA, and a number format
Out:  per layer wqkv, wo, w13 and w2 as (in, out), norms and the attention scale folded in; a copy, so later updates of
      the network do not reach it
"""

import math

import torch
from torch import Tensor

from lib.model.lora import LoraLinear
from lib.model.network import ROPE, Llama


class Packed:
    """A model's weights in the form that decoding wants."""

    def __init__(self, model: Llama, dtype: torch.dtype) -> None:
        assert ROPE == "half"
        shape = model.shape
        self.dtype = dtype
        with torch.no_grad():
            self.embedding = model.tok_embeddings.weight.detach().to(dtype)
            self.layers = [self._layer(block, shape.head_dim, dtype) for block in model.layers]
            self.output = (model.output.weight * model.norm.weight).T.contiguous().to(dtype)
            self.turns_SC = torch.complex(model.cos_TC, model.sin_TC)

    @staticmethod
    def _layer(block: torch.nn.Module, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """wqkv, wo, w13, w2, each (in, out). Channel c + C/2 moves next to c: a turn is then a complex product."""
        attention, forward = block.attention, block.feed_forward

        def paired(weight: Tensor) -> Tensor:
            return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

        q, k = paired(effective(attention.wq)) / math.sqrt(head_dim), paired(effective(attention.wk))
        wqkv = torch.cat((q, k, effective(attention.wv))) * block.attention_norm.weight
        w13 = torch.cat((effective(forward.w1), effective(forward.w3))) * block.ffn_norm.weight
        matrices = (wqkv, effective(attention.wo), w13, effective(forward.w2))
        return tuple(matrix.T.contiguous().to(dtype) for matrix in matrices)  # type: ignore[return-value]


def effective(layer: torch.nn.Module) -> Tensor:
    """A projection's weights, a LoRA addition included, without dropout."""
    if isinstance(layer, LoraLinear):
        return layer.base.weight + layer.scale * (layer.lora_b @ layer.lora_a)
    return layer.weight
