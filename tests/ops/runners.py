"""Ways to execute a sample without any back end: the ops' references, and the ops' lowerings interpreted in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Value
from graphc.ir.op import Lowering, Op, Piece, Updates
from graphc.kernel.access import from_operand
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr, arg, call, const, free_indices, index, walk
from graphc.kernel.spec import Operand
from graphc.types.dtype import dtype, i64
from graphc.types.tensor import TensorType

Array = np.ndarray[Any, np.dtype[Any]]


def run_reference(graph: Graph, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Every node by its op's numpy meaning."""
    known: dict[Value, Array] = dict(zip(graph.inputs, arrays, strict=True))
    known.update({v: np.asarray(v.data) for v in graph.values.values() if v.data is not None})
    for node in graph:
        results = node.op.evaluate(*(known[v] for v in node.inputs))
        for value, result in zip(node.outputs, results, strict=True):
            found = TensorType(dtype(result.dtype), result.shape)
            assert found == value.type, f"{node}: computed {found}, inferred {value}"
            known[value] = result
    return tuple(known[v] for v in graph.outputs)


def run_lowered(op: Op, arrays: Sequence[Array], output: TensorType) -> Array:
    """The op's index lambdas, evaluated at every output index at once; every load is checked to be in bounds."""
    accesses = [from_operand(i, Operand(dtype(a.dtype), tuple(a.shape))) for i, a in enumerate(arrays)]
    lowering = op.lower(accesses, output)
    result = np.zeros(output.static_shape, output.dtype.numpy)
    written = np.zeros(output.static_shape, dtype=int)
    for piece in pieces(lowering, output):
        store(piece, arrays, result, written)
    assert (written == 1).all(), "an output element is not written exactly once"
    if lowering.updates is not None:
        update(lowering.updates, arrays, result)
    return result


def update(updates: Updates, arrays: Sequence[Array], result: Array) -> None:
    """One after the other; each may store to a place once only."""
    for number in range(updates.count):
        here, written = result.copy(), np.zeros(result.shape, int)
        u = const(number, i64)
        piece = Piece(updates.extents, lambda *i, u=u: updates.place(u, *i), lambda *i, u=u: updates.value(u, *i))
        store(piece, arrays, here, written)
        assert written.max(initial=0) <= 1, "an update writes an element twice"
        old, new = (arg(name, dtype(result.dtype)) for name in ("old", "new"))
        combined = evaluate(call(updates.combine, old, new), {old: result, new: here}) if updates.combine else here
        result[...] = np.where(written, combined, result)


def pieces(lowering: Lowering, output: TensorType) -> tuple[Piece, ...]:
    """The lowering as pieces: itself, or one that covers the output."""
    if lowering.value is None:
        return lowering.pieces
    return (Piece(output.static_shape, lambda *i: i, lowering.value),)


def _hoisted(root: Expr, env: dict[Expr, Array], load: Callable[[int, Array], Array]) -> Array:
    """`evaluate`, but every reduction that depends on the output index alone is computed once, not in each step of one around it."""
    known = dict(env)
    for node in walk(root):
        if node.fn == "reduce" and free_indices(node) <= env.keys():
            known[node] = evaluate(node, known, load)
    return evaluate(root, known, load)


def store(piece: Piece, arrays: Sequence[Array], result: Array, written: Array) -> None:
    if 0 in piece.extents:
        return
    axes = tuple(index(f"i{n}", extent) for n, extent in enumerate(piece.extents))
    grid = np.indices(piece.extents, dtype=np.int64).reshape(len(axes), math.prod(piece.extents))
    env: dict[Expr, Array] = dict(zip(axes, grid, strict=True))

    def load(slot: int, offset: Array) -> Array:
        flat = arrays[slot].reshape(-1)
        assert offset.size == 0 or (offset.min() >= 0 and offset.max() < flat.size), f"load outside of input {slot}"
        return np.asarray(flat[offset])

    count = grid.shape[1]
    place = tuple(np.broadcast_to(evaluate(e, env, load), count) for e in piece.place(*axes))
    value = np.broadcast_to(_hoisted(piece.value(*axes), env, load), count)
    assert value.dtype == result.dtype, f"lowered to {value.dtype}, inferred {result.dtype}"
    result[place] = value.reshape(()) if not axes else value
    np.add.at(written, place, 1)
