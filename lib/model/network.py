"""The Llama 2 network: token ids in, logits out.

In:   ids_BT (int64), and document_BT (int) where a row holds more than one story
Out:  logits_BTV; the weights as model.safetensors beside model.json, which holds the shape

After Touvron et al. 2023 (arXiv:2307.09288) and karpathy/llama2.c's model.py, whose parameter names these are:
RMSNorm before each block, RoPE, SwiGLU, grouped-query attention, tied embeddings, no biases.

A forward pass without document_BT is plain causal. With it, a position attends only to itself and to earlier positions
of its own document. RoPE depends on distances alone, so a story in the middle of a row reads as it would at its start,
and a row of several stories may be longer than max_length (`reach`), which is the most that one of them has.

Letters of shapes: B rows, T positions, D width, H query heads, K key and value heads, C channels of a head, F width of
the feed-forward layer, V vocabulary.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lib.errors import UserError
from lib.model.shape import Shape

ROPE = "half"  # channel c turns with channel c + C/2, as Hugging Face has it; llama2.c turns neighbours ("interleaved")
IGNORE = -1  # a target that is not scored
MODEL_FILES = ("model.safetensors", "model.json")
Mask = Tensor | BlockMask | None  # what may be seen; None: plain causal
RESIDUAL = ("wo", "w2")  # the two projections that add to the residual stream


class RMSNorm(nn.Module):
    def __init__(self, *, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, (x_BTD.shape[-1],), self.weight, self.eps)


def rope_tables(*, length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position · theta^(-2i/C), each (length, C/2), computed in float64 once."""
    rates = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)
    return angles.cos().float(), angles.sin().float()


def rotate(x_BHTC: Tensor, *, cos_TC: Tensor, sin_TC: Tensor) -> Tensor:
    """Turn each channel pair (c, c + C/2) by its position's angle; the tables hold C/2 channels."""
    a, b = x_BHTC.chunk(2, dim=-1)
    return torch.cat((a * cos_TC - b * sin_TC, b * cos_TC + a * sin_TC), dim=-1)


def dropping(share: float) -> nn.Module:
    """Dropout as a module, so that an evaluation can switch it off; where nothing is dropped, nothing is computed."""
    return nn.Dropout(share) if share else nn.Identity()


