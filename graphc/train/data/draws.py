"""Random numbers that are a function of (seed, epoch, sample, number of the draw): no state, so any thread may draw any of them.

They are what SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) gives at its positions
`sample * draws + number`; the generator's start is the first word of Philox 4x64 with the key (seed, epoch).
"""

from __future__ import annotations

import numpy as np

from graphc.ir.graph import Array

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXES = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)
_MANTISSA = np.uint64(11)  # 53 of 64 bits
_START = 1 << 192  # counter of Philox, far from the words that order an epoch


def split_mix(start: int, positions: Array) -> Array:
    """The words (u64) of SplitMix64 seeded with `start` at the given positions (u64); position 0 is its first output."""
    words: Array = (positions + np.uint64(1)) * _GAMMA + np.uint64(start)
    for shift, factor in _MIXES:
        words = (words ^ (words >> shift)) * factor
    words ^= words >> _LAST_SHIFT
    return words


class Draws:
    """The uniform numbers of one epoch, `count` of them for each sample."""

    def __init__(self, seed: int, epoch: int, count: int) -> None:
        key = seed % 2**64 + (epoch % 2**64 << 64)
        self._start = int(np.random.Philox(key=key, counter=_START).random_raw())
        self._numbers = np.arange(count, dtype=np.uint64)

    def of(self, samples: Array) -> Array:
        """Numbers in [0, 1), f64 (samples, count), for samples by their index in the source."""
        positions = samples.astype(np.uint64)[:, None] * np.uint64(len(self._numbers)) + self._numbers
        numbers: Array = (split_mix(self._start, positions) >> _MANTISSA) * 2.0**-53
        return numbers
