"""Movement: ops that place elements and compute nothing. Any dtype; the result has the dtype of the input.

Attributes are normalised by the caller: no negative axes, every dim resolved (ints or symbolic dims). Source of the meaning: the
numpy function named in each docstring and the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.op import Array, Cost, Lowering, Op, Piece, register, same_dtype
from graphc.kernel.access import Access, broadcast, flat_index, padded, unflatten
from graphc.kernel.expr import Expr, const, equal, maximum, minimum, select
from graphc.ops.express import Arithmetic
from graphc.types.dtype import i64
from graphc.types.shape import Dim, DimLike, Shape, is_static, product
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


class Movement(Op):
    """Base: no arithmetic, one read and one write per element."""

    family: ClassVar[str] = "copy"

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """No operation; reads and writes what the output holds."""
        return Cost(0, 2 * sum(t.nbytes for t in outputs))


@register
@dataclass(frozen=True)
class ShapeOf(Movement):
    """The shape of x as i64 [rank]. ONNX Shape (start and end are a slice of it)."""

    name: ClassVar[str] = "shape"
    onnx: ClassVar[str] = "Shape"
    not_differentiable: ClassVar[str] = "a shape does not depend on the data"

    def of(self, shape: Shape) -> Array:
        """The result for a shape: int64, or an object array of dims where some are symbolic."""
        if is_static(shape):
            return np.array(shape, dtype=np.int64)
        array = np.empty(len(shape), dtype=object)
        array[:] = shape
        return array

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(i64, (types[0].rank,))

    def reference(self, *arrays: Array) -> Array:
        return np.array(arrays[0].shape, dtype=np.int64)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        sizes = inputs[0].shape

        def value(i: Expr) -> Expr:
            result = const(0, i64)
            for axis, size in enumerate(sizes):
                result = select(equal(i, axis), const(size, i64), result)
            return result

        return Lowering(value)


@register
@dataclass(frozen=True)
class Reshape(Movement):
    """x in row-major order with another shape. ONNX Reshape, Flatten, Squeeze, Unsqueeze; np.reshape."""

    shape: tuple[DimLike, ...]

    name: ClassVar[str] = "reshape"
    onnx: ClassVar[str] = "Reshape"

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        if any(isinstance(dim, int) and dim < 0 for dim in self.shape):
            raise AttributeValueError(f"reshape to {self.shape}: negative dim", hint="resolve -1 first: graphc.ops.compose.reshape")
        if surely_differ(x.size, product(self.shape)):
            raise ShapeError(f"cannot reshape {x.size} elements of {x} to {list(self.shape)}")
        return x.with_shape(self.shape)

    def reference(self, *arrays: Array) -> Array:
        return arrays[0].reshape(self.shape)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return [builder.add(Reshape(node.inputs[0].type.shape), grads[0])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        if product(x.shape) != output.size:
            raise ShapeError(f"cannot reshape {list(x.shape)} to {list(output.shape)}")
        shape = output.static_shape
        return Lowering(lambda *index: x[unflatten(flat_index(index, shape), x.shape)])


@register
@dataclass(frozen=True)
class Transpose(Movement):
    """Result axis i is axis perm[i] of x. ONNX Transpose; np.transpose."""

    perm: tuple[int, ...]

    name: ClassVar[str] = "transpose"
    onnx: ClassVar[str] = "Transpose"

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        if sorted(self.perm) != list(range(x.rank)):
            raise AttributeValueError(f"perm {self.perm} is not a permutation of the {x.rank} axes of {x}")
        return x.with_shape(tuple(x.shape[axis] for axis in self.perm))

    def reference(self, *arrays: Array) -> Array:
        return arrays[0].transpose(self.perm)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return [builder.add(Transpose(tuple(self.perm.index(axis) for axis in range(len(self.perm)))), grads[0])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        return Lowering(lambda *index: x[tuple(index[self.perm.index(axis)] for axis in range(len(self.perm)))])


@register
@dataclass(frozen=True)
class Expand(Movement):
    """x repeated along dims of size 1 and new leading dims. ONNX Expand with the broadcast shape given; np.broadcast_to."""

    shape: tuple[DimLike, ...]

    name: ClassVar[str] = "expand"
    onnx: ClassVar[str] = "Expand"

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        tail = self.shape[len(self.shape) - x.rank :]
        if x.rank > len(self.shape) or any(have != 1 and surely_differ(have, want) for have, want in zip(x.shape, tail, strict=True)):
            raise ShapeError(f"cannot expand {x} to {list(self.shape)}", hint="only dims of size 1 expand")
        return x.with_shape(self.shape)

    def reference(self, *arrays: Array) -> Array:
        return np.broadcast_to(arrays[0], self.shape)  # type: ignore[arg-type]

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return [Arithmetic(builder).unbroadcast(grads[0], node.inputs[0].type.shape)]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        shape = output.static_shape
        return Lowering(lambda *index: broadcast(x, index, shape))


@register
@dataclass(frozen=True)
class Slice(Movement):
    """Element i of each axis is x[starts + i * steps], for i < shape. One entry per axis; steps may be negative. ONNX Slice."""

    starts: tuple[DimLike, ...]
    steps: tuple[int, ...]
    shape: tuple[DimLike, ...]

    name: ClassVar[str] = "slice"
    onnx: ClassVar[str] = "Slice"

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        if not len(self.starts) == len(self.steps) == len(self.shape) == x.rank:
            raise AttributeValueError(f"slice of {x} needs one start, step and size per axis")
        for size, start, step, count in zip(x.shape, self.starts, self.steps, self.shape, strict=True):
            if step == 0:
                raise AttributeValueError("slice with step 0")
            if count != 0 and (surely_less(start, 0) or surely_less(size - 1, start) or surely_outside(start + step * (count - 1), size)):
                raise ShapeError(f"slice from {start} by {step}, {count} elements, leaves the axis of size {size}")
        return x.with_shape(self.shape)

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0]
        for axis, (start, step, count) in enumerate(zip(self.starts, self.steps, self.shape, strict=True)):
            x = x.take(int(start) + step * np.arange(int(count)), axis=axis)
        return x

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The elements back in their places, zeros elsewhere."""
        shape, grad, rank = node.inputs[0].type.shape, grads[0], len(self.starts)
        if 0 in self.shape:
            return [zeros(builder, grad, shape)]
        if min(self.steps, default=1) < 0:
            turned = tuple(count - 1 if step < 0 else 0 for step, count in zip(self.steps, self.shape, strict=True))
            grad = builder.add(Slice(turned, tuple(-1 if step < 0 else 1 for step in self.steps), self.shape), grad)
        if any(abs(step) > 1 for step in self.steps):
            grad = builder.add(Dilate(tuple(map(abs, self.steps))), grad)
        rows = zip(self.starts, self.steps, self.shape, strict=True)
        before = tuple(start + (step * (count - 1) if step < 0 else 0) for start, step, count in rows)
        after = tuple(shape[i] - before[i] - grad.type.shape[i] for i in range(rank))
        return [builder.add(Pad(before, after), grad) if any(dim != 0 for dim in (*before, *after)) else grad]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        starts = [int(start) for start in self.starts]
        return Lowering(lambda *index: x[tuple(i * step + start for i, step, start in zip(index, self.steps, starts, strict=True))])