class Attention(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = shape.n_heads, shape.n_kv_heads, shape.head_dim
        self.longest = shape.max_length  # positions of a document
        kv_width = shape.n_kv_heads * shape.head_dim
        self.wq = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.wk = nn.Linear(shape.d_model, kv_width, bias=False)
        self.wv = nn.Linear(shape.d_model, kv_width, bias=False)
        self.wo = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.drop_scores, self.drop = dropping(dropout), dropping(dropout)

    def forward(self, x_BTD: Tensor, *, cos_TC: Tensor, sin_TC: Tensor, mask: Mask, explicit: bool) -> Tensor:
        B, T, D = x_BTD.shape
        q_BHTC = self.wq(x_BTD).view(B, T, self.n_heads, self.head_dim).transpose(1, 2)
        k_BHTC = self.wk(x_BTD).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)
        v_BHTC = self.wv(x_BTD).view(B, T, self.n_kv_heads, self.head_dim).transpose(1, 2)
        q_BHTC, k_BHTC = (rotate(each, cos_TC=cos_TC, sin_TC=sin_TC) for each in (q_BHTC, k_BHTC))
        v_BHTC = v_BHTC.to(q_BHTC.dtype)  # under autocast the rotation leaves float32, which SDPA wants of all three
        if (group := self.n_heads // self.n_kv_heads) > 1:
            k_BHTC, v_BHTC = (each.repeat_interleave(group, dim=1) for each in (k_BHTC, v_BHTC))
        if explicit:
            out_BHTC = self._explicit(q_BHTC / math.sqrt(self.head_dim), k_BHTC, v_BHTC, mask)
        elif isinstance(mask, BlockMask):
            out_BHTC = flex_attention(q_BHTC, k_BHTC, v_BHTC, block_mask=mask)
        else:
            dropped = self.drop_scores  # by its own switch, for an evaluation puts out the dropouts alone
            share = dropped.p if isinstance(dropped, nn.Dropout) and dropped.training else 0.0
            out_BHTC = F.scaled_dot_product_attention(
                q_BHTC, k_BHTC, v_BHTC, attn_mask=mask, dropout_p=share, is_causal=mask is None
            )
        return self.drop(self.wo(out_BHTC.transpose(1, 2).reshape(B, T, D)))

    block: int | None = None  # queries taken together by attention written out; None: all of a row

    def _explicit(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, seen: Tensor) -> Tensor:
        """Attention written out, in blocks of queries that look no further than the end of their block, and no further
        back than a document is long."""
        parts, T = [], q_BHTC.shape[2]
        for start in range(0, T, step := self.block or T):
            end = min(start + step, T)
            first = max(start + 1 - self.longest, 0)
            scores_BHTT = q_BHTC[:, :, start:end] @ k_BHTC[:, :, first:end].transpose(2, 3)
            scores_BHTT = scores_BHTT.float().masked_fill(~seen[:, :, start:end, first:end], -math.inf)
            parts.append(self.drop_scores(scores_BHTT.softmax(-1).to(v_BHTC.dtype)) @ v_BHTC[:, :, first:end])
        return torch.cat(parts, dim=2)


class FeedForward(nn.Module):
    """SwiGLU: w1 gates, w3 goes up, w2 comes down."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.w2 = nn.Linear(shape.d_ff, shape.d_model, bias=False)
        self.w3 = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.drop = dropping(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.drop(self.w2(F.silu(self.w1(x_BTD)) * self.w3(x_BTD)))


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(shape, dropout)
        self.feed_forward = FeedForward(shape, dropout)
        self.attention_norm = RMSNorm(width=shape.d_model, eps=shape.norm_eps)
        self.ffn_norm = RMSNorm(width=shape.d_model, eps=shape.norm_eps)

    def forward(self, x_BTD: Tensor, *, cos_TC: Tensor, sin_TC: Tensor, mask: Mask, explicit: bool) -> Tensor:
        normed_BTD = self.attention_norm(x_BTD)
        x_BTD = x_BTD + self.attention(normed_BTD, cos_TC=cos_TC, sin_TC=sin_TC, mask=mask, explicit=explicit)
        return x_BTD + self.feed_forward(self.ffn_norm(x_BTD))


class Llama(nn.Module):
    """The whole network. New weights come from torch's global generator: seed it before.

    `dropout` is a matter of training, not of the shape: the share dropped of the embeddings, of attention's weights and
    of what each block adds, as llama2.c has it.
    """

    cos_TC: Tensor
    sin_TC: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        # Matmul, mask and softmax written out win under torch.compile (17,070 tokens/s against 9,240 with SDPA for 260K
        # parameters on one core) and lose in eager (2.5 times slower than SDPA). compute.prepare sets the switch.
        self.explicit_attention = False
        # (x_ND, weight_VD, targets_N) -> nats, never holding all logits; compute.prepare sets it where they are many
        self.flex_attention = False  # on a GPU, compiled
        self.nats_in_chunks: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
        self.tok_embeddings = nn.Embedding(shape.vocab_size, shape.d_model)
        self.drop = dropping(dropout)
        self.layers = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layers))
        self.norm = RMSNorm(width=shape.d_model, eps=shape.norm_eps)
        self.output = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        if shape.tied:
            self.output.weight = self.tok_embeddings.weight
        cos_TC, sin_TC = rope_tables(length=shape.max_length, head_dim=shape.head_dim, theta=shape.rope_theta)
        self.register_buffer("cos_TC", cos_TC, persistent=False)
        self.register_buffer("sin_TC", sin_TC, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Normal 0.02; what adds to the residual stream is scaled by 1/sqrt(2 · n_layers), as in GPT-2."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.split(".")[-2] in RESIDUAL
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * self.shape.n_layers) if residual else 0.02)

    def reach(self, length: int) -> None:
        """Take rows of so many positions, where each document in them has at most max_length. No weight changes."""
        shape = self.shape
        tables = rope_tables(length=length, head_dim=shape.head_dim, theta=shape.rope_theta)
        self.cos_TC, self.sin_TC = (each.to(self.cos_TC.device) for each in tables)

    def forward(self, ids_BT: Tensor, document_BT: Tensor | None = None, targets_BT: Tensor | None = None) -> Tensor:
        """logits_BTV: position t scores the token at t + 1. With targets: nats, summed over those that are not IGNORE.

        What wraps the network (DDP, FSDP) has its hooks here: training calls this, not `hidden`.
        """
        x_BTD = self.hidden(ids_BT, document_BT)
        if targets_BT is None:
            return self.output(x_BTD)
        x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
        if self.nats_in_chunks:
            return self.nats_in_chunks(x_ND, self.output.weight, targets_N)
        return F.cross_entropy(self.output(x_ND).float(), targets_N, ignore_index=IGNORE, reduction="sum")

    def hidden(self, ids_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """x_BTD after the last norm. Raises ValueError for a row longer than the shape allows."""
        T = ids_BT.shape[1]
        if (most := self.shape.max_length if document_BT is None else len(self.cos_TC)) < T:
            raise ValueError(f"a row of {T} tokens is longer than the model's max_length {most}")
        mask = self._mask(ids_BT=ids_BT, document_BT=document_BT)
        x_BTD = self.drop(self.tok_embeddings(ids_BT))
        for block in self.layers:
            x_BTD = block(
                x_BTD, cos_TC=self.cos_TC[:T], sin_TC=self.sin_TC[:T], mask=mask, explicit=self.explicit_attention
            )
        return self.norm(x_BTD)

    def _mask(self, *, ids_BT: Tensor, document_BT: Tensor | None) -> Mask:
        """What may be seen, or None: plain causal by SDPA."""
        if document_BT is None and not self.explicit_attention:
            return None
        B, T = ids_BT.shape
        if (
            self.flex_attention and document_BT is not None and not isinstance(self.drop, nn.Dropout)
        ):  # it has no dropout
            return _block_mask(document_BT)
        seen = torch.ones(T, T, dtype=torch.bool, device=ids_BT.device).tril()[None, None]
        if document_BT is not None:
            seen = seen & (document_BT[:, None, :, None] == document_BT[:, None, None, :])
        return seen


def _block_mask(document_BT: Tensor) -> BlockMask:
    """For FlexAttention: which blocks of positions hold any that may be seen."""

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (document_BT[b, q] == document_BT[b, k])

    B, T = document_BT.shape
    return create_block_mask(seen, B, None, T, T, device=document_BT.device)


def nats_per_target(*, logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Negative log likelihood of each target in nats, float32 (B, T); 0 where the target is IGNORE."""
    logits_NV, targets_N = logits_BTV.flatten(0, 1).float(), targets_BT.flatten()
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="none").view_as(targets_BT)


def save_model(model: Llama, folder: Path, **about: Any) -> None:
    """Write MODEL_FILES. `about` goes into model.json beside the shape: layout, template, tokenizer, stage, …"""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    if model.shape.tied:
        del weights["output.weight"]  # the same tensor as the embedding's
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.json").write_text(json.dumps({"shape": model.shape.model_dump()} | about, indent=1) + "\n")


def load_model(folder: Path, device: str | torch.device = "cpu") -> Llama:
    """The model that `save_model` wrote there, in evaluation mode. Raises UserError where the two files do not fit."""
    try:
        shape = Shape(**json.loads((folder / "model.json").read_bytes())["shape"])
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder} holds no model ({error}); expected {' and '.join(MODEL_FILES)}") from error
    if shape.tied and "tok_embeddings.weight" in weights:
        weights["output.weight"] = weights["tok_embeddings.weight"]
    with torch.random.fork_rng(devices=[]):  # these first weights are overwritten: the caller's generator stays
        model = Llama(shape)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: model.safetensors does not fit the shape in model.json: {error}") from error
    return model.to(device).eval()
