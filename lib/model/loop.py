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
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from lib.model import compute, faults, gauge, heldout, parallel, seen, shares
from lib.model.batches import Batch, Batches, ahead, pieces, pinned
from lib.model.board import Board
from lib.model.checkpoint import LOG, Checkpoint, Checkpoints, Log, random_state, set_random_state, set_weights
from lib.model.network import Llama
from lib.model.optim import Optimizer
from lib.model.training import Training
from lib.store import Draft, schemas


@dataclass
class Run:
    """What the functions below share."""

    draft: Draft
    whole: Llama  # what the stage gets back; of sharded weights ranks other than 0 have none up to the last look
    model: Llama  # what is trained: the same, or this rank's share of it
    training: Training
    batches: Batches
    held_out: Batches
    ranks: parallel.Ranks
    machine: compute.Compute
    spread: parallel.Spread
    optimizer: Optimizer
    checkpoints: Checkpoints
    log: Log
    gauge: gauge.Gauge
    pieces: int  # that a rank computes its rows of a step in
    look_pieces: int = 1  # that it scores held-out rows in, if these are more
    first_step: int = 0
    last_good: int | None = None

    @cached_property
    def held_out_batches(self) -> list[Batch]:
        return [self.ranks.mine(batch) for batch in self.held_out.in_order()]

    @cached_property
    def names(self) -> dict[Tensor, str]:
        return {weight: name for name, weight in self.model.named_parameters()}

    @cached_property
    def dropouts(self) -> list[nn.Dropout]:
        return [module for module in self.model.modules() if isinstance(module, nn.Dropout) and module.p > 0]


def train(*, draft: Draft, model: Llama, training: Training, batches: Batches, held_out: Batches) -> None:
    """Train `model` in place and put the run's tables and facts into the draft. Raises Diverged.

    In ranks other than 0 it ends with parallel.Trained.
    """
    run = set_up(draft=draft, model=model, training=training, batches=batches, held_out=held_out)
    with closing(Board(draft, run.log)) if run.ranks.leads else nullcontext() as board:
        go(run)
        parallel.leave(run.ranks)
        board.publish()
    write_tables(run)
    write_facts(run)


def go(run: Run) -> None:
    """Every step that is left."""
    training, steps = run.training, range(run.first_step, run.training.steps)
    make = pinned(run.batches.batch) if run.machine.device.type == "cuda" else run.batches.batch
    with closing(ahead(make, steps, training.loader_workers)) as batches:
        for step, batch in zip(steps, batches, strict=True):
            take_step(run, step, batch)
            if is_due(step, every=training.eval_every, steps=training.steps):
                evaluate(run, step)
            if is_due(step, every=training.checkpoint_every, steps=training.steps):
                save(run, step)
            show(run, step)


def set_up(*, draft: Draft, model: Llama, training: Training, batches: Batches, held_out: Batches) -> Run:
    """The run at its last checkpoint, or at its start."""
    ranks = parallel.join(training)
    whole, trained = parallel.twins(model, ranks)
    trained.train()
    machine = parallel.prepare(trained, training, batches.row_length, ranks)
    spread = parallel.Spread(trained, machine, ranks)
    checkpoints = Checkpoints(draft.path / "_resume", say=draft.progress, ranks=ranks)
    found = checkpoints.newest()
    log = Log(checkpoints.folder / LOG, keep_bytes=found.log_bytes if found else 0, write=ranks.leads)
    run = Run(
        draft=draft,
        whole=whole,
        model=trained,
        training=training,
        batches=batches,
        held_out=held_out,
        ranks=ranks,
        machine=machine,
        spread=spread,
        optimizer=Optimizer(model=trained, training=training),
        checkpoints=checkpoints,
        log=log,
        gauge=gauge.Gauge(machine, trained, row_length=batches.row_length, ranks=ranks.size),
        pieces=training.accumulate,
    )
    if found:
        go_on(run, found)
    else:
        gone = len(batches.too_long)
        fill = f"rows {batches.fill:.0%} full" + (f", {gone:,} stories left out as too_long" if gone else "")
        if training.warmed < training.warmup:
            fill += f"; warm-up {training.warmed} steps, a fifth of the run, not {training.warmup}"
        where = f"{machine}" + (f", {ranks.size} processes, {training.sharding}" if ranks.size > 1 else "")
        draft.progress(f"{model.shape.num_params:,} parameters on {where}; {fill}", 0, training.steps)
    return run


