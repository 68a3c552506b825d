"""Ascent: one gradient step towards the roll-outs that were rewarded.

In:   a Round: an update's roll-outs, their rewards, and how likely policy and reference found every token of them
Out:  Taken: the loss, the gradient's norm, …; the policy's weights are changed in place
On:   the losses of lib/model/reinforce.py and lib/model/preference.py, taken piece by piece: a piece fits one pass

The anchor is a loss on train stories beside the reward's, weighted with `anchor_coef`: it holds the model to stories it
knows where the KL alone lets them go. `stories`: their own tokens (Ouyang et al. 2022, arXiv:2203.02155, call it
PPO-ptx), which goes on learning them. `reference`: KL(reference || policy) over the vocabulary (Li and Hoiem 2016,
arXiv:1606.09282), which only holds: at the start its gradient is zero, not the noise of a few stories.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.model import preference, reinforce, rollouts
from lib.model.aligning import Aligning
from lib.model.batches import Batches
from lib.model.compute import autocast
from lib.model.network import Llama, nats_per_target
from lib.model.rewards import Scores
from lib.model.rollouts import Rollout
from lib.model.training import Diverged


@dataclass(frozen=True)
class Round:
    """An update's roll-outs with all that is known of them before the first step; a prompt's samples stand together."""

    written: Sequence[Rollout]
    scores: Scores
    policy: Sequence[Tensor]  # log-probabilities of the generated tokens, one tensor a roll-out
    reference: Sequence[Tensor]
    advantages_B: Tensor
    pairs: Sequence[tuple[int, int]]  # dpo: places of the chosen and the rejected

    def kl(self, estimator: reinforce.Estimator) -> list[Tensor]:
        """At every generated token, in nats."""
        both = zip(self.policy, self.reference, strict=True)
        return [reinforce.kl_of_drawn(policy_N, reference_N, estimator) for policy_N, reference_N in both]


@dataclass(frozen=True)
class Taken:
    """One step, in numbers; those of the gradient before clipping, those of the policy before the step."""

    loss: float
    grad_norm: float
    anchor_nats: float | None = None  # per token
    margin: float | None = None  # dpo: mean over pairs


@dataclass
class Climber:
    """What takes steps: the policy, what it is compared with, and its optimizer."""

    config: Aligning
    policy: Llama
    reference: Llama
    dtype: torch.dtype
    anchor: Batches | None

    def __post_init__(self) -> None:
        weights = [weight for weight in self.policy.parameters() if weight.requires_grad]
        settings = {"betas": self.config.betas, "weight_decay": self.config.weight_decay}
        self.optimizer = torch.optim.AdamW(weights, lr=self.config.lr, **settings)

    @property
    def device(self) -> torch.device:
        return self.policy.norm.weight.device

    def logprobs(self, model: Llama, group: Sequence[Rollout]) -> Tensor:
        return rollouts.logprobs(model, group, temperature=self.config.temperature, dtype=self.dtype)

    def logprobs_of_drawn(self, model: Llama, group: Sequence[Rollout]) -> list[Tensor]:
        return rollouts.logprobs_of_drawn(model, group, temperature=self.config.temperature, dtype=self.dtype)


def weigh(climber: Climber, written: Sequence[Rollout], scores: Scores) -> Round:
    """The roll-outs with their advantages and pairs. With several steps to come, log-probabilities are the step's own:
    those of sampling are of another number format, and their ratio would not start at 1.
    """
    config = climber.config
    reference = climber.logprobs_of_drawn(climber.reference, written)
    policy = [torch.tensor(each.completion.logprobs) for each in written]
    if config.epochs > 1:
        policy = climber.logprobs_of_drawn(climber.policy, written)
    kl_sum_B = torch.stack([reinforce.kl_of_drawn(*each, "k1").sum() for each in zip(policy, reference, strict=True)])
    samples = config.samples_per_prompt
    advantages_B = reinforce.advantages(
        torch.tensor(scores.total),
        kl_sum_B,
        form=config.form,
        samples=samples,
        kl_coef=config.kl_coef,
        estimator=config.estimator,
    )
    pairs = preference.pairs(scores.total, samples, margin=config.margin) if config.form == "dpo" else []
    return Round(written, scores, policy, reference, advantages_B, pairs)


def step(climber: Climber, seen: Round, *, update: int, epoch: int) -> Taken:
    """One gradient step on all roll-outs. Raises Diverged. Without a pair and without an anchor nothing is changed."""
    config, optimizer = climber.config, climber.optimizer
    optimizer.zero_grad(set_to_none=True)
    loss, margins = 0.0, []
    for piece, ahead in dpo_losses(climber, seen) if config.form == "dpo" else losses(climber, seen):
        piece.backward()
        loss, margins = loss + piece.item(), margins + ahead
    anchor_nats = pull(climber, update * config.epochs + epoch)
    loss += config.anchor_coef * (anchor_nats or 0.0)
    weights = optimizer.param_groups[0]["params"]
    norm = float(torch.nn.utils.clip_grad_norm_(weights, config.clip or math.inf))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(f"update {update + 1}: loss {loss}, gradient norm {norm}; use a smaller lr (now {config.lr:g})")
    optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (update + 1) / (config.warmup + 1))
    optimizer.step()
    return Taken(loss, norm, anchor_nats, math.fsum(margins) / len(margins) if margins else None)


def losses(climber: Climber, seen: Round) -> Iterator[tuple[Tensor, list[float]]]:
    """The loss of rloo, grpo or tinycatstories in pieces that add up to it."""
    config, vocab_size = climber.config, climber.policy.shape.vocab_size
    for places in rollouts.chunks(seen.written, vocab_size=vocab_size):
        tokens = tokens_of(climber, seen, places)
        advantages_B = seen.advantages_B[places].to(climber.device)
        if config.form == "tinycatstories":
            length = config.length or config.max_new
            loss = reinforce.tinycatstories_loss(tokens, advantages_B, length=length, kl_factor=config.kl_factor)
        else:
            loss = reinforce.policy_loss(
                tokens,
                advantages_B,
                form=config.form,
                kl_coef=config.kl_coef,
                estimator=config.estimator,
                clip_ratio=config.clip_ratio,
            )
        yield loss / len(seen.written), []


def tokens_of(climber: Climber, seen: Round, places: Sequence[int]) -> reinforce.Tokens:
    """The generated tokens of these roll-outs, with a graph."""
    config, group = climber.config, [seen.written[i] for i in places]
    policy_NV = climber.logprobs(climber.policy, group)
    ids_N, row_N = (each.to(climber.device) for each in rollouts.generated(group))
    reference_NV = None
    if reinforce.needs_distributions(config.form, config.estimator):
        with torch.no_grad():
            reference_NV = climber.logprobs(climber.reference, group)
    reference_N = torch.cat([seen.reference[i] for i in places]).to(climber.device)
    old_N = torch.cat([seen.policy[i] for i in places]).to(climber.device) if config.epochs > 1 else None
    return reinforce.Tokens(policy_NV, reference_NV, ids_N, row_N, len(group), reference_N, old_N)


def dpo_losses(climber: Climber, seen: Round) -> Iterator[tuple[Tensor, list[float]]]:
    """The loss of dpo in pieces that add up to it, each with the margins of its pairs."""
    beta, vocab_size = climber.config.beta, climber.policy.shape.vocab_size
    order = [place for pair in seen.pairs for place in pair]
    for picked in rollouts.chunks([seen.written[i] for i in order], vocab_size=vocab_size, together=2):
        places = [order[i] for i in picked]
        tokens = tokens_of(climber, seen, places)
        policy_B = tokens.row_sums(tokens.of_drawn(tokens.policy_NV))
        reference_B = tokens.row_sums(tokens.reference_of_drawn())
        ahead = preference.margins(policy_B.detach(), reference_B, beta=beta).tolist()
        yield preference.dpo_loss(policy_B, reference_B, beta=beta) / len(seen.pairs), ahead


def pull(climber: Climber, number: int) -> float | None:
    """Add the anchor's gradient; its loss in nats per token, None where there is no anchor."""
    if climber.anchor is None:
        return None
    batch = climber.anchor.batch(number)
    columns = (batch.ids_BT, batch.document_BT, batch.targets_BT)
    ids_BT, document_BT, targets_BT = (column.to(climber.device) for column in columns)
    with autocast(climber.device, climber.dtype):
        nats = nats_per_target(logits_BTV=climber.policy(ids_BT, document_BT), targets_BT=targets_BT).sum()
        nats = nats / batch.num_targets
    (climber.config.anchor_coef * nats).backward()
    return nats.item()
