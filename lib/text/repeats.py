"""Stories that go round in circles: how much of a text stood in the same text before.

In:   a column of repaired stories
Out:  for each row the share of its words whose next 32 bytes stood earlier in the same row

32 bytes are some six words, so this is the share of repeated six-word sequences, repeated lines and sentences included.
Of 9,446 real stories the most repetitive one repeats 12 % of them.
"""

import numpy as np
import pyarrow as pa

from lib.text.columns import Column

WINDOW = 32  # bytes
FEW = 4  # windows at full stops: fewer, or fewer than one in 20 words, and the sample says nothing


def repetitive(column: Column, limit: float) -> dict[int, float]:
    """The rows that repeat more than `limit`, and how much.

    Only the windows at full stops, one in ten, are compared at first: text that repeats itself repeats beginnings of
    its sentences. Rows that repeat any there, or have too few (3 % of real stories), are judged by all windows.
    """
    repeats, windows = _repeats(column, np.flatnonzero(column.flat == ord(".")))
    suspects = np.flatnonzero((repeats > 0) | (windows < np.maximum(FEW, column.words / 20)))
    if not len(suspects):
        return {}
    some = Column(column.texts.take(pa.array(suspects)))
    repeats, windows = _repeats(some, np.flatnonzero(some.white))
    shares = repeats / np.maximum(windows, 1)
    return {int(suspects[n]): float(shares[n]) for n in np.flatnonzero(shares > limit)}


def _repeats(column: Column, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the windows right behind these places: how many stood in their row before, and how many there are."""
    starts, rows = places + 1, np.repeat(np.arange(column.num_rows), column.count_in_rows(places))
    inside = starts + WINDOW <= column.ends[rows]
    starts, rows = starts[inside], rows[inside]
    keys = np.zeros(len(starts), np.uint64)
    for at in range(0, WINDOW, 8):
        keys = _mixed(keys ^ column.eights[starts + at])
    bits = np.uint64(max(column.num_rows, 2).bit_length())  # the row goes into the low bits: then sorting is all
    keys = np.sort((keys >> bits << bits) | rows.astype(np.uint64))
    again = keys[1:][keys[1:] == keys[:-1]] & ((np.uint64(1) << bits) - np.uint64(1))
    return tuple(np.bincount(each.astype(np.int64), minlength=column.num_rows) for each in (again, rows))


def _mixed(keys: np.ndarray) -> np.ndarray:
    keys = (keys ^ (keys >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return keys ^ (keys >> np.uint64(32))
