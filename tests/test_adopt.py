"""A public model is adopted as it is: the numbers of llama2.c's files and of transformers, or a refusal by name."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.adopted import measure
from lib import stages
from lib.errors import UserError
from lib.model import huggingface, llama2c, llama2c_reading
from lib.model.inputs import lead_of, require_same
from lib.model.network import load_model
from lib.stages.adopt import AdoptConfig
from lib.store import newest_of
from lib.text.pieces import packed
from lib.text.template import Template
from lib.text.tokenizer import Tokenizer
from tests import runs, tiny
from tests.byte_level import END, byte_level_json

DATA = Path(__file__).parents[2] / "shared/data"
PEERS, REAL = DATA / "peers", DATA / "tinystories/valid.jsonl"
needs_peers = pytest.mark.skipif(not (PEERS / "stories260K.bin").exists(), reason="no stories260K.bin on this machine")
needs_stories = pytest.mark.skipif(not REAL.exists(), reason="no real stories on this machine")


def adopted(path: object, **config: object):
    return stages.build("adopt", AdoptConfig(path=str(path), **config), {})


# ---- llama2.c


def parts_of(tied: bool = True) -> tuple[dict, dict[str, np.ndarray], bytes]:
    """Shape, weights and tokenizer of a tiny model of ours."""
    model = tiny.model("pretrain", seed=3, tied=tied, layout="pretrain")
    weights = {name: weight.numpy() for name, weight in load_file(model.file("model.safetensors")).items()}
    return (
        json.loads(model.file("model.json").read_bytes())["shape"],
        weights,
        model.file("tokenizer.model").read_bytes(),
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("write", [llama2c.version0, llama2c.version1], ids=["v0", "v1"])
def test_what_is_written_for_llama2c_is_read_back_to_the_bit(tmp_path, tied, write):
    shape, weights, pieces = parts_of(tied)
    (tmp_path / "model.bin").write_bytes(write(weights, shape))
    (tmp_path / "tokenizer.bin").write_bytes(llama2c.tokenizer_bin(pieces))
    made = adopted(tmp_path / "model.bin")
    back = load_file(made.file("model.safetensors"))
    assert set(back) == set(weights) and all(np.array_equal(back[name].numpy(), weights[name]) for name in weights)
    assert json.loads(made.file("model.json").read_bytes())["shape"] == shape
    ours, theirs = Tokenizer(pieces), Tokenizer.load(made.file("tokenizer.model"))
    for text in tiny.stories(20)["text"].to_pylist() + ["", " a  b ", "<s> </s>", "日本語", "\n"]:
        assert theirs.encode(text) == ours.encode(text)
        assert theirs.decode(theirs.encode(text)) == text


def test_an_adopted_model_is_the_base_that_people_sample_and_export(tmp_path):
    from lib.web.engine import MODELS, Asking, engine_of
    from lib.web.exporting import export

    shape, weights, pieces = parts_of()  # publishes a pretrained model, too: the last one made is meant
    (tmp_path / "model.bin").write_bytes(
        llama2c.version0({name: weight + 1 for name, weight in weights.items()}, shape)
    )
    (tmp_path / "tokenizer.bin").write_bytes(llama2c.tokenizer_bin(pieces))
    made = adopted(tmp_path / "model.bin")
    assert newest_of(MODELS["base"]) == made
    telling = engine_of("base").tell(Asking("Once", mode="opening", max_tokens=5))
    assert list(telling) and telling.tokens
    export(tmp_path / "mine", "base")
    assert (tmp_path / "mine/llama2c/model.bin").read_bytes() == (tmp_path / "model.bin").read_bytes()


def test_quantised_weights_are_multiplied_out():
    shape, weights, _ = parts_of()
    read, back = llama2c_reading.network(llama2c.q8_0(weights, shape))
    assert read["vocab_size"] == shape["vocab_size"] and set(back) == set(weights)
    for name, weight in weights.items():
        if weight.ndim == 2:
            _, scales = llama2c.quantized(weight, 32)
            assert 0 < np.abs(back[name] - weight).max() <= scales.max() / 2 + 1e-6
        else:
            assert np.array_equal(back[name], weight)


def test_a_bin_that_is_cut_or_another_file_is_refused(tmp_path):
    shape, weights, pieces = parts_of()
    whole = llama2c.version0(weights, shape)
    for data, told in (
        (whole[:-4], "ends within rotations"),
        (whole + b"\0" * 4, "expected"),
        (b"PK" * 200, "header says"),
        (b"", "0 bytes"),
        (struct.pack("<Ii", llama2c.MAGIC, 7) + b"\0" * 400, "version 7"),
    ):
        with pytest.raises(UserError, match=told):
            llama2c_reading.network(data)
    (tmp_path / "model.bin").write_bytes(whole)
    with pytest.raises(UserError, match="found no tokenizer for .*looked for .*tokenizer.bin"):
        adopted(tmp_path / "model.bin")
    other = llama2c.tokenizer_bin(pieces)
    with pytest.raises(UserError, match="found 340 pieces in the tokenizer.bin, expected the model's 341"):
        llama2c_reading.tokenizer_model(other, 341)
    with pytest.raises(UserError, match="no tokenizer.bin"):
        llama2c_reading.tokenizer_model(other[:-1], 340)


@pytest.mark.parametrize(
    ("changes", "group", "told"),
    [
        ({"n_heads": 64, "n_kv_heads": 64}, None, "n_heads 64 and n_kv_heads 64 at d_model 32"),
        ({"n_heads": 3, "n_kv_heads": 3}, None, "n_heads 3 "),
        ({"n_heads": 32, "n_kv_heads": 32}, None, "n_heads times an even number"),
        ({"n_kv_heads": 3}, None, "n_kv_heads 3 at"),
        ({}, 0, "groups of 0 weights"),
        ({}, -4, "groups of -4 weights"),
        ({}, 7, "groups of 7 weights"),
    ],
)
def test_a_header_that_no_network_can_have_is_refused_by_its_number(changes, group, told):
    sizes = {"d_model": 32, "d_ff": 48, "n_layers": 1, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 300}
    ints = struct.pack("<7i", *(sizes | changes).values(), 16)
    head = ints if group is None else struct.pack("<Ii", llama2c.MAGIC, 2) + ints + struct.pack("<Bi", 1, group)
    with pytest.raises(UserError, match=told):
        llama2c_reading.network(head.ljust(256, b"\0") + b"\0" * 100_000)


def run_c(text: str, data: bytes) -> list[int]:
    """The ids that run.c's algorithm gives: characters, then the best pair merged until none is left."""
    texts, scores = llama2c_reading._vocabulary(data, 512)
    ids_of = {piece: n for n, piece in reversed(list(enumerate(texts)))}
    ids = [ids_of[" "]] if text else []
    for character in text:
        ids += [ids_of[character]] if character in ids_of else [byte + 3 for byte in character.encode()]
    while True:
        pairs = [(ids_of.get(texts[a] + texts[b], -1), n) for n, (a, b) in enumerate(zip(ids, ids[1:], strict=False))]
        known = [(scores[piece], -n, piece) for piece, n in pairs if piece >= 0]
        if not known:
            return ids
        _, n, piece = max(known)
        ids[-n : -n + 2] = [piece]


