"""Stories that go round in circles: how much of a text stood in the same text before.

In:   a column of repaired stories
Out:  for each row the share of its word starts whose next 32 bytes stood earlier in the same row

32 bytes are some six words, so this is the share of repeated six-word sequences, repeated lines and sentences included.
Of 9,446 real stories the most repetitive one repeats 12 % of its windows.
"""

import numpy as np
import pyarrow as pa

from lib.text.columns import Column

WINDOW = 32  # bytes
FEW = 40  # words to a capital letter; more is no prose, and the sample below would be too thin


def repetitive(column: Column, limit: float) -> dict[int, float]:
    """The rows that repeat more than `limit`, and how much.

    Only the windows at capitalised words, one in six, are compared at first: text that repeats itself repeats its
    sentences' beginnings. Rows that repeat half of `limit` there, or hardly have any, are then judged by all windows.
    """
    first = column.heads & np.uint32(0xFF)
    capital = np.flatnonzero((first >= ord("A")) & (first <= ord("Z")))
    repeats, windows = _repeats(column, capital)
    suspects = np.flatnonzero((2 * repeats > limit * windows) | (FEW * windows < column.words))
    if not len(suspects):
        return {}
    some = Column(column.texts.take(pa.array(suspects)))
    repeats, windows = _repeats(some, np.arange(len(some.word_starts)))
    shares = repeats / np.maximum(windows, 1)
    return {int(suspects[n]): float(shares[n]) for n in np.flatnonzero(shares > limit)}


def _repeats(column: Column, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the windows at these indices into `word_starts`: how many stood in their row before, and how many there are."""
    starts = column.word_starts[chosen]
    rows = np.repeat(np.arange(column.num_rows), column.per_row(chosen))
    inside = starts + WINDOW <= column.ends[rows]
    starts, rows = starts[inside], rows[inside]
    eights, keys = column.at_each_byte("<u8"), np.zeros(len(starts), np.uint64)
    for at in range(0, WINDOW, 8):
        keys = _mixed(keys ^ eights[starts + at])
    bits = np.uint64(max(column.num_rows, 2).bit_length())  # the row goes into the low bits: then sorting is all
    keys = np.sort((keys >> bits << bits) | rows.astype(np.uint64))
    again = keys[1:][keys[1:] == keys[:-1]] & ((np.uint64(1) << bits) - np.uint64(1))
    return (np.bincount(each.astype(np.int64), minlength=column.num_rows) for each in (again, rows))


def _mixed(keys: np.ndarray) -> np.ndarray:
    keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return keys ^ (keys >> np.uint64(32))
