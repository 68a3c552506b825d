"""The loss in chunks is the loss, and all logits never stand side by side."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.model import chunked, compute, heldout
from lib.model.batches import Batch
from lib.model.network import IGNORE, Llama, Shape
from lib.model.training import Training

SHAPE = Shape(vocab_size=700, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=24, max_length=64)


def inputs(rows: int = 10) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """640 positions: two chunks and a half."""
    draw = torch.Generator().manual_seed(3)
    ids, targets = torch.randint(0, 700, (2, rows, 64), generator=draw)
    targets[:, ::5] = IGNORE
    return ids, (torch.arange(64) // 30).expand(rows, 64), targets


def loss_and_gradients(*, in_chunks: bool, tied: bool = True, bf16: bool = False):
    torch.manual_seed(1)
    model = Llama(SHAPE.model_copy(update={"tied": tied}))
    if in_chunks:
        model.nats_in_chunks = compute._in_chunks(compiled=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        nats = model(*inputs())
    (nats / 512).backward()
    return nats.item(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_values_and_gradients_are_those_of_the_plain_form(tied):
    nats, gradients = loss_and_gradients(in_chunks=True, tied=tied)
    plain_nats, plain = loss_and_gradients(in_chunks=False, tied=tied)
    assert nats == pytest.approx(plain_nats, rel=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, plain[name], atol=1e-6), name


def test_in_bf16_it_is_no_further_from_float32_than_the_plain_form():
    exact, far = loss_and_gradients(in_chunks=False)[1], {}
    for in_chunks in (True, False):
        found = loss_and_gradients(in_chunks=in_chunks, bf16=True)[1]
        far[in_chunks] = sum((found[name] - exact[name]).norm() / exact[name].norm() for name in exact).item()
    assert far[True] < 1.1 * far[False]


class Largest(TorchDispatchMode):
    """The most numbers that any tensor has that is made meanwhile."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.most = max(self.most, each.numel())
        return out


@pytest.mark.parametrize("in_chunks", [True, False])
def test_no_tensor_holds_the_logits_of_all_positions(in_chunks):
    with Largest() as seen:
        loss_and_gradients(in_chunks=in_chunks)
    assert (seen.most < 640 * 700) == in_chunks
    assert seen.most >= chunked.CHUNK * 700


def test_nor_does_a_look_at_held_out_stories():
    torch.manual_seed(1)
    model, (ids, document, targets) = Llama(SHAPE), inputs()
    with torch.no_grad():
        plain = model(ids, document, targets).item()
    with Largest() as seen:
        nats, tokens, text_bytes = heldout.sums(model, [Batch(ids, document, targets, 900.0)])
    assert nats == pytest.approx(plain, rel=1e-6) and (tokens, text_bytes) == (int((targets >= 0).sum()), 900.0)
    assert seen.most == chunked.CHUNK * 700


def test_it_is_chosen_where_the_logits_are_many():
    # 8 rows of 256 at 32,000 pieces, as stories15m trains, and not at the laptop's 2,048.
    for pieces, expected in ((32_000, True), (2048, False)):
        model = Llama(SHAPE.model_copy(update={"vocab_size": pieces}))
        training = Training(steps=1, batch_size=8, compile="off", device="cpu", precision="fp32")
        compute.prepare(model=model, training=training, row_length=256)
        assert bool(model.nats_in_chunks) == expected


def test_targets_that_are_all_ignored_give_no_gradient():
    x_ND, weight_VD = torch.randn(5, 16, requires_grad=True), torch.randn(700, 16, requires_grad=True)
    nats = chunked.nats_of(x_ND, weight_VD, torch.full((5,), IGNORE), ignore=IGNORE)
    nats.backward()
    assert nats.item() == 0 and not x_ND.grad.any() and not weight_VD.grad.any()
