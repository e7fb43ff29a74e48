"""Reading at indices that are data: gather, one-hot, and masks that follow from the position.

Indices are i32 or i64; a negative index counts from the end. An index outside of its axis is an error in ONNX; here it is clamped to the
nearest element, in the reference as in machine code, so that hostile data cannot reach foreign memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Lowering, Op, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, cast, const, equal, maximum, minimum, select
from graphc.ops.express import Arithmetic
from graphc.ops.movement import Concat, Movement, check_axis, surely_differ, surely_less, zeros
from graphc.types.dtype import DType, bool_, i64
from graphc.types.shape import DimLike, product, static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class Gather(Movement):
    """x with `axis` replaced by the dims of the indices: y[a, *i, b] = x[a, indices[*i], b]. ONNX Gather; np.take(mode="clip")."""

    axis: int = 0

    name: ClassVar[str] = "gather"
    onnx: ClassVar[str] = "Gather"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "gather"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        check_axis(self.axis, x)
        need_index(self, indices)
        check_filled(self, x.shape[self.axis], indices)
        return x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def reference(self, *arrays: Array) -> Array:
        x, indices = arrays
        return x.take(normalised(indices, x.shape[self.axis]), axis=self.axis) if x.shape[self.axis] else self._empty(x, indices)

    def _empty(self, x: Array, indices: Array) -> Array:
        return np.zeros((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]), x.dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The rows of grad added up where they came from."""
        from graphc.ops.scatter import ScatterElements  # late: scatter is built on this module

        a, (x, indices) = Arithmetic(builder), node.inputs
        before, after = x.type.shape[: self.axis], x.type.shape[self.axis + 1 :]
        count = product(indices.type.shape)
        updates = a.reshape(grads[0], (*before, count, *after))
        at = a.reshape(indices, (*(1 for _ in before), count, *(1 for _ in after)))
        at = a.expand(at, updates.type.shape)
        return [builder.add(ScatterElements(self.axis, "add"), zeros(builder, grads[0], x.type.shape), at, updates), None]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, indices = inputs
        first, last = self.axis, self.axis + indices.rank

        def value(*index: Expr) -> Expr:
            at = wrapped(indices[index[first:last]], x.shape[self.axis])
            return x[(*index[:first], at, *index[last:])]

        return Lowering(value)


@register
@dataclass(frozen=True)
class GatherElements(Movement):
    """y[a, i, b] = x[a, indices[a, i, b], b] along `axis`, over the shape of the indices. ONNX GatherElements; torch.gather."""

    axis: int = 0

    name: ClassVar[str] = "gather_elements"
    onnx: ClassVar[str] = "GatherElements"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "gather"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        check_axis(self.axis, x)
        need_index(self, indices)
        check_within(self, indices, x, self.axis)
        check_filled(self, x.shape[self.axis], indices)
        return x.with_shape(indices.shape)

    def reference(self, *arrays: Array) -> Array:
        x, indices = arrays
        x = x[tuple(slice(None) if a == self.axis else slice(size) for a, size in enumerate(indices.shape))]
        return np.take_along_axis(x, normalised(indices, x.shape[self.axis]), axis=self.axis)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad added up where its elements came from."""
        from graphc.ops.scatter import ScatterElements  # late: scatter is built on this module

        x, indices = node.inputs
        return [builder.add(ScatterElements(self.axis, "add"), zeros(builder, grads[0], x.type.shape), indices, grads[0]), None]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, indices = inputs

        def value(*index: Expr) -> Expr:
            at = wrapped(indices[index], x.shape[self.axis])
            return x[(*index[: self.axis], at, *index[self.axis + 1 :])]

        return Lowering(value)


@register
@dataclass(frozen=True)
class GatherND(Movement):
    """y[b, *i] = x[b, *indices[b, *i]]: the last dim of the indices holds positions along the first axes of x after the batch dims.

    Shape: indices.shape[:-1] + x.shape[batch_dims + indices.shape[-1] :]. ONNX GatherND.
    """

    batch_dims: int = 0

    name: ClassVar[str] = "gather_nd"
    onnx: ClassVar[str] = "GatherND"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "gather"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = types
        need_index(self, indices)
        depth = index_depth(self, indices)
        if not 0 <= self.batch_dims < indices.rank or self.batch_dims + depth > x.rank:
            raise ShapeError(f"gather_nd of {x} at {indices} with {self.batch_dims} batch dims")
        if any(surely_differ(a, b) for a, b in zip(x.shape[: self.batch_dims], indices.shape[: self.batch_dims], strict=True)):
            raise ShapeError(f"gather_nd: the batch dims of {x} and {indices} differ")
        for size in x.shape[self.batch_dims : self.batch_dims + depth]:
            check_filled(self, size, indices)
        return x.with_shape((*indices.shape[:-1], *x.shape[self.batch_dims + depth :]))

    def reference(self, *arrays: Array) -> Array:
        x, indices = arrays
        batch, depth = self.batch_dims, indices.shape[-1]
        grid = np.indices(indices.shape[:-1])[:batch]
        columns = [normalised(indices[..., d], x.shape[batch + d]) for d in range(depth)]
        at: tuple[Any, ...] = (*grid, *columns)
        return x[at] if at else np.broadcast_to(x, (*indices.shape[:-1], *x.shape)).copy()

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad added up where its elements came from."""
        from graphc.ops.scatter import ScatterND  # late: scatter is built on this module

        if self.batch_dims:
            raise UnsupportedError("the gradient of gather_nd with batch dims", where=node.where, hint="use gather_elements")
        x, indices = node.inputs
        return [builder.add(ScatterND("add"), zeros(builder, grads[0], x.type.shape), indices, grads[0]), None]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, indices = inputs
        outer, depth, batch = indices.rank - 1, indices.shape[-1], self.batch_dims

        def value(*index: Expr) -> Expr:
            columns = [wrapped(indices[(*index[:outer], const(d, i64))], x.shape[batch + d]) for d in range(depth)]
            return x[(*index[:batch], *columns, *index[outer:])]

        return Lowering(value)


