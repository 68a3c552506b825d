"""Preference: pairs of a prompt's own roll-outs, and the loss that tells the better from the worse (DPO).

In:   rewards of roll-outs, a prompt's samples together; log-probabilities of whole stories
Out:  pairs (chosen, rejected); a loss whose gradient torch takes; the margins

Direct preference optimisation, Rafailov et al. 2023 (arXiv:2305.18290), eq. 7. The pairs are the policy's own stories,
ranked by the reward (Xu et al. 2023, "Some things are more cringe than others", call that iterative): of each prompt
the best against the worst. So the rewards' sizes do not matter, only their order.

Letters: B roll-outs, P pairs.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def pairs(rewards: Sequence[float], samples: int, *, margin: float) -> list[tuple[int, int]]:
    """Places of the best and the worst of each prompt's `samples`, where their rewards differ by more than `margin`."""
    found = []
    for start in range(0, len(rewards), samples):
        places = range(start, start + samples)
        best, worst = max(places, key=rewards.__getitem__), min(places, key=rewards.__getitem__)
        if rewards[best] - rewards[worst] > margin:
            found.append((best, worst))
    return found


def margins(policy_B: Tensor, reference_B: Tensor, *, beta: float) -> Tensor:
    """beta · (how much likelier than by the reference the chosen became, less the same of the rejected), (P,).

    Both are log-probabilities of whole stories in nats; chosen and rejected take turns, chosen first.
    """
    ahead_B = policy_B - reference_B
    return beta * (ahead_B[::2] - ahead_B[1::2])


def dpo_loss(policy_B: Tensor, reference_B: Tensor, *, beta: float) -> Tensor:
    """Summed over pairs (divide by their number): -log sigmoid of the margin."""
    return -F.logsigmoid(margins(policy_B, reference_B, beta=beta)).sum()
