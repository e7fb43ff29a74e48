"""Convolutions with few output channels: vectors lie along the last spatial dim, output channels are the rows of the register tile.

For plain maps (row-major, no blocks of channels) and a stride of 1 along rows. Where blocks of channels would leave most lanes empty, as
with the 6 channels of LeNet-5, this wastes only what the end of a row leaves of its last vector.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from graphc_cpu.micro.shape import max_pixels, split


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
        self.rows = split(height, max(1, most // self.columns.width))
        self.column_kinds = pieces(self.columns, self.lanes, width % self.lanes or self.lanes)

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
        tile = OuterTile(f, x.dtype, self.lanes, range(self.channels), vectors, self._sum())
        zero = Value("zeroinitializer", vector_type(self.element, self.lanes))
        acc = tile.sums(self.pointers[1], source, [zero] * (self.channels * len(vectors)))
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


def _most_vectors(target: Target, channels: int) -> int:
    """Of a tile with so many rows."""
    return max(count for count in range(1, target.registers) if count == 1 or max_pixels(target, count) >= channels)
