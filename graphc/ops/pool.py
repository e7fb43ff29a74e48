"""Pooling: a value of every window of the spatial dims, layout (N, C, *spatial), 1 to 3 spatial dims.

Window o of an axis holds the positions o*stride + t*dilation - pad_before for 0 <= t < kernel; padding is no element (max), counts as
zero (average with `count_include_pad`, lp), or is left out (average). Global pooling is a Reduce over the spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product as positions
from math import inf, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Lowering, Op, need_float, register
from graphc.kernel.access import Access, flat_index, padded, unflatten
from graphc.kernel.expr import Expr, call, cast, const, equal, maximum, minimum, reduce, select
from graphc.kernel.index import simplify
from graphc.ops.conv import ConvTranspose, check_conv
from graphc.ops.express import Arithmetic
from graphc.ops.movement import surely_less
from graphc.types.dtype import bool_, dtype, i64
from graphc.types.shape import DimLike, Shape, static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

NOWHERE = (1 << 63) - 1  # an index that no element has


@dataclass(frozen=True)
class Pool(Op):
    """Base of the pools. One entry per spatial dim; pads are at least 0.

    Output size: (size + pads - dilation*(kernel-1) - 1) / stride + 1, rounded down, or up with `ceil`; a window that would start behind
    the input and `pad_before` is dropped. With `ceil` the kernel may be larger than the padded input (ONNX Runtime, PyTorch).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_before: tuple[int, ...]
    pad_after: tuple[int, ...]
    ceil: bool = False

    family: ClassVar[str] = "window"
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        x = types[0]
        self.check_dtype(x)
        if len(self.kernel) != x.rank - 2 or min(self.kernel, default=0) < 1:
            raise AttributeValueError(f"{self.name} of {x} needs {x.rank - 2} kernel sizes of at least 1, got {self.kernel}")
        check_conv(self, x, x, self.stride, self.dilation, self.pad_before, self.pad_after)
        return TensorType(x.dtype, (*x.shape[:2], *(self._windows(axis, size) for axis, size in enumerate(x.shape[2:]))))

    def check_dtype(self, x: TensorType) -> None:
        need_float(self, x)

    def _windows(self, axis: int, size: DimLike) -> DimLike:
        """How many windows an axis has."""
        stride, before = self.stride[axis], self.pad_before[axis]
        room = size + before + self.pad_after[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        if surely_less(room + (stride - 1 if self.ceil else 0), 0):
            raise ShapeError(f"{self.name}: kernel {self.kernel[axis]} exceeds the padded spatial dim {axis} of size {size}")
        if not self.ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        starts_inside = surely_less(room + stride - 1, size + before) or (count - 1) * stride < size + before
        return count if starts_inside else count - 1

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One operation per element of every window."""
        return Cost(int(outputs[0].size) * prod(self.taps(static(types[0].shape))), types[0].nbytes + outputs[0].nbytes)

    def taps(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The kernel without the positions that lie behind the input for every window (a kernel may be larger than the input)."""
        rows = zip(self.kernel, shape[2:], self.pad_before, self.dilation, strict=True)
        return tuple(min(k, (size + before - 1) // d + 1) for k, size, before, d in rows)

    def windows(self, x: Array, fill: Any) -> Iterator[Array]:
        """For every kernel position the elements that it meets, shaped as the output; `fill` outside of x."""
        counts = [int(self._windows(axis, size)) for axis, size in enumerate(x.shape[2:])]
        taps = self.taps(x.shape)
        ends = [(n - 1) * s + d * max(k - 1, 0) + 1 for n, s, d, k in zip(counts, self.stride, self.dilation, taps, strict=True)]
        rows = zip(x.shape[2:], self.pad_before, ends, strict=True)
        widths = [(0, 0), (0, 0), *((before, max(end - before - size, 0)) for size, before, end in rows)]
        x = np.pad(x, widths, constant_values=fill)
        for tap in positions(*map(range, taps)):
            starts = [t * d for t, d in zip(tap, self.dilation, strict=True)]
            at: tuple[Any, ...] = tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, counts, self.stride, strict=True))
            yield x[(slice(None), slice(None), *at)]

    def spread(self, builder: Builder, grad: Value, shape: Shape) -> Value:
        """The sum, for every element of an input of `shape`, of grad over the windows that hold it."""
        if all(d == 1 for d in self.dilation):
            from graphc.ops.pool_spread import PoolSpread  # late: it builds on this module

            fields = (self.kernel, self.stride, self.dilation, self.pad_before, self.pad_after, self.ceil)
            return builder.add(PoolSpread(*fields, tuple(shape)), grad)
        taps = self.taps(static(shape))
        rows = zip(shape[2:], grad.type.shape[2:], taps, self.stride, self.dilation, self.pad_before, strict=True)
        after = static(tuple((count - 1) * s + d * (k - 1) + 1 - size - before for size, count, k, s, d, before in rows))
        channels = static(shape[1:2])[0]
        ones = builder.constant(np.ones((channels, 1, *taps), grad.type.dtype.numpy), name="ones")
        op = ConvTranspose(self.stride, self.dilation, self.pad_before, after, (0,) * len(taps), channels)
        return builder.add(op, grad, ones)

    def position(self, outer: Sequence[Expr], taps: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where kernel position `taps` of window `outer` lies in the input."""
        rows = zip(outer, taps, self.stride, self.dilation, self.pad_before, strict=True)
        return tuple(o * s + t * d - p for o, t, s, d, p in rows)

    def gather(self, x: Access, combiner: str, fill: float, element: Callable[[Expr], Expr] = lambda value: value) -> Callable[..., Expr]:
        """`combiner` over `element` of every window."""

        def value(n: Expr, c: Expr, *o: Expr) -> Expr:
            return reduce(combiner, self.taps(x.shape), lambda *t: element(padded(x, (n, c, *self.position(o, t)), fill)))

        return value


@register
@dataclass(frozen=True)
class MaxPool(Pool):
    """The largest element of each window; NaN wins. A window without an element gives the lowest value. Numbers of any dtype.

    ONNX MaxPool without indices; torch max_pool.
    """

    name: ClassVar[str] = "max_pool"
    onnx: ClassVar[str] = "MaxPool"

    def check_dtype(self, x: TensorType) -> None:
        _need_number(self, x)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        fill = lowest(x.dtype)
        result: Array | None = None
        for part in self.windows(x, fill):
            result = part.copy() if result is None else np.maximum(result, part)
        return np.full([int(n) for n in _shape_of(self, x)], fill, x.dtype) if result is None else result

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad at the first largest element of each window."""
        (x,) = node.inputs
        fields = (self.kernel, self.stride, self.dilation, self.pad_before, self.pad_after, self.ceil)
        return [builder.add(MaxPoolScatter(*fields, x.type.shape), builder.add(MaxPoolIndices(*fields), x), grads[0])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        return Lowering(self.gather(inputs[0], "max", lowest(output.dtype.numpy)))


@register
@dataclass(frozen=True)
class MaxPoolIndices(Pool):
    """Where the largest element of each window lies: i64, the row-major position in the whole of x; the first one of equals.

    storage_order 1: the spatial part is counted column-major. NaN counts as the largest; -1 for a window without an element. ONNX
    MaxPool's second output.
    """

    storage_order: int = 0

    name: ClassVar[str] = "max_pool_indices"
    not_differentiable: ClassVar[str] = "positions do not depend on the data in a differentiable way"

    def check_dtype(self, x: TensorType) -> None:
        _need_number(self, x)
        if self.storage_order not in (0, 1):
            raise AttributeValueError(f"storage_order must be 0 or 1, got {self.storage_order}")

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(i64, super().infer(*types).shape)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        flat = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        best = MaxPool(self.kernel, self.stride, self.dilation, self.pad_before, self.pad_after, self.ceil).reference(x)
        first = np.full(best.shape, NOWHERE, dtype=np.int64)
        for part, where in zip(self.windows(x, lowest(x.dtype)), self.windows(flat, -1), strict=True):
            first = np.where((where >= 0) & ((part == best) | (part != part)), np.minimum(first, where), first)
        inside = first != NOWHERE
        return np.where(inside, self._stored(np.where(inside, first, 0), x.shape), -1)

    def _stored(self, flat: Array, shape: tuple[int, ...]) -> Array:
        if self.storage_order == 0 or not prod(shape):
            return flat
        plane = prod(shape[2:])
        inner = np.unravel_index(flat % plane, shape[2:])
        return flat // plane * plane + sum(i * prod(shape[2 : 2 + axis]) for axis, i in enumerate(inner))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        positions_of = Access(x.shape, i64, lambda index: flat_index(index, x.shape))
        fill = lowest(x.dtype.numpy)

        def value(n: Expr, c: Expr, *o: Expr) -> Expr:
            best = self.gather(x, "max", fill)(n, c, *o)

            def candidate(*t: Expr) -> Expr:
                at = (n, c, *self.position(o, t))
                element = padded(x, at, fill)
                hit = equal(element, best)
                if x.dtype.is_float:
                    hit = hit | call("isnan", element)
                return select(hit, padded(positions_of, at, NOWHERE), const(NOWHERE, i64))

            first = reduce("min", self.taps(x.shape), candidate)
            return select(equal(first, NOWHERE), const(-1, i64), self._column_major(first, x.shape))

        return Lowering(value)

    def _column_major(self, flat: Expr, shape: tuple[int, ...]) -> Expr:
        if self.storage_order == 0 or not prod(shape):
            return flat
        plane = prod(shape[2:])
        total = flat // plane * plane
        for axis, i in enumerate(unflatten(flat % plane, shape[2:])):
            total = total + i * prod(shape[2 : 2 + axis])
        return total


@register
@dataclass(frozen=True)
class MaxPoolScatter(Pool):
    """The gradient of MaxPool: of the inputs `where` (i64, MaxPoolIndices of x) and grad, both of the shape of the result, the sum of grad
    over the windows whose largest element is that of x. `shape` is that of x; the other attributes are those of the pool.
    """

    shape: tuple[DimLike, ...] = ()

    name: ClassVar[str] = "max_pool_scatter"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    not_differentiable: ClassVar[str] = "second derivatives of pooling are not supported"

    def infer(self, *types: TensorType) -> TensorType:
        where, grad = types
        pooled = Pool.infer(self, grad.with_shape(self.shape))
        if where.dtype != i64 or where.shape != grad.shape or grad.shape != pooled.shape:
            raise ShapeError(f"{self.name} to {list(self.shape)} needs two inputs of {list(pooled.shape)}, got {where} and {grad}")
        return grad.with_shape(self.shape)

    def reference(self, *arrays: Array) -> Array:
        where, grad = arrays
        result = np.zeros([int(n) for n in self.shape], grad.dtype)
        held = where >= 0
        np.add.at(result.reshape(-1), where[held], grad[held])
        return result

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One comparison and one addition per element of every window."""
        return Cost(2 * int(types[1].size) * prod(self.taps(static(self.shape))), sum(t.nbytes for t in (*types, *outputs)))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """The windows that hold position i of an axis start at i + pad - t * dilation, where the stride divides that."""
        where, grad = inputs
        shape = output.static_shape

        def value(n: Expr, c: Expr, *i: Expr) -> Expr:
            mine = flat_index((n, c, *i), shape)

            def term(*t: Expr) -> Expr:
                starts = [at + p - k * d for at, k, d, p in zip(i, t, self.dilation, self.pad_before, strict=True)]
                window = (n, c, *(start // s for start, s in zip(starts, self.stride, strict=True)))
                hit = equal(padded(where, window, -1), mine)
                for start, s in zip(starts, self.stride, strict=True):
                    hit = hit & equal(start % s, 0) if s > 1 else hit
                return select(hit, padded(grad, window, 0), const(0, grad.dtype))

            return reduce("sum", self.taps(shape), term)

        return Lowering(value)


@register
@dataclass(frozen=True)
class AvgPool(Pool):
    """The mean of each window, over its elements, or with `count_include_pad` over its positions in the padded input.

    Positions behind the padded input (only with `ceil`) never count. A window without an element gives 0. Accumulates in the dtype of
    x. ONNX AveragePool; torch avg_pool.
    """

    count_include_pad: bool = False

    name: ClassVar[str] = "avg_pool"
    onnx: ClassVar[str] = "AveragePool"

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        total = np.zeros([int(n) for n in _shape_of(self, x)], x.dtype)
        for part in self.windows(x, 0):
            total = total + part
        mean: Array = total / self.counts(x.shape[2:], total.shape[2:]).astype(x.dtype)
        return mean

    def counts(self, sizes: Sequence[int], windows: Sequence[int]) -> Array:
        """How many positions of each window count, at least 1: the shape of the spatial dims of the result."""
        counts = np.ones((), dtype=np.int64)
        for axis, size in enumerate(sizes):
            low, high = (-self.pad_before[axis], size + self.pad_after[axis]) if self.count_include_pad else (0, size)
            start = np.arange(windows[axis])[:, None] * self.stride[axis] - self.pad_before[axis]
            where = start + np.arange(self.kernel[axis]) * self.dilation[axis]
            counts = counts[..., None] * ((where >= low) & (where < high)).sum(axis=1)
        return np.maximum(counts, 1)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Grad over the number of counted positions, in all windows that hold an element."""
        (x,) = node.inputs
        a, counts = Arithmetic(builder), self.counts(static(x.type.shape[2:]), static(grads[0].type.shape[2:]))
        if counts.size and (counts == counts.flat[0]).all():
            return [a("mul", self.spread(builder, grads[0], x.type.shape), 1.0 / float(counts.flat[0]))]
        share = a("div", grads[0], builder.constant(counts, x.type.dtype, name="counts"))
        return [self.spread(builder, share, x.type.shape)]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        total = self.gather(x, "sum", 0.0)

        def value(n: Expr, c: Expr, *o: Expr) -> Expr:
            count = const(1, i64)
            for axis, i in enumerate(o):
                count = count * self._count(axis, i, x.shape[2 + axis])
            return total(n, c, *o) / cast(simplify(maximum(count, 1)), x.dtype)

        return Lowering(value)

    def _count(self, axis: int, o: Expr, size: int) -> Expr:
        """How many positions of window o count."""
        start = o * self.stride[axis] - self.pad_before[axis]
        dilation, end = self.dilation[axis], size + (self.pad_after[axis] if self.count_include_pad else 0)
        last = minimum((end - 1 - start) // dilation, self.kernel[axis] - 1)
        if self.count_include_pad:
            return simplify(last + 1)
        first = maximum((dilation - 1 - start) // dilation, 0)
        return simplify(maximum(last + 1 - first, 0))


@register
@dataclass(frozen=True)
class LpPool(Pool):
    """(sum of abs(x)**p over each window) ** (1/p); padding adds nothing. Accumulates in the dtype of x. ONNX LpPool."""

    p: int = 2

    name: ClassVar[str] = "lp_pool"
    onnx: ClassVar[str] = "LpPool"
    tolerance: ClassVar[float] = 8.0

    def check_dtype(self, x: TensorType) -> None:
        need_float(self, x)
        if self.p < 1:
            raise AttributeValueError(f"lp_pool with p={self.p}", hint="p is at least 1")

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        total = np.zeros([int(n) for n in _shape_of(self, x)], x.dtype)
        for part in self.windows(x, 0):
            total = total + abs(part) ** self.p
        root: Array = total ** np.asarray(1 / self.p, x.dtype)
        return root

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """sign(x) abs(x)**(p-1), times grad y**(1-p) of all windows that hold x; nothing where y is 0."""
        a, (x,), y = Arithmetic(builder), node.inputs, node.output
        sign = a("sign", x)
        if self.p == 1:
            return [a("mul", sign, self.spread(builder, grads[0], x.type.shape))]
        scaled = a("where", a("greater", y, 0.0), a("mul", grads[0], a("pow", y, 1.0 - self.p)), a.value(0.0, y.type.dtype))
        slope = a("mul", sign, a("pow", a("abs", x), self.p - 1.0))
        return [a("mul", slope, self.spread(builder, scaled, x.type.shape))]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        if self.p == 1:
            return Lowering(self.gather(x, "sum", 0.0, abs))
        if self.p == 2:
            squares = self.gather(x, "sum", 0.0, lambda v: v * v)
            return Lowering(lambda *index: call("sqrt", squares(*index)))
        powers = self.gather(x, "sum", 0.0, lambda v: call("pow", abs(v), float(self.p)))
        return Lowering(lambda *index: call("pow", powers(*index), 1 / self.p))


def lowest(of: np.dtype[Any]) -> float:
    """The least value of a dtype: the maximum of nothing."""
    return -inf if of.kind == "f" else int(np.iinfo(of).min)


def _shape_of(pool: Pool, x: Array) -> tuple[DimLike, ...]:
    return pool.infer(TensorType(dtype(x.dtype), x.shape)).shape


def _need_number(op: Op, x: TensorType) -> None:
    if x.dtype == bool_:
        raise TypeMismatchError(f"{op.name} of bool", hint="insert a cast")
