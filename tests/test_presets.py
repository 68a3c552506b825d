"""The presets are what their sources say: sizes, hyper-parameters; each can be planned, and learns at its true width.

Counts are taken from the network itself, built on torch's meta device, which needs no memory: not from Shape's formula.
"""

import pytest
import torch

from flows import wiring
from flows.__main__ import Overrides
from lib import stages
from lib.choice import Source, chosen, require_base
from lib.errors import UserError
from lib.model import loop, lora
from lib.model.batches import Batches, Corpus
from lib.model.network import Llama, Shape
from lib.model.training import Training
from lib.overrides import with_overrides
from lib.presets import PRESETS
from lib.store import Config, Draft, Stage, build
from lib.web import choices
from lib.web.plan import Plan
from tests.tiny_tokens import tokenizer_of, tokens_of

PARAMETERS = {
    "laptop": 1_251_712,  # our own
    "smoke": 45_216,
    "stories260k": 260_032,  # llama2.c's table, to the unit from its config
    "stories15m": 15_191_712,
    "stories42m": 41_689_600,
    "stories110m": 109_529_856,
    "mpacl": 12_597_504,  # its README
    "cs336": 22_696_448,  # the handout: about 17 million without the embedding, 22,696,448 - 10,000 x 512
    "cindy15m": 15_191_712,
    "natural": 7_155_360,
    "cats": 1_251_712,
    "alpaca": 6_738_415_616,  # Llama 7B
}
# What the source's own files say, as "stage.field": value. Steps are optimiser steps, batch_size rows in one of them.
LLAMA2C = {  # train.py's defaults: batch_size 128 x gradient_accumulation_steps 4, learning_rate 5e-4, max_iters 1e5,
    # weight_decay 1e-1, beta1 0.9, beta2 0.95, grad_clip 1.0, warmup_iters 1000, min_lr 0.0
    "pretrain.batch_size": 512,
    "pretrain.accumulate": 4,
    "pretrain.lr": 5e-4,
    "pretrain.steps": 100_000,
    "pretrain.weight_decay": 0.1,
    "pretrain.betas": (0.9, 0.95),
    "pretrain.clip": 1.0,
    "pretrain.warmup": 1000,
    "pretrain.schedule": "cosine",
    "pretrain.final_lr": 0.0,
    "pretrain.dropout": 0.0,
    "pretrain.optimizer": "adamw",
    "pretrain.copying": 0.0,
    "pretrain.tied": True,
    "tokenizer.vocab_size": 32_000,
}
QUOTED = {
    "stories260k": LLAMA2C
    | {  # doc/stories260K.md: --batch_size=128 --max_seq_len=512 --gradient_accumulation_steps=1 --vocab_size=512
        # --dim=64 --n_layers=5 --n_heads=8 --n_kv_heads=4 --multiple_of=4 --learning_rate=1e-3 --dropout=0.05
        # --weight_decay=0.01 --max_iters=100000 --beta2=0.99 --warmup_iters=1000
        "pretrain.batch_size": 128,
        "pretrain.accumulate": 1,
        "pretrain.max_length": 512,
        "pretrain.d_model": 64,
        "pretrain.n_layers": 5,
        "pretrain.n_heads": 8,
        "pretrain.n_kv_heads": 4,
        "pretrain.d_ff": 172,
        "pretrain.lr": 1e-3,
        "pretrain.dropout": 0.05,
        "pretrain.weight_decay": 0.01,
        "pretrain.betas": (0.9, 0.99),
        "tokenizer.vocab_size": 512,
    },
    "stories15m": LLAMA2C | {"pretrain.max_length": 256, "pretrain.d_model": 288, "pretrain.n_layers": 6},
    "stories42m": LLAMA2C
    | {  # README's table: 42M, dim 512, 8 layers, 8 heads, 8 kv heads, context 1024
        "pretrain.max_length": 1024,
        "pretrain.d_model": 512,
        "pretrain.n_layers": 8,
        "pretrain.n_heads": 8,
        "pretrain.batch_size": 128,
        "pretrain.accumulate": 8,
    },
    "stories110m": LLAMA2C
    | {  # README: "seq len of 1024, batch size 16, gradient_accumulation_steps = 8 … 131,072 tokens per update …
        # Learning rate 4e-4 … max_iters 200K … Dropout 0.1"
        "pretrain.max_length": 1024,
        "pretrain.d_model": 768,
        "pretrain.n_layers": 12,
        "pretrain.n_heads": 12,
        "pretrain.batch_size": 128,
        "pretrain.accumulate": 8,
        "pretrain.lr": 4e-4,
        "pretrain.steps": 200_000,
        "pretrain.dropout": 0.1,
    },
    "mpacl": {  # seq 128, dim 256, 8 heads, batch 512, dropout 0.1, 3e-4 down to 3e-5, unigram pieces, 9,637 steps
        "pretrain.max_length": 128,
        "pretrain.d_model": 256,
        "pretrain.n_layers": 4,
        "pretrain.n_heads": 8,
        "pretrain.batch_size": 512,
        "pretrain.dropout": 0.1,
        "pretrain.lr": 3e-4,
        "pretrain.final_lr": 0.1,
        "pretrain.steps": 9637,
        "tokenizer.vocab_size": 4096,
        "tokenizer.model_type": "unigram",
    },
    "cs336": {  # the handout: 10,000 pieces, context 256, 4 layers, 16 heads, width 512, d_ff 1344, RoPE theta 10,000
        "tokenizer.vocab_size": 10_000,
        "pretrain.max_length": 256,
        "pretrain.n_layers": 4,
        "pretrain.n_heads": 16,
        "pretrain.d_model": 512,
        "pretrain.d_ff": 1344,
        "pretrain.rope_theta": 10_000.0,
    },
    "cindy15m": {  # rank 2, alpha 1.0, dropout 0.1 on wq wk wo wv; 5000 iterations of 64 x 8 rows of 350, lr 5e-4
        "instructions.layout": "padded",
        "instructions.max_length": 350,
        "pretrain.max_length": 350,
        "instruct.method": "lora",
        "instruct.rank": 2,
        "instruct.alpha": 1.0,
        "instruct.dropout": 0.1,
        "instruct.targets": ("wq", "wk", "wo", "wv"),
        "instruct.loss_on": "story",
        "instruct.steps": 5000,
        "instruct.batch_size": 512,
        "instruct.accumulate": 8,
        "instruct.lr": 5e-4,
        "instruct.warmup": 1000,
        "instruct.eval_every": 100,
        "instruct.weight_decay": 0.1,
    },
    "natural": {  # prompt + [bos] + story + [eos], "except I don't pad, truncate or mask", llama2.c's train.py
        "instructions.layout": "natural",
        "instruct.loss_on": "all",
        "instruct.lr": 5e-4,
    },
    "cats": {  # reinforce.py: NUM_EPOCHS 100, BATCH_SIZE 1000, NUM_TOKENS 10, LR 1e-5, KL_FACTOR 6000,
        # torch's AdamW(lr=LR), no clipping; its model has 50,257 pieces, of which a nat of KL weighs 6000 / 50,257
        "align.form": "tinycatstories",
        "align.updates": 100,
        "align.prompts": ("Once upon a time there was",),
        "align.samples_per_prompt": 1000,
        "align.length": 10,
        "align.max_new": 4,
        "align.lr": 1e-5,
        "align.kl_factor": 6000 / 50_257 * 2048,
        "align.betas": (0.9, 0.999),
        "align.weight_decay": 0.01,
        "align.clip": None,
        "align.concept": "cat",
        "align.prompts_per_update": 1,
        "align.rewards": {"concept": 1.0},
        "align.temperature": 1.0,
        "align.warmup": 0,
    },
    "alpaca": {  # 7B: batch 128, lr 2e-5, 3 epochs, weight decay 0, warm-up 3 %, cosine, FSDP; 1,212 steps, 512 tokens
        "instructions.layout": "alpaca",
        "instructions.max_length": 512,
        "instruct.batch_size": 32,  # rows of 512, packed with tasks of 128 tokens
        "instruct.lr": 2e-5,
        "instruct.weight_decay": 0.0,
        "instruct.warmup": 36,
        "instruct.steps": 1212,
        "instruct.schedule": "cosine",
        "instruct.optimizer": "adamw",
        "instruct.sharding": "fsdp",
        "instruct.loss_on": "story",
    },
}