def go_on(run: Run, found: Checkpoint) -> None:
    """Behind the last checkpoint, whatever number of processes wrote it."""
    set_weights(run.model, {name: found.weights[name] for name in run.names.values()})
    shares.set_optimizer_tensors(run.optimizer.parts, run.names, found.weights)
    set_random_state(found.state["random"], run.machine.device)
    rows = run.training.batch_size // run.ranks.size  # other than the checkpoint's, with other processes
    run.pieces = faults.fitting(max(run.pieces, found.state["pieces"]), rows=rows)
    run.first_step = run.last_good = found.step
    run.draft.progress(f"going on from the checkpoint at step {found.step}", found.step, run.training.steps)


def take_step(run: Run, step: int, batch: Batch) -> None:
    """One optimiser step on the step's own batch; a row in train_steps and one in speed."""
    started = time.perf_counter()
    if run.ranks.size > 1:  # each rank drops other inputs, and the same ones again when the run is resumed
        torch.manual_seed((run.training.seed * run.training.steps + step) * run.ranks.size + run.ranks.rank)
    rows = run.log.rows.get("train_steps", [])
    (nats,) = run.ranks.sum(gradients(run, run.ranks.mine(batch), batch.num_targets))
    loss = nats / batch.num_targets
    limits = faults.limits(rows, run.training.spike)
    lr, grad_norm = run.optimizer.step(step, loss=loss, last_good=run.last_good, limits=limits)
    tokens = int((batch.document_BT >= 0).sum())
    seen = (rows[-1]["tokens"] if rows else 0) + tokens
    skipped = limits.broken_by(loss=loss, grad_norm=grad_norm)
    run.log.add("train_steps", step=step + 1, tokens=seen, loss=loss, lr=lr, grad_norm=grad_norm, skipped=skipped)
    speed = {"tokens": tokens, "positions": batch.ids_BT.numel(), "seconds": time.perf_counter() - started}
    run.log.add("speed", step=step + 1, **run.gauge.row(**speed))
    if skipped:
        faults.stop_after_many(run.log.rows["train_steps"], run.training, run.last_good)


def gradients(run: Run, rows: Batch, num_targets: int) -> float:
    """Add up the gradients of these rows' nats / num_targets; the nats."""

    def work(number: int) -> float:
        run.optimizer.zero_grad()
        return backward(run, rows, num_targets, number)

    nats, run.pieces = fitted(run, work, number=run.pieces, rows=len(rows.ids_BT), ranks=run.ranks.size)
    return nats


def fitted(run: Run, work: Callable[[int], Any], *, number: int, rows: int, ranks: int) -> tuple[Any, int]:
    """What `work` returns, and in how many pieces it fit. Out of memory: again, in twice as many."""
    random = random_state(run.machine.device)
    while True:
        try:
            return work(number), number
        except Exception as error:
            if not faults.is_out_of_memory(error):
                raise
            number = faults.more_pieces(number, rows=rows, ranks=ranks, error=error)
        # Out here the exception is gone, and with it what its frames held.
        torch.cuda.empty_cache()
        set_random_state(random, run.machine.device)
        run.draft.progress(f"out of memory; from here on {rows} rows are computed in {number} pieces")


def backward(run: Run, rows: Batch, num_targets: int, number: int) -> float:
    nats = 0.0
    for done, piece in enumerate(pieces(rows, number), 1):
        with run.spread.piece(last=done == number):
            piece_nats = nats_of(run, piece)
            (piece_nats * (run.spread.scale / num_targets)).backward()
        nats += piece_nats.item()
    return nats


