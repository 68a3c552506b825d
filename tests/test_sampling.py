"""Sampling through the cache is the network itself: same logits, same distribution, the same text in any company."""

import math

import numpy as np
import pytest
import torch

from lib.errors import UserError
from lib.model.draw import Draw, Draws, inverse_cdf
from lib.model.lora import LoraLinear, add_lora, merge
from lib.model.network import Llama, Shape
from lib.model.sampling import Sampler

PREFIXES = [[1], [1, 7, 9, 4, 22, 8], [2, 5], [1, 7, 9, 4, 22, 8, 3, 3, 3, 30, 31], [2, 5]]
NEVER = {-1}


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other are slow where tests share two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(**changed):
    torch.manual_seed(3)
    sizes = {
        "vocab_size": 40,
        "d_model": 24,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_ff": 32,
        "max_length": 48,
    }
    model = Llama(Shape(**(sizes | changed))).eval()
    with torch.no_grad():
        for weight in model.parameters():  # far from its small start, so that every weight and norm shows in the logits
            weight.mul_(6) if weight.dim() == 2 else weight.add_(torch.randn_like(weight) / 3)
    return model


def uncached(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].log_softmax(-1)


@pytest.mark.parametrize("changed", [{}, {"n_kv_heads": 4}, {"n_kv_heads": 1}, {"tied": False}], ids=str)
def test_log_probabilities_equal_those_of_the_uncached_network(changed):
    model = network(**changed)
    for prefix, found in zip(PREFIXES, Sampler(model).generate(PREFIXES, max_new=30, stop_ids=NEVER), strict=True):
        scores = uncached(model, prefix + found.ids)
        for n, (piece, logprob) in enumerate(zip(found.ids, found.logprobs, strict=True)):
            assert logprob == pytest.approx(float(scores[len(prefix) - 1 + n, piece]), abs=1e-4)


def test_temperature_0_takes_the_likeliest_piece_of_the_uncached_network(model):
    found = Sampler(model).generate(PREFIXES, max_new=20, temperature=0, stop_ids=NEVER)
    for prefix, completion in zip(PREFIXES, found, strict=True):
        ids = list(prefix)
        for _ in range(20):
            ids.append(int(uncached(model, ids)[-1].argmax()))
        assert completion.ids == ids[len(prefix) :]


def test_a_row_gets_the_same_text_alone_and_in_company(model):
    sampler, stops = Sampler(model), {4, 9, 11}  # rows stop at different steps and others move into their places
    together = sampler.generate(PREFIXES * 4, max_new=30, stop_ids=stops, seed=list(range(20)))
    assert len({len(each.ids) for each in together}) > 3
    for seed, (prefix, completion) in enumerate(zip(PREFIXES * 4, together, strict=True)):
        assert sampler.generate([prefix], max_new=30, stop_ids=stops, seed=[seed])[0].ids == completion.ids


def test_one_seed_gives_equal_prefixes_different_texts_wherever_they_stand(model):
    there = Sampler(model).generate(PREFIXES, max_new=12, stop_ids=NEVER, seed=5)
    back = Sampler(model).generate(PREFIXES[::-1], max_new=12, stop_ids=NEVER, seed=5)
    assert there[2].ids != there[4].ids
    assert there[2].ids == back[0].ids  # the first [2, 5] of either list
    assert there[3].ids == back[1].ids


def test_a_completion_ends_with_its_stop_id_and_says_so(model):
    free = Sampler(model).generate(PREFIXES, max_new=20, stop_ids=NEVER, seed=1)
    stop = free[1].ids[6]
    for before, after in zip(free, Sampler(model).generate(PREFIXES, max_new=20, stop_ids={stop}, seed=1), strict=True):
        end = before.ids.index(stop) + 1 if stop in before.ids else 20
        assert (after.ids, after.ended) == (before.ids[:end], stop in before.ids)
        assert len(after.logprobs) == end


def test_no_row_goes_past_the_length_the_model_was_made_for(model):
    for prefix, found in zip(PREFIXES, Sampler(model).generate(PREFIXES, max_new=999, stop_ids=NEVER), strict=True):
        assert len(prefix) + len(found.ids) == 48
        assert not found.ended


def test_a_prompt_without_room_is_refused_with_both_numbers(model):
    with pytest.raises(UserError, match="48 tokens, expected at most 47"):
        Sampler(model).generate([[1] * 48], max_new=3, stop_ids=NEVER)
    with pytest.raises(ValueError, match="empty prefix"):
        Sampler(model).generate([[1], []], max_new=3, stop_ids=NEVER)


def test_nothing_is_drawn_for_no_prefixes_and_for_no_new_tokens(model):
    assert Sampler(model).generate([], max_new=3, stop_ids=NEVER) == []
    assert [each.ids for each in Sampler(model).generate([[1], [2]], max_new=0, stop_ids=NEVER)] == [[], []]


