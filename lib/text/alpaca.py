"""Instruction data as Alpaca and Self-Instruct have it: an instruction, perhaps an input, and the output.

In:   records {instruction, input, output} (alpaca_data.json) or {instruction, instances: [{input, output}]} (seeds)
Out:  tasks; flat records for ingest
TinyStories' records have an `instruction` too, an object with words and features: those are left as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lib.errors import UserError
from lib.text.sources import records

NO_INPUT = ("", "noinput", "<noinput>", "<no input>", "no input")  # as Self-Instruct's prompts and its answers spell it


@dataclass(frozen=True)
class Task:
    """One task, answered."""

    name: str
    instruction: str
    input: str
    output: str


def is_task(record: dict[str, Any]) -> bool:
    """Whether this is an instruction with an answer, and no story that was asked for in other ways."""
    return isinstance(record.get("instruction"), str) and ("output" in record or "instances" in record)


def flat(record: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """One record a task: its `text` is the output, `input` null where there is none. Any other record as it is."""
    if not is_task(record):
        yield record
        return
    instances = record.get("instances", [record])
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        raise UserError(f"found instances = {instances!r:.60} in {place}, expected a list of objects")
    shared = {key: value for key, value in record.items() if key not in ("instances", "input", "output")}
    for number, each in enumerate(instances):
        task = shared | {"text": each.get("output") or "", "input": each.get("input") or None}
        if number and "id" in task:
            task["id"] = f"{task['id']}.{number + 1}"
        yield task


def seed_tasks(path: str) -> list[Task]:
    """The tasks of a file, each with its first answer. Raises UserError for a file without any."""
    tasks = []
    for place, record in records(path):
        if not is_task(record):
            raise UserError(f"found a record with {sorted(record)} in {place}, expected instruction and output")
        first = next(flat(record, place), None)
        if first is None or not all(isinstance(first[key], str) for key in ("instruction", "text")):
            raise UserError(f"found no answered task in {place}, expected an instruction and an output")
        name = str(record.get("id") or record.get("name") or len(tasks))
        tasks.append(Task(name, first["instruction"], first["input"] or "", first["text"]))
    if not tasks:
        raise UserError(f"found no task in {path}, expected at least one")
    return tasks
