"""Instruction tuning goes on from its base, fully or by LoRA, and refuses what does not belong together."""

import atexit
import dataclasses
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file

from lib.errors import UserError
from lib.model import compute
from lib.model.batches import Batches, Corpus
from lib.model.inputs import open_inputs
from lib.model.network import load_model
from lib.model.training import Training
from lib.stages.instruct import STAGE, InstructConfig, instruct
from lib.stages.pretrain import STAGE as PRETRAIN
from lib.stages.pretrain import PretrainConfig, pretrain
from lib.store import Dataset, build
from lib.text.template import LAYOUTS, SAMPLED, Block
from tests.test_pretrain import TINY as BASE
from tests.tiny_tokens import tokenizer_of, tokens_of

TINY = {name: BASE[name] for name in ("batch_size", "warmup", "checkpoint_every", "compile", "threads")}
TINY |= {"steps": 6, "eval_every": 3, "lr": 1e-2, "rank": 2, "alpha": 4.0}


@cache
def made_once(layout: str) -> Path:
    """A data folder with the inputs of `layout`; the base is trained once per test run."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORYMILL_DATA", folder)
        built(layout)
    return Path(folder)


def built(layout: str) -> dict[str, Dataset]:
    tokenizer = tokenizer_of()
    given = {"tokens": tokens_of(tokenizer), "tokenizer": tokenizer}
    longer = {"max_length": 256, "steps": 1} if layout == "alpaca" else {}  # its blocks alone have 130 tokens here
    base = build(PRETRAIN, PretrainConfig(**BASE | longer), given, pretrain)
    return {"base": base, "tokens": tokens_of(tokenizer, layout=layout), "tokenizer": tokenizer}


def inputs(layout: str = "natural") -> dict[str, Dataset]:
    """Copies in this test's data folder, where they are found."""

    def missing(source: str, target: str) -> None:  # what is there may be mapped into memory
        if not Path(target).exists():
            shutil.copy2(source, target)

    shutil.copytree(made_once(layout), os.environ["STORYMILL_DATA"], copy_function=missing, dirs_exist_ok=True)
    return built(layout)


def run(layout: str = "natural", **changes: object) -> Dataset:
    return build(STAGE, InstructConfig(**TINY | changes), inputs(layout), instruct)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_starts_from_its_base_and_learns(method):
    made = run(method=method)
    losses = made.table(table="train_steps")["loss"].to_pylist()
    assert losses[-1] < losses[0] < 5.0  # a new model starts at ln 330 = 5.8
    about = json.loads(made.file("model.json").read_text())
    assert (about["layout"], about["stage"]) == ("natural", "instruct")
    assert load_model(made.path).shape == load_model(inputs()["base"].path).shape


def test_lora_leaves_the_base_as_it_is_and_merges_what_it_learnt():
    made, base = run(method="lora", targets=("wq", "wv")), load_model(inputs()["base"].path).state_dict()
    merged = load_model(made.path).state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {f"layers.{n}.attention.{w}.weight" for n in (0, 1) for w in ("wq", "wv")}
    adapter = load_file(made.file("adapter.safetensors"))
    name = "layers.1.attention.wq"
    addition = 2.0 * adapter[f"{name}.lora_b"] @ adapter[f"{name}.lora_a"]  # alpha / rank = 2
    assert torch.allclose(base[f"{name}.weight"] + addition, merged[f"{name}.weight"], atol=1e-6)
    assert json.loads(made.file("adapter.json").read_text())["rank"] == 2
    assert made.facts["trained_params"] == sum(weight.numel() for weight in adapter.values())


class Stopped(Exception):
    """Stands for a kill: it comes from outside, between two steps."""


def test_dropout_goes_on_where_it_was_when_a_run_is_stopped(data_root, monkeypatch):
    undisturbed = run(method="lora", dropout=0.3)
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "again"))

    def stop(text: str, done: float | None, total: float | None) -> None:
        if done == 5:
            raise Stopped

    config, given = InstructConfig(**TINY, method="lora", dropout=0.3), inputs()
    with pytest.raises(Stopped):
        build(STAGE, config, given, instruct, on_progress=stop)
    torch.rand(7)  # whoever comes next finds the generator elsewhere
    assert run(method="lora", dropout=0.3).fingerprint == undisturbed.fingerprint


def test_held_out_stories_are_scored_without_dropout():
    made, given = run(method="lora", dropout=0.5), inputs()
    training = Training(steps=1, batch_size=4, compile="off", threads=1)
    opened = open_inputs(tokens=given["tokens"], tokenizer=given["tokenizer"], training=training, row_length=128)
    machine = compute.prepare(model=(model := load_model(made.path)), training=training, row_length=128)
    assert not model.training
    with torch.no_grad():
        nats = sum(machine.nats(b.ids_BT, b.document_BT, b.targets_BT).item() for b in opened.held_out.in_order())
    expected = nats / sum(batch.num_targets for batch in opened.held_out.in_order())
    assert made.facts["nats_per_token"] == pytest.approx(expected, rel=1e-4)


def test_loss_on_the_story_alone_differs_from_loss_on_all():
    whole, own = (run(loss_on=what).table(table="train_steps")["loss"].to_pylist() for what in ("all", "story"))
    assert whole[0] != own[0]


@pytest.mark.parametrize(("layout", "own"), [("natural", "all"), ("padded", "story"), ("alpaca", "story")])
def test_the_layout_says_what_is_scored_if_nothing_else_does(layout, own):
    losses = {
        what: run(layout, steps=2, loss_on=what).table(table="train_steps")["loss"].to_pylist()
        for what in ("layout", "all", "story")
    }
    assert losses["layout"] == losses[own] and losses["all"] != losses["story"]
    assert json.loads(run(layout, steps=2).file("model.json").read_text())["layout"] == layout


