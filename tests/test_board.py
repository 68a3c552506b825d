"""The event file holds what the tables hold, step for step, also behind a run that was stopped and went on."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from lib.model import board
from lib.stages.pretrain import STAGE, PretrainConfig, pretrain
from lib.store import build
from tests.test_pretrain import TINY, inputs, run


class Stopped(Exception):
    """Stands for a kill: it comes from outside, between two steps."""


def events(path: Path) -> list[Event]:
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        length, checked = struct.unpack_from("<QI", data, place)
        assert checked == masked_crc32c(data[place : place + 8])
        record = data[place + 12 : place + 12 + length]
        assert struct.unpack_from("<I", data, place + 12 + length)[0] == masked_crc32c(record)
        found.append(Event.FromString(record))
        place += 16 + length
    return found


def curve(found: list[Event], tag: str) -> list[tuple[int, float]]:
    return [(each.step, value.simple_value) for each in found for value in each.summary.value if value.tag == tag]


def test_every_curve_is_there_once_also_behind_a_stop():
    def stop(text: str, done: float | None, total: float | None) -> None:
        if done == 8:
            (path,) = data.glob("_draft-*/" + board.NAME)
            assert len(curve(events(path), "train_steps/loss")) == 8  # live
            raise Stopped

    given = inputs()
    data = given["tokens"].path.parent.parent / "pretrain"
    with pytest.raises(Stopped):
        build(STAGE, PretrainConfig(**TINY), given, pretrain, on_progress=stop)
    made = run()
    found = events(made.file(board.NAME))
    assert found[0].file_version == "brain.Event:2"
    for table, columns in {
        "train_steps": ("loss", "lr", "grad_norm"),
        "evals": ("bits_per_byte", "nats_per_token"),
        "speed": ("tokens_per_s", "memory_mb"),
    }.items():
        rows = made.table(table=table).to_pylist()
        for column in columns:
            curve_of = curve(found, f"{table}/{column}")
            assert [step for step, _ in curve_of] == [row["step"] for row in rows]
            assert [value for _, value in curve_of] == pytest.approx([row[column] for row in rows], rel=1e-6)
    assert len(curve(found, "speed/mfu")) == 14


def test_it_is_no_part_of_the_fingerprint(data_root, monkeypatch):
    first = run()
    times = [each.wall_time for each in events(first.file(board.NAME))]
    monkeypatch.setenv("STORYMILL_DATA", str(data_root / "again"))
    again = run()
    assert [each.wall_time for each in events(again.file(board.NAME))] != times
    assert again.fingerprint == first.fingerprint
