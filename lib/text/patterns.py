"""What no story may hold, as patterns: special tokens, leftovers of templates, an assistant's talk, personal data.

In:   a string column, patterns by name
Out:  by name, the rows in which a pattern stands, with what it found there
Relies on patterns written in the common subset of RE2 and Python's `re`: no look-around, flags inside groups. RE2 reads
the whole column once for all of them (1.2 ns a byte, however many there are); Python reads the few rows that it found.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

MAX_DETAIL = 80  # characters of what was found

SPECIAL_TOKEN = (
    r"(?i:<\|[\w ]{1,40}\|>|</?s>|<(?:unk|pad|bos|eos|sep|cls|mask|endoftext|start_of_turn|end_of_turn)>"
    r"|<0x[0-9a-f]{2}>|\[/?INST\]|\[(?:unk|pad|bos|eos|sep|cls|mask)\]|<</?SYS>>"
    r"|#{2,3} ?(?:instruction|response|input|human|assistant|user)\b)"
)

_LABEL = (
    r"(?:(?:possible|short|sample|example|new|your|my) )?(?:story|summary|title|features?|words?|word count|verb|noun"
    r"|adjective|random sentence|prompt|instructions?|paragraph|response|input|output"
    r"|moral value|plot twist|bad ending|foreshadowing|dialogue|conflict)(?: \d{1,2})?"
)
_BLANK_TO_FILL = r"insert|your|name|child|character|hero|friend|animal|noun|verb|adjective|place|object|toy"
TEMPLATE = (
    # A label at the start of a line, or one of the plain ones after a sentence. "Moral:" and "Narrator:" are told.
    rf"(?:\A|\n)[^\w\n]{{0,3}}(?i:{_LABEL})[*]{{0,2}} ?:"
    r"|[.!?\"] (?:Possible story|Story|Summary|Features|Random sentence|Word count|Prompt):"
    rf"|\[(?i:{_BLANK_TO_FILL})\b[^\]\n]{{0,40}}\]|\{{[A-Za-z_][\w ]{{0,30}}\}}"
    rf"|<(?i:story|summary|{_BLANK_TO_FILL})(?: [\w ]{{1,30}})?>|_{{3,}}"
    r"|\((?i:about |approximately |word count:? )?\d{2,4} words\)"
    r"|\b(?i:only uses? very simple words|the story should (?:use|have|include|contain|be)|year old child would)\b"
)

DECLINED = (  # an assistant speaks, at the start and without quotes: the people of a story may be sorry
    r"\A(?:I(?:'m| am) (?:really |so |very )?sorry|Sorry|I apologi[sz]e|Unfortunately)[,.]? (?:but )?I"
    r"(?: can(?:no|')t| am unable|'m unable| am not able|'m not able| won't| will not)\b"
    r"|\AI (?:can(?:no|')t|am unable to|am not able to|won't) (?:assist|help (?:you )?with|fulfil|provide|generate"
    r"|comply|continue with|(?:create|write) (?:a|the|this|that)\b)"
)
REFUSAL = (
    DECLINED + r"|\b[Aa]s an? (?:AI|artificial intelligence|large language|language model)\b"
    # A robot may be an AI model of a train, and Tim may say: sure, here is the thing.
    r"|\bI(?:'m| am) (?:just )?an? (?:AI|(?:AI |large )?language) (?:model|assistant)"
    r"(?:[,.;]| and I\b| (?:that|trained|developed|created|designed|programmed)\b)"
    r"|\A(?:Sure|Certainly|Of course|Absolutely|Okay|OK)[,!.]? (?:[Hh]ere(?:'s| is) "
    r"(?:(?:[\w'-]+ ){1,6}(?:story|tale)\b|[^.!?\n]{0,60}:\n)|I(?:'d| would) be (?:happy|glad|delighted) to\b"
    r"|I(?:'ll| can| will) (?:write|create|generate|help you with)\b)"
    # A teller may begin so, too: "Here is a story that is good to hear."
    r"|\AHere(?:'s| is) (?:a|an|the|your|my) (?:[\w-]+ ){0,4}(?:story|tale)\b(?:[^.!?\n]{0,60}:?\n|[^.!?\n]{0,60}:"
    r"| (?:about|for you|using|based on|with the (?:words?|verb)|that (?:uses|includes|contains|features|meets))\b)"
    r"|\bI hope you (?:enjoy|enjoyed|like|liked) (?:this|the) (?:short )?story\b"
    r"|\b[Ll]et me know if you(?:'d| would) like\b"
)

PERSONAL_DATA = (
    r"[\w.+-]+@[\w-]+(?:\.\w+)+|\b\w+ at \w+ dot (?:com|org|net|edu|gov|io)\b"
    r"|https?://\S+|\bwww\.\w\S*|\b[\w-]{2,}\.(?:com|org|net|edu|gov|io|co\.uk)\b"
    r"|(?:\+\d{1,3}[ .-]?)?\(?\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b|\b\d{3}-\d{4}\b|\+\d{1,3}[ .-]?\(?\d[\d .()-]{6,20}\d"
    r"|\b[2-9]\d\d[1-9]\d{6}\b"  # ten digits in a row, but neither 1000000000 nor 2000000000
)

PATTERNS = {
    "special_token": SPECIAL_TOKEN,
    "template": TEMPLATE,
    "refusal": REFUSAL,
    "personal_data": PERSONAL_DATA,
}


def any_word(words: tuple[str, ...]) -> str:
    """The pattern of these whole words in any case."""
    return rf"\b(?i:{'|'.join(map(re.escape, words))})\b"


def find(texts: pa.Array, patterns: Mapping[str, str]) -> dict[str, dict[int, str]]:
    """By pattern, row -> what stands there."""
    found: dict[str, dict[int, str]] = {name: {} for name in patterns}
    suspects = pc.indices_nonzero(pc.match_substring_regex(texts, "|".join(patterns.values())))
    for row in suspects.to_pylist():
        text = texts[row].as_py()
        for name, pattern in patterns.items():
            if match := _compiled(pattern).search(text):
                found[name][row] = match[0].strip()[:MAX_DETAIL]
    return found


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern:
    return re.compile(pattern, re.ASCII)  # as in RE2: \w, \d and \b know ASCII only
