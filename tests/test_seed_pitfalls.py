"""The faults of the systems that are re-implemented here: what was wrong there, and that it is not so here.

Each docstring names the system, its fault and where it was seen; the body runs our own code. FAULTS at the end lists
every known fault with the test that answers it: a fault without a test, or a test without a fault, fails.
"""

import inspect
import json
import math
import sys
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from lib.errors import UserError
from lib.model import guards, lora, reinforce, rollouts
from lib.model.batches import Batches, Corpus
from lib.model.checkpoint import LOG, Checkpoints, Log
from lib.model.inputs import lead_of, open_inputs
from lib.model.network import FeedForward, Llama, Shape, load_model, rope_tables, rotate
from lib.model.optim import lr_share
from lib.model.sampling import Sampler
from lib.model.training import Training
from lib.presets import PRESETS
from lib.stages import align, evaluate, export, ingest, pretrain, tokenizer, tokens
from lib.store import Dataset, build, delete, find, request_name
from lib.text import ledger, selfinstruct
from lib.text.alpaca import Task
from lib.text.budget import Price
from lib.text.rouge import Pool, words_of
from lib.text.template import LAYOUTS, SAMPLED, Template, Turn
from lib.text.tokenizer import Tokenizer
from lib.web import choices
from lib.web.engine import Asking, Engine
from tests import test_align, test_asking, test_dedup, test_novelty, test_split, tiny
from tests.teacher import FakeTeacher, failure, told
from tests.test_align import inputs as aligning  # noqa: F401 (a fixture)
from tests.test_pretrain import TINY
from tests.test_reinforce import mean_gradient
from tests.tiny_tokens import tokenizer_of, tokens_of

SHAPE = Shape(vocab_size=340, d_model=24, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=32, max_length=96)
MODELS = {"base": "pretrain", "instruct": "instruct", "aligned": "align"}
WITH_REQUESTS = [name for name, layout in LAYOUTS.items() if layout.has_prompt]


@cache
def pieces() -> Tokenizer:
    return Tokenizer(tiny._pieces())


@cache
def network() -> Llama:
    """Random weights far from their small start, so that every one of them shows in the logits."""
    torch.manual_seed(3)
    model = Llama(SHAPE).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6) if weight.dim() == 2 else weight.add_(torch.randn_like(weight) / 3)
    return model


class Killed(Exception):
    """Stands for a kill between two steps."""


def pretrained(kill_at: int | None = None, **changes: object) -> Dataset:
    def tell(text: str, done: float | None, total: float | None) -> None:
        if kill_at and done == kill_at:
            raise Killed

    made_of = tokenizer_of()
    given = {"tokens": tokens_of(made_of), "tokenizer": made_of}
    config = pretrain.PretrainConfig(**TINY | changes)
    return build(pretrain.STAGE, config, given, pretrain.pretrain, on_progress=tell)


def tokenised(table: pa.Table, layout: str, part_rows: int = 13, **config: object) -> Dataset:
    starts = range(0, len(table), part_rows)
    parts = {f"part-{n:05d}.parquet": table[at : at + part_rows] for n, at in enumerate(starts)}
    given = {"stories": tiny.publish("split", parts), "tokenizer": tiny.tokenizer()}
    return build(tokens.STAGE, tokens.TokensConfig(layout=layout, **config), given, tokens.tokens)


def sequences(dataset: Dataset) -> list[list[int]]:
    corpora = [Corpus(tokens=dataset, split=side) for side in ("train", "val", "test")]
    return [corpus.ids(n).tolist() for corpus in corpora for n in range(len(corpus))]


# ---- cindysridykhan/instruct_storyteller_tinyllama2


def test_lora_has_the_rank_alpha_and_dropout_that_were_asked_for():
    """instruct_storyteller: apply_lora hands on neither (src/model.py:303), so "rank 2" is rank 4, alpha 1, dropout 0:
    15,191,712 parameters become 15,247,008."""
    with torch.device("meta"):
        model = Llama(choices.shape_of(PRESETS["stories15m"]()))
        added = lora.add_lora(model, rank=2, alpha=1.0, dropout=0.1, targets=("wq", "wk", "wo", "wv"))
    assert added == sum(each.numel() for name, each in model.named_parameters() if ".lora_" in name)
    assert 15_191_712 + added == 15_219_360 != 15_247_008
    layers = [layer for layer in model.modules() if isinstance(layer, lora.LoraLinear)]
    assert {(layer.scale, layer.dropout.p) for layer in layers} == {(0.5, 0.1)}


def test_merging_lora_merges():
    """instruct_storyteller: merge_lora looks for a type that is not there and does nothing (src/model.py:307-311)."""
    torch.manual_seed(0)
    model, ids = Llama(SHAPE), torch.arange(12)[None]
    lora.add_lora(model, rank=3, alpha=6.0, dropout=0.0, targets=("wq", "w2"))
    for name, weight in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(weight, std=0.2)
    before = model.eval()(ids)
    lora.merge(model)
    assert {type(layer) for layer in model.modules() if hasattr(layer, "in_features")} == {nn.Linear}
    assert set(model.state_dict()) == set(Llama(SHAPE).state_dict())
    torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_sampled_from_is_how_training_began(layout):
    """instruct_storyteller: trained on prompt [BOS] story, sampled from [BOS] prompt (generate.py:51)."""
    template, prompt = Template(pieces()), "Write a story about a cat"
    asked = prompt if LAYOUTS[layout].has_prompt else ""
    sequence, num_prompt = template.training(layout, asked, "One day, Tom took a ball.")
    prefix = template.prefix(layout, asked)
    whole = lead_of(template, layout) + sequence
    assert whole[: len(prefix)] == prefix
    assert pieces().decode(whole[len(prefix) : -1]) == "One day, Tom took a ball."


