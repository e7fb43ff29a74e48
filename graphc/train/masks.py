"""Targets of which only a part counts: a pair (target, counted) instead of a target.

`counted` is lengths (N,) of integers, the positions of each sequence (N, T, ...) that count from the first on, or a bool array of the
target's leading axes, true where it counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import InputError
from graphc.ir.graph import Array


def is_pair(y: object) -> bool:
    """Whether a target comes with what counts of it: a tuple of two arrays, or lists, of at least one axis."""
    return isinstance(y, tuple) and len(y) == 2 and all(np.ndim(part) > 0 for part in y)


def split(y: Any) -> tuple[Array, Array]:
    """The target of a pair, and where it counts, bool of the target's shape. Raises InputError for what does not fit."""
    target, counted = (np.asarray(part) for part in y)
    if counted.dtype.kind in "iu":
        counted = _within(counted, target)
    if counted.dtype.kind != "b" or counted.shape != target.shape[: counted.ndim]:
        reason = f"{counted.dtype}{list(counted.shape)} does not say what counts of a target {target.dtype}{list(target.shape)}"
        raise InputError(reason, hint="lengths (N,) as integers, or a bool mask of the target's leading axes")
    return target, np.broadcast_to(counted.reshape(counted.shape + (1,) * (target.ndim - counted.ndim)), target.shape)


def _within(lengths: Array, target: Array) -> Array:
    """(N, T) bool."""
    if target.ndim < 2 or lengths.shape != target.shape[:1]:
        raise InputError(f"lengths {list(lengths.shape)} of a target {list(target.shape)}", hint="(N,) for a target (N, T, ...)")
    steps = target.shape[1]
    if lengths.size and (lengths.min() < 0 or lengths.max() > steps):
        raise InputError(f"lengths from {lengths.min()} to {lengths.max()}, the target has {steps} positions")
    return np.asarray(np.arange(steps) < lengths[:, None])
