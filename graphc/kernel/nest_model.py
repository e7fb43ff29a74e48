"""What a `NestSpec` means, in numpy: the slow twin of every generated kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr
from graphc.kernel.spec import Nest, NestSpec

Array = NDArray[Any]


def run(spec: NestSpec, arrays: Sequence[Array]) -> None:
    """Evaluate a spec on its operands' flat physical buffers, in the order of `spec.operands`; the outputs are written in place.

    Raises IndexError where an offset lies outside its buffer.
    """
    flat = [array.reshape(-1) for array in arrays]
    if any(not np.shares_memory(array, view) for array, view in zip(arrays, flat, strict=True) if array.size):
        raise ValueError("the operands must be contiguous")
    for nest in spec.nests:
        _run_nest(nest, flat)


def _run_nest(nest: Nest, arrays: Sequence[Array]) -> None:
    if any(axis.extent == 0 for axis in nest.axes):
        return
    rank = len(nest.axes)
    env: Mapping[Expr, Array] = {
        axis: np.arange(axis.extent, dtype=np.int64).reshape([-1 if d == k else 1 for d in range(rank)]) for k, axis in enumerate(nest.axes)
    }
    shape = tuple(axis.extent for axis in nest.axes)

    def load(slot: int, offset: Array) -> Array:
        return np.asarray(_checked(arrays[slot], np.asarray(offset)))

    results = [(store.slot, evaluate(store.offset, env, load), evaluate(store.value, env, load)) for store in nest.stores]
    for slot, offset, value in results:
        _check(arrays[slot], np.asarray(offset))
        arrays[slot][np.broadcast_to(offset, shape)] = np.broadcast_to(value, shape)


def _checked(array: Array, offset: Array) -> Array:
    _check(array, offset)
    return np.asarray(array[offset])


def _check(array: Array, offset: Array) -> None:
    if offset.size and (offset.min() < 0 or offset.max() >= array.size):
        raise IndexError(f"offsets {offset.min()}..{offset.max()} in a buffer of {array.size} elements")
