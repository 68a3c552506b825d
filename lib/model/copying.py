"""A start that copies: the middle layer's attention begins by passing on what it looks at.

In:   a new network, a strength
Out:  the same network, its middle attention set so that value and output projection together are strength · identity

A story names its hero ten times, and an instruction names what the story is about. To say a name again, attention must
carry a token's embedding unchanged to where it is needed; from random weights that takes tens of millions of tokens to
come about. With this start a network of 1.25 million parameters does it after one million: a name that stood in the
story before costs 1.40 nats instead of 4.88 (a blind guess among 85 names costs 4.44), and held-out text 0.264 bits per
byte instead of 0.320. In every layer it costs more than it brings (0.447). After Trockman and Kolter 2023, "Mimetic
Initialization of Self-Attention Layers" (arXiv:2305.09828); the architecture stays plain Llama 2.
"""

import torch
from torch import nn

from lib.model.network import Llama

QUERY_KEY_STD = 0.06  # three times the usual: attention that is flat at first has little to choose what to copy by


@torch.no_grad()
def start_copying(model: Llama, *, strength: float) -> None:
    """Set the middle layer in place; strength 0 leaves the network alone. Draws from torch's global generator."""
    if not strength:
        return
    attention = model.layers[len(model.layers) // 2].attention
    nn.init.normal_(attention.wq.weight, std=QUERY_KEY_STD)
    nn.init.normal_(attention.wk.weight, std=QUERY_KEY_STD)
    nn.init.orthogonal_(attention.wv.weight)
    group = attention.n_heads // attention.n_kv_heads  # query heads that share a value head share its part too
    values_HCD = attention.wv.weight.view(attention.n_kv_heads, attention.head_dim, -1)
    shared_HCD = values_HCD.repeat_interleave(group, dim=0) / group
    attention.wo.weight.copy_(strength * shared_HCD.flatten(0, 1).T)