def test_temperature_and_top_k_reach_the_draw():
    """instruct_storyteller: --temperature and --top_k are read and 0.1 and 10 used (generate.py:91-92); utils.py:80-84
    computes scaled logits and draws from the others."""
    sampler, prefixes = Sampler(network()), [[1, 7, 9]] * 40

    def different(**how: object) -> int:
        drawn = sampler.generate(prefixes, max_new=1, stop_ids={-1}, **how)
        return len({each.ids[0] for each in drawn})

    assert different(temperature=0) == different(top_k=1) == 1
    assert different(top_k=2, temperature=3.0) == 2
    assert different(temperature=0.1) < different(temperature=1.0)
    engine = Engine.of("base", tiny.model("pretrain", seed=0))
    tales = {"".join(engine.tell(Asking("a cat", temperature=t, seed=1, max_tokens=9))) for t in (0, 0.5, 2.0)}
    assert len(tales) == 3


def test_an_error_in_the_work_ends_the_stage(monkeypatch):
    """instruct_storyteller and llama2.c: what executor.map returns is never read, so a NameError in every worker ends
    with "Done." (tinystories.py:170-171)."""

    def broken(*_: object) -> None:
        raise NameError("name 'enc' is not defined")

    monkeypatch.setattr(Template, "training_columns", broken)
    with pytest.raises(NameError, match="enc"):
        tokenised(tiny.stories(20), "pretrain")
    given = {"stories": tiny.publish("split", {"part-00000.parquet": tiny.stories(20)}), "tokenizer": tiny.tokenizer()}
    assert find("tokens", request_name(tokens.STAGE, tokens.TokensConfig(), given)) is None


def test_a_killed_run_goes_on_and_ends_the_same():
    """instruct_storyteller: no resume at all; MP-ACL: a checkpoint at the end alone, without the optimiser's state."""
    for kill_at in (4, 9):
        with pytest.raises(Killed):
            pretrained(kill_at)
    resumed = pretrained()
    delete(resumed.stage, resumed.name)
    assert pretrained().fingerprint == resumed.fingerprint
    assert resumed.table(table="train_steps")["step"].to_pylist() == list(range(1, TINY["steps"] + 1))


def test_no_training_story_gives_a_held_out_one_away():
    """instruct_storyteller and llama2.c: the first file is val, and nobody looks for copies of it in the others."""
    words = " ".join(f"word{n}" for n in range(60))
    copies = {4: words, 9: words.replace("word30", "other")}
    rows = test_split.dedup_rows(200, text=copies, given_split={4: "val", 9: "train"})
    with pytest.raises(UserError, match="story s9 holds .* of val story s4"):
        test_split.done(rows)
    kept = test_split.sides(test_split.done(rows, on_contamination="drop"))
    assert ("s4" in kept) != ("s9" in kept)


def test_a_request_is_understood_in_other_words():
    """instruct_storyteller: the model follows only prompts that are shaped like those it was trained on (README)."""
    engine = Engine.of("instruct", tiny.model("instruct", seed=0))
    ways = ("Write a story about a cat", "write  a story about a cat", "a story about a cat", "a cat")
    ways += ("Tell me a story about a cat", "please tell me a story about a cat")
    assert len({tuple(engine.prefix(Asking(way))) for way in ways}) == 1


# ---- karpathy/llama2.c


def test_a_resumed_run_goes_on_behind_the_batches_it_has_seen(monkeypatch):
    """llama2.c: a resume starts the shards again with the same seed: it trains on the same batches once more."""
    asked, batch = [], Batches.batch

    def noted(self: Batches, step: int) -> object:
        asked.append(step)
        return batch(self, step)

    monkeypatch.setattr(Batches, "batch", noted)
    with pytest.raises(Killed):
        pretrained(9, loader_workers=0)
    assert asked == list(range(9))
    asked.clear()
    pretrained(loader_workers=0)
    assert asked == list(range(9, TINY["steps"]))
    batches = Batches(corpus=Corpus(tokens=tokens_of(tokenizer_of()), split="train"), row_length=128, batch_size=4)
    assert [row.tolist() for row in batches.stories_of(9)] != [row.tolist() for row in batches.stories_of(0)]


def test_every_checkpoint_is_kept_whole_and_the_one_before_it_too(tmp_path):
    """llama2.c: one ckpt.pt, overwritten in place, and only when val improves (train.py:278-290)."""
    said: list[str] = []
    kept = Checkpoints(tmp_path, say=said.append)
    log = Log(tmp_path / LOG)
    for step in (1, 2, 3):  # whatever the loss was
        kept.save(step=step, weights={"w": torch.full((2,), float(step))}, state={}, log=log)
    newest = sorted(tmp_path.glob("step-*"))[-1]
    damaged = next(newest.glob("weights*"))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    found = kept.newest()
    assert (found.step, found.weights["w"].tolist()) == (2, [2.0, 2.0])
    assert "step-00000003 is damaged" in said[0]


def test_what_is_scaled_at_the_start_is_what_adds_to_the_residual_stream():
    """llama2.c: the scaled start lands on w3, the gate, not on w2 (model.py:180,235): w2 0.0199, w3 0.0058."""
    torch.manual_seed(0)
    for block in Llama(SHAPE.model_copy(update={"d_model": 64, "n_heads": 4, "d_ff": 192})).layers:
        scaled = 0.02 / math.sqrt(2 * SHAPE.n_layers)
        assert block.feed_forward.w2.weight.std().item() == pytest.approx(scaled, rel=0.1)
        assert block.attention.wo.weight.std().item() == pytest.approx(scaled, rel=0.1)
        assert block.feed_forward.w3.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_sampling_keeps_keys_and_values_and_stops_at_a_stop_id(monkeypatch):
    """llama2.c: generate() runs the whole prefix for every token, and sample.py never stops at EOS (model.py:319,
    issue #121); alpaca-lora never stops (#357); instruct_storyteller has no cache either."""
    prefix, expected = [1, 7, 9, 4], []
    with torch.inference_mode():
        for _ in range(12):
            expected.append(int(network()(torch.tensor([prefix + expected]))[0, -1].argmax()))
    sampler = Sampler(network())
    monkeypatch.setattr(Llama, "hidden", None)  # whoever runs the network over a whole row fails
    (free,) = sampler.generate([prefix], max_new=12, temperature=0, stop_ids={-1})
    assert free.ids == expected and not free.ended
    stop = expected[5]
    (stopped,) = sampler.generate([prefix], max_new=12, temperature=0, stop_ids={stop})
    assert stopped.ids == expected[: expected.index(stop) + 1] and stopped.ended


