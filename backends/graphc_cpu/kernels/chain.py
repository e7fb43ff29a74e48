"""A convolution and the depthwise convolution that reads it, in one step (`ChainBands`): the map between never leaves a core's cache.

Items are (batch, band of output rows, chunk of channel blocks), the chunks innermost. An item computes what its band reads of the map
between with the register tiles of a direct convolution, into scratch of the thread, zeros around it, and then the depthwise rows from
there. Rows that two bands read are computed for both. Each element is the same sum in the same order as in two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from graphc.errors import UnsupportedError
from graphc.kernel.expr import index
from graphc.kernel.spec import ChainBands
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.kernels.conv_plan import ConvPlan, check_conv, conv_plan, is_depthwise, reduction, spatial_indices
from graphc_cpu.kernels.conv_store import Corner, tile_axes
from graphc_cpu.kernels.depthwise import DepthwiseRows, Place
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.kernels.pack import Array, pack_for
from graphc_cpu.micro.epilogue import Axis, Destination, TileEpilogue, check_epilogue
from graphc_cpu.micro.shape import Split, max_pixels, split, tile_cost
from graphc_cpu.micro.tile import RegisterTile

PREFETCH_BYTES = 4096
L2_SHARE = 0.1
"""Weights of the first convolution beyond this part of the second-level cache are prefetched."""


def emit_chain(spec: ChainBands, target: Target, name: str) -> Function:
    """The kernel of a chain. Raises UnsupportedError or ShapeError, with the reason, for a spec that cannot be generated."""
    check_chain(spec, target)
    if not prod(spec.chain.output.shape):
        return kernel_function(name)
    return _Chain(spec, target, name).emit()


def check_chain(spec: ChainBands, target: Target) -> None:
    """Raises where the two convolutions are no such pair."""
    first, second = spec.chain.first, spec.chain.second
    for conv in (first, second):
        check_conv(conv, target)
        check_epilogue(conv.epilogue, conv.operands)
    if first.groups != 1 or len(first.stride) != 2 or first.output != second.x or not is_depthwise(second):
        shapes = (f"{conv.weight_shape} of {conv.groups} groups" for conv in (first, second))
        raise UnsupportedError(f"a chain of convolutions {' and '.join(shapes)}", hint="one group, then depthwise")


def chain_plan(spec: ChainBands, target: Target) -> ConvPlan:
    """How the first convolution runs: the geometry of its plan, its output channels in the chain's chunks."""
    plan = conv_plan(spec.chain.first, target)
    return replace(plan, chunks=split(plan.blocks, spec.chunk))


def pack_chain_weight(spec: ChainBands, target: Target, w: Array) -> Array:
    """Weights (OC, IC, *kernel) of the first convolution -> the flat array that the kernel takes."""
    return pack_for(spec.chain.first, chain_plan(spec, target), w)


@dataclass(frozen=True)
class _Band:
    """Output rows top .. end-1 of the chain; they read rows low .. high-1 of the map between, of which first .. last-1 exist: none where a
    band lies in the padding, with first = last between low and high."""

    top: Value
    end: Value
    low: Value
    high: Value
    first: Value
    last: Value


