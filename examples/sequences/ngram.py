"""Characters predicted from the n - 1 before them: counts, smoothed by interpolated modified Kneser-Ney.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and Language 13(4), 1999, section 3:
from each count a discount of D1, D2 or D3 (for counts of 1, 2, and 3 or more, estimated from the numbers n1..n4 of n-grams that occur
once to four times) is taken away and handed to the next shorter context, whose counts are in how many contexts a character occurs, not
how often. Below the empty context all characters are equally likely. Estimated discounts below 0.1 (of a text that repeats itself) are
taken as 0.1, so that nothing is impossible.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class NGram:
    """`order`: n. `classes`: how many characters there are. n-grams are kept as numbers in base `classes`, sorted."""

    def __init__(self, text: Array, order: int, classes: int) -> None:
        self.order, self.classes = order, classes
        grams = [np.unique(_windows(text, length, classes), return_counts=True) for length in range(1, order + 1)]
        self._tables = []
        for length, (keys, counts) in enumerate(grams, 1):
            if length < order:
                keys, counts = np.unique(grams[length][0] % classes**length, return_counts=True)
            self._tables.append(_Table(keys, counts, classes))

    def bits(self, text: Array) -> float:
        """Bits per character of a text but its first, each from the characters before it."""
        return float(-np.log2(self.likelihoods(text)[1:]).mean())

    def likelihoods(self, text: Array) -> Array:
        """The probability of each character of a text; the first ones have shorter contexts."""
        likely = np.full(len(text), 1 / self.classes)
        for length, table in enumerate(self._tables, 1):
            likely[length - 1 :] = table(_windows(text, length, self.classes), likely[length - 1 :])
        return likely

    def next(self, context: Array) -> Array:
        """The probabilities of all characters behind a context (its last n - 1 characters count)."""
        likely = np.full(self.classes, 1 / self.classes)
        for length, table in enumerate(self._tables[: len(context) + 1], 1):
            start = int(_windows(np.append(context[len(context) - length + 1 :], 0), length, self.classes)[0])
            likely = table(start + np.arange(self.classes), likely)
        return likely


class _Table:
    """What n-grams of one length say: discounted counts, and for each context its total and what the discounts sum to."""

    def __init__(self, keys: Array, counts: Array, classes: int) -> None:
        discounts = _discounts(counts)[np.minimum(counts, 3) - 1]
        self._classes, self._keys, self._kept = classes, keys, counts - discounts
        self._contexts, first = np.unique(keys // classes, return_index=True)
        self._totals, self._freed = np.add.reduceat(counts, first), np.add.reduceat(discounts, first)

    def __call__(self, grams: Array, shorter: Array) -> Array:
        """Probabilities of the last characters of n-grams, from those by the shorter context; these stay where a context is new."""
        contexts = grams // self._classes
        total = _look_up(self._contexts, self._totals, contexts)
        found = _look_up(self._keys, self._kept, grams) + _look_up(self._contexts, self._freed, contexts) * shorter
        return np.where(total > 0, found / np.maximum(total, 1), shorter)


def _discounts(counts: Array) -> Array:
    """D1, D2 and D3 (equation 26); 0.5 for each where a text has not all of the counts 1 to 4."""
    n = [int((counts == number).sum()) for number in (1, 2, 3, 4)]
    if not all(n):
        return np.full(3, 0.5)
    y = n[0] / (n[0] + 2 * n[1])
    return np.clip([i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3)], 0.1, (1, 2, 3))


def _windows(text: Array, length: int, classes: int) -> Array:
    """All pieces of that length as numbers in base `classes`."""
    count = max(len(text) - length + 1, 0)
    found = np.zeros(count, np.int64)
    for place in range(length):
        found = found * classes + text[place : place + count]
    return found


def _look_up(keys: Array, values: Array, wanted: Array) -> Array:
    """The values of keys, 0 for those that are not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
