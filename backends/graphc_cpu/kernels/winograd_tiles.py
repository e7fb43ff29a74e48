"""Winograd's input and output transforms on vectors of channels, one tile at a time, in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.kernel.spec import ConvSpec, Operand, TileGrid
from graphc.kernel.winograd import transform_input, transform_output
from graphc.target import Target
from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.emit.lanes import float_literal, splat_literal
from graphc_cpu.kernels.conv_store import Corner, conv_epilogue
from graphc_cpu.kernels.items import Piece, digits_of, for_kinds
from graphc_cpu.micro.tile import multiply_add


class Registers:
    """`graphc.kernel.winograd.Arithmetic` on vector registers."""

    def __init__(self, f: Function, dtype: DType, lanes: int) -> None:
        self.f, self.dtype, self.lanes = f, dtype, lanes
        self.vector = vector_type(scalar_type(dtype), lanes)

    def add(self, x: Value, y: Value) -> Value:
        return self._op("fadd", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        return self._op("fsub", x, y)

    def scale(self, c: float, x: Value) -> Value:
        return self._op("fmul", self._constant(c), x)

    def fma(self, c: float, x: Value, y: Value) -> Value:
        return multiply_add(self.f, self.dtype, self._constant(c), x, y)

    def _op(self, opcode: str, x: Value, y: Value) -> Value:
        return self.f.op(f"{opcode} {x}, {y.name}", self.vector)

    def _constant(self, c: float) -> Value:
        element = scalar_type(self.dtype)
        return splat_literal(float_literal(c, element), element, self.lanes)


_INPUT_ROWS = {2: ((0, 1, 2, 3),), 4: ((0, 1, 2), (3, 4, 5))}
"""Rows of a transformed tile that are made together: all 36 entries of F(4, 3) at once would not fit into registers."""


@dataclass(frozen=True)
class TilePlace:
    """Where a tile lies: batch index, tile row and column, and its number in the buffer of transformed tiles."""

    n: Value
    row: Value
    column: Value
    slot: Value


def place_of(f: Function, grid: TileGrid, first: Value, slot: Value) -> TilePlace:
    """The tile number `first + slot` of the grid."""
    digits = digits_of(f, f.add(first, slot), {"n": grid.batch, "row": grid.rows, "column": grid.columns})
    return TilePlace(digits["n"], digits["row"], digits["column"], slot)


class InputTiles:
    """Reads tiles of x and writes them transformed, `tiles` of them per channel block of the buffer."""

    def __init__(self, f: Function, x: Operand, pad: Sequence[int], grid: TileGrid, transformed: Operand, tiles: int) -> None:
        self.f, self.x, self.pad, self.grid = f, x, pad, grid
        self.transformed, self.tiles, self.lanes = transformed, tiles, x.layout.block
        self.registers = Registers(f, x.dtype, self.lanes)
        self.element = scalar_type(x.dtype)

    def emit(self, x: Value, target: Value, block: Value, place: TilePlace) -> None:
        """One tile of one channel block; x and target point at the operands' first elements."""
        f, strides, m = self.f, self.x.strides, self.grid.m
        offset = f.add(f.mul(place.n, strides[0]), f.mul(block, strides[1]))
        offset = f.add(offset, f.add(f.mul(place.row, m * strides[2]), f.mul(place.column, m * strides[3])))
        corner = self.x.origin - self.pad[0] * strides[2] - self.pad[1] * strides[3]
        source = f.pointer(x, f.add(offset, corner), self.element)
        slot = f.add(f.mul(block, self.tiles * self.lanes), f.mul(place.slot, self.lanes))
        out = f.pointer(target, slot, self.element)
        pitch = self.transformed.strides[0]
        for rows in _INPUT_ROWS[m]:  # what a group does not use of its first half, code generation drops
            columns = [[self._load(source, r * strides[2] + c * strides[3]) for r in range(m + 2)] for c in range(m + 2)]
            half = [transform_input(m, column, self.registers) for column in columns]
            for row in rows:
                values = transform_input(m, [column[row] for column in half], self.registers)
                for c, value in enumerate(values):
                    f.store(value, f.pointer(out, (row * (m + 2) + c) * pitch, self.element), self.x.dtype.itemsize)

    def _load(self, source: Value, offset: int) -> Value:
        return self.f.load(self.registers.vector, self.f.pointer(source, offset, self.element), self.x.dtype.itemsize)


