"""Packing: which stories share a row.

In:   stories and how many positions each fills, the capacity of a row
Out:  pieces (story, start, size) row by row: positions start … start+size-1 of that story

Where stories have to stay whole, rows are made by best_fit and by level_fit, and the fewer rows are taken. Of rows that
are four times as long as the longest story less than 1 % is empty then, of eight times in an odd corpus; rows no longer
than it may leave 28 % (10,000 stories of 150 to 310 pieces, rows of 384).

Else stories are placed whole first, best-fit decreasing: rows of twice a story's length and more are 95 % to 98 % full
so. The rest comes from a few stories that are broken: the emptiest rows are dissolved and poured into the gaps of the
others, the largest gaps first, until SPARE of all positions is left. A story longer than a row goes on in another one.
Each piece is a document of its own and attends to nothing else. A piece has at least a 64th of a row: so no length of
stories leaves more than 1.6 % of a row empty (the last row of a window apart).

After Ding et al. 2024, "Fewer Truncations Improve Language Modeling" (arXiv:2404.10830) for the best fit.
"""

from bisect import bisect_left, bisect_right, insort

import numpy as np

PAIRS = 8  # that are looked at for the last two stories of a row
SPARE = 0.01  # of all positions: below it, breaking one more story saves less than a hundredth of the time

Piece = tuple[int, int, int]


def pack(stories: np.ndarray, *, sizes: np.ndarray, capacity: int, whole: bool) -> list[list[Piece]]:
    """Rows of pieces. `whole`: no story is broken, and none may be longer than `capacity`."""
    if whole:
        rows = min((fit(stories, sizes=sizes, capacity=capacity) for fit in (best_fit, level_fit)), key=len)
        return [[(story, 0, int(sizes[story])) for story in row] for row in rows]
    least = max(capacity // 64, 1)
    pieces = [piece for story in stories.tolist() for piece in _cut(story, int(sizes[story]), capacity, least)]
    lengths = np.array([size for _, _, size in pieces])
    rows = best_fit(np.arange(len(pieces)), sizes=lengths, capacity=capacity)
    return _poured([[pieces[p] for p in row] for row in rows], capacity, least)


def _cut(story: int, size: int, capacity: int, least: int) -> list[Piece]:
    """Full rows of a long story and what remains, at least `least` of it."""
    pieces, start = [], 0
    while size - start > capacity:
        step = min(capacity, max(size - start - least, 1))
        pieces.append((story, start, step))
        start += step
    return [*pieces, (story, start, size - start)]


def best_fit(stories: np.ndarray, *, sizes: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of stories: the longest first, each into the fullest row that still has room (ties: the older story first).

    Which amounts of room are on offer is one big integer, bit c for a row with c positions left; the tightest fit is
    its lowest set bit at or above the story's size. So a story costs about 1 µs, however many rows are open.
    """
    by_size = stories[np.argsort(-sizes[stories], kind="stable")]
    rows: list[list[int]] = []
    offers: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> rows that have it
    mask = 0
    for story, size in zip(by_size.tolist(), sizes[by_size].tolist(), strict=True):
        fitting = mask >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = offers[room].pop()
            if not offers[room]:
                mask ^= 1 << room
            rows[row].append(story)
        else:
            room, row = capacity, len(rows)
            rows.append([story])
        if left := room - size:
            offers[left].append(row)
            mask |= 1 << left
    return rows


def level_fit(stories: np.ndarray, *, sizes: np.ndarray, capacity: int) -> list[list[int]]:
    """Rows of stories, one at a time: the longest left, then stories of an equal share of the room each, and the
    last two, or the last, such that the least room is left.
    """
    order = stories[np.argsort(sizes[stories], kind="stable")]
    left, lengths = order.tolist(), sizes[order].tolist()  # the shortest first
    total, rows = sum(lengths), []
    while lengths:
        row, room, at = [], capacity, len(lengths) - 1
        while True:
            row.append(left.pop(at))
            size = lengths.pop(at)
            room, total = room - size, total - size
            if not lengths or lengths[0] > room:
                break
            at = _next(lengths, room, count=min(round(room * len(lengths) / total), room // lengths[0]))
        rows.append(row)
    return rows


def _next(lengths: list[int], room: int, *, count: int) -> int:
    """Where in `lengths` the story stands that goes into a room which about `count` stories will fill."""
    if count < 2:
        return bisect_right(lengths, room) - 1
    middle = max(bisect_right(lengths, room / count) - 1, 0)
    if count > 2:
        return middle
    least, best = room, middle
    for first in range(middle, max(middle - PAIRS, -1), -1):
        second = bisect_right(lengths, room - lengths[first]) - 1
        second -= second == first
        if second >= 0 and (spare := room - lengths[first] - lengths[second]) < least:
            least, best = spare, first
    return best


def _poured(rows: list[list[Piece]], capacity: int, least: int) -> list[list[Piece]]:
    """The rows with the emptiest of them broken into the gaps of the others."""
    room = [capacity - sum(size for _, _, size in row) for row in rows]
    gaps = sorted((left, row) for row, left in enumerate(room) if left >= least)  # the largest last
    free, on_offer, kept = sum(room), sum(left for left, _ in gaps), len(rows)
    over: list[Piece] = []  # found no gap
    while len(gaps) > 1 and free > SPARE * kept * capacity:
        left, emptiest = gaps.pop()
        if on_offer - left < capacity - left:  # what it holds is more than the others have room for
            break
        moved, rows[emptiest] = rows[emptiest], []
        for piece in sorted(moved, key=lambda piece: -piece[2]):
            over += _place(piece, gaps, rows, least)
        free, kept = free - capacity, kept - 1
        on_offer = sum(left for left, _ in gaps)
    lengths = np.array([size for _, _, size in over], np.int64)
    ends = best_fit(np.arange(len(over)), sizes=lengths, capacity=capacity) if over else []
    return [row for row in rows if row] + [[over[p] for p in row] for row in ends]


def _place(piece: Piece, gaps: list[tuple[int, int]], rows: list[list[Piece]], least: int) -> list[Piece]:
    """Put a piece whole into the tightest gap, or its head into the largest, and so on; returns what found none."""
    story, start, size = piece
    while gaps:
        at = bisect_left(gaps, (size, -1))
        left, row = gaps.pop(min(at, len(gaps) - 1))
        head = size if left >= size else min(left, size - least)
        if head < min(size, least):
            insort(gaps, (left, row))
            break
        rows[row].append((story, start, head))
        start, size = start + head, size - head
        if left - head >= least:
            insort(gaps, (left - head, row))
        if not size:
            return []
    return [(story, start, size)]