def test_learning_the_vocabulary_asks_nobody(monkeypatch):
    """llama2.c: train_vocab calls input() and hangs unattended (tinystories.py:118)."""

    def asked(*_: object) -> str:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(sys, "stdin", None)
    assert learned().facts["vocab_size"] == 330


def learned(**config: object) -> Dataset:
    stories = tiny.stories(60)
    given = {"stories": tiny.publish("split", {"part-00000.parquet": stories})}
    asked = tokenizer.TokenizerConfig(**{"vocab_size": 330} | config)
    return build(tokenizer.STAGE, asked, given, tokenizer.tokenizer)


def test_more_stories_tokenise_the_new_part_alone():
    """llama2.c: pretokenize does every shard again."""
    few, more = (tokenised(tiny.stories(50)[:n], "pretrain", part_rows=10) for n in (30, 40))
    assert (few.manifest["counts"]["rows_made"], more.manifest["counts"]["rows_made"]) == (30, 10)
    for name in ("tokens-00002.bin", "part-00002.parquet"):
        assert few.manifest["files"][name] == more.manifest["files"][name]


def test_ids_do_not_wrap_and_another_tokenizer_is_refused():
    """llama2.c: ids are uint16 whatever the vocabulary, and a wrong tokenizer gives gibberish without a word."""
    large = Tokenizer(pieces().model)
    large.vocab_size = 70_000
    assert (pieces().dtype, large.dtype) == (np.uint16, np.uint32)
    assert np.array([69_999], large.dtype)[0] == 69_999
    given = tokens_of(tokenizer_of(330))
    with pytest.raises(UserError, match="was made with the tokenizer"):
        open_inputs(tokens=given, tokenizer=tokenizer_of(320), training=Training(steps=1), row_length=64)


def test_what_is_held_out_comes_from_everywhere():
    """llama2.c: the first shard is val, whatever lies in it."""
    made = test_split.done(test_split.dedup_rows(600), val_fraction=0.2)
    sides = [set(part.table(["split"])["split"].to_pylist()) for part in made.parts()]
    assert len(sides) == 6 and all({"train", "val"} <= each for each in sides)


# ---- pHaeusler/tinycatstories


def roll_outs(max_new: int, opening: str = "One day, Tom took a ball to the park.") -> list[rollouts.Rollout]:
    writer = rollouts.Writer(Template(pieces()), "pretrain", max_new, 1.0)
    return writer.write(Sampler(network()), [opening] * 4, seed=1)


def test_so_many_new_tokens_are_as_many_new_tokens():
    """tinycatstories: NUM_TOKENS 10 holds the 6 of the prompt: 4 are written, and an opening is rewarded, no story."""
    for written in roll_outs(10):
        assert len(written.prefix) > 6
        assert len(written.completion.ids) == 10 or written.completion.ended


def drawn(policy_NV: torch.Tensor, reference_NV: torch.Tensor) -> reinforce.Tokens:
    n = len(policy_NV)
    return reinforce.Tokens(policy_NV, reference_NV, torch.zeros(n, dtype=torch.long), torch.arange(n), n)


def test_the_kl_is_in_nats_whatever_the_vocabulary():
    """tinycatstories: the KL is a mean over 50,257 pieces, so that 6000 stands for 0.119, and another vocabulary
    changes it without a word."""
    policy, reference = torch.tensor([[0.7, 0.3]]).log(), torch.tensor([[0.4, 0.6]]).log()
    unused = torch.full((1, 6), -60.0)  # pieces that nobody ever draws
    small, large = drawn(policy, reference), drawn(*(torch.cat((each, unused), 1) for each in (policy, reference)))
    nats = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    for tokens_ in (small, large):
        assert float(reinforce.kl_tokens(tokens_, "exact")) == pytest.approx(nats, rel=1e-5)
    theirs = [reinforce.tinycatstories_loss(each, torch.zeros(1), length=1, kl_factor=1.0) for each in (small, large)]
    assert float(theirs[0]) == pytest.approx(4 * float(theirs[1]), rel=1e-5)


def test_the_kl_goes_from_the_policy_to_the_reference():
    """tinycatstories: kl_div(policy, reference) is KL(reference || policy), and nothing says so."""
    policy, reference = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()

    def kl(p: torch.Tensor, q: torch.Tensor) -> float:
        return float((p.exp() * (p - q)).sum())

    ours = float(reinforce.kl_tokens(drawn(policy, reference), "exact"))
    theirs = reinforce.tinycatstories_loss(drawn(policy, reference), torch.zeros(1), length=1, kl_factor=2.0)
    assert ours == pytest.approx(kl(policy, reference)) != pytest.approx(kl(reference, policy))
    assert float(theirs) == pytest.approx(kl(reference, policy))


def test_a_baseline_takes_the_variance_out_of_the_gradient():
    """tinycatstories: no baseline; in a toy bandit its gradient has 6.3 times the variance of one with it."""
    reward = torch.tensor([2.1, 3.0, 2.4], dtype=torch.double)
    mean, variance = mean_gradient(4, "k1", kl_coef=0.0, reward=reward)
    without, variance_without = mean_gradient(4, "k1", kl_coef=0.0, reward=reward, baseline=False)
    torch.testing.assert_close(mean, without, atol=1e-12, rtol=0)
    assert variance_without > 5 * variance


