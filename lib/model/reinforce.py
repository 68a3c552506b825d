"""REINFORCE: from roll-outs and their rewards to a loss.

In:   log-probabilities of policy and frozen reference at every generated token, the ids, which roll-out each belongs to
Out:  a loss whose gradient torch takes; the advantages; the divergence in nats

Two forms. `rloo` maximises E[r - beta · KL(policy || reference)], the KL in nats summed over a story's tokens, with the
mean of the other samples of the same prompt as baseline (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740).
`tinycatstories` is the loss of pHaeusler/tinycatstories' reinforce.py to the letter: no baseline, the log-probability
divided by a constant T, and 6000 times a KL that is averaged over the vocabulary (with its 50,257 pieces that is 0.119
times the KL in nats), from reference to policy.

How the KL of `rloo` is estimated from x = log policy - log reference at the drawn token (Schulman 2020, "Approximating
KL divergence"), and what its gradient then is, which is not the same question (each is a test):
    k1  x, taken off the reward: the exact gradient of the story's KL in expectation. The default, because it alone is.
        (As a term of the loss its gradient would be zero in expectation: it would do nothing.)
    k2  x²/2 in the loss: the exact gradient of each token's KL, less noise, blind to what a token leads to.
    k3  exp(-x) - 1 + x in the loss (as GRPO): its value estimates the same KL and is never negative, but its gradient
        is that of KL(reference || policy).
    exact  the sum over the vocabulary in the loss: k2's expectation without the noise of drawing.

Letters: N generated tokens of all roll-outs, B roll-outs, V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["rloo", "tinycatstories"]
Estimator = Literal["k1", "k2", "k3", "exact"]
KL_FACTOR = 6000.0  # tinycatstories


@dataclass(frozen=True)
class Tokens:
    """Generated tokens, one roll-out after the other."""

    policy_NV: Tensor  # log-probabilities, with a graph
    reference_NV: Tensor  # log-probabilities, without
    ids_N: Tensor
    row_N: Tensor  # which roll-out, 0 … num_rows - 1
    num_rows: int

    def of_drawn(self, logprobs_NV: Tensor) -> Tensor:
        return logprobs_NV.gather(1, self.ids_N[:, None])[:, 0]

    def row_sums(self, values_N: Tensor) -> Tensor:
        return values_N.new_zeros(self.num_rows).index_add(0, self.row_N, values_N)


def leave_one_out(rewards_B: Tensor, samples: int) -> Tensor:
    """Each reward minus the mean of the other `samples` - 1 of its prompt; a prompt's samples stand together."""
    rewards_PK = rewards_B.view(-1, samples)
    others_PK = (rewards_PK.sum(1, keepdim=True) - rewards_PK) / (samples - 1)
    return (rewards_PK - others_PK).flatten()


def advantages(
    rewards_B: Tensor, kl_sum_B: Tensor, *, form: Form, samples: int, kl_coef: float, estimator: Estimator
) -> Tensor:
    """What each roll-out's log-probability is weighted with. `kl_sum_B`: k1 summed over the story, in nats."""
    if form == "tinycatstories":
        return rewards_B
    return leave_one_out(rewards_B - kl_coef * kl_sum_B if estimator == "k1" else rewards_B, samples)


def kl_tokens(tokens: Tokens, estimator: Estimator) -> Tensor:
    """The divergence from the reference in nats at each token, (N,), as `estimator` has it."""
    if estimator == "exact":
        return (tokens.policy_NV.exp() * (tokens.policy_NV - tokens.reference_NV)).sum(-1)
    return kl_of_drawn(tokens.of_drawn(tokens.policy_NV), tokens.of_drawn(tokens.reference_NV), estimator)


def kl_of_drawn(policy_N: Tensor, reference_N: Tensor, estimator: Estimator) -> Tensor:
    """k1, k2 or k3 at drawn tokens, from their log-probabilities."""
    x_N = policy_N - reference_N
    if estimator == "k1":
        return x_N
    return x_N.square() / 2 if estimator == "k2" else torch.expm1(-x_N) + x_N


def rloo_loss(tokens: Tokens, advantages_B: Tensor, *, kl_coef: float, estimator: Estimator) -> Tensor:
    """Summed over roll-outs (divide by their number): the loss of the corrected form."""
    loss = -(advantages_B.detach() * tokens.row_sums(tokens.of_drawn(tokens.policy_NV))).sum()
    if kl_coef and estimator != "k1":  # k1 is in the advantages
        loss = loss + kl_coef * kl_tokens(tokens, estimator).sum()
    return loss


def tinycatstories_loss(tokens: Tokens, rewards_B: Tensor, *, length: int, kl_factor: float = KL_FACTOR) -> Tensor:
    """Summed over roll-outs (divide by their number): tinycatstories' loss; `length` is its NUM_TOKENS.

    mean_b[-(Σ_t log π / T) · r] + kl_factor · mean_b[Σ_t mean_v(ρ (log ρ - log π)) / T]
    """
    logp_B = tokens.row_sums(tokens.of_drawn(tokens.policy_NV)) / length
    kl_NV = tokens.reference_NV.exp() * (tokens.reference_NV - tokens.policy_NV)
    kl_B = tokens.row_sums(kl_NV.mean(-1)) / length
    return (-logp_B * rewards_B.detach() + kl_factor * kl_B).sum()
