"""The stories in whatever a teacher wrote, each in the place of the ask it answers; nothing is judged here.

In:   the content of a chat completion, as it came; how many stories it should hold
Out:  for each place `Found(story, summary)`, or None where no story stands there; [] where none is found at all

Read in turn, until one reading finds a story:

    JSON            one object or a list, bare, fenced or inside prose; raw line ends, trailing commas and other field
                    names are allowed. In a reply that broke off, the objects that are whole
    loose JSON      quotation marks of the dialogue not escaped
    headings        "Story: … Summary: …", in plain text or Markdown, numbered or not
    closing lines   plain text, each story followed by a line that begins with "a story about"

Which story answers which ask: where there are numbers ("story_3", "Story 3:"), by them. In a list by position, and
every element takes one, whatever it holds. Whatever else follows one another counts by position only as far as nothing
was skipped; where that is not certain, nothing is found: asking again costs less than a story under another's name.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

DECODER = json.JSONDecoder(strict=False)  # a raw line end inside a string is the commonest slip of a language model
FIRST_OF_EQUALS = json.JSONDecoder(  # {"story": ..., "story": ...}: the second is of another ask
    strict=False, object_pairs_hook=lambda pairs: dict(pairs) | dict(reversed(pairs))
)
STORY_FIELDS = ("story", "text", "story_text", "tale", "content")
NUMBER_FIELDS = ("number", "story_number", "story_no")
SUMMARY_FIELDS = ("summary", "story_summary", "synopsis")
MOST_FAILURES = 8  # openings that are no JSON, before the text counts as none
NUMBERED = re.compile(r"(?:(?:the\s+)?(?:story|tale|text|no\.?)[\s_#-]*)?(\d{1,4})")  # a key: "story_3", "3"
LABEL = re.compile(r"\b(?:story|tale)[ \t_#-]*(\d{1,4})\b", re.IGNORECASE)
BETWEEN = re.compile(r"(?:[\s,;:.)`\"*_#=>\d-]|json|story|tale)*", re.IGNORECASE)  # what skips nothing
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
LOOSE_STORY = re.compile(r'"(?:story|text|tale)"\s*:', re.IGNORECASE)
HEADING = re.compile(
    r"^[ \t#*_>-]*(?:the\s+|(?:one|1)[- ]sentence\s+|short\s+)?(title|story|summary)"
    r"(?:[ \t]*(?:#|no\.|number)?[ \t]*(\d{1,4}))?[ \t]*[*_]*[ \t]*(?:[:\u2013\u2014-][ \t*_]*|$)",
    re.IGNORECASE | re.MULTILINE,
)
CLOSING = re.compile(r"^[\s\"'*_]*a\s+story\s+about\s", re.IGNORECASE)
RULE = re.compile(r"\n\s*[-*_=]{3,}\s*$")  # a line across, between two stories


@dataclass(frozen=True)
class Found:
    """One story as it came. A field that is missing is None; one that is no text is whatever it is."""

    story: Any
    summary: Any


Places = list[Found | None]


def stories_in(content: str, count: int = 1, *, whole: bool = True) -> Places:
    """What stands in the first `count` places; of what broke off (not `whole`), only whole objects."""
    found = _from_json(content, count, whole)
    if any(found) or not whole:
        return found[:count] if any(found) else []
    return (_from_loose(content, count) or _from_headings(content, count) or _from_closings(content, count))[:count]


# ---- JSON


def _from_json(content: str, count: int, whole: bool) -> Places:
    """The places of a value that holds as many as were asked for; else those of the values one after the other."""
    read = list(_values(content, count))
    if count > 1 and read and all(_numbered(value) for _, value in read):
        return _listed([value for _, value in read], count, DEEPEST)
    values = [(before, _places(value, count, DEEPEST)) for before, value in read]
    if count == 1:
        return [next((found for _, places in values for found in places if found), None)]
    for _, places in values:
        if len(places) >= count and any(places):
            hole = places.index(None) if None in places and len(places) > count else count
            return places[:hole]  # of a list that is too long, those behind a hole may have moved
    every = whole and sum(len(places) for _, places in values) == count
    found: Places = []
    for before, places in values:
        moved = found and None in places  # counted from where?
        if not any(places) or moved or not _follows(before, len(found) + 1, every):
            break
        found += places
    return found


def _follows(before: str, place: int, every: bool) -> bool:
    """Whether nothing was skipped in what stands before a value. Words may stand there if `every` story is there."""
    plain = BETWEEN.fullmatch(before)
    numbers = re.findall(r"\d{1,4}", before) if plain else LABEL.findall(before)
    if any(int(number) != place for number in numbers):
        return False
    return bool(plain) or (every and not OPENING.search(before))


def _values(content: str, count: int) -> Iterator[tuple[str, Any]]:
    """Every JSON value of the text, and what stands between it and the value before.

    Before the first of them: between it and what opens the list around it, where that list is not whole.
    """
    at, end, failures, first = 0, 0, 0, True
    while failures < MOST_FAILURES and (opening := OPENING.search(content, at)):
        try:
            value, at = _decoded(content, opening.start())
        except (ValueError, RecursionError):
            if count > 1 and STORY_LOST.match(content, opening.start()):
                return
            failures, at = failures + 1, opening.end()
            end = at if first else end
            continue
        yield content[end : opening.start()], value
        end, first = at, False


def _decoded(content: str, at: int) -> tuple[Any, int]:
    """The JSON value that starts here, and where it ends; trailing commas are forgiven."""
    try:
        return FIRST_OF_EQUALS.raw_decode(content, at)
    except ValueError:
        rest = TRAILING_COMMA.sub(lambda match: match[1] or " ", content[at:])  # blanks, so that places stay
        value, length = FIRST_OF_EQUALS.raw_decode(rest)
        return value, at + length


def _places(value: Any, count: int, depth: int) -> Places:
    """The places of one JSON value."""
    if not depth or not isinstance(value, dict | list):
        return []
    if isinstance(value, list):
        return _listed(value, count, depth - 1)
    fields = {str(key).strip().lower(): each for key, each in value.items()}
    name = next((name for name in STORY_FIELDS if name in fields), None)
    story = fields.get(name) if name else None
    if isinstance(story, list) and story and all(isinstance(each, str) for each in story):
        story = "\n".join(story)  # one paragraph an item
    if name and not isinstance(story, dict | list):
        return [Found(story, next((fields[each] for each in SUMMARY_FIELDS if each in fields), None))]
    if numbered := _by_keys(fields):  # {"story_1": {...}, "story_2": {...}}; or from 0
        first = 0 if 0 in numbered else 1
        numbers = range(first, min(max(numbered) + 1, count + first))
        return [_only(numbered.get(number), count, depth) for number in numbers]
    held = [places for each in value.values() if any(places := _places(each, count, depth - 1))]
    if len(held) <= 1:  # {"stories": [...]}
        return held[0] if held else []
    found = [each for places in held for each in places]
    return found if len(found) == count or count == 1 else []  # {"hen": {...}, "owl": {...}}


def _numbered(value: Any) -> dict[int, Any]:
    """By number: what stands under keys with one, or the value itself where it is a story that says its own."""
    fields = {str(key).strip().lower(): each for key, each in value.items()} if isinstance(value, dict) else {}
    said = next((str(fields[name]) for name in NUMBER_FIELDS if name in fields), "")
    if re.fullmatch(r"[0-9]{1,4}", said) and any(name in fields for name in STORY_FIELDS):
        return {int(said): value}
    return _by_keys(fields)


def _by_keys(fields: dict[str, Any]) -> dict[int, Any]:
    return {int(key[1]): each for name, each in fields.items() if (key := NUMBERED.fullmatch(name))}


def _listed(value: list[Any], count: int, depth: int) -> Places:
    """Each element in a place of its own, or by their numbers if all have one; a list of one value is that value."""
    if count > 1 and value and all(map(_numbered, value)):  # [{"story_1": {...}}, {"story_2": {...}}]
        value = [{str(number): held for each in reversed(value) for number, held in _numbered(each).items()}]
    if len(value) == 1:
        return _places(value[0], count, depth) or [None]
    return [_only(each, count, depth) for each in value]


def _only(value: Any, count: int, depth: int) -> Found | None:
    """The story of an element that holds one, and no other."""
    places = _places(value, count, depth)
    return places[0] if len(places) == 1 else None


def _from_loose(content: str, count: int) -> Places:
    """Objects whose texts hold bare quotation marks; only if all are read and they are as many as asked for."""
    found: Places = [Found(_unescaped(story), _unescaped(summary)) for story, summary in LOOSE.findall(content)]
    return found if count == 1 or len(found) == len(LOOSE_STORY.findall(content)) == count else []


def _unescaped(text: str) -> str:
    try:
        return DECODER.decode('"' + re.sub(r'(?<!\\)"', r"\"", text) + '"')
    except ValueError:
        return text


# ---- plain text


def _from_headings(content: str, count: int) -> Places:
    """Texts under the headings Story and Summary, in either order: by their numbers, or as many as were asked for."""
    marks = list(HEADING.finditer(content))
    if not {"story", "summary"} <= {mark[1].lower() for mark in marks}:
        return []
    blocks = _blocks(content, marks)
    found: Places = [Found(texts.get("story"), texts.get("summary")) for _, texts in blocks]
    numbers = [number for number, _ in blocks]
    if count == 1 or not any(numbers):
        return found if count == 1 or len(found) == count else []
    by_number = {number: each for number, each in zip(reversed(numbers), reversed(found), strict=True) if number}
    return [by_number.get(number) for number in range(1, min(max(by_number), count) + 1)]


def _blocks(content: str, marks: list[re.Match[str]]) -> list[tuple[int, dict[str, str]]]:
    """The number (0: none) and the texts of each story under headings."""
    blocks: list[tuple[int, dict[str, str]]] = [(0, {})]
    leads, waiting = (
        "",
        0,
    )  # which heading comes first; the number of a heading with nothing but another heading under it
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        kind, text = mark[1].lower(), content[mark.end() : following.start() if following else None].strip()
        if kind == "title":
            kind, text = "story", text.partition("\n")[2].strip()
        if kind == "summary":
            text = text.partition("\n\n")[0].strip(" \t\n*_")
        number = int(mark[2] or 0) or waiting
        waiting = 0 if text else number
        if not text:
            continue
        before, texts = blocks[-1]
        leads = leads or kind
        if kind in texts or (texts and kind == leads) or (number and before and number != before):
            before, texts = 0, {}
            blocks.append((before, texts))
        texts[kind] = RULE.sub("", text).strip()
        blocks[-1] = (before or number, texts)
    return blocks


def _from_closings(content: str, count: int) -> Places:
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
