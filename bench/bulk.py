"""Millions of stories in a minute: the word chain of bench/texts.py, walked by ten thousand stories at once.

In:   how many stories, a seed, a .jsonl of real stories to imitate or none (the built-in storyteller's)
Out:  Arrow arrays of 10,000 stories, the same for the same arguments; `share` of them are copies of one among the
      thousand before, with up to `most_edits` words exchanged
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.texts import source

AT_ONCE = 10_000
SENTENCES = 400  # of the repetitive text's pool


def chained(count: int, seed: int = 0, path: str | None = None, words: int = 200, share: float = 0.12) -> Iterator:
    """Stories of some `words` words with the three-word statistics of their source."""
    starts, firsts, follows, seconds, vocabulary = _chain(path)
    for n in range(0, count, AT_ONCE):
        dice = np.random.default_rng([seed, n])
        size = min(AT_ONCE, count - n)
        lengths = dice.integers(words // 2, words * 3 // 2, size)
        told = np.empty((size, words * 3 // 2), np.int64)
        state = dice.choice(starts, size)
        for at in range(told.shape[1]):
            told[:, at] = seconds[state]
            room = firsts[state + 1] - firsts[state]
            onward = firsts[state] + (dice.random(size) * room).astype(np.int64)
            state = np.where(room > 0, follows[np.minimum(onward, len(follows) - 1)], dice.choice(starts, size))
        yield _texts(told, _with_copies(told, lengths, share, dice), vocabulary)


def repetitive(count: int, seed: int = 0, path: str | None = None, share: float = 0.12) -> Iterator:
    """Stories of ten sentences out of four hundred: nearly every shingle is in thousands of stories."""
    sentences = [each.strip() for text in source(path)[:500] for each in text.split(".")]
    pool = [each for each in dict.fromkeys(sentences) if len(each.split()) > 8][:SENTENCES]
    vocabulary = pa.array([each + "." for each in pool])
    for n in range(0, count, AT_ONCE):
        dice = np.random.default_rng([seed, n, 1])
        size = min(AT_ONCE, count - n)
        told, lengths = dice.integers(0, len(pool), (size, 20)), dice.integers(8, 21, size)
        yield _texts(told, _with_copies(told, lengths, share, dice, most_edits=2), vocabulary)


def _with_copies(told: np.ndarray, lengths: np.ndarray, share: float, dice, most_edits: int = 12) -> np.ndarray:
    """Plants the copies in `told`; the lengths, copied too."""
    for row in np.flatnonzero(dice.random(len(told)) < share):
        if row:
            other = dice.integers(max(0, row - 1000), row)
            told[row], lengths[row] = told[other], lengths[other]
            edits = dice.integers(0, most_edits + 1)
            told[row, dice.integers(0, lengths[row], edits)] = told[row, dice.integers(0, lengths[row], edits)]
    return lengths


def _texts(told: np.ndarray, lengths: np.ndarray, vocabulary: pa.Array) -> pa.Array:
    flat = told[np.arange(told.shape[1]) < lengths[:, None]]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), vocabulary.take(pa.array(flat))), " ")


@cache
def _chain(path: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, pa.Array]:
    """Pairs of words are states: those that start, where each one's followers stand, followers, second words, words."""
    texts = [text.split() for text in source(path)]
    words = pa.array([word for text in texts for word in text]).dictionary_encode()
    ids = words.indices.to_numpy().astype(np.int64)
    ends = np.cumsum([len(text) for text in texts])
    inner = np.setdiff1d(np.arange(len(ids) - 1), ends - 1)  # a pair starts here
    pairs = (ids[inner] << 32) | ids[inner + 1]
    states, numbers = np.unique(pairs, return_inverse=True)
    onward = np.flatnonzero(np.diff(inner) == 1)  # the pair at inner[k] is followed by the one at inner[k + 1]
    order = np.argsort(numbers[onward], kind="stable")
    firsts = np.searchsorted(numbers[onward][order], np.arange(len(states) + 1))
    starts = numbers[np.searchsorted(inner, np.concatenate([[0], ends[:-1]]))]
    return starts, firsts, numbers[onward + 1][order], states & 0xFFFFFFFF, words.dictionary
