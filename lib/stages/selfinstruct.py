"""Self-instruct: tasks with their answers, asked from a teacher that is shown a few seed tasks.

In:   a file of seed tasks; what the ledger in data/requests/ says was answered before
Out:  RAW rows with `instruction`, `input` and the answer as `text`; what could not be used under _dropped with its
      reason; _record/rounds.json on how this run went
Relies on lib/text/teacher.py (nothing is asked twice), selfinstruct.py (prompt, reading, rules), rouge.py (what is new)

Requests are asked in rounds: the first of as many as `count` tasks take if all can be used, each further one of as many
as the yield so far says are missing, until there are `count` tasks or `most_requests` requests. Request number i shows
seed tasks drawn from (seed, i), so a run that was stopped goes on, and a larger `count` begins with the same tasks. A
task stays if its ROUGE-L F with no seed task and no task before it is above `max_similarity`. All usable tasks of the
last round stay: they are paid for.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from lib.errors import UserError
from lib.store import Draft, Stage, schemas
from lib.text import ledger
from lib.text import selfinstruct as asking
from lib.text.alpaca import Task, seed_tasks
from lib.text.prompts.lists import WORDS
from lib.text.replies import Fault
from lib.text.rouge import Pool, words_of
from lib.text.sources import file_digest
from lib.text.teacher import Key, Names, Request, TeacherConfig, known, settle

STAGE = Stage("selfinstruct", 1)
READ = (*ledger.READABLE, "truncated")  # a list that breaks off still has whole tasks before the break
PATIENCE = 5  # times the fewest requests that could do; Alpaca used some 2.3 times as many tasks as it kept


class SelfinstructConfig(TeacherConfig):
    """Which tasks to ask for, and from whom."""

    seed_tasks: str = Field("tasks", description="seed tasks: a name in data/words, or the path of a .jsonl or .json")
    count: int = Field(1000, ge=1, description="tasks wanted")
    seed: int = Field(0, ge=0, description="another seed shows the seed tasks in other combinations")
    examples: int = Field(3, ge=1, le=20, description="seed tasks shown with each request")
    tasks_per_request: int = Field(20, ge=1, le=100, description="tasks asked for in one request")
    max_similarity: float = Field(0.7, gt=0, le=1, description="ROUGE-L F with an earlier task above which none is new")
    most_requests: int | None = Field(None, ge=1, description="requests at most; default: 5 times the fewest possible")
    max_tokens: int = Field(3072, ge=16, description="longest reply, in tokens")
    part_rows: int = Field(1000, ge=1, description="tasks per part file")

    @property
    def limit(self) -> int:
        return self.most_requests or PATIENCE * ceil(self.count / self.tasks_per_request)


def external(config: SelfinstructConfig) -> dict[str, str]:
    return {"seed_tasks": file_digest(str(_file(config)))}


def selfinstruct(draft: Draft, config: SelfinstructConfig, *, api_key: Key | None = None) -> None:
    """Ask in rounds until there are enough tasks, then write the parts."""
    seeds = _seeds(config)
    requests = _requests(config, seeds)
    gathered, asked, rounds = Gathered(config, seeds), [], []
    while wanted := min(_missing(config, gathered), config.limit - len(asked)):
        batch = [next(requests) for _ in range(wanted)]
        asked += batch  # all of them each time: the budget is for all
        rounds.append(settle(config, asked, draft.progress, api_key, _fewer))
        past = known(request.request_id for request in batch)
        for request in batch:
            gathered.add(request, past[request.request_id])
        done = min(len(gathered.rows), config.count)
        draft.progress(f"{len(gathered.rows):,} tasks of {config.count:,}", done, config.count)
    draft.write_json("_record/rounds.json", rounds)
    draft.fact(requests=gathered.num_requests, seed_tasks=len(seeds), wanted=config.count)
    _write_parts(draft, config, gathered)


def first_round(config: SelfinstructConfig) -> list[Request]:
    """The requests that do if every task can be used."""
    fewest = ceil(config.count / config.tasks_per_request)
    return list(islice(_requests(config, _seeds(config)), min(fewest, config.limit)))


def _missing(config: SelfinstructConfig, gathered: "Gathered") -> int:
    """How many requests more it takes, at the yield so far."""
    missing = config.count - len(gathered.rows)
    each = len(gathered.rows) / gathered.num_requests if gathered.num_requests else config.tasks_per_request
    return max(0, ceil(missing / max(each, 1)))


def _fewer(requests: int) -> str:
    return f"set --selfinstruct.most-requests to {requests}"


# ---- what to ask


def _file(config: SelfinstructConfig) -> Path:
    named = config.seed_tasks
    return Path(named) if "/" in named or named.endswith((".jsonl", ".json")) else WORDS / f"{named}.jsonl"


def _seeds(config: SelfinstructConfig) -> list[Task]:
    tasks = seed_tasks(str(_file(config)))
    if len(tasks) < config.examples:
        raise UserError(
            f"found {len(tasks)} seed tasks in {_file(config)}, expected at least {config.examples}, as many as "
            "selfinstruct.examples says: add some, or show fewer"
        )
    return tasks


def _requests(config: SelfinstructConfig, seeds: list[Task]) -> Iterator[Request]:
    """Request after request, without end; each a function of its number."""
    settings = config.settings(asking.RESPONSE_FORMAT)
    names, settled = Names(config), partial(_settled, reasks=config.reasks)
    number = 0
    while True:
        shown = asking.examples_for(seeds, number, config.seed, config.examples)
        payload = settings | {"messages": asking.messages(shown, config.tasks_per_request)}
        yield Request(names.name(payload), payload, asking.fault_in, settled)
        number += 1


def _settled(answers: list[ledger.Answer], *, reasks: int) -> bool:
    return _verdict(answers, reasks) is not None


def _verdict(answers: list[ledger.Answer], reasks: int) -> ledger.Answer | None:
    """The first answer with a usable task, else the last one allowed; None while the teacher should be asked again."""
    first = answers[: 1 + reasks]
    usable = (each for each in first if each.status in READ and not asking.fault_in(each.raw))
    return next(usable, first[-1] if len(first) > reasks else None)


# ---- what came of it


class Gathered:
    """The tasks so far: those that stay, and those that go with their reasons."""

    def __init__(self, config: SelfinstructConfig, seeds: list[Task]) -> None:
        self.config, self.num_requests = config, 0
        self.rows: list[dict[str, Any]] = []
        self.dropped: list[dict[str, Any]] = []
        self._pool = Pool(words_of(task.instruction) for task in seeds)
        self._names = [f"seed:{task.name}" for task in seeds]

    def add(self, request: Request, past: ledger.Past) -> None:
        """One request more, settled."""
        self.num_requests += 1
        answer = _verdict(past.answers, self.config.reasks)
        assert answer, f"{request.request_id} was never settled"
        for number, (task, fault) in enumerate(_candidates(answer), 1):
            row = self._row(request, number, answer, task)
            if fault := fault or self._old(task, row["story_id"]):
                self.dropped.append(row | {"reason": fault.reason, "detail": fault.detail})
            else:
                self.rows.append(row)

    def _old(self, task: Task, story_id: str) -> Fault | None:
        """What makes this task not new; a new one joins the pool."""
        words = words_of(task.instruction)
        near = self._pool.nearest(words, 1, self.config.max_similarity)
        if near and near[0][1] > self.config.max_similarity:
            return Fault("not_novel", f"{near[0][1]:.2f} like {self._names[near[0][0]]}")
        self._pool.add(words)
        self._names.append(story_id)
        return None

    def _row(self, request: Request, number: int, answer: ledger.Answer, task: Task) -> dict[str, Any]:
        return {
            "story_id": f"{request.request_id}.{number}",
            "text": task.output,
            "instruction": task.instruction,
            "input": task.input or None,
            "source": self.config.source,
            "request_id": request.request_id,
            "features": [],
            "model": answer.model,
        }


def _candidates(answer: ledger.Answer) -> list[asking.Candidate]:
    """The tasks of an answer; one without any is one candidate that stands for all of it."""
    if answer.status not in READ:
        fault = Fault(answer.status, f"the teacher's answer is marked {answer.status}")
        return [(Task("", "", "", answer.raw), fault)]
    fault = Fault("unreadable", "found no task in this answer")
    found = asking.candidates(answer.raw, truncated=answer.status == "truncated")
    return found or [(Task("", "", "", answer.raw), fault)]


def _write_parts(draft: Draft, config: SelfinstructConfig, gathered: Gathered) -> None:
    columns = schemas.TABLES["selfinstruct", "_dropped"]
    reasons = Counter(row["reason"] for row in gathered.dropped)
    if not gathered.rows:
        raise UserError(
            f"{config.model} gave no usable task for {gathered.num_requests:,} requests ({dict(reasons)}); "
            "`select status, error, raw from requests` shows what it wrote instead"
        )
    for number, start in enumerate(range(0, len(gathered.rows), config.part_rows)):
        rows = gathered.rows[start : start + config.part_rows]
        draft.write_table(f"part-{number:05d}.parquet", pa.Table.from_pylist(rows, schema=schemas.RAW))
    draft.write_table("_dropped/part-00000.parquet", pa.Table.from_pylist(gathered.dropped, schema=columns))
    draft.count(rows_in=len(gathered.rows) + len(gathered.dropped), rows_out=len(gathered.rows), drops=reasons)
