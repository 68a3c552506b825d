"""REINFORCE: from roll-outs and their rewards to a loss.

In:   log-probabilities of policy and frozen reference at every generated token, the ids, which roll-out each belongs to
Out:  a loss whose gradient torch takes; the advantages; the divergence in nats

Three forms; of a fourth, dpo, see lib/model/preference.py.
    rloo  maximises E[r - beta · KL(policy || reference)], the KL in nats summed over a story's tokens, with the mean of
          the other samples of the same prompt as baseline (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740).
          The loss is summed over a story's tokens and averaged over stories: its gradient has no bias.
    grpo  Shao et al. 2024 (arXiv:2402.03300): the reward minus the mean of the prompt's group, over the group's
          standard deviation; the loss is averaged over each story's tokens, then over stories. Both divisions are
          biases that Liu et al. 2025 (arXiv:2503.20783) describe: prompts of little spread count more, and of two bad
          stories the longer one is punished less. It is here as published; rloo is the default.
    tinycatstories  the loss of pHaeusler/tinycatstories' reinforce.py to the letter: no baseline, the log-probability
          divided by a constant T, and 6000 times a KL that is averaged over the vocabulary (with its 50,257 pieces that
          is 0.119 times the KL in nats), from reference to policy.
With several steps on the same roll-outs, rloo and grpo weight a token by policy / policy that drew it, clipped as in
PPO (Schulman et al. 2017). In the first step the ratio is 1 and its gradient that of the log-probability: with one
step, as by default, nothing is clipped.

How the KL of rloo and grpo is estimated from x = log policy - log reference at the drawn token (Schulman 2020,
"Approximating KL divergence"), and what its gradient then is, which is not the same question (each is a test):
    k1  x, summed over the story and taken off the reward: in rloo the exact gradient of the story's KL in expectation.
        The default, because it alone is. (As a term of the loss its gradient would be zero in expectation.)
    k2  x²/2 in the loss: the exact gradient of each token's KL, less noise, blind to what a token leads to.
    k3  exp(-x) - 1 + x in the loss (as GRPO): its value estimates the same KL and is never negative, but its gradient
        is that of KL(reference || policy).
    exact  the sum over the vocabulary in the loss: k2's expectation without the noise of drawing.

Letters: N generated tokens of all roll-outs, B roll-outs, V vocabulary, P prompts, K samples of a prompt.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["rloo", "grpo", "dpo", "tinycatstories"]
Estimator = Literal["k1", "k2", "k3", "exact"]
KL_FACTOR = 6000.0  # tinycatstories
EPS = 1e-4  # added to a group's standard deviation: rewards that hardly differ are not blown up


@dataclass(frozen=True)
class Tokens:
    """Generated tokens, one roll-out after the other."""

    policy_NV: Tensor  # log-probabilities, with a graph
    reference_NV: Tensor | None  # log-probabilities, without; None: only those in reference_N are known
    ids_N: Tensor
    row_N: Tensor  # which roll-out, 0 … num_rows - 1
    num_rows: int
    reference_N: Tensor | None = None  # of the drawn tokens alone
    old_N: Tensor | None = None  # log-probabilities of the policy that drew them; None: it is this one

    def of_drawn(self, logprobs_NV: Tensor) -> Tensor:
        return logprobs_NV.gather(1, self.ids_N[:, None])[:, 0]

    def reference_of_drawn(self) -> Tensor:
        if self.reference_N is not None:
            return self.reference_N
        assert self.reference_NV is not None
        return self.of_drawn(self.reference_NV)

    def row_sums(self, values_N: Tensor) -> Tensor:
        return values_N.new_zeros(self.num_rows).index_add(0, self.row_N, values_N)

    def row_means(self, values_N: Tensor) -> Tensor:
        return self.row_sums(values_N) / self.row_sums(torch.ones_like(values_N))


def leave_one_out(rewards_B: Tensor, samples: int) -> Tensor:
    """Each reward minus the mean of the other `samples` - 1 of its prompt; a prompt's samples stand together."""
    rewards_PK = rewards_B.view(-1, samples)
    others_PK = (rewards_PK.sum(1, keepdim=True) - rewards_PK) / (samples - 1)
    return (rewards_PK - others_PK).flatten()


