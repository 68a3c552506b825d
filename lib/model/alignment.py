"""Alignment: the loop that makes rewarded stories likelier.

In:   the policy, a frozen reference, prompts for training and held-out ones, rewards, Aligning
Out:  the policy with the weights to keep; in the draft what lib/model/outcome.py lists

An update draws prompts, writes several stories for each, rewards them and takes one gradient step. Every `eval_every`
updates the held-out prompts are answered with the same random numbers each time; lib/model/guards.py says what follows.
Everything random is a function of (seed, update), so a killed run goes on from its checkpoint to the same bytes.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lib.model import gauge, guards, heldout, outcome, reinforce, rollouts
from lib.model.aligning import Aligning
from lib.model.batches import Batch, Batches
from lib.model.board import Board
from lib.model.checkpoint import LOG, Checkpoints, Log, set_weights
from lib.model.network import Llama
from lib.model.rewards import Rewards, Scores
from lib.model.rollouts import Rollout, Writer
from lib.model.sampling import Sampler
from lib.model.training import Diverged
from lib.store import Draft

BEST = "best."  # before the names of the kept model's weights in a checkpoint


@dataclass
class Run:
    """What the functions below share."""

    draft: Draft
    config: Aligning
    policy: Llama
    reference: Llama
    writer: Writer
    rewards: Rewards
    prompts: Mapping[str, str]  # each with the story it is the summary of
    held_out: Sequence[str]
    val: Batches
    dtype: torch.dtype
    optimizer: torch.optim.Optimizer = field(init=False)
    checkpoints: Checkpoints = field(init=False)
    log: Log = field(init=False)
    first_update: int = 0
    start: guards.Health | None = None
    best: guards.Health | None = None
    best_update: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    stopped: str = ""

    @cached_property
    def prompt_list(self) -> list[str]:
        return list(self.prompts)

    @cached_property
    def val_batches(self) -> list[Batch]:
        return self.val.in_order()


def train(run: Run) -> None:
    """Align the policy in place and put the run's tables and facts into the draft."""
    set_up(run)
    with closing(run.log), closing(Board(run.draft, run.log)) as board:  # the next attempt opens them again
        for update in range(run.first_update, run.config.updates):
            if run.stopped:
                break
            take_update(run, update)
        board.publish()
    set_weights(run.policy, run.best_weights)
    outcome.write(run)


def take_update(run: Run, update: int) -> None:
    """One update; where they are due a look at the held-out prompts and a checkpoint."""
    row = learn(run, update)
    if is_due(update, run.config.eval_every, run.config.updates):
        row |= look(run, update)
    run.log.add("updates", **row)
    if run.stopped or is_due(update, run.config.checkpoint_every, run.config.updates):
        save(run, update)
    show(run, update)


def set_up(run: Run) -> None:
    """The run at its last checkpoint, or at its start with a first look at the held-out prompts."""
    weights = [weight for weight in run.policy.parameters() if weight.requires_grad]
    run.optimizer = torch.optim.AdamW(weights, lr=run.config.lr, betas=(0.9, 0.95), weight_decay=0.0)
    run.checkpoints = Checkpoints(run.draft.path / "_resume", say=run.draft.progress)
    found = run.checkpoints.newest()
    run.log = Log(run.checkpoints.folder / LOG, keep_bytes=found.log_bytes if found else 0)
    if not found:
        look(run, -1)
        save(run, -1)
        return
    best = {name.removeprefix(BEST): weight for name, weight in found.weights.items() if name.startswith(BEST)}
    set_weights(run.policy, {name: weight for name, weight in found.weights.items() if not name.startswith(BEST)})
    run.optimizer.load_state_dict(found.state["optimizer"])
    run.start, run.best = guards.Health(**found.state["start"]), guards.Health(**found.state["best"])
    run.best_update, run.stopped = found.state["best_update"], found.state["stopped"]
    run.best_weights, run.first_update = best, found.step
    run.draft.progress(f"going on from the checkpoint at update {found.step}", found.step, run.config.updates)


