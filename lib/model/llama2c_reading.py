"""llama2.c's files, read: a .bin of any of its three formats, and tokenizer.bin.

In:   bytes
Out:  the network's shape and its weights as float32 numpy arrays under llama2.c's own names; a SentencePiece model
Relies on lib/model/llama2c.py, which writes these files, for what stands where.

A .bin says nothing of rope_theta and norm_eps: run.c has 10,000 and 1e-5 written into it, and so has this.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from lib.errors import UserError
from lib.model.llama2c import ATTENTION, FEED_FORWARD, HEADER_BYTES, MAGIC

V0, V1, Q8_0 = 0, 1, 2
NUM_CONTROLS, NUM_BYTES = 3, 256  # run.c finds byte b at piece b + 3
CONTROLS = ("<unk>", "<s>", "</s>")
SPACE = "\u2581"


def network(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Shape and weights of a .bin file; quantised ones are multiplied out. UserError for anything else."""
    if len(data) < 28:
        raise UserError(f"found a .bin of {len(data)} bytes, expected llama2.c's header and weights: fetch it again")
    version, tied, group = _version(data)
    d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size, max_length = struct.unpack_from(
        "<7i", data, 0 if version == V0 else 8
    )
    shape = {
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_ff": d_ff,
        "max_length": max_length,
        "rope_theta": 10000.0,
        "norm_eps": 1e-5,
        "tied": vocab_size > 0 if version == V0 else tied,
        "vocab_size": abs(vocab_size),
    }
    sizes = (d_model, d_ff, n_layers, n_heads, n_kv_heads, vocab_size, max_length)
    # A weight takes a byte or more: what a foreign file says of itself must not become a list of a billion names.
    if not all(sizes) or min(shape.values()) < 0 or d_model * max(abs(vocab_size), n_layers * d_ff) > len(data):
        raise UserError(f"found no llama2.c model: its header says {shape}; expected a .bin that run.c or runq.c reads")
    if d_model % n_heads or d_model // n_heads % 2 or n_heads % n_kv_heads:
        raise UserError(
            f"found n_heads {n_heads} and n_kv_heads {n_kv_heads} at d_model {d_model} in the .bin's header, expected "
            "d_model to be n_heads times an even number, and n_heads a multiple of n_kv_heads: fetch the file again"
        )
    if version == Q8_0 and (group < 1 or d_model % group):  # every matrix has a side of d_model
        raise UserError(
            f"found groups of {group} weights in the .bin's header, expected a number above 0 that divides "
            f"d_model {d_model}: fetch the file again"
        )
    tensors = _tensors(data, shape, version, group)
    return shape, {name: from_pairs(each, d_model // n_heads) if _turns(name) else each for name, each in tensors}


def from_pairs(matrix: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of each head from neighbours (0, C/2, 1, C/2 + 1, …) back to halves: undoes llama2c.to_pairs."""
    return matrix.reshape(-1, head_dim // 2, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def tokenizer_model(data: bytes, vocab_size: int) -> bytes:
    """A SentencePiece model with the pieces and scores of a tokenizer.bin. UserError if it holds another number.

    It gives the ids of run.c: pairs merged by the best score, leftmost first, blanks kept as they stand, a blank before
    the text, bytes for what has no piece. Which piece is a byte or a control goes by its place, as in run.c.
    """
    from sentencepiece import sentencepiece_model_pb2 as pb

    texts, scores = _vocabulary(data, vocab_size)
    proto = pb.ModelProto()
    kind = pb.ModelProto.SentencePiece
    for n, (text, score) in enumerate(zip(texts, scores, strict=True)):
        if n < NUM_CONTROLS:
            text, of = CONTROLS[n], kind.CONTROL if n else kind.UNKNOWN
        elif n < NUM_CONTROLS + NUM_BYTES:
            text, of = f"<0x{n - NUM_CONTROLS:02X}>", kind.BYTE
        else:
            text, of = text.replace(" ", SPACE), kind.NORMAL
        proto.pieces.add(piece=text, score=score, type=of)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = pb.TrainerSpec.BPE, vocab_size, True
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    trainer.unk_surface = " \u2047 "
    normalizer.name, normalizer.add_dummy_prefix = "identity", True
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    return proto.SerializeToString(deterministic=True)


def _vocabulary(data: bytes, vocab_size: int) -> tuple[list[str], list[float]]:
    """The pieces and their scores, every byte of the file used."""
    texts, scores, place = [], [], 4
    try:
        while place < len(data):
            score, size = struct.unpack_from("<fI", data, place)
            if place + 8 + size > len(data):
                raise ValueError(f"piece {len(texts)} ends behind the file")
            texts.append(data[place + 8 : place + 8 + size].decode())
            scores.append(score)
            place += 8 + size
    except (struct.error, ValueError) as error:
        raise UserError(
            f"found no tokenizer.bin of llama2.c ({error}), expected (score, length, piece) rows"
        ) from error
    if len(texts) != vocab_size:
        raise UserError(
            f"found {len(texts):,} pieces in the tokenizer.bin, expected the model's {vocab_size:,}: "
            "give the one that the model was trained with"
        )
    return texts, scores


def _version(data: bytes) -> tuple[int, bool, int]:
    """(version, tied, group) of the header; v0 has none, and says tied otherwise."""
    magic, version = struct.unpack_from("<Ii", data)
    if magic != MAGIC:
        return V0, False, 0
    if version not in (V1, Q8_0) or len(data) < HEADER_BYTES:
        raise UserError(
            f"found version {version} of llama2.c's .bin format, expected 1 or 2 (or the one without a header)"
        )
    tied, group = struct.unpack_from("<Bi", data, 36)
    return version, bool(tied), group if version == Q8_0 else 0


def _tensors(data: bytes, shape: Mapping, version: int, group: int) -> list[tuple[str, np.ndarray]]:
    """Every tensor by name, in the file's order. UserError unless they fill the file."""
    sizes, layers = _sizes(shape), range(shape["n_layers"])

    def each(*kinds: str) -> list[str]:
        return [f"layers.{layer}.{kind}.weight" for kind in kinds for layer in layers]

    own = [] if shape["tied"] else ["output.weight"]
    if version == V0:
        before = [
            "tok_embeddings.weight",
            *each("attention_norm", *ATTENTION, "ffn_norm", *FEED_FORWARD),
            "norm.weight",
        ]
        names = [*before, "rotations", *own]
    else:
        norms = [*each("attention_norm", "ffn_norm"), "norm.weight"]
        names = [*norms, "tok_embeddings.weight", *each(*ATTENTION, *FEED_FORWARD), *own]
    place, found = 28 if version == V0 else HEADER_BYTES, []
    for name in names:
        size = sizes[name.split(".")[-2] if name != "rotations" else name]
        quantised = bool(group) and len(size) == 2
        num_bytes = int(np.prod(size)) * 4 if not quantised else int(np.prod(size)) // group * (group + 4)
        if place + num_bytes > len(data):
            raise UserError(
                f"found a .bin of {len(data):,} bytes that ends within {name}: fetch it again; it says {shape}"
            )
        found.append((name, _tensor(data, place, size, group if quantised else 0)))
        place += num_bytes
    if place != len(data):
        raise UserError(f"found a .bin of {len(data):,} bytes, expected {place:,} for {shape}: is it a llama2.c model?")
    return [(name, tensor) for name, tensor in found if name != "rotations"]


def _tensor(data: bytes, place: int, size: tuple[int, ...], group: int) -> np.ndarray:
    """One tensor, float32: as it stands there, or (group > 0) int8 codes times one scale a group."""
    count = int(np.prod(size))
    if not group:
        return np.frombuffer(data, "<f4", count, place).reshape(size)
    codes = np.frombuffer(data, np.int8, count, place).reshape(-1, group)
    scales = np.frombuffer(data, "<f4", count // group, place + count)
    return (codes * scales[:, None]).reshape(size)


def _sizes(shape: Mapping) -> dict[str, tuple[int, ...]]:
    """What each kind of tensor measures; `rotations` are run.c's two tables, which nobody needs."""
    width, d_ff, vocab_size = shape["d_model"], shape["d_ff"], shape["vocab_size"]
    head_dim = width // shape["n_heads"]
    kv_width = head_dim * shape["n_kv_heads"]
    return {
        "tok_embeddings": (vocab_size, width),
        "output": (vocab_size, width),
        "rotations": (2 * shape["max_length"] * (head_dim // 2),),
        **{kind: (width,) for kind in ("attention_norm", "ffn_norm", "norm")},
        **{"wq": (width, width), "wk": (kv_width, width), "wv": (kv_width, width), "wo": (width, width)},
        **{"w1": (d_ff, width), "w2": (width, d_ff), "w3": (d_ff, width)},
    }


def _turns(name: str) -> bool:
    return name.endswith(("attention.wq.weight", "attention.wk.weight"))
