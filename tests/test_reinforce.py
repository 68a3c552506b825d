"""REINFORCE: its gradients equal those of the objective, enumerated over everything that can be drawn."""

import itertools

import pytest
import torch

from lib.model import reinforce
from lib.model.reinforce import Tokens

REWARD = torch.tensor([0.1, 1.0, 0.4], dtype=torch.double)
POLICY = torch.tensor([0.3, -0.2, 0.5], dtype=torch.double)
REFERENCE = torch.tensor([-0.4, 0.1, 0.3], dtype=torch.double).log_softmax(-1)
BETA = 0.3


def bandit_tokens(theta, ids):
    """One-token stories, one a draw."""
    n = len(ids)
    policy = theta.log_softmax(-1).expand(n, -1)
    return Tokens(policy, REFERENCE.expand(n, -1), torch.tensor(ids), torch.arange(n), n)


def gradient(value, theta):
    return torch.autograd.grad(value, theta)[0]


def mean_gradient(samples, estimator, *, baseline=True, kl_coef=BETA, reward=REWARD):
    """The expectation of the loss's gradient over all draws of `samples` stories for one prompt, and its variance."""
    theta = POLICY.clone().requires_grad_()
    probability = theta.detach().softmax(-1)
    mean, square = torch.zeros(3, dtype=torch.double), torch.zeros(3, dtype=torch.double)
    for ids in itertools.product(range(3), repeat=samples):
        tokens = bandit_tokens(theta, ids)
        drawn = [tokens.of_drawn(each.detach()) for each in (tokens.policy_NV, tokens.reference_NV)]
        weights = reinforce.advantages(
            reward[list(ids)],
            reinforce.kl_of_drawn(*drawn, "k1"),
            form="rloo",
            samples=samples,
            kl_coef=kl_coef,
            estimator=estimator,
        )
        weights = weights if baseline else reward[list(ids)]
        loss = reinforce.policy_loss(tokens, weights, form="rloo", kl_coef=kl_coef, estimator=estimator) / samples
        found = gradient(loss, theta)
        weight = probability[list(ids)].prod()
        mean += weight * found
        square += weight * found.square()
    return mean, (square - mean.square()).sum()


def exact_gradient(divergence):
    theta = POLICY.clone().requires_grad_()
    logp = theta.log_softmax(-1)
    return gradient(-((logp.exp() * REWARD).sum() - BETA * divergence(logp)), theta)


def reverse(logp):
    return (logp.exp() * (logp - REFERENCE)).sum()


def forward(logp):
    return (REFERENCE.exp() * (REFERENCE - logp)).sum()


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("estimator", ["k1", "k2", "exact"])
def test_the_expected_gradient_is_that_of_reward_minus_kl(samples, estimator):
    mean, _ = mean_gradient(samples, estimator)
    torch.testing.assert_close(mean, exact_gradient(reverse), atol=1e-12, rtol=0)


def test_k3_in_the_loss_follows_the_other_kl():
    mean, _ = mean_gradient(2, "k3")
    torch.testing.assert_close(mean, exact_gradient(forward), atol=1e-12, rtol=0)
    assert not torch.allclose(mean, exact_gradient(reverse), atol=1e-3)


def test_k1_in_the_loss_would_do_nothing():
    theta = POLICY.clone().requires_grad_()
    tokens = bandit_tokens(theta, [0, 1, 2])
    expected = (theta.detach().softmax(-1) * reinforce.kl_tokens(tokens, "k1")).sum()
    torch.testing.assert_close(gradient(expected, theta), torch.zeros(3, dtype=torch.double), atol=1e-12, rtol=0)


@pytest.mark.parametrize("estimator", ["k1", "k3", "exact"])
def test_estimates_of_the_kl_have_its_mean(estimator):
    tokens = bandit_tokens(POLICY, [0, 1, 2])
    mean = (POLICY.softmax(-1) * reinforce.kl_tokens(tokens, estimator)).sum()
    assert float(mean) == pytest.approx(float(reverse(POLICY.log_softmax(-1))), abs=1e-12)


