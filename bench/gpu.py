"""Training on a GPU, measured: stories15m, 42m and 110m beside llama2.c and nanoGPT on the same card.

In:   random tokens, rows of llama2.c's lengths; checkouts of the peers (optional)
Out:  tokens a second and the share of the card's measured peak (MFU); a row that says why where there is no card

Ours is what the loop does in a step, as bench/train.py has it on a CPU, with one document a row. The peers run as their
train.py does on a GPU: bf16 autocast, torch.compile, fused AdamW, TF32 allowed. The clock stops after
torch.cuda.synchronize.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from bench.beside import Case, Measured, Row, beside

Work = Callable[[], dict[str, Any]]
# width, layers, heads, key/value heads, feed-forward, vocabulary, row length, rows in a step; as in llama2.c's README
SIZES: dict[str, tuple[int, ...]] = {
    "stories15m": (288, 6, 6, 6, 768, 32000, 256, 128),
    "stories42m": (512, 8, 8, 8, 1376, 32000, 1024, 32),
    "stories110m": (768, 12, 12, 12, 2048, 32000, 1024, 32),
}
WARM_UP, STEPS, THREADS = 5, 20, 4
MFU_BAR, SPEED_BAR = 0.5, 2.0  # at stories110m; beside llama2.c at each size


def _timed(size: str, step: Callable[[], Any]) -> Work:
    """Steps that leave their results on the card, timed from idle to idle."""
    import torch

    for _ in range(WARM_UP):
        step()

    def work() -> dict[str, Any]:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
        *_, length, rows = SIZES[size]
        tokens = STEPS * rows * length / (time.perf_counter() - started)
        return {"tokens_per_s": tokens, "gib": torch.cuda.max_memory_allocated() / 2**30}

    return work


def _drawn(size: str):
    import torch

    *_, vocabulary, length, rows = SIZES[size]
    torch.manual_seed(0)
    ids = torch.randint(0, vocabulary, (rows, length + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def ours(size: str) -> Work:
    import torch

    from lib.model import compute
    from lib.model.batches import Batch
    from lib.model.network import Llama
    from lib.model.optim import Optimizer
    from lib.model.shape import Shape
    from lib.model.training import Training

    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff", "vocab_size", "max_length")
    shape = Shape(**dict(zip(names, SIZES[size], strict=False)))
    ids_BT, targets_BT = _drawn(size)
    document_BT = torch.zeros_like(ids_BT, dtype=torch.int32)  # one: MFU and the peers count attention over whole rows
    batch = Batch(ids_BT, document_BT, targets_BT, 0.0).pinned()
    training = Training(steps=10_000, batch_size=len(ids_BT), lr=1e-4, compile="on", device="cuda")
    model = Llama(shape)
    machine = compute.prepare(model=model, training=training, row_length=shape.max_length)
    optimizer, number = Optimizer(model=model, training=training), iter(range(10_000))

    def step() -> None:
        optimizer.zero_grad()
        here = batch.to(machine.device)
        nats = machine.nats(here.ids_BT, here.document_BT, here.targets_BT)
        (nats / ids_BT.numel()).backward()
        optimizer.step(next(number), loss=nats.item() / ids_BT.numel(), last_good=None)

    work = _timed(size, step)

    def measured() -> dict[str, Any]:
        figures = work()
        flop = compute.flop_per_token(model, shape.max_length) * figures["tokens_per_s"]
        return figures | {"mfu": flop / compute.peak_flops(machine.device, machine.dtype)}

    return measured


def _peer(size: str, model: Any, loss_of: Callable[..., Any]) -> Work:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    ids_BT, targets_BT = (each.cuda() for each in _drawn(size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(ids_BT, targets_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return _timed(size, step)


def llama2c(size: str, checkout: str) -> Work:
    sys.path.insert(0, checkout)
    import torch
    from model import ModelArgs, Transformer  # from the checkout

    width, layers, heads, kv_heads, hidden, vocabulary, length, _ = SIZES[size]
    shape = {"dim": width, "n_layers": layers, "n_heads": heads, "n_kv_heads": kv_heads, "hidden_dim": hidden}
    model = Transformer(ModelArgs(**shape, vocab_size=vocabulary, max_seq_len=length)).cuda()
    fast = torch.compile(model)

    def loss_of(ids_BT: Any, targets_BT: Any) -> Any:
        fast(ids_BT, targets_BT)
        return model.last_loss

    return _peer(size, model, loss_of)


def nanogpt(size: str, checkout: str) -> Work:
    sys.path.insert(0, checkout)
    import torch
    from model import GPT, GPTConfig  # from the checkout

    width, layers, heads, _, _, vocabulary, length, _ = SIZES[size]
    shape = {"n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": vocabulary, "block_size": length}
    model = GPT(GPTConfig(**shape, bias=False)).cuda()
    fast = torch.compile(model)
    return _peer(size, model, lambda ids_BT, targets_BT: fast(ids_BT, targets_BT)[1])


# ---- the table


def table(*, rounds: int, stories: str | None, llama2c: str | None, nanogpt: str | None) -> list[Row]:
    """A row a size and peer; without a card one row that says so."""
    import torch

    if not torch.cuda.is_available():
        return [
            Row("train on a GPU", "–", "llama2.c, nanoGPT", note=f"no CUDA device here (torch {torch.__version__})")
        ]
    peers = {name: folder for name, folder in (("llama2c", llama2c), ("nanogpt", nanogpt)) if folder}
    rows: list[Row] = []
    for size in SIZES:
        cases = [Case("ours", __name__, "ours", {"size": size}, threads=THREADS)]
        cases += [
            Case(name, __name__, name, {"size": size, "checkout": folder}, threads=THREADS)
            for name, folder in peers.items()
        ]
        rows += _rows(size, beside(cases, rounds), torch.cuda.get_device_name())
    return rows


def _rows(size: str, measured: dict[str, Measured], card: str) -> list[Row]:
    figures = {name: each.figures for name, each in measured.items()}
    mine = figures.pop("ours")
    ours = f"{mine['tokens_per_s']:,.0f} tokens/s, MFU {mine['mfu']:.1%}, {mine['gib']:.1f} GiB"
    rows = [
        Row(
            f"train {size}, {card}",
            ours,
            f"{name} {theirs['tokens_per_s']:,.0f}, {theirs['gib']:.1f} GiB",
            mine["tokens_per_s"] / theirs["tokens_per_s"],
            SPEED_BAR if name == "llama2c" else None,
        )
        for name, theirs in figures.items()
    ]
    goal = MFU_BAR if size == "stories110m" else None
    return [*rows, Row(f"MFU {size}, {card}", ours, "measured matmul peak", mine["mfu"], goal)]