def learn(run: Run, update: int) -> dict[str, Any]:
    """Write, reward, step; the update's row. One row per roll-out and one for the speed go into the log."""
    started, config = time.perf_counter(), run.config
    written = roll_out(run, update)
    scores = judge(run, written)
    reference = rollouts.logprobs_of_drawn(run.reference, written, temperature=config.temperature, dtype=run.dtype)
    policy = [torch.tensor(each.completion.logprobs) for each in written]
    pairs = list(zip(policy, reference, strict=True))
    advantages_B = reinforce.advantages(
        torch.tensor(scores.total),
        torch.stack([reinforce.kl_of_drawn(p, r, "k1").sum() for p, r in pairs]),
        form=config.form,
        samples=config.samples_per_prompt,
        kl_coef=config.kl_coef,
        estimator=config.estimator,
    )
    loss, grad_norm = step(run, written, advantages_B, update)
    kl_B = [float(reinforce.kl_of_drawn(p, r, "k3").mean()) for p, r in pairs]  # never negative, the least noise
    for row in rollouts.rows(written, scores, advantages_B.tolist(), kl_B):
        run.log.add("rollouts", update=update + 1, story_id=run.prompts[row["prompt"]], **row)
    tokens = sum(len(each.completion.ids) for each in written)
    seconds = time.perf_counter() - started
    speed = {"tokens_per_s": tokens / seconds, "mfu": None, "seconds": seconds}  # writing is not bound by FLOP/s
    run.log.add("speed", step=update + 1, **speed, memory_mb=gauge.memory_mb(run.policy.norm.weight.device))
    kl = math.fsum(k * len(w.completion.ids) for k, w in zip(kl_B, written, strict=True)) / tokens
    row = {"update": update + 1, "loss": loss, "kl": kl, "grad_norm": grad_norm, "heldout_reward": None}
    return row | asdict(health(run, written, scores))


def health(run: Run, written: Sequence[Rollout], scores: Scores, bits_per_byte: float | None = None) -> guards.Health:
    return guards.health(
        concept=run.config.concept,
        stories=[each.text for each in written],
        ended=[each.completion.ended for each in written],
        reward=mean(scores.total),
        val_bits_per_byte=bits_per_byte,
    )


def roll_out(run: Run, update: int) -> list[Rollout]:
    """This update's prompts, each `samples_per_prompt` times in a row, and a story for each."""
    random = np.random.Generator(np.random.Philox(key=[run.config.seed, update]))
    number = min(run.config.prompts_per_update, len(run.prompts))
    chosen = [run.prompt_list[i] for i in random.choice(len(run.prompts), size=number, replace=False)]
    repeated = [prompt for prompt in chosen for _ in range(run.config.samples_per_prompt)]
    return run.writer.write(Sampler(run.policy), repeated, seed=int(random.integers(1 << 31)))


def judge(run: Run, written: Sequence[Rollout]) -> Scores:
    """Rewards, less the penalty for a story that has no end."""
    scores = run.rewards([each.prompt for each in written], [each.text for each in written])
    penalty = run.config.unfinished_penalty
    total = [t - penalty * (not w.completion.ended) for t, w in zip(scores.total, written, strict=True)]
    return Scores(total, scores.parts)


def step(run: Run, written: Sequence[Rollout], advantages_B: torch.Tensor, update: int) -> tuple[float, float]:
    """One gradient step on all roll-outs; the loss and the gradient's norm before clipping. Raises Diverged."""
    config, loss = run.config, 0.0
    run.optimizer.zero_grad(set_to_none=True)
    for places in rollouts.chunks(written):
        piece = piece_loss(run, [written[i] for i in places], advantages_B[places]) / len(written)
        piece.backward()
        loss += piece.item()
    weights = run.optimizer.param_groups[0]["params"]
    norm = float(torch.nn.utils.clip_grad_norm_(weights, config.clip))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(f"update {update + 1}: loss {loss}, gradient norm {norm}; use a smaller lr (now {config.lr:g})")
    run.optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (update + 1) / (config.warmup + 1))
    run.optimizer.step()
    return loss, norm


