"""Text to measure on: Markov stories of any number over a small corpus, soiled and with near copies planted.

In:   how many stories, a seed; a .jsonl of real stories to imitate (TinyStories), or none: the built-in storyteller's
Out:  lists of stories, the same for the same arguments

An order-2 word chain keeps vocabulary and three-word statistics of its source, and never runs out.
"""

import json
import random
from collections import defaultdict
from functools import cache
from pathlib import Path

STORYTELLER_STORIES = 3000


def source(path: str | None) -> list[str]:
    """The stories to imitate."""
    if path:
        with Path(path).open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines]
    from lib.text.storyteller.story import tell
    from lib.text.storyteller.wish import wish_of

    def story(n: int) -> str:
        return tell(wish_of([], n), n).story

    return [story(n) for n in range(STORYTELLER_STORIES)]


@cache
def _chain(path: str | None) -> tuple[list[tuple[str, str]], dict[tuple[str, str], list[str]]]:
    starts, follows = [], defaultdict(list)
    for text in source(path):
        words = text.replace("\n", " \n ").split(" ")
        words = [word for word in words if word]
        if len(words) < 20:
            continue
        starts.append((words[0], words[1]))
        for first, second, third in zip(words, words[1:], [*words[2:], ""], strict=False):
            follows[first, second].append(third)
    return starts, dict(follows)


def markov(count: int, seed: int = 0, path: str | None = None, words: int = 200) -> list[str]:
    """`count` stories of some `words` words."""
    starts, follows = _chain(path)
    made = []
    for n in range(count):
        dice = random.Random(f"{seed}/{n}")
        told = list(dice.choice(starts))
        length = dice.randrange(words // 2, words * 3 // 2)
        while len(told) < length:
            following = follows.get((told[-2], told[-1])) or ()
            word = dice.choice(following) if following else ""
            told += [word] if word else dice.choice(starts)
        text = " ".join(told).replace(" \n ", "\n").replace(" \n", "\n").replace("\n ", "\n").strip().rstrip(".,!?")
        made.append(text + ".")
    return made


def with_copies(stories: list[str], share: float = 0.12, most_edits: int = 12, seed: int = 11) -> list[str]:
    """The same number of stories, of which `share` are earlier ones with up to `most_edits` words exchanged."""
    dice, out = random.Random(seed), list(stories)
    for n in sorted(dice.sample(range(len(out) // 10, len(out)), int(share * len(out)))):
        words = out[dice.randrange(n)].split(" ")
        for _ in range(dice.randrange(most_edits + 1)):
            words[dice.randrange(len(words))] = dice.choice(words)
        out[n] = " ".join(words)
    return out


def soiled(stories: list[str], seed: int = 7) -> list[str]:
    """8 % of the stories spoilt: mojibake, curly quotes, foreign letters, too short, odd blanks, loose accents."""
    dice, out = random.Random(seed), []
    for text in stories:
        kind = dice.random()
        if kind < 0.02:
            text = text.replace(",", "\u00e2\u20ac\u2122s", 1) + " \u00e2\u20ac\u0153Hello\u00e2\u20ac\u009d."
        elif kind < 0.04:
            text = text.replace('"', "\u201c").replace("'", "\u2019") + " \u201cHello.\u201d"
        elif kind < 0.045:
            text += " \u4f60\u597d."
        elif kind < 0.05:
            text = " ".join(text.split(" ")[:9]) + "."
        elif kind < 0.07:
            text = "  " + text.replace(". ", ".  ", 3) + "\n\n\n"
        elif kind < 0.08:
            text += " cafe\u0301."
        out.append(text)
    return out
