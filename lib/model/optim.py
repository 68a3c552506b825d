"""Optimisers and the learning rate of each step.

In:   a model, Training (lib/model/training.py)
Out:  Optimizer: AdamW, or Muon for the hidden matrices and AdamW for the rest, behind one step()

The learning rate is a pure function of the step, so a checkpoint holds no scheduler.
"""

import math
from typing import Any

import torch
from torch import nn

from lib.model import shares
from lib.model.faults import NO_LIMITS, Limits
from lib.model.training import Diverged, Training


def lr_share(step: int, *, training: Training) -> float:
    """Learning rate of step 0, 1, … as a share of `training.lr`: up over `warmed`, then cosine or level and down."""
    if step < (warmup := training.warmed):
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(training.steps - 1 - warmup, 1)  # 0 … 1
    if training.schedule == "cosine":
        left = (1 + math.cos(math.pi * done)) / 2
    else:
        left = min(1.0, (1 - done) / training.decay_share) if training.decay_share else 1.0
    return training.final_lr + (1 - training.final_lr) * left


class Optimizer:
    """One or two torch optimisers that step, clip and save together."""

    def __init__(self, *, model: nn.Module, training: Training) -> None:
        self.training = training
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        matrices = [weight for weight in self.weights if weight.dim() == 2]
        vectors = [weight for weight in self.weights if weight.dim() != 2]
        self.parts: list[torch.optim.Optimizer] = []
        if training.optimizer == "muon":
            embeddings = {id(m.weight) for name, m in model.named_modules() if name in ("tok_embeddings", "output")}
            hidden = [weight for weight in matrices if id(weight) not in embeddings]
            matrices = [weight for weight in matrices if id(weight) in embeddings]
            # match_rms_adamw: updates of AdamW's size (Liu et al. 2025, arXiv:2502.16982), so one lr serves both
            settings: dict[str, Any] = {"weight_decay": training.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
            self.parts.append(torch.optim.Muon(hidden, lr=training.lr, **settings))
        groups = [
            {"params": matrices, "weight_decay": training.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        if groups := [group for group in groups if group["params"]]:  # an addition by LoRA is matrices alone
            self.parts.append(torch.optim.AdamW(groups, lr=training.lr, betas=training.betas, fused=True))

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(
        self, number: int, *, loss: float, last_good: int | None, limits: Limits = NO_LIMITS
    ) -> tuple[float, float]:
        """Clip and step; (learning rate, gradient norm before clipping). Raises Diverged before a weight is touched.

        Beyond the limits no weight is touched either.
        """
        norm = float(shares.whole(nn.utils.clip_grad_norm_(self.weights, self.training.clip)))
        lr = self.training.lr * lr_share(number, training=self.training)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            kept = f"the last good checkpoint is step {last_good}" if last_good else "there is no checkpoint yet"
            raise Diverged(
                f"step {number + 1}: loss {loss}, gradient norm {norm}, learning rate {lr:.2e}; {kept}. "
                f"Use a smaller lr (now {self.training.lr:g}) or a longer warmup (now {self.training.warmup} steps)"
            )
        if not limits.broken_by(loss=loss, grad_norm=norm):
            for part in self.parts:
                for group in part.param_groups:
                    group["lr"] = lr
                part.step()
        return lr, norm

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
