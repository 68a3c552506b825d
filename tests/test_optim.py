"""What is decayed, how the learning rate moves, and that a run without numbers stops."""

import math

import pytest
import torch
from pydantic import ValidationError

from lib.model.network import Llama, Shape
from lib.model.optim import Optimizer, lr_share
from lib.model.training import Diverged, Training
from lib.stages.instruct import InstructConfig

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


@pytest.mark.parametrize(("steps", "warmed"), [(300, 60), (15, 3), (4, 0), (100_000, 1000)])
def test_a_warm_up_takes_at_most_a_fifth_of_the_run(steps, warmed):
    training = Training(steps=steps, warmup=1000)
    shares = [lr_share(step, training=training) for step in (*range(min(steps, 2000)), steps - 1)]
    assert training.warmed == warmed == shares.index(1.0)
    assert shares[-1] == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"betas": (1.5, 0.9)}, "betas.0"),
        ({"betas": (0.9, 1.0)}, "betas.1"),
        ({"seed": 2**32}, "seed"),
        ({"lr": math.inf}, "lr"),
        ({"batch_size": 8, "accumulate": 3}, "found accumulate 3, expected a divisor of batch_size 8"),
        (
            {"batch_size": 8, "accumulate": 4, "joined": 4},
            "accumulate 4, expected a divisor of batch_size 8 / joined 4",
        ),
        ({"batch_size": 6, "joined": 4}, "found joined 4, expected a divisor of batch_size 6"),
    ],
)
def test_what_no_run_could_be_made_with_is_refused_before_any_stage_runs(change, told):
    with pytest.raises(ValidationError, match=told):
        InstructConfig(steps=10, **change)
    assert InstructConfig(steps=10, betas=(0.0, 0.999), seed=2**32 - 1, accumulate=4, joined=8).rows == 4


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
