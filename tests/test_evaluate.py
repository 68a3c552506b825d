"""Evaluate: the same prompts for all models, losses that equal the training loop's, and numbers that close."""

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from lib.errors import UserError
from lib.model.batches import Batches, Corpus
from lib.model.metrics import distinct_2
from lib.model.network import load_model
from lib.model.scoring import Shelf, story_losses
from lib.stages.evaluate import STAGE, EvaluateConfig, asked_layout, evaluate, prompts_of, score_asked
from lib.store import build
from lib.text.openings import OPENINGS
from lib.text.requests import requests
from lib.text.rubric import JUDGE
from lib.text.template import LAYOUTS, SAMPLED, Template
from lib.text.tokenizer import Tokenizer
from tests import tiny

CONFIG = EvaluateConfig(instructions=4, max_new=20, reward="off")


@pytest.fixture
def pieces():
    return tiny.tokenizer()


@pytest.fixture
def models():
    return tiny.models()


@pytest.fixture
def done(models, pieces):
    stories = tiny.publish("split", {"part-00000.parquet": tiny.stories()})
    return build(STAGE, CONFIG, {**models, "stories": stories, "tokenizer": pieces}, evaluate)


def test_every_model_answers_the_same_prompts(done):
    rows = done.table(table="samples")
    by_model = {name: rows.filter(pc.field("model") == name) for name in ("base", "instruct", "aligned")}
    prompts = {name: table["prompt"].to_pylist() for name, table in by_model.items()}
    assert prompts["base"] == prompts["instruct"] == prompts["aligned"]
    assert prompts["base"][:25] == list(OPENINGS)
    assert all(text.startswith("Write a story about ") for text in prompts["base"][25:])
    assert len(prompts["base"]) == 29


def test_a_grade_says_that_no_language_model_gave_it(done):
    assert set(done.table(table="grades")["judge"].to_pylist()) == {JUDGE}
    assert "not a language model" in JUDGE


def test_bits_per_byte_sums_before_it_divides(done):
    metrics = {(row["model"], row["metric"]): row for row in done.table(table="metrics").to_pylist()}
    val = set(tiny.stories().filter(pc.field("split") == "val")["story_id"].to_pylist())
    rows = [
        row for row in done.table(table="story_loss").to_pylist() if row["model"] == "base" and row["story_id"] in val
    ]
    bits = sum(row["nats"] for row in rows) / math.log(2) / sum(row["bytes"] for row in rows)
    assert metrics["base", "bits_per_byte"]["value"] == pytest.approx(bits)
    assert metrics["base", "bits_per_byte"]["n"] == len(val)
    assert ("base", "reward_concept") not in metrics  # off: absent, not zero


def test_the_held_out_stories_themselves_follow_their_summaries(done):
    metrics = {(row["model"], row["metric"]): row["value"] for row in done.table(table="metrics").to_pylist()}
    assert metrics["reference", "followed_all"] == 1.0