def test_all_tokens_of_the_stories_take_one_pass_with_a_graph(monkeypatch):
    """tinycatstories: no cache, and a graph of every prefix is kept: the cost grows with the square of the length."""
    passes, hidden = [], Llama.hidden

    def counted(self: Llama, ids_BT: torch.Tensor, *more: object) -> torch.Tensor:
        passes.append(tuple(ids_BT.shape))
        return hidden(self, ids_BT, *more)

    written = roll_outs(12)
    monkeypatch.setattr(Llama, "hidden", counted)
    found_NV = rollouts.logprobs(network(), written, temperature=1.0, dtype=torch.float32)
    assert found_NV.requires_grad and len(passes) == 1
    logprobs = [value for each in written for value in each.completion.logprobs]
    ids_N, _ = rollouts.generated(written)
    assert found_NV.gather(1, ids_N[:, None])[:, 0].tolist() == pytest.approx(logprobs, abs=1e-4)


def test_alignment_has_a_seed_held_out_prompts_and_a_row_for_every_story(aligning):  # noqa: F811
    """tinycatstories: no seed, no held-out prompts, no record of what was written; wandb is off."""
    made = build(align.STAGE, test_align.small(updates=2), aligning, align.align)
    rows = made.table(table="rollouts").to_pylist()
    assert len(rows) == 2 * 3 * 4 and all(row["text"] is not None and row["prompt"] for row in rows)
    held_out = {f"Write {row['summary']}" for row in tiny.stories().to_pylist() if row["split"] == "val"}
    train = {f"Write {row['summary']}" for row in tiny.stories().to_pylist() if row["split"] == "train"}
    assert {row["prompt"] for row in rows} <= train and held_out - train
    assert {"reward_before", "reward_after"} <= set(made.facts)
    delete(made.stage, made.name)
    assert build(align.STAGE, test_align.small(updates=2), aligning, align.align).fingerprint == made.fingerprint


def test_cat_cat_cat_breaks_a_guard():
    """tinycatstories: "says cat a lot, maybe too much": its own page shows the reward being cheated."""
    stories = ["Tom took a ball to the park. A little cat was there and it was sad.", "Mia saw a kite in the tree."]

    def health(texts: list[str], ended: bool = True) -> guards.Health:
        return guards.health(concept="cat", stories=texts, ended=[ended] * len(texts), reward=0.1)

    start, limits = health(stories), guards.Limits()
    assert guards.breaches(start, start=start, limits=limits) == []
    told_ = " ".join(guards.breaches(health(["cat cat cat cat cat cat"] * 2), start=start, limits=limits))
    assert "concept_per_100" in told_ and "distinct_2" in told_
    assert "share_ended" in " ".join(guards.breaches(health(stories, ended=False), start=start, limits=limits))


def test_the_reward_sees_whether_a_story_ends(aligning):  # noqa: F811
    """tinycatstories: the text is decoded without special tokens before it is rewarded: EOS may stand anywhere."""
    made = build(align.STAGE, test_align.small(updates=1, unfinished_penalty=0.5, max_new=3), aligning, align.align)
    rows = made.table(table="rollouts").to_pylist()
    shares = [test_align.share_of_e([""], [row["text"]])[0] for row in rows]
    lost = [share - row["reward"] for share, row in zip(shares, rows, strict=True)]
    assert lost == pytest.approx([0.0 if row["ended"] else 0.5 for row in rows])
    assert not all(row["ended"] for row in rows)


# ---- GeorgeLin200100/MP-ACL


def test_top_p_is_applied():
    """MP-ACL: the mask is computed and never used (model/llm.py:12-14)."""
    with torch.inference_mode():
        p_V = network()(torch.tensor([[1, 7, 9]]))[0, -1].softmax(-1)
    order = p_V.argsort(descending=True)
    nucleus = set(order[: int((p_V[order].cumsum(0) < 0.5).sum()) + 1].tolist())
    ids = Sampler(network()).generate([[1, 7, 9]] * 300, max_new=1, top_p=0.5, stop_ids={-1})
    assert {each.ids[0] for each in ids} <= nucleus < set(range(340))


def test_the_end_of_a_story_is_a_piece_that_no_text_spells_and_that_stops(tmp_path):
    """MP-ACL: <|endoftext|> is no registered piece, piece_to_id gives unk, stop_tokens is empty: always 1,024 tokens
    (tokenizer.py:13, run_me.py:102)."""
    for text in ("<|endoftext|>", "</s>", "<s>", "<unk>"):
        ids = pieces().encode(text)
        assert not {pieces().eos_id, pieces().bos_id, pieces().unk_id} & set(ids) and pieces().decode(ids) == text
    assert all(pieces().eos_id in Template(pieces()).stop_ids(layout) for layout in LAYOUTS)
    path = tmp_path / "stories.txt"
    path.write_text("Tom ran.\n<|endoftext|>\nMia sat.\n\nShe was glad.\n<|endoftext|>\n")
    config = ingest.IngestConfig(path=str(path))
    made = build(ingest.STAGE, config, {}, ingest.ingest, external=ingest.external(config))
    texts = made.table(["text"])["text"].to_pylist()
    assert [text.strip() for text in texts] == ["Tom ran.", "Mia sat.\n\nShe was glad."]


def test_held_out_stories_are_not_trained_on():
    """MP-ACL: it trains on the validation file and validates on nothing (run_me.py:78)."""
    made_of = tokenizer_of()
    opened = open_inputs(
        tokens=tokens_of(made_of), tokenizer=made_of, training=Training(steps=1, batch_size=2), row_length=128
    )
    train, val = (set(each.corpus.story_ids.to_pylist()) for each in (opened.batches, opened.held_out))
    assert train and val and not train & val
    learnt = learned()
    assert learnt.facts["stories"] <= sum(row["split"] == "train" for row in tiny.stories(60).to_pylist())