def piece_loss(run: Run, group: Sequence[Rollout], advantages_B: torch.Tensor) -> torch.Tensor:
    """The loss of these roll-outs, summed over them."""
    config = run.config
    how: dict[str, Any] = {"temperature": config.temperature, "dtype": run.dtype}
    policy_NV = rollouts.logprobs(run.policy, group, **how)
    reference_NV = policy_NV.detach()
    ids_N, row_N = (each.to(policy_NV.device) for each in rollouts.generated(group))
    if config.form == "tinycatstories" or config.estimator != "k1":
        with torch.no_grad():
            reference_NV = rollouts.logprobs(run.reference, group, **how)
    tokens = reinforce.Tokens(policy_NV, reference_NV, ids_N, row_N, len(group))
    advantages_B = advantages_B.to(policy_NV.device)
    if config.form == "tinycatstories":
        return reinforce.tinycatstories_loss(tokens, advantages_B, length=config.max_new, kl_factor=config.kl_factor)
    return reinforce.rloo_loss(tokens, advantages_B, kl_coef=config.kl_coef, estimator=config.estimator)


def look(run: Run, update: int) -> dict[str, float | None]:
    """Answer the held-out prompts, always with the same random numbers; keep the best, stop on a breach."""
    written = run.writer.write(Sampler(run.policy), run.held_out, seed=run.config.seed)
    scores = judge(run, written)
    val = heldout.val_loss(run.policy, run.val_batches)
    run.log.add("evals", step=update + 1, split="val", **val)
    now = health(run, written, scores, val["bits_per_byte"])
    run.start = run.start or now
    if run.best is None or guards.is_better(now, best=run.best, start=run.start, limits=run.config.guards):
        run.best, run.best_update = now, update + 1
        run.best_weights = {name: weight.detach().clone() for name, weight in run.policy.named_parameters()}
    run.stopped = "; ".join(guards.breaches(now, start=run.start, limits=run.config.guards))
    run.log.add("looks", update=update + 1, **{name: mean(values) for name, values in scores.parts.items()})
    run.draft.progress(f"after {update + 1} updates: held-out reward {now.reward:.3f}", update + 1, run.config.updates)
    return {"heldout_reward": now.reward, "val_bits_per_byte": now.val_bits_per_byte}


def save(run: Run, update: int) -> None:
    """A checkpoint of everything up to this update."""
    assert run.start
    assert run.best
    weights = dict(run.policy.named_parameters())
    weights |= {BEST + name: weight for name, weight in run.best_weights.items()}
    state = {
        "optimizer": run.optimizer.state_dict(),
        "start": asdict(run.start),
        "best": asdict(run.best),
        "best_update": run.best_update,
        "stopped": run.stopped,
    }
    run.checkpoints.save(step=update + 1, weights=weights, state=state, log=run.log)


def show(run: Run, update: int) -> None:
    """The run in one line."""
    row, speed = run.log.last("updates"), run.log.last("speed")
    held_out = f" · held-out {run.best.reward:.3f} at best" if run.best else ""
    stopped = f" · stopped: {run.stopped}" if run.stopped else ""
    run.draft.progress(
        f"update {update + 1}/{run.config.updates} · reward {row['reward']:.3f}{held_out} · "
        f"KL {row['kl']:.3f} nats/token · {gauge.told(speed)} · "
        f"{gauge.duration(speed['seconds'] * (run.config.updates - update - 1))} left{stopped}",
        update + 1,
        run.config.updates,
    )


def is_due(update: int, every: int, updates: int) -> bool:
    """After every `every` updates, and after the last."""
    return (update + 1) % every == 0 or update + 1 == updates


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
