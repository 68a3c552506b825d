"""What a run says of its speed: never above the peak, memory that is really held, time in words."""

import numpy as np
import pytest
import torch

from lib.model import compute, gauge
from lib.model.lora import add_lora
from lib.model.network import Llama, Shape
from lib.model.training import Training
from lib.store import connect
from tests.test_pretrain import run

SHAPE = Shape(vocab_size=31, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=24, max_length=16)


def of(model: Llama, ranks: int = 1) -> gauge.Gauge:
    machine = compute.prepare(model=model, training=Training(steps=1, threads=1, compile="off"), row_length=16)
    return gauge.Gauge(machine, model, row_length=16, ranks=ranks)


def test_mfu_is_against_the_best_peak_of_the_run_and_never_above_one(monkeypatch):
    monkeypatch.setattr(compute, "peak_flops", lambda *_, **__: 1.0)  # timed on a busy machine: far too low
    one = of(Llama(SHAPE))
    slow = one.row(tokens=100, positions=128, seconds=2.0)
    fast = one.row(tokens=100, positions=128, seconds=1.0)
    assert slow["mfu"] == fast["mfu"] == 1.0
    assert [row["mfu"] for row in one.table_rows([slow, fast])] == [0.5, 1.0]
    assert fast["tokens_per_s"] == 100 and "flops" not in one.table_rows([fast])[0]


def test_the_peak_is_that_of_all_processes(monkeypatch):
    monkeypatch.setattr(compute, "peak_flops", lambda *_, **__: 1e12)
    assert of(Llama(SHAPE), ranks=4).peak == 4e12


def test_a_machine_has_a_peak():
    assert compute.peak_flops(torch.device("cpu"), torch.float32, seconds=0.05) > 1e8


def test_flop_of_a_token_counts_what_is_multiplied():
    attention = 6 * SHAPE.n_layers * SHAPE.d_model * 16
    tied, untied = Llama(SHAPE), Llama(SHAPE.model_copy(update={"tied": False}))
    matrices = sum(weight.numel() for weight in tied.parameters() if weight.dim() == 2)
    assert compute.flop_per_token(tied, 16) == compute.flop_per_token(untied, 16) == 6 * matrices + attention
    added = add_lora(tied, rank=2, alpha=4.0, dropout=0.0, targets=("wq",))
    assert compute.flop_per_token(tied, 16) == 4 * matrices + 6 * added + attention


def test_memory_is_what_the_process_holds():
    before = gauge.memory_mb(torch.device("cpu"))
    held = np.ones(25_000_000)  # 200 MB
    assert gauge.memory_mb(torch.device("cpu")) - before == pytest.approx(200, rel=0.1), held.shape


def test_time_in_words():
    assert [gauge.duration(s) for s in (45, 720, 12_600)] == ["45 s", "12 min", "3.5 h"]


def test_the_line_and_the_view_say_speed_share_of_peak_and_memory():
    said: list[str] = []
    run(said)
    assert all(word in said[-1] for word in (" tokens/s · MFU ", "% · ", " GB · 0 s left"))
    with connect() as db:
        rows = db.sql("select tokens_per_s, mfu, memory_mb, skipped from train_steps order by step").fetchall()
    assert len(rows) == 14
    assert all(speed > 0 and 0 < mfu <= 1 and memory > 50 and not skipped for speed, mfu, memory, skipped in rows)
