"""Sampling through the cache is the network itself: same logits, same distribution, the same text in any company."""

import math

import numpy as np
import pytest
import torch

from lib.errors import UserError
from lib.model.cache import Cache
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


def uncached(model, ids, *, logits=False):
    with torch.inference_mode():
        scores = model(torch.tensor([ids]))[0]
    return scores if logits else scores.log_softmax(-1)


@pytest.mark.parametrize("changed", [{}, {"n_kv_heads": 4}, {"n_kv_heads": 1}, {"tied": False}], ids=str)
def test_log_probabilities_equal_those_of_the_uncached_network(changed):
    model = network(**changed)
    for prefix, found in zip(PREFIXES, Sampler(model).generate(PREFIXES, max_new=30, stop_ids=NEVER), strict=True):
        scores = uncached(model, prefix + found.ids)
        for n, (piece, logprob) in enumerate(zip(found.ids, found.logprobs, strict=True)):
            assert logprob == pytest.approx(float(scores[len(prefix) - 1 + n, piece]), abs=1e-4)


@pytest.mark.parametrize("changed", [{}, {"n_kv_heads": 4}, {"n_kv_heads": 1}, {"tied": False}], ids=str)
def test_every_logit_of_every_step_equals_that_of_the_uncached_network(changed, monkeypatch):
    """Rows of many lengths, some twice, that join late, stop early and are sent away: nothing of it shows."""
    model, seen = network(**changed), []
    draw = Draws.__call__
    monkeypatch.setattr(Draws, "__call__", lambda self, logits, *rest: seen.append(logits) or draw(self, logits, *rest))
    sampler = Sampler(model)
    seeds = iter(np.random.SeedSequence(1).spawn(99))

    def rows(prefixes, max_new):
        return [
            sampler.row(prefix, max_new=max_new, seed=next(seeds), stop_ids=frozenset({4, 9})) for prefix in prefixes
        ]

    batch, sizes, steps = sampler.batch(), set(), 0
    batch.join(rows([*PREFIXES, PREFIXES[0]], 30))
    while batch:
        for row, logits in zip(batch.step(), seen.pop(), strict=True):
            expected = uncached(model, row.prefix + row.ids[:-1], logits=True)[-1]
            torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
        sizes.add(len(batch))
        steps += 1
        if steps in (3, 9, 20, 21, 30):
            batch.join(rows([PREFIXES[3] * 3, [1], [2, 5]], 8))
            batch.join(rows([[1, 2, 3], [1, 2, 3]], 40))
        if steps == 12 and batch:
            next(row for row in batch.rows if not row.done).done = True  # as a client that goes away
    assert len(sizes) > 5 and steps > 30


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


def spelled(ids):
    """Pieces of one to three letters; piece 1 is a control piece, piece 2 a letter of two bytes."""
    return "".join(["", "", "\u00e9"][i] if i < 3 else chr(97 + i % 26) * (1 + i % 3) for i in ids)


def test_rows_with_their_own_settings_get_the_same_text_alone_and_in_company(model):
    sampler = Sampler(model)
    hows = [
        Draw(),
        Draw(0.0),
        Draw(0.7, top_p=0.8),
        Draw(1.3, top_k=5, repetition_penalty=1.4),
        Draw(0.0, repetition_penalty=2.0),
        Draw(0.9, min_p=0.1),
    ]

    def rows():
        return [
            sampler.row(
                PREFIXES[n % 5],
                max_new=30,
                seed=np.random.SeedSequence(n),
                how=hows[n % 6],
                stop_ids=frozenset({4} if n % 2 else {9, 11}),
                stop_strings=("ss", "tnn") if n % 3 else (),
                decode=spelled,
            )
            for n in range(24)
        ]

    alone = rows()
    for row in alone:
        batch = sampler.batch()
        batch.join([row])
        while batch:
            batch.step()
    together = rows()
    batch = sampler.batch()
    for start in range(0, 24, 8):
        batch.join(together[start : start + 8])
        for _ in range(5):
            batch.step()
    while batch:
        batch.step()
    assert [row.ids for row in together] == [row.ids for row in alone]
    assert [row.ended for row in together] == [row.ended for row in alone]
    assert len({len(row.ids) for row in alone}) > 4


def test_a_stop_string_ends_a_row_with_the_piece_that_completes_it(model):
    free = Sampler(model).generate(PREFIXES * 2, max_new=30, stop_ids=NEVER, seed=8)
    stop = spelled(free[0].ids)[12:16]
    cut = Sampler(model).generate(
        PREFIXES * 2, max_new=30, stop_ids=NEVER, stop_strings=["never this", stop], decode=spelled, seed=8
    )
    assert cut[0].ended
    for before, after in zip(free, cut, strict=True):
        end = next((n for n in range(31) if stop in spelled(before.ids[:n])), 30)
        assert after.ids == before.ids[:end]
        assert after.ended == (stop in spelled(before.ids))


def test_stop_strings_without_a_way_to_decode_are_refused(model):
    with pytest.raises(ValueError, match="a function that decodes"):
        Sampler(model).generate([[1]], max_new=3, stop_ids=NEVER, stop_strings=["x"])


