"""Writing at indices that are data; indices as in `graphc.ops.gather`: negative ones count from the end, others are clamped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Lowering, Op, Updates, register, same_dtype
from graphc.kernel.access import Access, unflatten
from graphc.kernel.expr import Expr, const
from graphc.ops.gather import GatherElements, GatherND, check_within, index_depth, need_index, normalised, wrapped
from graphc.ops.movement import check_axis, surely_differ, zeros
from graphc.types.dtype import bool_, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

REDUCTIONS = ("none", "add", "mul", "max", "min")
_COMBINE = {name: "" if name == "none" else name for name in REDUCTIONS}


@dataclass(frozen=True)
class Scatter(Op):
    """Base of the scatters: x with updates written (none), or combined (add, mul, max, min), at indices. Inputs x, indices, updates.

    Of several updates of one element the last one stays (none), else all are combined in row-major order.
    """

    inputs: ClassVar[tuple[int, int]] = (3, 3)
    family: ClassVar[str] = "gather"
    ends_kernel: ClassVar[bool] = True

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
        others = (*indices.shape[: self.axis], *indices.shape[self.axis + 1 :])

        def at(u: Expr, index: Sequence[Expr]) -> tuple[Expr, ...]:
            return (*index[: self.axis], u, *index[self.axis :])

        def place(u: Expr, *index: Expr) -> tuple[Expr, ...]:
            return at(wrapped(indices[at(u, index)], x.shape[self.axis]), index)

        def value(u: Expr, *index: Expr) -> Expr:
            return updates[at(u, index)]

        return _written(x, Updates(indices.shape[self.axis], others, place, value, _COMBINE[self.reduction]))


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

        def place(u: Expr, *index: Expr) -> tuple[Expr, ...]:
            number = unflatten(u, outer)
            return (*(wrapped(indices[(*number, const(d, i64))], x.shape[d]) for d in range(depth)), *index)

        def value(u: Expr, *index: Expr) -> Expr:
            return updates[(*unflatten(u, outer), *index)]

        return _written(x, Updates(prod(outer), x.shape[depth:], place, value, _COMBINE[self.reduction]))


def _written(x: Access, updates: Updates) -> Lowering:
    return Lowering(lambda *index: x[index], updates=updates if 0 not in x.shape else None)


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