@register
@dataclass(frozen=True)
class Concat(Movement):
    """Inputs one after another along `axis`; all other dims are equal. ONNX Concat; np.concatenate."""

    axis: int

    name: ClassVar[str] = "concat"
    onnx: ClassVar[str] = "Concat"
    inputs: ClassVar[tuple[int, int]] = (1, -1)
    keeps_layout: ClassVar[bool] = True
    ends_kernel: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        first = types[0]
        dtype = same_dtype(self, *types)
        check_axis(self.axis, first)
        for other in types[1:]:
            same = other.rank == first.rank and not any(
                surely_differ(a, b) for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != self.axis
            )
            if not same:
                raise ShapeError(f"concat over axis {self.axis}: {first} and {other} differ elsewhere")
        total: DimLike = 0
        for part in types:
            total = total + part.shape[self.axis]
        return TensorType(dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]))

    def reference(self, *arrays: Array) -> Array:
        return np.concatenate(arrays, axis=self.axis)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        found: list[Value | None] = []
        start: DimLike = 0
        for part in node.inputs:
            starts = tuple(start if axis == self.axis else 0 for axis in range(part.type.rank))
            found.append(builder.add(Slice(starts, (1,) * part.type.rank, part.type.shape), grads[0]))
            start = start + part.type.shape[self.axis]
        return found

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        pieces: list[Piece] = []
        offset = 0
        for x in inputs:
            pieces.append(self._piece(x, offset))
            offset += x.shape[self.axis]
        return Lowering(pieces=tuple(pieces))

    def _piece(self, x: Access, offset: int) -> Piece:
        def place(*index: Expr) -> tuple[Expr, ...]:
            return (*index[: self.axis], index[self.axis] + offset, *index[self.axis + 1 :])

        return Piece(x.shape, place, lambda *index: x[index])