@register
@dataclass(frozen=True)
class OneHot(Movement):
    """A new `axis` of size `depth` that holds values[1] at the index and values[0] elsewhere (everywhere, for an index out of range).

    indices: any number dtype, -depth .. depth-1 are in range; values: [2], gives the dtype. ONNX OneHot.
    """

    depth: int
    axis: int

    name: ClassVar[str] = "one_hot"
    onnx: ClassVar[str] = "OneHot"
    inputs: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, *types: TensorType) -> TensorType:
        indices, values = types
        if indices.dtype == bool_ or values.rank != 1 or surely_differ(values.shape[0], 2):
            raise ShapeError(f"one_hot takes indices and a pair of values, got {indices} and {values}")
        if not 0 <= self.axis <= indices.rank or self.depth < 0:
            raise AttributeValueError(f"one_hot with axis {self.axis} and depth {self.depth} of {indices}")
        return values.with_shape((*indices.shape[: self.axis], self.depth, *indices.shape[self.axis :]))

    def reference(self, *arrays: Array) -> Array:
        indices, values = arrays
        at = np.expand_dims(indices.astype(np.int64), self.axis)
        steps = np.arange(self.depth).reshape(-1, *(1,) * (indices.ndim - self.axis))
        hit = np.where(at < 0, at + self.depth, at) == steps
        chosen: Array = np.where(hit, values[1], values[0])
        return chosen

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The sums of grad where the indices do not hit, and where they do."""
        a, (indices, _), grad = Arithmetic(builder), node.inputs, grads[0]
        hot = builder.add(self, indices, builder.constant([0, 1], grad.type.dtype, name="hot"))
        every = tuple(range(grad.type.rank))
        on = a.reduce("sum", a("mul", grad, hot), every, False)
        off = a("sub", a.reduce("sum", grad, every, False), on)
        return [None, builder.add(Concat(0), a.reshape(off, (1,)), a.reshape(on, (1,)))]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        indices, values = inputs

        def value(*index: Expr) -> Expr:
            at = cast(indices[(*index[: self.axis], *index[self.axis + 1 :])], i64)
            hit = equal(select(at < 0, at + self.depth, at), index[self.axis])
            return select(hit, values[1], values[0])

        return Lowering(value)


@register
@dataclass(frozen=True)
class Trilu(Movement):
    """The upper (`upper`) or lower triangle of the last two dims, zero elsewhere; `k` shifts the diagonal to the right. ONNX Trilu."""

    upper: bool = True
    k: int = 0

    name: ClassVar[str] = "trilu"
    onnx: ClassVar[str] = "Trilu"

    def infer(self, *types: TensorType) -> TensorType:
        if types[0].rank < 2:
            raise ShapeError(f"trilu takes matrices, got {types[0]}")
        return types[0]

    def reference(self, *arrays: Array) -> Array:
        return np.triu(arrays[0], self.k) if self.upper else np.tril(arrays[0], self.k)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return [builder.add(self, grads[0])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs

        def value(*index: Expr) -> Expr:
            distance = index[-1] - index[-2]
            keep = distance >= self.k if self.upper else distance <= self.k
            return select(keep, x[index], const(0, x.dtype))

        return Lowering(value)


def need_index(op: Op, indices: TensorType) -> DType:
    if not indices.dtype.is_int:
        raise TypeMismatchError(f"{op.name} takes integer indices, got {indices}", hint="insert a cast")
    return indices.dtype


def index_depth(op: Op, indices: TensorType) -> int:
    """The size of the last dim of the indices, which must be known."""
    if indices.rank < 1:
        raise ShapeError(f"{op.name} takes indices of rank 1 or more, got {indices}")
    return static(indices.shape[-1:])[0]


def check_filled(op: Op, size: DimLike, indices: TensorType) -> None:
    """An axis that is read must have elements, unless there is no index."""
    if size == 0 and 0 not in indices.shape:
        raise ShapeError(f"{op.name} at {indices} from an empty axis")


def check_within(op: Op, indices: TensorType, x: TensorType, axis: int) -> None:
    """The indices have the rank of x, and outside of `axis` no more elements."""
    if indices.rank != x.rank:
        raise ShapeError(f"{op.name}: {indices} must have the rank of {x}")
    if any(a != axis and surely_less(x.shape[a], indices.shape[a]) for a in range(x.rank)):
        raise ShapeError(f"{op.name} along axis {axis}: {indices} is larger than {x} elsewhere")


def normalised(indices: Array, size: int) -> Array:
    """Indices of an axis: negative ones count from the end, those outside are clamped."""
    at = indices.astype(np.int64)
    return np.clip(np.where(at < 0, at + size, at), 0, max(size - 1, 0))


def wrapped(at: Expr, size: int) -> Expr:
    """`normalised` as an expression."""
    at = cast(at, i64)
    return maximum(minimum(select(at < 0, at + size, at), max(size - 1, 0)), 0)
