"""Context: what a handler builds with. Short forms of the ops that nearly every handler needs, and compile-time values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import GraphcError, ModelError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ops.movement import Expand, Reshape, Slice, Transpose
from graphc.ops.pointwise import Cast
from graphc.ops.pointwise import op as pointwise
from graphc.ops.reduce import Reduce
from graphc.types.dtype import DType, i64
from graphc.types.shape import Dim, DimLike, Shape, product
from graphc_onnx.structure import flat
from graphc_onnx.tensors import Array

if TYPE_CHECKING:
    import onnx

    from graphc.ir.body import Body
    from graphc.types.tensor import TensorType
    from graphc_onnx.importer import Importer
    from graphc_onnx.registry import Item


class Context:
    """Wraps the Builder of the graph that is being imported; shared by all handlers of one model."""

    def __init__(self, builder: Builder, importer: Importer) -> None:
        self.builder = builder
        self._importer = importer

    # building ---------------------------------------------------------------------------------------------------------------

    def add(self, op: Op, *inputs: Value) -> Value:
        return self.builder.add(op, *inputs)

    def pointwise(self, name: str, *inputs: Value, **parameters: Any) -> Value:
        return self.builder.add(pointwise(name, **parameters), *inputs)

    def constant(self, data: Any, dtype: DType | None = None, name: str = "const") -> Value:
        return self.builder.constant(data, dtype, name)

    def like(self, number: float, value: Value) -> Value:
        """A 0-d constant of the value's dtype."""
        return self.builder.constant(np.asarray(number, value.type.dtype.numpy))

    def cast(self, value: Value, dtype: DType) -> Value:
        return value if value.type.dtype == dtype else self.add(Cast(dtype), value)

    def identity(self, value: Value) -> Value:
        return self.pointwise("identity", value)

    def reshape(self, value: Value, shape: Sequence[DimLike]) -> Value:
        """To a shape without -1 and 0 placeholders; the sizes are checked by the op."""
        return value if tuple(shape) == value.type.shape else self.add(Reshape(tuple(shape)), value)

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        return value if list(perm) == list(range(value.type.rank)) else self.add(Transpose(tuple(perm)), value)

    def expand(self, value: Value, shape: Sequence[DimLike]) -> Value:
        return value if tuple(shape) == value.type.shape else self.add(Expand(tuple(shape)), value)

    def unsqueeze(self, value: Value, axes: Sequence[int]) -> Value:
        """Insert dims of size 1; `axes` count in the result's rank, sorted or not."""
        rank = value.type.rank + len(axes)
        wanted = {normal_axis(axis, rank) for axis in axes}
        if len(wanted) != len(axes):
            raise ModelError(f"axes {list(axes)} name a dimension twice")
        left = iter(value.type.shape)
        return self.reshape(value, [1 if i in wanted else next(left) for i in range(rank)])

    def squeeze(self, value: Value, axes: Sequence[int]) -> Value:
        """Remove the dims `axes`, which must have size 1."""
        drop = normal_axes(axes, value.type.rank)
        for axis in drop:
            if value.type.shape[axis] != 1:
                raise ShapeError(f"cannot squeeze dimension {axis} of size {value.type.shape[axis]}")
        return self.reshape(value, [dim for i, dim in enumerate(value.type.shape) if i not in drop])

    def slice_axis(self, value: Value, axis: int, start: DimLike, size: DimLike) -> Value:
        """`value[..., start : start + size, ...]` along one axis."""
        shape = value.type.shape
        starts: list[DimLike] = [0] * len(shape)
        starts[axis] = start
        return self.add(Slice(tuple(starts), (1,) * len(shape), (*shape[:axis], size, *shape[axis + 1 :])), value)

    def reduce(self, fn: str, value: Value, axes: Sequence[int], keepdims: bool = True) -> Value:
        return self.add(Reduce(fn, tuple(axes), keepdims), value)

    def flatten2(self, value: Value, axis: int) -> Value:
        """(prod of the dims before axis, prod of the others)."""
        shape = value.type.shape
        return self.reshape(value, (product(shape[:axis]), product(shape[axis:])))

    # compile-time values ----------------------------------------------------------------------------------------------------

    def ints(self, value: Value, what: str) -> tuple[DimLike, ...]:
        """A shape-defining integer input; sizes may be symbolic."""
        return self.builder.known_ints(value, what)

    def plain_ints(self, value: Value, what: str) -> tuple[int, ...]:
        """As `ints`, and none may be symbolic (axes, for example)."""
        return tuple(dim.__index__() for dim in self.ints(value, what))

    def known(self, value: Value) -> Array | None:
        return self.builder.known(value)

    def array(self, value: Value, what: str) -> Array:
        """A compile-time value of any dtype; a DynamicShapeError where it is not known."""
        array = self.known(value)
        if array is None:
            self.builder.known_ints(value, what)
        if array is None or array.dtype == object:
            raise ShapeError(f"{what} is symbolic, and numbers are needed here", hint="fix the symbolic dims, e.g. dims={'N': 1}")
        return array

    def number(self, value: Value) -> float | None:
        """The only element of a compile-time value, as a Python number; None where it is not known."""
        array = self.known(value)
        if array is None or array.size != 1 or array.dtype == object:
            return None
        return array.reshape(-1)[0].item()  # type: ignore[no-any-return]

    def is_known(self, name: str) -> bool:
        """Whether what the model calls so, here or in a graph around, is a compile-time value: a sequence, where all its elements are."""
        item = self._importer.scope.find(name)
        return item is not None and all(self.known(value) is not None for value in flat([item]))

    # control flow -----------------------------------------------------------------------------------------------------------

    def inline(self, graph: onnx.GraphProto, inputs: Mapping[str, Item], label: str = "") -> list[Item]:
        """Import a subgraph in place, with its inputs bound; returns its outputs. Outer values are visible.

        `label` becomes part of the names, so that the iterations of a loop are told apart.
        """
        return self._importer.inline_graph(graph, inputs, label)

    def trim(self, value: Value, length: Value, error: GraphcError) -> None:
        """Of a result only the first `length` elements along axis 0 count: an output is cut to them, and no node may read it, else `error`.

        In a sub-graph every result may be read: the error is raised at once.
        """
        if self.in_sub_graph:
            raise error
        error.at(str(self.builder.source))
        self._importer.lengths[value] = length, error

    @property
    def in_sub_graph(self) -> bool:
        """Whether what is imported becomes part of a loop or a branch, instead of the graph itself."""
        return bool(self._importer.bodies)

    def sub_graph(self, graph: onnx.GraphProto, given: Sequence[TensorType | Array | Item]) -> tuple[Body, list[Item]]:
        """Import a subgraph as a graph of its own, with an input for each type, also of a sequence for each of its elements, and a constant
        for each array; and its outputs.

        Outer values are visible: they are captured.
        """
        return self._importer.build_graph(graph, given)


def normal_axis(axis: int, rank: int) -> int:
    """0 <= axis < rank; a ShapeError where it is outside."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Each axis within the rank, sorted; a ShapeError where one is named twice."""
    found = sorted(normal_axis(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise ShapeError(f"axes {list(axes)} name a dimension twice")
    return tuple(found)


def shape_text(shape: Shape) -> str:
    return "[" + ",".join(str(dim) for dim in shape) + "]"


__all__ = ["Context", "Dim", "i64", "normal_axes", "normal_axis", "shape_text"]
