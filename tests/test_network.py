"""The network is Llama 2: its size, its start, what it may see, and its way to the disk and back."""

import cmath
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.errors import UserError
from lib.model.network import (
    IGNORE,
    Llama,
    Shape,
    load_model,
    nats_per_target,
    rope_tables,
    rotate,
    save_model,
)

TINY = Shape(vocab_size=31, d_model=16, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=24, max_length=20)


def tiny(**changes: object) -> Llama:
    torch.manual_seed(5)
    return Llama(TINY.model_copy(update=changes)).eval()


def ids(rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(0, 31, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
def test_num_params_counts_what_is_there(tied):
    shape = TINY.model_copy(update={"tied": tied})
    assert shape.num_params == sum(weight.numel() for weight in Llama(shape).parameters())


def test_stories15m_has_the_size_of_llama2c():
    shape = Shape(vocab_size=32000, d_model=288, n_layers=6, n_heads=6, n_kv_heads=6, d_ff=768, max_length=256)
    assert shape.num_params == 15_191_712


def test_what_adds_to_the_residual_stream_starts_smaller():
    torch.manual_seed(0)
    model = Llama(TINY.model_copy(update={"d_model": 64, "d_ff": 192}))
    for block in model.layers:
        for weight in (block.attention.wo.weight, block.feed_forward.w2.weight):
            assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * 3), rel=0.1)
        for weight in (block.attention.wq.weight, block.feed_forward.w1.weight, block.feed_forward.w3.weight):
            assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.tok_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_token_sees_no_later_token():
    model, one = tiny(), ids()
    other = one.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 31
    assert torch.equal(model(one)[:, :7], model(other)[:, :7])
    assert not torch.allclose(model(one)[:, 7:], model(other)[:, 7:])


def test_a_story_in_a_packed_row_reads_as_if_it_stood_alone():
    model, row = tiny(), ids(rows=1)
    document = torch.tensor([[0] * 5 + [1] * 7])
    packed = model(row, document)
    assert torch.allclose(packed[:, :5], model(row[:, :5]), atol=1e-6)
    assert torch.allclose(packed[:, 5:], model(row[:, 5:]), atol=1e-6)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_explicit_attention_gives_the_numbers_of_sdpa(documents, kv_heads):
    model, rows = tiny(n_kv_heads=kv_heads), ids()
    document = torch.tensor([[0] * 5 + [1] * 7, [0] * 12]) if documents else None
    expected = model(rows, document)
    model.explicit_attention = True
    assert torch.allclose(model(rows, document), expected, atol=1e-4)


@pytest.mark.parametrize("block", [None, 4, 20])
@pytest.mark.parametrize("explicit", [False, True])
def test_a_row_of_several_stories_may_be_longer_than_any_story(explicit, block):
    model = tiny()
    document = torch.arange(60)[None] // 20
    row = ids(rows=1).repeat(1, 5)
    with pytest.raises(ValueError, match="60 tokens is longer than the model's max_length 20"):
        model(row, document)
    alone = [model(row[:, start : start + 20]) for start in (0, 20, 40)]
    model.reach(60)
    model.explicit_attention = explicit
    for layer in model.layers:
        layer.attention.block = block
    assert torch.allclose(model(row, document), torch.cat(alone, dim=1), atol=1e-5)
    model.explicit_attention = False
    with pytest.raises(ValueError, match="21 tokens is longer than the model's max_length 20"):
        model(row[:, :21])  # one story


def test_grouped_heads_equal_full_heads_with_repeated_weights():
    grouped, full = tiny(n_kv_heads=2), tiny(n_kv_heads=4)
    weights = grouped.state_dict()
    for name in [name for name in weights if name.endswith(("wk.weight", "wv.weight"))]:
        weights[name] = weights[name].view(2, 4, 16).repeat_interleave(2, dim=0).reshape(16, 16)
    full.load_state_dict(weights)
    assert torch.allclose(grouped(ids()), full(ids()), atol=1e-6)


def test_the_loss_leaves_ignored_targets_out():
    logits, targets = tiny()(ids()), ids().roll(-1, 1)
    targets[:, ::2] = IGNORE
    nats = nats_per_target(logits_BTV=logits, targets_BT=targets)
    assert (nats[:, ::2] == 0).all()
    mean = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert nats.sum().item() / 12 == pytest.approx(mean.item(), rel=1e-5)


