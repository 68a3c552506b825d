"""What is decayed, how the learning rate moves, and that a run without numbers stops."""

import pytest
import torch

from lib.model.network import Llama, Shape
from lib.model.optim import Optimizer, lr_share
from lib.model.training import Diverged, Training

SHAPE = Shape(vocab_size=31, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=24, max_length=20)


def stepped(**changes: object) -> tuple[Llama, Optimizer]:
    torch.manual_seed(0)
    model, training = Llama(SHAPE), Training(steps=10, **changes)
    optimizer = Optimizer(model=model, training=training)
    model(torch.arange(20)[None]).logsumexp(-1).mean().backward()
    return model, optimizer


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_learning_rate_warms_up_and_comes_down(schedule):
    training = Training(steps=100, warmup=10, schedule=schedule, decay_share=0.2, final_lr=0.1)
    shares = [lr_share(step, training=training) for step in range(100)]
    assert shares[0] == pytest.approx(1 / 11) and shares[10] == max(shares) == 1
    assert shares[-1] == pytest.approx(0.1)
    assert all(a <= b for a, b in zip(shares[:10], shares[1:11], strict=True))
    assert all(a >= b for a, b in zip(shares[10:-1], shares[11:], strict=True))
    assert (shares[80] == 1) == (schedule == "wsd")


def test_the_learning_rate_is_flat_from_step_to_step():
    # One seed system flipped it tenfold each step.
    shares = [lr_share(step, training=Training(steps=200, warmup=20)) for step in range(200)]
    assert max(abs(a - b) for a, b in zip(shares, shares[1:], strict=False)) < 0.06


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_decay(optimizer):
    _, chosen = stepped(optimizer=optimizer, weight_decay=0.1)
    for part in chosen.parts:
        for group in part.param_groups:
            dims = {weight.dim() for weight in group["params"]}
            assert dims == ({2} if group["weight_decay"] else {1})
    assert sum(len(g["params"]) for part in chosen.parts for g in part.param_groups) == len(chosen.weights)


def test_muon_moves_hidden_matrices_and_adamw_the_rest():
    model, chosen = stepped(optimizer="muon")
    hidden = {
        id(weight) for name, weight in model.named_parameters() if name.startswith("layers") and weight.dim() == 2
    }
    assert {id(weight) for weight in chosen.parts[0].param_groups[0]["params"]} == hidden


def test_gradients_are_clipped():
    _, chosen = stepped(clip=1e-3)
    _, norm = chosen.step(0, loss=1.0, last_good=None)
    assert norm > 1e-3
    clipped = torch.stack([weight.grad.norm() for weight in chosen.weights]).norm().item()
    assert clipped == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("loss, gradient", [(float("nan"), 0.0), (float("inf"), 0.0), (1.0, float("nan"))])
def test_a_loss_or_gradient_that_is_no_number_stops_before_a_weight_changes(loss, gradient):
    model, chosen = stepped()
    before = [weight.detach().clone() for weight in chosen.weights]
    chosen.weights[0].grad[0, 0] += gradient
    with pytest.raises(Diverged, match="step 8: loss .* the last good checkpoint is step 5.*smaller lr"):
        chosen.step(7, loss=loss, last_good=5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
