"""Alignment: the loop that makes rewarded stories likelier.

In:   the policy, a frozen reference, prompts for training and held-out ones, rewards, Aligning
Out:  the policy with the weights to keep; in the draft what lib/model/outcome.py lists

An update draws prompts, writes several stories for each, rewards them and takes a gradient step (lib/model/ascent.py).
Every `eval_every` updates the held-out prompts are answered with the same random numbers each time; lib/model/guards.py
says what follows. Everything random is a function of (seed, update), so a killed run goes on from its checkpoint to the
same bytes.
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

from lib.model import ascent, gauge, guards, heldout, outcome, reinforce, rollouts
from lib.model.aligning import Aligning
from lib.model.ascent import Climber
from lib.model.batches import Batch, Batches
from lib.model.board import Board
from lib.model.checkpoint import LOG, Checkpoints, Log, set_weights
from lib.model.network import Llama
from lib.model.rewards import Rewards, Scores
from lib.model.rollouts import Rollout, Writer
from lib.model.sampling import Sampler
from lib.store import Draft

HEALTHS = ("first", "start", "best")  # of Run
SHARES = 16  # steps of the way back
BEST = "best."  # before the names of the kept model's weights in a checkpoint


@dataclass
class Run:
    """What the functions below share."""

    draft: Draft
    config: Aligning
    climber: Climber
    writer: Writer
    rewards: Rewards
    prompts: Mapping[str, str | None]  # each with the train story it comes from, if from one
    held_out: Sequence[str]  # they choose the model
    reported: Sequence[str]  # held out too, and asked only before and after
    wanted: Mapping[str, str]  # prompts in few words, as rewards read them
    val: Batches
    checkpoints: Checkpoints = field(init=False)
    log: Log = field(init=False)
    first_update: int = 0
    first: guards.Health | None = None  # of the first update's stories, which the start model wrote
    start: guards.Health | None = None
    best: guards.Health | None = None
    best_update: int = 0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    start_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    kept_share: float = 1.0  # of the way from the start model to the last update's
    stopped: str = ""

    @property
    def policy(self) -> Llama:
        return self.climber.policy

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
        if run.stopped:
            step_back(run)
        board.publish()
    set_weights(run.policy, run.best_weights)
    outcome.write(run)


def take_update(run: Run, update: int) -> None:
    """One update; where they are due a look at the held-out prompts and a checkpoint."""
    row, now = learn(run, update)
    run.first = run.first or now
    limits = run.config.guards
    run.stopped = guards.run_away(row["kl"], limits)
    if run.stopped and run.best_update == update:  # the look before kept the model that wrote these stories
        run.best, run.best_update, run.best_weights = run.start, 0, run.start_weights
    alarms = guards.breaches(now, start=run.first, limits=limits)
    if not run.stopped and (alarms or is_due(update, run.config.eval_every, run.config.updates)):
        row |= look(run, update)
    run.log.add("updates", **row)
    if run.stopped or is_due(update, run.config.checkpoint_every, run.config.updates):
        save(run, update)
    show(run, update)


def set_up(run: Run) -> None:
    """The run at its last checkpoint, or at its start with a first look at the held-out prompts."""
    run.start_weights = weights_of(run.policy)
    run.checkpoints = Checkpoints(run.draft.path / "_resume", say=run.draft.progress)
    found = run.checkpoints.newest()
    run.log = Log(run.checkpoints.folder / LOG, keep_bytes=found.log_bytes if found else 0)
    if not found:
        look(run, -1)
        save(run, -1)
        return
    best = {name.removeprefix(BEST): weight for name, weight in found.weights.items() if name.startswith(BEST)}
    set_weights(run.policy, {name: weight for name, weight in found.weights.items() if not name.startswith(BEST)})
    run.climber.optimizer.load_state_dict(found.state["optimizer"])
    for name in HEALTHS:
        setattr(run, name, guards.Health(**found.state[name]) if found.state[name] else None)
    run.best_update, run.stopped = found.state["best_update"], found.state["stopped"]
    run.best_weights, run.first_update = best, found.step
    run.draft.progress(f"going on from the checkpoint at update {found.step}", found.step, run.config.updates)


def learn(run: Run, update: int) -> tuple[dict[str, Any], guards.Health]:
    """Write, reward, step; the update's row. One row per roll-out and one for the speed go into the log."""
    started = time.perf_counter()
    written = roll_out(run, update)
    scores = judge(run, written)
    seen = ascent.weigh(run.climber, written, scores)
    taken = [ascent.step(run.climber, seen, update=update, epoch=epoch) for epoch in range(run.config.epochs)][0]
    kl = seen.kl("k3")  # never negative, the least noise
    kl_B = [float(each.mean()) for each in kl]
    for row in rollouts.rows(written, scores, seen.advantages_B.tolist(), kl_B, seen.pairs):
        run.log.add("rollouts", update=update + 1, story_id=run.prompts[row["prompt"]], **row)
    seconds = time.perf_counter() - started
    tokens_per_s = sum(map(len, kl)) / seconds
    speed = {"tokens_per_s": tokens_per_s, "mfu": None, "seconds": seconds}  # writing is not bound by FLOP/s
    run.log.add("speed", step=update + 1, **speed, memory_mb=gauge.memory_mb(run.policy.norm.weight.device))
    now = health(run, written, scores, kl=per_token(kl))
    row = {"update": update + 1, "heldout_reward": None}
    row |= asdict(taken) | {"pairs": len(seen.pairs) if run.config.form == "dpo" else None}
    return row | asdict(now), now


