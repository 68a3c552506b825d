"""Run a stage in a process of its own.

In:   a stage's name, its config, handles of its inputs
Out:  the dataset; progress lines on the way

Training in a child gives its memory back, can be ended at a deadline or by Ctrl-C, and cannot poison the process that
Prefect retries in. The child reads its request from stdin and answers with JSON lines on a pipe of its own, so that
nothing a library prints can be mistaken for an answer.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import IO, Any

from lib import process, stages
from lib.errors import Stopped, TransientError, UserError
from lib.store import Config, Dataset, Progress

DEADLINE_S = 7 * 24 * 3600.0
ERRORS = {"UserError": UserError, "TransientError": TransientError, "Stopped": Stopped}
# glibc gives large blocks back to the kernel after each step and faults them in again; keeping them is 6-15 % faster.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}


class StageFailed(Exception):
    """The child raised something that is neither the user's nor a passing fault; the text holds its traceback."""


def build_in_child(
    stage: str,
    config: Config,
    inputs: Mapping[str, Dataset],
    on_progress: Progress | None = None,
    deadline_s: float = DEADLINE_S,
) -> Dataset:
    """`stages.build`, in a child that dies with this process."""
    request = {"stage": stage, "config": config.model_dump(mode="json")}
    request["inputs"] = {name: each.model_dump() for name, each in inputs.items()}
    read, write = os.pipe()
    with tempfile.TemporaryFile("w+") as noise, os.fdopen(read) as answers:
        child = subprocess.Popen(
            [sys.executable, "-m", "lib.launch", str(write)],
            stdin=subprocess.PIPE,
            stdout=noise,
            stderr=subprocess.STDOUT,
            env=process.environment(**MALLOC),
            pass_fds=[write],
            start_new_session=True,
            text=True,
        )
        os.close(write)
        watchdog = threading.Timer(deadline_s, process.end, [child])
        watchdog.start()
        try:
            assert child.stdin
            child.stdin.write(json.dumps(request))
            child.stdin.close()
            return _follow(answers, child, stage, on_progress, noise)
        finally:
            watchdog.cancel()
            process.end(child)


def _follow(
    answers: IO[str], child: subprocess.Popen, stage: str, on_progress: Progress | None, noise: IO[str]
) -> Dataset:
    """Pass progress on until the child has answered."""
    for answer in map(json.loads, answers):
        if "progress" in answer and on_progress:
            on_progress(*answer["progress"])
        elif "dataset" in answer:
            return Dataset.model_validate(answer["dataset"])
        elif "error" in answer:
            raise ERRORS.get(answer["error"], StageFailed)(answer["text"])
    code = child.wait()
    noise.seek(0)
    last = "".join(noise.readlines()[-20:])
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    raise TransientError(
        f"the process of {stage} ended by {how} before it had finished"
        f"{' (SIGKILL often means out of memory)' if code == -signal.SIGKILL else ''}. "
        f"What it had done is kept: the same command goes on from there.{chr(10) + last if last else ''}"
    )


# ---- the child


def main() -> None:
    """The child's side: one request from stdin, answers on the file descriptor in argv."""
    process.die_with_parent()
    request = json.loads(sys.stdin.read())
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as answers:
        for answer in _answers(request, answers):
            answers.write(json.dumps(answer) + "\n")


def _answers(request: dict[str, Any], answers: IO[str]) -> Iterator[dict[str, Any]]:
    last = [0.0, ""]

    def say(text: str, done: float | None, total: float | None) -> None:
        now = time.monotonic()
        if now - last[0] >= 0.2 or done == total:  # twenty thousand lines a second would be the child's main work
            last[0] = now
            answers.write(json.dumps({"progress": [text, done, total]}) + "\n")

    stage = request["stage"]
    handler = logging.Handler()
    handler.emit = lambda record: say(record.getMessage(), None, None)  # damage that the store found
    logging.getLogger("storymill").addHandler(handler)
    try:
        config = stages.config_type(stage).model_validate(request["config"])
        inputs = {name: Dataset.model_validate(each) for name, each in request["inputs"].items()}
        yield {"dataset": stages.build(stage, config, inputs, say).model_dump()}
    except Exception as error:  # everything is told to the parent, which raises it again
        kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "StageFailed")
        text = str(error) if kind in ERRORS else traceback.format_exc()
        yield {"error": kind, "text": text}


if __name__ == "__main__":
    main()
