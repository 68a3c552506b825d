"""Two processes train what one trains, and go on from each other's checkpoints. On the CPU, over gloo."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import launch, process, stages
from lib.errors import TransientError, UserError
from lib.stages.pretrain import PretrainConfig
from lib.store import Dataset
from tests.test_instruct import TINY as INSTRUCT
from tests.test_pretrain import HOUSE, TINY, inputs
from tests.tiny_tokens import tokenizer_of, tokens_of

pytestmark = pytest.mark.shell
FP32 = {"precision": "fp32"}
SHORT = TINY | FP32 | {"steps": 5}
LONG = TINY | FP32
Scene = tuple[str, dict, dict[str, Dataset]]  # stage, config, inputs
LORA = INSTRUCT | FP32 | {"method": "lora", "steps": 5, "checkpoint_every": 2}
WAYS = {  # what differs from one process, and how far its losses may be off
    "ddp": ({"sharding": "ddp"}, 1e-5),
    "ddp-pieces": ({"sharding": "ddp", "accumulate": 2}, 1e-5),
    "fsdp": ({"sharding": "fsdp"}, 1e-5),
    "fsdp-pieces": ({"sharding": "fsdp", "accumulate": 2}, 1e-5),
    "ddp-muon": ({"sharding": "ddp", "optimizer": "muon"}, 1e-5),
    # Newton-Schulz in bf16 over rows of two ranks rounds differently
    "fsdp-muon": ({"sharding": "fsdp", "optimizer": "muon", "steps": 3}, 1e-4),
}
MAIN = """
import json, sys
from lib import launch, process
process.die_with_parent()
from lib.stages.pretrain import PretrainConfig
from lib.store import Dataset
config, inputs = json.loads(sys.argv[1])
def tell(text, done, total):
    print(int(done or 0), flush=True)