PAD_MODES = ("constant", "reflect", "edge", "wrap")


@register
@dataclass(frozen=True)
class Pad(Movement):
    """`before` and `after` elements added at the ends of each axis; a negative number crops. Optional second input: the value, [] or [1].

    mode: constant (`value`), reflect (the edge is not repeated), edge, wrap. Where one end of an axis is cropped and the other
    padded, the pads see the whole input. ONNX Pad; np.pad.
    """

    before: tuple[DimLike, ...]
    after: tuple[DimLike, ...]
    mode: str = "constant"
    value: float = 0.0

    name: ClassVar[str] = "pad"
    onnx: ClassVar[str] = "Pad"
    inputs: ClassVar[tuple[int, int]] = (1, 2)
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        same_dtype(self, *types)
        if self.mode not in PAD_MODES:
            raise AttributeValueError(f"pad mode {self.mode!r}", hint=f"one of {', '.join(PAD_MODES)}")
        if not len(self.before) == len(self.after) == x.rank:
            raise AttributeValueError(f"pad of {x} needs {x.rank} numbers before and after, got {self.before} and {self.after}")
        if not x.dtype.is_float and not isfinite(self.value):
            raise AttributeValueError(f"pad value {self.value} does not fit {x.dtype}")
        if len(types) == 2 and surely_differ(types[1].size, 1):
            raise ShapeError(f"the pad value must be one element, got {types[1]}")
        for size, low, high in zip(x.shape, self.before, self.after, strict=True):
            if surely_less(size + low + high, 0):
                raise ShapeError(f"pad by {self.before} and {self.after} crops more than {x} has")
            if self.mode != "constant" and size == 0 and low + high > 0:
                raise ShapeError(f"pad mode {self.mode} cannot extend an empty axis of {x}")
        return x.with_shape(tuple(low + size + high for size, low, high in zip(x.shape, self.before, self.after, strict=True)))

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0]
        ends = [(int(low), int(high)) for low, high in zip(self.before, self.after, strict=True)]
        widths = [(max(low, 0), max(high, 0)) for low, high in ends]
        if self.mode == "constant":
            value = arrays[1].reshape(()) if len(arrays) == 2 else np.asarray(self.value, dtype=x.dtype)
            x = np.pad(x, widths, mode="constant", constant_values=value)
        elif self.mode == "reflect":
            x = np.pad(x, widths, mode="reflect")
        else:
            x = np.pad(x, widths, mode="edge") if self.mode == "edge" else np.pad(x, widths, mode="wrap")
        return x[tuple(slice(max(-low, 0), size - max(-high, 0)) for size, (low, high) in zip(x.shape, ends, strict=True))]

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Crop; with a mode that repeats elements, add up what repeats each. A pad value gets what the crop leaves."""
        a, grad, shape = Arithmetic(builder), grads[0], node.inputs[0].type.shape
        if self.mode != "constant":
            return [self._folded(builder, grad, shape)]
        inner = builder.add(Pad(tuple(-low for low in self.before), tuple(-high for high in self.after)), grad)
        if len(node.inputs) == 1:
            return [inner]
        every = tuple(range(len(shape)))
        value = a("sub", a.reduce("sum", grad, every, False), a.reduce("sum", inner, every, False))
        return [inner, a.reshape(value, node.inputs[1].type.shape)]

    def _folded(self, builder: Builder, grad: Value, shape: Shape) -> Value:
        from graphc.ops.resize import resample_transposed  # late: Resample is built on this module

        for axis, (low, high) in enumerate(zip(self.before, self.after, strict=True)):
            if (low, high) != (0, 0):
                size = int(shape[axis])
                where = np.arange(-int(low), size + int(high))
                index = np.array([self._inside(const(int(i), i64), 0, size).attr for i in where], np.int64)[None]
                grad = resample_transposed(builder, grad, axis, index, np.ones(index.shape), size)
        return grad

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, before = inputs[0], [int(low) for low in self.before]
        if self.mode != "constant":
            return Lowering(lambda *index: x[tuple(map(self._inside, index, before, x.shape))])
        zero = const(0, i64)
        default = inputs[1][(zero,) * len(inputs[1].shape)] if len(inputs) == 2 else const(self.value, x.dtype)
        if 0 in x.shape:
            return Lowering(lambda *index: default)
        return Lowering(lambda *index: padded(x, tuple(i - low for i, low in zip(index, before, strict=True)), default))

    def _inside(self, i: Expr, low: int, size: int) -> Expr:
        """The index into the axis that a position of the result repeats."""
        position = i - low
        if self.mode == "edge" or size <= 1:
            return maximum(minimum(position, max(size - 1, 0)), 0)
        if self.mode == "wrap":
            return position % size
        period = 2 * (size - 1)
        return minimum(position % period, period - position % period)


@register
@dataclass(frozen=True)
class Tile(Movement):
    """x repeated `repeats` times along each axis. ONNX Tile; np.tile."""

    repeats: tuple[int, ...]

    name: ClassVar[str] = "tile"
    onnx: ClassVar[str] = "Tile"

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        if len(self.repeats) != x.rank or any(isinstance(n, int) and n < 0 for n in self.repeats):
            raise AttributeValueError(f"tile of {x} needs {x.rank} repeats of at least 0, got {self.repeats}")
        return x.with_shape(tuple(size * n for size, n in zip(x.shape, self.repeats, strict=True)))

    def reference(self, *arrays: Array) -> Array:
        return np.tile(arrays[0], self.repeats)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The sum over the repetitions."""
        a, shape = Arithmetic(builder), node.inputs[0].type.shape
        split = tuple(dim for pair in zip(self.repeats, shape, strict=True) for dim in pair)
        return [a.reduce("sum", a.reshape(grads[0], split), tuple(range(0, len(split), 2)), False)]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        return Lowering(lambda *index: x[tuple(i % max(size, 1) for i, size in zip(index, x.shape, strict=True))])


