"""Export: other programs read the same model. transformers judges one format, a reader in numpy the other."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as TheirTokenizer

from lib.errors import UserError
from lib.model import gguf, huggingface, llama2c, llama2c_reading
from lib.model.checkpoint import publish
from lib.model.lora import LoraLinear, add_lora, merge, publish_adapter
from lib.model.network import Llama, load_model, save_model
from lib.model.sampling import Sampler
from lib.model.shape import Shape
from lib.stages.export import STAGE, ExportConfig, export
from lib.store import Dataset, Draft, Stage, build
from lib.text.chat_template import chat_template
from lib.text.pieces import packed
from lib.text.template import Template
from lib.text.tokenizer import Tokenizer, train
from tests import tiny
from tests.byte_level import byte_level_json

HOSTILE = [
    "",
    " ",
    "  two  blanks  ",
    "\n\n\tTabs\r\nand lines\n",
    "Tom's “dog” — naïve café",
    "<0x41> <0x0A> is not a byte",
    "𝔘nicode 🐸🐸 日本語 \u200b zero width",
    "a" * 300,
    "12345 cats, 7 frogs",
    "\x00\x01\x1b[31mred",
    "One day, Lily took a kite to the park.",
]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request):
    return tiny.model("align", seed=5, tied=request.param)


@pytest.fixture
def pieces():
    return tiny.tokenizer()


@pytest.fixture
def exported(model, pieces):
    return build(STAGE, ExportConfig(), {"model": model, "tokenizer": pieces}, export)


def greedy(model, pieces, prompt):
    template = Template(Tokenizer.load(pieces.file("tokenizer.model")))
    prefix = template.prefix("natural", prompt)
    [done] = Sampler(load_model(model.path)).generate([prefix], max_new=20, temperature=0, stop_ids={1, 2})
    return prefix, done.ids


def test_transformers_writes_the_same_greedy_ids(exported, model, pieces, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(exported.path / "hf")
    spell = AutoTokenizer.from_pretrained(exported.path / "hf")
    for prompt in ("Write a story about a cat", "Write a story about Tom and a boat", "Write a story about 7 frogs"):
        prefix, ids = greedy(model, pieces, prompt)
        chat = [{"role": "user", "content": prompt}]
        asked = spell.apply_chat_template(chat, return_tensors="pt", return_dict=False)
        assert asked[0].tolist() == prefix
        told = theirs.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=20, eos_token_id=[1, 2], pad_token_id=0
        )
        assert told[0, len(prefix) :].tolist() == ids


def test_a_bare_text_begins_with_bos(exported, pieces, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    spell = AutoTokenizer.from_pretrained(exported.path / "hf")
    ours = Tokenizer.load(pieces.file("tokenizer.model"))
    assert spell("Once upon a time").input_ids == Template(ours).completion_prefix("Once upon a time")
    assert spell.decode(spell("Once upon a time").input_ids, skip_special_tokens=True) == "Once upon a time"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokenizer_json_spells_as_sentencepiece_does(kind, tmp_path):
    texts = [*tiny.stories(60)["text"].to_pylist(), *tiny.NUMBERS]
    ours = train(texts, tmp_path / "tokenizer.model", 340, kind)
    theirs = TheirTokenizer.from_str(json.dumps(huggingface.tokenizer(ours.model)))

    def same(text):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ids == ours.encode(text)
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)

    for text in HOSTILE + tiny.stories()["text"].to_pylist():
        same(text)

    # Strings of special pieces are by design parsed by one and spelled out by the other; U+2581 stands for a blank.
    plain = st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]), max_size=60)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
    @given(plain.filter(lambda text: not any(mark in text for mark in ("<s>", "</s>", "<unk>"))))
    def any_text(text):
        same(text)

    any_text()


# ---- a reader of llama2.c's files, from its run.c


def read(data, version):
    """Shape and tensors of a .bin file, in run.c's own order; every byte must be used."""
    head = struct.unpack_from("<7i", data, 0 if version == 0 else 8)
    d_model, d_ff, n_layers, n_heads, n_kv, vocab, length = head
    tied = vocab > 0 if version == 0 else bool(data[36])
    vocab, kv, half = abs(vocab), d_model // n_heads * n_kv, d_model // n_heads // 2
    if version:
        assert struct.unpack_from("<Ii", data) == (0x616B3432, version)
    place, group = (28, None) if version == 0 else (256, struct.unpack_from("<i", data, 37)[0])

    def take(*sizes, coded=False):
        nonlocal place
        count = int(np.prod(sizes))
        if not coded:
            place += 4 * count
            return np.frombuffer(data, "<f4", count, place - 4 * count).reshape(sizes)
        codes = np.frombuffer(data, np.int8, count, place).reshape(-1, group)
        place += count
        return (codes * take(count // group)[:, None]).reshape(sizes)

    w, layers = {}, range(n_layers)

    def each(name, *sizes, coded=False):
        w[name] = [take(*sizes, coded=coded) for _ in layers]

    q = version == 2
    if version == 0:
        w["embed"] = take(vocab, d_model)
    each("norm1", d_model)
    if version:
        each("norm2", d_model)
        w["norm"] = take(d_model)
        w["embed"] = take(vocab, d_model, coded=q)
    for name, rows in (("q", d_model), ("k", kv), ("v", kv), ("o", d_model)):
        each(name, rows, d_model, coded=q)
    if version == 0:
        each("norm2", d_model)
    each("w1", d_ff, d_model, coded=q)
    each("w2", d_model, d_ff, coded=q)
    each("w3", d_ff, d_model, coded=q)
    if version == 0:
        w["norm"] = take(d_model)
        take(length, half), take(length, half)
    w["out"] = w["embed"] if tied else take(vocab, d_model, coded=q)
    assert place == len(data)
    return (d_model, n_layers, n_heads, n_kv, length), w


def forward(shape, w, ids):
    """Logits of every position, computed as run.c does: neighbouring channels turn together."""
    d_model, n_layers, n_heads, n_kv, _ = shape
    C = d_model // n_heads
    angles = np.outer(np.arange(len(ids)), 10000.0 ** (-np.arange(0, C, 2) / C))
    turn = np.exp(1j * angles)[:, None]

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight

    def rotated(x):
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)

    x = w["embed"][ids].astype(np.float64)
    for n in range(n_layers):
        h = norm(x, w["norm1"][n])
        q = rotated((h @ w["q"][n].T).reshape(len(ids), n_heads, C))
        k = rotated((h @ w["k"][n].T).reshape(len(ids), n_kv, C)).repeat(n_heads // n_kv, 1)
        v = (h @ w["v"][n].T).reshape(len(ids), n_kv, C).repeat(n_heads // n_kv, 1)
        scores = np.einsum("thc,shc->hts", q, k) / np.sqrt(C)
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + np.einsum("hts,shc->thc", p / p.sum(-1, keepdims=True), v).reshape(len(ids), -1) @ w["o"][n].T
        h = norm(x, w["norm2"][n])
        gate = h @ w["w1"][n].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["w3"][n].T)) @ w["w2"][n].T
    return norm(x, w["norm"]) @ w["out"].T


@pytest.mark.parametrize(
    ("file", "version", "off"), [("model", 0, 1e-3), ("model-v1", 1, 1e-3), ("model-q8_0", 2, None)]
)
def test_the_bin_files_hold_the_same_network(exported, model, file, version, off):
    ids = [1, 40, 77, 300, 5, 120, 9, 2, 33]
    shape, weights = read((exported.path / "llama2c" / f"{file}.bin").read_bytes(), version)
    with torch.inference_mode():
        ours = load_model(model.path)(torch.tensor([ids]))[0].numpy()
    theirs = forward(shape, weights, ids)
    if off is None:  # 8 bits: near, not equal
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    else:
        np.testing.assert_allclose(theirs, ours, atol=off * np.abs(ours).max())


def test_quantized_weights_are_off_by_half_a_scale_at_most():
    matrix = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    matrix[0] = 0
    codes, scales = llama2c.quantized(matrix, 64)
    assert np.abs(codes * scales[:, None] - matrix).max() <= scales.max() / 2 + 1e-6


def test_tokenizer_bin_lists_every_piece_with_its_score(exported, pieces):
    data = (exported.path / "llama2c" / "tokenizer.bin").read_bytes()
    ours = Tokenizer.load(pieces.file("tokenizer.model"))
    longest, place, texts = struct.unpack_from("<I", data)[0], 4, []
    for _ in range(ours.vocab_size):
        _, size = struct.unpack_from("<fI", data, place)
        texts.append(data[place + 8 : place + 8 + size].decode())
        place += 8 + size
    assert place == len(data)
    assert longest == max(len(text.encode()) for text in texts)
    assert texts[1:3] == ["\n<s>\n", "\n</s>\n"]
    assert texts[259:] == [piece.replace("\u2581", " ") for piece in ours.pieces()["piece"].to_pylist()[259:]]


# ---- llama.cpp's file


def without_bytes(seed: int = 5) -> tuple[Llama, Tokenizer]:
    """A network that never writes a byte piece, so that what it writes is text in any program, and its tokenizer."""
    network, tokenizer = (
        load_model(tiny.model("align", seed=seed).path),
        Tokenizer.load(tiny.tokenizer().file("tokenizer.model")),
    )
    with torch.no_grad():
        network.tok_embeddings.weight[: 256 + 3] = 0
    return network, tokenizer


def written(network: Llama, tokenizer: Tokenizer, path: Path) -> Path:
    weights = {name: weight.numpy() for name, weight in network.state_dict().items()}
    shape = network.shape.model_dump()
    gguf.write(path, weights, shape, tokenizer.model, name="tiny", chat_template=chat_template("natural"))
    return path


def test_a_gguf_file_holds_the_network_and_the_vocabulary(tmp_path):
    from gguf import GGUFReader

    network, tokenizer = without_bytes()
    reader = GGUFReader(written(network, tokenizer, tmp_path / "model.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    shape = network.shape
    assert fields["general.architecture"] == "llama" and fields["llama.context_length"] == shape.max_length
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert fields["llama.rope.freq_base"] == shape.rope_theta
    assert fields["tokenizer.ggml.tokens"] == tokenizer.pieces()["piece"].to_pylist()
    assert fields["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6] and fields["tokenizer.ggml.bos_token_id"] == 1
    assert "raise_exception" in fields["tokenizer.chat_template"]
    tensors = {each.name: each for each in reader.tensors}
    assert len(tensors) == 2 + 9 * shape.n_layers
    ours = network.layers[1].attention.wk.weight.detach().numpy()
    theirs = tensors["blk.1.attn_k.weight"].data
    np.testing.assert_array_equal(llama2c_reading.from_pairs(theirs, shape.head_dim), ours)
    assert not np.array_equal(theirs, ours)


def llama_cpp(path: Path, length: int):
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed here")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(path), length, 1, False
    params.cpuparams.n_threads, params.verbosity = 1, -1
    return xllamacpp.Server(params)


def test_llama_cpp_writes_the_same_greedy_text(tmp_path):
    network, tokenizer = without_bytes()
    template, sampler = Template(tokenizer), Sampler(network)
    server = llama_cpp(written(network, tokenizer, tmp_path / "model.gguf"), network.shape.max_length)
    for prompt in ("Write a story about a cat", "Write a story about 7 frogs, naïve  ones"):
        prefix = template.prefix("natural", prompt)
        [done] = sampler.generate([prefix], max_new=20, temperature=0, stop_ids={2})
        asked = {"prompt": prefix, "n_predict": 20, "temperature": 0, "cache_prompt": False}
        told = server.handle_completions(asked)["choices"][0]["text"]
        assert len(done.ids) > 5 and told.strip(" ") == tokenizer.decode(done.ids).strip(" ")
    for text in ("Once upon a time,  naïve 🐸", "\nOnce", "  two"):
        usage = server.handle_completions({"prompt": text, "n_predict": 1, "cache_prompt": False})["usage"]
        assert usage["prompt_tokens"] == len(template.completion_prefix(text))


def test_llama_cpp_spells_a_byte_level_vocabulary_as_tokenizers_does(tmp_path):
    tokenizer = Tokenizer(packed(byte_level_json(), bos_id=0, eos_id=0))
    torch.manual_seed(1)
    network = Llama(Shape(vocab_size=tokenizer.vocab_size, **tiny.SIZES)).eval()
    with torch.no_grad():
        network.tok_embeddings.weight.mul_(8)
    server = llama_cpp(written(network, tokenizer, tmp_path / "model.gguf"), network.shape.max_length)
    for text in ("Once upon a time, 12 cats", "  two  blanks\n\nnaïve 🐸"):
        usage = server.handle_completions({"prompt": text, "n_predict": 1, "cache_prompt": False})["usage"]
        assert usage["prompt_tokens"] == 1 + len(tokenizer.encode(text))


# ---- run.c


@pytest.mark.skipif("STORYMILL_LLAMA2C" not in os.environ, reason="STORYMILL_LLAMA2C names no checkout of llama2.c")
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_run_c_writes_the_same_greedy_text(tmp_path):
    network, tokenizer = without_bytes()
    weights = {name: weight.numpy() for name, weight in network.state_dict().items()}
    (tmp_path / "model.bin").write_bytes(llama2c.version0(weights, network.shape.model_dump()))
    (tmp_path / "tokenizer.bin").write_bytes(llama2c.tokenizer_bin(tokenizer.model))
    source = Path(os.environ["STORYMILL_LLAMA2C"]) / "run.c"
    subprocess.run(["gcc", "-O2", "-o", tmp_path / "run", source, "-lm"], check=True)
    words = [tmp_path / "run", "model.bin", "-z", "tokenizer.bin", "-t", "0", "-n", "40", "-i", "Once upon a time"]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout.decode()
    prefix = Template(tokenizer).completion_prefix("Once upon a time")
    [done] = Sampler(network).generate([prefix], max_new=40 - len(prefix), temperature=0, stop_ids={1})
    ours = tokenizer.decode([*prefix, *done.ids])
    assert len(done.ids) > 5 and told.rstrip("\n").startswith(ours)


# ---- what is left out, and why


def test_a_format_that_would_spell_otherwise_is_left_out(tmp_path):
    unigram = train([*tiny.stories(60)["text"].to_pylist(), *tiny.NUMBERS], tmp_path / "u.model", 340, "unigram")
    for tokenizer, formats in (
        (unigram, ["hf"]),
        (Tokenizer(packed(byte_level_json(), bos_id=0, eos_id=0)), ["hf", "gguf"]),
    ):
        network = Llama(Shape(vocab_size=tokenizer.vocab_size, **tiny.SIZES))
        save_model(network, tmp_path, layout="natural", template="", tokenizer="", stage="tiny")
        names = ("model.json", "model.safetensors")
        files = {name: (tmp_path / name).read_bytes() for name in names} | {"tokenizer.model": tokenizer.model}
        pieces = tiny.publish("tokenizer", {"tokenizer.model": tokenizer.model})
        inputs = {"model": tiny.publish("instruct", files, {"tokenizer": pieces}), "tokenizer": pieces}
        made = build(STAGE, ExportConfig(), inputs, export)
        assert made.facts["formats"] == formats and "llama2c" in made.facts["left_out"]
        card = (made.path / "hf/README.md").read_text()
        assert all(f"no {what}: {why}" in card for what, why in made.facts["left_out"].items())


def test_transformers_reads_a_byte_level_model_back(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    tokenizer = Tokenizer(packed(byte_level_json(), bos_id=0, eos_id=0))
    special = huggingface.special_tokens(tokenizer.model)
    (tmp_path / "tokenizer.json").write_text(json.dumps(huggingface.tokenizer(tokenizer.model)))
    config = huggingface.tokenizer_config({"max_length": 64}, chat_template("natural"), special)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    spell = AutoTokenizer.from_pretrained(tmp_path)
    template = Template(tokenizer)
    assert spell("Once upon a time").input_ids == template.completion_prefix("Once upon a time")
    chat = [{"role": "user", "content": "Write a story about 12 cats"}]
    asked = spell.apply_chat_template(chat, return_dict=False)
    assert asked == template.prefix("natural", "Write a story about 12 cats")


# ---- chat templates


@pytest.mark.parametrize("layout", ["natural", "padded", "alpaca"])
def test_the_chat_template_gives_the_sampling_prefix(layout, pieces, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.load(pieces.file("tokenizer.model"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(huggingface.tokenizer(tokenizer.model)))
    special = huggingface.special_tokens(tokenizer.model)
    config = huggingface.tokenizer_config({"max_length": 999}, chat_template(layout), special)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    spell, template = AutoTokenizer.from_pretrained(tmp_path), Template(tokenizer)
    for prompt in ("Write a story about a cat", 'Say "{instruction}" in 7 words\n'):
        chat = [{"role": "user", "content": prompt}]
        assert spell.apply_chat_template(chat, return_dict=False) == template.prefix(layout, prompt)
    with pytest.raises(Exception, match="one user message"):
        spell.apply_chat_template([*chat, {"role": "assistant", "content": "No."}, *chat], return_dict=False)


def test_a_layout_without_requests_has_no_chat_template():
    assert chat_template("pretrain") is None


# ---- LoRA


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks transformers
def test_peft_loads_the_adapter_on_the_model_it_was_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, pieces = tiny.model("pretrain", seed=5), tiny.tokenizer()
    network = load_model(base.path)
    settings = {"rank": 3, "alpha": 5.0, "dropout": 0.1, "targets": ("wq", "wk", "wo", "w2")}
    torch.manual_seed(0)
    add_lora(network, **settings)
    for layer in network.modules():
        if isinstance(layer, LoraLinear):
            torch.nn.init.normal_(layer.lora_b, std=0.1)
    about = {"layout": "natural", "template": "", "tokenizer": "", "stage": "instruct"}

    def fill(draft: Draft, config: tiny.TinyConfig, **_: Dataset) -> None:
        publish_adapter(draft, network, **settings)
        merge(network)
        publish(draft, model=network, pieces=pieces.file("tokenizer.model"), **about)

    tuned = build(Stage("instruct", 1), tiny.TinyConfig(), {"tokenizer": pieces}, fill)
    made = {
        each.stage: build(STAGE, ExportConfig(), {"model": each, "tokenizer": pieces}, export) for each in (base, tuned)
    }
    assert made["instruct"].facts["formats"][-1] == "peft"
    theirs = AutoModelForCausalLM.from_pretrained(made["pretrain"].path / "hf")
    ids = torch.arange(30)[None] * 7 % 340
    with torch.inference_mode():
        plain, ours = theirs(ids).logits, load_model(tuned.path)(ids)
        told = PeftModel.from_pretrained(theirs, made["instruct"].path / "peft").eval()(ids).logits
    assert not torch.allclose(plain, ours, atol=0.01)
    torch.testing.assert_close(told, ours, atol=1e-4, rtol=1e-4)


# ---- cards


def test_the_stories_card_counts_sides_and_drops_and_load_dataset_reads_it(model, pieces, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    stories = tiny.chain()["split"]
    inputs = {"model": model, "tokenizer": pieces, "stories": stories}
    made = build(STAGE, ExportConfig(stories=True, data_license="cdla-sharing-1.0"), inputs, export)
    card = (made.path / "dataset/README.md").read_text()
    assert "license: cdla-sharing-1.0" in card and "| train | 35 |" in card and stories.fingerprint in card
    read = datasets.load_dataset(str(made.path / "dataset"), cache_dir=str(tmp_path / "cache"))
    assert {side: len(rows) for side, rows in read.items()} == {"train": 35, "val": 10, "test": 5}
    assert set(read["val"]["story_id"]) == {f"s{n:03d}" for n in range(0, 50, 5)}
    alone = build(STAGE, ExportConfig(), inputs, export)
    assert not [name for name in alone.manifest["files"] if name.endswith(".parquet")]
    assert "Not copied here" in (alone.path / "dataset/README.md").read_text()


def test_the_card_names_what_the_model_was_made_from(exported, model, pieces):
    card = (exported.path / "hf" / "README.md").read_text()
    assert model.fingerprint in card
    assert pieces.fingerprint in card
    assert "apply_chat_template" in card


def test_a_model_of_another_tokenizer_is_refused(model, tmp_path):
    from lib.text import tokenizer

    tokenizer.train(tiny.NUMBERS * 3 + tiny.stories()["text"].to_pylist(), tmp_path / "other.model", 338)
    other = tiny.publish("tokenizer", {"tokenizer.model": (tmp_path / "other.model").read_bytes()})
    with pytest.raises(UserError, match="another tokenizer"):
        build(STAGE, ExportConfig(), {"model": model, "tokenizer": other}, export)


def test_a_model_is_copied_into_a_folder_and_nothing_is_overwritten(model, tmp_path):
    from lib.web.exporting import export as copy

    copy(tmp_path / "mine", "aligned")
    assert (tmp_path / "mine/hf/config.json").exists()
    assert (tmp_path / "mine/llama2c/model.bin").exists()
    with pytest.raises(UserError, match="not empty"):
        copy(tmp_path / "mine", "aligned")
    with pytest.raises(UserError, match="no base model"):
        copy(tmp_path / "other", "base")