launch.build_in_child("pretrain", PretrainConfig(**config), {n: Dataset(**h) for n, h in inputs.items()}, tell)
"""


@dataclass
class Result:
    """What one run came to."""

    losses: list[float]
    bits_per_byte: float
    fingerprint: str
    seconds: list[float]  # of each step: a step of before a kill keeps its own
    held: tuple[float, ...] = ()  # weights in each of two ranks when training begins, as a share of the model's


def result(data: Path, scene: Scene, patch: pytest.MonkeyPatch) -> Result:
    """Of the dataset that is in this data folder, or is made now by this process alone."""
    patch.setenv("STORYMILL_DATA", str(data))
    stage, config, given = scene
    made = stages.build(stage, stages.config_type(stage)(**config), given)
    times = made.table(table="speed")["seconds"].to_pylist()
    losses = made.table(table="train_steps")["loss"].to_pylist()
    counts = [json.loads(path.read_bytes()) for path in sorted(data.parent.glob(f"{data.name}-held-*.json"))]
    held = tuple(held / num_weights for held, num_weights in counts)
    return Result(losses, made.facts["bits_per_byte"], made.fingerprint, times, held)


def in_two_ranks(scenes: dict[Path, Scene], folder: Path) -> None:
    """Every scene built in its data folder by two ranks; all in one start, which takes seconds."""
    listed = [
        (str(data), stage, config, {name: handle.model_dump() for name, handle in given.items()})
        for data, (stage, config, given) in scenes.items()
    ]
    (folder / "scenes.json").write_text(json.dumps(listed))
    words = [sys.executable, "-m", "tests.ranks", str(folder / "scenes.json")]
    done = subprocess.run(words, cwd=HOUSE, env=process.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def killed(data: Path, config: dict, given: dict[str, Dataset], step: int) -> None:
    """SIGKILL to the process that called build_in_child, when `step` is done; all of its children must be gone then."""
    handles = {name: each.model_dump() for name, each in given.items()}
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, json.dumps([config, handles])],
        cwd=HOUSE,
        env=process.environment(STORYMILL_DATA=str(data)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    with child.stdout:
        for line in child.stdout:
            if int(line) >= step:
                break
        below = descendants(child.pid)
        child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    until = time.monotonic() + 10
    while any(alive(pid) for pid in below):
        assert time.monotonic() < until, "a rank outlived the process that started it"
        time.sleep(0.05)
    if config.get("processes", 1) > 1:
        assert len(below) >= 3  # the launcher and two ranks


def descendants(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [lower for each in children for lower in descendants(each)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Iterator[dict[str, Result]]:
    """By name: "alone-…" one process, "two-…" two ranks, "whole-…" and "sharded-…" go on from a killed run's
    checkpoint of one process or of two."""
    folder = tmp_path_factory.mktemp("parallel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORYMILL_DATA", str(folder / "base"))
        given = inputs()
        model = stages.build("pretrain", PretrainConfig(**TINY), given)
        taught = {"base": model, "tokens": tokens_of(tokenizer_of(), layout="natural"), "tokenizer": tokenizer_of()}
        for name in ("whole", "sharded"):
            shutil.copytree(folder / "base", folder / name)
        shutil.copytree(folder / "base", folder / "split")
        killed(folder / "whole", LONG, given, step=8)
        killed(folder / "split", LONG | {"accumulate": 4}, given, step=8)  # as many pieces as after two doublings
        killed(folder / "sharded", LONG | {"processes": 2, "sharding": "fsdp"}, given, step=8)

        together = {f"two-{way}": ("base", ("pretrain", SHORT | WAYS[way][0], given)) for way in WAYS}
        for way in ("ddp", "fsdp"):
            together[f"two-lora-{way}"] = ("base", ("instruct", LORA | {"sharding": way}, taught))
            for source in ("whole", "split", "sharded"):
                together[f"{source}-{way}"] = (source, ("pretrain", LONG | {"sharding": way}, given))
        together["base-fsdp"] = ("base", ("pretrain", LONG | {"sharding": "fsdp"}, given))
        alone = {f"alone-{way}": ("base", ("pretrain", SHORT | WAYS[way][0], given)) for way in WAYS}
        alone["alone-lora"] = ("base", ("instruct", LORA, taught))
        alone["alone-long"] = ("base", ("pretrain", LONG, given))
        alone["sharded-alone"] = ("sharded", ("pretrain", LONG, given))
        for name, (source, _) in (together | alone).items():
            shutil.copytree(folder / source, folder / "runs" / name)
        in_two_ranks({folder / "runs" / name: scene for name, (_, scene) in together.items()}, folder)
        for name, (_, (stage, _, _)) in together.items():
            assert not list((folder / "runs" / name / stage).glob("_draft-*")), f"{name} was not finished by the ranks"
        yield {
            name: result(folder / "runs" / name, scene, patch) for name, (_, scene) in (together | alone).items()
        } | {"killed": logged(folder / "whole"), "killed-sharded": logged(folder / "sharded")}


def logged(data: Path) -> Result:
    """Of a killed run, up to its last checkpoint."""
    (draft,) = data.glob("pretrain/_draft-*/_resume")
    meta = json.loads(max(draft.glob("step-*/meta.json")).read_text())
    rows = [json.loads(line) for line in (draft / "log.jsonl").read_bytes()[: meta["log_bytes"]].splitlines()]
    losses = [row["loss"] for table, row in rows if table == "train_steps"]
    shards = ",".join(sorted(name for name in meta["files"] if name.startswith("weights")))
    return Result(losses, 0.0, shards, [row["seconds"] for table, row in rows if table == "speed"])


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_losses_of_one(results, way):
    off = WAYS[way][1]
    alone, two = results[f"alone-{way}"], results[f"two-{way}"]
    assert two.losses == pytest.approx(alone.losses, abs=off)
    assert two.bits_per_byte == pytest.approx(alone.bits_per_byte, abs=off)
    assert two.fingerprint != alone.fingerprint  # they were not the same files by accident


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_lora_too(results, way):
    assert results[f"two-lora-{way}"].losses == pytest.approx(results["alone-lora"].losses, abs=1e-5)


@pytest.mark.parametrize(
    ("run", "held"),
    [("two-ddp", (1, 1)), ("two-fsdp", (1.5, 0.5)), ("two-lora-fsdp", (1.5, 0.5)), ("sharded-fsdp", (1.5, 0.5))],
)
def test_where_weights_are_sharded_rank_0_alone_has_them_whole_beside_its_share(results, run, held):
    assert results[run].held == pytest.approx(held, abs=0.02)


def test_each_rank_writes_its_share_of_a_sharded_checkpoint(results):
    assert results["killed-sharded"].fingerprint == "weights-00000.safetensors,weights-00001.safetensors"
    assert results["killed"].fingerprint == "weights-00000.safetensors"


@pytest.mark.parametrize("run", ["whole-ddp", "whole-fsdp", "sharded-ddp", "sharded-fsdp", "sharded-alone"])
def test_a_run_goes_on_with_another_number_of_processes_and_another_sharding(results, run):
    resumed, before = results[run], results["killed" if run.startswith("whole") else "killed-sharded"]
    assert len(before.losses) >= 6 and resumed.seconds[: len(before.seconds)] == before.seconds
    assert resumed.losses == pytest.approx(results["alone-long"].losses, abs=1e-5)
    assert resumed.bits_per_byte == pytest.approx(results["alone-long"].bits_per_byte, abs=1e-5)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_run_in_a_row_a_piece_goes_on_where_each_process_has_fewer_rows(results, way):
    resumed, alone = results[f"split-{way}"], results["alone-long"]
    assert resumed.losses == pytest.approx(alone.losses, abs=1e-5)
    assert resumed.bits_per_byte == pytest.approx(alone.bits_per_byte, abs=1e-5)


def test_with_as_many_processes_as_before_it_ends_with_the_same_bytes(results):
    assert results["sharded-fsdp"].fingerprint == results["base-fsdp"].fingerprint


def launched(config: dict, said: list[str]) -> Dataset:
    def say(text: str, done: float | None = None, total: float | None = None) -> None:
        said.append(text)

    return launch.build_in_child("pretrain", PretrainConfig(**config), inputs(), say)


def test_an_error_of_every_rank_is_told_once():
    with pytest.raises(UserError, match=r"^batch_size 3 cannot be shared by 2 processes × accumulate 1; use a mul"):
        launched(SHORT | {"processes": 2, "batch_size": 3}, [])


def test_a_rank_that_dies_ends_the_run_and_the_same_command_goes_on(data_root):
    config, said = SHORT | {"processes": 2, "steps": 60, "checkpoint_every": 5, "eval_every": 60}, []

    def kill_one() -> None:
        while not any(data_root.glob("pretrain/_draft-*/_resume/step-*/meta.json")):
            time.sleep(0.01)
        ranks = [pid for pid in descendants(os.getpid()) if rank_of(pid) == "1"]
        os.kill(ranks[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(TransientError, match=r"^rank 1 of pretrain ended by SIGKILL .*goes on from there\.$"):
        launched(config, said)
    killer.join()
    said.clear()
    launched(config, said)
    assert any("going on from the checkpoint at step" in text for text in said), said[:3]
    assert said[-1].startswith("step 60/60")


def rank_of(pid: int) -> str:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(entry.decode().partition("=")[::2] for entry in entries).get("RANK", "")
