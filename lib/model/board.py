"""Board: a run's curves as a TensorBoard event file, live.

In:   the Log of a run
Out:  in the draft _record/tensorboard/events.out.tfevents.storymill: every number of the log's curves at its step

`tensorboard --logdir data/pretrain` shows it, while it grows and after it is published. tensorboardX, not
torch.utils.tensorboard: that one wants the tensorboard package with its server. Of tensorboardX we use the record's
checksum and its protobuf classes alone, not its writer with a thread and two minutes between flushes.

A run that goes on writes the file anew from its log, so no step is in it twice.
"""

import struct
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from lib.model.checkpoint import Log
from lib.store import Draft

NAME = "_record/tensorboard/events.out.tfevents.storymill"  # TensorBoard takes a file with "tfevents" in its name
TABLES = ("train_steps", "evals", "speed", "updates", "looks")  # roll-outs are rows, not curves
STEPS = ("step", "update")


class Board:
    """The file behind a Log: what the log holds already, then every row that is added to it."""

    def __init__(self, draft: Draft, log: Log) -> None:
        self.draft, path = draft, draft.path / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.file = path.open("wb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        for table, rows in log.rows.items():
            for row in rows:
                self.add(table, row)
        self.file.flush()
        log.listener = self.add_now

    def add(self, table: str, row: Mapping[str, Any]) -> None:
        """One event: the row's numbers, each under table/column."""
        if table not in TABLES:
            return
        numbers = {name: value for name, value in row.items() if name not in STEPS and isinstance(value, int | float)}
        step = next(row[name] for name in STEPS if name in row)
        values = [Summary.Value(tag=f"{table}/{name}", simple_value=value) for name, value in numbers.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def add_now(self, table: str, row: Mapping[str, Any]) -> None:
        self.add(table, row)
        self.file.flush()

    def _write(self, event: Event) -> None:
        """TFRecord framing: length, its checksum, data, its checksum."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self.file.write(length + struct.pack("<I", masked_crc32c(length)) + data)
        self.file.write(struct.pack("<I", masked_crc32c(data)))

    def close(self) -> None:
        """The log goes on without it."""
        self.file.close()

    def publish(self) -> None:
        """Make it one of the dataset's files."""
        self.close()
        self.draft.adopt(NAME)
