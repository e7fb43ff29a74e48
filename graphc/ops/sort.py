"""Sorting along an axis, by counting: ranks, and the k best elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Lowering, Op, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, call, cast, const, equal, reduce, select
from graphc.ops.gather import GatherElements
from graphc.ops.movement import check_axis, surely_less, zeros
from graphc.ops.scatter import ScatterElements
from graphc.types.dtype import bool_, i64
from graphc.types.shape import static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class Rank(Op):
    """How many elements along `axis` come before each element when sorted (stable): i64 of the shape of x.

    Descending where `largest`, else ascending; NaN counts as the largest. A step of TopK: n comparisons per element.
    """

    axis: int
    largest: bool = True

    name: ClassVar[str] = "rank"
    family: ClassVar[str] = "reduce"
    not_differentiable: ClassVar[str] = "ranks are integers"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        check_axis(self.axis, x)
        if x.dtype == bool_:
            raise TypeMismatchError("rank of bool", hint="insert a cast")
        return TensorType(i64, x.shape)

    def reference(self, *arrays: Array) -> Array:
        x = np.moveaxis(arrays[0], self.axis, -1)
        mine, other = x[..., :, None], x[..., None, :]
        first, second = (other, mine) if self.largest else (mine, other)
        nan = (first != first) & (second == second)
        same = (other == mine) | ((other != other) & (mine != mine))
        earlier = np.arange(x.shape[-1]) < np.arange(x.shape[-1])[:, None]
        before = (first > second) | nan | (same & earlier)
        return np.moveaxis(before.sum(axis=-1, dtype=np.int64), -1, self.axis)

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One comparison per pair of elements along the axis."""
        return Cost(int(outputs[0].size) * int(types[0].shape[self.axis]), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs

        def value(*index: Expr) -> Expr:
            mine = x[index]

            def before(j: Expr) -> Expr:
                other = x[(*index[: self.axis], j, *index[self.axis + 1 :])]
                first, second = (other, mine) if self.largest else (mine, other)
                ahead, same = first > second, equal(other, mine)
                if x.dtype.is_float:
                    ahead = ahead | (call("isnan", first) & ~call("isnan", second))
                    same = same | (call("isnan", other) & call("isnan", mine))
                return cast(ahead | (same & (j < index[self.axis])), i64)

            return reduce("sum", (x.shape[self.axis],), before)

        return Lowering(value)


@register
@dataclass(frozen=True)
class FindRanks(Op):
    """Where along `axis` the ranks 0 .. k-1 are: i64, the axis has size k. The input holds each rank once per row. A step of TopK."""

    k: int
    axis: int

    name: ClassVar[str] = "find_ranks"
    family: ClassVar[str] = "reduce"
    not_differentiable: ClassVar[str] = "positions are integers"

    def infer(self, *types: TensorType) -> TensorType:
        (ranks,) = types
        check_axis(self.axis, ranks)
        if ranks.dtype != i64:
            raise TypeMismatchError(f"find_ranks takes i64, got {ranks}")
        if self.k < 0 or surely_less(ranks.shape[self.axis], self.k):
            raise ShapeError(f"the first {self.k} of the {ranks.shape[self.axis]} elements of axis {self.axis}")
        return TensorType(i64, (*ranks.shape[: self.axis], self.k, *ranks.shape[self.axis + 1 :]))

    def reference(self, *arrays: Array) -> Array:
        order = np.argsort(arrays[0], axis=self.axis, kind="stable").astype(np.int64)
        return order.take(np.arange(self.k), axis=self.axis)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (ranks,) = inputs

        def value(*index: Expr) -> Expr:
            def found(i: Expr) -> Expr:
                at = (*index[: self.axis], i, *index[self.axis + 1 :])
                return select(equal(ranks[at], index[self.axis]), i, const(0, i64))

            return reduce("max", (ranks.shape[self.axis],), found)

        return Lowering(value)


@register
@dataclass(frozen=True)
class TopK(Op):
    """The k largest (or smallest) elements along `axis`, best first, and their positions (i64); of equals the first one wins.

    NaN counts as the largest. Always sorted. Decomposes into Rank, FindRanks and GatherElements. ONNX TopK.
    """

    k: int
    axis: int
    largest: bool = True

    name: ClassVar[str] = "top_k"
    onnx: ClassVar[str] = "TopK"

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        positions = FindRanks(self.k, self.axis).infer(Rank(self.axis, self.largest).infer(*types))
        return types[0].with_shape(positions.shape), positions

    def reference(self, *arrays: Array) -> tuple[Array, Array]:
        positions = FindRanks(self.k, self.axis).reference(Rank(self.axis, self.largest).reference(*arrays))
        return np.take_along_axis(arrays[0], positions, axis=self.axis), positions

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad of the values at their positions."""
        start = zeros(builder, grads[0], node.inputs[0].type.shape)
        return [builder.add(ScatterElements(self.axis, "add"), start, node.outputs[1], grads[0])]

    def decompose(self, builder: Builder, *inputs: Value) -> tuple[Value, Value]:
        positions = builder.add(FindRanks(self.k, self.axis), builder.add(Rank(self.axis, self.largest), *inputs))
        if 0 in static(positions.type.shape):
            return builder.constant(np.zeros(static(positions.type.shape), inputs[0].type.dtype.numpy)), positions
        return builder.add(GatherElements(self.axis), inputs[0], positions), positions