def standardised(rewards_B: Tensor, samples: int) -> Tensor:
    """Each reward minus the mean of its prompt's `samples`, over their standard deviation (of the group itself)."""
    rewards_PK = rewards_B.view(-1, samples)
    spread_P1 = rewards_PK.std(1, keepdim=True, correction=0)
    return ((rewards_PK - rewards_PK.mean(1, keepdim=True)) / (spread_P1 + EPS)).flatten()


def advantages(
    rewards_B: Tensor, kl_sum_B: Tensor, *, form: Form, samples: int, kl_coef: float, estimator: Estimator
) -> Tensor:
    """What each roll-out's log-probability is weighted with. `kl_sum_B`: k1 summed over the story, in nats.

    dpo does not weight: there it is each reward beside the others of its prompt, for the rows to tell.
    """
    if form == "tinycatstories":
        return rewards_B
    if estimator == "k1" and form != "dpo":
        rewards_B = rewards_B - kl_coef * kl_sum_B
    return (standardised if form == "grpo" else leave_one_out)(rewards_B, samples)


def kl_tokens(tokens: Tokens, estimator: Estimator) -> Tensor:
    """The divergence from the reference in nats at each token, (N,), as `estimator` has it."""
    if estimator == "exact":
        assert tokens.reference_NV is not None
        return (tokens.policy_NV.exp() * (tokens.policy_NV - tokens.reference_NV)).sum(-1)
    return kl_of_drawn(tokens.of_drawn(tokens.policy_NV), tokens.reference_of_drawn(), estimator)


def kl_of_drawn(policy_N: Tensor, reference_N: Tensor, estimator: Estimator) -> Tensor:
    """k1, k2 or k3 at drawn tokens, from their log-probabilities."""
    x_N = policy_N - reference_N
    if estimator == "k1":
        return x_N
    return x_N.square() / 2 if estimator == "k2" else torch.expm1(-x_N) + x_N


def gains(tokens: Tokens, advantages_B: Tensor, clip_ratio: float) -> Tensor:
    """What each token adds to the objective, (N,): its ratio times the advantage of its story, clipped as in PPO."""
    policy_N = tokens.of_drawn(tokens.policy_NV)
    advantages_N = advantages_B.detach()[tokens.row_N]
    ratio_N = (policy_N - (policy_N.detach() if tokens.old_N is None else tokens.old_N)).exp()
    clipped_N = ratio_N.clamp(1 - clip_ratio, 1 + clip_ratio)
    return torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)


def needs_distributions(form: Form, estimator: Estimator) -> bool:
    """Whether the loss reads the reference's log-probability of every piece, not of the drawn one alone."""
    return form == "tinycatstories" or (form != "dpo" and estimator == "exact")


def policy_loss(
    tokens: Tokens, advantages_B: Tensor, *, form: Form, kl_coef: float, estimator: Estimator, clip_ratio: float = 0.2
) -> Tensor:
    """Summed over roll-outs (divide by their number): the loss of rloo and grpo."""
    loss_N = -gains(tokens, advantages_B, clip_ratio)
    if kl_coef and estimator != "k1":  # k1 is in the advantages
        loss_N = loss_N + kl_coef * kl_tokens(tokens, estimator)
    return (tokens.row_means(loss_N) if form == "grpo" else loss_N).sum()


def tinycatstories_loss(tokens: Tokens, rewards_B: Tensor, *, length: int, kl_factor: float = KL_FACTOR) -> Tensor:
    """Summed over roll-outs (divide by their number): tinycatstories' loss; `length` is its NUM_TOKENS.

    mean_b[-(Σ_t log π / T) · r] + kl_factor · mean_b[Σ_t mean_v(ρ (log ρ - log π)) / T]
    """
    assert tokens.reference_NV is not None
    logp_B = tokens.row_sums(tokens.of_drawn(tokens.policy_NV)) / length
    kl_NV = tokens.reference_NV.exp() * (tokens.reference_NV - tokens.policy_NV)
    kl_B = tokens.row_sums(kl_NV.mean(-1)) / length
    return (-logp_B * rewards_B.detach() + kl_factor * kl_B).sum()
