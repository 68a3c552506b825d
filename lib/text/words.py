"""Words that carry meaning: what a summary asks for, and how much of it a story tells.

In:   text
Out:  lower-case content words, their stems, and the share of a summary's words that a story holds
Relies on nothing but this short stop list; English only. Irregular forms (find, found) count as different words.
"""

import re

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
VOWEL = re.compile(r"[aeiouy]")
_STOP_WORDS_TEXT = (
    "a about after again all also am an and another any are as at away be because become becomes been before "
    "being both but by called can can't cannot come comes could couldn't did didn't do does doesn't doing don't done "
    "down during each ever every for from get gets getting give go goes going got had has have having he he's her "
    "here hers herself him himself his how i i'll i'm if in into is isn't it it's its itself just let let's like "
    "made make makes making many may me might more most much must my myself named no nor not now of off on once one "
    "only onto or other our ours out over own said same say says she she's should so some someone something "
    "stories story such take takes than that that's the their theirs them themselves then there there's these "
    "they they're thing things this those through time to together too under until up upon us very was wasn't way "
    "we we're were what when where which while who whom whose why will with won't would wouldn't write yet you "
    "you're your yours yourself "
)
STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


def words(text: str) -> list[str]:
    """Every word in lower case, straight or curly apostrophes inside kept as straight ones."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def content_words(text: str) -> list[str]:
    """The words that carry meaning, in order, with repeats: no stop words, no single letters, no possessive 's."""
    kept = (word for word in words(text) if word not in STOP_WORDS)
    return [word for word in (word.removesuffix("'s") for word in kept) if len(word) > 1 and word not in STOP_WORDS]


def stem(word: str) -> str:
    """One form for plural, past and -ing forms: cats, boxes, cried, running, baked -> cat, box, cri, run, bak."""
    if word.endswith("ied") and len(word) > 4:
        return word[:-2]
    bare = _without_ending(word)
    if len(bare) > 3 and bare != word and bare[-1] == bare[-2] and bare[-1] not in "lsz":
        bare = bare[:-1]  # running -> runn -> run, but calling -> call
    if len(bare) > 2 and bare[-1] == "y" and bare[-2] not in "aeiou":
        return bare[:-1] + "i"  # cry and cried meet at cri
    return bare[:-1] if len(bare) > 3 and bare.endswith("e") else bare


def _without_ending(word: str) -> str:
    for suffix in ("ing", "ed"):
        bare = word.removesuffix(suffix)
        if bare != word and len(bare) > 2 and VOWEL.search(bare):
            return bare
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def follows(summary: str, story: str) -> float:
    """The share, 0 to 1, of the summary's different content words that the story holds in some form.

    0.0 for a summary that asks for nothing: nothing was asked, so nothing was followed.
    """
    asked = {stem(word) for word in content_words(summary)}
    if not asked:
        return 0.0
    told = {stem(word) for word in content_words(story)}
    return len(asked & told) / len(asked)
