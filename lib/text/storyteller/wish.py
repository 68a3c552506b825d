"""What a chat request asks for, read from its messages.

In:   chat messages; our own prompts (lib/text/prompts.py) or somebody else's
Out:  a Wish: verb, noun, adjective, features; words that are not named are taken from the text or from our lists
"""
# ruff: noqa: SIM905 - words in a string read better than words in quotes

import re

from lib.text.storyteller import words
from lib.text.storyteller.mischief import number
from lib.text.storyteller.story import Wish

FEATURES = ("dialogue", "plot twist", "bad ending", "moral value", "foreshadowing", "conflict")
# the verb "jump", verb: jump, the verb `jump`
NAMED = re.compile(r"\b(verb|noun|adjective)\b[\s:=\"'`*\u2018-\u201d]{1,5}([A-Za-z][A-Za-z-]*)")
ABOUT_WRITING = set(
    """
write use tell answer read make give book letter short simple young new old
""".split()
)


def wish_of(messages: list[dict], key: int) -> Wish:
    """The wish in these messages; `key` picks what they leave open."""
    text = " ".join(_text(message) for message in messages if message.get("role") == "user")
    named = {kind: word.lower() for kind, word in NAMED.findall(text)}
    if len(named) < 3:
        named = _mentioned(text) | named
    picked = [named.get(kind) or _any(kind, key) for kind in ("verb", "noun", "adjective")]
    low = text.lower()
    return Wish(*picked, tuple(feature for feature in FEATURES if feature in low))


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
