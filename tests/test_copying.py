"""The start that copies: one layer carries a token's embedding unchanged, the others are as they were."""

import torch

from lib.model.copying import start_copying
from lib.model.network import Llama
from lib.model.shape import Shape


def network(**more) -> Llama:
    torch.manual_seed(0)
    given = {
        "vocab_size": 50,
        "d_model": 32,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 4,
        "d_ff": 64,
        "max_length": 16,
    }
    return Llama(Shape(**given | more))


def test_value_and_output_projection_together_are_the_identity_times_the_strength():
    model = network()
    start_copying(model, strength=0.5)
    attention = model.layers[1].attention
    torch.testing.assert_close(attention.wo.weight @ attention.wv.weight, 0.5 * torch.eye(32))


def test_with_shared_value_heads_it_copies_what_the_heads_can_hold():
    model = network(n_kv_heads=2)
    start_copying(model, strength=0.5)
    attention = model.layers[1].attention
    values_THC = torch.randn(7, 32) @ attention.wv.weight.T
    repeated = values_THC.view(7, 2, 8).repeat_interleave(2, dim=1).flatten(1)
    held = torch.linalg.pinv(attention.wv.weight) @ attention.wv.weight  # the half of the width that two heads span
    torch.testing.assert_close(repeated @ attention.wo.weight.T, values_THC @ attention.wv.weight * 0.5)
    assert torch.linalg.matrix_rank(held) == 16


def test_only_the_middle_layer_changes_and_strength_nought_changes_nothing():
    plain, copying, off = network(), network(), network()
    start_copying(copying, strength=0.5)
    start_copying(off, strength=0.0)
    changed = {name for name, weight in copying.named_parameters() if not weight.equal(plain.state_dict()[name])}
    assert changed == {f"layers.1.attention.{name}.weight" for name in ("wq", "wk", "wv", "wo")}
    assert all(weight.equal(plain.state_dict()[name]) for name, weight in off.named_parameters())
