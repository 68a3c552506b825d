"""The model of the sampling benches: the shape of llama2.c's stories260K, ours and as the peers hold it.

In:   stories260K.bin and tok512.bin in the folder named by STORYMILL_PEERS, or in ../shared/data/peers, if they are
      there; without them the same shape with random weights, made sure of themselves, and 512 pieces of made-up text
Out:  a model folder that lib/web/engine.py opens; the same weights in transformers and in a checkout of llama2.c
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent.parent
SIZES = {"d_model": 64, "n_layers": 5, "n_heads": 8, "n_kv_heads": 4, "d_ff": 172, "max_length": 512}
PIECES = 512


def public() -> Path | None:
    """The folder that holds the public files, if there is one."""
    folder = Path(os.environ.get("STORYMILL_PEERS") or HOUSE.parent / "shared" / "data" / "peers")
    return folder if (folder / "stories260K.bin").exists() and (folder / "tok512.bin").exists() else None


def folder() -> Path:
    """A model's folder, made once."""
    given = public()
    place = Path(tempfile.gettempdir()) / "storymill-bench" / f"storyteller-1-{'public' if given else 'random'}"
    if not (place / "model.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        _adopt(given, place) if given else _make(place)
    return place


def _adopt(given: Path, place: Path) -> None:
    import shutil

    os.environ["STORYMILL_DATA"] = str(place / "data")
    from lib import stages
    from lib.stages.adopt import AdoptConfig

    config = AdoptConfig(path=str(given / "stories260K.bin"), tokenizer=str(given / "tok512.bin"))
    made = stages.build("adopt", config, {})
    for file in ("tokenizer.model", "model.safetensors", "model.json"):
        shutil.copyfile(made.file(file), place / file)


def _make(place: Path) -> None:
    import torch

    from bench.texts import markov
    from lib.model.network import Llama, Shape, save_model
    from lib.text.template import digest_of
    from lib.text.tokenizer import Tokenizer, train

    train(markov(4000), place / "tokenizer.model", PIECES)
    tokenizer = Tokenizer.load(place / "tokenizer.model")
    torch.manual_seed(0)
    model = Llama(Shape(vocab_size=tokenizer.vocab_size, **SIZES))
    with torch.no_grad():
        model.tok_embeddings.weight.mul_(20)
    about = {"layout": "natural", "template": digest_of("natural"), "tokenizer": "", "stage": "bench"}
    save_model(model, place, **about)


def ours() -> Any:
    from lib.model.network import load_model

    return load_model(folder())


def theirs() -> Any:
    """The same weights as transformers' Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lib.model import huggingface

    model = ours()
    shape = model.shape.model_dump()
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    config = {key: value for key, value in huggingface.config(shape, ends).items() if not key.startswith("architect")}
    peer = LlamaForCausalLM(LlamaConfig(**config)).eval()
    numbers = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = {name: torch.from_numpy(each) for name, each in huggingface.weights(numbers, shape).items()}
    if shape["tied"]:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    peer.load_state_dict(found)
    peer.generation_config.eos_token_id = None
    peer.generation_config.pad_token_id = 0
    return peer


def llama2c(checkout: str) -> Any:
    """The same weights as the checkout's Transformer."""
    import torch

    from lib.model.llama2c import to_pairs

    sys.path.insert(0, checkout)
    from model import ModelArgs, Transformer  # from the checkout

    model = ours()
    shape = model.shape
    sizes = {"dim": shape.d_model, "hidden_dim": shape.d_ff, "vocab_size": shape.vocab_size, "dropout": 0.0}
    heads = {"n_layers": shape.n_layers, "n_heads": shape.n_heads, "n_kv_heads": shape.n_kv_heads}
    peer = Transformer(ModelArgs(**sizes, **heads, max_seq_len=shape.max_length))
    found = dict(model.state_dict())
    for name, weight in found.items():
        if name.endswith(("attention.wq.weight", "attention.wk.weight")):
            found[name] = torch.from_numpy(to_pairs(weight.numpy(), shape.head_dim))
    peer.load_state_dict(found)
    return peer.eval()
