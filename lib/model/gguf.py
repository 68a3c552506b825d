"""GGUF: one of our models as the file that llama.cpp, Ollama and LM Studio open.

In:   weights as numpy arrays under llama2.c's names; the network's shape; a tokenizer's bytes; the chat template
Out:  a .gguf of float32 tensors, written with the `gguf` package
Relies on llama.cpp's architecture `llama`: it turns neighbouring channels, so wq and wk change rows as for llama2.c.

SentencePiece byte-pair vocabularies become its `llama` tokenizer, byte-level ones its `gpt2`. Others it would spell
otherwise: `why_not` says so before anything is written.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lib.model.llama2c import to_pairs
from lib.text.pieces import BYTE, CONTROL, SentencePieces, opened, unpacked

ARCHITECTURE = "llama"
# how llama.cpp names the two ways of cutting text up that are known here, by the tokenizer.json's own words
DIGITS = {"type": "Digits", "individual_digits": True}
RENAMED = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
}


def why_not(model: bytes) -> str | None:
    """Why llama.cpp would spell text otherwise than this tokenizer; None where it spells alike."""
    pieces = opened(model)
    if isinstance(pieces, SentencePieces):
        return None if pieces.by_chunks else "llama.cpp has no exact counterpart of this SentencePiece vocabulary"
    held = unpacked(model) or {}
    if held["model"].get("type") == "BPE" and not held.get("normalizer") and _cutting(held):
        return None
    cut = (held.get("pre_tokenizer") or {}).get("type")
    return (
        f"llama.cpp's counterpart of this tokenizer.json ({held['model'].get('type')} behind {cut}) is not known here"
    )


def write(path: Path, weights: Mapping[str, np.ndarray], shape: Mapping, model: bytes, **about: str | None) -> None:
    """Write the file. `about`: name, and chat_template or None."""
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    head_dim = shape["d_model"] // shape["n_heads"]
    writer.add_name(str(about["name"]))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_context_length(shape["max_length"])
    writer.add_embedding_length(shape["d_model"])
    writer.add_block_count(shape["n_layers"])
    writer.add_feed_forward_length(shape["d_ff"])
    writer.add_head_count(shape["n_heads"])
    writer.add_head_count_kv(shape["n_kv_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    _tokenizer(writer, model)
    if about["chat_template"]:
        writer.add_chat_template(about["chat_template"])
    for name, tensor in weights.items():
        if not (shape["tied"] and name == "output.weight"):
            turned = to_pairs(tensor, head_dim) if name.endswith(("wq.weight", "wk.weight")) else tensor
            writer.add_tensor(_renamed(name), np.ascontiguousarray(turned, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _renamed(name: str) -> str:
    """layers.3.attention.wq.weight → blk.3.attn_q.weight."""
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"blk.{parts[1]}.{RENAMED['.'.join(parts[2:])]}.weight"
    return f"{RENAMED[parts[0]]}.weight"


def _tokenizer(writer: Any, model: bytes) -> None:
    """The vocabulary, and that BOS goes before a text, as a story begins with one."""
    pieces = opened(model)
    table = pieces.table()
    names, kinds = table["piece"].to_pylist(), table["kind"].to_pylist()
    if isinstance(pieces, SentencePieces):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([name.encode() for name in names])
        writer.add_token_scores(table["score"].to_pylist())
        writer.add_unk_token_id(pieces.unk_id)
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(False)
    else:
        held = unpacked(model) or {}
        merges = held["model"]["merges"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_cutting(held))
        writer.add_token_list([name.encode() for name in names])
        writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_token_types([_type(kind) for kind in kinds])
    writer.add_bos_token_id(pieces.bos_id)
    writer.add_eos_token_id(pieces.eos_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _type(kind: str) -> int:
    import gguf

    other = {CONTROL: gguf.TokenType.CONTROL, BYTE: gguf.TokenType.BYTE, "unknown": gguf.TokenType.UNKNOWN}
    return int(other.get(kind, gguf.TokenType.NORMAL))


def _cutting(held: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for how this tokenizer.json cuts text before pairs are merged; None if it is not known here."""
    before = held.get("pre_tokenizer") or {}
    steps = before.get("pretokenizers", [before])
    plain = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if not steps or any(steps[-1].get(key, True) != value for key, value in plain.items()):
        return None
    return {0: "gpt-2", 1: "smollm" if steps[0] == DIGITS else None}.get(len(steps) - 1)
