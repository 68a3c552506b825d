"""Drawing: logits in, one id a row out.

In:   logits_BV (float32), one uniform number a row
Out:  ids and their log-probabilities
On:   nothing but torch; the uniform numbers come from numpy's Philox, one stream a row: a row's draws are its own

softmax, running sum, one uniform number: torch.multinomial instead draws an exponential number for every piece of the
vocabulary, which took 12 % of a step at 512 pieces and half of it at 32,000.

Letters: B rows, V vocabulary.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lib.errors import UserError


@dataclass(frozen=True)
class Draw:
    """How one id is drawn from logits: temperature, then top-k, then top-p of what is left."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise UserError(f"found {self}, expected temperature >= 0, 0 < top_p <= 1 and top_k >= 0")

    def __call__(self, logits_BV: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
        """Ids, and their log-probabilities at this temperature (at 0: at 1) before top-k and top-p; (B,) each."""
        if self.temperature == 0:
            drawn_B = logits_BV.argmax(-1)
        else:
            logits_BV = logits_BV if self.temperature == 1 else logits_BV / self.temperature
            drawn_B = inverse_cdf(self.probabilities(logits_BV), uniform_B)
        return drawn_B, logits_BV.gather(1, drawn_B[:, None])[:, 0] - logits_BV.logsumexp(-1)

    def probabilities(self, scaled_BV: Tensor) -> Tensor:
        """From logits over temperature, the distribution that is drawn from; what is left out is exactly 0."""
        if 0 < self.top_k < scaled_BV.shape[1]:
            best = scaled_BV.topk(self.top_k)
            scaled_BV = torch.full_like(scaled_BV, -math.inf).scatter_(1, best.indices, best.values)
        p_BV = scaled_BV.softmax(-1)
        if self.top_p < 1:
            sorted_BV, order_BV = p_BV.sort(descending=True, stable=True)
            before_BV = sorted_BV.cumsum(-1) - sorted_BV  # the mass of likelier pieces; the first is always kept
            p_BV = torch.zeros_like(p_BV).scatter_(1, order_BV, sorted_BV.masked_fill(before_BV >= self.top_p, 0.0))
        return p_BV


def inverse_cdf(p_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The first piece at which the running sum of (not normalised) p exceeds uniform · total."""
    cdf_BV = p_BV.cumsum(-1)
    total_B1 = cdf_BV[:, -1:]
    # Rounding may lift uniform · total to total, which only the end of the vocabulary would exceed: stay below it.
    target_B1 = torch.minimum(uniform_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cdf_BV, target_B1, right=True)[:, 0]


def row_seeds(seed: int | Sequence[int], prefixes: Sequence[Sequence[int]]) -> list[np.random.SeedSequence]:
    """A seed a row: the given one, or one made of the seed, the prefix, and how often it stood further up."""
    if not isinstance(seed, int):
        return [np.random.SeedSequence(int(each)) for each in seed]
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for prefix in map(tuple, prefixes):
        seeds.append(np.random.SeedSequence([seed, seen[prefix], *prefix]))
        seen[prefix] += 1
    return seeds
