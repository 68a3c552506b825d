"""Drawing: logits in, one id a row out.

In:   logits_BV (float32), one uniform number a row, how each row is drawn, which pieces each row has seen
Out:  ids and their log-probabilities
On:   nothing but torch; the uniform numbers come from numpy's Philox, one stream a row: a row's draws are its own

In the order of transformers' processors, and equal to them: repetition penalty, temperature, top-k, top-p, min-p. Then
exp, running sum, one uniform number: torch.multinomial instead draws an exponential number for every piece of the
vocabulary, which took 12 % of a step at 512 pieces and half of it at 32,000.

The log-probability is the model's own at the row's temperature: before the penalty and before any cut. It is what a
policy gradient needs, and what a later pass over the same ids finds again.

Letters: B rows, V vocabulary, M pieces that may be left of it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from lib.errors import UserError

COLD = 1e-6  # temperatures below count as 0: 1e-39 is hardly a float32, and 1e-46 is 0 there
WIDE = 2048  # a vocabulary from which on it is worth drawing a block first
BLOCK = 256
LIKELY = (64, 512, 4096)  # pieces to look at first: a story model's next piece is nearly always one of the first 64


@dataclass(frozen=True)
class Draw:
    """How one id is drawn from logits. The defaults draw from the model as it is."""

    temperature: float = 1.0  # 0, or below COLD: the likeliest piece
    top_p: float = 1.0  # the smallest set of likely pieces with this mass
    top_k: int = 0  # so many of the likeliest; 0: all
    min_p: float = 0.0  # what has this share of the likeliest's probability
    repetition_penalty: float = 1.0  # Keskar et al. 2019 (CTRL): logits of ids seen, / it where positive, · it below

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise UserError(f"found {self}, expected temperature >= 0, 0 < top_p <= 1 and top_k >= 0")
        if not (0 <= self.min_p <= 1 and self.repetition_penalty > 0):
            raise UserError(f"found {self}, expected 0 <= min_p <= 1 and repetition_penalty > 0")


class Draws:
    """How every row of a batch is drawn. Rows that are drawn alike, which is the rule, share one row of settings."""

    def __init__(self, hows: Sequence[Draw], device: torch.device | str = "cpu") -> None:
        hows = hows[:1] if len(set(hows)) == 1 else hows
        cold = [how.temperature < COLD for how in hows]
        self.greedy, self.sharp = all(cold), any(cold)
        self.warm = any(how.temperature != 1 and how.temperature >= COLD for how in hows)
        self.penalised = any(how.repetition_penalty != 1 for how in hows)
        self.most = max(how.top_k for how in hows)
        cuts = [how.top_k > 0 or how.top_p < 1 or how.min_p > 0 for how in hows]
        self.cut, self.all_cut = any(cuts), all(cuts)
        self.cut_B1 = torch.tensor(cuts, device=device)[:, None]

        def column(name: str) -> Tensor:
            return torch.tensor([[getattr(how, name)] for how in hows], device=device)

        self.greedy_B1 = torch.tensor(cold, device=device)[:, None]
        self.temperature_B1 = torch.where(self.greedy_B1, 1, column("temperature"))
        self.top_p_B1, self.top_k_B1, self.min_p_B1 = column("top_p"), column("top_k"), column("min_p")
        self.top_p_B1[self.top_p_B1 == 1] = torch.inf  # rounding lifts the sum to the total before its last pieces
        self.penalty_B1 = column("repetition_penalty")

    def __call__(self, logits_BV: Tensor, uniform_B: Tensor, seen_BV: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ids, and their log-probabilities at this temperature (at 0: at 1) before penalty and cuts; (B,) each."""
        chosen_BV = self.penalise(logits_BV, seen_BV)
        best_B1 = chosen_BV.amax(-1, keepdim=True)  # without the places, which took 14 µs for 32 rows of 512
        argmax_B1 = chosen_BV.argmax(-1, keepdim=True) if self.sharp else None
        # In place: for 64 rows of 32,000 a fresh 8 MB each for quotient and exponential took three times as long.
        likely_BV = self.tempered(chosen_BV - best_B1).exp_()
        total_B1 = likely_BV.sum(-1, keepdim=True)
        drawn_B1 = self._drawn(likely_BV, total_B1, uniform_B, argmax_B1)
        if chosen_BV is logits_BV:
            logprob_B1 = self.tempered(logits_BV.gather(1, drawn_B1) - best_B1) - total_B1.log()
        else:
            logprob_B1 = self.tempered(logits_BV.clone()).log_softmax(-1).gather(1, drawn_B1)
        return drawn_B1[:, 0], logprob_B1[:, 0]

    def penalise(self, logits_BV: Tensor, seen_BV: Tensor | None) -> Tensor:
        """Logits of seen ids moved down: over the penalty where positive, times it where negative."""
        if not self.penalised or seen_BV is None:
            return logits_BV
        moved_BV = torch.where(logits_BV < 0, logits_BV * self.penalty_B1, logits_BV / self.penalty_B1)
        return torch.where(seen_BV, moved_BV, logits_BV)

    def tempered(self, logits_BV: Tensor) -> Tensor:
        """Over the temperature, in place."""
        return logits_BV.div_(self.temperature_B1) if self.warm else logits_BV

    def _drawn(self, likely_BV: Tensor, total_B1: Tensor, uniform_B: Tensor, argmax_B1: Tensor | None) -> Tensor:
        if self.greedy and argmax_B1 is not None:
            return argmax_B1
        # A row without cuts is drawn in the order of ids, one with cuts likeliest first, whoever else is there.
        if not self.all_cut:
            drawn_B1 = inverse_cdf(likely_BV, uniform_B)[:, None]
        if self.cut:
            left_BM, ids_BM = self.left(likely_BV, total_B1)
            cut_B1 = ids_BM.gather(1, inverse_cdf(left_BM, uniform_B)[:, None])
            drawn_B1 = cut_B1 if self.all_cut else torch.where(self.cut_B1, cut_B1, drawn_B1)
        return drawn_B1 if argmax_B1 is None else torch.where(self.greedy_B1, argmax_B1, drawn_B1)

    def left(self, likely_BV: Tensor, total_B1: Tensor) -> tuple[Tensor, Tensor]:
        """What the cuts leave of exp(logits - highest), likeliest first, the rest 0; and the id of each."""
        sorted_BM, ids_BM = self._likeliest(likely_BV, total_B1)
        summed_BM = sorted_BM.cumsum(-1)
        before_BM = summed_BM - sorted_BM
        stays_BM = (before_BM < self.top_p_B1 * total_B1) & (sorted_BM >= self.min_p_B1)
        if self.most:
            rank_M = torch.arange(sorted_BM.shape[1], device=sorted_BM.device)
            limit_B1 = torch.where(self.top_k_B1 == 0, len(rank_M), self.top_k_B1.clamp(max=len(rank_M)))
            mass_B1 = summed_BM.gather(1, (limit_B1 - 1).expand(len(summed_BM), 1))  # what top-k leaves
            mass_B1 = torch.where(self.top_k_B1 == 0, total_B1, mass_B1)
            stays_BM &= (rank_M < limit_B1) & (before_BM < self.top_p_B1 * mass_B1)
        return sorted_BM * stays_BM, ids_BM

    def _likeliest(self, likely_BV: Tensor, total_B1: Tensor) -> tuple[Tensor, Tensor]:
        """Pieces in order, likeliest first: as many as surely hold all that may stay.

        On one core, 64 rows: of 512 pieces 1.1 ms to sort and 0.16 for the first 64; of 32,000 121 ms and 2.5.
        """
        for num in LIKELY if not likely_BV.is_cuda else ():  # a GPU sorts fast, and would wait for the answer
            if num >= likely_BV.shape[1]:
                break
            best_BM, ids_BM = likely_BV.topk(num)
            enough_B1 = ~self.cut_B1 | ((self.top_k_B1 > 0) & (self.top_k_B1 <= num))
            enough_B1 = enough_B1 | (best_BM.sum(-1, keepdim=True) > self.top_p_B1 * total_B1)
            if bool((enough_B1 | (best_BM[:, -1:] < self.min_p_B1)).all()):
                return best_BM, ids_BM
        if likely_BV.is_cuda or likely_BV.shape[1] < WIDE:
            return likely_BV.sort(descending=True, stable=True)
        order_BV = torch.from_numpy(np.argsort(likely_BV.numpy(), axis=-1)).flip(-1)  # 20 ms where torch takes 121
        return likely_BV.gather(1, order_BV), order_BV


