"""Grid sampling: interpolation at positions that are data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as positions
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Lowering, Op, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, call, cast, const, maximum, minimum, reduce, select
from graphc.ops.movement import surely_differ
from graphc.ops.resize import cubic
from graphc.types.dtype import bool_, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
PADDING = ("zeros", "border", "reflection")
CUBIC = -0.75
FAR = float(1 << 31)  # positions are clamped to this, so that their neighbours are integers


@register
@dataclass(frozen=True)
class GridSample(Op):
    """y[n, c, *o] = x[n, c] interpolated at the position grid[n, *o], which is (x, y, z): the last spatial dim of x first.

    x (N, C, *sizes), grid (N, *out, number of sizes), float. A position of -1..1 covers an axis, from the centres of its end elements
    (align_corners) or from their outer edges. padding_mode: outside of x are zeros, its border, or its reflection. nearest takes any
    dtype of x and rounds half to even, linear and cubic (a = -0.75) take floats; computed in the dtype of the grid. A position that is
    NaN gives NaN (nearest: the element 0). Padding applies to each element that is read, also in cubic (ONNX Runtime, PyTorch).
    ONNX GridSample; torch grid_sample.
    """

    mode: str = "linear"
    padding_mode: str = "zeros"
    align_corners: bool = False

    name: ClassVar[str] = "grid_sample"
    onnx: ClassVar[str] = "GridSample"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "gather"
    tolerance: ClassVar[float] = 16.0

    def infer(self, *types: TensorType) -> TensorType:
        x, grid = types
        if self.mode not in TAPS or self.padding_mode not in PADDING:
            raise AttributeValueError(f"grid_sample with mode {self.mode!r} and padding {self.padding_mode!r}")
        if not grid.dtype.is_float or (self.mode != "nearest" and not x.dtype.is_float):
            raise TypeMismatchError(f"grid_sample of {x} at {grid}", hint="floats; only nearest takes other dtypes")
        if x.rank < 3 or grid.rank != x.rank or surely_differ(x.shape[0], grid.shape[0]) or surely_differ(grid.shape[-1], x.rank - 2):
            raise ShapeError(f"grid_sample of {x} needs a grid (N, *out, {x.rank - 2}), got {grid}")
        if 0 in x.shape[2:] and 0 not in grid.shape:
            raise ShapeError(f"grid_sample of the empty {x}")
        return x.with_shape((*x.shape[:2], *grid.shape[1:-1]))

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per tap of every output element."""
        return Cost(2 * TAPS[self.mode] ** (types[0].rank - 2) * int(outputs[0].size), sum(t.nbytes for t in (*types, *outputs)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """See `grid_sample_gradient`."""
        from graphc.ops.grid_sample_gradient import grid_sample_gradient  # late: it builds on other ops

        return grid_sample_gradient(self, builder, node, grads[0])

    # numpy ------------------------------------------------------------------------------------------------------------------

    def reference(self, *arrays: Array) -> Array:
        x, grid = arrays
        sizes, taps = x.shape[2:], TAPS[self.mode]
        where = [self._np_position(grid[..., len(sizes) - 1 - d], size) for d, size in enumerate(sizes)]
        first = [np.floor(p) - (taps // 2 - 1 if taps > 1 else 0) for p in where]
        whole = [np.where(np.isnan(f), 0, f).astype(np.int64) for f in first]
        batch = np.arange(x.shape[0]).reshape(-1, *(1,) * (grid.ndim - 2))
        total = np.zeros((*grid.shape[:-1], x.shape[1]), x.dtype)
        for tap in positions(range(taps), repeat=len(sizes)):
            inside, at, weight = np.ones(grid.shape[:-1], bool), [], np.ones(grid.shape[:-1], grid.dtype)
            for d, size in enumerate(sizes):
                index = whole[d] + tap[d]
                inside &= (index >= 0) & (index < size) | (self.padding_mode != "zeros")
                at.append(self._np_inside(index, size))
                weight = weight * self._np_weight(abs(where[d] - first[d] - tap[d]))
            element = np.moveaxis(x, 1, -1)[(batch, *at)]
            value = np.where(inside[..., None], element, 0)
            total = value.astype(x.dtype) if taps == 1 else (total + value * weight[..., None]).astype(x.dtype)
        return np.moveaxis(total, -1, 1)

    def _np_position(self, g: Array, size: int) -> Array:
        """From -1..1 to elements (nearest: to a whole one)."""
        half = np.asarray(0.5, g.dtype)
        p = (g + 1) * half * (size - 1) if self.align_corners else ((g + 1) * size - 1) * half
        p = np.minimum(np.maximum(p, -FAR), FAR).astype(g.dtype)
        found: Array = np.round(p) if self.mode == "nearest" else p
        return found

    def _np_inside(self, index: Array, size: int) -> Array:
        if self.padding_mode == "reflection":
            period = max(2 * (size - 1) if self.align_corners else 2 * size, 1)
            index = np.mod(index, period)
            index = np.minimum(index, period - index if self.align_corners else period - 1 - index)
        inside: Array = np.clip(index, 0, max(size - 1, 0))
        return inside

    def _np_weight(self, distance: Array) -> Array:
        if self.mode == "nearest":
            return np.ones_like(distance)
        weight: Array = 1 - distance if self.mode == "linear" else cubic(distance, CUBIC)
        return weight.astype(distance.dtype)

    # native -----------------------------------------------------------------------------------------------------------------

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, grid = inputs
        sizes, taps = x.shape[2:], TAPS[self.mode]

        def value(n: Expr, c: Expr, *o: Expr) -> Expr:
            rank = len(sizes)
            where = [self._position(grid[(n, *o, const(rank - 1 - d, i64))], size) for d, size in enumerate(sizes)]
            first = [call("floor", p) - float(taps // 2 - 1 if taps > 1 else 0) for p in where]

            def term(*tap: Expr) -> Expr:
                inside, at = const(True, bool_), []
                for start, t, size in zip(first, tap, sizes, strict=True):
                    index = cast(start, i64) + t
                    if self.padding_mode == "zeros":
                        inside = inside & (index >= 0) & (index < size)
                    at.append(self._inside(index, size))
                element = select(inside, x[(n, c, *at)], const(0, x.dtype))
                if self.mode == "nearest":
                    return element
                weight = const(1, grid.dtype)
                for p, start, t in zip(where, first, tap, strict=True):
                    weight = weight * self._weight(abs(p - start - cast(t, grid.dtype)))
                return element * cast(weight, x.dtype)

            return term(*(const(0, i64) for _ in sizes)) if taps == 1 else reduce("sum", (taps,) * rank, term)

        return Lowering(value)

    def _position(self, g: Expr, size: int) -> Expr:
        p = (g + 1.0) * 0.5 * float(size - 1) if self.align_corners else ((g + 1.0) * float(size) - 1.0) * 0.5
        p = minimum(maximum(p, -FAR), FAR)
        return call("round", p) if self.mode == "nearest" else p

    def _inside(self, index: Expr, size: int) -> Expr:
        if self.padding_mode == "reflection":
            period = max(2 * (size - 1) if self.align_corners else 2 * size, 1)
            index = index % period
            index = minimum(index, period - index if self.align_corners else period - 1 - index)
        return maximum(minimum(index, max(size - 1, 0)), 0)

    def _weight(self, distance: Expr) -> Expr:
        if self.mode == "linear":
            return 1.0 - distance
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * (distance * distance) + 1.0
        far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
        return select(distance <= 1.0, near, far)
