"""Judge: a language model marks stories, and no story is paid for twice.

In:   prompts and the stories they got; a JudgeConfig: any OpenAI-compatible endpoint, its key in OPENAI_API_KEY
Out:  a mark from 0 to 1 for each story, the mean of four marks out of 10; every attempt in the ledger in data/requests/
On:   lib/text/teacher.py, which looks at the ledger first: an alignment that is killed and goes on, or another one that
      writes the same story, pays nothing for what was marked before

The four marks are those that TinyStories asks GPT-4 for (Eldan and Li 2023, arXiv:2305.07759, section 3): grammar,
creativity, consistency, and plot. A story whose mark cannot be read after `reasks` further answers gets 0: what a judge
refuses to mark shall not pay. Where that befalls every story of a call, it is the judge that is at fault.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field

from lib.errors import UserError
from lib.store import Progress, runtime
from lib.text.ledger import Answer
from lib.text.replies import Fault
from lib.text.teacher import Names, Request, TeacherConfig, known, settle

MARKS = ("grammar", "creativity", "consistency", "plot")
MOST = 10
SYSTEM = (
    "You mark short stories that are meant for children of three to five. Give four marks, whole numbers from 0 (as "
    "bad as can be) to 10 (as good as a good author's): grammar; creativity; consistency, which includes that the "
    "story is the one that was asked for; and plot, which includes that it comes to an end. A story that says the same "
    "thing again and again, breaks off, or makes no sense deserves low marks in all four. Answer with nothing but a "
    'JSON object: {"grammar": 0, "creativity": 0, "consistency": 0, "plot": 0}'
)
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "marks",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {name: {"type": "integer", "minimum": 0, "maximum": MOST} for name in MARKS},
            "required": list(MARKS),
            "additionalProperties": False,
        },
    },
}


class JudgeConfig(TeacherConfig):
    """Whom to ask for marks, and how."""

    teacher: Literal["openai"] = Field("openai", description="any OpenAI-compatible endpoint")
    model: str = Field(min_length=1, description="the model that marks")
    temperature: float | None = Field(0.0, ge=0, le=2, description="of the judge's sampling; null sends none")
    max_tokens: int = Field(100, ge=16, description="longest reply, in tokens")
    reasks: int = Field(2, ge=0, le=20, description="how often an answer without marks is asked for again")
    transport: Literal["live"] = runtime("live", description="the next update waits for the marks")
    budget: float | None = runtime(
        None, ge=0, description="dollars that the marks may cost, counted from where this process began"
    )


class Judge:
    """Marks stories. Called with prompts and stories; 0 to 1 for each."""

    def __init__(self, config: JudgeConfig, progress: Progress = lambda *_: None) -> None:
        self._config, self._progress = config, progress
        self._names, self._settings = Names(config), config.settings(SCHEMA)
        self._asked: dict[tuple[str, str], Request] = {}  # all of them, for the budget counts over requests

    def __call__(self, prompts: Sequence[str], stories: Sequence[str]) -> list[float]:
        pairs = list(zip(prompts, stories, strict=True))
        for pair in dict.fromkeys(pairs):
            if pair not in self._asked:
                self._asked[pair] = self._request(*pair)
        settle(self._config, list(self._asked.values()), self._progress)
        past = known(self._asked[pair].request_id for pair in dict.fromkeys(pairs))
        answers = {pair: past[self._asked[pair].request_id].answers for pair in dict.fromkeys(pairs)}
        marks = {pair: next(filter(None, map(read, each)), None) for pair, each in answers.items()}
        if marks and not any(marks.values()):
            wrote = next((each[-1].raw for each in answers.values() if each), "")
            raise UserError(
                f"{self._config.model} gave no marks for any of {len(marks)} stories, expected a JSON object with "
                f"{', '.join(MARKS)}; it wrote {wrote[:200]!r}. Try another judge.model, or other settings of "
                "judge.structured and judge.max_tokens"
            )
        return [sum((marks[pair] or {name: 0 for name in MARKS}).values()) / len(MARKS) / MOST for pair in pairs]

    def _request(self, prompt: str, story: str) -> Request:
        said = f"What was asked for:\n{prompt}\n\nThe story:\n{story}"
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": said}]
        payload = self._settings | {"messages": messages}
        return Request(self._names.name(payload), payload, fault_in, partial(is_settled, reasks=self._config.reasks))


def marks_in(content: str) -> dict[str, int] | None:
    """The four marks in an answer, with whatever stands around the JSON object; None where they are not there."""
    try:
        found: Any = json.loads(content[content.index("{") : content.rindex("}") + 1])
    except ValueError:
        return None
    marks = {name: found.get(name) for name in MARKS}
    fine = all(isinstance(mark, int) and not isinstance(mark, bool) and 0 <= mark <= MOST for mark in marks.values())
    return marks if fine else None


def read(answer: Answer) -> dict[str, int] | None:
    return marks_in(answer.raw)


def fault_in(content: str) -> Fault | None:
    if marks_in(content) is None:
        return Fault("no_marks", f"expected whole numbers 0 to {MOST} for {', '.join(MARKS)}")
    return None


def is_settled(answers: Sequence[Answer], *, reasks: int) -> bool:
    return len(answers) > reasks or any(map(read, answers))
