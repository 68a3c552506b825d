"""A spike is skipped and said, many in a row end the run; a step that did not fit is done again in more pieces."""

import re
from contextlib import suppress
from itertools import count

import pytest
import torch

from lib.errors import UserError
from lib.model import faults, loop
from lib.model.network import Llama
from lib.model.training import Diverged
from tests.test_pretrain import losses, run


def rows(count: int = 30, **last: object) -> list[dict]:
    steady = [
        {"step": n + 1, "loss": 2.0 + 0.01 * (n % 3), "grad_norm": 1.0 + 0.1 * (n % 2), "skipped": False}
        for n in range(count)
    ]
    return [*steady[:-1], steady[-1] | last]


def test_nothing_is_a_spike_unless_asked_for_and_not_before_enough_updates():
    assert faults.limits(rows(), 0.0) == faults.NO_LIMITS == faults.limits(rows(faults.ENOUGH - 1), 5.0)
    assert not faults.NO_LIMITS.broken_by(loss=1e9, grad_norm=1e9)


def test_limits_are_multiples_of_what_was_usual():
    limits = faults.limits(rows(), 5.0)
    assert limits.grad_norm == pytest.approx(5 * 1.05, rel=0.05)
    assert limits.loss == pytest.approx(2.01 * 1.05)  # so steady a run that the smallest rise counts
    assert limits.broken_by(loss=2.2, grad_norm=1.0) and limits.broken_by(loss=2.0, grad_norm=6.0)
    assert not limits.broken_by(loss=2.05, grad_norm=4.0)


def test_what_was_skipped_does_not_count_as_usual():
    spiky = [row | {"grad_norm": 1e6, "skipped": True} if n % 2 else row for n, row in enumerate(rows(80))]
    assert faults.limits(spiky, 5.0).grad_norm < 10


def with_spikes(monkeypatch, steps: set[int]) -> None:
    """The loss of these steps comes out a hundred times as large, and so do its gradients."""
    honest, count = loop.gradients, iter(range(1, 10_000))

    def gradients(run, *rest):
        large = 100.0 if next(count) in steps else 1.0
        nats = honest(run, *rest)
        for weight in run.model.parameters():
            weight.grad *= large
        return nats * large

    monkeypatch.setattr(loop, "gradients", gradients)


def test_a_spike_leaves_the_weights_as_they_were_and_its_row_says_so(data_root, monkeypatch):
    settings = {"steps": 30, "spike": 8.0, "eval_every": 1, "eval_stories": 4, "lr": 1e-3}
    plain = losses(run(**settings | {"eval_every": 30}))
    with_spikes(monkeypatch, {25})
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "spiked"))
    said: list[str] = []
    spiked = run(said, **settings)
    assert [n + 1 for n, each in enumerate(spiked.table(table="train_steps")["skipped"].to_pylist()) if each] == [25]
    assert losses(spiked)[:24] == plain[:24]
    assert losses(spiked)[24] > 100 and losses(spiked)[25] < 10
    looks = spiked.table(table="evals")["nats_per_token"].to_pylist()
    assert looks[22] != looks[23] == looks[24] != looks[25]
    assert "1 updates skipped" in said[-1]


def test_many_spikes_in_a_row_end_the_run(monkeypatch):
    with_spikes(monkeypatch, set(range(23, 40)))
    with pytest.raises(Diverged, match=r"step 25: 3 updates in a row were skipped .*last good checkpoint is step 24"):
        run(steps=30, spike=8.0, most_spikes=3, eval_every=30, lr=1e-3)


def small_memory(monkeypatch, most_rows: int) -> None:
    """A device that holds so many rows, and at its second call, by luck, more."""
    honest, calls = loop.nats_of, count(1)

    def nats_of(run, batch):
        if next(calls) != 2 and len(batch.ids_BT) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return honest(run, batch)

    monkeypatch.setattr(loop, "nats_of", nats_of)


