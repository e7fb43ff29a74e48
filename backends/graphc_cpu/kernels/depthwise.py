"""Depthwise convolution in the blocked layout: vectors over channels, the kernel window in registers.

Items are (batch, channel block, outer positions, row tile); the column tiles of a row run inside, so its input stays in the
first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type
from graphc_cpu.kernels.conv_plan import check_conv
from graphc_cpu.kernels.conv_store import Corner, conv_epilogue
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.shape import Split, split
from graphc_cpu.micro.window import WindowTile, distinct_loads


def emit_depthwise(spec: ConvSpec, target: Target, name: str) -> Function:
    """The kernel of a depthwise convolution (`conv_plan.is_depthwise`). Raises ShapeError or UnsupportedError with the reason."""
    check_conv(spec, target)
    return _Depthwise(spec, target, name).emit()


class _Depthwise:
    def __init__(self, spec: ConvSpec, target: Target, name: str) -> None:
        self.spec, self.target, self.f = spec, target, kernel_function(name)
        self.lanes, self.element = target.lanes(spec.x.dtype), scalar_type(spec.x.dtype)
        strides, positions = spec.x.strides[2:-1], spec.output.shape[2:]
        one = (1,) if len(positions) == 1 else ()
        self.spatial = (*one, *positions)
        self.steps = (*(0 for _ in one), *(s * x for s, x in zip(spec.stride, strides, strict=True)))
        self.kernel = tuple((k, d * x) for k, d, x in zip(spec.weight_shape[2:], spec.dilation, strides, strict=True) if k > 1)
        self.origin = spec.x.origin - sum(p * x for p, x in zip(spec.pad, strides, strict=True))
        self.rows, self.columns = min(self._tiles(), key=self._cost)

    def _tiles(self) -> Iterator[tuple[Split, Split]]:
        height, width = self.spatial[-2:]
        for rows in range(1, min(height, 4) + 1):
            live = min(self.kernel[-2][0] if len(self.kernel) > 1 else 1, rows) * (self.kernel[-1][0] if self.kernel else 1)
            most = self.target.registers - min(live, 9) - (2 if self.target.vector_bytes > 16 else 5)
            if most >= rows:
                yield split(height, rows), split(width, max(1, min(most, 16) // rows))

    def _cost(self, tiles: tuple[Split, Split]) -> float:
        total = 0.0
        taps = prod(extent for extent, _ in self.kernel)
        for r0, r1, rows in tiles[0].ranges:
            for c0, c1, columns in tiles[1].ranges:
                loads = distinct_loads(self._pixels(rows, columns), self.kernel) + taps
                work = max(rows * columns, 8) * taps
                total += (r1 - r0) * (c1 - c0) * (max(work, loads) + 0.2 * loads + 15)
        return total * (1 + 0.04 * len(tiles[0].ranges) * len(tiles[1].ranges))

    def _pixels(self, rows: int, columns: int) -> list[int]:
        return [r * self.steps[-2] + c * self.steps[-1] for r in range(rows) for c in range(columns)]

    def emit(self) -> Function:
        self.pointers = operand_pointers(self.f, len(self.spec.operands))
        blocks = Split(-(-self.spec.x.shape[1] // self.lanes), -(-self.spec.x.shape[1] // self.lanes))
        kinds = pieces(blocks, self.lanes, self.spec.x.shape[1] % self.lanes or self.lanes)
        outer = {f"outer{d}": size for d, size in enumerate(self.spatial[:-2])}
        sizes = {"n": self.spec.output.shape[0], "block": blocks.parts, **outer, "row": self.rows.parts}
        for_items(self.f, sizes, lambda digits:
            for_kinds(self.f, digits["block"], kinds, lambda block:
                for_kinds(self.f, digits["row"], pieces(self.rows), lambda row: self._row(digits, row.width, block.valid))))  # fmt: skip
        return self.f

    def _row(self, digits: Mapping[str, Value], rows: int, valid: int) -> None:
        f, spec = self.f, self.spec
        outer = [digits[f"outer{d}"] for d in range(len(self.spatial) - 2)]
        position = [*outer, start_of(f, digits["row"], self.rows)]
        x = f.add(f.mul(digits["n"], spec.x.strides[0]), f.mul(digits["block"], spec.x.strides[1]))
        x = f.add(x, self.origin)
        for digit, step in zip(position, self.steps, strict=False):
            x = f.add(x, f.mul(digit, step))
        taps = prod(extent for extent, _ in self.kernel)
        weights = f.pointer(self.pointers[1], f.mul(digits["block"], taps * self.lanes), self.element)
        for piece in pieces(self.columns):
            self._columns(piece, lambda part: self._tile(digits, position, part, (rows, piece.width), x, weights, valid))  # noqa: B023

    def _columns(self, piece: Piece, tile: Callable[[Value], None]) -> None:
        """The column tiles of one width, in a loop where there are several."""
        if piece.last - piece.first == 1:
            tile(i64(piece.first))
            return

        def turn(part: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            tile(part)
            return ()

        self.f.loop(piece.first, piece.last, 1, turn, hint="column", guarded=False)

    def _tile(
        self, digits: Mapping[str, Value], position: list[Value], part: Value, shape: tuple[int, int], x: Value, weights: Value,
        valid: int,
    ) -> None:  # fmt: skip
        f, spec = self.f, self.spec
        column = start_of(f, part, self.columns)
        base = f.pointer(self.pointers[0], f.add(x, f.mul(column, self.steps[-1])), self.element)
        acc = WindowTile(f, spec.x.dtype, self.lanes, self._pixels(*shape), self.kernel).emit(base, weights)
        corner = Corner(digits["n"], (*position, column), digits["block"])
        epilogue = conv_epilogue(f, self.target, spec, self.pointers, corner, shape, 1)
        for p, value in enumerate(acc):
            epilogue.store(value, p, 0, valid)
