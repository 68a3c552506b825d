"""Preference: which roll-outs make a pair, and the gradient that parts them."""

import math

import pytest
import torch

from lib.model import preference


def test_a_pair_is_the_best_and_the_worst_of_a_prompt():
    rewards = [0.1, 0.9, 0.5, 0.4, 0.4, 0.4, 0.7, 0.6, 0.2]
    assert preference.pairs(rewards, 3, margin=0.0) == [(1, 0), (6, 8)]
    assert preference.pairs(rewards, 3, margin=0.6) == [(1, 0)]
    assert preference.pairs(rewards, 9, margin=0.0) == [(1, 0)]


def test_the_loss_is_the_papers():
    policy = torch.tensor([-3.0, -5.0, -8.0, -2.0], dtype=torch.double, requires_grad=True)
    reference = torch.tensor([-4.0, -4.5, -7.0, -2.5], dtype=torch.double)
    ahead = [0.3 * ((-3 + 4) - (-5 + 4.5)), 0.3 * ((-8 + 7) - (-2 + 2.5))]
    loss = preference.dpo_loss(policy, reference, beta=0.3)
    assert preference.margins(policy, reference, beta=0.3).tolist() == pytest.approx(ahead)
    assert loss.item() == pytest.approx(-sum(math.log(1 / (1 + math.exp(-each))) for each in ahead))
    loss.backward()
    pull = [0.3 / (1 + math.exp(each)) for each in ahead]  # beta · sigmoid(-margin): a pair that is apart pulls less
    expected = torch.tensor([-pull[0], pull[0], -pull[1], pull[1]], dtype=torch.double)
    torch.testing.assert_close(policy.grad, expected, atol=1e-12, rtol=0)