def test_out_of_memory_is_answered_by_more_pieces_and_the_loss_stays(data_root, monkeypatch):
    plain = losses(run(precision="fp32"))
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "small"))
    small_memory(monkeypatch, 1)
    said: list[str] = []
    assert losses(run(said, precision="fp32")) == pytest.approx(plain, rel=1e-4)
    assert [text for text in said if "out of memory" in text] == [
        "out of memory; from here on 4 rows are computed in 2 pieces",
        "out of memory; from here on 4 rows are computed in 4 pieces",
    ]


def small_memory_in_looks(monkeypatch, most_rows: int) -> None:
    """A device that trains a whole batch, and holds so many rows of a look."""
    honest = Llama.hidden

    def hidden(model, ids_BT, *rest):
        if not torch.is_grad_enabled() and len(ids_BT) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return honest(model, ids_BT, *rest)

    monkeypatch.setattr(Llama, "hidden", hidden)


@pytest.mark.parametrize("eval_every", [1, 2])  # with looks on the way, and with the last one alone
def test_a_look_too_is_taken_in_more_pieces(data_root, monkeypatch, eval_every):
    settings = {"steps": 2, "eval_every": eval_every, "precision": "fp32"}
    plain = run(**settings).table(table="evals").to_pylist()
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "small"))
    small_memory_in_looks(monkeypatch, 1)
    said: list[str] = []
    looks = run(said, **settings).table(table="evals").to_pylist()
    for look, whole in zip(looks, plain, strict=True):
        assert look["nats_per_token"] == pytest.approx(whole["nats_per_token"], rel=1e-5)
        assert (look["tokens"], look["bytes"]) == (whole["tokens"], whole["bytes"])
    assert [text for text in said if "out of memory" in text] == [
        "out of memory; from here on 4 rows are computed in 2 pieces",
        "out of memory; from here on 4 rows are computed in 4 pieces",
    ]


def test_what_a_run_was_told_to_accumulate_is_kept_beside_what_it_found(data_root, monkeypatch):
    """Out of memory and ended, the run goes on at its checkpoint: in the more pieces of those asked for and found."""
    seen, honest = [], loop.backward

    def backward(run, rows, num_targets, number):
        seen.append(number)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return honest(run, rows, num_targets, number)

    monkeypatch.setattr(loop, "backward", backward)
    for asked, goes_on_in in ((2, 2), (4, 4), (1, 4)):
        seen.clear()
        said: list[str] = []
        with suppress(KeyboardInterrupt):
            run(said, steps=28, accumulate=asked)
        assert set(seen) == {goes_on_in}
        assert asked == 2 or "going on from the checkpoint at step" in said[0]


def test_pieces_divide_the_rows_and_are_no_more_than_these():
    found = {(pieces, rows): faults.fitting(pieces, rows=rows) for pieces in (1, 3, 4, 12, 32) for rows in (2, 6, 16)}
    assert [found[pieces, 2] for pieces in (1, 3, 4, 12, 32)] == [1, 2, 2, 2, 2]
    assert [found[pieces, 6] for pieces in (1, 3, 4, 12, 32)] == [1, 3, 6, 6, 6]
    assert [found[pieces, 16] for pieces in (1, 3, 4, 12, 32)] == [1, 4, 4, 16, 16]


def test_a_row_that_does_not_fit_ends_the_run(monkeypatch):
    small_memory(monkeypatch, 0)
    with pytest.raises(UserError, match=r"out of memory with 1 rows at once \(CUDA out of memory"):
        run()


def test_among_several_ranks_it_says_what_to_set():
    error = torch.OutOfMemoryError("full")
    with pytest.raises(UserError, match=re.escape("16 rows a process in 2 pieces (full); set accumulate to 4")):
        faults.more_pieces(2, rows=16, ranks=2, error=error)


def test_torchs_own_allocator_is_known():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    assert faults.is_out_of_memory(found.value) and faults.is_out_of_memory(MemoryError())
    assert not faults.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