def test_a_row_longer_than_the_shape_is_refused():
    with pytest.raises(ValueError, match="21 tokens is longer than the model's max_length 20"):
        tiny()(ids(length=21))


def test_a_shape_whose_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="n_heads 3"):
        Shape(**TINY.model_dump() | {"n_heads": 3})
    with pytest.raises(ValueError, match="n_kv_heads 3"):
        Shape(**TINY.model_dump() | {"n_kv_heads": 3})


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, tied):
    model = tiny(tied=tied)
    save_model(model, tmp_path, stage="pretrain")
    state = torch.get_rng_state()
    back = load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(back(ids()), model(ids()))
    assert json.loads((tmp_path / "model.json").read_text())["stage"] == "pretrain"
    assert (back.output.weight is back.tok_embeddings.weight) == tied


def test_saving_twice_writes_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(tiny(), tmp_path / name)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_files_that_are_no_model_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no model .*model\.json"):
        load_model(tmp_path)
    save_model(tiny(), tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["shape"]["d_ff"] = 32
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="does not fit the shape"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="holds no model"):
        load_model(tmp_path)


def test_rope_turns_channel_pairs_like_complex_numbers():
    cos_TC, sin_TC = rope_tables(length=9, head_dim=6, theta=100.0)
    x = torch.randn(1, 1, 9, 6, generator=torch.Generator().manual_seed(2))
    turned = rotate(x, cos_TC=cos_TC, sin_TC=sin_TC)
    for t in range(9):
        for pair in range(3):
            before = complex(x[0, 0, t, pair], x[0, 0, t, pair + 3])
            after = before * cmath.exp(1j * t * 100.0 ** (-2 * pair / 6))
            assert complex(turned[0, 0, t, pair], turned[0, 0, t, pair + 3]) == pytest.approx(after, abs=1e-5)


def test_modules_are_plain_linears():
    assert {type(module) for module in tiny().layers.modules() if hasattr(module, "in_features")} == {nn.Linear}


@pytest.mark.parametrize("explicit", [False, True])
def test_dropout_drops_in_training_alone_and_no_dropout_draws_nothing(explicit):
    def logits(dropout: float, train: bool) -> torch.Tensor:
        torch.manual_seed(5)
        model = Llama(TINY, dropout).train(train)
        model.explicit_attention = explicit
        torch.manual_seed(7)
        return model(ids())

    plain = logits(0.0, train=True)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(7).get_state())
    assert torch.equal(logits(0.3, train=False), plain)
    assert not torch.allclose(logits(0.3, train=True), plain, atol=1e-3)
    assert torch.equal(logits(0.3, train=True), logits(0.3, train=True))


def test_dropout_stands_where_llama2c_has_it():
    # After the embedding, on attention's weights, on what attention adds and on what the feed-forward layer adds.
    model = Llama(TINY, 0.3)
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == 1 + 3 * TINY.n_layers
    assert not any(isinstance(module, nn.Dropout) for module in tiny().modules())


@pytest.mark.parametrize("block", [None, 4, 5, 12])
@pytest.mark.parametrize("documents", [False, True])
def test_attention_in_blocks_of_queries_gives_the_numbers_of_whole_rows(block, documents):
    model, rows = tiny(), ids()
    document = torch.tensor([[0] * 5 + [1] * 7, [0] * 12]) if documents else None
    expected = model(rows, document)
    model.explicit_attention = True
    for layer in model.layers:
        layer.attention.block = block
    assert torch.allclose(model(rows, document), expected, atol=1e-5)


@torch.no_grad()
def test_flex_attention_gives_the_numbers_of_sdpa():
    # On a GPU it is compiled; its eager form runs anywhere, without gradients.
    model, rows, document = tiny(d_model=64), ids(), torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    expected = model(rows, document)
    model.flex_attention = True
    with pytest.warns(UserWarning, match="flex_attention called without torch.compile"):
        assert torch.allclose(model(rows, document), expected, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_gpu_compiled_flex_attention_trains_like_sdpa():
    rows, document = ids().cuda(), torch.tensor([[0] * 5 + [1] * 7, [0] * 12]).cuda()
    gradients = []
    for flex in (False, True):
        model = tiny(d_model=64).cuda()
        model.flex_attention = flex
        forward = torch.compile(model) if flex else model
        forward(rows, document).logsumexp(-1).sum().backward()
        gradients.append(model.layers[0].attention.wq.weight.grad)
    assert torch.allclose(*gradients, atol=1e-3)