def tasks() -> pa.Table:
    table = tiny.stories()
    columns = {
        "instruction": ["Which number?"] * len(table),
        "input": [str(n) if n % 2 else None for n in range(len(table))],
        "text": [f"The number is {n}." for n in range(len(table))],
        "summary": [None] * len(table),
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


@pytest.mark.parametrize("layout", ["natural", "padded", "alpaca"])
def test_a_story_is_scored_behind_what_the_layout_puts_before_it(layout, pieces):
    template = Template(Tokenizer.load(pieces.file("tokenizer.model")))
    network = load_model(tiny.model("instruct", seed=1, layout=layout, max_length=400).path)
    held = tiny.stories(3)
    scored = score_asked(network, held, template, layout)
    for row, ask in zip(held.to_pylist(), requests(held, layout)[0].to_pylist(), strict=True):
        ids, num_prompt = template.training(layout, ask, row["text"])
        ids = [2, *ids] if layout == "natural" else ids
        given = num_prompt + {"natural": 2, "padded": 1, "alpaca": 0}[layout]  # EOS before, BOS behind
        [expected] = story_losses(network, [ids], [1], [given])
        assert scored[row["story_id"]].nats == pytest.approx(expected.nats, rel=1e-5)
        assert scored[row["story_id"]].tokens == len(ids) - given


@pytest.mark.parametrize(("layout", "start"), [("padded", "Write a story. Summary: "), ("alpaca", "Write a story ab")])
def test_every_model_is_asked_in_the_layout_that_instruct_was_taught(layout, start, pieces):
    assert asked_layout(tiny.model("instruct", seed=1, layout=layout)) == layout
    assert asked_layout(tiny.model("instruct", seed=1, layout="pretrain")) == "natural"
    template = Template(Tokenizer.load(pieces.file("tokenizer.model")))
    asked = [p for p in prompts_of(tiny.stories(), 4, template, layout, 400) if p.kind == "instruction"]
    assert len(asked) == 4 and all(prompt.text.startswith(start) and prompt.summary for prompt in asked)


def test_tasks_are_compared_with_the_answers_held_out_and_not_graded_as_stories():
    stories = tiny.publish("split", {"part-00000.parquet": tasks()})
    models = {"base": tiny.model("pretrain", seed=0, layout="pretrain", max_length=400)}
    models |= {
        name: tiny.model("instruct", seed=1, layout="alpaca", max_length=400) for name in ("instruct", "aligned")
    }
    config = CONFIG.model_copy(update={"max_new": 8, "loss_stories": 4})
    done = build(STAGE, config, {**models, "stories": stories, "tokenizer": tiny.tokenizer()}, evaluate)
    metrics = {(row["model"], row["metric"]): row["value"] for row in done.table(table="metrics").to_pylist()}
    assert metrics["reference", "answer_rouge_l"] == 1.0 > metrics["instruct", "answer_rouge_l"]
    assert not {metric for _, metric in metrics if metric.startswith("followed")}
    assert set(done.table(table="grades")["kind"].to_pylist()) == {"opening"}
    prompts = done.table(table="samples").filter(pc.field("kind") == "instruction")["prompt"].to_pylist()
    assert "Which number?" in prompts and "Which number?\n5" in prompts
    assert all(row["asked_nats"] is not None for row in done.table(table="story_loss").to_pylist())


def test_requests_that_fill_a_row_are_left_out_and_their_answers_are_not_scored(pieces):
    """Here the blocks of alpaca with an input have more tokens than the rows of the model have positions."""
    template = Template(Tokenizer.load(pieces.file("tokenizer.model")))
    assert {prompt.kind for prompt in prompts_of(tasks(), 4, template, "alpaca", 160)} == {"opening"}
    network = load_model(tiny.model("instruct", seed=1, layout="alpaca").path)
    losses = score_asked(network, tasks().slice(0, 2), template, "alpaca")
    assert [losses[name].tokens > 0 for name in ("s000", "s001")] == [True, False]
    assert losses["s001"].nats == 0


def test_a_model_in_another_form_of_its_layout_is_refused(monkeypatch):
    models = {"instruct": tiny.model("instruct", seed=1, layout="padded")}
    monkeypatch.setitem(SAMPLED, "padded", dataclasses.replace(LAYOUTS["padded"], sampling=("<bos>", "<prompt>")))
    with pytest.raises(UserError, match="instruct .* was trained with the template .* of layout padded, not with"):
        stories = tiny.publish("split", {"part-00000.parquet": tiny.stories()})
        inputs = {**tiny.models(), **models, "stories": stories, "tokenizer": tiny.tokenizer()}
        build(STAGE, CONFIG, inputs, evaluate)


def test_two_runs_write_the_same_bytes(done, models, pieces):
    from lib.store import delete

    stories = tiny.publish("split", {"part-00000.parquet": tiny.stories()})
    delete("evaluate", done.name)
    again = build(STAGE, CONFIG, {**models, "stories": stories, "tokenizer": pieces}, evaluate)
    assert again.fingerprint == done.fingerprint


def test_story_losses_add_up_to_the_loss_of_the_training_loop(models, pieces):
    """Packed rows of several stories with a document mask, against one story a row; one story is longer than a row."""
    template = Template(Tokenizer.load(pieces.file("tokenizer.model")))
    texts = tiny.stories(12)["text"].to_pylist()
    texts[3] = " ".join(texts[:6])
    documents = [template.training("pretrain", "", text)[0] for text in texts]
    lengths = [len(ids) for ids in documents]
    index = pa.table(
        {
            "story_id": [str(n) for n in range(12)],
            "split": ["val"] * 12,
            "shard": np.zeros(12, np.int32),
            "offset": np.cumsum([0, *lengths[:-1]]),
            "length": np.array(lengths, np.int32),
            "prompt_length": np.zeros(12, np.int32),
            "text_bytes": np.array([len(text.encode()) for text in texts], np.int32),
            "layout": ["pretrain"] * 12,
        }
    )
    ids = np.concatenate(documents).astype(np.uint16).tobytes()
    tokens = tiny.publish("tokens", {"part-00000.parquet": index, "tokens-00000.bin": ids}, dtype="uint16")
    network = load_model(models["base"].path)
    assert max(lengths) > network.shape.max_length + 1
    batches = Batches(
        corpus=Corpus(tokens=tokens, split="val"),
        row_length=network.shape.max_length,
        batch_size=4,
        loss_on="evaluation",
    ).in_order()
    losses = story_losses(network, documents, [len(text.encode()) for text in texts])
    with torch.inference_mode():
        packed = [
            torch.nn.functional.cross_entropy(
                network(batch.ids_BT, batch.document_BT).flatten(0, 1),
                batch.targets_BT.flatten(),
                ignore_index=-1,
                reduction="sum",
            ).item()
            for batch in batches
        ]
    assert sum(loss.nats for loss in losses) == pytest.approx(sum(packed), rel=1e-5)
    assert sum(loss.tokens for loss in losses) == sum(batch.num_targets for batch in batches)
    assert sum(loss.bytes for loss in losses) == pytest.approx(sum(batch.text_bytes for batch in batches), abs=1)


def test_a_copied_text_is_seen_and_a_new_one_is_not():
    story = "One day, Tom's \u201cbig\u201d dog ran to the park and it didn\u2019t come back at all."
    shelf = Shelf([story, "a wholly different set of words that no training story ever held", "too short", ""])
    shelf.compare(pa.chunked_array([["Before. " + story.upper() + " After."], ["another one entirely"]]))
    assert shelf.copied() == [1.0, 0.0, None, None]
    assert "dog" in shelf.known


def test_shingles_do_not_reach_across_stories():
    shelf = Shelf(["one two three four five six seven eight"])
    shelf.compare(pa.chunked_array([["one two three four", "five six seven eight"]]))
    assert shelf.copied() == [0.0]


def test_distinct_2_counts_pairs_over_all_texts():
    assert distinct_2(["the cat sat", "the cat ran"]) == 0.75
    assert distinct_2(["cat"]) == 0.0


def test_another_tokenizer_is_refused(models, pieces, tmp_path):
    from lib.text import tokenizer

    tokenizer.train(tiny.NUMBERS * 3 + tiny.stories()["text"].to_pylist(), tmp_path / "other.model", 338)
    other = tiny.publish("tokenizer", {"tokenizer.model": (tmp_path / "other.model").read_bytes()}, other=True)
    stories = tiny.publish("split", {"part-00000.parquet": tiny.stories()})
    with pytest.raises(UserError, match="another tokenizer"):
        build(STAGE, CONFIG, {**models, "stories": stories, "tokenizer": other}, evaluate)
