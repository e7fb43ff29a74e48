"""Depthwise convolution in the blocked layout: vectors over channels, the kernel window in registers.

Items are (batch, channel block, outer positions, row tile); the column tiles of a row run inside, so its input stays in the
first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    f = kernel_function(name)
    rows = DepthwiseRows(f, spec, target, operand_pointers(f, len(spec.operands)))
    blocks = Split(-(-spec.x.shape[1] // rows.lanes), -(-spec.x.shape[1] // rows.lanes))
    kinds = pieces(blocks, rows.lanes, spec.x.shape[1] % rows.lanes or rows.lanes)
    outer = {f"outer{d}": size for d, size in enumerate(rows.spatial[:-2])}
    sizes = {"n": spec.output.shape[0], "block": blocks.parts, **outer, "row": rows.rows.parts}
    for_items(f, sizes, lambda digits:
        for_kinds(f, digits["block"], kinds, lambda block:
            for_kinds(f, digits["row"], pieces(rows.rows), lambda row: _item(rows, digits, row.width, block.valid))))  # fmt: skip
    return f


def _item(rows: DepthwiseRows, digits: Mapping[str, Value], count: int, valid: int) -> None:
    f, spec = rows.f, rows.spec
    outer = [digits[f"outer{d}"] for d in range(len(rows.spatial) - 2)]
    position = (*outer, start_of(f, digits["row"], rows.rows))
    x = f.add(f.mul(digits["n"], spec.x.strides[0]), f.mul(digits["block"], spec.x.strides[1]))
    x = f.add(x, spec.x.origin - sum(p * step for p, step in zip(spec.pad, spec.x.strides[2:-1], strict=True)))
    for digit, step in zip(position, rows.steps, strict=False):
        x = f.add(x, f.mul(digit, step))
    rows.emit(Place(digits["n"], digits["block"], position, valid), count, x)


@dataclass(frozen=True)
class Place:
    """Of a row tile: batch index, channel block, output position of its first row, `valid` channels in the block."""

    n: Value
    block: Value
    position: tuple[Value, ...]
    valid: int


class DepthwiseRows:
    """Emits row tiles of a depthwise convolution. `pointers`: of the spec's operands; `height`: output rows that there are, if not all.

    `rows` and `columns`: how rows and columns are cut into tiles."""

    def __init__(self, f: Function, spec: ConvSpec, target: Target, pointers: Sequence[Value], height: int = 0) -> None:
        self.f, self.spec, self.target, self.pointers = f, spec, target, pointers
        self.lanes, self.element = target.lanes(spec.x.dtype), scalar_type(spec.x.dtype)
        strides, positions = spec.x.strides[2:-1], spec.output.shape[2:]
        one = (1,) if len(positions) == 1 else ()
        self.spatial = (*one, *positions)
        self.steps = (*(0 for _ in one), *(s * x for s, x in zip(spec.stride, strides, strict=True)))
        self.kernel = tuple((k, d * x) for k, d, x in zip(spec.weight_shape[2:], spec.dilation, strides, strict=True) if k > 1)
        self.rows, self.columns = min(self._tiles(height or self.spatial[-2]), key=self._cost)

    def _tiles(self, height: int) -> Iterator[tuple[Split, Split]]:
        for rows in range(1, min(height, 4) + 1):
            live = min(self.kernel[-2][0] if len(self.kernel) > 1 else 1, rows) * (self.kernel[-1][0] if self.kernel else 1)
            most = self.target.registers - min(live, 9) - (2 if self.target.vector_bytes > 16 else 5)
            if most >= rows:
                yield split(height, rows), split(self.spatial[-1], max(1, min(most, 16) // rows))

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

    def emit(self, place: Place, count: int, x: Value) -> None:
        """All columns of `count` rows. `x`: elements from the input's pointer to what the first pixel's first tap reads."""
        taps = prod(extent for extent, _ in self.kernel)
        weights = self.f.pointer(self.pointers[1], self.f.mul(place.block, taps * self.lanes), self.element)
        for piece in pieces(self.columns):
            self._columns(piece, lambda part: self._tile(place, part, (count, piece.width), x, weights))  # noqa: B023

    def _columns(self, piece: Piece, tile: Callable[[Value], None]) -> None:
        """The column tiles of one width, in a loop where there are several."""
        if piece.last - piece.first == 1:
            tile(i64(piece.first))
            return

        def turn(part: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            tile(part)
            return ()

        self.f.loop(piece.first, piece.last, 1, turn, hint="column", guarded=False)

    def _tile(self, place: Place, part: Value, shape: tuple[int, int], x: Value, weights: Value) -> None:
        f, spec = self.f, self.spec
        column = start_of(f, part, self.columns)
        base = f.pointer(self.pointers[0], f.add(x, f.mul(column, self.steps[-1])), self.element)
        corner = Corner(place.n, (*place.position, column), place.block)
        epilogue = conv_epilogue(f, self.target, spec, self.pointers, corner, shape, 1)
        start = epilogue.initial([place.valid])
        acc = WindowTile(f, spec.x.dtype, self.lanes, self._pixels(*shape), self.kernel).emit(base, weights, start[0] if start else None)
        for p, value in enumerate(acc):
            epilogue.store(value, p, 0, place.valid)
