"""The training loop, for pretraining and for instructions alike.

In:   a model, its batches by step, held-out stories
Out:  the trained model; in the draft train_steps, evals, scored (the stories that evals are of), seen (the stories of
      every step), _record/speed and the facts bits_per_byte, nats_per_token, tokens_seen, steps, num_params, fill

A killed run goes on from its last checkpoint and ends with the bytes of a run that was not killed, because a batch, its
learning rate and its dropout are functions of the step and of what the checkpoint holds.

bits per byte = nats of all scored tokens / (ln 2 · bytes of their stories' text). Scored are a held-out story's own
tokens and its EOS, given what stands before them; an instruction and the BOS are not. Of a story that is longer than a
row the start is scored, and its bytes count in the same proportion. The last look is taken in float32, uncompiled:
what is written down about the finished model can be measured again on any machine.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import pyarrow as pa
import torch
from torch import nn

from lib.errors import UserError
from lib.model import compute, heldout, seen
from lib.model.batches import Batch, Batches
from lib.model.checkpoint import LOG, Checkpoints, Log, random_state, set_random_state, set_weights
from lib.model.network import Llama
from lib.model.optim import Optimizer
from lib.model.training import Training
from lib.store import Draft, schemas


@dataclass
class Run:
    """What the functions below share."""

    draft: Draft
    model: Llama
    training: Training
    batches: Batches
    held_out: Batches
    machine: compute.Compute
    optimizer: Optimizer
    checkpoints: Checkpoints
    log: Log
    first_step: int = 0
    last_good: int | None = None
    seconds: list[float] = field(default_factory=list)  # of this process's steps

    @cached_property
    def held_out_batches(self) -> list[Batch]:
        return self.held_out.in_order()


def train(*, draft: Draft, model: Llama, training: Training, batches: Batches, held_out: Batches) -> None:
    """Train `model` in place and put the run's tables and facts into the draft. Raises Diverged."""
    run = set_up(draft=draft, model=model, training=training, batches=batches, held_out=held_out)
    for step in range(run.first_step, training.steps):
        take_step(run, step)
        if is_due(step, every=training.eval_every, steps=training.steps):
            evaluate(run, step)
        if is_due(step, every=training.checkpoint_every, steps=training.steps):
            save(run, step)
        show(run, step)
    write_tables(run)
    write_facts(run)


def set_up(*, draft: Draft, model: Llama, training: Training, batches: Batches, held_out: Batches) -> Run:
    """The run at its last checkpoint, or at its start."""
    if training.batch_size % training.accumulate:
        raise UserError(f"accumulate {training.accumulate} does not divide batch_size {training.batch_size}")
    machine = compute.prepare(model=model, training=training, row_length=batches.row_length)
    optimizer = Optimizer(model=model, training=training)
    checkpoints = Checkpoints(draft.path / "_resume", say=draft.progress)
    found = checkpoints.newest()
    log = Log(checkpoints.folder / LOG, keep_bytes=found.log_bytes if found else 0)
    run = Run(draft, model.train(), training, batches, held_out, machine, optimizer, checkpoints, log)
    if found:
        set_weights(model, found.weights)
        optimizer.load_state_dict(found.state["optimizer"])
        set_random_state(found.state["random"])
        run.first_step = run.last_good = found.step
        draft.progress(f"going on from the checkpoint at step {found.step}", found.step, training.steps)
    else:
        fill = f"rows {batches.fill:.0%} full" + (f", {batches.num_cut:,} stories cut" if batches.num_cut else "")
        draft.progress(f"{model.shape.num_params:,} parameters on {machine}; {fill}", 0, training.steps)
    return run


def take_step(run: Run, step: int) -> None:
    """One optimiser step on the step's own batch; a row in train_steps and one in speed."""
    started = time.perf_counter()
    batch = run.batches.batch(step)
    num_targets = batch.num_targets
    run.optimizer.zero_grad()
    nats = 0.0
    for piece in pieces(batch, run.training.accumulate):
        piece_nats = nats_of(run, piece)
        (piece_nats / num_targets).backward()
        nats += piece_nats.item()
    loss = nats / num_targets
    lr, grad_norm = run.optimizer.step(step, loss=loss, last_good=run.last_good)
    tokens = int((batch.document_BT >= 0).sum())
    seen = run.log.last("train_steps").get("tokens", 0) + tokens
    run.log.add("train_steps", step=step + 1, tokens=seen, loss=loss, lr=lr, grad_norm=grad_norm)
    record_speed(run, step, tokens=tokens, seconds=time.perf_counter() - started)


