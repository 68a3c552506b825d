"""Coverage: how well the training stories cover what somebody wants to ask for.

In:   a DuckDB connection with the view `stories` (story_id, text, summary, split), and a question such as
      "a boy crossing a bridge with a troll under it"
Out:  Coverage: stories per content word, jointly, pieces per word, the nearest stories; each word and the whole
      labelled covered, thin or absent
Reads only; imports neither torch nor Prefect. Words are compared by stem (lib/text/words.py), so "crossed" counts for
"crossing"; "bridge" and "drawbridge" are different words.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from lib.errors import UserError
from lib.store import newest
from lib.text.tokenizer import Tokenizer
from lib.text.words import content_words, stem

# A word is covered from 20 stories, or 0.1 % of them where that is more; thin from one.
# TinyStories' own rarest asked words (some 1,500 of them over 2.1M stories) stand in about 0.1 % of its stories.
COVERED_STORIES = 20
COVERED_SHARE = 0.001
# All words in one story: 3 such stories show the idea more than once. Every word covered but never together is thin.
COVERED_TOGETHER = 3
NUM_NEAREST = 3


@dataclass(frozen=True)
class Word:
    """One content word of the question."""

    word: str
    stories: int  # training stories that hold it in some form
    forms: tuple[str, ...]  # the forms found, the commonest first
    pieces: tuple[str, ...] | None  # how the tokenizer spells it after a blank; None without a tokenizer
    label: str


@dataclass(frozen=True)
class Near:
    """A story that shares words with the question; `weight` is the share of the question's rarity that it holds."""

    story_id: str
    words: tuple[str, ...]
    weight: float
    text: str


@dataclass(frozen=True)
class Coverage:
    """What was found. `at_least[k]`: stories that hold at least k of the words."""

    question: str
    stories: int
    words: tuple[Word, ...]
    at_least: tuple[int, ...]
    nearest: tuple[Near, ...]
    threshold: int  # stories from which a word counts as covered
    label: str

    @property
    def together(self) -> int:
        """Stories that hold every word."""
        return self.at_least[-1]


def coverage(
    con: duckdb.DuckDBPyConnection, question: str, spell: Callable[[str], Sequence[str]] | None = None
) -> Coverage:
    """Count the training stories behind a question. `spell(word)` gives pieces: the newest tokenizer's if not given.

    Raises UserError for a question without content words, and where there are no training stories yet.
    """
    stems = {stem(word): word for word in reversed(content_words(question))}
    stems = dict(reversed(stems.items()))  # in the question's order, the first form of each
    if not stems:
        raise UserError(f"found no word that carries meaning in {question!r}; ask like: a boy crossing a bridge")
    total = con.execute("select count(*) from stories where split = 'train'").fetchall()[0][0]
    if not total:
        raise UserError("found no training stories; make some first: storymill run")
    held, forms = _held(con, stems)
    counts = Counter(each for words in held.values() for each in words)
    threshold = max(COVERED_STORIES, math.ceil(COVERED_SHARE * total))
    spell = spell or _newest_spelling()
    words = tuple(
        Word(
            word=word,
            stories=counts[root],
            forms=tuple(form for form, _ in forms[root].most_common(4)),
            pieces=tuple(spell(word)) if spell else None,
            label=_label(counts[root], threshold),
        )
        for root, word in stems.items()
    )
    at_least = tuple(sum(len(each) >= k for each in held.values()) for k in range(1, len(stems) + 1))
    nearest = _nearest(con, held, counts, total, stems)
    return Coverage(question, total, words, at_least, nearest, threshold, _whole(words, at_least[-1]))


def show(found: Coverage) -> None:
    """To the terminal."""
    from lib.web.terminal import render_coverage

    render_coverage(found)


def _newest_spelling() -> Callable[[str], Sequence[str]] | None:
    """How the newest tokenizer spells a word inside a sentence; None if there is none."""
    dataset = newest("tokenizer")
    if dataset is None:
        return None
    tokenizer = Tokenizer.load(dataset.file("tokenizer.model"))
    pieces = dict(enumerate(tokenizer.pieces()["piece"].to_pylist()))
    # The dummy blank that SentencePiece puts before a text makes a lone word the same as one inside a sentence.
    return lambda word: [pieces[token] for token in tokenizer.encode(word)]


def _held(con: duckdb.DuckDBPyConnection, stems: dict[str, str]) -> tuple[dict[str, set[str]], dict[str, Counter[str]]]:
    """Which stems each training story holds, and in which forms. One pass of one regular expression over the texts.

    The expression finds a little too much (words that start alike); `stem` decides.
    """
    # cry and cried meet at the stem cri: the letter before the ending is left open there.
    starts = "|".join(sorted(root.removesuffix("i") for root in stems))
    rows = con.execute(
        "select story_id, list_distinct(regexp_extract_all(lower(text), ?)) as found from stories "
        "where split = 'train' and len(found) > 0 order by story_id",
        [rf"\b(?:{starts})[a-z]*"],
    ).fetchall()
    held: dict[str, set[str]] = {}
    forms: dict[str, Counter[str]] = {root: Counter() for root in stems}
    for story_id, found in rows:
        for form in found:
            if (root := stem(form)) in stems:
                held.setdefault(story_id, set()).add(root)
                forms[root][form] += 1
    return held, forms


def _nearest(
    con: duckdb.DuckDBPyConnection, held: dict[str, set[str]], counts: Counter[str], total: int, stems: dict[str, str]
) -> tuple[Near, ...]:
    """The stories that hold most of the question, a rare word weighing more: ln((N + 1) / (n + 1)) each."""
    rarity = {root: math.log((total + 1) / (counts[root] + 1)) + 1e-9 for root in stems}
    whole = sum(rarity.values())
    weight = {story_id: sum(rarity[root] for root in roots) / whole for story_id, roots in held.items()}
    best = sorted(weight, key=lambda story_id: (-weight[story_id], story_id))[:NUM_NEAREST]
    texts = dict(con.execute("select story_id, text from stories where list_contains(?, story_id)", [best]).fetchall())
    return tuple(
        Near(each, tuple(stems[root] for root in stems if root in held[each]), weight[each], texts[each])
        for each in best
    )


def _label(stories: int, threshold: int) -> str:
    return "covered" if stories >= threshold else "thin" if stories else "absent"


def _whole(words: tuple[Word, ...], together: int) -> str:
    """absent if a word never occurs, covered if enough stories hold all of it, thin between."""
    if any(word.label == "absent" for word in words):
        return "absent"
    return "covered" if together >= COVERED_TOGETHER and all(w.label == "covered" for w in words) else "thin"
