"""What a chat request asks for, read from its messages.

In:   chat messages; our own prompts (lib/text/prompts/wording.py) or somebody else's
Out:  a Wish for each story: verb, noun, adjective, features; theme, style, teller, first word and paragraphs where they
      are named. Words that are not named are taken from the topic, from the text or from our lists

Several stories are told where the prompt lists them, one a line: "Story 1: …", "Story 2: …"; else it is one.
"""
# ruff: noqa: SIM905 - words in a string read better than words in quotes

import re

from lib.text.storyteller import axes, words
from lib.text.storyteller.mischief import number
from lib.text.storyteller.story import Wish

FEATURES = ("dialogue", "plot twist", "bad ending", "moral value", "foreshadowing", "conflict")
# the verb "jump", verb: jump, the verb `jump`
NAMED = re.compile(r"\b(verb|noun|adjective)\b[\s:=\"'`*\u2018-\u201d]{1,5}([A-Za-z][A-Za-z-]*)")
# Its theme is "sharing", topic: "the sea", style "mystery"
QUOTED = re.compile(r"\b(theme|topic|style)\b(?:\s+is)?[\s:=]*[\"\u201c]([^\"\u201d{}]+)[\"\u201d]", re.IGNORECASE)
PERSONA = re.compile(r"\b[Tt]ell it the way ([^.{}]+?) would\b")
FIRST_WORD = re.compile(r"\b(?:[Bb]egin|[Ss]tart)\b[^.\"]{0,40}\bword\b[\s:]*[\"\u201c]([A-Za-z][A-Za-z'-]*)[\"\u201d]")
PARAGRAPHS = re.compile(r"\b([1-9]) paragraphs?\b")
LISTED = re.compile(r"^Story \d+: (.+)$", re.MULTILINE)
ABOUT_WRITING = set(
    """
write use tell answer read make give book letter short simple young new old
""".split()
)


def wishes_of(messages: list[dict], key: int) -> list[tuple[Wish, int]]:
    """Every story that these messages ask for, each with a key of its own, which is its seed too."""
    lines = LISTED.findall(_asked(messages))
    if len(lines) < 2:
        return [(wish_of(messages, key), key)]
    keys = [number("story", key, n) for n in range(len(lines))]
    return [(_wish(line, each), each) for line, each in zip(lines, keys, strict=True)]


def wish_of(messages: list[dict], key: int) -> Wish:
    """The wish in these messages; `key` picks what they leave open."""
    return _wish(_asked(messages), key)


def _wish(text: str, key: int) -> Wish:
    named = {kind: word.lower() for kind, word in NAMED.findall(text)}
    axis = {name.lower(): value for name, value in QUOTED.findall(text)}
    if len(named) < 3:
        named = (_of_topic(axis["topic"], key) if "topic" in axis else _mentioned(text)) | named
    picked = [named.get(kind) or _any(kind, key) for kind in ("verb", "noun", "adjective")]
    theme, style = axis.get("theme", ""), axis.get("style", "")
    low = " ".join([text.lower(), *axes.features_of(style), "moral value" if theme else ""])
    persona, first_word, paragraphs = (found.search(text) for found in (PERSONA, FIRST_WORD, PARAGRAPHS))
    return Wish(
        *picked,
        features=tuple(feature for feature in FEATURES if feature in low),
        theme=theme,
        style=style,
        persona=persona[1] if persona else "",
        first_word=first_word[1] if first_word else "",
        paragraphs=int(paragraphs[1]) if paragraphs else 0,
    )


def _of_topic(topic: str, key: int) -> dict[str, str]:
    nouns = axes.nouns_of(topic)
    return {"noun": nouns[number("topic", key) % len(nouns)]} if nouns else {}


def _asked(messages: list[dict]) -> str:
    return " ".join(_text(message) for message in messages if message.get("role") == "user")


def _text(message: dict) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if isinstance(part, dict))


def _mentioned(text: str) -> dict[str, str]:
    """The first verb, noun and adjective of our lists that a free prompt mentions."""
    found: dict[str, str] = {}
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in ABOUT_WRITING:
            continue
        for kind in ("noun", "verb", "adjective"):  # "play" is a verb here, but "fish" first of all a fish
            if word in words.known(kind):
                found.setdefault(kind, word)
                break
    return found


def _any(kind: str, key: int) -> str:
    choices = words.listed(f"{kind}s")
    return choices[number(kind, key) % len(choices)]
