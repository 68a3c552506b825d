"""The parts of the training loop that the stages' own tests do not reach."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from lib.errors import UserError
from lib.model import compute, heldout, loop, parallel
from lib.model.batches import Batch
from lib.model.loop import is_due, pieces
from lib.model.network import IGNORE, Llama, Shape
from lib.model.training import Training

SHAPE = Shape(vocab_size=31, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=24, max_length=16)


def batch() -> Batch:
    ids = torch.randint(3, 31, (4, 16), generator=torch.Generator().manual_seed(1))
    targets = ids.roll(-1, 1)
    targets[:, -1] = IGNORE
    return Batch(ids, torch.zeros(4, 16, dtype=torch.int32), targets, 8.0)


def prepared(**changes: object) -> tuple[Llama, compute.Compute]:
    torch.manual_seed(0)
    model = Llama(SHAPE)
    return model, compute.prepare(model=model, training=Training(steps=1, threads=1, **changes), row_length=16)


def test_due_every_so_many_steps_and_at_the_end():
    assert [step + 1 for step in range(10) if is_due(step, every=4, steps=10)] == [4, 8, 10]


def test_pieces_hold_the_whole_batch():
    whole = batch()
    parts = list(pieces(whole, 2))
    assert torch.equal(torch.cat([part.ids_BT for part in parts]), whole.ids_BT)
    assert sum(part.num_targets for part in parts) == whole.num_targets
    assert sum(part.text_bytes for part in parts) == whole.text_bytes


def test_nats_are_summed_over_the_scored_targets():
    whole = batch()
    model, machine = prepared(compile="off", precision="fp32")
    total = machine.nats(whole.ids_BT, whole.document_BT, whole.targets_BT)
    logits = model(whole.ids_BT, whole.document_BT)
    mean = F.cross_entropy(logits.flatten(0, 1), whole.targets_BT.flatten(), ignore_index=IGNORE)
    assert (total / whole.num_targets).item() == pytest.approx(mean.item(), rel=1e-5)
    assert str(machine) == "cpu, fp32, eager"


def test_bf16_is_near_fp32():
    whole, nats = batch(), {}
    for precision in ("fp32", "bf16"):
        _, machine = prepared(compile="off", precision=precision)
        nats[precision] = machine.nats(whole.ids_BT, whole.document_BT, whole.targets_BT).item()
    assert nats["bf16"] == pytest.approx(nats["fp32"], rel=1e-3)


# torch itself, when its compiler is imported, warns of a part of torch
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_short_run_is_not_compiled_and_a_long_one_is():
    model, training = Llama(SHAPE), Training(steps=10, threads=1)
    assert not compute.prepare(model=model, training=training, row_length=16).compiled
    assert not model.explicit_attention
    many = training.model_copy(update={"steps": 10_000_000})
    assert compute.prepare(model=model, training=many, row_length=16).compiled == compute.can_compile()
    assert model.explicit_attention == compute.can_compile()


@pytest.mark.parametrize("way", ["flex_attention", "explicit_attention"])
def test_the_last_look_takes_attention_as_a_loaded_model_does(monkeypatch, way):
    model, whole = Llama(SHAPE), batch()
    plain, calls = heldout.sums(model, [whole]), []
    setattr(model, way, True)  # as it is trained compiled
    honest = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or honest(*a, **k))
    assert heldout.sums(model, [whole]) == plain and len(calls) == SHAPE.n_layers
    assert getattr(model, way)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_for_a_gpu_are_pinned(monkeypatch, device):
    taken, pinned = [], replace(batch(), text_bytes=-1.0)
    monkeypatch.setattr(Batch, "pinned", lambda _: pinned)
    monkeypatch.setattr(loop, "take_step", lambda _, step, each: taken.append(each.text_bytes))
    monkeypatch.setattr(loop, "show", lambda *_: None)
    run = SimpleNamespace(
        training=Training(steps=3, eval_every=9, checkpoint_every=9),
        first_step=0,
        batches=SimpleNamespace(batch=lambda _: batch()),
        machine=SimpleNamespace(device=torch.device(device)),
    )
    monkeypatch.setattr(loop, "is_due", lambda *_, **__: False)
    loop.go(run)
    assert taken == [-1.0 if device == "cuda" else 8.0] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_pinned_batch_keeps_its_rows_there():
    mine = parallel.Ranks(1, 2).mine(batch().pinned())
    assert mine.ids_BT.is_pinned() and mine.document_BT.is_pinned() and mine.targets_BT.is_pinned()


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="device 'warp' cannot be used"):
        compute.pick_device("warp")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device 'cuda' cannot be used"):
            compute.pick_device("cuda")


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compute, "can_compile", lambda: False)
    with pytest.raises(UserError, match=r"found no C\+\+ compiler"):
        prepared(compile="on")