def test_the_learning_rate_does_not_flip():
    """MP-ACL: a cosine over epochs that is stepped at every batch: 3e-5 and 3e-4 by turns (trainer.py:35,49)."""
    training = PRESETS["mpacl"]().pretrain
    rates = [training.lr * lr_share(step, training=training) for step in range(0, training.steps)]
    assert rates[0] == pytest.approx(3e-4) and rates[-1] == pytest.approx(3e-5)
    assert all(after <= before for before, after in zip(rates, rates[1:], strict=False))
    assert max(before / after for before, after in zip(rates, rates[1:], strict=False)) < 1.01


def test_an_epoch_takes_every_token_once():
    """MP-ACL: windows with a stride of 1: one epoch of 4.93 million tokens is 631.6 million, each about 128 times."""
    corpus = Corpus(tokens=tokens_of(tokenizer_of()), split="train")
    batches = Batches(corpus=corpus, row_length=128, batch_size=1)
    rows = [batches.batch(step) for step in range(batches.plan(0).num_rows)]
    assert sum(batch.num_targets for batch in rows) == int((corpus.length - 1).sum())
    assert sorted(n for step in range(len(rows)) for n in batches.stories_of(step)[0]) == list(range(len(corpus)))


def test_what_fills_up_a_batch_is_never_seen():
    """MP-ACL: prompts are filled up on the left with a piece that training never showed (run_me.py:22-27)."""
    sampler, prefixes = Sampler(network()), [[1], [1, 7, 9, 4, 22, 8, 3, 3, 3, 30], [2, 5]]
    together = sampler.generate(prefixes, max_new=10, temperature=0, stop_ids={-1})
    for prefix, completion in zip(prefixes, together, strict=True):
        with torch.inference_mode():
            scores = network()(torch.tensor([prefix + completion.ids]))[0].log_softmax(-1)
        own = [float(scores[len(prefix) - 1 + n, i]) for n, i in enumerate(completion.ids)]
        assert completion.logprobs == pytest.approx(own, abs=1e-4)


def test_swiglu_multiplies():
    """MP-ACL: its "SwiGLU" adds, "for simplicity" (transformer.py:84)."""
    torch.manual_seed(0)
    layer, x_BTD = FeedForward(SHAPE, 0.0), torch.randn(1, 5, SHAPE.d_model)
    assert layer(x_BTD).abs().max() > 0
    for gone in ("w1", "w3"):
        halved = FeedForward(SHAPE, 0.0)
        nn.init.zeros_(getattr(halved, gone).weight)
        assert not halved(x_BTD).any()


