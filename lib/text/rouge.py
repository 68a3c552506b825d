"""ROUGE-L between texts, and which texts of a growing pool a new one is most like: exactly, and not pair by pair.

In:   words; texts one after the other
Out:  the F-measure as the rouge_score package computes it, to the last bit; for a new text its nearest in the pool
Relies on nothing but numpy. ROUGE-L: with L words in the longest common subsequence of texts of m and n words,
      precision L / n, recall L / m, F their harmonic mean, which is 2 L / (m + n).

How `nearest` skips nearly all pairs and misses none: (1) F of at least f needs at least f (m + n) / 2 words in common,
counted with repeats, and so, as n is at least that number, f m / (2 - f) of the m: a text that holds none of the
m - ceil(f m / (2 - f)) + 1 words that are rarest in the pool cannot reach f. Only those words' lists are read, and what
they leave possible is bounded again with both lengths. (2) What is left is scored, many texts at once: one step a word
on whole machine words (Hyyro, "Bit-parallel LCS-length computation revisited", 2004). (3) f starts high; where too few
texts reach it, it sinks to what the last of them reached, and that round is the last.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

WORD = re.compile("[a-z0-9]+")
FIRST_FLOOR = 0.7  # Self-Instruct's threshold (arXiv 2212.10560): what is above it must be found in any case
STEP = 0.35  # how far the floor sinks where too few texts were found to tell
BLOCK = 63  # bits of a machine word that carry; the last one takes the carry
FULL = (1 << BLOCK) - 1
ROUNDING = 1e-9
Nearest = list[tuple[int, float]]


def words_of(text: str) -> list[str]:
    """Lower case, and nothing but a to z and digits: rouge_score's tokens without its stemmer."""
    return WORD.findall(text.lower())


class Pool:
    """Texts as word lists, numbered as they come."""

    def __init__(self, texts: Iterable[Sequence[str]] = ()) -> None:
        self._codes: dict[str, int] = {}
        self._holders: dict[tuple[str, int], array] = {}  # texts that hold a word at least so often
        self._flat = array("i")  # the codes of all texts, one after the other
        self._starts, self._lengths = array("q"), array("i")
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, words: Sequence[str]) -> int:
        """One text more; gives its number."""
        number = len(self)
        for token in _tokens(words):
            self._holders.setdefault(token, array("i")).append(number)
        self._starts.append(len(self._flat))
        self._lengths.append(len(words))
        self._flat.extend([self._codes.setdefault(word, len(self._codes)) for word in words])
        return number

    def nearest(self, words: Sequence[str], most: int = 10, least: float = 0.0) -> Nearest:
        """The `most` texts of highest F, best first and the earlier of equals first; none below `least`, none at 0."""
        floor = max(least, FIRST_FLOOR)
        while True:
            rows = self._possible(words, floor)
            scores = self.scores(words, rows)
            order = np.lexsort((rows, -scores))[:most]
            last = float(scores[order[-1]]) if len(order) == most else 0.0
            if last >= floor or floor <= least:
                found = zip(rows[order].tolist(), scores[order].tolist(), strict=True)
                return [(row, score) for row, score in found if score >= max(least, ROUNDING)]
            floor = max(least, last or floor - STEP)

    def scores(self, words: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """F with each of these texts, rounded as rouge_score rounds it."""
        lengths = np.frombuffer(self._lengths, np.int32)[rows] if len(rows) else np.zeros(0, np.int32)
        common = self._common(words, rows, lengths)
        with np.errstate(invalid="ignore"):
            precision, recall = common / lengths, common / len(words) if words else common
            f = 2 * precision * recall / (precision + recall)
        return np.where(common > 0, f, 0.0)

    def mean(self, words: Sequence[str]) -> float:
        """The mean F with every text of the pool: all are scored."""
        return float(self.scores(words, np.arange(len(self))).mean()) if len(self) else 0.0

    def _possible(self, words: Sequence[str], floor: float) -> np.ndarray:
        """The texts whose F may reach `floor`, ascending: every one that does is among them."""
        lists = sorted((self._holders.get(token, ()) for token in _tokens(words)), key=len)
        least = max(1, ceil(floor * len(words) / (2 - floor) - ROUNDING))
        read = lists[: len(words) - least + 1]
        filled = [np.frombuffer(each, np.int32) for each in read if len(each)]
        if not filled:
            return np.zeros(0, np.int64)
        held = np.sort(np.concatenate(filled))
        firsts = np.flatnonzero(np.concatenate([[True], held[1:] != held[:-1]]))
        rows, common = held[firsts], np.diff(firsts, append=len(held))
        lengths = np.frombuffer(self._lengths, np.int32)[rows]
        bound = common + np.minimum(len(lists) - len(read), lengths - common)
        return rows[bound >= floor * (lengths + len(words)) / 2 - ROUNDING].astype(np.int64)

    def _common(self, words: Sequence[str], rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The length of the longest common subsequence with each of these texts."""
        if not len(rows) or not words:
            return np.zeros(len(rows), np.int64)
        order = np.argsort(-lengths, kind="stable")
        starts = np.frombuffer(self._starts, np.int64)[rows[order]]
        flat = np.frombuffer(self._flat, np.int32)
        longest_first = -lengths[order]
        # Texts in order of length: at word j only the first `count` of them still have one.
        counts = np.searchsorted(longest_first, -np.arange(-longest_first[0]))
        blocks = [words[at : at + BLOCK] for at in range(0, len(words), BLOCK)]
        states = [np.full(len(rows), FULL, np.int64) for _ in blocks]
        masks = [self._masks_of(block) for block in blocks]
        for j, count in enumerate(counts):
            codes = flat[starts[:count] + j]
            carry = 0
            for state, mask in zip(states, masks, strict=True):
                seen, here = state[:count], mask[codes]
                sums = (seen & here).view(np.uint64) + seen.view(np.uint64) + carry
                carry = sums >> np.uint64(BLOCK)
                state[:count] = (sums & np.uint64(FULL)).view(np.int64) | (seen & ~here)
        zeros = sum(
            len(block) - np.bitwise_count(state & ((1 << len(block)) - 1))
            for block, state in zip(blocks, states, strict=True)
        )
        common = np.empty(len(rows), np.int64)
        common[order] = zeros
        return common

    def _masks_of(self, block: Sequence[str]) -> np.ndarray:
        """For every word of the pool, at which places of `block` it stands."""
        masks = np.zeros(len(self._codes), np.int64)
        for place, word in enumerate(block):
            if (code := self._codes.get(word)) is not None:
                masks[code] |= 1 << place
        return masks


def _tokens(words: Sequence[str]) -> list[tuple[str, int]]:
    """Words that are told apart by how often they came before: ("the", 0), ("cat", 0), ("the", 1)."""
    seen: Counter[str] = Counter()
    tokens = []
    for word in words:
        tokens.append((word, seen[word]))
        seen[word] += 1
    return tokens
