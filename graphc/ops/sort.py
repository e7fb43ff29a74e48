"""Sorting along an axis: the k best elements and their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Op, register
from graphc.ops.movement import Transpose, check_axis, surely_less, zeros
from graphc.ops.scatter import ScatterElements
from graphc.types.dtype import bool_, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class TopK(Op):
    """The k largest (or smallest) elements along `axis`, best first, and their positions (i64); of equals the first one wins.

    NaN counts as the largest, -0.0 and 0.0 are equal. Always sorted: all of an axis in order where k is its size. ONNX TopK.
    """

    k: int
    axis: int
    largest: bool = True

    name: ClassVar[str] = "top_k"
    onnx: ClassVar[str] = "TopK"
    family: ClassVar[str] = "sort"

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        (x,) = types
        check_axis(self.axis, x)
        if x.dtype == bool_:
            raise TypeMismatchError("top_k of bool", hint="insert a cast")
        if self.k < 0 or surely_less(x.shape[self.axis], self.k):
            raise ShapeError(f"the first {self.k} of the {x.shape[self.axis]} elements of axis {self.axis}")
        shape = (*x.shape[: self.axis], self.k, *x.shape[self.axis + 1 :])
        return x.with_shape(shape), TensorType(i64, shape)

    def reference(self, *arrays: Array) -> tuple[Array, Array]:
        """Stable sorts: by value, backwards for the largest, then by whether it is NaN."""
        x = np.moveaxis(arrays[0], self.axis, -1)
        if self.largest:
            backwards = np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]  # numpy's order has NaN last, that is first here
            order = x.shape[-1] - 1 - backwards
        else:
            order = np.argsort(x, axis=-1, kind="stable")
        positions = np.moveaxis(order[..., : self.k], -1, self.axis).astype(np.int64)
        return np.take_along_axis(arrays[0], positions, axis=self.axis), positions

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad of the values at their positions."""
        start = zeros(builder, grads[0], node.inputs[0].type.shape)
        return [builder.add(ScatterElements(self.axis, "add"), start, node.outputs[1], grads[0])]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Comparisons of a selection of k elements, and of sorting these."""
        size, chosen = int(types[0].size), int(outputs[0].size)
        return Cost(size + chosen * max(self.k, 1).bit_length(), sum(t.nbytes for t in (*types, *outputs)))

    def decompose(self, builder: Builder, *inputs: Value) -> tuple[Value, ...] | None:
        """Sorts along the last axis, or one behind which no other has more than one element: then rows are contiguous."""
        (x,) = inputs
        last = x.type.rank - 1
        if all(dim == 1 for dim in x.type.shape[self.axis + 1 :]):
            return None
        swapped = list(range(x.type.rank))
        swapped[self.axis], swapped[last] = last, self.axis
        move = Transpose(tuple(swapped))
        found = builder.add_many(replace(self, axis=last), builder.add(move, x))
        return tuple(builder.add(move, value) for value in found)
