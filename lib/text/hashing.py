"""What both ways to number runs of words rest on: a mixer, and a polynomial modulo 2**64 that can be shifted.

In:   64-bit numbers
Out:  mixed numbers; powers of BASE, and of INVERSE, by which sums of number[k] * BASE**k are brought to one start

shingles.py and ngrams.py differ in what a word's number is and in what is run through; these numbers they share.
"""

from functools import lru_cache

import numpy as np

BASE = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: so it has an inverse, and multiplying by it loses nothing
INVERSE = pow(BASE, -1, 1 << 64)
ALWAYS = 1 << 18  # powers that are remembered in any case: 2 MB


def powers(base: int, count: int) -> np.ndarray:
    """1, base, base squared, … modulo 2**64."""
    return _all_powers(base, ALWAYS if count <= ALWAYS else 1 << count.bit_length())[:count]


@lru_cache(maxsize=4)
def _all_powers(base: int, count: int) -> np.ndarray:
    all_powers = np.full(count, base, np.uint64)
    all_powers[0] = 1
    return np.multiply.accumulate(all_powers)


def mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the input moves half the bits of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