@register
@dataclass(frozen=True)
class Dilate(Movement):
    """`factors - 1` zeros between neighbours of each axis: size n becomes (n - 1) * factor + 1. The input dilation of a convolution."""

    factors: tuple[int, ...]

    name: ClassVar[str] = "dilate"
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        if len(self.factors) != x.rank or any(factor < 1 for factor in self.factors):
            raise AttributeValueError(f"dilate of {x} needs {x.rank} factors of at least 1, got {self.factors}")
        return x.with_shape(tuple(_dilated(size, factor) for size, factor in zip(x.shape, self.factors, strict=True)))

    def reference(self, *arrays: Array) -> Array:
        x = arrays[0]
        result = np.zeros([_dilated(size, factor) for size, factor in zip(x.shape, self.factors, strict=True)], x.dtype)
        result[tuple(slice(None, None, factor) for factor in self.factors)] = x
        return result

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        shape = node.inputs[0].type.shape
        return [builder.add(Slice((0,) * len(shape), self.factors, shape), grads[0])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs

        def value(*index: Expr) -> Expr:
            result = x[tuple(i // factor for i, factor in zip(index, self.factors, strict=True))]
            for i, factor in zip(index, self.factors, strict=True):
                if factor > 1:
                    result = select(equal(i % factor, 0), result, const(0, x.dtype))
            return result

        return Lowering(value)


def _dilated(size: DimLike, factor: int) -> DimLike:
    return 0 if size == 0 else (size - 1) * factor + 1


def zeros(builder: Builder, like: Value, shape: Shape) -> Value:
    """Zeros of a shape, in the dtype of a value."""
    return Arithmetic(builder).expand(builder.constant(0, like.type.dtype, name="zero"), shape)


def check_axis(axis: int, x: TensorType) -> None:
    """An AttributeValueError unless 0 <= axis < rank."""
    if not 0 <= axis < x.rank:
        raise AttributeValueError(f"axis {axis} of {x}", hint=f"axes of a rank {x.rank} tensor are 0 to {x.rank - 1}")


def surely_less(a: DimLike, b: DimLike) -> bool:
    """a < b for every size of the symbols (False where that cannot be decided)."""
    difference = b - a
    if not isinstance(difference, Dim):
        return difference > 0
    try:
        return difference > 0
    except ShapeError:
        return False


def surely_differ(a: DimLike, b: DimLike) -> bool:
    """a != b for every size of the symbols (False where that cannot be decided)."""
    return surely_less(a, b) or surely_less(b, a)


def surely_outside(index: DimLike, size: DimLike) -> bool:
    """Not 0 <= index < size, for every size of the symbols."""
    return surely_less(index, 0) or surely_less(size - 1, index)
