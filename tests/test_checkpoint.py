"""A checkpoint is whole or it is not used, and what is not used is said."""

import json

import pytest
import torch

from lib.model.checkpoint import KEEP, Checkpoints, Log, random_state, set_random_state, set_weights
from lib.model.network import Llama, Shape

SHAPE = Shape(vocab_size=31, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=24, max_length=20)


def three(folder) -> tuple[Checkpoints, list[str]]:
    """Checkpoints of the steps 1, 2 and 3, each with one more row in the log; and what was said."""
    said: list[str] = []
    checkpoints, log = Checkpoints(folder, say=said.append), Log(folder / "log.jsonl")
    for step in (1, 2, 3):
        log.add("train_steps", step=step, loss=0.1 * step)
        state = {"optimizer": [{"state": {0: torch.full((2,), step)}}], "random": random_state()}
        checkpoints.save(step=step, weights={"w": torch.full((3,), float(step))}, state=state, log=log)
    log.close()
    return checkpoints, said


def test_the_newest_comes_back_and_two_are_kept(tmp_path):
    checkpoints, said = three(tmp_path)
    found = checkpoints.newest()
    assert found.step == 3 and found.weights["w"].tolist() == [3, 3, 3]
    assert found.state["optimizer"][0]["state"][0].tolist() == [3, 3]
    assert len(list(tmp_path.glob("step-*"))) == KEEP == 2
    assert said == []


@pytest.mark.parametrize("name", ["weights-00000.safetensors", "state.pt", "meta.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name):
    checkpoints, said = three(tmp_path)
    path = tmp_path / "step-00000003" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert checkpoints.newest().step == 2
    assert len(said) == 1 and "step-00000003 is damaged" in said[0]
    assert not path.parent.exists()


@pytest.mark.parametrize("meta", ["[]", "{}", "3", '{"step": 3, "log_bytes": 9, "files": []}'])
def test_a_meta_that_is_no_record_is_damage_too(tmp_path, meta):
    checkpoints, said = three(tmp_path)
    (tmp_path / "step-00000003" / "meta.json").write_text(meta)
    assert checkpoints.newest().step == 2
    assert len(said) == 1 and f"step-00000003 is damaged (meta.json holds {meta[:10]}" in said[0]


def test_a_checkpoint_without_meta_is_none(tmp_path):
    checkpoints, said = three(tmp_path)
    (tmp_path / "step-00000003" / "meta.json").unlink()  # as a kill leaves it
    assert checkpoints.newest().step == 2 and said == []
    assert checkpoints.newest().step == 2


def test_a_damaged_log_makes_no_checkpoint_usable(tmp_path):
    checkpoints, said = three(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    assert checkpoints.newest() is None and len(said) == 2


def test_the_log_goes_on_behind_the_checkpoint(tmp_path):
    checkpoints, _ = three(tmp_path)
    log = Log(tmp_path / "log.jsonl", keep_bytes=checkpoints.newest().log_bytes)
    assert [row["step"] for row in log.rows["train_steps"]] == [1, 2, 3]
    log.add("train_steps", step=4, loss=float("0.1"))
    log.flush()
    log.close()
    again = Log(tmp_path / "log.jsonl", keep_bytes=checkpoints.newest().log_bytes)
    assert again.last("train_steps") == {"step": 3, "loss": 0.1 * 3}
    again.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)[1]["step"] for line in lines] == [1, 2, 3]


def test_the_random_generator_goes_on_where_it_was():
    state = random_state()
    drawn = torch.rand(3)
    set_random_state(state)
    assert torch.equal(torch.rand(3), drawn)


def test_a_generator_of_several_gpus_goes_on_where_there_is_one(monkeypatch):
    gpu = torch.Generator()  # in the place of the one of a GPU, which this machine need not have
    monkeypatch.setattr(torch.cuda.random, "_lazy_call", lambda call, **_: call())
    monkeypatch.setattr(torch.cuda.random, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", (gpu,))
    device, state = torch.device("cuda", 0), gpu.get_state()
    drawn = torch.rand(3, generator=gpu)
    set_random_state({"cpu": torch.get_rng_state(), "cuda": [state] * 4}, device)
    assert torch.equal(torch.rand(3, generator=gpu), drawn)
    assert len(random_state(device)["cuda"]) == 1 and random_state()["cuda"] == []


def test_weights_that_do_not_fit_are_refused():
    model = Llama(SHAPE)
    weights = {name: weight.detach().clone() + 1 for name, weight in model.named_parameters()}
    set_weights(model, weights)
    assert torch.equal(model.norm.weight, torch.full((16,), 2.0))
    with pytest.raises(ValueError, match="weights that the model has not"):
        set_weights(model, weights | {"more": torch.zeros(1)})
    with pytest.raises(KeyError):
        set_weights(model, {name: weight for name, weight in weights.items() if name != "norm.weight"})