def test_k1_is_exact_for_stories_of_several_tokens_too():
    # Two tokens; the second one's distribution depends on the first. Enumerated: 2 samples of 4 stories each.
    first, second = torch.tensor([0.2, -0.3]).double(), torch.tensor([[0.5, 0.1], [-0.7, 0.4]]).double()
    theta = torch.cat((first[None], second)).requires_grad_()
    reference = torch.tensor([[0.1, 0.0], [-0.2, 0.3], [0.6, -0.1]]).double().log_softmax(-1)
    reward = torch.tensor([0.0, 0.8, 0.3, 1.0]).double()
    stories = list(itertools.product(range(2), repeat=2))

    def logp(table, story):
        return table[0, story[0]] + table[1 + story[0], story[1]]

    policy = theta.log_softmax(-1)
    p = torch.stack([logp(policy, s) for s in stories]).exp()
    kl = torch.stack([logp(policy, s) - logp(reference, s) for s in stories])
    expected = gradient(-(p * (reward - BETA * kl)).sum(), theta)

    mean = torch.zeros_like(theta)
    for a, b in itertools.product(range(4), repeat=2):
        policy = theta.log_softmax(-1)
        places = [place for s in (a, b) for place in (0, 1 + stories[s][0])]
        ids = torch.tensor([piece for s in (a, b) for piece in stories[s]])
        tokens = Tokens(policy[places], reference[places], ids, torch.tensor([0, 0, 1, 1]), 2)
        weights = reinforce.advantages(
            reward[[a, b]], kl[[a, b]].detach(), form="rloo", samples=2, kl_coef=BETA, estimator="k1"
        )
        loss = reinforce.policy_loss(tokens, weights, form="rloo", kl_coef=BETA, estimator="k1") / 2
        mean += (p[a] * p[b]).detach() * gradient(loss, theta)
    torch.testing.assert_close(mean, expected, atol=1e-12, rtol=0)


def test_the_baseline_leaves_the_mean_and_takes_variance():
    reward = REWARD + 2  # a reward far from zero is what a baseline is for
    mean, variance = mean_gradient(4, "k1", kl_coef=0.0, reward=reward)
    mean_without, variance_without = mean_gradient(4, "k1", kl_coef=0.0, reward=reward, baseline=False)
    torch.testing.assert_close(mean, mean_without, atol=1e-12, rtol=0)
    assert variance_without > 5 * variance


def test_leave_one_out_by_hand():
    found = reinforce.leave_one_out(torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0]), 3)
    assert found.tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, -1.5, -1.5, 3.0]


def test_the_seed_form_is_its_formula():
    # Five stories of at most 6 tokens over 11 pieces; story 2 stops after 2 tokens, as at an EOS.
    torch.manual_seed(1)
    lengths, T, V, factor = [6, 4, 2, 6, 1], 6, 11, 6000.0
    logits = [torch.randn(n, V, dtype=torch.double, requires_grad=True) for n in lengths]
    reference = [torch.randn(n, V, dtype=torch.double) for n in lengths]
    ids = [torch.randint(V, (n,)) for n in lengths]
    reward = torch.rand(5, dtype=torch.double)

    expected = 0.0
    for b in range(5):
        logp = kl = 0.0
        for t in range(lengths[b]):
            policy_V, reference_V = logits[b][t].log_softmax(-1), reference[b][t].log_softmax(-1)
            logp = logp + policy_V[ids[b][t]]
            kl = kl + sum(reference_V[v].exp() * (reference_V[v] - policy_V[v]) for v in range(V)) / V
        expected = expected + (-(logp / T) * reward[b] + factor * kl / T) / 5

    tokens = Tokens(
        torch.cat(logits).log_softmax(-1),
        torch.cat(reference).log_softmax(-1),
        torch.cat(ids),
        torch.repeat_interleave(torch.arange(5), torch.tensor(lengths)),
        5,
    )
    weights = reinforce.advantages(reward, reward, form="tinycatstories", samples=1, kl_coef=0.0, estimator="k1")
    found = reinforce.tinycatstories_loss(tokens, weights, length=T) / 5
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
