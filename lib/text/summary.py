"""Summaries in the one form the models are asked in: "a story about ...".

In:   a summary as its source wrote it, or a story that came without one; or columns of both
Out:  lower-case "a story about ...", without a full stop, short enough for a request
Relies on lib/text/words.py. The extractive form takes words of the story only, so a story follows its own summary.
"""

import re
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from lib.text.words import STOP_WORDS

OPENING = "a story about "
MAX_WORDS = 40
HEAD_CHARACTERS = 700  # who and what a small story is about stands in its first half
_LEAD = re.compile(
    r"^(?:write\s+)?(?:(?:this|it)\s+is\s+)?(?:an?|the|this)?\s*(?:\w+\s+)?(?:story|tale)(?:\s+is|\s+tells)?\s+(?:about|of)(?:\s+|$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SMALL_FIRST = re.compile(r"^(?:A|An|The|His|Her|Their|Two|Three|Some|One|He|She|They|It|In|On|When|There)\b")
# What `request_summary` leaves alone, for RE2: up to 40 words between single blanks, no full stop or quote at the end.
_IN_FORM = rf"""\A{OPENING}(?:\S+ ){{0,{MAX_WORDS - 1}}}\S*[^\s.!,;:"']\z"""
_BIG_FIRST = _SMALL_FIRST.pattern.replace("^", rf"\A{OPENING}", 1)
_WHO = re.compile(
    r"\b((?:an?|two|three|some)\s(?:[a-z-]+\s){0,3}?[a-z-]+),?\s(?:named|called)\s([A-Z][a-z]+(?:\sand\s[A-Z][a-z]+)?)"
    r"|\bthere (?:was|were|lived) (?:once )?((?:an?|two|three|some)\s(?:[a-z-]+\s){0,3}?[a-z-]+)"
    r"(?=[.,!?;]|\s(?:who|that|in|at|on|with|and)\b)"
)
_NAMES = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+\b(?:'s)?|^[A-Z][a-z]+(?= and [A-Z][a-z]+\b)|(?<= and )[A-Z][a-z]+\b")
_THINGS = re.compile(  # a determiner, perhaps an adjective, a word; then what can only follow a noun
    r"\b(an?|the|his|her|their|some|my|your)\s(?:[a-z-]+\s)?([a-z]{3,})"
    r"(?=[.,!?;\"\n]|\s(?:and|in|on|at|to|with|was|were|is|that|of|for|from|said)\b)"
)
_DULL_TEXT = (
    "back best big bit boy boys dad daddy day end eyes first friend friends front fun girl girls ground hand "
    "hands house kind little lot man middle mom moment mommy morning name new next night old one other rest room "
    "same side story thing things time top way whole woman world "
)
_DULL = frozenset(_DULL_TEXT.split())


def request_summaries(summaries: pa.Array, stories: pa.Array) -> pa.Array:
    """A request for every story: its summary in the one form, or the story's own who and what. No row may be null.

    Only summaries that are not in the form yet are touched: a teacher's are.
    """
    in_form = pc.match_substring_regex(summaries, _IN_FORM)
    odd = pc.or_(pc.invert(in_form), pc.match_substring_regex(summaries, _BIG_FIRST))
    pairs = zip(summaries.filter(odd).to_pylist(), stories.filter(odd).to_pylist(), strict=True)
    formed = [request_summary(summary) or extractive_summary(story) for summary, story in pairs]
    return pc.replace_with_mask(summaries, odd, pa.array(formed, summaries.type))


def request_summary(summary: str) -> str:
    """`summary` as "a story about ...": its own words, whatever it started with, at most 40 words; "" for nothing."""
    text = " ".join(summary.split()).strip("\"' ")
    text, told = _LEAD.subn("", text, count=1)
    is_sentence = not told and text[:1].isupper() and text.endswith(".") and len(text.split()) > 3
    text = _shortened(text).rstrip(".!,;: ")
    if not text:
        return ""
    if _SMALL_FIRST.match(text):
        text = text[0].lower() + text[1:]
    return f"{OPENING}how {text}" if is_sentence else OPENING + text


def _shortened(text: str) -> str:
    """The first sentences that fit into MAX_WORDS; the first one is cut where it alone is longer."""
    sentences = _SENTENCE_END.split(text)
    kept, num_words = [], 0
    for sentence in sentences:
        num_words += len(sentence.split())
        if num_words > MAX_WORDS:
            break
        kept.append(sentence)
    return " ".join(kept) if kept else " ".join(sentences[0].split()[:MAX_WORDS])


def extractive_summary(text: str) -> str:
    """A story about <who> and <what>, in the story's own words; for stories that come without a summary."""
    head = text[:HEAD_CHARACTERS]
    who = _who(head)
    taken = set(re.findall(r"[a-z]+", who.lower()))
    named = _THINGS.findall(head)
    articles = {word: article for article, word in reversed(named)}  # the one the story uses first
    counts = Counter(word for _, word in named)
    things = [word for word, _ in counts.most_common() if word not in taken | _DULL | STOP_WORDS][: 2 if who else 3]
    parts = [part for part in (who, *(_with_article(articles[thing], thing) for thing in things)) if part]
    if not parts:
        parts = [word for word in re.findall(r"[A-Za-z]{4,}", head) if word.lower() not in STOP_WORDS][:2]
    return OPENING + _joined(parts or ["something"])


def _who(head: str) -> str:
    """The hero: "a little boy named Ben", "a reliable otter", or the two names that come most often."""
    if found := _WHO.search(head[:300]):
        return f"{found[1]} named {found[2]}" if found[1] else found[3]
    names = Counter(name.removesuffix("'s") for name in _NAMES.findall(head))
    common = [name for name, _ in names.most_common() if name.lower() not in STOP_WORDS | _DULL | {"once"}]
    return " and ".join(common[:2])


def _with_article(article: str, thing: str) -> str:
    if article in ("the", "some"):
        return f"{article} {thing}"
    if thing.endswith("s") and not thing.endswith("ss"):
        return thing
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