@needs_peers
@needs_stories
def test_tok512_gives_the_ids_of_run_c():
    data = (PEERS / "tok512.bin").read_bytes()
    tokenizer = Tokenizer(llama2c_reading.tokenizer_model(data, 512))
    texts = [each["text"][:120] for each in map(json.loads, REAL.read_text().splitlines()[:40])]
    for text in [*texts, "", " two  blanks ", "naïve 日本 🐸", "\n\nOnce", "12,345"]:
        ids = tokenizer.encode(text)
        assert ids == run_c(text, data), text
        assert tokenizer.decode(ids) == text


@pytest.mark.chain  # ten seconds and more
@needs_peers
@needs_stories
def test_stories260k_has_the_bits_per_byte_that_llama2c_gives_it():
    """Paragraphs joined by one newline, ASCII alone, the first 512 tokens of a story; neither BOS nor EOS is scored."""
    made = adopted(PEERS / "stories260K.bin", tokenizer=str(PEERS / "tok512.bin"))
    assert measure(made, REAL).bits_per_byte == pytest.approx(0.9425, abs=0.005)


@pytest.mark.chain
def test_a_whole_chain_starts_from_an_adopted_model(prefect_home, tmp_path):
    shape, weights, pieces = parts_of()
    shape["max_length"] = 480  # room for a request of the built-in storyteller's in a vocabulary this small
    (tmp_path / "model.bin").write_bytes(llama2c.version0(weights, shape))
    (tmp_path / "tokenizer.bin").write_bytes(llama2c.tokenizer_bin(pieces))
    data, words = tmp_path / "chain", ["--adopt.path", str(tmp_path / "model.bin"), "--instruct.method", "lora"]
    done = runs.storymill(*runs.SMOKE, *words, home=prefect_home, data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (data / "adopt").exists() and not (data / "pretrain").exists() and not (data / "tokenizer").exists()
    assert "bits per byte" in done.stdout
    again = runs.storymill("plan", *runs.SMOKE[1:], *words, home=prefect_home, data=data)
    assert again.stdout.count(" hit ") == 11 and " run " not in again.stdout.partition("why")[2], again.stdout
    told = runs.storymill("export", str(tmp_path / "mine"), "--model", "instruct", home=prefect_home, data=data)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "mine/peft/adapter_config.json").exists()
    assert (tmp_path / "mine/dataset/README.md").exists()