def test_n_completions_a_prefix_stand_together_and_differ(model):
    three = Sampler(model).generate(PREFIXES[:2], max_new=12, stop_ids=NEVER, n=3, seed=4)
    each = Sampler(model).generate([p for p in PREFIXES[:2] for _ in range(3)], max_new=12, stop_ids=NEVER, seed=4)
    assert [done.ids for done in three] == [done.ids for done in each]
    assert len({tuple(done.ids) for done in three}) == 6
    with pytest.raises(ValueError, match="2 seeds for 6 rows"):
        Sampler(model).generate(PREFIXES[:2], max_new=12, stop_ids=NEVER, n=3, seed=[1, 2])


def test_a_prefix_that_stands_there_often_is_read_once(model, monkeypatch):
    read, prefixes = Cache._read, []
    monkeypatch.setattr(Cache, "_read", lambda self, given: prefixes.extend(given) or read(self, given))
    Sampler(model).generate(PREFIXES, max_new=2, stop_ids=NEVER, n=5)
    assert sorted(prefixes) == sorted({tuple(prefix) for prefix in PREFIXES})


def test_places_of_rows_that_ended_are_taken_by_those_that_wait(model, monkeypatch):
    joined, join = [], Cache.join
    monkeypatch.setattr(Cache, "join", lambda self, given: joined.append((len(self), len(given))) or join(self, given))
    monkeypatch.setattr("lib.model.sampling.BATCH", 16)  # of which a narrow model takes half
    few = Sampler(model).generate(PREFIXES, max_new=40, stop_ids={4, 9, 11}, n=5, seed=3)
    assert any(here for here, _ in joined)
    assert max(here + given for here, given in joined) == 8
    monkeypatch.undo()
    torch.set_num_threads(1)
    whole = Sampler(model).generate(PREFIXES, max_new=40, stop_ids={4, 9, 11}, n=5, seed=3)
    assert [done.ids for done in few] == [done.ids for done in whole]


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


@pytest.mark.parametrize("temperature", [1e-46, 1e-44, 1e-30, 9e-7])
def test_a_temperature_next_to_nothing_takes_the_likeliest_piece(model, temperature):
    """1e-46 is 0 in float32, which a division would make 1 of; 1e-44 is all but 0."""
    hows = [Draw(temperature), Draw(), Draw(0.0)]
    logits_BV = torch.tensor([[0.0, 3.0, 1.0, 2.9]]).expand(3, -1)
    ids, logprobs = Draws(hows)(logits_BV.clone(), torch.full((3,), 0.999))
    assert ids.tolist() == [1, 3, 1]
    assert logprobs[0] == logprobs[2]
    cold, greedy = (
        Sampler(model).generate(PREFIXES, max_new=9, temperature=each, stop_ids=NEVER, seed=5)
        for each in (temperature, 0.0)
    )
    assert cold == greedy


def test_a_seed_of_numpy_is_a_seed(model):
    numpys, pythons = (
        Sampler(model).generate(PREFIXES, max_new=5, stop_ids=NEVER, seed=seed) for seed in (np.int64(3), 3)
    )
    assert numpys == pythons


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
    tied, ids = Draws([Draw(top_k=2)]).left(torch.ones(1, 5), torch.tensor([[5.0]]))
    assert (tied.tolist(), ids[0, :2].tolist()) == ([[1, 1, 0, 0, 0]], [0, 1])


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.7, 0.9, 0.99])
def test_top_p_draws_from_the_smallest_set_with_that_mass(top_p):
    p = LOGITS[0].double().softmax(-1)
    order = p.argsort(descending=True)
    size = next(n for n in range(1, 7) if p[order[:n]].sum() >= top_p)
    expected = torch.zeros(6, dtype=torch.double)
    expected[order[:size]] = p[order[:size]] / p[order[:size]].sum()
    torch.testing.assert_close(frequencies(Draw(top_p=top_p)).double(), expected, atol=2e-4, rtol=0)


