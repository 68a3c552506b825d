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


def tiny_network(seed):
    from lib.model.network import Llama
    from lib.model.shape import Shape

    torch.manual_seed(seed)
    shape = Shape(vocab_size=13, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=24, max_length=16)
    network = Llama(shape).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return network


def climber_of(policy, reference, **config):
    from lib.model.aligning import Aligning
    from lib.model.ascent import Climber

    return Climber(Aligning(rewards={"words": 1.0}, **config), policy, reference, torch.float32, None)


def rollout_of(prefix, ids, ended):
    from lib.model.rollouts import Rollout
    from lib.model.sampling import Completion

    return Rollout("", prefix, Completion(ids, [0.0] * len(ids), ended), "")


def test_the_seed_form_has_the_gradient_of_a_plain_loop_over_time():
    # tinycatstories' loop: the whole prefix forward again for every token, no cache, sums kept while a story goes on.
    from lib.model import ascent
    from lib.model.rewards import Scores

    policy, reference = tiny_network(1), tiny_network(2).requires_grad_(False)
    prompt, T, eos, factor = [1, 4, 7], 8, 2, 6000.0
    stories = [[5, 3, 9, 12, 2], [8, 2], [3, 3, 11, 6, 10], [2]]  # the third is cut off at T, its prompt counted
    reward = [0.3, 0.7, 0.1, 0.9]

    logp_B1, kl_B1 = torch.zeros(4, 1).double(), torch.zeros(4, 1).double()
    active_B = torch.ones(4, dtype=torch.bool)
    output_BT = torch.full((4, T), eos)
    output_BT[:, : len(prompt)] = torch.tensor(prompt)
    document_BT = torch.zeros(4, T, dtype=torch.int32)
    for i in range(len(prompt), T):
        so_far_BT, apart_BT = output_BT[:, :i].clone(), document_BT[:, :i]
        ours_BV = policy(so_far_BT, apart_BT)[:, -1].log_softmax(-1)[active_B]
        theirs_BV = reference(so_far_BT, apart_BT)[:, -1].log_softmax(-1)[active_B]
        told = torch.tensor([stories[b][i - len(prompt)] for b in range(4) if active_B[b]])
        logp_B1[active_B] += ours_BV.gather(1, told[:, None])
        kl_BV = torch.nn.functional.kl_div(ours_BV, theirs_BV, reduction="none", log_target=True)
        kl_B1[active_B] += kl_BV.mean(-1, keepdim=True)
        output_BT[active_B, i] = told
        going_on = told != eos
        active_B = active_B.clone()
        active_B[active_B.clone()] = going_on
    expected = (-logp_B1 / T * torch.tensor(reward).double()[:, None]).mean() + factor * (kl_B1 / T).mean()
    expected_gradient = torch.autograd.grad(expected, list(policy.parameters()))

    climber = climber_of(policy, reference, form="tinycatstories", max_new=T - len(prompt), length=T, kl_factor=factor)
    written = [rollout_of(prompt, ids, ids[-1] == eos) for ids in stories]
    seen = ascent.weigh(climber, written, Scores(reward, {}))
    found = sum(piece for piece, _ in ascent.losses(climber, seen))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(torch.autograd.grad(found, list(policy.parameters())), expected_gradient, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


# ---- grpo, and several steps on the same stories


def several_tokens(old=None):
    """Three stories of 1, 3 and 2 tokens over 7 pieces."""
    torch.manual_seed(3)
    lengths = torch.tensor([1, 3, 2])
    theta = torch.randn(6, 7, dtype=torch.double, requires_grad=True)
    reference = torch.randn(6, 7, dtype=torch.double).log_softmax(-1)
    rows = torch.repeat_interleave(torch.arange(3), lengths)
    return theta, Tokens(theta.log_softmax(-1), reference, torch.randint(7, (6,)), rows, 3, old_N=old)


def by_hand(tokens, weights, form, estimator):
    """The loss a token at a time."""
    lengths, loss = [1, 3, 2], 0.0
    for n in range(6):
        p, q, i, b = tokens.policy_NV[n], tokens.reference_NV[n], tokens.ids_N[n], int(tokens.row_N[n])
        x = p[i] - q[i]
        kl = {
            "k1": 0.0,
            "k2": x**2 / 2,
            "k3": (-x).exp() - 1 + x,
            "exact": sum(p[v].exp() * (p[v] - q[v]) for v in range(7)),
        }
        loss = loss + (-weights[b] * p[i] + BETA * kl[estimator]) / (lengths[b] if form == "grpo" else 1)
    return loss


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
@pytest.mark.parametrize("form", ["rloo", "grpo"])
def test_both_forms_have_the_gradient_of_the_formula(form, estimator):
    theta, tokens = several_tokens()
    weights = torch.tensor([0.5, -1.0, 2.0]).double()
    found = reinforce.policy_loss(tokens, weights, form=form, kl_coef=BETA, estimator=estimator)
    found = gradient(found, theta)
    theta, tokens = several_tokens()  # the same numbers, a graph of its own
    expected = gradient(by_hand(tokens, weights, form, estimator), theta)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_grpo_weighs_with_the_groups_mean_and_deviation():
    settings = {"form": "grpo", "samples": 3, "kl_coef": 0.5}
    rewards, kl = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0]), torch.tensor([2.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    plain = reinforce.advantages(rewards, kl, estimator="k3", **settings)
    deviation = (14 / 3) ** 0.5
    expected = [-2 / deviation, -1 / deviation, 3 / deviation, 0.0, 0.0, 0.0]
    assert plain.tolist() == pytest.approx(expected, abs=1e-3)
    paid = reinforce.advantages(rewards, kl, estimator="k1", **settings)  # its first story pays for 2 nats with 1.0
    assert paid.tolist() == pytest.approx(reinforce.standardised(torch.tensor([0.0, 2, 6, 5, 5, 5]), 3).tolist())


def test_a_token_that_has_moved_far_enough_is_not_pushed_further():
    theta, tokens = several_tokens()
    drawn = tokens.of_drawn(tokens.policy_NV).detach()
    moved = torch.tensor([0.0, 0.5, -0.5, 0.1, 0.5, -0.5]).double()  # log of the ratio; 0.2 either way is free
    theta, tokens = several_tokens(old=drawn - moved)
    weights = torch.tensor([1.0, 1.0, -1.0]).double()
    loss = reinforce.policy_loss(tokens, weights, form="rloo", kl_coef=0.0, estimator="k1")
    pushed = gradient(loss, theta).abs().sum(1) > 0
    assert pushed.tolist() == [True, False, True, True, True, False]
    told = -(torch.tensor([0.0, 0.2, -0.5, 0.1]).exp()).double()
    told[1] = -1.2
    assert loss.item() == pytest.approx(float(told.sum() + torch.tensor(0.5).double().exp() + 0.8), abs=1e-6)
