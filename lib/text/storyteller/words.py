"""Words and their forms: what stands in data/words, and rules for what does not.

In:   a word, in the list or any other
Out:  the verb with past form and a phrase, the noun with class and phrase, the adjective with what it describes
Relies on: data/words/{verbs,nouns,adjectives}.txt, one entry a line, `#` for comments
"""
# ruff: noqa: SIM905 - words in a string read better than words in quotes

import functools
from dataclasses import dataclass
from pathlib import Path

from lib.text.storyteller.cast import RARE

FOLDER = Path(__file__).parents[3] / "data" / "words"
VOWELS = "aeiou"
# Irregular verbs that are not in our list but that somebody else's prompt is likely to ask for.
IRREGULAR = dict(
    pair.split(":")
    for pair in """
awake:awoke be:was become:became begin:began bet:bet bind:bound bleed:bled breed:bred burst:burst cling:clung
come:came cost:cost creep:crept deal:dealt do:did feel:felt flee:fled forgive:forgave get:got go:went
grind:ground have:had hit:hit kneel:knelt lay:laid leave:left lend:lent let:let mean:meant pay:paid put:put
quit:quit rise:rose say:said seek:sought set:set shoot:shot shrink:shrank shut:shut spend:spent split:split
steal:stole stick:stuck sting:stung strike:struck swear:swore take:took weep:wept wind:wound
""".split()
)
SILENT_H = ("hour", "honest", "heir", "honor")
YOU_SOUND = ("uni", "use", "usu", "euro", "one", "once", "ukulele")
NOT_YOU = ("unim", "unin", "unint")  # "unimportant", "uninvited" begin as "under" does
ABSTRACT = ("ness", "ity", "tion", "ship", "dom", "hood", "ance", "ence")


@dataclass(frozen=True)
class Verb:
    base: str
    past: str
    kind: str  # "h" something one may love to do, "m" a mishap, "u" unknown
    rest: str  # "over the puddles"


@dataclass(frozen=True)
class Noun:
    word: str
    kind: str  # thing, animal, person, place
    phrase: str  # "jar of honey"


def entries(path: Path) -> list[list[str]]:
    """The lines of a word list, split at spaces, without comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


@functools.cache
def _list(name: str) -> dict[str, list[str]]:
    return {entry[0]: entry for entry in entries(FOLDER / f"{name}.txt")}


@functools.cache
def listed(name: str) -> tuple[str, ...]:
    """The words of one of our lists, in order."""
    return tuple(_list(name))


@functools.lru_cache(maxsize=4096)
def verb(word: str) -> Verb:
    entry = _list("verbs").get(word)
    if entry is None:
        return Verb(word, past(word), "u", "")
    return Verb(entry[0], entry[1], entry[2], " ".join(entry[3:]))


@functools.lru_cache(maxsize=4096)
def noun(word: str) -> Noun:
    entry = _list("nouns").get(word)
    if entry is not None:
        return Noun(word, entry[1], " ".join(entry[2:]) or word)
    if word in RARE:
        return Noun(word, RARE[word], word)
    if word.endswith(ABSTRACT):
        return Noun(word, "thing", f"book about {word}")  # nobody can lose a kindness
    if word.endswith("s") and not word.endswith(("ss", "us")):
        return Noun(word, "thing", f"box of {word}")  # "a scissors" is wrong, "a box of scissors" only odd
    return Noun(word, "thing", word)


def adjective_kind(word: str) -> str:
    """hero, thing or day; what we do not know describes the thing, where any adjective can stand."""
    entry = _list("adjectives").get(word)
    return entry[1] if entry else "thing"


def past(word: str) -> str:
    """The past form of a verb that our list does not have."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("e"):
        return word + "d"
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return word[:-1] + "ied"
    short = len(word) > 2 and word[-1] not in VOWELS + "wxy" and word[-2] in VOWELS and word[-3] not in VOWELS
    if short and sum(letter in VOWELS for letter in word) == 1:
        return word + word[-1] + "ed"  # chop, chopped; but visit, visited
    return word + "ed"


def third(word: str) -> str:
    """jump -> jumps, carry -> carries, watch -> watches."""
    if word in ("be", "have"):
        return {"be": "is", "have": "has"}[word]
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


def with_article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it, by sound."""
    low = phrase.lower()
    if low.startswith(SILENT_H):
        return f"an {phrase}"
    if low.startswith(YOU_SOUND) and not low.startswith(NOT_YOU):
        return f"a {phrase}"
    return f"{'an' if low[:1] in VOWELS else 'a'} {phrase}"


@functools.cache
def known(kind: str) -> frozenset[str]:
    """Every word of this kind that we know something of."""
    return frozenset(_list(f"{kind}s")) | (frozenset(RARE) if kind == "noun" else frozenset())