def pieces(batch: Batch, number: int) -> Iterator[Batch]:
    """The batch in `number` pieces of equal shape, for gradients that are added up."""
    columns = (batch.ids_BT, batch.document_BT, batch.targets_BT)
    for ids, document, targets in zip(*(column.chunk(number) for column in columns), strict=True):
        yield Batch(ids, document, targets, batch.text_bytes / number)


def nats_of(run: Run, batch: Batch) -> torch.Tensor:
    device = run.machine.device
    return run.machine.nats(*(column.to(device) for column in (batch.ids_BT, batch.document_BT, batch.targets_BT)))


def record_speed(run: Run, step: int, *, tokens: int, seconds: float) -> None:
    """tokens are those of stories; the share of peak counts every position that was computed, filled or not."""
    run.seconds.append(seconds)
    positions, length = run.training.batch_size * run.batches.row_length, run.batches.row_length
    flops = positions * compute.flop_per_token(run.model, length) / seconds
    mfu = flops / compute.peak_flops(run.machine.device, run.machine.dtype)
    run.log.add("speed", step=step + 1, tokens_per_s=tokens / seconds, mfu=mfu, seconds=seconds)


def evaluate(run: Run, step: int) -> None:
    """Score the held-out stories; a row in evals."""
    dropouts = [module for module in run.model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    for module in dropouts:  # not model.eval(): the compiler would build the network a second time
        module.eval()
    scored = (piece for whole in run.held_out_batches for piece in pieces(whole, run.training.accumulate))
    last = step + 1 == run.training.steps
    loss = heldout.val_loss(run.model, scored) if last else loss_as_trained(run, scored)
    for module in dropouts:
        module.train()
    run.log.add("evals", step=step + 1, split="val", **loss)


def loss_as_trained(run: Run, batches: Iterable[Batch]) -> dict[str, float]:
    """The held-out loss by the compiled function and in the number format of the training: faster, about 1e-3 off."""
    nats, num_targets, text_bytes = 0.0, 0, 0.0
    # The graph that was compiled for training wants gradients on; without them it would be compiled again, for seconds.
    with torch.set_grad_enabled(run.machine.compiled):
        for batch in batches:
            nats += nats_of(run, batch).item()
            num_targets, text_bytes = num_targets + batch.num_targets, text_bytes + batch.text_bytes
    return heldout.loss_row(nats, num_targets, text_bytes)


def save(run: Run, step: int) -> None:
    """A checkpoint of everything behind this step."""
    state = {"optimizer": run.optimizer.state_dict(), "random": random_state()}
    run.checkpoints.save(step=step + 1, weights=dict(run.model.named_parameters()), state=state, log=run.log)
    run.last_good = step + 1


def show(run: Run, step: int) -> None:
    """The run in one line."""
    row, recent = run.log.last("train_steps"), median(run.seconds[-20:])
    evaluated = run.log.last("evals")
    held_out = f" · held-out {evaluated['bits_per_byte']:.3f} bits/byte" if evaluated else ""
    left = recent * (run.training.steps - step - 1)
    run.draft.progress(
        f"step {step + 1}/{run.training.steps} · loss {row['loss']:.3f}{held_out} · lr {row['lr']:.1e} · "
        f"{run.log.last('speed')['tokens_per_s']:,.0f} tokens/s · {left:.0f} s left",
        step + 1,
        run.training.steps,
    )


def is_due(step: int, *, every: int, steps: int) -> bool:
    """After every `every` steps, and after the last."""
    return (step + 1) % every == 0 or step + 1 == steps


def write_tables(run: Run) -> None:
    names = {"train_steps": "train_steps.parquet", "evals": "evals.parquet", "speed": "_record/speed.parquet"}
    for table, name in names.items():
        schema = schemas.TABLES[run.draft.stage.name, table]
        run.draft.write_table(name, pa.Table.from_pylist(run.log.rows.get(table, []), schema=schema))
    run.draft.write_table("_seen/scored.parquet", heldout.scored(run.held_out))
    for number, rows in enumerate(seen.tables(run.batches, run.training.steps)):
        run.draft.write_table(f"_seen/seen-{number:05d}.parquet", rows)


def write_facts(run: Run) -> None:
    last = run.log.last("evals")
    run.draft.fact(
        bits_per_byte=last["bits_per_byte"],
        nats_per_token=last["nats_per_token"],
        tokens_seen=run.log.last("train_steps")["tokens"],
        steps=run.training.steps,
        num_params=run.model.shape.num_params,
        fill=round(run.batches.fill, 4),
    )
    run.draft.count(train_stories=len(run.batches.corpus), cut_stories=run.batches.num_cut)