def test_a_padded_row_holds_one_story_scored_from_its_bos_to_its_eos():
    given = inputs("padded")
    training = Training(steps=1, batch_size=4, compile="off", threads=1)
    opened = open_inputs(tokens=given["tokens"], tokenizer=given["tokenizer"], training=training, row_length=128)
    corpus, batch, [*rows] = opened.batches.corpus, opened.batches.batch(0), opened.batches.stories_of(0)
    assert [len(row) for row in rows] == [1, 1, 1, 1]
    for b, (story,) in enumerate(rows):
        ids, num_prompt = corpus.ids(story).tolist(), int(corpus.prompt_length[story])
        expected = [-1] * (num_prompt - 1) + ids[num_prompt:]
        assert expected[num_prompt - 1] == 1 and expected[-1] == 2  # BOS and EOS are learned
        assert batch.targets_BT[b].tolist() == expected + [-1] * (batch.targets_BT.shape[1] - len(expected))
    assert batch.ids_BT.shape[1] <= 128


def test_a_padded_row_has_one_story_however_much_room_is_left():
    corpus = Corpus(tokens=inputs("padded")["tokens"], split="train")
    rows = Batches(corpus=corpus, row_length=512, batch_size=8, packed=False).plan(0)
    assert rows.num_rows == len(corpus) and sorted(rows.pieces[:, 0].tolist()) == list(range(len(corpus)))


def test_answers_alone_are_scored_in_alpaca():
    given = inputs("alpaca")
    training = Training(steps=1, batch_size=4, compile="off", threads=1)
    opened = open_inputs(tokens=given["tokens"], tokenizer=given["tokenizer"], training=training, row_length=256)
    corpus, batch = opened.batches.corpus, opened.batches.batch(0)
    answers = [corpus.ids(s)[corpus.prompt_length[s] :].tolist() for row in opened.batches.stories_of(0) for s in row]
    scored = batch.targets_BT[batch.targets_BT != -1].tolist()
    assert scored == [token for answer in answers for token in answer]


def test_prompts_that_leave_no_room_for_an_answer_are_named():
    short = inputs("alpaca") | {"base": inputs("natural")["base"]}
    with pytest.raises(UserError, match="12 of 12 held-out sequences whose prompt alone fills a row of 128 .*larger"):
        build(STAGE, InstructConfig(**TINY), short, instruct)


def test_examples_longer_than_the_base_can_read_are_dropped_by_default_and_can_be_queried():
    given = inputs()
    config = PretrainConfig(**BASE | {"max_length": 45, "steps": 1})
    plain = {"tokens": tokens_of(given["tokenizer"]), "tokenizer": given["tokenizer"]}
    short = given | {"base": build(PRETRAIN, config, plain, pretrain)}
    said: list[str] = []
    made = build(STAGE, InstructConfig(**TINY), short, instruct, on_progress=lambda text, *_: said.append(text))
    train = given["tokens"].table().filter(pc.field("split") == "train")
    long = train.filter(pc.field("length") > 45)["story_id"].to_pylist()  # with the lead it fills `length` positions
    gone = made.table(table="_dropped")
    assert sorted(gone["story_id"].to_pylist()) == sorted(long) and set(gone["reason"].to_pylist()) == {"too_long"}
    assert (made.manifest["counts"]["too_long"], made.manifest["counts"]["train_stories"]) == (
        len(long),
        48 - len(long),
    )
    assert any(f"{len(long)} stories left out as too_long" in text for text in said)
    assert not set(made.table(table="seen")["story_id"].to_pylist()) & set(long)


def test_joined_rows_hold_as_many_positions_and_are_fuller():
    plain, joined = run(), run(joined=4)
    rows = [set(made.table(table="seen")["row"].to_pylist()) for made in (plain, joined)]
    assert rows == [{0, 1, 2, 3}, {0}]
    assert joined.facts["fill"] > plain.facts["fill"]
    losses = joined.table(table="train_steps")["loss"].to_pylist()
    assert losses[-1] < losses[0] < 5.0
    padded = [run("padded", joined=j).table(table="seen")["row"].to_pylist() for j in (1, 4)]
    assert padded[0] == padded[1]  # one story a row: nothing to join


def test_tokens_or_a_base_in_another_form_of_their_layout_are_refused(monkeypatch):
    given = inputs("alpaca")
    other = dataclasses.replace(LAYOUTS["alpaca"], again=Block("Next: {instruction}"))
    monkeypatch.setitem(SAMPLED, "alpaca", other)
    with pytest.raises(UserError, match="with the template [0-9a-f]{12} of layout alpaca, not with [0-9a-f]{12}; make"):
        build(STAGE, InstructConfig(**TINY), given, instruct)
    monkeypatch.setitem(SAMPLED, "pretrain", dataclasses.replace(LAYOUTS["pretrain"], sampling=("<eos>", "<prompt>")))
    with pytest.raises(UserError, match="pretrain/.* was trained with the template .* of layout pretrain"):
        build(STAGE, InstructConfig(**TINY), given, instruct)


def test_a_base_of_another_tokenizer_is_refused():
    other = tokenizer_of(vocab_size=320)
    with pytest.raises(UserError, match="was trained with the tokenizer"):
        build(STAGE, InstructConfig(**TINY), inputs() | {"tokenizer": other}, instruct)
