"""The stories in whatever a teacher wrote, as the texts it gave them; nothing is judged here.

In:   the content of a chat completion, as it came; how many stories it should hold
Out:  up to so many `Found(story, summary)`, in order

Read in turn, until one reading finds a story:

    JSON            one object or a list, bare, fenced or inside prose; raw line ends, trailing commas and other field
                    names are allowed. In a reply that broke off, the objects that are whole
    loose JSON      quotation marks of the dialogue not escaped
    headings        "Story: … Summary: …", in plain text or Markdown, numbered or not
    closing lines   plain text, each story followed by a line that begins with "a story about"

Which story answers which ask goes by position. So reading stops at the first story that cannot be read: what follows
it would take its place.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

DECODER = json.JSONDecoder(strict=False)  # a raw line end inside a string is the commonest slip of a language model
STORY_FIELDS = ("story", "text", "story_text", "tale", "content")
SUMMARY_FIELDS = ("summary", "story_summary", "synopsis")
MOST_FAILURES = 8  # openings that are no JSON, before the text counts as none
SHORTEST = 20  # words of a story that nothing marks as one: a refusal is shorter
DEEPEST = 4  # containers around a story
OPENING = re.compile(r"[{\[]")
TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)
STORY_LOST = re.compile(r'\{\s*"(?:' + "|".join(STORY_FIELDS) + ")", re.IGNORECASE)
_KEY = '"(?:story|text|tale|summary|synopsis)"'
LOOSE = re.compile(
    rf'"(?:story|text|tale)"\s*:\s*"((?:(?!{_KEY}|"summary).)+)"\s*,\s*'
    rf'"(?:summary|synopsis)"\s*:\s*"((?:(?!{_KEY}).)+?)"\s*\}}',
    re.DOTALL | re.IGNORECASE,
)
HEADING = re.compile(
    r"^[ \t#*_>-]*(?:the\s+|(?:one|1)[- ]sentence\s+|short\s+)?(title|story|summary)"
    r"(?:[ \t]*(?:#|no\.|number)?[ \t]*\d+)?[ \t]*[*_]*[ \t]*(?:[:\u2013\u2014-][ \t*_]*|$)",
    re.IGNORECASE | re.MULTILINE,
)
CLOSING = re.compile(r"^[\s\"'*_]*a\s+story\s+about\s", re.IGNORECASE)
RULE = re.compile(r"\n\s*[-*_=]{3,}\s*$")  # a line across, between two stories


@dataclass(frozen=True)
class Found:
    """One story as it came. A field that is missing is None; one that is no text is whatever it is."""

    story: Any
    summary: Any


def stories_in(content: str, count: int = 1, *, whole: bool = True) -> list[Found]:
    """The first `count` stories of this content; of one that broke off (not `whole`), only those in whole objects."""
    found = list(islice(_from_json(content, count), count))
    if found or not whole:
        return found
    return (_from_loose(content, count) or _from_headings(content) or _from_closings(content, count))[:count]


# ---- JSON


def _from_json(content: str, count: int) -> Iterator[Found]:
    """The stories in every JSON value of the text, one value after the other."""
    at, failures = 0, 0
    while failures < MOST_FAILURES and (opening := OPENING.search(content, at)):
        try:
            value, at = _decoded(content, opening.start())
        except (ValueError, RecursionError):
            if count > 1 and STORY_LOST.match(content, opening.start()):
                return
            failures, at = failures + 1, opening.end()
            continue
        yield from _found_in(value, DEEPEST)


def _decoded(content: str, at: int) -> tuple[Any, int]:
    """The JSON value that starts here, and where it ends; trailing commas are forgiven."""
    try:
        return DECODER.raw_decode(content, at)
    except ValueError:
        rest = TRAILING_COMMA.sub(lambda match: match[1] or " ", content[at:])  # blanks, so that places stay
        value, length = DECODER.raw_decode(rest)
        return value, at + length


def _found_in(value: Any, depth: int) -> Iterator[Found]:
    """The stories of one JSON value, in its order."""
    if not depth or not isinstance(value, dict | list):
        return
    if isinstance(value, list):
        for each in value:
            yield from _found_in(each, depth - 1)
        return
    fields = {str(key).strip().lower(): each for key, each in value.items()}
    name = next((name for name in STORY_FIELDS if name in fields), None)
    story = fields.get(name) if name else None
    if isinstance(story, list) and story and all(isinstance(each, str) for each in story):
        story = "\n".join(story)  # one paragraph an item
    if name and not isinstance(story, dict | list):
        yield Found(story, next((fields[each] for each in SUMMARY_FIELDS if each in fields), None))
    else:  # {"stories": [...]}, {"story_1": {...}, "story_2": {...}}
        yield from _found_in(list(value.values()), depth)


def _from_loose(content: str, count: int) -> list[Found]:
    """Objects whose texts hold bare quotation marks; only if it is as many as were asked for."""
    found = [Found(_unescaped(story), _unescaped(summary)) for story, summary in LOOSE.findall(content)]
    return found if len(found) >= count else []


def _unescaped(text: str) -> str:
    try:
        return DECODER.decode('"' + re.sub(r'(?<!\\)"', r"\"", text) + '"')
    except ValueError:
        return text


# ---- plain text


def _from_headings(content: str) -> list[Found]:
    """Texts under the headings Story and Summary, in either order."""
    marks = list(HEADING.finditer(content))
    if not {"story", "summary"} <= {mark[1].lower() for mark in marks}:
        return []
    found: list[dict[str, str]] = [{}]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        kind, text = mark[1].lower(), content[mark.end() : following.start() if following else None].strip()
        if kind == "title":
            kind, text = "story", text.partition("\n")[2].strip()
        if kind == "summary":
            text = text.partition("\n\n")[0].strip(" \t\n*_")
        if not text:
            continue
        if kind in found[-1]:
            found.append({})
        found[-1][kind] = RULE.sub("", text).strip()
    return [Found(each.get("story"), each.get("summary")) for each in found]


def _from_closings(content: str, count: int) -> list[Found]:
    """Each story up to a line that begins with "a story about"; only if the text ends with one, and all are there."""
    found, told = [], []
    for line in filter(str.strip, content.splitlines()):
        if CLOSING.match(line) and told:
            found.append(Found("\n".join(told), line.strip()))
            told = []
        elif not RULE.fullmatch("\n" + line):
            told.append(line.strip())
    long = all(len(each.story.split()) >= SHORTEST for each in found)
    return found if len(found) == count and long and not told else []
