"""From what a teacher wrote to stories with their summaries, or to the reason why there are none.

In:   the content of a chat completion, as it came; how many stories were asked for
Out:  `response_format`, the JSON schema to ask for; `read`, for each ask a Reply(story, summary) or a Fault(reason,
      detail); `verdict`, which answer counts. Pure, so a better rule rereads the ledger and asks for nothing
Relies on lib/text/reading.py, which finds the stories however they were wrapped: what was asked for (a schema, JSON,
plain text) does not matter here.

A summary starts with "a story about", because every instruction is "Write " + summary. Repaired is what takes only
other first words: "The tale of …", "This story is about …", "A story in which …" (→ "how …"), "Summary: …". A bare
sentence becomes "a story about how …" only where its subject is a name and a verb follows ("Tim finds a hat"); of
other sentences no rule can tell whether they are one ("a dog who runs"), so they are faults.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lib.text.ledger import READABLE, Answer
from lib.text.patterns import DECLINED, REFUSAL
from lib.text.reading import Found, stories_in
from lib.text.summary import extractive_summary

OPENING = "a story about "
_DETERMINED = (
    r"(?:a|an|the|this)\s+(?:[\w'-]+,\s+)*(?:[\w'-]+\s+){0,2}?"  # "A short, sweet story"; not "The boy told us a story"
)
SUMMARY = re.compile(
    rf"""^[\s"'*_#>]*(?:summary[\s*_]*[:\u2013\u2014-][\s"'*_]*)?(?:(?:this|here|it)(?:\s+is|'s|\s+tells)\s+)?
    (?:(?:{_DETERMINED}|(?:(?:short|little|simple|sweet|children's)\s+)*)(?:story|tale)\s+
       (?:(?P<how>in\s+which|where|tells\s+how)|(?:(?:is|tells|told)\s+)?(?:about|of)|follows)
    |about)\s*:?\s+""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = re.compile(r"^[\s\"'*_#>]*summary[\s*_]*[:\u2013\u2014-]", re.IGNORECASE)
_NO_NAME = "A|An|The|This|That|These|Two|Three|Some|Many|One|It|In|On|At|When|Once|There|Here|His|Her|Their|My|If|As"
_NAME = rf"(?!(?:{_NO_NAME})\b)[A-Z][a-z]+"
SENTENCE = re.compile(  # one sentence: a name, or two, or somebody named so; then a verb
    rf"(?:{_NAME} (?:[a-z]+(?:[a-rt-z]s|ed)|is|was|has|goes|went|found|lost|saw|got|made)"
    rf"|{_NAME} and {_NAME} (?!who\b|that\b|in\b|on\b|at\b|from\b|with\b|and\b)[a-z]+"
    rf"|An? (?:[a-z-]+ ){{1,3}}(?:named|called) {_NAME} (?:[a-z]+[a-rt-z]s|is|was|has|goes|went|found|lost))"
    r"\b[^.!?]*[.!?]?"
)
DECLINES, ASSISTANT = re.compile(DECLINED), re.compile(REFUSAL)
PLAIN_WORDS = 20  # clean's shortest story
ENDINGS = (".", "!", "?", '"', "\u201d", "'", "\u2019")
MARKUP = re.compile(r"[{}\[\]<>`|]")  # broken JSON and the like is quarantined, not told
BANNED = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates: Parquet and SentencePiece both refuse them


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StoryReply(_Exact):
    """What one story's answer holds."""

    story: str = Field(description="the whole story")
    summary: str = Field(description='one sentence that begins with "a story about"')


class StoriesReply(_Exact):
    """What an answer with several stories holds."""

    stories: list[StoryReply] = Field(description="the stories, as many as asked for, in the order they are asked for")


@dataclass(frozen=True)
class Reply:
    """One story and its summary, which starts with "a story about "."""

    story: str
    summary: str


@dataclass(frozen=True)
class Fault:
    """Why a reply holds no usable story."""

    reason: str  # unreadable, missing, no_story, bad_characters, bad_summary, or the status of the answer
    detail: str


# ---- what to ask for


def response_format(count: int = 1, length: str = "") -> dict[str, Any]:
    """The `response_format` of a request for so many stories: a strict JSON schema. `length` of each, in words."""
    story = _strict(StoryReply.model_json_schema(), {})
    story["properties"]["story"]["description"] += f", {length}" if length else ""
    schema = story if count == 1 else _strict(StoriesReply.model_json_schema(), {"#/$defs/StoryReply": story})
    name = "story_with_summary" if count == 1 else "stories_with_summaries"
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _strict(schema: Any, named: dict[str, Any]) -> Any:
    """A schema that every endpoint takes: references written out, no titles, no docstrings."""
    if isinstance(schema, list):
        return [_strict(each, named) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if reference := schema.get("$ref"):
        return named[reference]
    dull = {"title", "$defs"} | ({"description"} if schema.get("type") == "object" else set())
    return {key: _strict(each, named) for key, each in schema.items() if key not in dull}


# ---- what came


def read(content: str, count: int = 1, *, whole: bool = True) -> list[Reply | Fault]:
    """The story for each of `count` asks. Never raises: whatever a teacher writes is a Reply or a Fault."""
    found = stories_in(content, count, whole=whole)
    if not found and count == 1 and (told := _plain_story(content)):
        return [told]
    if not found:
        reason = "refusal" if DECLINES.search(content.strip()) else "unreadable"
        return [_banned(content) or Fault(reason, f"found no story in {content[:80]!r}")] * count
    readable = sum(each is not None for each in found)
    missing = Fault("missing", f"found {readable} stories that can be read, expected {count}")
    return [_judged(each) if each else missing for each in [*found, *[None] * (count - len(found))]]


def _plain_story(content: str) -> Reply | None:
    """A story told without any form, as small models answer: prose to its end; its summary is made of its own words."""
    text = content.strip()
    is_prose = len(text.split()) >= PLAIN_WORDS and text.endswith(ENDINGS) and not MARKUP.search(text)
    if not is_prose or BANNED.search(text) or ASSISTANT.search(text):
        return None
    return Reply(text, extractive_summary(text))


def _judged(found: Found) -> Reply | Fault:
    story, summary = found.story, found.summary
    if not isinstance(story, str) or not story.strip():
        return Fault("no_story", f"the story is {story!r:.80}")
    if not isinstance(summary, str):
        return Fault("bad_summary", f"the summary is {summary!r:.80}")
    if banned := _banned(story + summary):
        return banned
    if (fitting := summary_of(summary)) is None:
        return Fault("bad_summary", f'{summary[:80]!r} does not start with "{OPENING.strip()}"')
    return Reply(story.strip(), fitting)


def fault_in(content: str, count: int = 1) -> Fault | None:
    """What is wrong with this content; None where it holds every story that was asked for."""
    for number, held in enumerate(read(content, count), 1):
        if isinstance(held, Fault):
            return held if count == 1 else Fault(held.reason, f"story {number} of {count}: {held.detail}")
    return None


def verdict(answers: Sequence[Answer], reasks: int, count: int = 1) -> list[tuple[Answer, Reply | Fault]] | None:
    """For each of `count` asks the answer that counts and what it holds; None while the teacher should be asked again.

    An ask takes the first answer that holds a good story in its place, and the last answer's fault where none does.
    Only the first 1 + `reasks` answers count, so a ledger that knows more gives the same stories.
    """
    slots: list[tuple[Answer, Reply | Fault]] = []
    for number, answer in enumerate(answers):
        pairs = [(answer, held) for held in _held(answer, count)]
        slots = [old if isinstance(old[1], Reply) else new for old, new in zip(slots or pairs, pairs, strict=True)]
        if number == reasks or all(isinstance(held, Reply) for _, held in slots):
            return slots
    return None


def _held(answer: Answer, count: int) -> list[Reply | Fault]:
    if answer.status in READABLE:
        return read(answer.raw, count)
    unusable = Fault(answer.status, f"the teacher's answer is marked {answer.status}")
    if answer.status == "truncated" and count > 1:  # the stories before the cut are whole, and paid for
        held = read(answer.raw, count, whole=False)
        return [each if isinstance(each, Reply) else unusable for each in held]
    return [unusable] * count


def summary_of(text: str) -> str | None:
    """`text` as "a story about …", where that takes no more than other first words; None otherwise."""
    if found := SUMMARY.match(text):
        rest = _tidy(text[found.end() :])
        return OPENING + ("how " if found["how"] else "") + rest if rest else None
    sentence = _tidy(_LABEL.sub("", text))
    if not SENTENCE.fullmatch(sentence):
        return None
    if sentence.startswith(("A ", "An ")):
        sentence = sentence[0].lower() + sentence[1:]
    return f"{OPENING}how {sentence}"


def _tidy(text: str) -> str:
    return " ".join(text.strip(" \t\r\n\"'*_").split())


def _banned(text: str) -> Fault | None:
    found = BANNED.search(text)
    return found and Fault("bad_characters", f"U+{ord(found.group()):04X} at character {found.start()}")
