"""Train, measured: one optimiser step after another, ours beside llama2.c's own model, in tokens a second.

In:   random tokens; the network shapes of llama2.c's README and two between; checkouts of the peers (optional)
Out:  tokens per CPU-second on one core, tokens per second on two

    ours         what the loop does in a step: compute.prepare (bf16 where it is fast, compiled, attention written
                 out, document mask: two stories a row), forward, backward, clipping, fused AdamW; the memory settings
                 of lib.launch
    llama2.c     model.py of the checkout given by --llama2c as `train.py --device=cpu --compile=False` uses it: float32
                 (its context is a nullcontext there), eager, clipping, AdamW unfused. The bars are beside this one
    llama2.c compiled   the same with train.py's default, torch.compile; no bar
    nanoGPT      model.py of --nanogpt with about the same size, eager, too; a GPT-2: no gate, learnt positions
    Hugging Face LlamaForCausalLM in the same shape, eager, too, attention by SDPA

Every step has the same number of tokens and they are compiled, warmed up and drawn before the clock starts.
"""

import sys
from collections.abc import Callable
from typing import Any

from bench.beside import Case, Measured, Row, beside

Work = Callable[[], dict[str, Any]]
# width, layers, heads, key/value heads, feed-forward, vocabulary, row length, rows in a step, steps
SIZES: dict[str, tuple[int, ...]] = {
    "260K": (64, 5, 8, 4, 172, 512, 512, 16, 4),
    "1M": (128, 5, 8, 4, 344, 1024, 256, 32, 4),
    "3M": (192, 6, 6, 6, 512, 2048, 256, 32, 3),
    "15M": (288, 6, 6, 6, 768, 32000, 256, 8, 3),
}
BARS = {("260K", 1): 2.5, ("1M", 1): 2.3, ("3M", 1): 3.0, ("15M", 1): 3.6, ("3M", 2): 3.5, ("15M", 2): 3.5}
PEERS = ("llama2.c", "llama2.c compiled", "nanoGPT", "Hugging Face")
WARM_UP = 2