class _Chain:
    def __init__(self, spec: ChainBands, target: Target, name: str) -> None:
        self.spec, self.target = spec, target
        self.first, self.second = spec.chain.first, spec.chain.second
        self.plan = chain_plan(spec, target)
        self.lanes, self.dtype = self.plan.lanes, self.first.x.dtype
        self.element = scalar_type(self.dtype)
        self.f = f = kernel_function(name)
        self.bands = Split(self.second.output.shape[2], spec.bands)
        self.pitch = spec.scratch.strides
        pointers = operand_pointers(f, len(spec.operands))
        own = f.pointer(pointers[-1], f.mul(f.parameters[1], spec.scratch.elements), self.element)
        inputs = len(self.first.operands) - 1
        self.first_pointers = [*pointers[:inputs], own]
        self.second_pointers = [own, *pointers[inputs:-1]]
        self.tile_rows, self.columns = self._tile()

    def emit(self) -> Function:
        f = self.f
        tail = self.first.weight_shape[0] % self.lanes or self.lanes
        chunks = pieces(self.plan.chunks, self.lanes, tail)
        sizes = {"n": self.second.output.shape[0], "band": self.bands.parts, "chunk": self.plan.chunks.parts}
        for_items(f, sizes, lambda digits:
            for_kinds(f, digits["band"], pieces(self.bands), lambda band:
                for_kinds(f, digits["chunk"], chunks, lambda chunk: self._item(digits, band.width, chunk))))  # fmt: skip
        return f

    def _item(self, digits: Mapping[str, Value], height: int, chunk: Piece) -> None:
        band = self._band(digits["band"], height)
        block = start_of(self.f, digits["chunk"], self.plan.chunks)
        self._surround(band, chunk.width)
        self._first_rows(digits["n"], band, block, chunk)
        self._second_rows(digits["n"], band, block, height, chunk)

    def _band(self, number: Value, height: int) -> _Band:
        f, (stride, *_), (pad, *_) = self.f, self.second.stride, self.second.pad
        reach = (height - 1) * stride + (self.second.weight_shape[2] - 1) * self.second.dilation[0] + 1
        top = start_of(f, number, self.bands)
        low = f.sub(f.mul(top, stride), pad)
        high = f.add(low, reach)
        size = self.first.output.shape[2]
        first = _limited(f, _limited(f, low, "max", i64(0)), "min", high)
        last = _limited(f, _limited(f, high, "min", i64(size)), "max", low)
        return _Band(top, f.add(top, height), low, high, first, last)

    # zeros ----------------------------------------------------------------------------------------------------------------

    def _surround(self, band: _Band, blocks: int) -> None:
        """Zeros in what a band reads beyond the map: whole rows above and below, and columns at both sides."""
        f, (before, _) = self.f, self.second.x.layout.halo[1] if self.second.x.layout.has_halo else (0, 0)
        width, total = self.first.output.shape[3], self.spec.scratch.shape[2]
        start, stop, end = f.sub(band.first, band.low), f.sub(band.last, band.low), f.sub(band.high, band.low)
        for block in range(blocks):
            self._zeros(block, i64(0), start, 0, total)
            self._zeros(block, stop, end, 0, total)
            self._zeros(block, start, stop, 0, before)
            self._zeros(block, start, stop, before + width, total)

    def _zeros(self, block: int, first: Value, last: Value, left: int, right: int) -> None:
        f, vector = self.f, vector_type(self.element, self.lanes)
        if left == right or first == last:
            return

        def store(row: Value, column: Value) -> Sequence[Value]:
            offset = f.add(f.add(f.mul(row, self.pitch[1]), f.mul(column, self.lanes)), block * self.pitch[0])
            f.store(Value("zeroinitializer", vector), f.pointer(self.second_pointers[0], offset, self.element), self.dtype.itemsize)
            return ()

        f.loop(first, last, 1, lambda row, _: f.loop(left, right, 1, lambda column, _: store(row, column), hint="zero"), hint="zeros")

    # the map between ------------------------------------------------------------------------------------------------------

    def _first_rows(self, n: Value, band: _Band, block: Value, chunk: Piece) -> None:
        rest = any((last - first) % self.tile_rows for first, last in self._row_ranges())

        def rows(first: Value, count: int) -> Value:
            return self._row_loop(first, band.last, count, lambda row: self._first_row(n, band, row, count, block, chunk))

        after = rows(band.first, self.tile_rows)
        if rest:
            rows(after, 1)

    def _row_loop(self, first: Value, last: Value, step: int, body: Callable[[Value], None]) -> Value:
        """Calls body with the first row of each whole tile of `step` rows; returns the row behind the last of them."""
        f = self.f

        def turn(row: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(row)
            return ()

        count = f.sub(last, first)
        whole = count if step == 1 else f.sub(count, f.op(f"srem i64 {count.name}, {step}", "i64"))
        end = f.add(first, whole)
        f.loop(first, end, step, turn, hint="row")
        return end

    def _first_row(self, n: Value, band: _Band, row: Value, rows: int, block: Value, chunk: Piece) -> None:
        for piece in pieces(self.columns):

            def turn(part: Value, _: tuple[Value, ...], piece: Piece = piece) -> Sequence[Value]:
                self._first_tile(n, band, (row, start_of(self.f, part, self.columns)), (rows, piece.width), block, chunk)
                return ()

            self.f.loop(piece.first, piece.last, 1, turn, hint="column", guarded=False)

    def _first_tile(
        self, n: Value, band: _Band, position: tuple[Value, Value], shape: tuple[int, int], block: Value, chunk: Piece
    ) -> None:  # fmt: skip
        f, spec = self.f, self.first
        steps = [s * x for s, x in zip(spec.stride, spec.x.strides[2:], strict=False)]
        pixels = [r * steps[0] + c * steps[1] for r in range(shape[0]) for c in range(shape[1])]
        offset = f.add(f.mul(n, spec.x.strides[0]), self.plan.origin)
        for digit, step in zip(position, steps, strict=True):
            offset = f.add(offset, f.mul(digit, step))
        sums = reduction(spec, self.plan, chunk.width, self._prefetch())
        weights = f.pointer(self.first_pointers[1], f.mul(block, self.lanes * sums.steps), self.element)
        epilogue = self._first_epilogue(Corner(n, position, block), f.sub(position[0], band.low), shape, chunk.width)
        valid = [self.lanes] * (chunk.width - 1) + [chunk.valid]
        tile = RegisterTile(f, self.dtype, self.lanes, pixels, chunk.width, sums, initial=epilogue.initial(valid))
        acc = tile.emit(f.pointer(self.first_pointers[0], offset, self.element), weights)
        for p in range(len(pixels)):
            for b in range(chunk.width):
                epilogue.store(acc[p][b], p, b, valid[b])

    def _first_epilogue(self, corner: Corner, row: Value, shape: tuple[int, int], blocks: int) -> TileEpilogue:
        """Stores into scratch: block of the chunk and row of the band in place of those of the map."""
        spec, scratch = self.first, self.spec.scratch
        axes = tile_axes(self.f, self.target, spec, corner, shape, blocks)
        own_block, own_row = index("chunk", scratch.shape[0]), index("band", scratch.shape[1])
        vertical, horizontal = spatial_indices(spec)
        axes[own_block] = Axis(i64(0), by_block=tuple(range(blocks)))
        axes[own_row] = replace(axes[vertical], base=row)
        before = spec.output.layout.halo[1][0] if spec.output.layout.has_halo else 0
        place = scratch.physical_offset((own_block, own_row, horizontal + before, spec.epilogue.index[-1]))
        destination = Destination(len(spec.operands) - 1, place, spec.output, fill=True)
        return TileEpilogue(self.f, self.target, self.lanes, self.first_pointers, spec.epilogue, axes, destination)

    def _prefetch(self) -> int:
        size = prod(self.first.weight_shape) * self.dtype.itemsize
        return PREFETCH_BYTES if size > L2_SHARE * self.target.l2 else 0

    def _tile(self) -> tuple[int, Split]:
        """Rows and columns of a register tile of the first convolution."""
        width, blocks = self.first.output.shape[3], self.plan.chunks.width
        most = min(28, max_pixels(self.target, blocks))
        heights = [last - first for first, last in self._row_ranges() if first < last] or [1]

        def cost(choice: tuple[int, Split]) -> float:
            rows, columns = choice
            tiles = [(rows, height // rows) for height in heights] + [(1, height % rows) for height in heights]
            return sum(
                count * (last - first) * tile_cost(r * c, blocks, self.plan.window * self.plan.taps)
                for r, count in tiles for first, last, c in columns.ranges
            )  # fmt: skip

        return min(((rows, split(width, most // rows)) for rows in range(1, min(*heights, most, 4) + 1)), key=cost)

    def _row_ranges(self) -> Iterator[tuple[int, int]]:
        """First row, last + 1 of the map between that each band reads."""
        stride, pad, size = self.second.stride[0], self.second.pad[0], self.first.output.shape[2]
        reach = (self.second.weight_shape[2] - 1) * self.second.dilation[0] + 1
        for first, last, width in self.bands.ranges:
            for number in range(first, last):
                top = number * self.bands.width - max(0, number - self.bands.wide)
                low, high = top * stride - pad, (top + width - 1) * stride - pad + reach
                yield min(max(low, 0), high), max(min(high, size), low)

    # the output -----------------------------------------------------------------------------------------------------------

    def _second_rows(self, n: Value, band: _Band, block: Value, height: int, chunk: Piece) -> None:
        f = self.f
        rows = DepthwiseRows(f, self.second, self.target, self.second_pointers, height)
        aside = (self.second.x.layout.halo[1][0] if self.second.x.layout.has_halo else 0) - self.second.pad[1]

        def one_block(number: Value, valid: int) -> Sequence[Value]:
            x = f.add(f.mul(number, self.pitch[0]), aside * self.lanes)
            for piece in pieces(rows.rows):
                f.loop(piece.first, piece.last, 1, lambda part, _: tile(number, part, piece.width, x, valid), hint="dw", guarded=False)  # noqa: B023
            return ()

        def tile(number: Value, part: Value, count: int, x: Value, valid: int) -> Sequence[Value]:
            row = start_of(f, part, rows.rows)
            place = Place(n, f.add(block, number), (f.add(band.top, row),), valid)
            rows.emit(place, count, f.add(x, f.mul(row, rows.steps[0])))
            return ()

        whole = chunk.width if chunk.valid == self.lanes else chunk.width - 1
        f.loop(0, whole, 1, lambda number, _: one_block(number, self.lanes), hint="block")
        if whole < chunk.width:
            one_block(i64(whole), chunk.valid)


def _limited(f: Function, value: Value, kind: str, limit: Value) -> Value:
    """max(value, limit) or min(value, limit)."""
    if all(number.name.lstrip("-").isdigit() for number in (value, limit)):
        return i64((max if kind == "max" else min)(int(value.name), int(limit.name)))
    return f.call(f"llvm.s{kind}.i64", "i64", value, limit)
