"""Lists of words, and how they are dealt.

In:   the name of a list in data/words, or the path of a .txt file
Out:  its entries in order; `dealt`, entry number n when the list is dealt like cards

One entry a line, `#` for comments. Of verbs, nouns, adjectives and first words a line's first word counts; of themes,
topics, styles and personas everything before the first `|`. What follows is the built-in storyteller's.
"""

import functools
import random
from pathlib import Path

from lib.errors import UserError

WORDS = Path(__file__).parents[3] / "data" / "words"
KINDS = ("verbs", "nouns", "adjectives")
PHRASES = ("themes", "topics", "styles", "personas")


def word_list(name: str, *, phrases: bool = False) -> tuple[str, ...]:
    """The entries of a list in data/words, or of a file, each once: single words, or with `phrases` several."""
    path = Path(name) if name.endswith(".txt") or "/" in name else WORDS / f"{name}.txt"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in WORDS.glob("*.txt")))
        raise UserError(f"found no word list {name!r} at {path}, expected one of {there} or the path of a .txt file")
    return _read(path, path.stat().st_mtime_ns, phrases)


@functools.lru_cache(maxsize=64)
def _read(path: Path, changed: int, phrases: bool) -> tuple[str, ...]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    entries = (" ".join(line.partition("|")[0].split()) for line in lines)
    words = tuple(dict.fromkeys(entry if phrases else entry.split()[0] for entry in entries if entry))
    if not words:
        raise UserError(f"the word list {path} holds no word, expected one a line; fill it or name another list")
    return words


def dealt(seed: int, axis: str, entries: tuple[str, ...], index: int) -> str:
    """Entry number `index` of a list dealt like cards, shuffled anew each round: none gets two ahead of another."""
    turn, place = divmod(index, len(entries))
    return entries[_shuffled(seed, axis, len(entries), turn)[place]]


@functools.lru_cache(maxsize=256)
def _shuffled(seed: int, axis: str, length: int, turn: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{seed}/{axis}/{turn}").sample(range(length), length))
