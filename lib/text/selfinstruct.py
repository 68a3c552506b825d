"""Self-instruct: how new tasks are asked of a teacher, and which of those it writes can be used.

In:   seed tasks; what the teacher wrote
Out:  chat messages that show some and ask for more; candidates: each a Task, and the Fault it has or None
Relies on lib/text/reading.py for JSON as teachers write it. The design is that of Alpaca's generate_instruction:
      examples from the seed tasks only, a list from each request; what is cut off, too short, too long, for eyes or
      ears, or oddly begun goes.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lib.text.alpaca import NO_INPUT, Task
from lib.text.ledger import storable
from lib.text.reading import DECODER
from lib.text.replies import BANNED, Fault

Candidate = tuple[Task, Fault | None]
MOST_OBJECTS = 400  # openings of JSON objects that are tried
LEAST_WORDS, MOST_WORDS = 4, 150  # of an instruction, as Alpaca has it
SYSTEM = "You write tasks for a language model that reads and writes text, and you solve them."
WISHES = (
    "No two tasks may begin with the same verb, and none may repeat an example.",
    "Mix questions and commands, and mix kinds: stories, summaries, lists, explanations, rewriting, sorting, sums.",
    "A model that only reads and writes must be able to do it: nothing to see, hear, open, remember or wait for.",
    "An instruction is one or two sentences in English.",
    "Where a task needs something to work on, put it into the input, real and complete, in fewer than 100 words; "
    "where it needs nothing, leave the input empty.",
    "The output answers the task fully in fewer than 100 words.",
)
TASK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("instruction", "input", "output")},
    "required": ["instruction", "input", "output"],
    "additionalProperties": False,
}
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "list_of_tasks",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"tasks": {"type": "array", "items": TASK_SCHEMA}},
            "required": ["tasks"],
            "additionalProperties": False,
        },
    },
}
# What a model of text cannot do, or what Alpaca found to bring long lists and files with it.
NOT_FOR_TEXT = re.compile(
    r"\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"^\s*(?:#+\s*)?\d+\s*[.)]\s*(?=instruction\s*:)", re.IGNORECASE | re.MULTILINE)
FIELD = re.compile(r"^\s*(instruction|input|output)\s*:\s*", re.IGNORECASE | re.MULTILINE)


def messages(examples: Sequence[Task], count: int) -> list[dict[str, str]]:
    """The chat messages that show these tasks and ask for `count` others."""
    shown = json.dumps({"tasks": [_shown(task) for task in examples]}, ensure_ascii=False, indent=1)
    wishes = "\n".join(f"- {wish}" for wish in WISHES)
    text = (
        f"Here are {len(examples)} tasks:\n\n{shown}\n\nWrite {count} more, as different from these and from each "
        f"other as you can.\n{wishes}\n\nAnswer with JSON of the same form: an object with the field "
        '"tasks", a list of objects with "instruction", "input" and "output".'
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def examples_for(tasks: Sequence[Task], number: int, seed: int, count: int) -> list[Task]:
    """The seed tasks that request number `number` shows; the same for ever."""
    return random.Random(f"{seed}/{number}").sample(list(tasks), count)


def candidates(content: str, truncated: bool) -> list[Candidate]:
    """Every task of one answer, in order, with what is wrong with it. Never raises, whatever a teacher writes."""
    written, rest = _objects(content)
    if not written:
        written, rest = _numbered(content, truncated)
    judged = [_judged(each) for each in written]
    if truncated and rest:
        judged.append((Task("", storable(rest), "", ""), Fault("unfinished", f"breaks off after {rest[-40:]!r}")))
    return judged


def fault_in(content: str) -> Fault | None:
    """What is wrong with an answer; None where it holds at least one task that can be used."""
    faults = [fault for _, fault in candidates(content, truncated=False)]
    if not faults:
        return Fault("unreadable", f"found no task in {content[:80]!r}")
    return None if None in faults else faults[0]


def _shown(task: Task) -> dict[str, str]:
    return {"instruction": task.instruction, "input": task.input, "output": task.output}


# ---- reading


def _objects(content: str) -> tuple[list[dict[str, Any]], str]:
    """Tasks as objects of JSON, alone or in a list, even one that breaks off; and what was begun after the last."""
    found: list[dict[str, Any]] = []
    end = 0
    for start in islice(_openings(content), MOST_OBJECTS):
        if start < end:
            continue
        try:
            value, after = DECODER.raw_decode(content, start)
        except (ValueError, RecursionError):
            continue
        listed = value["tasks"] if isinstance(value.get("tasks"), list) else [value]
        if tasks := [each for each in listed if isinstance(each, dict) and "instruction" in each]:
            found, end = found + tasks, after
    rest = content[end:]
    return found, rest[rest.index("{") :] if "{" in rest else ""


def _openings(content: str) -> Iterator[int]:
    return (found.start() for found in re.finditer("{", content))


def _numbered(content: str, truncated: bool) -> tuple[list[dict[str, Any]], str]:
    """Tasks as "1. Instruction: … Input: … Output: …"; the last one is whole only if the answer is."""
    blocks = NUMBERED.split(content)[1:]
    found = []
    for block in blocks:
        _, *fields = FIELD.split(block)
        texts = (text.strip().strip("#").strip() for text in fields[1::2])
        found.append(dict(zip((name.lower() for name in fields[::2]), texts, strict=True)))
    return (found[:-1], blocks[-1].strip()) if truncated and blocks else (found, "")


# ---- judging


def _judged(written: dict[str, Any]) -> Candidate:
    fields = [written.get(name) or "" for name in ("instruction", "input", "output")]
    texts = [each if isinstance(each, str) else json.dumps(each) for each in fields]
    instruction, given, output = (storable(text).strip() for text in texts)
    task = Task("", instruction, "" if given.lower().strip(" .") in NO_INPUT else given, output)
    if texts != fields:
        return task, Fault("malformed", f"a field is no text in {written!r:.80}")
    if BANNED.search("".join(texts)):
        return task, Fault("bad_characters", f"a character no file can hold in {written!r:.80}")
    return task, _fault(task)


def _fault(task: Task) -> Fault | None:
    """The first of Alpaca's rules that the task breaks."""
    instruction, words = task.instruction, len(task.instruction.split())
    if words < LEAST_WORDS:
        return Fault("too_short", f"{words} words")
    if words > MOST_WORDS:
        return Fault("too_long", f"{words} words")
    if not task.output:
        return Fault("no_output", "")
    if found := NOT_FOR_TEXT.search(instruction):
        return Fault("not_for_text", found[0])
    if instruction.lower().startswith("write a program"):
        return Fault("program", instruction[:80])  # Alpaca: is the program wanted, or what it prints?
    if not instruction[0].isascii():
        return Fault("not_english", instruction[:80])
    if not instruction[0].isalnum():
        return Fault("odd_start", instruction[:80])
    return None
