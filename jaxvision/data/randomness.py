"""Random numbers by name: a generator for `(seed, purpose, number)`, and no state that anyone has to keep.

Philox is counter-based (Salmon et al., SC 2011): its raw 64-bit output is a function of key and counter, the same on every
machine. The key is `(seed, number)`; the purpose is the highest word of the counter, so that two purposes never share a
stream.
"""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What random numbers are for."""

    SHUFFLE = 0
    OVERSAMPLE = 1
    INTERLEAVE = 2
    PLACE = 3
    SAMPLE = 4
    MARK = 5
    CORRUPT = 6


def philox(seed: int, purpose: Purpose, number: int, part: int = 0) -> np.random.Philox:
    """The bit generator of this seed, purpose and number (an epoch, a position), and part of it."""
    return np.random.Philox(counter=[0, 0, part, int(purpose)], key=[seed, number])


def permutation(seed: int, purpose: Purpose, number: int, n: int) -> np.ndarray:
    """A permutation of `0..n-1`, int64: the ranks of n raw Philox words, ties (none, in practice) by index."""
    return np.argsort(philox(seed, purpose, number).random_raw(n), kind="stable")


def checked_seed(seed: int) -> int:
    """The seed, if it fits into one word of a Philox key; a ValueError otherwise."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be at least 0 and below 2**64, got {seed}")
    return int(seed)
