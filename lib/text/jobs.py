"""A request on its way to an answer, whichever way it is sent.

In:   a Request (lib/text/teacher.py), what the ledger knows of it
Out:  Job: what to send next, what has been answered; Judge: whether another try can help, and after which pause
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lib.errors import TransientError, UserError
from lib.text.ledger import ANSWERED, Answer
from lib.text.outcomes import FATAL, Attempt, refuses_format

if TYPE_CHECKING:
    from lib.text.teacher import Request

LONGEST_PAUSE = 30.0  # seconds, where no Retry-After says otherwise
FORMATS = ("json_schema", "json_object", "")  # from the strictest to none


@dataclass(frozen=True)
class Patience:
    """How long to go on. Nothing in it can change an answer."""

    concurrency: int = 32
    tries: int = 6
    backoff: float = 0.5  # seconds before the second try; doubles


@dataclass
class Job:
    """One request that has to be answered."""

    request: "Request"
    seeds: Callable[[int], int] | None  # answers so far -> the seed of the next ask: equal in every run
    attempts: int = 0  # the highest number given to one
    answers: list[Answer] = field(default_factory=list)
    sent: int = 0  # in this run
    failures: int = 0  # in a row, those with a Retry-After left out

    @property
    def settled(self) -> bool:
        return self.request.settled(self.answers)

    def payload(self) -> dict[str, Any]:
        """What to send next."""
        return self.request.payload | ({"seed": self.seeds(len(self.answers))} if self.seeds else {})

    def heard(self, attempt: Attempt) -> Attempt:
        """Take in what came of an attempt; gives it back with its content judged."""
        if attempt.status == "ok" and (fault := self.request.read(attempt.content or "")):
            attempt = replace(attempt, status="unreadable", error=f"{fault.reason}: {fault.detail}")
        if attempt.status in ANSWERED:
            model = attempt.model or self.request.payload["model"]
            self.answers.append(Answer(attempt.status, attempt.content or "", model))
        return attempt


class Formats:
    """The reply format that an endpoint takes: it steps down for the rest of the run where one is refused."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._refused: set[str] = set()
        self._say = say

    def fitted(self, payload: dict[str, Any]) -> dict[str, Any]:
        """`payload` with a format that was not refused yet, or with none."""
        wanted = _format_of(payload)
        if wanted not in self._refused:
            return payload
        kept = {key: value for key, value in payload.items() if key != "response_format"}
        left = next(each for each in FORMATS[FORMATS.index(wanted) :] if each not in self._refused)
        return kept | ({"response_format": {"type": left}} if left else {})

    def step_down(self, sent: dict[str, Any], attempt: Attempt) -> bool:
        """Whether this was refused for its format alone, so that it can be asked again with less of one."""
        refused = _format_of(sent)
        if not refused or refused not in FORMATS or not refuses_format(attempt):
            return False
        if refused not in self._refused:
            self._refused.add(refused)
            self._say(f"the endpoint takes no response_format {refused}; from now on it is asked without")
        return True


def _format_of(payload: dict[str, Any]) -> str:
    return (payload.get("response_format") or {}).get("type", "")


class Judge:
    """What follows from an attempt."""

    def __init__(self, where: str, patience: Patience, formats: Formats, kept: Callable[[], str]) -> None:
        """`where` names the endpoint; `kept` says what this run has got so far."""
        self._where, self._patience, self.formats, self._kept = where, patience, formats, kept
        self._dice = random.Random()  # for pauses only

    def pause(self, job: Job, sent: dict[str, Any], attempt: Attempt) -> float | None:
        """Seconds until the next try; None when this was the last answer. Raises where no try can help."""
        if attempt.status in ANSWERED:
            job.failures = 0
            return None if job.settled else 0.0
        if self.formats.step_down(sent, attempt):
            return 0.0
        if attempt.status in FATAL:
            why = f"{attempt.http_status} ({attempt.error}): {FATAL[attempt.status]}"
            raise UserError(f"{self._where} answered {why}")
        pause = min(self._patience.backoff * 2 ** min(job.failures, 30), LONGEST_PAUSE) * self._dice.uniform(0.5, 1.0)
        if attempt.retry_after is not None:
            return pause + attempt.retry_after  # as asked; the jitter keeps the waiting from coming back as one
        job.failures += 1
        if job.failures >= self._patience.tries:
            raise TransientError(self._gave_up(job, attempt))
        return pause

    def _gave_up(self, job: Job, attempt: Attempt) -> str:
        return (
            f"{self._where} failed {job.failures} times in a row on request {job.request.request_id}, the last time "
            f"with {attempt.status} ({attempt.error}); {self._kept()}. "
            "Check that it is running and reachable and that the base URL is right (it usually ends in /v1), then run "
            "the same command again: what was answered is kept, and nothing is asked for twice."
        )
