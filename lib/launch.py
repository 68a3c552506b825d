"""Run a stage in a process of its own, or in several that train together.

In:   a stage's name, its config, handles of its inputs
Out:  the dataset; progress lines on the way

Training in a child gives its memory back, can be ended at a deadline or by Ctrl-C, and cannot poison the process that
Prefect retries in. The child reads its request from a file and answers with JSON lines on a pipe of its own, so that
nothing a library prints can be mistaken for an answer.

Where config.processes is more than 1, the child runs torch.distributed.run with so many ranks (lib/model/parallel.py).
Ranks leave their errors in files; the child tells the one that came first. On several machines that share the data
folder, give the same command on each, with STORYMILL_TORCHRUN saying how they meet, for example
`--nnodes 2 --rdzv-backend c10d --rdzv-endpoint first-machine:29500`; `processes` is then the number on each machine.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, NoReturn

from lib import process, stages
from lib.errors import Stopped, TransientError, UserError
from lib.store import Config, Dataset, Progress

DEADLINE_S = 7 * 24 * 3600.0
ERRORS = {"UserError": UserError, "TransientError": TransientError, "Stopped": Stopped}
TORCHRUN = "STORYMILL_TORCHRUN"
TURNS = count()  # every rank builds the same datasets in the same order
REQUEST, ANSWERS = "request.json", "answers"
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
    several = getattr(config, "processes", 1) > 1 or bool(os.environ.get(TORCHRUN) and hasattr(config, "processes"))
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as noise:
        (Path(folder) / REQUEST).write_text(json.dumps(request))
        os.mkfifo(Path(folder) / ANSWERS)
        read = os.open(Path(folder) / ANSWERS, os.O_RDONLY | os.O_NONBLOCK)
        kept = os.open(Path(folder) / ANSWERS, os.O_WRONLY)  # while it is open, nobody's closing is an end of file
        os.set_blocking(read, True)
        child = subprocess.Popen(
            [sys.executable, "-m", "lib.launch", "ranks" if several else "one", folder],
            stdin=subprocess.DEVNULL,
            stdout=noise,
            stderr=subprocess.STDOUT,
            env=process.environment(**MALLOC),
            start_new_session=True,
            text=True,
        )
        threading.Thread(target=lambda: (child.wait(), os.close(kept)), daemon=True).start()
        watchdog = threading.Timer(deadline_s, process.end, [child])
        watchdog.start()
        try:
            with os.fdopen(read) as answers:
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
    """The child's side: what it is, and the folder of its request, from argv."""
    process.die_with_parent()
    role, folder = sys.argv[1], Path(sys.argv[2])
    request = json.loads((folder / REQUEST).read_text())
    with (folder / ANSWERS).open("w", buffering=1) as answers:
        if role == "rank":
            _be_rank(request, folder, answers)
        for answer in _answers(request, answers) if role == "one" else _from_ranks(request, folder):
            answers.write(json.dumps(answer) + "\n")


def _answers(
    request: dict[str, Any], answers: IO[str], build: Callable[..., Dataset] = stages.build
) -> Iterator[dict[str, Any]]:
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
        config, inputs = _read(request)
        yield {"dataset": build(stage, config, inputs, say).model_dump()}
    except Exception as error:  # everything is told to the parent, which raises it again
        kind = next((name for name, known in ERRORS.items() if isinstance(error, known)), "StageFailed")
        text = str(error) if kind in ERRORS else traceback.format_exc()
        yield {"error": kind, "text": text}


def _read(request: dict[str, Any]) -> tuple[Config, dict[str, Dataset]]:
    config = stages.config_type(request["stage"]).model_validate(request["config"])
    return config, {name: Dataset.model_validate(each) for name, each in request["inputs"].items()}


# ---- several ranks


def _from_ranks(request: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Start the ranks and wait; the error to tell where there is one."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    config, _ = _read(request)
    if wrong := _too_many(config):
        yield {"error": "UserError", "text": wrong}
        return
    os.environ[process.PARENT] = str(os.getpid())
    how = (os.environ.get(TORCHRUN) or "--standalone").split()
    words = [*how, "--nproc-per-node", str(config.processes), "-m", "lib.launch", "rank", str(folder)]
    try:
        run.run(run.parse_args(words))
    except ChildFailedError as failed:
        yield _first_error(failed.failures, folder, request["stage"])


def _too_many(config: Config) -> str:
    import torch

    on_gpu = config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())
    if on_gpu and config.processes > (found := torch.cuda.device_count()):
        return f"processes is {config.processes}, but this machine has {found} GPUs: use at most {found}, one a GPU"
    if config.device.startswith("cuda:"):
        return f"device {config.device!r} is one GPU, but processes is {config.processes}: use device 'cuda'"
    return ""


def _first_error(failures: Mapping[int, Any], folder: Path, stage: str) -> dict[str, Any]:
    """A rank that was killed comes before what the others say of the lost connection, and an error of the user's or of
    the machine before a traceback."""
    for rank, failure in failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # SIGTERM: torch.distributed.run ends the rest
            how = signal.Signals(-failure.exitcode).name
            memory = " (SIGKILL often means out of memory)" if how == "SIGKILL" else ""
            kept = "What it had done is kept: the same command goes on from there."
            return {"error": "TransientError", "text": f"rank {rank} of {stage} ended by {how}{memory}. {kept}"}
    told = [json.loads(path.read_text()) for path in sorted(folder.glob("error-*.json"))]
    known = [each for each in told if each["error"] in ERRORS] or sorted(told, key=lambda each: each["at"])
    return known[0] if known else {"error": "TransientError", "text": f"the ranks of {stage} ended: {failures}"}


def _be_rank(request: dict[str, Any], folder: Path, answers: IO[str]) -> NoReturn:
    """One rank: rank 0 of all speaks; the first on each machine says what came of it."""
    from lib.model import parallel

    leads, first = os.environ["RANK"] == "0", os.environ["LOCAL_RANK"] == "0"
    with Path(os.devnull).open("w") as nowhere:
        for answer in _answers(request, answers if leads else nowhere, in_turn):
            if "error" in answer:
                told = folder / f"error-{os.environ['RANK']}.json"
                told.with_suffix(".part").write_text(json.dumps(answer | {"at": time.time()}))
                told.with_suffix(".part").rename(told)
                parallel.quit_rank(1)
            if first:
                answers.write(json.dumps(answer) + "\n")
    answers.flush()
    parallel.quit_rank()


def in_turn(stage: str, config: Config, inputs: Mapping[str, Dataset], say: Progress) -> Dataset:
    """Rank 0 makes the dataset; the others help with its training, if there is any."""
    from lib.model import parallel

    module, number = stages.module_of(stage), next(TURNS)
    turn, end = f"turn/{number}", f"end/{number}"
    if os.environ["RANK"] == "0":
        begun: list[None] = []
        made = stages.build(stage, config, inputs, say, begin=lambda: begun.append(parallel.tell(turn, "work")))
        if not begun:
            parallel.tell(turn, "found")
        parallel.tell(end, made.model_dump_json())
        return made
    if parallel.ask(turn) == "work":
        name = stages.request_name(stage, config, inputs)
        with suppress(parallel.Trained):
            getattr(module, stage)(parallel.Onlooker(module.STAGE, name, config), config, **inputs)
    return Dataset.model_validate_json(parallel.ask(end))


if __name__ == "__main__":
    main()
