"""Rubric: a handful of countable checks that stand in for a judge when there is no teacher to ask.

In:   a prompt, the text that followed it, whether the model ended it by itself, the words known from training stories
Out:  Grade: grammar, creativity, consistency and plot from 0 to 10, and TinyStories' age group

It is no language model and does not understand a story: it counts. JUDGE says so in every row, and whoever shows a
grade shows JUDGE beside it. The four marks and the age groups are those that TinyStories asks GPT-4 for
(arXiv 2305.07759, §3.1); each mark here is 10 × the mean of its checks, each check a share in [0, 1].
"""

import re
from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from lib.text.words import content_words

JUDGE = "rubric-1 (offline stand-in, not a language model)"

# Upper end of "years of schooling + 5" for each of the paper's groups.
AGES = ((3.0, "A: 3 or under"), (5.0, "B: 4-5"), (7.0, "C: 6-7"), (9.0, "D: 8-9"), (12.0, "E: 10-12"))
OLDEST = "F: 13-16"

WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")
SENTENCE = re.compile(r"[^.!?]+[.!?]*[\"”’']*")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")  # a capital inside a sentence; the first word of one says nothing
TROUBLE = {
    "but",
    "problem",
    "sad",
    "scared",
    "afraid",
    "lost",
    "broke",
    "broken",
    "cried",
    "hurt",
    "angry",
    "stuck",
    "worried",
    "wanted",
    "couldn't",
    "hungry",
}
TURN = {"then", "suddenly", "so", "decided", "finally", "later", "after", "when", "saw", "found", "helped"}
CLOSE = {
    "happy",
    "together",
    "learned",
    "thanked",
    "home",
    "smiled",
    "end",
    "safe",
    "friends",
    "hugged",
    "proud",
    "ever",
}


@dataclass(frozen=True)
class Grade:
    """Marks from 0 (none of the checks holds) to 10 (all hold); `age` as in TinyStories."""

    grammar: float
    creativity: float
    consistency: float
    plot: float
    age: str


def grade(prompt: str, text: str, *, ended: bool, known: Set[str] = frozenset()) -> Grade:
    """Grade `text`, what a model wrote after `prompt`. `known`: lower-case words of the training stories.

    Without `known`, made-up words go unpunished. Empty text gets 0 for everything and the youngest age.
    """
    words = [word.lower() for word in WORD.findall(text)]
    if not words:
        return Grade(0.0, 0.0, 0.0, 0.0, AGES[0][1])
    sentences = [s.strip() for s in SENTENCE.findall(text) if s.strip(" \n\"”’'")]
    return Grade(
        grammar=_mark(_grammar(text, words, sentences, known)),
        creativity=_mark(_creativity(prompt, words, sentences)),
        consistency=_mark(_consistency(prompt, text, sentences)),
        plot=_mark(_plot(text, words, ended)),
        age=_age(words, sentences),
    )


def _grammar(text: str, words: list[str], sentences: list[str], known: Set[str]) -> list[float]:
    """Sentences start and stop, quotes close, no word stands twice or before the wrong article, words are words."""
    # Not judged: the first start (a completion may begin inside a sentence), and what follows a quote ("Hi!" said Tom).
    starts = [s.lstrip("\"“‘' ")[:1] for before, s in pairwise(sentences) if before[-1] not in "\"”’'"]
    stops = [s.rstrip("\"”’'")[-1:] for s in sentences]
    articles = [(a, b) for a, b in pairwise(words) if a in ("a", "an")]
    return [
        _share([not c.islower() for c in starts]),
        _share([c in ".!?" for c in stops]),
        1.0 if text.count('"') % 2 == 0 and text.count("“") == text.count("”") else 0.0,
        1.0 - min(1.0, 20.0 * sum(a == b for a, b in pairwise(words)) / len(words)),
        _share([(a == "an") == (b[0] in "aeiou") for a, b in articles]),
        _share([word in known or len(word) == 1 for word in words]) if known else 1.0,
    ]


def _creativity(prompt: str, words: list[str], sentences: list[str]) -> list[float]:
    """Pairs of words seldom repeat, content words vary, and the text adds to the prompt."""
    pairs = list(pairwise(words))
    content = content_words(" ".join(words))
    added = set(content) - set(content_words(prompt))
    return [
        len(set(pairs)) / len(pairs) if pairs else 0.0,
        min(1.0, len(set(content)) / max(1, len(content)) / 0.7),  # children's stories repeat: 0.7 is already rich
        min(1.0, len(added) / 25),
        min(1.0, len(sentences) / 5),
    ]


def _consistency(prompt: str, text: str, sentences: list[str]) -> list[float]:
    """What the prompt names comes back, no one new walks in near the end, no sentence is said twice."""
    asked = content_words(prompt)
    told = set(content_words(text))
    cut = len(text) * 2 // 3
    before = set(NAME.findall(prompt + " " + text[:cut])) | {w for w in WORD.findall(prompt + " " + text[:cut])}
    late = NAME.findall(text[cut:])
    bare = [" ".join(WORD.findall(s)).lower() for s in sentences]
    return [
        _share([word in told for word in asked]),
        _share([name in before for name in late]),
        len(set(bare)) / len(bare),
    ]


def _plot(text: str, words: list[str], ended: bool) -> list[float]:
    """Something is wrong, something changes, somebody speaks, it closes warmly, and the model ends it by itself."""
    tail = set(words[-len(words) // 3 :])
    return [
        1.0 if TROUBLE & set(words) else 0.0,
        1.0 if TURN & set(words) else 0.0,
        1.0 if '"' in text or "“" in text else 0.0,
        1.0 if CLOSE & tail else 0.0,
        1.0 if ended and text.rstrip().endswith((".", "!", "?", '"', "”")) else 0.0,
        min(1.0, len(words) / 60),
    ]


def _age(words: list[str], sentences: list[str]) -> str:
    """Flesch-Kincaid grade (Kincaid et al. 1975) + 5 = the age of the reader; syllables are counted as vowel groups."""
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word.removesuffix("e")))) for word in words)
    reader = 0.39 * len(words) / max(1, len(sentences)) + 11.8 * syllables / len(words) - 15.59 + 5
    return next((group for upper, group in AGES if reader <= upper), OLDEST)


def _share(checks: list[bool]) -> float:
    return sum(checks) / len(checks) if checks else 1.0


def _mark(checks: list[float]) -> float:
    return round(10 * sum(checks) / len(checks), 2)