class OutputTiles:
    """Reads products, transforms them back, applies the epilogue and stores the pixels that lie on the map."""

    def __init__(
        self, f: Function, target: Target, conv: ConvSpec, pointers: Sequence[Value], grid: TileGrid, product: Operand, tiles: int
    ) -> None:  # fmt: skip
        self.f, self.target, self.conv, self.pointers, self.grid = f, target, conv, pointers, grid
        self.product, self.tiles, self.lanes = product, tiles, conv.x.layout.block
        self.registers = Registers(f, conv.x.dtype, self.lanes)
        self.element = scalar_type(conv.x.dtype)
        self.rows = edges(grid.rows, grid.m, conv.output.shape[2])
        self.columns = edges(grid.columns, grid.m, conv.output.shape[3])
        self.blocks = _last_apart(-(-conv.weight_shape[0] // self.lanes), self.lanes, conv.weight_shape[0] % self.lanes)

    def emit(self, product: Value, inner: Value, block: Value, place: TilePlace) -> None:
        """One tile of block `inner` of the buffer, which is output block `block`."""
        f, m = self.f, self.grid.m
        slot = f.add(f.mul(inner, self.tiles * self.lanes), f.mul(place.slot, self.lanes))
        source = f.pointer(product, slot, self.element)
        pitch = self.product.strides[0]
        columns = [[self._load(source, (r * (m + 2) + c) * pitch) for r in range(m + 2)] for c in range(m + 2)]
        half = [transform_output(m, column, self.registers) for column in columns]
        tile = [transform_output(m, row, self.registers) for row in zip(*half, strict=True)]
        for_kinds(f, block, self.blocks, lambda kind:
            for_kinds(f, place.row, self.rows, lambda rows:
                for_kinds(f, place.column, self.columns, lambda columns:
                    self._store(tile, block, place, (rows.width, columns.width), kind.valid))))  # fmt: skip

    def _store(self, tile: list[list[Value]], block: Value, place: TilePlace, shape: tuple[int, int], valid: int) -> None:
        f, m = self.f, self.grid.m
        corner = Corner(place.n, (f.mul(place.row, m), f.mul(place.column, m)), block)
        epilogue = conv_epilogue(f, self.target, self.conv, self.pointers, corner, shape, 1)
        for r in range(shape[0]):
            for c in range(shape[1]):
                epilogue.store(tile[r][c], r * shape[1] + c, 0, valid)

    def _load(self, source: Value, offset: int) -> Value:
        return self.f.load(self.registers.vector, self.f.pointer(source, offset, self.element), self.conv.x.dtype.itemsize)


def edges(tiles: int, m: int, size: int) -> list[Piece]:
    """Kinds of tiles along one dim: whole ones, and the last where it hangs over the edge of the map."""
    rest = size - (tiles - 1) * m
    if rest == m:
        return [Piece(0, tiles, m)]
    return [*([Piece(0, tiles - 1, m)] if tiles > 1 else []), Piece(tiles - 1, tiles, rest)]


def _last_apart(blocks: int, lanes: int, tail: int) -> list[Piece]:
    """Kinds of output blocks: full ones, and the last where its lanes are not all channels."""
    if not tail:
        return [Piece(0, blocks, 1, lanes)]
    return [*([Piece(0, blocks - 1, 1, lanes)] if blocks > 1 else []), Piece(blocks - 1, blocks, 1, tail)]
