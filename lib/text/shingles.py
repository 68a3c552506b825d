"""Shingles: every run of five words of a text, as 64-bit hashes.

In:   an Arrow array of texts
Out:  the hashes of all shingles text by text, how many each text has, and a digest of each text's words in their order

What a word is: text between white space, in lower case, letters and digits only ("Don't" is dont; "well-known" is
wellknown). A text of fewer words than a shingle is one shingle; a text without words has none.

How: one `bytes.translate` lowers the case and takes the punctuation out of a megabyte of ASCII; a word of up to eight
letters then *is* its bytes, read as one integer, and longer ones are hashed eight by eight. Nothing is done word by
word in Python. Texts beyond ASCII are brought into that form first, one by one (some 30 times slower; after `clean`
there are few).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.text.hashing import BASE, INVERSE, mixed, powers

BYTES_AT_ONCE = 1 << 20  # the numbers of a megabyte of text stay in the processor's cache
NOT_IN_WORDS = re.compile(r"[^\w\s]+|_")

BLANK, TEXT_END = 0, 1  # what bytes outside words become
END_MARK = b"\xff"  # in no UTF-8 text
WORD_BYTES = [c for c in range(128) if chr(c).isalnum()]
BLANKS = [c for c in range(128) if chr(c).isspace()]
PUNCTUATION = bytes(c for c in range(128) if c not in WORD_BYTES and c not in BLANKS)
PLAIN = bytes.maketrans(
    bytes([*WORD_BYTES, *BLANKS, *END_MARK]),
    bytes([*(ord(chr(c).lower()) for c in WORD_BYTES), *(BLANK for _ in BLANKS), TEXT_END]),
)
TYPOGRAPHY = "\u201c\u201d\u2018\u2019\u2013\u2014\u2026"  # quotes, dashes, dots: what most texts beyond ASCII have
FIRST_BYTES = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)


class Shingles(NamedTuple):
    """The shingles of some texts. `hashes` may hold a hash twice for one text: a shingle that it repeats."""

    hashes: np.ndarray
    counts: np.ndarray
    digests: np.ndarray  # equal for the same words in the same order


def shingles(texts: pa.Array | pa.ChunkedArray, length: int = 5) -> Iterator[Shingles]:
    """The texts' shingles, some thousand texts at a time."""
    rows_at_once = max(1, len(texts) * BYTES_AT_ONCE // max(1, texts.nbytes))
    for start in range(0, len(texts), rows_at_once):
        some = texts.slice(start, rows_at_once)
        words, bounds = _words(some.combine_chunks() if isinstance(some, pa.ChunkedArray) else some)
        words, bounds = _padded(words, bounds, length)
        yield Shingles(*_rolled(words, bounds, length), _digests(words, bounds))


def _words(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A number for every word of every text, and where each text's words start and end."""
    data = _only_words(texts)
    marks = np.frombuffer(data, np.uint8)
    inside = marks > TEXT_END
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1  # a word starts, it ends, the next one starts, …
    starts, ends = edges[::2], edges[1::2]
    bounds = np.searchsorted(starts, np.flatnonzero(marks == TEXT_END))
    return mixed(_word_numbers(data, starts, ends - starts)), np.concatenate([[0], bounds])


def _only_words(texts: pa.Array) -> bytes:
    """Words with blanks between them, a mark behind each text; blanks before and, for reads past a word, behind all."""
    texts = pc.fill_null(texts, "").cast(pa.large_string())
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        for mark in TYPOGRAPHY:
            texts = pc.replace_substring(texts, mark, "")
        foreign = pc.invert(pc.string_is_ascii(texts))
        plain = [NOT_IN_WORDS.sub("", text.lower()).split() for text in texts.filter(foreign).to_pylist()]
        texts = pc.replace_with_mask(texts, foreign, pa.array([" ".join(words) for words in plain], pa.large_string()))
    empty, mark = (pa.scalar(each, pa.large_binary()) for each in (b"", END_MARK))
    joined = pc.binary_join_element_wise(texts.cast(pa.large_binary()), empty, mark).buffers()[2]
    return b"\0" + (joined.to_pybytes() if joined else b"").translate(PLAIN, PUNCTUATION) + b"\0" * 8


def _word_numbers(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Up to eight bytes as they are; of a longer word, each further eight mixed in."""
    eight_from = np.ndarray(len(data) - 7, "<u8", data, strides=(1,))  # the eight bytes from every place on
    numbers = eight_from[starts] & FIRST_BYTES[np.minimum(lengths, 8)]
    at, longer = 8, np.flatnonzero(lengths > 8)
    while len(longer):
        further = eight_from[starts[longer] + at] & FIRST_BYTES[np.minimum(lengths[longer] - at, 8)]
        numbers[longer] = mixed(numbers[longer]) + further
        at += 8
        longer = longer[lengths[longer] > at]
    return numbers


def _padded(words: np.ndarray, bounds: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The words with zeros behind each text of fewer than `length`, which makes one shingle of it."""
    counts = np.diff(bounds)
    missing = np.where((counts > 0) & (counts < length), length - counts, 0)
    if not missing.any():
        return words, bounds
    return np.insert(words, np.repeat(bounds[1:], missing), 0), bounds + np.concatenate([[0], np.cumsum(missing)])


def _rolled(words: np.ndarray, bounds: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every run of `length` words within a text, and how many each text has."""
    counts = np.maximum(np.diff(bounds) - length + 1, 0)
    runs = max(0, len(words) - length + 1)
    hashes = words[:runs].copy()
    within = np.ones(len(words), bool)
    ends = bounds[1:][counts > 0]
    for at in range(1, length):
        hashes *= np.uint64(BASE)
        hashes += words[at : at + runs]
        within[ends - at] = False  # a run from here would end in the next text
    return hashes[within[:runs]], counts


def _digests(words: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """A polynomial in BASE over each text's words, from sums over all of them: no step per text."""
    sums = np.concatenate([[np.uint64(0)], np.cumsum(words * powers(BASE, len(words)))])
    return (sums[bounds[1:]] - sums[bounds[:-1]]) * powers(INVERSE, len(words) + 1)[bounds[:-1]]
