"""Contamination: which training rows give a held-out text away.

In:   held-out stories with their summaries, held-out tasks, prompts; then training rows, table by table
Out:  Found: the training row, the held-out text, why, how much of it, and the longest run of words they share
Relies on lib/text/ngrams.py. Memory: some 12 KB a held-out story, whatever the number of training rows.

Any 13-word run in common (GPT-3, arXiv 2005.14165, appendix C) is no use among stories: 13 % of 9,037 real training
stories share one with 677 held-out ones ("Once upon a time, there was a little boy named Tim …"), 87 % of the built-in
storyteller's. The share of ONE held-out text that stands in ONE training row tells (as PaLM's 70 % of 8-word runs does,
arXiv 2204.02311, section 8). Found are

  copy    at least 61.5 % of the held-out text's 5-word runs stand in the training row. With 5 % of the words exchanged,
          wherever they stand, 16 of 26 are left in 30 words, and more in any other number from 20 up: each breaks five.
          Unrelated stories reach 18 % (real) and 47 % (storyteller), instructions 61 %.
  part    at least half of its 13-word runs stand there: half of it, word for word. Unrelated: 11 % and 30 %.
  run     any 13 words in a row of a prompt that was given (openings, reward prompts)
  asked   the row's instruction is such a prompt, word for word, however short; or a task's instruction and input are
          those of a held-out task, whatever either answers

Instructions made of held-out summaries are compared with those of training rows as stories are with stories. Under 20
words they say too little to tell a copy from chance ("Write a story about two friends"): that is left alone. Tasks
(rows with an `instruction`) share templates ("Classify this sentence …") and answers ("Yes."): only instruction and
input together tell them apart, and signs count there, as in 3 + 4. A long answer is compared as a story is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.text.hashing import mixed
from lib.text.ngrams import ROWS_AT_ONCE, Reader, Words, plain
from lib.text.template import ASK

RUN, SHINGLE = 13, 5  # words
COPY_SHARE, PART_SHARE = 0.615, 0.5
EXCHANGED = 0.05  # share of words that a copy may have exchanged
SHORTEST = 20  # words
POINTS = ".,;:!?\"'\u201c\u201d\u2018\u2019"
# e exchanged words leave, of the L - e others, a run of at least (L - e) / (e + 1): 13 words from L = 52, 10 from 20.
LONG, RUN_OF_SHORT = 52, 10


@dataclass(frozen=True)
class Found:
    """A training row that gives a held-out text away."""

    row: int  # its place in the table
    against: str  # val, test: a story or task; instruction: of a held-out story; reward, evaluation: a prompt
    other: int  # the place of the held-out story, or of the prompt among those of its kind
    why: str  # copy, part, run, asked
    share: float  # of the held-out text's runs
    shared: str  # the longest run of words in common


class Gate:
    """Holds what is held out, and finds it in training rows."""

    def __init__(self, held_out: pa.Table, prompts: Mapping[str, Sequence[str]]) -> None:
        """`held_out` has text, summary, instruction, input and split; `prompts` are by kind: {"reward": (...)}."""
        self._reader = Reader()
        self._held_out, self._sides = held_out, held_out["split"].to_pylist()
        self._stories = Copies(self._reader.words(held_out["text"]))
        self._instructions = Copies(self._reader.words(_instructions(held_out)))
        self._tasks: dict[str, list[int]] = {}
        for place, task in _tasks(held_out):
            self._tasks.setdefault(_as_compared(task), []).append(place)
        self._prompts = [(kind, n, text) for kind, texts in prompts.items() for n, text in enumerate(texts)]
        words = self._reader.words(pa.array([text for _, _, text in self._prompts], pa.string()))
        self._prompt_copies, self._prompt_runs = Copies(words), Runs(words)
        self._asked = {int(number): n for n, number in enumerate(words.whole()) if words.lengths[n]}

    def check(self, train: pa.Table) -> Iterator[Found]:
        """What the rows of `train` (held_out's columns but split) give away. A row may be found more than once."""
        for start in range(0, len(train), ROWS_AT_ONCE):
            for found in self._check(train.slice(start, ROWS_AT_ONCE)):
                yield Found(**(found.__dict__ | {"row": found.row + start}))

    def _check(self, train: pa.Table) -> Iterator[Found]:
        instructions = _instructions(train)
        text, instruction = self._reader.words(train["text"]), self._reader.words(instructions)
        for row, other, why, share in self._stories.found(text):
            shared = _longest_run(train["text"][row].as_py(), self._held_out["text"][other].as_py())
            yield Found(row, self._sides[other], other, why, share, shared)
        for row, other, why, share in self._instructions.found(instruction):
            shared = _longest_run(instructions[row].as_py(), ASK + self._held_out["summary"][other].as_py())
            yield Found(row, "instruction", other, why, share, shared)
        asked, tasks = instruction, instructions
        if found := dict(_tasks(train)):
            for row, task in found.items():
                for other in self._tasks.get(_as_compared(task), ()):
                    yield Found(row, self._sides[other], other, "asked", 1.0, task)
            tasks = pc.coalesce(pa.array([found.get(row) for row in range(len(train))], pa.string()), instructions)
            asked = self._reader.words(tasks)
        for words, column in ((text, train["text"]), (asked, tasks)):
            for row, prompt, why, share in self._prompt_hits(words, is_instruction=column is tasks):
                kind, other, given = self._prompts[prompt]
                yield Found(row, kind, other, why, share, _longest_run(column[row].as_py(), given))

    def _prompt_hits(self, words: Words, *, is_instruction: bool) -> Iterator["Hit"]:
        """Each (row, prompt) once, for its strongest reason."""
        hits = [*self._prompt_runs.found(words), *self._prompt_copies.found(words)]
        if is_instruction:
            whole = enumerate(words.whole().tolist())
            hits += [(row, self._asked[number], "asked", 1.0) for row, number in whole if number in self._asked]
        yield from {hit[:2]: hit for hit in hits}.values()


Hit = tuple[int, int, str, float]  # row, held-out text, why, share


class Runs:
    """Finds any 13-word run of a few prompts."""

    def __init__(self, prompts: Words) -> None:
        self._prompts = prompts
        everything = np.arange(len(prompts.lengths))
        self._index = _Index(prompts, RUN, everything, np.ones(len(everything), np.int64))

    def found(self, words: Words) -> Iterator[Hit]:
        rows, others = self._index.candidates(words)
        shares = _shares(self._prompts.take(others), words.take(rows), RUN)
        yield from ((row, other, "run", share) for row, other, share in _listed(rows, others, shares))


class Copies:
    """Finds copies and large parts of many held-out texts.

    Each text lists runs by which every copy of it is found: with e words exchanged, at least (runs - e * length of a
    run) of its runs are left. Those are looked up and counted; who has enough of them is compared in full.
    """

    def __init__(self, held_out: Words) -> None:
        self._held_out = held_out
        lengths = held_out.lengths
        self._indexes = [
            _Index(held_out, n, which, _least(lengths, n))
            for n, which in (
                (RUN, np.flatnonzero(lengths >= LONG)),
                (RUN_OF_SHORT, np.flatnonzero((lengths >= SHORTEST) & (lengths < LONG))),
            )
        ]

    def found(self, words: Words) -> Iterator[Hit]:
        for index in self._indexes:
            rows, others = index.candidates(words)
            held_out, mine = self._held_out.take(others), words.take(rows)
            copy, part = _shares(held_out, mine, SHINGLE), _shares(held_out, mine, RUN)
            is_copy = copy >= COPY_SHARE
            for why, which, shares in (("copy", is_copy, copy), ("part", ~is_copy & (part >= PART_SHARE), part)):
                for row, other, share in _listed(rows[which], others[which], shares[which]):
                    yield row, other, why, share


class _Index:
    """The n-word runs of held-out texts; finds who shares at least so many of a text's."""

    def __init__(self, held_out: Words, n: int, which: np.ndarray, least: np.ndarray) -> None:
        self._n, self._num_texts = n, len(held_out.lengths)
        # Whoever has `least` of a text's runs has least - spared of the others: the commonest are not even looked up.
        spared = (least - 1) // 2
        self._enough = least - spared
        runs, texts = _runs_to_look_up(held_out, n, which, spared)
        order = np.argsort(runs, kind="stable")
        runs, self._texts = runs[order], texts[order]
        first = np.flatnonzero(np.append(True, runs[1:] != runs[:-1])) if len(runs) else np.empty(0, np.int64)
        self._runs, self._bounds = runs[first], np.append(first, len(runs))
        # One look at a table of 4 places a run tells for 3 of 4 others that they are not among ours.
        bits = max(10, len(self._runs).bit_length() + 2)
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(1 << bits, bool)
        self._maybe[self._runs >> self._shift] = True

    def candidates(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """Rows and held-out texts, pair by pair, wherever the row has enough of the text's runs."""
        if not len(self._runs):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        runs, rows = words.ngrams(self._n)
        maybe = self._maybe[runs >> self._shift]
        runs, rows = runs[maybe], rows[maybe]
        slots = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        same = self._runs[slots] == runs
        met = np.unique(rows[same] * len(self._runs) + slots[same])  # a run that a row has twice counts once
        rows, slots = np.divmod(met, len(self._runs))
        counts = self._bounds[slots + 1] - self._bounds[slots]
        places = np.arange(counts.sum()) + np.repeat(self._bounds[slots] - (np.cumsum(counts) - counts), counts)
        pairs, shared = np.unique(np.repeat(rows, counts) * self._num_texts + self._texts[places], return_counts=True)
        pairs = pairs[shared >= self._enough[pairs % self._num_texts]]
        return pairs // self._num_texts, pairs % self._num_texts


def _least(lengths: np.ndarray, n: int) -> np.ndarray:
    """How many of a text's n-word runs stand in every copy of it, and at least in half of it."""
    exchanged = np.floor(EXCHANGED * lengths + 0.5).astype(np.int64)
    return np.maximum(1, lengths - n + 1 - n * exchanged)


def _runs_to_look_up(held_out: Words, n: int, which: np.ndarray, spared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The n-word runs of these texts, each with its text, but for the `spared` commonest ones of each."""
    kept = [(np.empty(0, np.uint64), np.empty(0, np.int32))]
    for start, block in held_out.blocks():
        runs, texts = block.ngrams(n)
        wanted = np.isin(texts + start, which)
        runs, texts = runs[wanted], texts[wanted]
        wanted = _rank_by_frequency(runs, texts) >= spared[texts + start]
        kept.append((runs[wanted], (texts[wanted] + start).astype(np.int32)))
    runs, texts = (np.concatenate(column) for column in zip(*kept, strict=True))
    return runs, texts


def _rank_by_frequency(runs: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """For each run its place among those of its text, the commonest first."""
    _, codes, counts = np.unique(runs, return_inverse=True, return_counts=True)
    order = np.lexsort((-counts[codes], texts))
    ranks = np.empty(len(runs), np.int64)
    ranks[order] = np.arange(len(runs)) - np.searchsorted(texts, texts[order])  # texts are in order already
    return ranks


def _shares(held_out: Words, words: Words, n: int) -> np.ndarray:
    """Pair by pair: of the held-out text's n-word runs, the share that stands in the other text."""
    keys, texts = zip(*(each.ngrams(n) for each in (held_out, words)), strict=True)
    of_pair = [mixed(key + text.astype(np.uint64)) for key, text in zip(keys, texts, strict=True)]
    shared = np.bincount(texts[0], weights=np.isin(*of_pair), minlength=len(held_out.lengths))
    return shared / np.maximum(held_out.lengths - n + 1, 1)


def _listed(*columns: np.ndarray) -> Iterator[tuple]:
    return zip(*(column.tolist() for column in columns), strict=True)


def _longest_run(text: str, other: str) -> str:
    """The longest run of words that two texts share, as the first spells it."""
    a, b = text.split(), other.split()
    found = SequenceMatcher(None, [plain(x) for x in a], [plain(x) for x in b], autojunk=False).find_longest_match()
    return " ".join(a[found.a : found.a + found.size])


def _tasks(table: pa.Table) -> Iterator[tuple[int, str]]:
    """The place of each task, and its instruction and input."""
    places = pc.indices_nonzero(pc.is_valid(table["instruction"]))
    tasks = table.select(["instruction", "input"]).take(places).to_pylist()
    for place, task in zip(places.to_pylist(), tasks, strict=True):
        yield place, f"{task['instruction']} {task['input'] or ''}".strip()


def _as_compared(task: str) -> str:
    """What is the same for tasks that ask the same: neither case, nor blanks, nor the points behind words count."""
    return " ".join(chunk.strip(POINTS) or chunk for chunk in task.lower().split())


def _instructions(table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """`instruction` of the summaries; null where there is none."""
    trimmed = pc.utf8_trim_whitespace(table["summary"])
    asked = pc.binary_join_element_wise(ASK, trimmed, "")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), asked)
