"""Winograd convolution: transformed input tiles, one matrix product per entry of a tile, output tiles with the epilogue.

Two forms. `WinogradConv` runs all three parts on a few tiles at a time in a thread's own scratch, which stays in its second-level cache;
no thread waits for another. `WinogradInput`, `WinogradProduct` and `WinogradOutput` are three steps with the whole map between them: each
weight is read once, for large weights and small maps. An element is the same sum in the same order in both, for any number of threads
and any size of the pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.spec import (
    ConvSpec,
    Operand,
    TileGrid,
    WinogradConv,
    WinogradGradient,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
    WinogradSpec,
)
from graphc.kernel.winograd import TILES
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.kernels.winograd_gradient import emit_winograd_gradient
from graphc_cpu.kernels.winograd_tiles import InputTiles, OutputTiles, TilePlace, place_of
from graphc_cpu.micro.epilogue import check_epilogue
from graphc_cpu.micro.shape import max_pixels, split
from graphc_cpu.micro.tile import Reduction, RegisterTile

PREFETCH_BYTES = 8192
L2_SHARE = 0.5
"""Weights beyond this part of the second-level cache are prefetched."""


def emit_winograd(spec: WinogradSpec, target: Target, name: str) -> Function:
    """The kernel of a spec. Raises UnsupportedError or ShapeError, with the reason, for one that cannot be generated."""
    if isinstance(spec, (WinogradConv, WinogradOutput)):
        check_winograd(spec.conv, spec.grid, target)
    if not prod(spec.operands[-1].shape):
        return kernel_function(name)
    if isinstance(spec, WinogradConv):
        return _Fused(spec, target, name).emit()
    if isinstance(spec, WinogradInput):
        return _emit_input(spec, name)
    if isinstance(spec, WinogradProduct):
        return _Product(spec, target, name).emit()
    if isinstance(spec, WinogradGradient):
        return emit_winograd_gradient(spec, target, name)
    return _emit_output(spec, target, name)


def check_winograd(conv: ConvSpec, grid: TileGrid, target: Target) -> None:
    """Raises where F(m, 3) does not compute this convolution."""
    check_epilogue(conv.epilogue, conv.operands)
    if conv.weight_shape[2:] != (3, 3) or conv.groups != 1 or {*conv.stride, *conv.dilation} != {1} or grid.m not in TILES:
        raise UnsupportedError(f"Winograd F({grid.m}, 3) of a convolution {conv.weight_shape} stride {conv.stride} groups {conv.groups}")
    lanes = target.lanes(conv.x.dtype)
    if conv.x.dtype.name != "float32" or conv.x.layout.block != lanes or conv.output.layout.block != lanes:
        raise UnsupportedError(f"Winograd of {conv.x.dtype} in {conv.x.layout} to {conv.output.layout}; {target.name} has {lanes} lanes")
    halo = conv.x.layout.halo or ((0, 0), (0, 0))
    for d, (count, (before, after)) in enumerate(zip((grid.rows, grid.columns), halo, strict=True)):
        if conv.pad[d] > before or count * grid.m + 1 - conv.pad[d] >= conv.x.shape[2 + d] + after:
            raise ShapeError(f"tiles of F({grid.m}, 3) read beyond the halo {before}:{after} of the input in spatial dim {d}")


class Products:
    """The matrix products of `tiles` tiles (rows) with one chunk of output channels (columns), for one position.

    `source` and `result`: buffers of transformed input and of products, `tiles` tiles per channel block in both.
    """

    def __init__(
        self, f: Function, target: Target, source: Operand, result: Operand, weight_shape: Sequence[int], lanes: int, chunk: int, tiles: int
    ) -> None:  # fmt: skip
        self.f, self.dtype, self.lanes, self.tiles = f, source.dtype, lanes, tiles
        self.source_pitch, self.result_pitch = source.strides[0], result.strides[0]
        self.channels = weight_shape[1]
        blocks = -(-weight_shape[0] // lanes)
        self.chunks = split(blocks, chunk)
        self.groups = split(tiles, max_pixels(target, self.chunks.width))
        positions = source.shape[0]
        large = positions * blocks * lanes * self.channels * self.dtype.itemsize > L2_SHARE * target.l2
        self.prefetch = PREFETCH_BYTES if large else 0
        self.element = scalar_type(self.dtype)

    def emit(self, source: Value, weights: Value, result: Value, width: int) -> None:
        """`width` output blocks; the pointers are those of the position (weights: and of the chunk; result: and of its first block).

        All groups have the same number of tiles: the last begins earlier where they do not divide, and repeats some of its neighbour's.
        """
        pixels = self.groups.width
        sums = Reduction(self.channels, self.lanes, self.tiles * self.lanes, 1, (), width * self.lanes, prefetch=self.prefetch)
        offsets = [p * self.lanes for p in range(pixels)]

        def turn(group: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            first = self._least(self.f.mul(group, pixels), self.tiles - pixels)
            start = self.f.mul(first, self.lanes)
            tile = RegisterTile(self.f, self.dtype, self.lanes, offsets, width, sums)
            acc = tile.emit(self._at(source, start), weights)
            out = self._at(result, start)
            for p in range(pixels):
                for b in range(width):
                    self.f.store(acc[p][b], self._at(out, (b * self.tiles + p) * self.lanes), self.dtype.itemsize)
            return ()

        self.f.loop(0, self.groups.parts, 1, turn, hint="group", guarded=False)

    def weights_of(self, width: int) -> int:
        """Elements of one position of a chunk of `width` blocks."""
        return self.channels * width * self.lanes

    def _least(self, a: Value, limit: int) -> Value:
        if self.groups.wide == self.groups.parts:
            return a
        below = self.f.op(f"icmp slt i64 {a.name}, {limit}", "i1")
        return self.f.op(f"select i1 {below.name}, i64 {a.name}, i64 {limit}", "i64")

    def _at(self, pointer: Value, offset: Value | int) -> Value:
        return self.f.pointer(pointer, offset, self.element)


class _Fused:
    def __init__(self, spec: WinogradConv, target: Target, name: str) -> None:
        self.spec, self.grid = spec, spec.grid
        self.f = kernel_function(name)
        self.pointers = operand_pointers(self.f, len(spec.operands))
        conv = spec.conv
        self.element = scalar_type(conv.x.dtype)
        self.input = InputTiles(self.f, conv.x, conv.pad, spec.grid, spec.transformed, spec.tiles)
        self.products = Products(self.f, target, spec.transformed, spec.product, conv.weight_shape, spec.lanes, spec.chunk, spec.tiles)
        self.output = OutputTiles(self.f, target, conv, self.pointers[:-1], spec.grid, spec.product, spec.tiles)

    def emit(self) -> Function:
        f, spec = self.f, self.spec
        own = f.mul(f.parameters[1], spec.scratch.elements)
        self.transformed = f.pointer(self.pointers[-1], own, self.element)
        self.product = f.pointer(self.transformed, spec.transformed.elements, self.element)
        for_items(f, {"part": -(-spec.grid.count // spec.tiles)}, self._part)
        return f

    def _part(self, digits: Mapping[str, Value]) -> None:
        """Some tiles from input to output; the last part may have fewer, whose products are made and not stored."""
        f, spec = self.f, self.spec
        first = f.mul(digits["part"], spec.tiles)
        left = f.sub(i64(spec.grid.count), first)
        few = f.op(f"icmp slt i64 {left.name}, {spec.tiles}", "i1")
        count = f.op(f"select i1 {few.name}, i64 {left.name}, i64 {spec.tiles}", "i64")
        blocks = -(-spec.conv.x.shape[1] // spec.lanes)

        def transform(block: Value, slot: Value) -> None:
            self.input.emit(self.pointers[0], self.transformed, block, place_of(f, spec.grid, first, slot))

        _nested(f, i64(blocks), count, transform)
        chunks = self.products.chunks

        def chunk(number: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            start = start_of(f, number, chunks)
            for_kinds(f, number, pieces(chunks), lambda piece: self._products(start, piece))
            _nested(f, self._width(number), count, lambda inner, slot: self._back(start, inner, first, slot))
            return ()

        f.loop(0, chunks.parts, 1, chunk, hint="chunk", guarded=False)

    def _width(self, chunk: Value) -> Value:
        chunks = self.products.chunks
        if chunks.wide == chunks.parts:
            return i64(chunks.width)
        wide = self.f.op(f"icmp slt i64 {chunk.name}, {chunks.wide}", "i1")
        return self.f.op(f"select i1 {wide.name}, i64 {chunks.width}, i64 {chunks.width - 1}", "i64")

    def _products(self, start: Value, piece: Piece) -> None:
        """All positions of one chunk."""
        f, made = self.f, self.products
        weights = f.pointer(self.pointers[1], f.mul(start, self.grid.positions * made.weights_of(1)), self.element)

        def turn(position: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            made.emit(
                f.pointer(self.transformed, f.mul(position, made.source_pitch), self.element),
                f.pointer(weights, f.mul(position, made.weights_of(piece.width)), self.element),
                f.pointer(self.product, f.mul(position, made.result_pitch), self.element),
                piece.width,
            )
            return ()

        f.loop(0, self.grid.positions, 1, turn, hint="position", guarded=False)

    def _back(self, start: Value, inner: Value, first: Value, slot: Value) -> None:
        self.output.emit(self.product, inner, self.f.add(start, inner), place_of(self.f, self.grid, first, slot))


def _nested(f: Function, outer: Value, inner: Value, body: Callable[[Value, Value], None]) -> None:
    """for i in outer: for j in inner: body(i, j); both run at least once."""

    def row(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        def cell(j: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(i, j)
            return ()

        f.loop(0, inner, 1, cell, hint="tile", guarded=False)
        return ()

    f.loop(0, outer, 1, row, hint="block", guarded=False)


def _emit_input(spec: WinogradInput, name: str) -> Function:
    """Items: a row of tiles of one channel block."""
    f, grid = kernel_function(name), spec.grid
    x, out = operand_pointers(f, 2)
    tiles = InputTiles(f, spec.x, spec.pad, grid, spec.transformed, grid.count)
    blocks = -(-spec.x.shape[1] // spec.x.layout.block)
    _for_tiles(f, grid, blocks, lambda block, place: tiles.emit(x, out, block, place))
    return f


def _emit_output(spec: WinogradOutput, target: Target, name: str) -> Function:
    """Items: a row of tiles of one block of output channels."""
    f, grid = kernel_function(name), spec.grid
    pointers = operand_pointers(f, len(spec.operands))
    tiles = OutputTiles(f, target, spec.conv, [pointers[0], *pointers], grid, spec.product, grid.count)
    blocks = -(-spec.conv.weight_shape[0] // spec.conv.x.layout.block)
    _for_tiles(f, grid, blocks, lambda block, place: tiles.emit(pointers[0], block, block, place))
    return f


def _for_tiles(f: Function, grid: TileGrid, blocks: int, body: Callable[[Value, TilePlace], None]) -> None:

    def item(digits: Mapping[str, Value]) -> None:
        row = f.add(f.mul(digits["n"], grid.rows), digits["row"])

        def turn(column: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            slot = f.add(f.mul(row, grid.columns), column)
            body(digits["block"], TilePlace(digits["n"], digits["row"], column, slot))
            return ()

        f.loop(0, grid.columns, 1, turn, hint="column", guarded=False)

    for_items(f, {"block": blocks, "n": grid.batch, "row": grid.rows}, item)


class _Product:
    """Items: a chunk of output channels at one position; positions outermost, so a position's input stays in the second-level cache."""

    def __init__(self, spec: WinogradProduct, target: Target, name: str) -> None:
        self.spec = spec
        self.f = kernel_function(name)
        self.element = scalar_type(spec.transformed.dtype)
        tiles = spec.grid.count
        self.products = Products(self.f, target, spec.transformed, spec.product, spec.weight_shape, spec.lanes, spec.chunk, tiles)

    def emit(self) -> Function:
        self.pointers = operand_pointers(self.f, 3)
        for_items(self.f, {"position": self.spec.grid.positions, "chunk": self.products.chunks.parts}, self._item)
        return self.f

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, made, position = self.f, self.products, digits["position"]
        start = start_of(f, digits["chunk"], made.chunks)
        source = f.pointer(self.pointers[0], f.mul(position, made.source_pitch), self.element)
        block = f.add(f.mul(position, made.chunks.total), start)
        weights = f.pointer(self.pointers[1], f.mul(block, made.weights_of(1)), self.element)
        offset = f.add(f.mul(position, made.result_pitch), f.mul(start, self.spec.grid.count * self.spec.lanes))
        result = f.pointer(self.pointers[2], offset, self.element)
        for_kinds(f, digits["chunk"], pieces(made.chunks), lambda piece: made.emit(source, weights, result, piece.width))
