"""Convolutions with few output channels: vectors lie along the last spatial dim, output channels are the rows of the register tile.

For plain maps (row-major, no blocks of channels) and a stride of 1 along rows. Where blocks of channels would leave most lanes empty, as
with the 6 channels of LeNet-5, this wastes only what the end of a row leaves of its last vector. Kernel rows that meet nothing but padding
for all rows of a tile are left out: of the gradient of an unpadded 5x5 convolution on 10 rows those are 23 % of the work. So a weight that
is infinite or NaN makes a NaN of padding only where its row of the kernel meets the map for some row of the tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from graphc.ir.graph import Array
from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.kernels.conv_plan import check_conv, spatial_indices
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.epilogue import Axis, Destination, TileEpilogue
from graphc_cpu.micro.outer import OuterTile, Pixels
from graphc_cpu.micro.shape import Split, max_pixels, split, tile_cost


def is_rowwise(spec: ConvSpec, target: Target) -> bool:
    """Plain maps, one group, stride 1 along rows, and output channels for less than a vector."""
    plain = not spec.x.layout.is_blocked and not spec.output.layout.is_blocked
    return plain and spec.groups == 1 and spec.stride[-1] == 1 and spec.weight_shape[0] <= target.lanes(spec.x.dtype) // 2


def pack_rows_weight(spec: ConvSpec, w: Array) -> Array:
    """(OC, IC, *kernel) -> [input channel][kernel position][output channel]."""
    return np.ascontiguousarray(w.reshape(*spec.weight_shape[:2], -1).transpose(1, 2, 0), spec.x.dtype.numpy).ravel()


def emit_conv_rows(spec: ConvSpec, target: Target, name: str) -> Function:
    """The kernel. Raises as `conv_plan.check_conv` does."""
    check_conv(spec, target)
    return _ConvRows(spec, target, name).emit()


class _ConvRows:
    def __init__(self, spec: ConvSpec, target: Target, name: str) -> None:
        self.spec, self.target, self.f = spec, target, kernel_function(name)
        self.lanes, self.element = target.lanes(spec.x.dtype), scalar_type(spec.x.dtype)
        self.channels = spec.weight_shape[0]
        *self.outer, height, width = (1, *spec.output.shape[2:]) if len(spec.stride) == 1 else spec.output.shape[2:]
        most = _most_vectors(target, self.channels)
        vectors = -(-width // self.lanes)
        self.columns = split(vectors, min(vectors, most))
        self.rows = min((split(height, count) for count in range(max(1, most // self.columns.width), 0, -1)), key=self._cost)
        full = (0, spec.weight_shape[-2])
        self.bounded = any(self._reach(first, width) != full for first, width in _parts(self.rows))
        self.column_kinds = pieces(self.columns, self.lanes, width % self.lanes or self.lanes)

    def _cost(self, rows: Split) -> float:
        """Of a column of tiles."""
        steps = prod(self.spec.weight_shape[1:]) // self.spec.weight_shape[-2]
        tiles = [(width, steps * self._reach(first, width)[1]) for first, width in _parts(rows)]
        return sum(tile_cost(self.channels, width * self.columns.width, taps) for width, taps in tiles)

    def _reach(self, first: int, rows: int) -> tuple[int, int]:
        """(first, count) of the kernel rows that meet the map for one of `rows` rows of the output; one of them, if none does."""
        last = self.spec.weight_shape[-2] - 1
        if len(self.spec.stride) == 1:
            return 0, last + 1
        stride, dilation, pad = self.spec.stride[-2], self.spec.dilation[-2], self.spec.pad[-2]
        low = min(-(-max(pad - (first + rows - 1) * stride, 0) // dilation), last)
        high = min(max(self.spec.x.shape[-2] - 1 + pad - first * stride, 0) // dilation, last)
        return low, max(high - low, 0) + 1

    def _reach_at_run_time(self, first: Value, rows: int) -> tuple[Value, Value]:
        """`_reach` of a row that is known at run time."""
        f, last = self.f, self.spec.weight_shape[-2] - 1
        stride, dilation, pad = self.spec.stride[-2], self.spec.dilation[-2], self.spec.pad[-2]
        zero, top = i64(0), f.mul(first, stride)

        def bounded(value: Value) -> Value:
            """Kernel rows of so many rows of the map, or the last."""
            positive = f.call("llvm.smax.i64", "i64", value, zero)
            return f.call("llvm.smin.i64", "i64", f.op(f"udiv i64 {positive.name}, {dilation}", "i64"), i64(last))

        low = bounded(f.sub(i64(pad - (rows - 1) * stride + dilation - 1), top))
        high = bounded(f.sub(i64(self.spec.x.shape[-2] - 1 + pad), top))
        return low, f.add(f.call("llvm.smax.i64", "i64", f.sub(high, low), zero), 1)

    def emit(self) -> Function:
        f, spec = self.f, self.spec
        self.pointers = operand_pointers(f, len(spec.operands))
        outer = {f"outer{d}": size for d, size in enumerate(self.outer)}
        for_items(f, {"n": spec.output.shape[0], **outer, "row": self.rows.parts, "column": self.columns.parts}, self._item)
        return f

    def _item(self, digits: Mapping[str, Value]) -> None:
        for_kinds(self.f, digits["row"], pieces(self.rows), lambda rows:
            for_kinds(self.f, digits["column"], self.column_kinds, lambda columns: self._tile(digits, rows.width, columns)))  # fmt: skip

    def _tile(self, digits: Mapping[str, Value], rows: int, columns: Piece) -> None:
        f, spec, x = self.f, self.spec, self.spec.x
        first = f.mul(start_of(f, digits["column"], self.columns), self.lanes)
        position = [*(digits[f"outer{d}"] for d in range(len(self.outer))), start_of(f, digits["row"], self.rows), first]
        steps = [s * step for s, step in zip(spec.stride, x.strides[2:], strict=True)]
        steps = [0] * (len(position) - len(steps)) + steps
        offset = f.mul(digits["n"], x.strides[0])
        for digit, step in zip(position, steps, strict=True):
            offset = f.add(offset, f.mul(digit, step))
        origin = x.origin - sum(p * step for p, step in zip(spec.pad, x.strides[2:], strict=True))
        source = f.pointer(self.pointers[0], f.add(offset, origin), self.element)
        vectors = [r * steps[-2] + c * self.lanes for r in range(rows) for c in range(columns.width)]
        sums, weights = self._sum(), self.pointers[1]
        if self.bounded:
            dim = sums[-2]
            low, count = self._reach_at_run_time(position[-2], rows)
            source, weights = (f.pointer(at, f.mul(low, step), self.element) for at, step in ((source, dim.g), (weights, dim.x)))
            sums[-2] = replace(dim, count=count)
        tile = OuterTile(f, x.dtype, self.lanes, range(self.channels), vectors, sums)
        zero = Value("zeroinitializer", vector_type(self.element, self.lanes))
        acc = tile.sums(weights, source, [zero] * (self.channels * len(vectors)))
        epilogue = self._epilogue(digits["n"], position, rows, columns.width)
        for i, value in enumerate(acc):
            channel, block = divmod(i, len(vectors))
            last = block % columns.width == columns.width - 1
            epilogue.store(value, channel, block, columns.valid if last else self.lanes)

    def _sum(self) -> list[Pixels]:
        """Input channels and kernel positions, in the order of the packed weights."""
        spec, kernel = self.spec, self.spec.weight_shape[2:]
        dims = [Pixels(spec.weight_shape[1], prod(kernel) * self.channels, spec.x.strides[1])]
        for d, (extent, dilation) in enumerate(zip(kernel, spec.dilation, strict=True)):
            dims.append(Pixels(extent, prod(kernel[d + 1 :]) * self.channels, dilation * spec.x.strides[2 + d]))
        return dims

    def _epilogue(self, n: Value, position: list[Value], rows: int, columns: int) -> TileEpilogue:
        spec, index = self.spec, self.spec.epilogue.index
        axes = {index[0]: Axis(n), index[1]: Axis(i64(0), by_pixel=tuple(range(self.channels)))}
        spatial = spatial_indices(spec)
        axes |= dict(zip(spatial[::-1], map(Axis, position[::-1]), strict=False))
        axes[spatial[-1]] = Axis(position[-1], by_block=tuple(c * self.lanes for _ in range(rows) for c in range(columns)), vector=True)
        if len(spatial) > 1:
            axes[spatial[-2]] = Axis(position[-2], by_block=tuple(r for r in range(rows) for _ in range(columns)))
        place = Destination(len(spec.operands) - 1, spec.output.physical_offset(index), spec.output, False)
        return TileEpilogue(self.f, self.target, self.lanes, self.pointers, spec.epilogue, axes, place)


def _parts(rows: Split) -> Iterator[tuple[int, int]]:
    """(first, count) of the rows of each tile."""
    first = 0
    for start, stop, width in rows.ranges:
        for _ in range(start, stop):
            yield first, width
            first += width


def _most_vectors(target: Target, channels: int) -> int:
    """Of a tile with so many rows."""
    return max(count for count in range(1, target.registers) if count == 1 or max_pixels(target, count) >= channels)
