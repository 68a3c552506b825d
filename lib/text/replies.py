"""From what a teacher wrote to a story with its summary, or to the reason why there is none.

In:   the content of a chat completion, as it came
Out:  Reply(story, summary) or Fault(reason, detail); pure, so a better rule rereads the ledger and asks for nothing

Teachers wrap JSON in fences and chatter, and leave raw line ends inside strings; all of that is read. The summary
starts with "a story about", because every instruction is "Write " + summary: what differs in its first words only
is repaired, anything else is a fault.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lib.text.ledger import READABLE, Answer

OPENING = "a story about "
# "A Story About …", "Story about: …", "This is a story about …", "Summary: a short story about …"
SUMMARY = re.compile(
    r"""^["'\s]*(?:summary\s*:\s*)?(?:(?:this|here|it)(?:\s+is|'s|\s+tells)\s+)?(?:(?:a|an|the)\s+)?"""
    r"""(?:(?:short|little|simple|sweet|children's)\s+)*(?:story|tale)\s+(?:is\s+)?about\s*:?\s+""",
    re.IGNORECASE,
)
BANNED = re.compile("[\x00\ud800-\udfff]")  # NUL and lone surrogates: Parquet and SentencePiece both refuse them
DECODER = json.JSONDecoder(strict=False)  # a raw line end inside a string is the commonest slip of a language model


@dataclass(frozen=True)
class Reply:
    """One story and its summary, which starts with "a story about "."""

    story: str
    summary: str


@dataclass(frozen=True)
class Fault:
    """Why a reply holds no usable story."""

    reason: str  # unreadable, no_story, bad_characters, bad_summary
    detail: str


def read(content: str) -> Reply | Fault:
    """The story in this content. Never raises: whatever a teacher writes is a Reply or a Fault."""
    if BANNED.search(content):
        return _banned(content)
    found = next((each for each in _objects(content) if "story" in each), None)
    if found is None:
        return Fault("unreadable", f"found no JSON object with a story in {content[:80]!r}")
    story, summary = found["story"], found.get("summary")
    if not isinstance(story, str) or not story.strip():
        return Fault("no_story", f"the story is {story!r:.80}")
    if not isinstance(summary, str):
        return Fault("bad_summary", f"the summary is {summary!r:.80}")
    if BANNED.search(story) or BANNED.search(summary):
        return _banned(story + summary)
    if (fitting := summary_of(summary)) is None:
        return Fault("bad_summary", f'{summary[:80]!r} does not start with "{OPENING.strip()}"')
    return Reply(story.strip(), fitting)


def fault_in(content: str) -> Fault | None:
    """What is wrong with this content; None where it holds a story."""
    held = read(content)
    return held if isinstance(held, Fault) else None


def verdict(answers: Sequence[Answer], reasks: int) -> tuple[Answer, Reply | Fault] | None:
    """The answer that counts and what it holds; None while the teacher should be asked again.

    Only the first 1 + `reasks` answers count, so a ledger that knows more gives the same stories.
    """
    first = answers[: 1 + reasks]
    found = [_held(answer) for answer in first]
    at = next((n for n, each in enumerate(found) if isinstance(each, Reply)), -1)
    return (first[at], found[at]) if at >= 0 or len(first) > reasks else None


def _held(answer: Answer) -> Reply | Fault:
    if answer.status in READABLE:
        return read(answer.raw)
    return Fault(answer.status, f"the teacher's answer is marked {answer.status}")


def summary_of(text: str) -> str | None:
    """`text` as "a story about …", where that takes no more than other first words; None otherwise."""
    found = SUMMARY.match(text)
    rest = " ".join(text[found.end() :].strip(" \t\r\n\"'").split()) if found else ""
    return OPENING + rest if rest else None


def storable(text: str) -> str:
    """`text` with what no UTF-8 file can hold spelt out, so that the ledger can keep it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _objects(content: str) -> Iterator[dict[str, Any]]:
    """Every JSON object that starts somewhere in the text, the first eight openings at most."""
    starts = [0] if content[:1] == "{" else [m.start() for m in islice(re.finditer("{", content), 8)]
    for start in starts:
        try:
            value, _ = DECODER.raw_decode(content, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _banned(text: str) -> Fault:
    found = BANNED.search(text)
    assert found
    return Fault("bad_characters", f"U+{ord(found.group()):04X} at character {found.start()}")