@pytest.mark.parametrize("explicit", [False, True])
def test_scores_are_divided_by_the_root_of_a_heads_width(explicit):
    """MP-ACL: they are divided by the root of the model's width."""
    torch.manual_seed(0)
    shape = SHAPE.model_copy(update={"n_kv_heads": 4, "n_layers": 1})
    model, ids_BT = Llama(shape).eval(), torch.tensor([[1, 7, 9, 4, 22, 8]])
    (block,), model.explicit_attention = model.layers, explicit
    nn.init.normal_(block.attention.wq.weight, std=1.0)
    nn.init.normal_(block.attention.wo.weight, std=1.0)
    cos_TC, sin_TC = rope_tables(length=6, head_dim=shape.head_dim, theta=1e4)
    x_BTD = model.tok_embeddings(ids_BT)
    normed_BTD = block.attention_norm(x_BTD)

    def heads(layer: nn.Linear) -> torch.Tensor:
        return layer(normed_BTD).view(1, 6, 4, shape.head_dim).transpose(1, 2)

    layer, later = block.attention, torch.ones(6, 6, dtype=torch.bool).triu(1)
    q, k = (rotate(heads(each), cos_TC=cos_TC, sin_TC=sin_TC) for each in (layer.wq, layer.wk))
    scores = (q @ k.transpose(2, 3) / math.sqrt(shape.head_dim)).masked_fill(later, -math.inf).softmax(-1)
    x_BTD = x_BTD + layer.wo((scores @ heads(layer.wv)).transpose(1, 2).reshape(1, 6, shape.d_model))
    by_hand = model.norm(x_BTD + block.feed_forward(block.ffn_norm(x_BTD)))
    torch.testing.assert_close(model.hidden(ids_BT), by_hand, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_story_ends_once_however_many_lines_it_has(layout):
    """MP-ACL: an EOS after every line (dataset.py:16-18)."""
    ids, num_prompt = Template(pieces()).training(layout, "Write a story", "Tom ran.\n\nMia sat.\nThey were glad.")
    assert ids[num_prompt:].count(pieces().eos_id) == 1 and ids[-1] == pieces().eos_id


def test_the_model_has_the_size_that_is_said_and_the_run_its_length():
    """MP-ACL: 12.6M in the README, 8 layers and 24,142,080 in the configuration, and a `break` at step 5,000 in the
    code (run_me.py:58, trainer.py:54)."""
    with torch.device("meta"):
        model = Llama(choices.shape_of(PRESETS["mpacl"]()))
    assert sum(weight.numel() for weight in model.parameters()) == 12_597_504
    made = pretrained(steps=7)
    about = load_model(made.path)
    assert made.facts["num_params"] == sum(weight.numel() for weight in about.parameters())
    assert made.table(table="train_steps")["step"].to_pylist() == list(range(1, 8))


def test_a_vocabulary_is_learned_once():
    """MP-ACL: retrain_tokenizer=True writes another tokenizer over the old one in every run."""
    first = learned()
    written = first.file("tokenizer.model").stat()
    again = learned()
    assert again.name == first.name and again.file("tokenizer.model").stat() == written
    other = learned(vocab_size=320)
    assert other.name != first.name and first.file("tokenizer.model").exists()


# ---- tatsu-lab/stanford_alpaca


@pytest.mark.parametrize("status", [401, 400, 404])
def test_what_cannot_get_better_is_not_asked_again(data_root, status):
    """Alpaca: `while True` around every error, a wrong key and an invalid request included (utils.py:99)."""
    with FakeTeacher(lambda request, times: failure(status)) as teacher, pytest.raises(UserError):
        test_asking.see_through(data_root, teacher.base_url, test_asking.jobs(1))
    assert sum(teacher.calls.values()) == 1


def test_an_answer_is_added_to_what_is_there(data_root):
    """Alpaca: the whole regen.json is written anew after each request, not atomically (line 209)."""
    blank = dict.fromkeys(ledger.SCHEMA.names)
    with ledger.Writer(data_root) as writer:
        sizes = []
        for n in range(3):
            writer.append(blank | {"request_id": f"r{n}", "attempt": 1, "status": "ok", "raw": "x"})
            writer.flush()
            (path,) = ledger.folder_of(data_root).glob("*.jsonl")
            sizes.append(path.read_bytes())
    assert all(after.startswith(before) for before, after in zip(sizes, sizes[1:], strict=False))
    assert len(sizes[2]) > len(sizes[1]) > len(sizes[0]) > 0


def test_novelty_looks_at_few_pairs_in_one_process(monkeypatch):
    """Alpaca: a new process pool for each candidate (line 187), and every pair by ROUGE: 31 to 33 core-hours for 52,000
    instructions."""
    monkeypatch.setattr("multiprocessing.Pool", None)
    scored, all_of_it = [], Pool.scores

    def counted(self: Pool, words: object, rows: np.ndarray) -> np.ndarray:
        scored.append(len(rows))
        return all_of_it(self, words, rows)

    monkeypatch.setattr(Pool, "scores", counted)
    dice = np.random.default_rng(1)
    asked = [" ".join(f"w{n}" for n in dice.zipf(1.4, 12) % 400) for _ in range(400)]
    pool = Pool()
    for text in asked:
        pool.nearest(words_of(text), 1, 0.7)
        pool.add(words_of(text))
    assert sum(scored) < 0.05 * 400 * 399 / 2


def test_the_same_requests_are_made_again():
    """Alpaca: no seed: the seed tasks that a request shows are drawn anew each time."""
    tasks = [Task("", f"task {n}", "", "answer") for n in range(20)]
    shown = [selfinstruct.examples_for(tasks, number, 7, 3) for number in range(5)]
    assert shown == [selfinstruct.examples_for(tasks, number, 7, 3) for number in range(5)]
    assert shown != [selfinstruct.examples_for(tasks, number, 8, 3) for number in range(5)]


def test_every_request_has_its_cost(data_root):
    """Alpaca: no record of what was spent; "less than $500"."""
    with FakeTeacher(lambda request, times: told(request)) as teacher:
        price = Price(tokens_in=1.0, tokens_out=2.0)
        test_asking.see_through(data_root, teacher.base_url, test_asking.jobs(3), price=price)
    ended = [row for row in test_asking.rows(data_root) if row["status"] == "ok"]
    assert len(ended) == 3 and all(row["cost_microdollars"] == 100 * 1 + 50 * 2 for row in ended)
    assert all((row["tokens_in"], row["tokens_out"]) == (100, 50) for row in ended)


def test_the_prompt_numbers_nothing_and_any_numbering_is_read():
    """Alpaca: its prompt counts 1, 2, 3, 2, 3, 4 (prompt.txt)."""
    shown = selfinstruct.messages([Task("", f"Do thing {n}", "", "done") for n in "abc"], 4)[-1]["content"]
    listed = json.loads(shown[shown.index("{") : shown.index("\n}") + 2])["tasks"]
    assert len(listed) == 3 and not any(line[:1].isdigit() for line in shown.splitlines())
    lines = (f"{n}. Instruction: Name {what} kinds of birds\nInput: none\nOutput: {what}" for n, what in
             zip((1, 2, 3, 2, 3, 4), ("one", "two", "red", "old", "big", "new"), strict=True))  # fmt: skip
    read = selfinstruct.candidates("\n".join(lines), truncated=False)
    assert len(read) == 6 and all(fault is None for _, fault in read)


def test_answers_are_compared_too():
    """Alpaca: ROUGE on the instruction alone: the same answer may come any number of times."""
    words = " ".join(f"word{n}" for n in range(60))
    asked = ["Tell me about the sea and its many fish", "What do you know of large water"]
    assert test_novelty.dropped(test_novelty.judged(asked)) == {}
    made = build(
        test_dedup.STAGE, test_dedup.DedupConfig(), {"stories": test_dedup.clean_rows([words, words + " x"])},
        test_dedup.dedup,
    )  # fmt: skip
    assert made.table(table="_dropped")["kept_id"].to_pylist() == ["s000"]


@pytest.mark.parametrize("answer", [":-) yes", "\n\n- one", " two", "-", "7", "é🙂", ":", "#"])
@pytest.mark.parametrize("layout", WITH_REQUESTS)
def test_the_request_is_a_prefix_of_request_and_answer(layout, answer):
    """Alpaca: the source tokenised alone is no prefix of the whole in 13 of 175 seed tasks, 157 of 175 where the
    template ends in a blank."""
    template = Template(pieces())
    ids, num_prompt = template.training(layout, "Write a list", answer)
    alone, _ = template.training(layout, "Write a list", "")
    assert ids[:num_prompt] == alone[:num_prompt]
    assert pieces().decode(ids[num_prompt:]) == answer


# ---- tloen/alpaca-lora


def test_the_adapter_holds_what_was_trained(tmp_path):
    """alpaca-lora: the saved adapter is an empty file of 443 bytes (#334, #533)."""
    from safetensors.torch import load_file

    torch.manual_seed(0)
    model = Llama(SHAPE)
    added = lora.add_lora(model, rank=2, alpha=4.0, dropout=0.0, targets=("wq", "wv"))
    lora.save_adapter(model, tmp_path, rank=2, alpha=4.0)
    (path,) = tmp_path.glob("*.safetensors")
    weights = load_file(path)
    assert sum(each.numel() for each in weights.values()) == added > 0
    assert len(weights) == 2 * 2 * SHAPE.n_layers


def test_bos_and_eos_have_one_id_everywhere():
    """alpaca-lora: bos and eos are 0 in the configuration and 1 and 2 in the tokenizer (#279)."""
    ids = (pieces().bos_id, pieces().eos_id)
    given = {"model": tiny.model("align", seed=2), "tokenizer": tiny.tokenizer()}
    made = build(export.STAGE, export.ExportConfig(), given, export.export)
    for name in ("config.json", "generation_config.json"):
        written = json.loads(made.file(f"hf/{name}").read_bytes())
        assert (written["bos_token_id"], written["eos_token_id"]) == ids
    assert set(Template(pieces()).stop_ids("natural")) == set(ids)
    (first, *_) = sequences(tokenised(tiny.stories(10), "pretrain"))
    assert (first[0], first[-1]) == ids


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_end_is_learned_in_every_layout(layout):
    """alpaca-lora: it never stops (#357): where an EOS is missing or not scored, none is ever written."""
    table = tiny.stories(20)
    made = tokenised(table, layout)
    corpus = Corpus(tokens=made, split="train")
    lead = lead_of(Template(pieces()), layout)
    for loss_on in ("all", "story"):
        middle = int(np.median(corpus.length))  # half of them do not fit
        for row_length in (400, middle):
            batches = Batches(corpus=corpus, row_length=row_length, batch_size=1, lead=lead, loss_on=loss_on)
            steps = range(batches.plan(0).num_rows)
            ends = sum(int((batches.batch(step).targets_BT == pieces().eos_id).sum()) for step in steps)
            assert ends == batches.fits.sum() >= len(corpus) / 4


def test_the_order_of_the_stories_has_a_seed():
    """alpaca-lora: the shuffle before the split has none."""
    corpus = Corpus(tokens=tokens_of(tokenizer_of()), split="train")
    first, same, other = (
        [row.tolist() for row in Batches(corpus=corpus, row_length=128, batch_size=9, seed=seed).stories_of(0)]
        for seed in (4, 4, 5)
    )
    assert first == same != other


def test_what_is_too_long_goes_and_does_not_lose_its_end():
    """alpaca-lora and alpaca_lora_4bit (#28, #35, #39): an example that is cut has no EOS, and teaches not to stop."""
    table = tiny.stories(20)
    lengths = sorted(len(ids) for ids in sequences(tokenised(table, "natural")))
    made = tokenised(table, "natural", max_length=lengths[12])
    kept = sequences(made)
    assert 0 < len(kept) < 20 and all(ids[-1] == pieces().eos_id and len(ids) <= lengths[12] for ids in kept)
    gone = made.table(table="_dropped").to_pylist()
    assert len(gone) == 20 - len(kept) and {row["reason"] for row in gone} == {"too_long"}


# ---- the chatbot of seed 003


def test_the_block_ends_alike_in_training_and_in_chat():
    """Seed 003: trained on "### Response:" and the answer, asked with "### Response:\\n"."""
    template = Template(pieces())
    ids, num_prompt = template.training("alpaca", "Name a bird", "A hen.")
    assert template.prefix("alpaca", "Name a bird") == ids[:num_prompt]
    assert pieces().decode(ids[:num_prompt]).endswith("### Response:\n")


def test_every_answer_of_a_talk_ends():
    """Seed 003: no EOS between turns; from the third round on the model repeats itself."""
    talk = [Turn("Name a bird", "A hen."), Turn("Another", "An owl.")]
    ids, num_prompt = Template(pieces()).training("alpaca", "And one more", "A duck.", turns=talk)
    told_ = [[]]
    for i in ids:
        told_[-1].append(i)
        if i == pieces().eos_id:
            told_.append([])
    answers = [pieces().decode(each).rpartition("### Response:\n")[2].strip() for each in told_[:-1]]
    assert answers == ["A hen.", "An owl.", "A duck."] and told_[-1] == []
    assert Template(pieces()).prefix("alpaca", "And one more", turns=talk) == ids[:num_prompt]


def test_a_stop_string_ends_the_writing_itself():
    """Seed 003: no stop in few-shot mode: it writes to the limit and cuts afterwards, 16 s an answer."""
    assert SAMPLED["few-shot"].stop_strings
    prefix, decode = [1, 7, 9, 4], pieces().decode
    (free,) = Sampler(network()).generate([prefix], max_new=40, temperature=0, stop_ids={-1})
    stop = decode(free.ids[:6])[-2:]
    (found,) = Sampler(network()).generate(
        [prefix], max_new=40, temperature=0, stop_ids={-1}, stop_strings=(stop,), decode=decode
    )
    assert found.ended and len(found.ids) <= 6 and stop in decode(found.ids)


def test_answers_are_measured():
    """Seed 003: five ways to chat, and not a number about any of them."""
    split = tiny.publish("split", {"part-00000.parquet": tiny.stories()})
    given = {name: tiny.model(stage, seed=n) for n, (name, stage) in enumerate(MODELS.items())}
    given |= {"stories": split, "tokenizer": tiny.tokenizer()}
    config = evaluate.EvaluateConfig(loss_stories=4, instructions=3, max_new=8, reward="off")
    made = build(evaluate.STAGE, config, given, evaluate.evaluate)
    found = {(row["model"], row["metric"]) for row in made.table(table="metrics").to_pylist()}
    wanted = ("followed", "share_ended", "mean_words", "distinct_2", "bits_per_byte")
    assert found >= {(model, metric) for model in MODELS for metric in wanted}


# ---- the list

# system: fault, the test that answers it. One line for each that is known.
FAULTS: dict[str, dict[str, object]] = {
    "instruct_storyteller_tinyllama2": {
        "LoRA ignores rank, alpha and dropout": test_lora_has_the_rank_alpha_and_dropout_that_were_asked_for,
        "merging LoRA does nothing": test_merging_lora_merges,
        "trained and sampled in different forms": test_what_is_sampled_from_is_how_training_began,
        "--temperature and --top_k are not used": test_temperature_and_top_k_reach_the_draw,
        "an error in a worker vanishes": test_an_error_in_the_work_ends_the_stage,
        "no resume, no state of the loader": test_a_killed_run_goes_on_and_ends_the_same,
        "val may be copied in train": test_no_training_story_gives_a_held_out_one_away,
        "follows its own wording alone": test_a_request_is_understood_in_other_words,
    },
    "llama2.c": {
        "a resume trains on the same batches again": test_a_resumed_run_goes_on_behind_the_batches_it_has_seen,
        "one checkpoint, overwritten, only when val improves": (
            test_every_checkpoint_is_kept_whole_and_the_one_before_it_too
        ),
        "the scaled start is on w3": test_what_is_scaled_at_the_start_is_what_adds_to_the_residual_stream,
        "no cache, no stop": test_sampling_keeps_keys_and_values_and_stops_at_a_stop_id,
        "train_vocab waits for input": test_learning_the_vocabulary_asks_nobody,
        "pretokenize does everything again": test_more_stories_tokenise_the_new_part_alone,
        "pretokenize swallows errors": test_an_error_in_the_work_ends_the_stage,
        "uint16, and any tokenizer": test_ids_do_not_wrap_and_another_tokenizer_is_refused,
        "val is the first shard": test_what_is_held_out_comes_from_everywhere,
    },
    "tinycatstories": {
        "10 tokens are 4": test_so_many_new_tokens_are_as_many_new_tokens,
        "KL over the vocabulary": test_the_kl_is_in_nats_whatever_the_vocabulary,
        "KL from the reference": test_the_kl_goes_from_the_policy_to_the_reference,
        "no baseline": test_a_baseline_takes_the_variance_out_of_the_gradient,
        "no cache, a graph of every prefix": test_all_tokens_of_the_stories_take_one_pass_with_a_graph,
        "no seed, no held-out prompts, no record": (
            test_alignment_has_a_seed_held_out_prompts_and_a_row_for_every_story
        ),
        "cat cat cat": test_cat_cat_cat_breaks_a_guard,
        "the reward does not see EOS": test_the_reward_sees_whether_a_story_ends,
    },
    "MP-ACL": {
        "top-p is not applied": test_top_p_is_applied,
        "<|endoftext|> is unk, nothing stops": (test_the_end_of_a_story_is_a_piece_that_no_text_spells_and_that_stops),
        "trained on the validation file": test_held_out_stories_are_not_trained_on,
        "the learning rate flips": test_the_learning_rate_does_not_flip,
        "each token 128 times an epoch": test_an_epoch_takes_every_token_once,
        "filled up with a piece never seen": test_what_fills_up_a_batch_is_never_seen,
        "SwiGLU adds": test_swiglu_multiplies,
        "scores over the root of the width": test_scores_are_divided_by_the_root_of_a_heads_width,
        "an EOS a line": test_a_story_ends_once_however_many_lines_it_has,
        "other sizes in README and code, a break at 5,000": (
            test_the_model_has_the_size_that_is_said_and_the_run_its_length
        ),
        "a checkpoint at the end alone": test_a_killed_run_goes_on_and_ends_the_same,
        "the tokenizer is overwritten": test_a_vocabulary_is_learned_once,
    },
    "stanford_alpaca": {
        "every error is retried for ever": test_what_cannot_get_better_is_not_asked_again,
        "the whole output is written after each request": test_an_answer_is_added_to_what_is_there,
        "a pool of processes a candidate": test_novelty_looks_at_few_pairs_in_one_process,
        "every pair by ROUGE": test_novelty_looks_at_few_pairs_in_one_process,
        "no seed": test_the_same_requests_are_made_again,
        "no cost": test_every_request_has_its_cost,
        "1, 2, 3, 2, 3, 4": test_the_prompt_numbers_nothing_and_any_numbering_is_read,
        "ROUGE on the instruction alone": test_answers_are_compared_too,
        "the source is no prefix": test_the_request_is_a_prefix_of_request_and_answer,
    },
    "alpaca-lora": {
        "an empty adapter": test_the_adapter_holds_what_was_trained,
        "two sets of bos and eos": test_bos_and_eos_have_one_id_everywhere,
        "never stops": test_the_end_is_learned_in_every_layout,
        "a shuffle without seed": test_the_order_of_the_stories_has_a_seed,
        "no EOS where an example is cut": test_what_is_too_long_goes_and_does_not_lose_its_end,
    },
    "seed 003's chat bot": {
        "trained and asked in different blocks": test_the_block_ends_alike_in_training_and_in_chat,
        "no EOS between turns": test_every_answer_of_a_talk_ends,
        "no stop string": test_a_stop_string_ends_the_writing_itself,
        "no number": test_answers_are_measured,
    },
}


def test_every_fault_has_a_test_and_every_test_a_fault():
    """The list above against this module: nothing is missing, nothing stands alone, each says what was wrong."""
    answered = {test for faults in FAULTS.values() for test in faults.values()}
    here = {each for name, each in globals().items() if name.startswith("test_") and callable(each)}
    assert here - answered == {test_every_fault_has_a_test_and_every_test_a_fault}
    assert all(inspect.getdoc(test) for test in answered)
    assert {system: len(faults) for system, faults in FAULTS.items()} == {
        "instruct_storyteller_tinyllama2": 8,
        "llama2.c": 9,
        "tinycatstories": 8,
        "MP-ACL": 12,
        "stanford_alpaca": 9,
        "alpaca-lora": 5,
        "seed 003's chat bot": 4,
    }