# ---- Hugging Face


def hugging_face(folder: Path, *, spell: str = "json", shards: bool = False, **changes: object) -> Path:
    """A random LlamaForCausalLM, saved by transformers, with a tokenizer beside it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0} if spell == "json" else {"bos_token_id": 1, "eos_token_id": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **{"vocab_size": 340, "num_key_value_heads": 2, "rope_theta": 100000.0, "max_position_embeddings": 64}
        | {"initializer_range": 0.3, "rms_norm_eps": 1e-6}
        | sizes
        | ids
        | changes
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, **({"max_shard_size": "20KB"} if shards else {}))
    if spell == "json":
        (folder / "tokenizer.json").write_bytes(byte_level_json())
    else:
        (folder / "tokenizer.model").write_bytes(tiny.tokenizer().file("tokenizer.model").read_bytes())
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("tied", "kv_heads", "spell", "shards"),
    [(True, 2, "json", False), (False, 4, "sentencepiece", True)],
    ids=["tied, grouped", "untied, in shards"],
)
def test_a_hugging_face_model_gives_the_logits_of_transformers(tmp_path, tied, kv_heads, spell, shards):
    from transformers import AutoModelForCausalLM

    folder = hugging_face(
        tmp_path / "hf", spell=spell, shards=shards, tie_word_embeddings=tied, num_key_value_heads=kv_heads
    )
    assert len(list(folder.glob("*.safetensors"))) > shards
    made = adopted(folder)
    ids = torch.arange(60)[None] * 5 % 340
    with torch.inference_mode():
        ours, theirs = load_model(made.path)(ids), AutoModelForCausalLM.from_pretrained(folder)(ids).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[..., : theirs.shape[-1]], theirs[..., : ours.shape[-1]], atol=1e-4, rtol=0)


def test_half_precision_is_read_as_float32_and_rows_without_a_piece_are_cut(tmp_path):
    folder = hugging_face(tmp_path / "hf", vocab_size=352)
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, folder / "model.safetensors")
    made = adopted(folder, max_length=40)
    back = load_file(made.file("model.safetensors"))
    assert {weight.dtype for weight in back.values()} == {torch.float32}
    kept = made.facts["vocab_size"]
    assert (made.facts["rows_cut"], kept) == (352 - kept, back["tok_embeddings.weight"].shape[0])
    assert torch.equal(back["tok_embeddings.weight"], weights["model.embed_tokens.weight"][:kept].bfloat16().float())
    assert load_model(made.path).shape.max_length == 40


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("rope_parameters", [1e4]),
        ("rope_parameters", {"rope_theta": "much"}),
        ("partial_rotary_factor", 0.5),
        ("num_attention_heads", 0),
        ("num_key_value_heads", "two"),
        ("vocab_size", None),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("head_dim", 16),
        ("hidden_act", "gelu"),
        ("model_type", "gpt2"),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_what_this_network_does_not_compute_is_refused_by_its_field(tmp_path, field, value):
    folder = hugging_face(tmp_path / "hf")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(UserError, match="rope_theta" if "much" in str(value) else field):
        adopted(folder)


def test_a_pickle_a_missing_shard_and_a_strange_tensor_are_refused(tmp_path):
    folder = hugging_face(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin .a pickle"):
        adopted(folder)
    folder = hugging_face(tmp_path / "b", shards=True)
    sorted(folder.glob("*.safetensors"))[0].unlink()
    with pytest.raises(UserError, match="which model.safetensors.index.json names"):
        adopted(folder)
    folder = hugging_face(tmp_path / "c")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="q_proj.bias"):
        adopted(folder)
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="norm.weight"):
        adopted(folder)
    with pytest.raises(UserError, match="expected llama2.c's MODEL.bin, a Hugging Face folder"):
        adopted(tmp_path / "nowhere")


@pytest.mark.parametrize("field", ["num_attention_heads", "vocab_size", "hidden_size", "eos_token_id"])
def test_a_config_without_a_field_is_refused_by_its_name(tmp_path, field):
    folder = hugging_face(tmp_path / "hf")
    config = json.loads((folder / "config.json").read_bytes())
    del config[field]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"found no {field} in config.json"):
        adopted(folder)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", '{"a":', "config.json that is no JSON"),
        ("config.json", "[]", "found a list in .*config.json"),
        ("tokenizer.json", '{"a":', "tokenizer.json that is no JSON"),
        ("model.safetensors.index.json", "{", "index.json that is no JSON"),
        ("model.safetensors.index.json", "{}", "no weight_map in .*index.json"),
        ("model.safetensors.index.json", '{"weight_map": ["a"]}', "no weight_map in .*index.json"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../config.json"}}', "a file of this folder"),
    ],
)
def test_a_broken_file_is_refused_by_its_name(tmp_path, name, content, told):
    folder = hugging_face(tmp_path / "hf")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=told):
        adopted(folder)


def test_another_model_under_the_same_path_is_another_dataset(tmp_path):
    folder = hugging_face(tmp_path / "hf")
    first = adopted(folder)
    assert adopted(folder) == first
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, folder / "model.safetensors")
    assert adopted(folder) != first


def served(folder: Path, httpserver, commit: str = "c0ffee" + "0" * 34) -> None:
    """A folder as the hub serves it: what there is of a revision, and its files."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    told = {"id": "me/tiny", "modelId": "me/tiny", "sha": commit, "siblings": [{"rfilename": name} for name in names]}
    httpserver.expect_request("/api/models/me/tiny/revision/main").respond_with_json(told)
    tree = [{"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40} for name in names]
    httpserver.expect_request(f"/api/models/me/tiny/tree/{commit}").respond_with_json(tree)
    for name in names:
        data = (folder / name).read_bytes()
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": commit, "Content-Length": str(len(data))}
        httpserver.expect_request(f"/me/tiny/resolve/{commit}/{name}").respond_with_data(data, headers=headers)


FETCH = "import sys; from lib.model.hub import fetched; print(fetched('me/tiny', None))"


def test_a_model_of_the_hub_is_fetched_once_and_found_again_without_a_network(tmp_path, httpserver):
    folder = hugging_face(tmp_path / "made")
    (folder / "original").mkdir()
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors"):
        (folder / name).write_bytes(b"never asked for")
    served(folder, httpserver)
    # In a process of its own: huggingface_hub reads its address when it is imported.
    env = {**os.environ, "HF_ENDPOINT": httpserver.url_for("").rstrip("/"), "HF_HUB_OFFLINE": "0"}
    env |= {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    words = {"cwd": Path(__file__).parents[1], "capture_output": True, "text": True, "check": False}
    done = subprocess.run([sys.executable, "-c", FETCH], env=env, **words)
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.strip())
    assert {path.name for path in found.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert adopted(found).fingerprint  # whole
    again = subprocess.run([sys.executable, "-c", FETCH], env=env | {"HF_HUB_OFFLINE": "1"}, **words)
    assert again.stdout == done.stdout
    none = subprocess.run(
        [sys.executable, "-c", FETCH.replace("me/tiny", "me/none")], env=env | {"HF_HUB_OFFLINE": "1"}, **words
    )
    assert "UserError: found no model hf:me/none at revision main" in none.stderr


# ---- a tokenizer.json as our tokenizer


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return Tokenizer(packed(byte_level_json(), bos_id=0, eos_id=0))


def test_text_never_becomes_a_special_piece_and_nothing_is_lost(byte_level):
    texts = [f"a {END} b", f"{END}", "<|im_start|>system", f"{END}{END} x", "naïve 🐸 \x00 \u2581  ", "", "\n\n 12 34"]
    for text in texts:
        ids = byte_level.encode(text)
        assert not {0, 1, 2} & set(ids) and byte_level.decode(ids) == text
    assert byte_level.decode([0, *byte_level.encode("a"), 0]) == "a"
    ids, offsets = byte_level.encode_column(pa.array(texts))
    assert [ids[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == list(
        map(byte_level.encode, texts)
    )


def test_layouts_hold_where_bos_and_eos_are_one_piece(byte_level):
    template = Template(byte_level)
    ids, num_prompt = template.training("natural", "Write a story", "Tom ran.")
    prefix = template.prefix("natural", "Write a story")
    lead = lead_of(template, "natural")
    assert lead == [0] and (lead + ids)[: len(prefix)] == prefix and num_prompt == len(prefix) - 2


def test_a_tokenizer_whose_controls_stand_in_text_is_refused():
    from tokenizers import Tokenizer as Their

    loose = Their.from_str(byte_level_json().decode())
    with pytest.raises(UserError, match="could forge a turn"):
        Tokenizer(packed(loose.to_str().encode(), bos_id=loose.token_to_id("a"), eos_id=0))
    with pytest.raises(UserError, match="eos = 9999"):
        Tokenizer(packed(loose.to_str().encode(), bos_id=0, eos_id=9999))


def test_a_model_and_tokens_go_together_only_with_one_tokenizer(tmp_path):
    made = adopted(hugging_face(tmp_path / "hf", spell="sentencepiece"))
    require_same(model=made, tokenizer=made)
    require_same(model=made, tokenizer=tiny.tokenizer())  # the same pieces
    with pytest.raises(UserError, match="was trained with the tokenizer"):
        require_same(model=made, tokenizer=adopted(hugging_face(tmp_path / "other")))


def test_names_go_there_and_back():
    from lib.model.hub import _ours

    for name in (
        "tok_embeddings.weight",
        "layers.11.feed_forward.w2.weight",
        "layers.0.ffn_norm.weight",
        "norm.weight",
    ):
        assert _ours(huggingface.renamed(name)) == name