def _drawn(size: str):
    """ids_BT and the targets behind them."""
    import torch

    *_, vocabulary, length, rows, _ = SIZES[size]
    torch.manual_seed(0)
    ids = torch.randint(0, vocabulary, (rows, length + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def _steps(size: str, step: Callable[[], float]) -> Work:
    *_, length, rows, number = SIZES[size]
    for _ in range(WARM_UP):
        step()

    def work() -> dict[str, Any]:
        loss = [step() for _ in range(number)][-1]
        return {"tokens": number * rows * length, "loss": loss}

    return work


def ours(size: str, threads: int = 1) -> Work:
    import torch

    from lib.model import compute
    from lib.model.network import Llama
    from lib.model.optim import Optimizer
    from lib.model.shape import Shape
    from lib.model.training import Training

    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "vocab_size", "max_length")
    shape = Shape(**dict(zip(names, SIZES[size], strict=False)))
    ids_BT, targets_BT = _drawn(size)
    document_BT = (torch.arange(shape.max_length) >= shape.max_length // 2).int().expand_as(ids_BT).contiguous()
    training = Training(steps=10_000, batch_size=len(ids_BT), lr=1e-4, threads=threads, compile="on", device="cpu")
    model = Llama(shape)
    machine = compute.prepare(model=model, training=training, row_length=shape.max_length)
    optimizer, number = Optimizer(model=model, training=training), iter(range(10_000))

    def step() -> float:
        optimizer.zero_grad()
        nats = machine.nats(ids_BT, document_BT, targets_BT)
        (nats / ids_BT.numel()).backward()
        loss = nats.item() / ids_BT.numel()
        optimizer.step(next(number), loss=loss, last_good=None)
        return loss

    return _steps(size, step)


def _eager(size: str, model: Any, loss_of: Callable[..., Any], threads: int) -> Work:
    """float32, clipped, AdamW as torch builds it: llama2.c's and nanoGPT's train.py on a CPU with --compile=False."""
    import torch

    torch.set_num_threads(threads)
    ids_BT, targets_BT = _drawn(size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def step() -> float:
        loss = loss_of(ids_BT, targets_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return _steps(size, step)


def llama2c(size: str, checkout: str, threads: int = 1, compiled: bool = False) -> Work:
    import torch

    sys.path.insert(0, checkout)
    from model import ModelArgs, Transformer  # from the checkout

    width, layers, heads, kv_heads, hidden, vocabulary, length, *_ = SIZES[size]
    shape = {"dim": width, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv_heads, "hidden_dim": hidden}
    model = Transformer(ModelArgs(**shape, vocab_size=vocabulary, max_seq_len=length))
    forward = torch.compile(model) if compiled else model

    def loss_of(ids_BT: Any, targets_BT: Any) -> Any:
        forward(ids_BT, targets_BT)
        return model.last_loss

    return _eager(size, model, loss_of, threads)


def nanogpt(size: str, checkout: str, threads: int = 1) -> Work:
    sys.path.insert(0, checkout)
    from model import GPT, GPTConfig  # from the checkout

    width, layers, heads, _, _, vocabulary, length, *_ = SIZES[size]
    shape = {"n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": vocabulary, "block_size": length}
    model = GPT(GPTConfig(**shape, bias=False))
    return _eager(size, model, lambda ids_BT, targets_BT: model(ids_BT, targets_BT)[1], threads)


def huggingface(size: str, threads: int = 1) -> Work:
    from torch.nn.functional import cross_entropy
    from transformers import LlamaConfig, LlamaForCausalLM

    width, layers, heads, kv_heads, hidden, vocabulary, length, *_ = SIZES[size]
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    shape |= {"num_key_value_heads": kv_heads, "intermediate_size": hidden, "max_position_embeddings": length}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=vocabulary, tie_word_embeddings=True, use_cache=False))

    def loss_of(ids_BT: Any, targets_BT: Any) -> Any:
        return cross_entropy(model(ids_BT).logits.flatten(0, 1), targets_BT.flatten())

    return _eager(size, model, loss_of, threads)


# ---- the table


def table(*, rounds: int, stories: str | None, llama2c: str | None, nanogpt: str | None) -> list[Row]:
    """Ours beside each peer at every size on one core, and beside llama2.c on two."""
    from lib.launch import MALLOC

    given = {
        "llama2.c": ("llama2c", {"checkout": llama2c} if llama2c else None),
        "llama2.c compiled": ("llama2c", {"checkout": llama2c, "compiled": True} if llama2c else None),
        "nanoGPT": ("nanogpt", {"checkout": nanogpt} if nanogpt else None),
        "Hugging Face": ("huggingface", {}),
    }
    rows: list[Row] = []
    for size, threads in BARS:
        what = {"size": size, "threads": threads}
        cases = [Case("ours", __name__, "ours", what, environment=MALLOC, threads=threads)]
        cases += [
            Case(name, __name__, function, what | more, threads=threads)
            for name, (function, more) in given.items()
            if more is not None and (threads == 1 or name.startswith("llama2.c"))
        ]
        rows += rows_of(size, threads, beside(cases, rounds))
    return rows


def rows_of(size: str, threads: int, measured: dict[str, Measured]) -> list[Row]:
    """A row a peer that was measured; the bar is the eager llama2.c's."""
    stage = f"train {size}, {'one core' if threads == 1 else f'{threads} threads'}"
    names = [name for name in PEERS if name in measured] or ["llama2.c"]
    return [_row(stage, measured, name, BARS[size, threads] if name == "llama2.c" else None, threads) for name in names]


def _row(stage: str, measured: dict[str, Measured], name: str, bar: float | None, threads: int) -> Row:
    speed = {
        each: found.figures["tokens"] / (found.cpu_s if threads == 1 else found.wall_s)
        for each, found in measured.items()
    }
    unit = "tokens/CPU-s" if threads == 1 else "tokens/s"
    if name not in measured:
        return Row(stage, f"{speed['ours']:,.0f} {unit}", name, note="no folder given (--llama2c)")
    note = f"{measured['ours'].peak_mb:,.0f} MB, the peer {measured[name].peak_mb:,.0f} MB"
    return Row(
        stage, f"{speed['ours']:,.0f} {unit}", f"{name} {speed[name]:,.0f}", speed["ours"] / speed[name], bar, note
    )