def theirs(logits, how, ids):
    """The distribution that transformers' own processors make, in the order in which its `generate` calls them."""
    from transformers.generation import logits_process as theirs

    steps = [theirs.RepetitionPenaltyLogitsProcessor(how.repetition_penalty)]
    steps += [theirs.TemperatureLogitsWarper(how.temperature)]
    steps += [theirs.TopKLogitsWarper(how.top_k)] if how.top_k else []
    steps += [theirs.TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []
    steps += [theirs.MinPLogitsWarper(how.min_p)] if how.min_p else []
    for step in steps:
        logits = step(ids, logits)
    return logits.softmax(-1)


def ours(draws, logits, seen):
    chosen = draws.penalise(logits, seen)
    likely = draws.tempered(chosen - chosen.amax(-1, keepdim=True)).exp()
    left, ids = draws.left(likely, likely.sum(-1, keepdim=True))
    cut = torch.zeros_like(logits).scatter_(1, ids, left)
    left = torch.where(draws.cut_B1, cut, likely)
    return left / left.sum(-1, keepdim=True)


HOWS = [
    Draw(0.7),
    Draw(1.0, top_k=7),
    Draw(1.4, top_p=0.8),
    Draw(0.8, min_p=0.05),
    Draw(1.0, repetition_penalty=1.3),
    Draw(0.6, repetition_penalty=0.8, top_k=20, top_p=0.9, min_p=0.02),
    Draw(1.2, top_k=9999, top_p=0.95),
]


@pytest.mark.parametrize("vocab_size", [60, 4096], ids=["narrow", "wide"])
def test_what_is_drawn_from_equals_transformers_processors(vocab_size):
    torch.manual_seed(5)
    rows = len(HOWS)
    logits, ids = 3 * torch.randn(rows, vocab_size), torch.randint(vocab_size, (rows, 15))
    seen = torch.zeros(rows, vocab_size, dtype=torch.bool).scatter_(1, ids, True)
    expected = torch.cat([theirs(logits[n : n + 1], how, ids[n : n + 1]) for n, how in enumerate(HOWS)])
    together = ours(Draws(HOWS), logits, seen)  # each row with its own settings, in one batch
    assert torch.equal(together > 0, expected > 0)
    torch.testing.assert_close(together, expected, atol=1e-6, rtol=1e-4)
    for n, how in enumerate(HOWS):
        torch.testing.assert_close(ours(Draws([how]), logits, seen)[n], expected[n], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("vocab_size", [40, 2560])
def test_frequencies_of_many_seeds_pass_a_chi_square_test(vocab_size):
    model = network(vocab_size=vocab_size, d_model=8, n_heads=2, d_ff=8, n_layers=1)
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(3)  # surer of itself: of 2,560 pieces some are likely
    drawn = [done.ids[0] for done in Sampler(model).generate([[1, 7]], max_new=1, stop_ids=NEVER, n=3000, seed=1)]
    expected = uncached(model, [1, 7])[-1].exp().double() * len(drawn)
    found = torch.bincount(torch.tensor(drawn), minlength=vocab_size).double()
    large = expected >= 5
    cells = torch.cat(
        (torch.stack((expected, found))[:, large], torch.stack((expected, found))[:, ~large].sum(1)[:, None]), 1
    )
    cells = cells[:, cells[0] > 0]
    statistic, freedom = float(((cells[1] - cells[0]) ** 2 / cells[0]).sum()), cells.shape[1] - 1
    assert freedom >= 5
    assert abs(statistic - freedom) < 3.3 * math.sqrt(2 * freedom)  # a chi-square has this mean and variance


def test_a_penalty_and_a_cut_leave_the_log_probability_as_the_model_has_it():
    seen = torch.tensor([[True, False, False, False, True, False]])
    draws = Draws([Draw(0.5, top_k=1, repetition_penalty=3.0)])
    drawn, logprob = draws(LOGITS, torch.tensor([0.5]), seen)
    assert drawn.tolist() == [1]  # 2.0 / 3 is less than 1.0
    assert float(logprob) == pytest.approx(float((LOGITS[0] / 0.5).log_softmax(-1)[1]), abs=1e-6)


def test_a_piece_without_probability_is_never_drawn():
    p = torch.tensor([[0.0, 0.3, 0.0, 0.1, 0.0, 0.0]]).expand(3, -1)
    highest = float(np.nextafter(np.float32(1), np.float32(0)))
    assert inverse_cdf(p, torch.tensor([0.0, 0.75, highest])).tolist() == [1, 3, 3]
    assert inverse_cdf(p, torch.tensor([1.0, 1.0, 1.0])).tolist() == [3, 3, 3]


def test_a_wide_vocabulary_is_drawn_from_by_blocks_to_the_same_piece():
    torch.manual_seed(1)
    p = torch.zeros(400, 4096)
    p[:, 300:302], p[:, 4000] = 0.25, 0.5  # in most blocks there is nothing
    p[200:] = (3 * torch.randn(200, 4096)).exp()
    uniform = torch.cat((torch.tensor([0.0, 1.0]), torch.rand(398)))
    drawn, wide = inverse_cdf(p, uniform), p.double().cumsum(-1)
    assert {300, 301, 4000} == set(drawn[:200].tolist())
    above = wide.gather(1, drawn[:, None])[:, 0] / wide[:, -1]
    below = above - p.double().gather(1, drawn[:, None])[:, 0] / wide[:, -1]
    assert bool(((below <= uniform + 1e-6) & (uniform <= above + 1e-6)).all())
    assert bool((p.gather(1, drawn[:, None]) > 0).all())


def test_log_probabilities_are_those_of_the_tempered_model_before_any_cut():
    _, logprob = Draws([Draw(0.5, top_p=0.4, top_k=2)])(LOGITS, torch.tensor([0.1]))
    assert float(logprob) == pytest.approx(float((LOGITS[0] / 0.5).log_softmax(-1)[0]), abs=1e-6)


WRONG = [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}]
WRONG += [{"min_p": -0.1}, {"min_p": 1.1}, {"repetition_penalty": 0.0}, {"temperature": math.nan}]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_impossible_ways_to_draw_are_refused(wrong):
    with pytest.raises(UserError, match="expected (temperature >= 0|0 <= min_p)"):
        Draw(**wrong)
