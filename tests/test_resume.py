"""Killed by SIGKILL again and again, a run of any training stage ends with the bytes of an undisturbed one.

Random steps, other numbers of threads that prepare batches, and dropout make no difference.
"""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib import process, stages
from lib.stages.pretrain import PretrainConfig
from lib.store import Dataset
from tests import test_align, test_instruct, test_pretrain
from tests.tiny_tokens import tokenizer_of, tokens_of

pytestmark = pytest.mark.shell
HOUSE = Path(__file__).parent.parent
CHILD = """
import json, sys, time
from lib import process, stages
process.die_with_parent()
from lib.store import Dataset
stage, config, inputs = json.loads(sys.argv[1])
def tell(text, done, total):
    print(json.dumps([text, done or 0]), flush=True)
    time.sleep(0.01)
given = {name: Dataset(**each) for name, each in inputs.items()}
stages.build(stage, stages.config_type(stage)(**config), given, tell)
"""
align_inputs = test_align.inputs


def killed_at(step: int, stage: str, config: dict, given: dict[str, Dataset]) -> int:
    """Go on with the run in a child and SIGKILL it behind `step`; the step it had gone on from."""
    words = json.dumps([stage, config, {name: each.model_dump() for name, each in given.items()}])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, words], cwd=HOUSE, env=process.environment(), stdout=subprocess.PIPE, text=True
    )
    came_from = 0
    assert child.stdout
    with child.stdout:
        for text, done in map(json.loads, child.stdout):
            came_from = int(done) if text.startswith("going on from") else came_from
            if done >= step and not text.startswith("going on"):
                break
        child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, f"{stage} was done before step {step}"
    return came_from


def check(stage: str, config: dict, given: dict[str, Dataset], kills: list[int], workers=()) -> None:
    """One run undisturbed, one killed at these steps; `workers`: loader_workers of each killed attempt in turn."""
    undisturbed = stages.build(stage, stages.config_type(stage)(**config), given)
    tables = {name: undisturbed.table(table=name) for name in ("updates" if stage == "align" else "train_steps",)}
    (undisturbed.path / "_manifest.json").unlink()  # unpublished: the same request is made anew
    went_on = []
    for number, step in enumerate(kills):
        changed = {"loader_workers": workers[number]} if workers else {}
        went_on.append(killed_at(step, stage, config | changed, given))
    resumed = stages.build(stage, stages.config_type(stage)(**config), given)
    assert went_on[0] == 0 and all(step > 0 for step in went_on[1:]), went_on
    for name, table in tables.items():
        assert resumed.table(table=name).to_pylist() == table.to_pylist(), (name, kills)
    assert resumed.fingerprint == undisturbed.fingerprint, kills


def random_steps(first: int, last: int, number: int) -> list[int]:
    return sorted(random.sample(range(first, last + 1), number))


def test_pretrain_with_other_numbers_of_loader_workers():
    config, given = test_pretrain.TINY | {"dropout": 0.1}, test_pretrain.inputs()
    check("pretrain", config, given, random_steps(4, 13, 2), workers=(0, 3))


def test_instruct_by_lora_with_dropout():
    tokenizer = tokenizer_of()
    given = {"tokens": tokens_of(tokenizer, layout="natural"), "tokenizer": tokenizer}
    base = {"tokens": tokens_of(tokenizer), "tokenizer": tokenizer}
    given["base"] = stages.build("pretrain", PretrainConfig(**test_pretrain.TINY), base)
    config = test_instruct.TINY | {"method": "lora", "dropout": 0.3, "steps": 12}
    check("instruct", config, given, random_steps(4, 11, 2))


def test_alignment(align_inputs):
    config = test_align.small(updates=6).model_dump(mode="json")
    check("align", config, align_inputs, random_steps(2, 5, 2))
