"""Sampling: prefixes of ids in, completions out, through a cache of keys and values.

In:   a network (lib/model/network.py), prefixes of any lengths, how to draw
Out:  per prefix the ids drawn, the model's log-probability of each, and whether a stop id ended them
On:   a packed copy of the weights, taken when the Sampler is made: make a new one after an update (1-2 ms at 1M)

What makes it fast on a CPU (1.0-1.3M parameters, one core: see docs/results.md): norms and the attention scale folded
into the weights, one product for queries, keys and values, keys stored transposed, and one uniform number a token
instead of torch.multinomial, whose exponential draws cost 20 ns for every piece of the vocabulary. Rows that stop leave
the batch: rows from its end move into their places. torch.compile was slower at every batch size.

A row's random numbers are its own, so a prompt gets the same text alone and in company; only float rounding, which
differs by batch size (1e-6 in float32), could tip a draw.

Letters: B rows, T new positions, S positions so far, D width, G groups (key and value heads), R query heads a group,
C channels of a head, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError
from lib.model.draw import Draw, row_seeds
from lib.model.network import Llama
from lib.model.packed import Packed

BATCH = 64  # rows: 128 are not faster a token at 1M parameters, and hold twice the cache
BLOCKED = -1e9  # added to the score of a position that may not be seen; finite, so that a row of padding has no NaN


@dataclass(frozen=True)
class Completion:
    """What was drawn after one prefix."""

    ids: list[int]  # the stop id included, if one came
    logprobs: list[float]  # nats, under the model at this temperature (at 0: at 1), before top-k and top-p
    ended: bool  # a stop id came; False: max_new or the model's max_length cut it off


class Sampler:
    """A model ready to write."""

    def __init__(self, model: Llama, max_length: int | None = None, dtype: torch.dtype | None = None) -> None:
        shape = model.shape
        self.shape = shape
        # RoPE was trained up to max_length positions and is not known to extrapolate: no row goes past it.
        self.max_length = min(max_length or shape.max_length, shape.max_length)
        self.weights = Packed(model, dtype or model.norm.weight.dtype)
        self.device = model.norm.weight.device

    def generate(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        max_new: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop_ids: set[int],
        seed: int | Sequence[int] = 0,
    ) -> list[Completion]:
        """One completion a prefix, in their order. temperature 0 takes the likeliest piece; top_k 0 keeps all.

        One seed for all: equal prefixes get different completions, the same wherever they stand. A list: one a row.
        """
        seeds = row_seeds(seed, prefixes)
        how = Draw(temperature=temperature, top_p=top_p, top_k=top_k)
        out: list[Completion | None] = [None] * len(prefixes)
        order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))  # neighbours need little padding
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = self._batch([prefixes[i] for i in rows], max_new, [seeds[i] for i in rows])
            for row, completion in zip(rows, batch.run(how, stop_ids), strict=True):
                out[row] = completion
        return [completion for completion in out if completion is not None]

    def stream(
        self,
        prefix: Sequence[int],
        *,
        max_new: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop_ids: set[int],
        seed: int = 0,
    ) -> Iterator[int]:
        """The ids of `generate([prefix], …)`, each as soon as it is drawn; the stop id is not among them."""
        batch = self._batch([prefix], max_new, row_seeds(seed, [prefix]))
        for _, ids_B, _ in batch.steps(Draw(temperature=temperature, top_p=top_p, top_k=top_k), stop_ids):
            if (piece := int(ids_B[0])) not in stop_ids:
                yield piece

    def _batch(self, prefixes: Sequence[Sequence[int]], max_new: int, seeds: list[np.random.SeedSequence]) -> "Batch":
        longest = max(map(len, prefixes))
        if longest >= self.max_length:
            raise UserError(
                f"found a prompt of {longest} tokens, expected at most {self.max_length - 1} "
                f"(the model's max_length is {self.max_length}): shorten it"
            )
        if not min(map(len, prefixes)):
            raise ValueError("found an empty prefix, expected at least one id (BOS)")
        return Batch(self, [list(prefix) for prefix in prefixes], max_new, seeds)


class Batch:
    """Rows that are written together: their cache, their random numbers, and which of them still go on.

    Prefixes are padded on the left, so that every row writes its next key and value into the same column; a row's
    positions, and so its rotations, are its own.
    """

    def __init__(
        self, sampler: Sampler, prefixes: list[list[int]], max_new: int, seeds: list[np.random.SeedSequence]
    ) -> None:
        shape, device = sampler.shape, sampler.device
        self.weights, self.shape, self.device = sampler.weights, shape, device
        longest = max(map(len, prefixes))
        lengths_B = torch.tensor([len(prefix) for prefix in prefixes])
        self.budget_B = (sampler.max_length - lengths_B).clamp(max=max_new)  # tokens each row may still draw
        self.columns = longest + int(self.budget_B.max())
        self.ids_BT = torch.tensor([[0] * (longest - len(p)) + p for p in prefixes], device=device)
        self.pad_B = (longest - lengths_B).to(device)
        padding_BS = torch.arange(self.columns, device=device) < self.pad_B[:, None]
        self.padding_BS = torch.zeros(padding_BS.shape, dtype=self.weights.dtype, device=device)
        self.padding_BS.masked_fill_(padding_BS, BLOCKED)
        self.padded = bool(self.pad_B.any())
        sizes = (shape.n_layers, len(prefixes), shape.n_kv_heads)
        self.keys = torch.empty(*sizes, shape.head_dim, self.columns, dtype=self.weights.dtype, device=device)
        self.values = torch.empty(*sizes, self.columns, shape.head_dim, dtype=self.weights.dtype, device=device)
        uniforms = [np.random.Generator(np.random.Philox(seed)).random(max_new, np.float32) for seed in seeds]
        self.uniforms_BN = torch.from_numpy(np.stack(uniforms)).to(device)
        self.rows_B = torch.arange(len(prefixes))  # which prefix each row of the batch belongs to

    def run(self, how: Draw, stop_ids: set[int]) -> list[Completion]:
        """Draw until every row has stopped."""
        num_rows, most = len(self.rows_B), max(int(self.budget_B.max()), 1)
        ids_BN, logprobs_BN = torch.zeros(num_rows, most, dtype=torch.long), torch.zeros(num_rows, most)
        lengths_B = torch.zeros(num_rows, dtype=torch.long)
        for rows_B, drawn_B, logprob_B in self.steps(how, stop_ids):
            n = int(lengths_B[rows_B[0]])  # the rows still here have all drawn as many
            ids_BN[rows_B, n], logprobs_BN[rows_B, n] = drawn_B, logprob_B
            lengths_B[rows_B] += 1
        parts = zip(ids_BN.tolist(), logprobs_BN.tolist(), lengths_B.tolist(), strict=True)
        return [Completion(ids[:n], logprobs[:n], n > 0 and ids[n - 1] in stop_ids) for ids, logprobs, n in parts]

    @torch.inference_mode()
    def steps(self, how: Draw, stop_ids: set[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Per step: the rows still going on, the id each drew, and its log-probability (all on the CPU)."""
        stops = torch.tensor(sorted(stop_ids), device=self.device)
        new_BT, column, n = self.ids_BT, 0, 0
        self._keep(self.budget_B > 0)
        while len(self.rows_B):
            logits_BV = self._forward(new_BT[: len(self.rows_B)], column)
            column += new_BT.shape[1]
            drawn_B, logprob_B = how(logits_BV, self.uniforms_BN[:, n])
            n += 1
            yield self.rows_B, drawn_B.cpu(), logprob_B.cpu()
            stays_B = ~torch.isin(drawn_B, stops).cpu() & (self.budget_B > n)
            new_BT = self._keep(stays_B, drawn_B)[:, None]

    def _keep(self, stays_B: Tensor, drawn_B: Tensor | None = None) -> Tensor:
        """Only these rows stay: rows from the end of the batch move into the places of those that go."""
        B = int(stays_B.sum())
        drawn_B = self.ids_BT[:, 0] if drawn_B is None else drawn_B
        if len(stays_B) == B:
            return drawn_B
        holes = (~stays_B[:B]).nonzero()[:, 0]
        movers = stays_B[B:].nonzero()[:, 0] + B
        for name in ("budget_B", "rows_B", "ids_BT", "pad_B", "padding_BS", "uniforms_BN"):
            rows = getattr(self, name).clone()  # a caller may still hold the old ones
            rows[holes] = rows[movers]
            setattr(self, name, rows[:B])
        drawn_B = drawn_B.clone()
        drawn_B[holes] = drawn_B[movers]
        for cache in (self.keys, self.values):
            cache[:, holes] = cache[:, movers]
        self.keys, self.values = self.keys[:, :B], self.values[:, :B]
        return drawn_B[:B]

    def _forward(self, ids_BT: Tensor, column: int) -> Tensor:
        """Logits of the last new position in float32, (B, V); keys and values of all new ones go into the cache."""
        B, T = ids_BT.shape
        positions_BT = (torch.arange(column, column + T, device=self.device) - self.pad_B[:, None]).clamp(min=0)
        turns_BTC = self.weights.turns_SC[positions_BT][:, :, None]
        blocked = self._blocked(column, T)
        x_ND = F.embedding(ids_BT.reshape(-1), self.weights.embedding)
        D, eps = self.shape.d_model, self.shape.norm_eps
        for layer, (wqkv, wo, w13, w2) in enumerate(self.weights.layers):
            qkv = F.rms_norm(x_ND, (D,), eps=eps) @ wqkv
            mixed_ND = self._attend(qkv.view(B, T, -1, self.shape.head_dim), turns_BTC, blocked, layer, column)
            x_ND = torch.addmm(x_ND, mixed_ND, wo)
            gate, up = (F.rms_norm(x_ND, (D,), eps=eps) @ w13).chunk(2, dim=-1)
            x_ND = torch.addmm(x_ND, F.silu(gate) * up, w2)
        return (F.rms_norm(x_ND.view(B, T, D)[:, -1], (D,), eps=eps) @ self.weights.output).float()

    def _blocked(self, column: int, T: int) -> Tensor | None:
        """What is added to the scores, (B, 1, 1 or T, S): padding, and in a prefix of several the positions to come."""
        S = column + T
        blocked = self.padding_BS[:, None, None, :S] if self.padded else None
        if T > 1:
            later_TS = torch.ones(T, S, dtype=torch.bool, device=self.device).triu(column + 1)
            later_TS = torch.zeros(T, S, dtype=self.weights.dtype, device=self.device).masked_fill_(later_TS, BLOCKED)
            blocked = later_TS if blocked is None else blocked + later_TS
        return blocked

    def _attend(self, qkv: Tensor, turns_BTC: Tensor, blocked: Tensor | None, layer: int, column: int) -> Tensor:
        B, T, heads, C = qkv.shape
        G, R, S = self.shape.n_kv_heads, self.shape.n_heads // self.shape.n_kv_heads, column + T
        pairs = torch.view_as_complex(qkv[:, :, :-G].float().view(B, T, heads - G, C // 2, 2))
        turned = torch.view_as_real(pairs * turns_BTC).view(B, T, heads - G, C).to(qkv.dtype)
        self.keys[layer, :, :, :, column:S] = turned[:, :, -G:].permute(0, 2, 3, 1)
        self.values[layer, :, :, column:S] = qkv[:, :, -G:].transpose(1, 2)
        q = turned[:, :, :-G].view(B, T, G, R, C).permute(0, 2, 3, 1, 4).reshape(B * G, R * T, C)
        scores = torch.bmm(q, self.keys[layer, :, :, :, :S].view(B * G, C, S))
        if blocked is not None:
            scores.view(B, G * R, T, S).add_(blocked)
        mixed = torch.bmm(scores.softmax(-1), self.values[layer, :, :, :S].view(B * G, S, C))
        return mixed.view(B, G, R, T, C).permute(0, 3, 1, 2, 4).reshape(B * T, -1)
