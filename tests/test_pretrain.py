"""Pretraining learns, says what it did, and a killed run ends with the bytes of one that was not killed."""

import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from lib import process
from lib.errors import UserError
from lib.model.network import load_model
from lib.model.training import Diverged
from lib.stages.pretrain import STAGE, PretrainConfig, pretrain
from lib.store import Dataset, build
from tests.tiny_tokens import tokenizer_of, tokens_of

TINY = {
    "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "max_length": 128,
    "steps": 14, "batch_size": 4, "lr": 1e-2, "warmup": 2, "eval_every": 5, "checkpoint_every": 3,
    "compile": "off", "threads": 1,
}  # fmt: skip
HOUSE = Path(__file__).parent.parent
KILLED = """
import json, sys, time
from lib import process
process.die_with_parent()
from lib.stages import pretrain
from lib.store import Dataset, build
config, inputs = json.loads(sys.argv[1])
def tell(text, done, total):
    print(int(done or 0), flush=True)
    time.sleep(0.02)
inputs = {name: Dataset(**each) for name, each in inputs.items()}
build(pretrain.STAGE, pretrain.PretrainConfig(**config), inputs, pretrain.pretrain, on_progress=tell)
"""


def inputs(layout: str = "pretrain") -> dict[str, Dataset]:
    tokenizer = tokenizer_of()
    return {"tokens": tokens_of(tokenizer, layout=layout), "tokenizer": tokenizer}


def run(said: list[str] | None = None, **changes: object) -> Dataset:
    def note(text: str, done: float | None, total: float | None) -> None:
        (said if said is not None else []).append(text)

    return build(STAGE, PretrainConfig(**TINY | changes), inputs(), pretrain, on_progress=note)


def losses(dataset: Dataset) -> list[float]:
    return dataset.table(table="train_steps")["loss"].to_pylist()


def test_it_learns_and_writes_what_it_did():
    said: list[str] = []
    made = run(said)
    assert losses(made)[0] == pytest.approx(math.log(330), rel=0.05)
    assert losses(made)[-1] < losses(made)[0] - 0.5
    evals = made.table(table="evals").to_pylist()
    assert [row["step"] for row in evals] == [5, 10, 14]
    assert made.facts["bits_per_byte"] == evals[-1]["bits_per_byte"] < evals[0]["bits_per_byte"]
    nats = evals[-1]["nats_per_token"] * evals[-1]["tokens"]
    assert evals[-1]["bits_per_byte"] == pytest.approx(nats / math.log(2) / evals[-1]["bytes"])
    assert made.facts["tokens_seen"] == made.table(table="train_steps")["tokens"].to_pylist()[-1]
    assert made.facts["num_params"] == load_model(made.path).shape.num_params
    about = json.loads(made.file("model.json").read_text())
    assert (about["layout"], about["stage"]) == ("pretrain", "pretrain")
    assert made.file("tokenizer.model").read_bytes() == tokenizer_of().file("tokenizer.model").read_bytes()
    assert said[-1].startswith("step 14/14 · loss ") and "bits/byte" in said[-1] and "tokens/s" in said[-1]
    assert made.table(table="speed").num_rows == 14


def test_the_same_request_gives_the_same_bytes(data_root, monkeypatch):
    first = run()
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "again"))
    assert run().fingerprint == first.fingerprint


def test_gradients_added_up_over_pieces_are_those_of_the_whole_batch(data_root, monkeypatch):
    whole = run(precision="fp32")
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "pieces"))  # accumulate is in no name: there it is made anew
    assert losses(run(accumulate=2, precision="fp32")) == pytest.approx(losses(whole), rel=1e-4)
    with pytest.raises(ValidationError, match="found accumulate 3, expected a divisor of batch_size 4"):
        run(accumulate=3)


def killed_at(step: int) -> None:
    """Start the same run in a child, and SIGKILL it when it says that `step` is done."""
    handles = {name: each.model_dump() for name, each in inputs().items()}
    words = [sys.executable, "-c", KILLED, json.dumps([TINY, handles])]
    child = subprocess.Popen(words, cwd=HOUSE, env=process.environment(), stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child.stdout:
        for line in child.stdout:
            if int(line) >= step:
                time.sleep(random.Random(step).random() * 0.02)
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.read()
    assert child.wait() == -signal.SIGKILL


@pytest.mark.shell
def test_a_run_killed_at_a_random_step_ends_with_the_bytes_of_one_that_was_not(data_root, monkeypatch):
    undisturbed = run()
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "killed"))
    step = random.randint(4, 13)
    killed_at(step)
    said: list[str] = []
    resumed = run(said)
    assert any("going on from the checkpoint" in text for text in said), (step, said)
    assert losses(resumed) == losses(undisturbed), step
    assert resumed.fingerprint == undisturbed.fingerprint, step
    assert not (resumed.path / "_resume").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint(monkeypatch):
    from lib.model import loop

    honest = loop.nats_of
    count = iter(range(10_000))
    monkeypatch.setattr(loop, "nats_of", lambda *these: honest(*these) * (math.nan if next(count) == 7 else 1.0))
    with pytest.raises(Diverged, match=r"step 8: loss nan.*last good checkpoint is step 6"):
        run(eval_every=14)
    said: list[str] = []
    monkeypatch.setattr(loop, "nats_of", honest)
    run(said, eval_every=14)  # the good checkpoint was left untouched
    assert "going on from the checkpoint at step 6" in said[0]


def test_tokens_of_another_tokenizer_are_refused():
    mixed = {"tokens": tokens_of(tokenizer_of()), "tokenizer": tokenizer_of(vocab_size=320)}
    with pytest.raises(UserError, match="was made with the tokenizer .* not with"):
        build(STAGE, PretrainConfig(**TINY), mixed, pretrain)


def test_a_shape_that_cannot_be_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match="n_heads 3"):
        PretrainConfig(**TINY | {"n_heads": 3})
    with pytest.raises(ValueError, match="extra"):
        PretrainConfig(**TINY | {"stpes": 3})


def test_where_it_runs_stays_out_of_the_name():
    here, there = (
        PretrainConfig(**TINY),
        PretrainConfig(**TINY | {"compile": "on", "threads": 7, "checkpoint_every": 1, "accumulate": 4}),
    )
    assert here.identity() == there.identity() != PretrainConfig(**TINY | {"seed": 1}).identity()
