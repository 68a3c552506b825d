"""Scoring: the loss of whole stories, and how much of a text was copied.

In:   a network and stories as ids; texts, and the training stories to hold them against
Out:  nats per story; the share of a text that stands word for word in the training stories
Relies on lib/model/network.py's `nats_per_target`, the same sum that the training loop's validation uses.

Letters: B stories, T positions.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from lib.model.network import IGNORE, Llama, nats_per_target
from lib.text.words import words

BATCH_TOKENS = 8192  # positions in one forward pass; 32,768 were no faster on two cores and hold 4 × the logits
WIDE = 512  # from this width on, a product for one token is worth sharing
SHINGLE = 8  # words in a row: long enough that "once upon a time there was a little" is the only common one
PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class StoryLoss:
    """One story's loss. Of a story longer than a row, `tokens` and `bytes` are those of the part that was scored."""

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@contextmanager
def threads_for_sampling(model: Llama) -> Iterator[None]:
    """One thread while a small model samples, token by token, from matrices too small to share.

    6,785 tokens of a model of width 32 on a busy machine: 0.5 s of processor time with one thread, 12.2 s with two,
    nearly all of it spent waiting for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if model.shape.d_model < WIDE else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def story_losses(
    model: Llama, stories: Sequence[Sequence[int]], text_bytes: Sequence[int], contexts: Sequence[int] | None = None
) -> list[StoryLoss]:
    """The loss of each `… [BOS] story [EOS]`, in order: EOS is scored, the first `contexts` ids (1: BOS) are not.

    A story of more than max_length + 1 ids is cut there as the training loop cuts it, its bytes in
    proportion to the tokens scored.
    """
    given = list(contexts) if contexts else [1] * len(stories)
    longest = model.shape.max_length + 1
    cut = [ids[:longest] for ids in stories]
    out: list[StoryLoss | None] = [None] * len(cut)
    for batch in _batches([len(ids) for ids in cut]):
        for i, nats in zip(batch, _nats(model, [cut[i] for i in batch], [given[i] for i in batch]), strict=True):
            tokens = max(len(cut[i]) - given[i], 0)
            out[i] = StoryLoss(nats, tokens, max(1, round(text_bytes[i] * tokens / (len(stories[i]) - given[i]))))
    return [each for each in out if each is not None]


def _batches(lengths: list[int]) -> Iterable[list[int]]:
    """Indices in groups of like length, at most BATCH_TOKENS positions with the padding."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * lengths[i] > BATCH_TOKENS:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _nats(model: Llama, stories: list[Sequence[int]], given: list[int]) -> list[float]:
    """Sum of nats per story; float64, so that the order of adding does not show."""
    width = max(map(len, stories)) - 1
    ids_BT = torch.zeros(len(stories), width, dtype=torch.long)
    targets_BT = torch.full_like(ids_BT, IGNORE)
    for row, ids in enumerate(stories):
        ids_BT[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets_BT[row, given[row] - 1 : len(ids) - 1] = torch.tensor(ids[given[row] :])
    # Padding stands behind the story and attention is causal: it changes nothing before it.
    return nats_per_target(logits_BTV=model(ids_BT), targets_BT=targets_BT).double().sum(1).tolist()


@dataclass
class Shelf:
    """Texts waiting to be compared with the training stories, which then go by once, part by part.

    Memory grows with the texts and with the number of different words, not with the stories.
    """

    texts: Sequence[str]
    known: set[str] = field(default_factory=set)  # every word of the stories that went by
    _codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = pa.array([" ".join(words(text)) for text in self.texts], pa.string())
        hashes, self._owner = self._shingles(rows)
        self._wanted, self._place = np.unique(hashes, return_inverse=True)
        self._found = np.zeros(len(self._wanted), bool)

    def compare(self, stories: pa.ChunkedArray) -> None:
        """Mark the shingles that stand in these stories."""
        plain = pc.replace_substring(pc.utf8_lower(stories), "\u2019", "'")
        spaced = pc.replace_substring_regex(plain, r"[^a-z']+|'+([^a-z]|$)|(^|[^a-z])'+", " ")
        hashes, _ = self._shingles(spaced.combine_chunks(), learn=True)
        if len(self._wanted):
            # The stories have a hundred times the shingles of the texts: look each of theirs up in ours, sort nothing.
            at = np.searchsorted(self._wanted, hashes)
            self._found[at[self._wanted[np.minimum(at, len(self._wanted) - 1)] == hashes]] = True

    def copied(self) -> list[float | None]:
        """Per text, the share of its shingles found; None for a text of fewer than SHINGLE words."""
        total = np.bincount(self._owner, minlength=len(self.texts))
        found = np.bincount(self._owner, weights=self._found[self._place], minlength=len(self.texts))
        return [float(f / t) if t else None for f, t in zip(found, total, strict=True)]

    def _shingles(self, rows: pa.Array, learn: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """A 64-bit hash of every SHINGLE words in a row, and the row each belongs to."""
        split = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(rows))
        flat = split.flatten().dictionary_encode()
        names = flat.dictionary.to_pylist()
        if learn:
            self.known.update(names)
        codes = np.fromiter((self._code(name) for name in names), np.uint64, len(names))[flat.indices.to_numpy()]
        count = len(codes) - SHINGLE + 1
        if count < 1:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        hashes = np.zeros(count, np.uint64)
        for place in range(SHINGLE):
            hashes = hashes * PRIME + codes[place : place + count]  # wraps at 2^64, as a hash may
        owner = np.repeat(np.arange(len(rows)), pc.list_value_length(split).to_numpy(zero_copy_only=False))
        whole = owner[:count] == owner[SHINGLE - 1 :]
        return hashes[whole], owner[:count][whole]

    def _code(self, word: str) -> int:
        if word not in self._codes:
            self._codes[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return self._codes[word]
