"""llama2.c: the .bin files of karpathy's run.c (v0), of newer readers (v1) and of runq.c (q8_0), and tokenizer.bin.

In:   weights as numpy arrays under llama2.c's own names; the network's shape
Out:  bytes; lib/model/llama2c_reading.py goes the other way
Relies on: llama2.c's export.py (legacy_export, version1_export, version2_export) and tokenizer.py (export) for the
layout: little-endian, tensors one kind after the other, each kind over all layers.

Our network turns channel c with channel c + C/2, llama2.c turns neighbours: `to_pairs` moves the rows of wq and wk.
"""

import struct
from collections.abc import Iterator, Mapping

import numpy as np
import sentencepiece

from lib.errors import UserError
from lib.text.pieces import SentencePieces, opened

MAGIC = 0x616B3432  # "ak42"
HEADER_BYTES = 256  # of v1 and v2; v0 has seven ints and nothing else
ATTENTION = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")
FEED_FORWARD = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
GROUP = 64  # q8_0: one scale for this many weights, llama2.c's default; halved until it divides the width

Weights = Mapping[str, np.ndarray]


def version0(weights: Weights, shape: Mapping) -> bytes:
    """The file run.c opens. A negative vocabulary size says that the classifier is a tensor of its own."""
    vocab_size = shape["vocab_size"] if shape["tied"] else -shape["vocab_size"]
    tensors = [
        weights["tok_embeddings.weight"],
        *_layers(weights, shape, "attention_norm", *ATTENTION),
        *_layers(weights, shape, "ffn_norm", *FEED_FORWARD),
        weights["norm.weight"],
        *rotations(shape),
        *([] if shape["tied"] else [weights["output.weight"]]),
    ]
    return _ints(shape, vocab_size) + b"".join(_floats(tensor) for tensor in tensors)


def version1(weights: Weights, shape: Mapping) -> bytes:
    """The same numbers behind a header that names the format; the rotations are left to the reader."""
    tensors = [
        *_layers(weights, shape, "attention_norm"),
        *_layers(weights, shape, "ffn_norm"),
        weights["norm.weight"],
        *_matrices(weights, shape),
    ]
    return _header(1, shape, b"") + b"".join(_floats(tensor) for tensor in tensors)


def q8_0(weights: Weights, shape: Mapping) -> bytes:
    """Matrices as int8 with one float scale a group; norms stay float32. Opened by runq.c."""
    group = GROUP
    while shape["d_model"] % group or shape["d_ff"] % group:
        group //= 2
    norms = [*_layers(weights, shape, "attention_norm"), *_layers(weights, shape, "ffn_norm"), weights["norm.weight"]]
    parts = [_header(2, shape, struct.pack("<i", group)), *(_floats(norm) for norm in norms)]
    for matrix in _matrices(weights, shape):
        codes, scales = quantized(matrix, group)
        parts += [codes.tobytes(), _floats(scales)]
    return b"".join(parts)


def quantized(matrix: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes [groups, group] in -127…127 and float32 scales [groups]: code × scale is off by scale/2 at most."""
    grouped = matrix.astype(np.float32).reshape(-1, group)
    scales = np.abs(grouped).max(axis=1) / np.float32(127)
    # A group of zeros has scale 0; any divisor will do, its codes are 0.
    codes = np.round(grouped / np.where(scales == 0, np.float32(1), scales)[:, None]).astype(np.int8)
    return codes, scales


def why_not(model: bytes, shape: Mapping) -> str | None:
    """Why run.c would compute or spell otherwise than this model; None where it does the same."""
    pieces = opened(model)
    if not (isinstance(pieces, SentencePieces) and pieces.by_chunks and (pieces.bos_id, pieces.eos_id) == (1, 2)):
        return "run.c knows SentencePiece's byte-pair vocabularies alone, with bos 1 and eos 2"
    if (shape["rope_theta"], shape["norm_eps"]) != (10000.0, 1e-5):
        found = f"rope_theta {shape['rope_theta']:g} and norm_eps {shape['norm_eps']:g}"
        return f"run.c has rope_theta 10000 and norm_eps 1e-05 written into it, this model {found}"
    return None


def tokenizer_bin(model: bytes) -> bytes:
    """SentencePiece's pieces and scores as run.c reads them: ▁ is a space, BOS and EOS print as lines of their own."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    texts = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    texts[pieces.bos_id()], texts[pieces.eos_id()] = "\n<s>\n", "\n</s>\n"
    coded = [text.replace("\u2581", " ").encode() for text in texts]
    rows = (struct.pack("<fI", pieces.get_score(i), len(text)) + text for i, text in enumerate(coded))
    return struct.pack("<I", max(map(len, coded))) + b"".join(rows)


def rotations(shape: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [max_length, head_dim / 2] of position × theta^(-2i / head_dim)."""
    head_dim = shape["d_model"] // shape["n_heads"]
    frequencies = 1.0 / shape["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angles = np.outer(np.arange(shape["max_length"]), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def to_pairs(matrix: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of each head from halves (0 … C/2-1 | C/2 … C-1) to neighbours 0, C/2, 1, C/2 + 1, …"""
    return matrix.reshape(-1, 2, head_dim // 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def _layers(weights: Weights, shape: Mapping, *kinds: str) -> Iterator[np.ndarray]:
    """Every layer's tensor of the first kind, then of the next."""
    for kind in kinds:
        for layer in range(shape["n_layers"]):
            name = f"layers.{layer}.{kind}.weight"
            if name not in weights:
                raise UserError(f"the model has no tensor {name}; its layers hold {sorted(weights)[:8]}…")
            rotary = kind in ("attention.wq", "attention.wk")
            yield to_pairs(weights[name], shape["d_model"] // shape["n_heads"]) if rotary else weights[name]


def _matrices(weights: Weights, shape: Mapping) -> list[np.ndarray]:
    """What v1 and v2 write after the norms, in their order."""
    own = [] if shape["tied"] else [weights["output.weight"]]
    return [weights["tok_embeddings.weight"], *_layers(weights, shape, *ATTENTION, *FEED_FORWARD), *own]


def _ints(shape: Mapping, vocab_size: int) -> bytes:
    sizes = (shape["d_model"], shape["d_ff"], shape["n_layers"], shape["n_heads"], shape["n_kv_heads"])
    return struct.pack("<7i", *sizes, vocab_size, shape["max_length"])


def _header(version: int, shape: Mapping, more: bytes) -> bytes:
    head = struct.pack("<Ii", MAGIC, version) + _ints(shape, shape["vocab_size"]) + struct.pack("<B", shape["tied"])
    return (head + more).ljust(HEADER_BYTES, b"\0")


def _floats(tensor: np.ndarray) -> bytes:
    return np.ascontiguousarray(tensor, dtype="<f4").tobytes()
