"""LoRA has the rank, alpha and dropout that were asked for, and merges into plain layers."""

import json

import pytest
import torch
from safetensors.torch import load, load_file
from torch import nn

from lib.model.lora import LoraLinear, add_lora, merge, peft, save_adapter
from lib.model.network import Llama, Shape
from lib.model.optim import Optimizer
from lib.model.shape import PROJECTIONS
from lib.model.training import Training

SHAPE = Shape(vocab_size=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24, max_length=20)
IDS = torch.arange(20)[None]


def with_lora(**changes: object) -> tuple[Llama, int]:
    torch.manual_seed(0)
    model = Llama(SHAPE).eval()
    return model, add_lora(model, **{"rank": 3, "alpha": 6.0, "dropout": 0.0, "targets": PROJECTIONS} | changes)


def trained(model: Llama) -> Llama:
    """As if it had learnt something."""
    for layer in model.modules():
        if isinstance(layer, LoraLinear):
            nn.init.normal_(layer.lora_b, std=0.1)
    return model


@pytest.mark.parametrize("rank", [1, 2, 8])
@pytest.mark.parametrize("targets", [PROJECTIONS, ("wq", "wv")])
def test_it_adds_rank_times_in_plus_out_parameters(rank, targets):
    model, added = with_lora(rank=rank, targets=targets)
    layers = [m for name, m in Llama(SHAPE).named_modules() if name.rpartition(".")[2] in targets]
    assert len(layers) == 2 * len(targets)
    assert added == rank * sum(layer.in_features + layer.out_features for layer in layers)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == added
    assert sum(weight.numel() for weight in model.parameters()) == SHAPE.num_params + added


def test_fifteen_million_parameters_at_rank_two_grow_by_27648():
    """wq, wk, wo and wv of llama2.c's 15M model: the count that instruct_storyteller_tinyllama2 meant to have."""
    shape = Shape(vocab_size=32000, d_model=288, n_layers=6, n_heads=6, n_kv_heads=6, d_ff=768, max_length=8)
    with torch.device("meta"):
        model = Llama(shape)
        assert add_lora(model, rank=2, alpha=1.0, dropout=0.1, targets=("wq", "wk", "wo", "wv")) == 27_648
    assert sum(weight.numel() for weight in model.parameters()) == 15_191_712 + 27_648


def test_it_starts_as_the_model_it_was_put_on():
    wrapped, _ = with_lora()
    torch.manual_seed(0)
    assert torch.equal(wrapped(IDS), Llama(SHAPE)(IDS))


def test_alpha_scales_the_addition():
    layers = [LoraLinear(nn.Linear(4, 4, bias=False), rank=2, alpha=alpha, dropout=0.0) for alpha in (2.0, 6.0)]
    for layer in layers:
        nn.init.zeros_(layer.base.weight), nn.init.ones_(layer.lora_a), nn.init.ones_(layer.lora_b)
    once, thrice = (layer(torch.ones(1, 4)) for layer in layers)
    assert torch.allclose(once, torch.full((1, 4), 8.0)) and torch.allclose(thrice, 3 * once)


def test_dropout_drops_inputs_of_the_addition_while_training_only():
    model, _ = with_lora(dropout=0.5)
    still = trained(model)(IDS)
    moving = model.train()(IDS)
    assert not torch.allclose(still, moving)
    assert torch.equal(still, model.eval()(IDS))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_either_optimiser_moves_the_addition_and_nothing_else(optimizer):
    model, added = with_lora()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model(IDS).square().mean().backward()
    training = Training(optimizer=optimizer, warmup=0, steps=3, weight_decay=0.0)
    Optimizer(model=model, training=training).step(0, loss=1.0, last_good=None)
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(name.endswith(".lora_b") for name in moved)  # lora_a has no gradient while lora_b is zero


def test_merging_leaves_plain_linears_and_the_same_logits():
    model = trained(with_lora()[0])
    before = model(IDS)
    assert not torch.allclose(before, with_lora()[0](IDS), atol=1e-3)
    merge(model)
    assert {type(m) for m in model.modules() if hasattr(m, "in_features")} == {nn.Linear}
    assert torch.allclose(model(IDS), before, atol=1e-5)
    assert set(model.state_dict()) == set(Llama(SHAPE).state_dict())
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_adapter_in_the_names_of_peft():
    model, _ = with_lora(targets=("wk", "w2"))
    weights = {name: weight.detach() for name, weight in trained(model).named_parameters() if ".lora_" in name}
    settings = {"rank": 3, "alpha": 6.0, "dropout": 0.5, "targets": ("wk", "w2")}
    files = peft(weights, settings)
    config = json.loads(files["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 6.0, 0.5)
    assert config["target_modules"] == ["down_proj", "k_proj"]
    theirs = load(files["adapter_model.safetensors"])
    places = [f"{part}_proj.lora_{ab}.weight" for part in ("self_attn.k", "mlp.down") for ab in "AB"]
    assert set(theirs) == {f"base_model.model.model.layers.{n}.{place}" for n in (0, 1) for place in places}
    ours = weights["layers.1.attention.wk.lora_b"]
    assert torch.equal(theirs["base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight"], ours)


def test_the_adapter_holds_the_addition_alone(tmp_path):
    model, added = with_lora(targets=("wq",))
    save_adapter(model, tmp_path, rank=3, alpha=6.0)
    weights = load_file(tmp_path / "adapter.safetensors")
    assert set(weights) == {f"layers.{n}.attention.wq.lora_{ab}" for n in (0, 1) for ab in "ab"}
    assert sum(weight.numel() for weight in weights.values()) == added
    assert json.loads((tmp_path / "adapter.json").read_text()) == {"rank": 3, "alpha": 6.0}
