"""Rows are full whatever the lengths of stories are, and no position is lost or seen twice."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from lib.model.packing import Piece, best_fit, level_fit, pack

REAL = Path(os.environ.get("STORYMILL_REAL_STORIES", "../shared/data/tinystories/train.jsonl"))


def drawn(seed: int, count: int = 1500) -> np.ndarray:
    """Lengths of some odd distribution."""
    random = np.random.Generator(np.random.Philox(key=[seed, 0]))
    kind = seed % 5
    if kind == 0:
        return random.integers(1, 30, count)
    if kind == 1:
        return random.lognormal(5.3, random.uniform(0.05, 1.2), count).astype(int) + 1
    if kind == 2:
        return np.where(random.random(count) < 0.5, random.integers(1, 5, count), random.integers(900, 5000, count))
    return np.full(count, random.integers(1, 1500))


def packed(sizes: np.ndarray, capacity: int) -> list[list[Piece]]:
    return pack(np.arange(len(sizes)), sizes=sizes, capacity=capacity, whole=False)


def waste(rows: list[list[Piece]], capacity: int) -> float:
    return 1 - sum(size for row in rows for _, _, size in row) / (len(rows) * capacity)


@pytest.mark.parametrize("capacity", [256, 384, 512, 1024])
@pytest.mark.parametrize("length", ["just over half", "just under whole", "a third and one", "one", "whole and one"])
def test_less_than_2_percent_is_empty_at_the_worst_of_lengths(capacity, length):
    size = {
        "just over half": capacity // 2 + 1,
        "just under whole": capacity - capacity // 64 - 1,
        "a third and one": capacity // 3 + 1,
        "one": 1,
        "whole and one": capacity + 1,
    }[length]
    sizes = np.full(400_000 // size if size < 100 else 1000, size)
    assert 0 <= waste(packed(sizes, capacity), capacity) < 0.02


@pytest.mark.parametrize("seed", range(15))
def test_every_position_stands_in_one_row_and_no_row_overflows(seed):
    sizes, capacity = drawn(seed), [20, 256, 384, 1024][seed % 4]
    rows = packed(sizes, capacity)
    assert all(0 < sum(size for _, _, size in row) <= capacity for row in rows)
    pieces = sorted(piece for row in rows for piece in row)
    next_of = dict.fromkeys(range(len(sizes)), 0)
    for story, start, size in pieces:
        assert start == next_of[story] and size > 0
        next_of[story] += size
    assert list(next_of.values()) == sizes.tolist()
    assert len(rows) <= sizes.sum() / (0.98 * capacity) + 1  # the last row may be as empty as it comes


@pytest.mark.parametrize(("longest", "joined"), [(256, 8), (320, 4), (384, 4), (512, 4), (1024, 2)])
def test_whole_stories_leave_less_than_2_percent_empty_where_rows_are_joined(longest, joined):
    for spread in (0.15, 0.3, 0.5):
        sizes = np.random.Generator(np.random.Philox(key=[2, 2])).lognormal(5.35, spread, 4096).astype(int) + 1
        sizes = sizes[sizes <= longest]
        rows = pack(np.arange(len(sizes)), sizes=sizes, capacity=longest * joined, whole=True)
        assert waste(rows, longest * joined) < 0.02
        assert sorted(piece for row in rows for piece in row) == [(n, 0, size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(15))
def test_rows_filled_one_at_a_time_hold_every_story_once(seed):
    sizes, capacity = drawn(seed), [64, 256, 384, 1024][seed % 4]
    sizes = sizes[sizes <= capacity]
    rows = level_fit(np.arange(len(sizes)), sizes=sizes, capacity=capacity)
    assert sorted(story for row in rows for story in row) == list(range(len(sizes)))
    assert all(sizes[row].sum() <= capacity for row in rows)


def test_stories_that_fit_are_mostly_left_whole():
    sizes = np.random.Generator(np.random.Philox(key=[1, 1])).lognormal(5.3, 0.3, 4000).clip(40, 384).astype(int)
    pieces = [piece for row in packed(sizes, 384) for piece in row]
    broken = len(sizes) - sum(size == sizes[story] for story, _, size in pieces)
    assert 0 < broken < 0.05 * len(sizes)
    assert min(size for story, _, size in pieces if size < sizes[story]) >= 384 // 64


@pytest.mark.parametrize("capacity", [256, 384, 512, 1024])
def test_real_stories_leave_less_than_2_percent_empty(capacity):
    if not REAL.exists():
        pytest.skip(f"no real stories at {REAL}; STORYMILL_REAL_STORIES names a .jsonl of them")
    with REAL.open() as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(4000), strict=False)]
    for letters_a_token in (2.127, 3.611):  # of vocabularies of 512 and 2,048 pieces
        sizes = np.array([int(len(text) / letters_a_token) + 2 for text in texts])
        assert waste(packed(sizes, capacity), capacity) < 0.02


def test_whole_stories_fill_rows_and_packing_takes_less_than_20_microseconds_a_story():
    sizes = np.random.Generator(np.random.Philox(key=[1, 1])).integers(60, 200, 10_000)
    started = time.process_time()
    rows = best_fit(np.arange(10_000), sizes=sizes, capacity=512)
    assert time.process_time() - started < 0.2
    assert sorted(story for row in rows for story in row) == list(range(10_000))
    assert all(sizes[row].sum() <= 512 for row in rows)
    assert sizes.sum() / (len(rows) * 512) > 0.97
    started = time.process_time()
    assert len(packed(sizes, 256)) < len(rows) * 2.05
    assert time.process_time() - started < 0.4
