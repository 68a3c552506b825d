"""Which texts can have a near duplicate at all, and what they share with others.

In:   pairs (shingle hash, text) as `Numbers`, in the order in which the texts are to be compared
Out:  the texts that are left, and of each the shingles that others have too, the rarest first

A text as similar as j to another shares at least j of its shingles. So shingles that only one text has go, then texts
with less than j of theirs left, and again while it pays: 5 of 6 real stories are gone after two rounds, and none of
them had a near duplicate. Nothing is estimated.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.text.numbers import Numbers

TOKEN_BITS = 32
SKETCH_BITS = 256
PAYS = 0.05  # another round when the last one took this share of the texts


@dataclass
class Sets:
    """The texts left, numbered in the order of the rule, each with its shared shingles as numbers: tokens."""

    texts: np.ndarray  # which text each was
    sizes: np.ndarray  # of its whole set of shingles
    starts: np.ndarray  # where its tokens start, and one number more: where the last one's end
    prefixes: np.ndarray  # how many of its first tokens hold one of every text that is near
    sketches: np.ndarray  # SKETCH_BITS a text: bit t is whether it has an odd number of tokens t modulo SKETCH_BITS
    held: np.ndarray | Path  # the tokens, rarest first, in memory or in a file

    def tokens(self) -> np.ndarray:
        """All tokens. A file is mapped anew each time, so that pages read before do not stay in memory."""
        return np.memmap(self.held, np.uint32, "r") if isinstance(self.held, Path) else self.held


def least_shared(sizes: np.ndarray, jaccard: float) -> np.ndarray:
    """The least number of shingles that a text of so many shares with any text near it."""
    return np.maximum(1, np.ceil(jaccard * sizes - 1e-9)).astype(np.int64)


def row_bits(num_texts: int) -> np.uint64:
    """The low bits of a key that hold the number of a text."""
    return np.uint64(max(1, (num_texts - 1).bit_length()))


def shared_sets(keys: Numbers, by_text: Numbers, sizes: np.ndarray, order: np.ndarray, jaccard: float) -> Sets:
    """From keys (hash in the high bits, text in the low) to sets, by way of `by_text`, which is still empty.

    `sizes` count a shingle as often as a text has it; they are put right on the way.
    """
    left = _pruned(keys, sizes, jaccard)
    texts = order[left[order] > 0]
    starts = np.concatenate([[0], np.cumsum(left[texts])])
    rank_bits = max(6, int(len(texts) - 1).bit_length())
    ranks = np.zeros(len(sizes), np.uint64)
    ranks[texts] = np.arange(len(texts), dtype=np.uint64)
    _by_rarity(keys, ranks, rank_bits, by_text)
    held, sketches = _held(by_text, len(texts), rank_bits)
    prefixes = np.maximum(0, left[texts] - least_shared(sizes[texts], jaccard) + 1)
    return Sets(texts, sizes[texts], starts, prefixes, sketches, held)


def _pruned(keys: Numbers, sizes: np.ndarray, jaccard: float) -> np.ndarray:
    """Drop from `keys` what nobody shares; how many are left of each text. Corrects `sizes` to those of sets."""
    stays, rounds, bits = np.ones(len(sizes), bool), 0, row_bits(len(sizes))
    while True:
        left = np.zeros(len(sizes), np.int64)
        for n, piece in keys.pieces():
            if rounds:
                piece = piece[stays[_rows(piece, bits)]]
            else:
                again = np.flatnonzero(piece[1:] == piece[:-1])
                if len(again):
                    np.subtract.at(sizes, _rows(piece[again], bits), 1)
                    piece = np.delete(piece, again)
            piece = piece[_met_twice(piece >> bits)]
            keys.put(n, piece)
            left += np.bincount(_rows(piece, bits), minlength=len(sizes))
        enough = left >= least_shared(sizes, jaccard)
        rounds += 1
        if np.count_nonzero(left) - np.count_nonzero(enough) <= PAYS * np.count_nonzero(enough):
            return left
        stays = enough


def _rows(keys: np.ndarray, bits: np.uint64) -> np.ndarray:
    return (keys & ((np.uint64(1) << bits) - np.uint64(1))).view(np.int64)


def _met_twice(values: np.ndarray) -> np.ndarray:
    """Which of the ascending values are there more than once."""
    same = values[1:] == values[:-1]
    found = np.zeros(len(values), bool)
    found[1:] = same
    found[:-1] |= same
    return found


def _by_rarity(keys: Numbers, ranks: np.ndarray, rank_bits: int, by_text: Numbers) -> None:
    """The same pairs as (text's number, how common, token), so that sorting puts each text's rarest tokens first."""
    num_tokens, bits = 0, row_bits(len(ranks))
    for _, piece in keys.pieces():
        hashes = piece >> bits
        starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        holders = np.diff(np.append(starts, len(piece)))
        tokens = np.arange(num_tokens, num_tokens + len(starts), dtype=np.uint64)
        num_tokens += len(starts)
        common = _steps(holders, 1 << (64 - rank_bits - TOKEN_BITS)) << np.uint64(TOKEN_BITS)
        by_text.add((ranks[_rows(piece, bits)] << np.uint64(64 - rank_bits)) | np.repeat(common | tokens, holders))
    assert num_tokens < 1 << TOKEN_BITS, f"{num_tokens:,} shared shingles need more than {TOKEN_BITS} bits"


def _steps(counts: np.ndarray, steps: int) -> np.ndarray:
    """Counts on a logarithmic scale of so many steps: any order of tokens is exact, the rarest first is the fastest."""
    return np.minimum(np.log2(counts) * (steps / 32), steps - 1).astype(np.uint64)


def _held(by_text: Numbers, rows: int, rank_bits: int) -> tuple[np.ndarray | Path, np.ndarray]:
    """The tokens text by text, and the sketches."""
    held: list[np.ndarray] = []
    sketches = np.zeros((rows, SKETCH_BITS // 64), np.uint64)
    for _, piece in by_text.pieces():
        tokens = piece.astype(np.uint32)  # the low 32 bits
        if by_text.spilled:
            with by_text.folder.joinpath("tokens").open("ab") as out:
                tokens.tofile(out)
        else:
            held.append(tokens)
        first, last = (int(piece[at]) >> (64 - rank_bits) for at in (0, -1))
        rows = last - first + 1
        bits = ((piece >> np.uint64(64 - rank_bits)) - np.uint64(first)) * np.uint64(SKETCH_BITS)
        bits += tokens % np.uint32(SKETCH_BITS)
        odd = np.bincount(bits.view(np.int64), minlength=rows * SKETCH_BITS).astype(np.uint8)
        sketches[first : last + 1] = np.packbits(odd & 1).view(np.uint64).reshape(rows, -1)
    return by_text.folder / "tokens" if by_text.spilled else np.concatenate([np.empty(0, np.uint32), *held]), sketches
