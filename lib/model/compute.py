"""What the machine is good at: device, number format, compiler; and how close a run comes to its peak.

In:   Training (device, precision, compile, threads), the model
Out:  Compute, whose `nats` is the one function that training and evaluation call
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from lib.errors import UserError
from lib.model import chunked
from lib.model.network import IGNORE, Llama
from lib.model.training import Training

# An eager step of 1M parameters does about 65 GFLOP/s on one core; compiling costs 9-15 s cold, 2-3 s warm, and doubles
# that speed. Below half a minute of eager work it does not pay.
WORTH_COMPILING = 4e12  # FLOP
# Queries in blocks skip most of what causality hides. One core, tokens/s: 260K parameters at rows of 512 from 11,100 to
# 16,500 with blocks of 128 and 17,800 with 64; 1M at rows of 256 17,100 and 17,500, with 32 only 15,300. Four to eight
# blocks compile for 19 to 52 CPU seconds instead of 17: worth it from some minutes of work on.
WORTH_BLOCKS = 2e13  # FLOP
BLOCK = 64
MOST_LOGITS = 1 << 25  # in one piece of a step: 134 MB in float32; above it the loss is computed in chunks
Nats = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Compute:
    """Where and how a model runs."""

    device: torch.device
    dtype: torch.dtype  # of matrix products; weights, sums and the optimiser stay float32
    compiled: bool
    nats: Nats  # (ids_BT, document_BT, targets_BT) -> nats summed over the targets that are not IGNORE

    def __str__(self) -> str:
        number = {torch.bfloat16: "bf16", torch.float32: "fp32"}[self.dtype]
        return f"{self.device.type}, {number}, {'compiled' if self.compiled else 'eager'}"


def prepare(*, model: Llama, training: Training, row_length: int, move: bool = True) -> Compute:
    """Choose device, dtype and compiler for this model and run; moves the model to the device, if it may."""
    if training.threads:
        torch.set_num_threads(training.threads)
    device = pick_device(training.device)
    if device.type == "cpu":
        # Without this the compiled gradient of the embedding adds atomically, in whatever order two threads come:
        # two equal runs of five steps ended with different weights.
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    dtype = pick_dtype(training.precision, device)
    flop = training.steps * training.batch_size * row_length * flop_per_token(model, row_length)
    compiled = training.compile == "on" or (training.compile == "auto" and flop > WORTH_COMPILING and can_compile())
    if compiled and not can_compile():
        raise UserError("compile is 'on', but found no C++ compiler (g++ or clang++); install one or use compile 'off'")
    if compiled:
        # A stable folder: with a warm cache the first step takes seconds less. Inductor reads it when it is imported.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache_folder() / "inductor"))
    if move:
        model.to(device)
    model.explicit_attention = compiled and device.type == "cpu"
    if model.explicit_attention and flop > WORTH_BLOCKS:
        for layer in model.layers:
            layer.attention.block = BLOCK
    elif model.explicit_attention and row_length > model.shape.max_length:  # no further back than a story is long
        for layer in model.layers:
            layer.attention.block = model.shape.max_length
    # FlexAttention skips what lies in other stories; SDPA with a mask computes it. Its kernels want powers of two.
    model.flex_attention = compiled and device.type == "cuda" and model.shape.head_dim in (16, 32, 64, 128)
    logits = training.batch_size // training.accumulate * row_length * model.shape.vocab_size
    if logits > MOST_LOGITS:
        model.nats_in_chunks = _in_chunks(compiled)
    return Compute(device=device, dtype=dtype, compiled=compiled, nats=_nats(model, device, dtype, compiled))


def _in_chunks(compiled: bool) -> Nats:
    """The chunk is compiled, the loop over chunks is not: it would be unrolled, and compiled chunk by chunk."""
    if not compiled:
        return partial(chunked.nats_of, ignore=IGNORE)
    step = torch.compile(chunked.chunk_step, dynamic=False)
    return torch.compiler.disable(partial(chunked.nats_of, ignore=IGNORE, step=step))


def _nats(model: Llama, device: torch.device, dtype: torch.dtype, compiled: bool) -> Nats:
    def nats(ids_BT: Tensor, document_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return model(ids_BT, document_BT, targets_BT)

    if compiled:
        nats = torch.compile(nats, dynamic=False)

    def in_dtype(ids_BT: Tensor, document_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with autocast(device, dtype):  # inside the compiled function it would bypass the cache of graphs
            return nats(ids_BT, document_BT, targets_BT)

    return in_dtype


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storymill"


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def pick_device(asked: str) -> torch.device:
    """Raises UserError for a device that this machine has not."""
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {asked!r} cannot be used here ({error}); use 'auto' or 'cpu'") from error
    return device


def pick_dtype(asked: str, device: torch.device) -> torch.dtype:
    """bf16 where its matrix products are fast: 4.5 times fp32 with avx512_bf16 (measured on Zen 5), slower without."""
    if asked == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[asked]


@cache
def can_compile() -> bool:
    """Inductor needs a C++ compiler."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return any(name and shutil.which(name) for name in names)


def flop_per_token(model: Llama, row_length: int) -> float:
    """Of one training step: 6 for each weight of a matrix, 4 for a frozen one, which needs no gradient of its own,
    and 6 L D T (causal attention counted as half of the square). An embedding that is not also the output layer is
    looked up, not multiplied. A longer row holds several documents.
    """
    shape = model.shape
    matrices = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}
    if not shape.tied:
        del matrices["tok_embeddings.weight"]
    flop = sum((6 if weight.requires_grad else 4) * weight.numel() for weight in matrices.values())
    return flop + 6 * shape.n_layers * shape.d_model * min(row_length, shape.max_length)


def peak_flops(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.15) -> float:
    """The FLOP/s of matrix products that this device does now: the best of so many seconds of tries.

    4096 x 768 x 288 on a CPU, which a stories15m has; on a GPU, where that would time the launch, ten of 8192 cubed.
    """
    rows, inner, columns, at_once = (8192, 8192, 8192, 10) if device.type == "cuda" else (4096, 768, 288, 1)
    a = torch.ones(rows, inner, device=device, dtype=dtype)
    b = torch.ones(inner, columns, device=device, dtype=dtype)
    best, until = 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.perf_counter()
        for _ in range(at_once):
            product = a @ b
        product[0, 0].item()  # waits for the device
        best = max(best, at_once * 2 * rows * inner * columns / (time.perf_counter() - started))
    return best