def test_a_stream_is_the_completion_without_its_stop_id(model):
    stops = {4, 9, 11}
    whole = Sampler(model).generate([[1, 7]], max_new=40, temperature=0.8, top_p=0.9, stop_ids=stops, seed=2)[0]
    told = list(Sampler(model).stream([1, 7], max_new=40, temperature=0.8, top_p=0.9, stop_ids=stops, seed=2))
    assert whole.ended
    assert told == whole.ids[:-1]


def test_more_rows_than_one_batch_come_back_in_their_order(model, monkeypatch):
    expected = Sampler(model).generate(PREFIXES * 3, max_new=9, stop_ids=NEVER, seed=list(range(15)))
    monkeypatch.setattr("lib.model.sampling.BATCH", 4)
    assert [
        each.ids for each in Sampler(model).generate(PREFIXES * 3, max_new=9, stop_ids=NEVER, seed=list(range(15)))
    ] == [each.ids for each in expected]


def test_a_sampler_does_not_see_later_updates(model):
    model = network()
    sampler = Sampler(model)
    before = sampler.generate([[1]], max_new=20, temperature=0, stop_ids=NEVER)
    with torch.no_grad():
        model.layers[0].feed_forward.w2.weight.mul_(-3)
    assert sampler.generate([[1]], max_new=20, temperature=0, stop_ids=NEVER) == before
    assert Sampler(model).generate([[1]], max_new=20, temperature=0, stop_ids=NEVER) != before


def test_lora_is_sampled_as_if_it_were_merged():
    model = network()
    add_lora(model, rank=3, alpha=6, dropout=0.0, targets=("wq", "wv", "w2"))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LoraLinear):
                layer.lora_b.normal_()
    with_lora = Sampler(model).generate(PREFIXES, max_new=20, temperature=0, stop_ids=NEVER)
    merge(model)
    merged = Sampler(model).generate(PREFIXES, max_new=20, temperature=0, stop_ids=NEVER)
    assert [each.ids for each in with_lora] == [each.ids for each in merged]


# ---- drawing


LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.9, -3.0]])


def frequencies(draw, logits=LOGITS, n=20_000):
    """Over evenly spaced uniform numbers the frequencies are the probabilities to 1/n."""
    uniform = (torch.arange(n) + 0.5) / n
    drawn, _ = Draws([draw])(logits.expand(n, -1), uniform)
    return torch.bincount(drawn, minlength=logits.shape[1]) / n


def test_pieces_are_drawn_as_often_as_they_are_likely():
    for temperature in (0.5, 1.0, 2.0):
        expected = (LOGITS[0] / temperature).softmax(-1)
        torch.testing.assert_close(frequencies(Draw(temperature)), expected, atol=2e-4, rtol=0)


def test_top_k_leaves_exactly_k_pieces():
    expected = torch.tensor([2.0, 1.0, -math.inf, -math.inf, 0.9, -math.inf]).softmax(-1)
    torch.testing.assert_close(frequencies(Draw(top_k=3)), expected, atol=2e-4, rtol=0)
    tied, _ = Draws([Draw(top_k=2)]).left(torch.ones(1, 5))
    assert tied.tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.7, 0.9, 0.99])
def test_top_p_draws_from_the_smallest_set_with_that_mass(top_p):
    p = LOGITS[0].double().softmax(-1)
    order = p.argsort(descending=True)
    size = next(n for n in range(1, 7) if p[order[:n]].sum() >= top_p)
    expected = torch.zeros(6, dtype=torch.double)
    expected[order[:size]] = p[order[:size]] / p[order[:size]].sum()
    torch.testing.assert_close(frequencies(Draw(top_p=top_p)).double(), expected, atol=2e-4, rtol=0)


def test_a_piece_without_probability_is_never_drawn():
    p = torch.tensor([[0.0, 0.3, 0.0, 0.1, 0.0, 0.0]]).expand(3, -1)
    highest = float(np.nextafter(np.float32(1), np.float32(0)))
    assert inverse_cdf(p, torch.tensor([0.0, 0.75, highest])).tolist() == [1, 3, 3]
    assert inverse_cdf(p, torch.tensor([1.0, 1.0, 1.0])).tolist() == [3, 3, 3]


def test_log_probabilities_are_those_of_the_tempered_model_before_any_cut():
    _, logprob = Draws([Draw(0.5, top_p=0.4, top_k=2)])(LOGITS, torch.tensor([0.1]))
    assert float(logprob) == pytest.approx(float((LOGITS[0] / 0.5).log_softmax(-1)[0]), abs=1e-6)


@pytest.mark.parametrize("wrong", [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}], ids=str)
def test_impossible_ways_to_draw_are_refused(wrong):
    with pytest.raises(UserError, match="expected temperature >= 0"):
        Draw(**wrong)
