"""Coverage: how well the training stories cover what somebody wants to ask for.

In:   the views of lib/store (`coverage`, `stories`), and a question such as
      "a boy crossing a bridge with a troll under it"
Out:  Coverage: stories per content word, jointly, pieces per word, the nearest stories; each word and the whole
      labelled covered, thin or absent
Reads only; imports neither torch nor Prefect. Words are compared by stem (lib/text/words.py), so "crossed" counts for
"crossing"; "bridge" and "drawbridge" are different words. Counts of single words and their labels are the view's: it
sums up what was counted when the stories were split. Only which words stand together is looked up in the texts.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from lib.errors import UserError
from lib.store import newest
from lib.text.tokenizer import Tokenizer
from lib.text.words import content_words, stem

# All words in one story: 3 such stories show the idea more than once. Every word covered but never together is thin.
COVERED_TOGETHER = 3
NUM_NEAREST = 3
NUM_FORMS = 4


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
    query = "select count(*), covered_from(count(*)) from stories where split = 'train'"
    total, threshold = con.execute(query).fetchall()[0]
    if not total:
        raise UserError("found no training stories; make some first: storymill run")
    found = _counted(con, list(stems))
    spell = spell or _newest_spelling()
    words = tuple(
        Word(
            word=word,
            stories=found[root].stories if root in found else 0,
            forms=found[root].forms[:NUM_FORMS] if root in found else (),
            pieces=tuple(spell(word)) if spell else None,
            label=found[root].label if root in found else "absent",
        )
        for root, word in stems.items()
    )
    groups = _together(con, {root: each.forms for root, each in found.items()})
    at_least = tuple(sum(each.stories for each in groups if len(each.roots) >= k) for k in range(1, len(stems) + 1))
    nearest = _nearest(con, groups, {root: each.stories for root, each in found.items()}, total, stems)
    return Coverage(question, total, words, at_least, nearest, threshold, _whole(words, at_least[-1]))


def picture(found: Coverage) -> bytes:
    """Stories for each word and for all together, beside what covers them, as PNG."""
    from lib.web import plots

    counts = {word.word: word.stories for word in found.words} | {"all together": found.together}
    marks = {word.word: found.threshold for word in found.words} | {"all together": COVERED_TOGETHER}
    return plots.marked_bars(counts, marks, x="training stories; the stroke: from here on covered")


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


@dataclass(frozen=True)
class Counted:
    """One stem, as the view `coverage` has it."""

    stories: int
    label: str
    forms: tuple[str, ...]  # that stand in training stories, the commonest first


def _counted(con: duckdb.DuckDBPyConnection, stems: Sequence[str]) -> dict[str, Counted]:
    rows = con.execute(
        "select stem, stem_stories, label, list(word order by train_stories desc, word) from coverage "
        f"where stem in ({_marks(stems)}) and train_stories > 0 group by all",
        list(stems),
    ).fetchall()
    return {root: Counted(stories, label, tuple(forms)) for root, stories, label, forms in rows}


@dataclass(frozen=True)
class Group:
    """The training stories that hold exactly these of the stems: how many, and the first ones by story_id."""

    roots: frozenset[str]
    stories: int
    first: tuple[str, ...]


def _together(con: duckdb.DuckDBPyConnection, forms: Mapping[str, Sequence[str]]) -> list[Group]:
    """Which stems stand together in training stories: one pass over the texts, in which each stem is looked for."""
    if not forms:
        return []
    # The plain look for what all forms begin with spares most texts the expression. Nested like this, DuckDB makes the
    # lower case of a text once: 46,000 stories and three words take 0.11 s of one core, in one `and` each 0.29 s.
    starts = [os.path.commonprefix(list(words)) for words in forms.values()]
    patterns = [f"(?:^|[^a-z])(?:{'|'.join(words)})(?:[^a-z]|$)" for words in forms.values()]
    may = ", ".join(f"contains(told, ?) as may_{n}" for n in range(len(forms)))
    holds = ", ".join(f"case when may_{n} then regexp_matches(told, ?) else false end" for n in range(len(forms)))
    told = "select story_id, lower(text) as told from stories where split = 'train'"
    rows = con.execute(
        f"select {holds}, count(*), min(story_id, {NUM_NEAREST}) from (select *, {may} from ({told})) group by all",
        [*patterns, *starts],
    ).fetchall()
    roots = list(forms)
    return [
        Group(frozenset(root for root, held in zip(roots, row, strict=False) if held), row[-2], tuple(row[-1]))
        for row in rows
        if any(row[: len(roots)])
    ]


def _nearest(
    con: duckdb.DuckDBPyConnection, groups: list[Group], counts: Mapping[str, int], total: int, stems: dict[str, str]
) -> tuple[Near, ...]:
    """The stories that hold most of the question, a rare word weighing more: ln((N + 1) / (n + 1)) each."""
    rarity = {root: math.log((total + 1) / (counts.get(root, 0) + 1)) + 1e-9 for root in stems}
    whole = sum(rarity.values())
    weight = {each.roots: sum(rarity[root] for root in each.roots) / whole for each in groups}
    ranked = sorted((-weight[each.roots], story_id, each.roots) for each in groups for story_id in each.first)
    best = ranked[:NUM_NEAREST]
    ids = [story_id for _, story_id, _ in best]
    query = f"select story_id, text from stories where story_id in ({_marks(ids)})"
    texts = dict(con.execute(query, ids).fetchall()) if ids else {}
    return tuple(
        Near(story_id, tuple(stems[root] for root in stems if root in roots), weight[roots], texts[story_id])
        for _, story_id, roots in best
    )


def _marks(values: Sequence[str]) -> str:
    """A list of parameters: DuckDB looks only where they can be, which it does not for list_contains."""
    return ", ".join("?" * len(values))


def _whole(words: tuple[Word, ...], together: int) -> str:
    """absent if a word never occurs, covered if enough stories hold all of it, thin between."""
    if any(word.label == "absent" for word in words):
        return "absent"
    return "covered" if together >= COVERED_TOGETHER and all(w.label == "covered" for w in words) else "thin"
