"""Writing at indices that are data; indices as in `graphc.ops.gather`: negative ones count from the end, others are clamped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Lowering, Op, register, same_dtype
from graphc.kernel.access import Access, unflatten
from graphc.kernel.expr import Expr, call, const, equal, maximum, minimum, reduce, select
from graphc.ops.gather import GatherElements, GatherND, check_within, index_depth, need_index, normalised, wrapped
from graphc.ops.movement import check_axis, surely_differ, zeros
from graphc.types.dtype import bool_, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

REDUCTIONS = ("none", "add", "mul", "max", "min")


@dataclass(frozen=True)
class Scatter(Op):
    """Base of the scatters: x with updates written (none), or combined (add, mul, max, min), at indices. Inputs x, indices, updates.

    Of several updates of one element the last one stays (none), else all are combined in row-major order. Machine code searches the
    updates for every element of the result, so the result does not depend on the number of threads.
    """

    inputs: ClassVar[tuple[int, int]] = (3, 3)
    family: ClassVar[str] = "gather"

    def _combine(self, reduction: str, x: Expr, extents: tuple[int, ...], hit: Callable[..., Expr], update: Callable[..., Expr]) -> Expr:
        """x combined with `update(*u)` of all u within the extents for which `hit(*u)` holds."""
        if reduction == "none":
            return self._last(x, extents, hit, update)
        name, neutral = {"add": ("sum", 0), "mul": ("prod", 1), "max": ("max", None), "min": ("min", None)}[reduction]
        if neutral is None:  # no neutral element is needed: x itself takes part
            return call(name, x, reduce(name, extents, lambda *u: select(hit(*u), update(*u), x)))
        found = reduce(name, extents, lambda *u: select(hit(*u), update(*u), const(neutral, x.dtype)))
        return x + found if reduction == "add" else x * found

    def _last(self, x: Expr, extents: tuple[int, ...], hit: Callable[..., Expr], update: Callable[..., Expr]) -> Expr:
        if not prod(extents):
            return x

        def number(*u: Expr) -> Expr:
            flat = const(0, i64)
            for i, size in zip(u, extents, strict=True):
                flat = flat * size + i
            return select(hit(*u), flat, const(-1, i64))

        last = reduce("max", extents, number)
        return select(last >= 0, update(*unflatten(maximum(last, 0), extents)), x)

    def _gradient(self, builder: Builder, node: Node, grad: Value, reduction: str, gather: Op) -> Sequence[Value | None]:
        """add: grad, and what is at the indices. none: what was overwritten gets nothing (the indices must not repeat)."""
        if reduction not in ("none", "add"):
            raise UnsupportedError(f"the gradient of {self.name} with {reduction}", where=node.where, hint="reduction none or add")
        _, indices, updates = node.inputs
        d_updates = builder.add(gather, grad, indices)
        if reduction == "add":
            return [grad, None, d_updates]
        return [builder.add(self, grad, indices, zeros(builder, grad, updates.type.shape)), None, d_updates]


@register
@dataclass(frozen=True)
class ScatterElements(Scatter):
    """y = x, then y[a, indices[a, i, b], b] gets updates[a, i, b] along `axis`, over the shape of the indices.

    ONNX ScatterElements, Scatter; torch.scatter and scatter_reduce.
    """

    axis: int = 0
    reduction: str = "none"

    name: ClassVar[str] = "scatter_elements"
    onnx: ClassVar[str] = "ScatterElements"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices, updates = types
        check_axis(self.axis, x)
        check_scatter(self, x, indices, updates, self.reduction)
        check_within(self, indices, x, self.axis)
        if updates.rank != indices.rank or any(surely_differ(a, b) for a, b in zip(indices.shape, updates.shape, strict=True)):
            raise ShapeError(f"scatter_elements: {updates} must have the shape of {indices}")
        return x

    def reference(self, *arrays: Array) -> Array:
        x, indices, updates = arrays
        grid: list[Any] = list(np.indices(indices.shape))
        grid[self.axis] = normalised(indices, x.shape[self.axis])
        return scattered(x, tuple(g.reshape(-1) for g in grid), updates.reshape(-1), self.reduction)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return self._gradient(builder, node, grads[0], self.reduction, GatherElements(self.axis))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, indices, updates = inputs
        count = indices.shape[self.axis]

        def value(*index: Expr) -> Expr:
            covered = const(True, bool_)
            safe = list(index)
            for axis, size in enumerate(indices.shape):
                if axis != self.axis and size < x.shape[axis]:
                    covered, safe[axis] = covered & (index[axis] < size), minimum(index[axis], max(size - 1, 0))

            def at(u: Expr) -> tuple[Expr, ...]:
                return (*safe[: self.axis], u, *safe[self.axis + 1 :])

            def hit(u: Expr) -> Expr:
                return covered & equal(wrapped(indices[at(u)], x.shape[self.axis]), index[self.axis])

            if not prod(indices.shape):
                return x[index]
            return self._combine(self.reduction, x[index], (count,), hit, lambda u: updates[at(u)])

        return Lowering(value)


@register
@dataclass(frozen=True)
class ScatterND(Scatter):
    """y = x, then y[*indices[*i]] gets updates[*i]; the last dim of the indices holds positions along the first axes of x.

    updates: indices.shape[:-1] + x.shape[indices.shape[-1] :]. ONNX ScatterND.
    """

    reduction: str = "none"

    name: ClassVar[str] = "scatter_nd"
    onnx: ClassVar[str] = "ScatterND"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices, updates = types
        check_scatter(self, x, indices, updates, self.reduction)
        depth = index_depth(self, indices)
        wanted = (*indices.shape[:-1], *x.shape[depth:])
        if depth > x.rank or len(wanted) != updates.rank or any(surely_differ(a, b) for a, b in zip(wanted, updates.shape, strict=True)):
            raise ShapeError(f"scatter_nd of {x} at {indices} needs updates of shape {list(wanted)}, got {updates}")
        return x

    def reference(self, *arrays: Array) -> Array:
        x, indices, updates = arrays
        depth = indices.shape[-1]
        rows = indices.reshape(prod(indices.shape[:-1]), depth)
        columns = tuple(normalised(rows[:, d], x.shape[d]) for d in range(depth))
        return scattered(x, columns, updates.reshape(rows.shape[0], *x.shape[depth:]), self.reduction)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return self._gradient(builder, node, grads[0], self.reduction, GatherND())

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, indices, updates = inputs
        *outer, depth = indices.shape

        def value(*index: Expr) -> Expr:
            def hit(*u: Expr) -> Expr:
                found = const(True, bool_)
                for d in range(depth):
                    found = found & equal(wrapped(indices[(*u, const(d, i64))], x.shape[d]), index[d])
                return found

            if not prod(outer):
                return x[index]
            return self._combine(self.reduction, x[index], tuple(outer), hit, lambda *u: updates[(*u, *index[depth:])])

        return Lowering(value)


def check_scatter(op: Op, x: TensorType, indices: TensorType, updates: TensorType, reduction: str) -> None:
    need_index(op, indices)
    same_dtype(op, x, updates)
    if reduction not in REDUCTIONS:
        raise AttributeValueError(f"{op.name} with reduction {reduction!r}", hint=f"one of {', '.join(REDUCTIONS)}")
    if x.dtype == bool_ and reduction != "none":
        raise TypeMismatchError(f"{op.name} with reduction {reduction} of bool", hint="insert a cast")


def scattered(x: Array, at: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """A copy of x in which the rows x[at[0][i], at[1][i], ...] are combined with updates[i], in order."""
    y = x.copy()
    for i in range(updates.shape[0]) if y.size else ():
        row = tuple(int(column[i]) for column in at)
        match reduction:
            case "none":
                y[row] = updates[i]
            case "add":
                y[row] += updates[i]
            case "mul":
                y[row] *= updates[i]
            case "max":
                y[row] = np.maximum(y[row], updates[i])
            case "min":
                y[row] = np.minimum(y[row], updates[i])
    return y
