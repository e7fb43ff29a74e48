"""The gradient of grid sampling: each tap spreads its share over x, and moves its weight with the grid.

Indices and weights are the formulas of the forward pass, as pointwise nodes; the slopes of the weights follow from them symbolically. At
a whole position the slope is that towards the next element, as in PyTorch. The padded border is flat: its positions get no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as positions

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.kernel.derivative import derivative
from graphc.kernel.expr import Expr, arg, call, cast, const
from graphc.ops.compose import slice_axis
from graphc.ops.express import Arithmetic
from graphc.ops.gather import GatherElements
from graphc.ops.grid_sample import TAPS, GridSample
from graphc.ops.movement import Concat
from graphc.ops.pointwise import Cast
from graphc.ops.scatter import ScatterElements
from graphc.types.dtype import bool_, i64
from graphc.types.shape import product, static


def grid_sample_gradient(op: GridSample, builder: Builder, node: Node, grad: Value) -> Sequence[Value | None]:
    """Gradients of x and grid; None for the grid of nearest, on which nothing depends smoothly."""
    a, (x, grid) = Arithmetic(builder), node.inputs
    sizes, places = static(x.type.shape[2:]), product(grid.type.shape[1:-1])
    n, c = x.type.shape[:2]
    flat_x = a.reshape(x, (n, c, product(sizes)))
    flat_grad = a.reshape(grad, (n, c, places))
    axes = [_Axis(op, a, _column(a, grid, len(sizes) - 1 - d), size) for d, size in enumerate(sizes)]
    d_x = a.expand(builder.constant(np.zeros((), x.type.dtype.numpy), name="zero"), flat_x.type.shape)
    d_grid: list[Value | None] = [None] * len(sizes)
    for tap in positions(range(axes[0].taps), repeat=len(sizes)):
        taps = [axis.tap(number) for axis, number in zip(axes, tap, strict=True)]
        index, inside = _flat_index(a, [at for at, _, _, _ in taps], sizes), _all(a, [inside for _, inside, _, _ in taps])
        index = a.expand(index, flat_grad.type.shape)
        weight = _product(a, [weight for _, _, weight, _ in taps])
        share = a("where", inside, a("mul", flat_grad, _like(builder, weight, grad)), 0.0)
        d_x = builder.add(ScatterElements(axis=2, reduction="add"), d_x, index, a.expand(share, flat_grad.type.shape))
        if op.mode == "nearest":
            continue
        element = builder.add(GatherElements(axis=2), flat_x, index)
        pull = _like(builder, a.reduce("sum", a("where", inside, a("mul", flat_grad, element), 0.0), (1,)), grid)
        for d in range(len(sizes)):
            factors = [slope if e == d else weight for e, (_, _, weight, slope) in enumerate(taps)]
            term = a("mul", pull, _product(a, factors))
            old = d_grid[d]
            d_grid[d] = term if old is None else a("add", old, term)
    columns = [a.reshape(found, (*grid.type.shape[:-1], 1)) for found in reversed(d_grid) if found is not None]
    return [a.reshape(d_x, x.type.shape), builder.add(Concat(grid.type.rank - 1), *columns) if columns else None]


class _Axis:
    """One axis of x: what its taps read and weigh, from the positions `column` (N, 1, places)."""

    def __init__(self, op: GridSample, a: Arithmetic, column: Value, size: int) -> None:
        self._op, self._a, self._column, self._size = op, a, column, size
        self.taps = TAPS[op.mode]
        self._g = arg("g", column.type.dtype)
        self._place = op._position(self._g, size)
        self._first = call("floor", self._place) - float(self.taps // 2 - 1 if self.taps > 1 else 0)

    def tap(self, number: int) -> tuple[Value, Value, Value, Value]:
        """Index, whether it is inside, weight and its slope by the grid."""
        index = cast(self._first, i64) + const(number, i64)
        inside = (index >= 0) & (index < self._size) if self._op.padding_mode == "zeros" else const(True, bool_)
        ahead = self._place - self._first - float(number)
        weight = const(1.0, self._g.dtype) if self.taps == 1 else self._op._weight(ahead if number < self.taps // 2 else -ahead)
        at, within = self._value(self._op._inside(index, self._size)), self._value(inside)
        return at, within, self._value(weight), self._value(derivative(weight, self._g))

    def _value(self, expr: Expr) -> Value:
        return self._a.express(expr, {self._g: self._column})


def _column(a: Arithmetic, grid: Value, number: int) -> Value:
    """One coordinate of all positions, (N, 1, places)."""
    column = slice_axis(a.builder, grid, grid.type.rank - 1, number, 1)
    return a.reshape(column, (grid.type.shape[0], 1, product(grid.type.shape[1:-1])))


def _flat_index(a: Arithmetic, at: Sequence[Value], sizes: Sequence[int]) -> Value:
    index = at[0]
    for value, size in zip(at[1:], sizes[1:], strict=True):
        index = a("add", a("mul", index, size), value)
    return index


def _all(a: Arithmetic, conditions: Sequence[Value]) -> Value:
    found = conditions[0]
    for other in conditions[1:]:
        found = a("and", found, other)
    return found


def _product(a: Arithmetic, factors: Sequence[Value]) -> Value:
    found = factors[0]
    for other in factors[1:]:
        found = a("mul", found, other)
    return found


def _like(builder: Builder, value: Value, other: Value) -> Value:
    return value if value.type.dtype == other.type.dtype else builder.add(Cast(other.type.dtype), value)
