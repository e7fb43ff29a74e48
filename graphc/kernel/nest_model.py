"""What a `NestSpec` or `UpdateSpec` means, in numpy: the slow twin of every generated kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg, call
from graphc.kernel.spec import Nest, NestSpec, UpdateSpec

Array = NDArray[Any]


def run(spec: NestSpec | UpdateSpec, arrays: Sequence[Array]) -> None:
    """Evaluate a spec on its operands' flat physical buffers, in the order of `spec.operands`; the outputs are written in place.

    Raises IndexError where an offset lies outside its buffer.
    """
    flat = [array.reshape(-1) for array in arrays]
    if any(not np.shares_memory(array, view) for array, view in zip(arrays, flat, strict=True) if array.size):
        raise ValueError("the operands must be contiguous")
    if isinstance(spec, UpdateSpec):
        _run_updates(spec, flat)
        return
    for nest in spec.nests:
        _run_nest(nest, flat)


def _run_nest(nest: Nest, arrays: Sequence[Array]) -> None:
    if any(axis.extent == 0 for axis in nest.axes):
        return
    env = _grid(nest.axes)
    shape = tuple(axis.extent for axis in nest.axes)

    def load(slot: int, offset: Array) -> Array:
        return np.asarray(_checked(arrays[slot], np.asarray(offset)))

    results = [(store.slot, evaluate(store.offset, env, load), evaluate(store.value, env, load)) for store in nest.stores]
    for slot, offset, value in results:
        _check(arrays[slot], np.asarray(offset))
        arrays[slot][np.broadcast_to(offset, shape)] = np.broadcast_to(value, shape)


def _run_updates(spec: UpdateSpec, arrays: Sequence[Array]) -> None:
    if any(axis.extent == 0 for axis in spec.axes):
        return
    store, env, shape = spec.store, _grid(spec.axes), tuple(axis.extent for axis in spec.axes)
    old, new = arg("old", store.value.dtype), arg("new", store.value.dtype)
    target = arrays[store.slot]

    def load(slot: int, offset: Array) -> Array:
        return np.asarray(_checked(arrays[slot], np.asarray(offset)))

    for number in range(spec.step.extent):
        here = {**env, spec.step: np.asarray(number, np.int64)}
        offset, value = (np.broadcast_to(evaluate(root, here, load), shape) for root in (store.offset, store.value))
        _check(target, offset)
        if len(np.unique(offset)) != offset.size:
            raise ValueError("one update stores to a place twice")
        target[offset] = evaluate(call(spec.combine, old, new), {old: target[offset], new: value}) if spec.combine else value


def _grid(axes: Sequence[Expr]) -> dict[Expr, Array]:
    """Each loop variable's values, along a dim of its own."""
    rank = len(axes)
    return {axis: np.arange(axis.extent, dtype=np.int64).reshape([-1 if d == k else 1 for d in range(rank)]) for k, axis in enumerate(axes)}


def _checked(array: Array, offset: Array) -> Array:
    _check(array, offset)
    return np.asarray(array[offset])


def _check(array: Array, offset: Array) -> None:
    if offset.size and (offset.min() < 0 or offset.max() >= array.size):
        raise IndexError(f"offsets {offset.min()}..{offset.max()} in a buffer of {array.size} elements")