def health(
    run: Run,
    written: Sequence[Rollout],
    scores: Scores,
    bits_per_byte: float | None = None,
    kl: float | None = None,
) -> guards.Health:
    """The policy's stories in numbers; their `kl` is measured where it is not known."""
    return guards.health(
        concept=run.config.concept,
        stories=[each.text for each in written],
        ended=[each.completion.ended for each in written],
        reward=mean(scores.total),
        val_bits_per_byte=bits_per_byte,
        kl=per_token(kl_to_start(run, written)) if kl is None else kl,
    )


def kl_to_start(run: Run, written: Sequence[Rollout]) -> list[torch.Tensor]:
    """k3 at every generated token of the policy's stories, in nats."""
    reference = run.climber.logprobs_of_drawn(run.climber.reference, written)
    policy = [torch.tensor(each.completion.logprobs) for each in written]
    return [reinforce.kl_of_drawn(*each, "k3") for each in zip(policy, reference, strict=True)]


def per_token(kl: Sequence[torch.Tensor]) -> float:
    return math.fsum(float(each.sum()) for each in kl) / sum(map(len, kl))


def roll_out(run: Run, update: int) -> list[Rollout]:
    """This update's prompts, each `samples_per_prompt` times in a row, and a story for each."""
    random = np.random.Generator(np.random.Philox(key=[run.config.seed, update]))
    number = min(run.config.prompts_per_update, len(run.prompts))
    chosen = [run.prompt_list[i] for i in random.choice(len(run.prompts), size=number, replace=False)]
    repeated = [prompt for prompt in chosen for _ in range(run.config.samples_per_prompt)]
    return run.writer.write(Sampler(run.policy), repeated, seed=int(random.integers(1 << 31)))


def judge(run: Run, written: Sequence[Rollout]) -> Scores:
    """Rewards, less the penalty for a story that has no end."""
    wanted = [run.wanted[each.prompt] for each in written]
    scores = run.rewards(wanted, [each.text for each in written])
    penalty = run.config.unfinished_penalty
    total = [t - penalty * (not w.completion.ended) for t, w in zip(scores.total, written, strict=True)]
    return Scores(total, scores.parts)


def answer(run: Run, model: Llama, prompts: Sequence[str]) -> tuple[list[Rollout], Scores]:
    """What a model writes for these prompts, with the same random numbers each time."""
    written = run.writer.write(Sampler(model), prompts, seed=run.config.seed)
    return written, judge(run, written)


def examine(run: Run) -> tuple[guards.Health, dict[str, Any]]:
    """The policy's answers to the held-out prompts and its val stories, in numbers."""
    written, scores = answer(run, run.policy, run.held_out)
    val = heldout.val_loss(run.policy, run.val_batches)
    return health(run, written, scores, val["bits_per_byte"]), val


def look(run: Run, update: int) -> dict[str, float | None]:
    """Answer the held-out prompts, always with the same random numbers; keep the best, stop on a breach."""
    now, val = examine(run)
    run.log.add("evals", step=update + 1, split="val", **val)
    run.start = run.start or now
    if run.best is None or guards.is_better(now, best=run.best, start=run.start, limits=run.config.guards):
        run.best, run.best_update = now, update + 1
        run.best_weights = weights_of(run.policy)
    run.stopped = "; ".join(guards.breaches(now, start=run.start, limits=run.config.guards))
    run.draft.progress(f"after {update + 1} updates: held-out reward {now.reward:.3f}", update + 1, run.config.updates)
    return {"heldout_reward": now.reward, "val_bits_per_byte": now.val_bits_per_byte}


def step_back(run: Run) -> None:
    """Of a run that a guard stopped: the model a share of the way back, kept where it is better than the best look.

    Weights between start and end (Wortsman et al. 2021, arXiv:2109.01903; Ramé et al. 2024, arXiv:2406.16768): what the
    reward gains shrinks with the share, what the bits lose about with its square. Taken is the largest share, in
    sixteenths, whose bits are within the limit. In `evals` it is the step after the last update.
    """
    assert run.start
    end, update = weights_of(run.policy), run.log.last("updates")["update"]
    limit = run.config.guards.val_bits_per_byte * (run.start.val_bits_per_byte or math.inf)
    within, beyond = 0, SHARES
    while beyond - within > 1:
        share = (within + beyond) // 2
        set_weights(run.policy, mixed(run.start_weights, end, share / SHARES))
        if heldout.val_loss(run.policy, run.val_batches)["bits_per_byte"] <= limit:
            within = share
        else:
            beyond = share
    set_weights(run.policy, mixed(run.start_weights, end, within / SHARES))
    now, val = examine(run)
    run.log.add("evals", step=update + 1, split="val", **val)
    if guards.is_better(now, best=run.best or run.start, start=run.start, limits=run.config.guards):
        run.best, run.best_update, run.kept_share = now, update + 1, within / SHARES
        run.best_weights = weights_of(run.policy)
    run.draft.progress(f"{within}/{SHARES} of the way: held-out reward {now.reward:.3f}", update, run.config.updates)


def weights_of(model: Llama) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def mixed(start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    return {name: torch.lerp(weight, end[name], share) for name, weight in start.items()}


def save(run: Run, update: int) -> None:
    """A checkpoint of everything up to this update."""
    weights = dict(run.policy.named_parameters())
    weights |= {BEST + name: weight for name, weight in run.best_weights.items()}
    state = {
        "optimizer": run.climber.optimizer.state_dict(),
        **{name: asdict(health) if (health := getattr(run, name)) else None for name in HEALTHS},
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
