"""Hugging Face: one of our models as a folder that transformers loads, without transformers.

In:   weights as numpy arrays under llama2.c's names; the network's shape; tokenizer.model
Out:  config.json, tokenizer.json and their kin as dicts; the same weights under transformers' names
Relies on lib/model/network.py turning channel c with channel c + C/2, as transformers does: no row changes place.

Both spellings of what transformers 5 renamed are written (rope_theta and rope_parameters, torch_dtype and dtype), and
tokenizer_class is PreTrainedTokenizerFast: what transformers 5 itself writes there makes 4.57 fail.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import sentencepiece

from lib.text.pieces import NORMAL, SentencePieces, opened, unpacked

SPACE = "\u2581"
NEVER = -1e4
# "<0x0A>" in a text is six characters; cut behind the first, it is no byte piece
BYTE_NAMES = {"type": "Split", "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"}, "behavior": "Isolated", "invert": False}
RENAMED = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTSIDE = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}


def weights(ours: Mapping[str, np.ndarray], shape: Mapping) -> dict[str, np.ndarray]:
    """The same numbers under transformers' names; a tied output layer is left out, as tie_word_embeddings says."""
    kept = {name: tensor for name, tensor in ours.items() if not (shape["tied"] and name == "output.weight")}
    return {renamed(name): np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in kept.items()}


def renamed(name: str) -> str:
    """layers.3.attention.wq.weight → model.layers.3.self_attn.q_proj.weight."""
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"model.layers.{parts[1]}.{RENAMED['.'.join(parts[2:])]}.weight"
    return f"{OUTSIDE[parts[0]]}.weight"


def config(shape: Mapping, ends: Mapping[str, int]) -> dict[str, Any]:
    """config.json: what transformers 4 and 5 need to build the same network. `ends`: bos_token_id and eos_token_id."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape["vocab_size"],
        "hidden_size": shape["d_model"],
        "intermediate_size": shape["d_ff"],
        "num_hidden_layers": shape["n_layers"],
        "num_attention_heads": shape["n_heads"],
        "num_key_value_heads": shape["n_kv_heads"],
        "head_dim": shape["d_model"] // shape["n_heads"],
        "hidden_act": "silu",
        "max_position_embeddings": shape["max_length"],
        "rms_norm_eps": shape["norm_eps"],
        "rope_theta": shape["rope_theta"],
        "rope_parameters": {"rope_type": "default", "rope_theta": shape["rope_theta"]},
        "tie_word_embeddings": shape["tied"],
        "attention_bias": False,
        "mlp_bias": False,
        **ends,
        "torch_dtype": "float32",
        "dtype": "float32",
    }


def generation_config(shape: Mapping, ends: Mapping[str, int]) -> dict[str, Any]:
    """Greedy and up to the length of a row, unless the caller asks otherwise. A story ends at EOS."""
    return {**ends, "do_sample": False, "max_length": shape["max_length"]}


def why_not(model: bytes) -> str | None:
    """Why `tokenizers` would spell text otherwise than this vocabulary; None where it spells alike."""
    pieces = opened(model)
    if isinstance(pieces, SentencePieces) and pieces.kind is None:
        return "no tokenizer.json spells exactly as this SentencePiece vocabulary does; tokenizer.model is there"
    return None


def tokenizer(model: bytes) -> dict[str, Any]:
    """tokenizer.json: the model's own, with BOS before every text; or made of SentencePiece's pairs.

    The latter is exact for identity normalisation, byte fallback and dummy prefix (`why_not`). Strings such as `</s>`
    inside text become special ids here but not in SentencePiece: tokenizers parses them first.
    """
    if held := unpacked(model):
        bos_id = opened(model).bos_id
        return held | {"post_processor": _begin(opened(model).table()["piece"][bos_id].as_py(), bos_id)}
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    size = pieces.get_piece_size()
    vocab = {pieces.id_to_piece(i): i for i in range(size)}
    plain = [i for i in range(size) if not (pieces.is_control(i) or pieces.is_byte(i) or pieces.is_unknown(i))]
    normal = {pieces.id_to_piece(i): i for i in plain}
    unigram = SentencePieces(model).kind == "unigram"
    special = [pieces.id_to_piece(i) for i in range(size) if pieces.is_control(i) or pieces.is_unknown(i)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocab[piece], piece) for piece in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": BYTE_NAMES if unigram else None,
        "post_processor": _begin(pieces.id_to_piece(pieces.bos_id()), pieces.bos_id()),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": _unigram(model) if unigram else _pairs(pieces, vocab, normal),
    }


def _pairs(pieces: Any, vocab: Mapping[str, int], normal: Mapping[str, int]) -> dict[str, Any]:
    """A piece may have come from several pairs: each is a merge, best piece first, as SentencePiece picks by score."""
    merges = []
    for piece in sorted(normal, key=lambda piece: (-pieces.get_score(normal[piece]), normal[piece])):
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        whole = [pair for pair in halves if pair[0] in normal and pair[1] in normal]
        merges += sorted(whole, key=lambda pair: (normal[pair[0]], normal[pair[1]]))
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces.id_to_piece(pieces.unk_id()),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": [list(pair) for pair in merges],
    }


def _unigram(model: bytes) -> dict[str, Any]:
    """Bytes and controls score so low that no text is cut into them; SentencePiece does not look for them at all."""
    table = SentencePieces(model).table()
    rows = zip(*(table[name].to_pylist() for name in ("piece", "score", "kind")), strict=True)
    vocab = [[piece, score if kind == NORMAL else NEVER] for piece, score, kind in rows]
    return {"type": "Unigram", "unk_id": SentencePieces(model).unk_id, "vocab": vocab, "byte_fallback": True}


def tokenizer_config(shape: Mapping, chat_template: str | None, special: Mapping[str, str]) -> dict[str, Any]:
    """tokenizer_config.json; the chat template, if the model has one, carries the instruction layout."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape["max_length"],
        "clean_up_tokenization_spaces": False,
        **({"chat_template": chat_template} if chat_template else {}),
        **special,
    }


def special_tokens(model: bytes) -> dict[str, str]:
    """bos_token, eos_token and, where there is one, unk_token."""
    pieces = opened(model)
    names = pieces.table()["piece"]
    ids = {"bos_token": pieces.bos_id, "eos_token": pieces.eos_id, "unk_token": pieces.unk_id}
    return {which: names[piece_id].as_py() for which, piece_id in ids.items() if piece_id is not None}


def _added(token_id: int, piece: str) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _begin(piece: str, token_id: int) -> dict[str, Any]:
    """BOS before every text, as llama's tokenizers do: a bare prompt then continues a story."""
    text = [{"SpecialToken": {"id": piece, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*text, {"Sequence": {"id": "B", "type_id": 1}}]
    token = {piece: {"id": piece, "ids": [token_id], "tokens": [piece]}}
    return {"type": "TemplateProcessing", "single": text, "pair": pair, "special_tokens": token}