def nats_of(run: Run, batch: Batch) -> Tensor:
    on_device = batch.to(run.machine.device)
    return run.spread(on_device.ids_BT, on_device.document_BT, on_device.targets_BT)


def evaluate(run: Run, step: int) -> None:
    """Score the held-out stories; a row in evals."""
    for module in run.dropouts:  # not model.eval(): the compiler would build the network a second time
        module.eval()
    last, rows = step + 1 == run.training.steps, len(run.held_out_batches[0].ids_BT)
    if last:
        run.whole = parallel.hand_back(run.whole, run.model, run.machine.device)

    def work(number: int) -> tuple[float, int, float]:
        scored = (piece for whole in run.held_out_batches for piece in pieces(whole, number))
        return heldout.sums(run.whole, scored) if last else sums_as_trained(run, scored)

    number = max(run.pieces, run.look_pieces)
    ranks = run.ranks.size if run.ranks.sharded and not last else 1  # that would wait for this one's weights
    sums, run.look_pieces = fitted(run, work, number=number, rows=rows, ranks=ranks)
    for module in run.dropouts:
        module.train()
    run.log.add("evals", step=step + 1, split="val", **heldout.loss_row(*run.ranks.sum(*sums)))
    run.gauge.time_peak()


def sums_as_trained(run: Run, batches: Iterable[Batch]) -> tuple[float, int, float]:
    """The held-out loss by the compiled function and in the number format of the training: faster, about 1e-3 off."""
    nats, num_targets, text_bytes = 0.0, 0, 0.0
    # The graph that was compiled for training wants gradients on; without them it would be compiled again, for seconds.
    with torch.set_grad_enabled(run.machine.compiled):
        for batch in batches:
            on_device = batch.to(run.machine.device)
            nats += run.spread.look(on_device.ids_BT, on_device.document_BT, on_device.targets_BT).item()
            num_targets, text_bytes = num_targets + batch.num_targets, text_bytes + batch.text_bytes
    run.spread.tidy()
    return nats, num_targets, text_bytes


def save(run: Run, step: int) -> None:
    """A checkpoint of everything behind this step."""
    weights = dict(run.model.named_parameters())
    weights |= shares.optimizer_tensors(run.optimizer.parts, run.names)
    state = {"random": random_state(run.machine.device), "pieces": run.pieces}
    run.checkpoints.save(step=step + 1, weights=weights, state=state, log=run.log)
    run.last_good = step + 1


def show(run: Run, step: int) -> None:
    """The run in one line."""
    row, evaluated = run.log.last("train_steps"), run.log.last("evals")
    held_out = f" · held-out {evaluated['bits_per_byte']:.3f} bits/byte" if evaluated else ""
    skips = sum(each["skipped"] for each in run.log.rows["train_steps"][-1000:])
    skipped = f" · {skips} updates skipped" if skips else ""
    run.draft.progress(
        f"step {step + 1}/{run.training.steps} · loss {row['loss']:.3f}{held_out} · lr {row['lr']:.1e}{skipped} · "
        f"{gauge.told(run.log.last('speed'))} · {run.gauge.left(run.training.steps - step - 1)} left",
        step + 1,
        run.training.steps,
    )


def is_due(step: int, *, every: int, steps: int) -> bool:
    """After every `every` steps, and after the last."""
    return (step + 1) % every == 0 or step + 1 == steps


def write_tables(run: Run) -> None:
    names = {"train_steps": "train_steps.parquet", "evals": "evals.parquet", "speed": "_record/speed.parquet"}
    for table, name in names.items():
        schema, rows = schemas.TABLES[run.draft.stage.name, table], run.log.rows.get(table, [])
        rows = run.gauge.table_rows(rows) if table == "speed" else rows
        run.draft.write_table(name, pa.Table.from_pylist(rows, schema=schema))
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
        num_params=run.whole.shape.num_params,
        fill=round(run.batches.fill, 4),
    )
    too_long = run.batches.too_long
    run.draft.count(train_stories=len(run.batches.corpus) - len(too_long), too_long=len(too_long))