def inverse_cdf(p_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The first piece at which the running sum of (not normalised) p exceeds uniform · total."""
    B, V = p_BV.shape
    if V < WIDE or V % BLOCK:
        cdf_BV = p_BV.cumsum(-1)
        return torch.searchsorted(cdf_BV, _target(cdf_BV, uniform_B[:, None]), right=True)[:, 0]
    # A running sum adds one number after the other; sums of blocks do not, and one block a row is left to run over.
    blocks_BNC = p_BV.view(B, -1, BLOCK)
    block_B1, rest_B1 = _exceeds(blocks_BNC.sum(-1).cumsum(-1), uniform_B[:, None])
    within_BC = blocks_BNC[torch.arange(B, device=p_BV.device), block_B1[:, 0]].cumsum(-1)
    place_B1 = torch.searchsorted(within_BC, torch.minimum(rest_B1, _below(within_BC[:, -1:])), right=True)
    return (block_B1 * BLOCK + place_B1)[:, 0]


def _exceeds(cdf_BN: Tensor, uniform_B1: Tensor) -> tuple[Tensor, Tensor]:
    """Where the running sum first exceeds uniform · total, and how far that is above the sum before it."""
    target_B1 = _target(cdf_BN, uniform_B1)
    place_B1 = torch.searchsorted(cdf_BN, target_B1, right=True)
    before_B1 = torch.where(place_B1 > 0, cdf_BN.gather(1, (place_B1 - 1).clamp(min=0)), 0.0)
    return place_B1, target_B1 - before_B1


def _target(cdf_BN: Tensor, uniform_B1: Tensor) -> Tensor:
    """uniform · total. Rounding may lift that to total, which only the end of the vocabulary would exceed: below it."""
    total_B1 = cdf_BN[:, -1:]
    return torch.minimum(uniform_B1 * total_B1, _below(total_B1))


def _below(x_B1: Tensor) -> Tensor:
    return torch.nextafter(x_B1, torch.zeros_like(x_B1))


def row_seeds(seed: int | Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[np.random.SeedSequence]:
    """A seed a row: the given one, or one made of the seed, the prefix, and how often it stood further up."""
    if not isinstance(seed, Integral):
        if len(seed) != len(prefixes):
            raise ValueError(f"found {len(seed)} seeds for {len(prefixes)} rows, expected one a row")
        return [np.random.SeedSequence(int(each)) for each in seed]
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for prefix in map(tuple, prefixes):
        seeds.append(np.random.SeedSequence([int(seed), seen[prefix], *prefix]))
        seen[prefix] += 1
    return seeds