def network_of(name: str) -> Llama:
    with torch.device("meta"):
        return Llama(choices.shape_of(PRESETS[name]()))


def count(model: Llama) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_every_preset_has_its_count_and_its_source():
    assert set(PARAMETERS) == set(PRESETS)
    assert set(QUOTED) == set(PRESETS) - {"laptop", "smoke"}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters(name):
    assert count(network_of(name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", QUOTED)
def test_hyper_parameters_are_those_of_the_source(name):
    chain = PRESETS[name]()
    for path, quoted in QUOTED[name].items():
        stage, field = path.split(".")
        assert getattr(getattr(chain, stage), field) == quoted, path


def test_tokens_of_a_step_and_of_a_run_are_those_of_the_source():
    for name in ("stories15m", "stories42m", "stories110m"):
        pretrain = PRESETS[name]().pretrain
        assert pretrain.batch_size * pretrain.max_length == 131_072  # "131,072 tokens per update"
    tokens = {row[0]: row[3] for row in choices.rows()}
    assert tokens["cs336"] == 327_680_000
    assert tokens["mpacl"] == pytest.approx(631.6e6, rel=1e-3)
    assert tokens["alpaca"] == 1212 * 128 * 128


@pytest.mark.parametrize(
    ("name", "settings", "added"),
    [
        ("cindy15m", {}, 27_648),  # half of the 55,296 that its published "rank 2" has
        ("alpaca", {"rank": 8, "alpha": 16.0, "dropout": 0.05, "targets": ("wq", "wv")}, 4_194_304),  # alpaca-lora's
    ],
)
def test_lora_adds_what_its_rank_says(name, settings, added):
    config = PRESETS[name]().instruct
    settings = {field: getattr(config, field) for field in ("rank", "alpha", "dropout", "targets")} | settings
    with torch.device("meta"):
        model = network_of(name)
        assert lora.add_lora(model, **settings) == added
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == added


@pytest.mark.parametrize("name", PRESETS)
def test_each_can_be_planned_on_an_empty_data_folder(name):
    found = Plan()
    wiring.everything(chosen(Source(preset=name), None), found.do)
    assert {line.what for line in found.lines} == {"run"}
    assert {"pretrain", "instruct", "align", "export"} <= set(found.unmade)


def test_cats_are_aligned_from_the_base_model_on_openings():
    given: dict[str, dict] = {}

    def note(stage: str, config: Config, **inputs: object) -> str:
        given[stage] = inputs
        return f"{stage} {getattr(config, 'layout', '')}".strip()

    wiring.everything(PRESETS["cats"](), note)
    assert (given["align"]["model"], given["align"]["tokens"]) == ("pretrain", "tokens pretrain")
    wiring.everything(PRESETS["laptop"](), note)
    assert (given["align"]["model"], given["align"]["tokens"]) == ("instruct", "tokens natural")


def test_alpaca_without_a_base_model_is_refused():
    source = Source(preset="alpaca", stories="alpaca_data.json")
    with pytest.raises(UserError, match="the preset alpaca begins with a public base model, expected --adopt.path"):
        require_base(source, chosen(source, None))
    require_base(source, chosen(source, Overrides.model_validate({"adopt": {"path": "llama"}})))
    require_base(Source(preset="laptop"), PRESETS["laptop"]())


def test_the_table_says_how_large_each_is_and_what_it_needs():
    table = {row[0]: row for row in choices.rows()}
    assert {name: row[1] for name, row in table.items()} == PARAMETERS
    needs = {name: row[4] for name, row in table.items()}
    assert needs["laptop"] == needs["smoke"] == needs["cats"] == "a laptop"
    assert needs["stories15m"] == "text of 32,000 pieces, a GPU"
    assert needs["stories110m"] == "text of 32,000 pieces, several GPUs"
    assert needs["alpaca"] == "a base model, several GPUs"
    assert all(row[5].endswith(".") and len(row[5]) <= 120 for row in table.values())


def test_a_table_of_values_is_replaced_and_not_added_to():
    for name, rewards in (("cats", {"concept": 1.0}), ("smoke", {"words": 1.0})):
        assert PRESETS[name]().align.rewards == rewards
    assert PRESETS["laptop"]().align.rewards.keys() == {"concept", "words"}
    changed = with_overrides(PRESETS["laptop"](), {"align": {"rewards": {"words": 2.0}, "updates": 3}})
    assert (changed.align.rewards, changed.align.updates) == ({"words": 2.0}, 3)
    assert changed.align.concept == PRESETS["laptop"]().align.concept


class TwoSteps(Config):
    preset: str


FEW = {"batch_size": 2, "accumulate": 1, "compile": "off", "threads": 1, "eval_stories": 2, "loader_workers": 0}
ROW = 16


def two_steps_of(name: str) -> tuple[Shape, Training]:
    """The network of a preset and its training, with few rows and short ones."""
    chain = PRESETS[name]()
    return choices.shape_of(chain), chain.pretrain.model_copy(update=FEW)


def alike() -> dict[str, list[str]]:
    """Presets by the first one with the same network and training; they differ in the length of a row alone."""
    names: dict[str, list[str]] = {}
    for name in PRESETS:
        shape, training = two_steps_of(name)
        row = {"max_length", "steps", "warmup", "eval_every", "checkpoint_every", "sharding", "processes"}
        fields = shape.model_dump() | training.model_dump() | {"warmed": training.warmup > 0}
        names.setdefault(repr(sorted((key, value) for key, value in fields.items() if key not in row)), []).append(name)
    return {first: [first, *rest] for first, *rest in names.values()}


def test_presets_that_train_alike_take_their_two_steps_once():
    assert {tuple(names) for names in alike().values() if len(names) > 1} == {
        ("laptop", "cats"),
        ("stories15m", "cindy15m"),
    }


@pytest.mark.chain
@pytest.mark.parametrize("name", [name for name in alike() if name != "alpaca"])  # 7B: 27 GB of weights alone
def test_two_steps_at_true_width(name):
    """The loop itself, on rows of 16 tokens of tiny stories; 110M take 1.8 GB."""
    shape, training = two_steps_of(name)
    given, made = tokens_of(tokenizer_of()), {}
    batches, held_out = (
        Batches(corpus=Corpus(tokens=given, split=split), row_length=ROW, batch_size=2) for split in ("train", "val")
    )

    def steps(draft: Draft, config: TwoSteps) -> None:
        torch.manual_seed(0)
        model = Llama(shape, training.dropout)
        before = {key: model.state_dict()[key].clone() for key in WATCHED}
        run = loop.set_up(draft=draft, model=model, training=training, batches=batches, held_out=held_out)
        for step in range(2):
            loop.take_step(run, step, batches.batch(step))
        made["moved"] = [bool((model.state_dict()[key] != before[key]).any()) for key in WATCHED]
        made["rows"] = run.log.rows["train_steps"]
        draft.write_text("done.txt", "two steps")

    build(Stage("pretrain", 1), TwoSteps(preset=name), {}, steps)
    assert made["moved"] == [True] * len(WATCHED)
    first, second = made["rows"]
    assert first["loss"] == pytest.approx(torch.tensor(float(shape.vocab_size)).log().item(), rel=0.1)
    assert second["loss"] < first["loss"] * 1.05 and second["grad_norm"] > 0


WATCHED = ("tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.0.feed_forward.w2.weight", "norm.weight")


@pytest.mark.chain
@pytest.mark.parametrize("name", ["cindy15m", "natural"])
def test_two_steps_of_instruct_at_true_width(name, data_root):
    """The stage itself: cindy15m's LoRA on padded rows, natural's packed ones. The vocabulary is the test's."""
    chain, tokenizer = PRESETS[name](), tokenizer_of()
    few = FEW | {"steps": 2, "max_length": 400, "precision": "fp32"}
    tokens = {layout: tokens_of(tokenizer, layout=layout) for layout in ("pretrain", chain.instructions.layout)}
    given = {"tokens": tokens["pretrain"], "tokenizer": tokenizer}
    base = stages.build("pretrain", chain.pretrain.model_copy(update=few), given)
    config = chain.instruct.model_copy(update=FEW | {"steps": 2, "joined": 1, "precision": "fp32"})
    asked = {"base": base, "tokens": tokens[chain.instructions.layout], "tokenizer": tokenizer}
    made = stages.build("instruct", config, asked)
    assert [row["loss"] > 0 for row in made.table(table="train_steps").to_pylist()] == [True, True]
    assert made.facts.get("trained_params") == {"cindy15m": 27_648, "natural": None}[name]
    assert made.fingerprint != base.fingerprint
