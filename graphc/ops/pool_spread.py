"""The transpose of a sum over windows: what average pooling does to gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as positions
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.op import Array, Cost, Lowering, register
from graphc.kernel.access import Access, padded
from graphc.kernel.expr import Expr, const, reduce, select
from graphc.kernel.index import simplify
from graphc.ops.express import Arithmetic
from graphc.ops.pool import AvgPool, Pool
from graphc.types.dtype import bool_
from graphc.types.shape import DimLike, static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class PoolSpread(Pool):
    """y[n, c, i] = the sum of x over the windows that hold position i. x has the shape of the pooled tensor, `shape` is that of y; the
    other attributes are those of the pool, with dilation 1."""

    shape: tuple[DimLike, ...] = ()

    name: ClassVar[str] = "pool_spread"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        pooled = super().infer(x.with_shape(self.shape))
        if x.shape != pooled.shape or any(d != 1 for d in self.dilation):
            raise ShapeError(f"{self.name} to {list(self.shape)} needs {list(pooled.shape)} and dilation 1, got {x}")
        return x.with_shape(self.shape)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        sizes = [int(n) for n in self.shape]
        rows = zip(sizes[2:], x.shape[2:], self.pad_before, self.stride, self.kernel, strict=True)
        room = [max(size + before, (count - 1) * s + k) for size, count, before, s, k in rows]
        result = np.zeros([*sizes[:2], *room], x.dtype)
        for tap in positions(*map(range, self.kernel)):
            at: tuple[Any, ...] = tuple(slice(t, t + (n - 1) * s + 1, s) for t, n, s in zip(tap, x.shape[2:], self.stride, strict=True))
            result[(..., *at)] += x
        inner: tuple[Any, ...] = tuple(slice(before, before + size) for before, size in zip(self.pad_before, sizes[2:], strict=True))
        return np.ascontiguousarray(result[(..., *inner)])

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The sum of each window."""
        fields = (self.kernel, self.stride, self.dilation, self.pad_before, self.pad_after, self.ceil)
        pool = AvgPool(*fields)
        windows = builder.add(pool, grads[0])
        counts = pool.counts(static(tuple(self.shape[2:])), static(windows.type.shape[2:]))
        return [Arithmetic(builder)("mul", windows, builder.constant(counts, windows.type.dtype, name="counts"))]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One addition per element of every window."""
        return Cost(int(types[0].size) * prod(self.kernel), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """Position i lies in the windows (i + pad) // stride - j for j = 0, 1, ... as long as they reach that far."""
        (x,) = inputs
        most = tuple(-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))

        def value(n: Expr, c: Expr, *i: Expr) -> Expr:
            places = [at + before for at, before in zip(i, self.pad_before, strict=True)]

            def term(*j: Expr) -> Expr:
                window = [place // s - back for place, s, back in zip(places, self.stride, j, strict=True)]
                held: Expr = const(True, bool_)
                for place, s, k, back in zip(places, self.stride, self.kernel, j, strict=True):
                    held = held if k % s == 0 else held & (simplify(place % s + back * s) < k)
                return select(held, padded(x, (n, c, *window), 0), const(0, x.dtype))

            return reduce("sum", most, term)

        return Lowering(value)
