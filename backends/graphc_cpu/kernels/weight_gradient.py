"""Gradient of a convolution's weight: tiles of (input channel, kernel position) x (block of output channels), pixels as the reduction.

Items are (part of the batch, panel of output channels, panel of input channels): a panel's sums stay in the second-level cache. An item
goes through its maps in bands of pixels that stay in the first-level cache while all tiles of the panel take them in. Per element the
pixels are added in the order of memory, whatever the tile, the panel, the band or the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.spec import WeightGradientSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of, width_of
from graphc_cpu.kernels.weight_gradient_depthwise import emit_weight_gradient_depthwise
from graphc_cpu.kernels.weight_gradient_rows import emit_weight_gradient_rows
from graphc_cpu.micro.outer import MAX_UNROLL, OuterTile, Pixels
from graphc_cpu.micro.shape import Split, block_choices, max_pixels, split

BAND_PIXELS = 128
PANEL_BYTES = 300_000
MOST_TILES = 12
"""Of different kernel positions that are emitted one by one."""


def emit_weight_gradient(spec: WeightGradientSpec, target: Target, name: str) -> Function:
    """The kernel. Raises UnsupportedError or ShapeError, with the reason, for a spec that cannot be generated."""
    check_weight_gradient(spec, target)
    if not prod(spec.sums.shape):
        return kernel_function(name)
    if spec.groups > 1:
        return emit_weight_gradient_depthwise(spec, target, name)
    if not spec.grad.layout.is_blocked:
        return emit_weight_gradient_rows(spec, target, name)
    return _WeightGradient(spec, target, name).emit()


def check_weight_gradient(spec: WeightGradientSpec, target: Target) -> None:
    lanes, x, grad = target.lanes(spec.x.dtype), spec.x, spec.grad
    if x.dtype.name not in ("float32", "float64"):
        raise UnsupportedError(f"weight gradient of {x.dtype}", hint="cast to f32 before it")
    rowwise = grad.layout.block == x.layout.block == 0 and spec.stride[-1] == 1
    if not rowwise and (grad.layout.block != lanes or x.layout.block not in (0, lanes)):
        raise UnsupportedError(f"weight gradient of {x.layout} and {grad.layout}; {target.name} has {lanes} lanes")
    channels = (grad.shape[1], *spec.kernel) if rowwise else (-(-grad.shape[1] // lanes), *spec.kernel, lanes)
    if spec.groups > 1 and (rowwise or not x.layout.is_blocked or not spec.groups == x.shape[1] == grad.shape[1]):
        raise UnsupportedError(f"weight gradient of {x.shape} and {grad.shape} with {spec.groups} groups in {x.layout}")
    expected = (spec.parts, x.shape[1] // spec.groups, *channels)
    if spec.sums.physical_shape != expected or x.shape[0] != grad.shape[0]:
        raise ShapeError(f"weight gradient of {x.shape} and {grad.shape} into {spec.sums.physical_shape}, not {expected}")
    halo = x.layout.halo or ((0, 0),) * len(spec.kernel)
    for d, (before, after) in enumerate(halo):
        last = (grad.shape[2 + d] - 1) * spec.stride[d] + (spec.kernel[d] - 1) * spec.dilation[d] - spec.pad[d]
        if spec.pad[d] > before or last >= x.shape[2 + d] + after:
            raise ShapeError(f"weight gradient reads beyond the halo {before}:{after} of its input in spatial dim {d}")


@dataclass(frozen=True)
class Rows:
    """How the sums are cut into register tiles. `groups`: input channels of a tile, the same at each kernel position (first channel of
    a kind of groups, and the groups), or none: then `flat` has the number of (position, channel) pairs of each tile, one after the other.
    `blocks`: output blocks per tile."""

    groups: tuple[tuple[int, Piece], ...]
    flat: tuple[int, ...]
    chunks: Split

    @property
    def count(self) -> int:
        return self.groups[-1][1].last if self.groups else 1


def choose_rows(spec: WeightGradientSpec, target: Target) -> Rows:
    """The tiling of least predicted time per pixel."""
    lanes, channels = target.lanes(spec.x.dtype), spec.x.shape[1]
    taps, blocks = prod(spec.kernel), -(-spec.grad.shape[1] // lanes)

    def cost(rows: Rows) -> float:
        widths = [piece.width for _, piece in rows.groups for _ in range((piece.last - piece.first) * taps)] or rows.flat
        chunks = [width for first, last, width in rows.chunks.ranges for _ in range(last - first)]
        kinds = (len(rows.groups) or len(rows.flat)) * len(rows.chunks.ranges)
        return sum(step_cost(width, chunk) for width in widths for chunk in chunks) * (1 + 0.005 * kinds)

    return min(_choices(channels, taps, blocks, lanes, target, spec.x.layout.is_blocked), key=cost)


def step_cost(rows: int, blocks: int) -> float:
    """Cycles of one pixel of a tile, in halves: multiply-adds, loads, or the latency of the chains; the terms behind break ties."""
    return max(rows * blocks, rows + blocks, 8) + 0.1 * (rows + blocks)


def _choices(channels: int, taps: int, blocks: int, lanes: int, target: Target, blocked: bool) -> Iterator[Rows]:
    for width in block_choices(blocks):
        most, chunks = max_pixels(target, width), split(blocks, width)
        tiles = split(taps * channels, most)
        if channels <= lanes and tiles.parts <= MOST_TILES:
            yield Rows((), tuple(size for first, last, size in tiles.ranges for _ in range(last - first)), chunks)
        for size in (lanes, lanes // 2, lanes // 4):
            if 0 < size <= most:
                yield Rows(tuple(_groups(channels, size, lanes if blocked else channels)), (), chunks)


def _groups(channels: int, size: int, block: int) -> Iterator[tuple[int, Piece]]:
    """Groups of `size` channels that do not straddle blocks, and of nearly as many in what is left of the last block."""
    whole = channels // block * (block // size) if block % size == 0 else 0
    start = whole * size
    if whole:
        yield 0, Piece(0, whole, size)
    if start < channels:
        for first, last, width in split(channels - start, size).ranges:
            yield start, Piece(whole + first, whole + last, width)
            start += (last - first) * width


@dataclass(frozen=True)
class Row:
    """Elements to a row of a tile: in x, and of its sums."""

    x: int
    sums: int


@dataclass(frozen=True)
class Band:
    """Pixels that are taken in together: whole maps of `images` images, or of one image `rows` of the first spatial dim."""

    images: int
    rows: Split


class _WeightGradient:
    def __init__(self, spec: WeightGradientSpec, target: Target, name: str) -> None:
        self.spec, self.f = spec, kernel_function(name)
        self.lanes, self.element = target.lanes(spec.x.dtype), scalar_type(spec.x.dtype)
        self.vector = vector_type(self.element, self.lanes)
        self.blocks, self.taps = -(-spec.grad.shape[1] // self.lanes), prod(spec.kernel)
        self.rows = choose_rows(spec, target)
        self.spatial, self.x_steps, self.g_steps = _geometry(spec)
        inner = prod(self.spatial[1:])
        fits = self.spatial[0] * inner <= BAND_PIXELS
        self.band = Band(
            max(1, BAND_PIXELS // (self.spatial[0] * inner)) if fits else 1,
            split(self.spatial[0], self.spatial[0] if fits else max(1, BAND_PIXELS // inner)),
        )
        self.panel_m, self.panel_c = self._panels()
        self.images = Split(spec.grad.shape[0], spec.parts)

    def _panels(self) -> tuple[Split, Split]:
        """Panels in chunks of output blocks, and in groups of input channels."""
        chunks, groups = self.rows.chunks.parts, self.rows.count
        in_chunk, in_group = self.rows.chunks.width * self.lanes, max(1, self.spec.x.shape[1] // groups)
        m, c = chunks, groups
        while m * c > 1 and m * in_chunk * c * in_group * self.taps * self.spec.x.dtype.itemsize > PANEL_BYTES:
            if c == 1 or (m > 1 and m * in_chunk >= c * in_group):
                m = -(-m // 2)
            else:
                c = -(-c // 2)
        return split(chunks, m), split(groups, c)

    def emit(self) -> Function:
        f, spec = self.f, self.spec
        self.x, self.g, self.sums = operand_pointers(f, len(spec.operands))
        for_items(f, {"part": spec.parts, "panel_m": self.panel_m.parts, "panel_c": self.panel_c.parts}, self._item)
        return f

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, spec = self.f, self.spec
        sums = f.pointer(self.sums, f.mul(digits["part"], spec.sums.strides[0]), self.element)
        chunks = start_of(f, digits["panel_m"], self.panel_m), width_of(f, digits["panel_m"], self.panel_m)
        groups = start_of(f, digits["panel_c"], self.panel_c), width_of(f, digits["panel_c"], self.panel_c)
        images = start_of(f, digits["part"], self.images), width_of(f, digits["part"], self.images)

        def tiles(n: Value, count: Value | int, row: Value, rows: Value | int) -> None:
            x = f.pointer(self.x, f.add(f.add(f.mul(n, spec.x.strides[0]), f.mul(row, self.x_steps[0])), self._origin()), self.element)
            g = f.add(f.mul(n, spec.grad.strides[0]), f.mul(row, self.g_steps[0]))
            g = f.pointer(self.g, f.add(g, spec.grad.origin), self.element)
            pixels = [Pixels(count, spec.x.strides[0], spec.grad.strides[0]), Pixels(rows, self.x_steps[0], self.g_steps[0])]
            rest = zip(self.spatial[1:], self.x_steps[1:], self.g_steps[1:], strict=True)
            self._for_tiles(x, g, sums, chunks, groups, [*pixels, *(Pixels(*dim) for dim in rest)])

        self._for_panel(chunks, groups, lambda chunk, group: self._zero(sums, chunk, group))
        self._for_bands(images, tiles)

    def _for_bands(self, images: tuple[Value, Value], body: object) -> None:
        f, band = self.f, self.band
        assert callable(body)
        end = f.add(*images)

        def turn(n: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            if band.rows.parts > 1:
                loop(f, i64(0), i64(band.rows.parts), lambda b: body(n, 1, start_of(f, b, band.rows), width_of(f, b, band.rows)))
            else:
                body(n, smaller(f, f.sub(end, n), band.images), i64(0), self.spatial[0])
            return ()

        f.loop(images[0], end, band.images, turn, hint="image", guarded=False)

    def _for_panel(self, chunks: tuple[Value, Value], groups: tuple[Value, Value], body: object) -> None:
        """body(chunk with its kind, group with its kind) for all tiles of a panel."""
        f, rows = self.f, self.rows
        assert callable(body)
        kinds = [piece for _, piece in rows.groups]
        starts = {piece: start for start, piece in rows.groups}

        def group(number: Value, chunk: tuple[Value, Piece]) -> None:
            def of_kind(kind: Piece) -> None:
                body(chunk, (f.add(f.mul(f.sub(number, kind.first), kind.width), starts[kind]), kind))

            for_kinds(f, number, kinds, of_kind)

        def chunk(number: Value) -> None:
            first = start_of(f, number, rows.chunks)

            def of_kind(kind: Piece) -> None:
                if not rows.groups:
                    body((first, kind), None)
                else:
                    loop(f, groups[0], f.add(*groups), lambda g: group(g, (first, kind)))

            for_kinds(f, number, pieces(rows.chunks), of_kind)

        loop(f, chunks[0], f.add(*chunks), chunk)

    def _for_tiles(
        self, x: Value, g: Value, sums: Value, chunks: tuple[Value, Value], groups: tuple[Value, Value], pixels: Sequence[Pixels]
    ) -> None:  # fmt: skip
        f, spec = self.f, self.spec

        def body(chunk: tuple[Value, Piece], group: tuple[Value, Piece] | None) -> None:
            first, kind = chunk
            at_g = f.pointer(g, f.mul(first, spec.grad.strides[1]), self.element)
            if group is None:
                for rows in self._flat_tiles():
                    self._add(rows, kind.width, pixels, x, at_g, self._sums_at(sums, i64(0), first))
                return
            channel, piece = group
            per_channel = self.blocks * self.taps * self.lanes
            step = 1 if spec.x.layout.is_blocked else spec.x.strides[1]
            rows = [Row(r * step, r * per_channel) for r in range(piece.width)]
            at_x = f.pointer(x, self._channel_offset(channel), self.element)
            at_sums = self._sums_at(sums, channel, first)
            self._for_taps(at_x, at_sums, self._tap_dims(), lambda p, s: self._add(rows, kind.width, pixels, p, at_g, s))

        self._for_panel(chunks, groups, body)

    def _add(self, rows: Sequence[Row], blocks: int, pixels: Sequence[Pixels], x: Value, g: Value, sums: Value) -> None:
        """The pixels to the sums of one tile.

        Where an element of x belongs to several pixels, LLVM would keep it in a register from one to the next, and spill others.
        """
        f, step = self.f, self.taps * self.lanes
        vectors = [b * self.spec.grad.strides[1] for b in range(blocks)]
        unroll = MAX_UNROLL if self.rows.groups else 1
        tile = OuterTile(f, self.spec.x.dtype, self.lanes, [row.x for row in rows], vectors, pixels, unroll)
        tile.emit(x, g, [f.pointer(sums, row.sums + b * step, self.element) for row in rows for b in range(blocks)])

    def _for_taps(self, x: Value, sums: Value, dims: Sequence[tuple[int, int, int]], body: object) -> None:
        """body(x at the kernel position, its sums) for all kernel positions."""
        f = self.f
        assert callable(body)
        if not dims:
            body(x, sums)
            return
        (extent, x_step, sums_step), *inner = dims

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            at_x, at_sums = carried
            self._for_taps(at_x, at_sums, inner, body)
            return (f.pointer(at_x, x_step, self.element), f.pointer(at_sums, sums_step, self.element))

        f.loop(0, extent, 1, turn, (x, sums), hint="tap", guarded=False)

    def _tap_dims(self) -> list[tuple[int, int, int]]:
        """(extent, x elements, elements of the sums) per kernel dim that has several positions."""
        spec, kernel = self.spec, self.spec.kernel
        x_steps = [d * s for d, s in zip(spec.dilation, spec.x.strides[2:], strict=False)]
        return [(k, x_steps[d], prod(kernel[d + 1 :]) * self.lanes) for d, k in enumerate(kernel) if k > 1]

    def _flat_tiles(self) -> Iterator[list[Row]]:
        """Rows of (kernel position, channel), the channel fastest, cut into tiles."""
        spec = self.spec
        offsets = [0]
        for extent, x_step, _ in self._tap_dims():
            offsets = [offset + i * x_step for offset in offsets for i in range(extent)]
        step = 1 if spec.x.layout.is_blocked else spec.x.strides[1]
        per_channel = self.blocks * self.taps * self.lanes
        channels = range(spec.x.shape[1])
        rows = [Row(at + c * step, c * per_channel + tap * self.lanes) for tap, at in enumerate(offsets) for c in channels]
        start = 0
        for size in self.rows.flat:
            yield rows[start : start + size]
            start += size

    def _zero(self, sums: Value, chunk: tuple[Value, Piece], group: tuple[Value, Piece] | None) -> None:
        """The sums of one tile at all kernel positions."""
        f = self.f
        first, count = group if group is not None else (i64(0), None)
        width = chunk[1].width * self.taps

        def channel(c: Value) -> None:
            place = self._sums_at(sums, f.add(first, c), chunk[0])

            def vector(i: Value) -> None:
                at = f.pointer(place, f.mul(i, self.lanes), self.element)
                f.store(Value("zeroinitializer", self.vector), at, self.spec.x.dtype.itemsize)

            loop(f, i64(0), i64(width), vector)

        loop(f, i64(0), i64(count.width if count is not None else self.spec.x.shape[1]), channel)

    def _sums_at(self, sums: Value, channel: Value, block: Value) -> Value:
        f = self.f
        index = f.add(f.mul(channel, self.blocks), block)
        return f.pointer(sums, f.mul(index, self.taps * self.lanes), self.element)

    def _channel_offset(self, channel: Value) -> Value:
        f, x = self.f, self.spec.x
        if not x.layout.is_blocked:
            return f.mul(channel, x.strides[1])
        block = f.op(f"lshr i64 {channel.name}, {self.lanes.bit_length() - 1}", "i64")
        lane = f.op(f"and i64 {channel.name}, {self.lanes - 1}", "i64")
        return f.add(f.mul(block, x.strides[1]), lane)

    def _origin(self) -> int:
        """The element of x that pixel 0 and kernel position 0 meet."""
        x = self.spec.x
        return x.origin - sum(p * s for p, s in zip(self.spec.pad, x.strides[2:], strict=False))


def _geometry(spec: WeightGradientSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Output positions per dim (at least two), and elements of x and of grad from one to the next; small maps that lie dense in both are
    one row."""
    spatial = spec.grad.shape[2:]
    x_steps = tuple(s * step for s, step in zip(spec.stride, spec.x.strides[2:], strict=False))
    g_steps = spec.grad.strides[2 : 2 + len(spatial)]
    dense = prod(spec.kernel) == 1 and prod(spec.stride) == 1 and not spec.x.layout.has_halo and not spec.grad.layout.has_halo
    if len(spatial) == 1 or (dense and not any(spec.pad) and spec.x.shape[2:] == spatial and prod(spatial) <= BAND_PIXELS):
        return (1, prod(spatial)), (0, x_steps[-1]), (0, g_steps[-1])
    return spatial, x_steps, g_steps


def loop(f: Function, start: Value, stop: Value, body: object) -> None:
    """body(i) for i in start .. stop-1, at least once."""
    assert callable(body)

    def turn(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        body(i)
        return ()

    if start.name == "0" and stop.name == "1":
        body(start)
    else:
        f.loop(start, stop, 1, turn, guarded=False)


def smaller(f: Function, a: Value, limit: int) -> Value | int:
    if limit == 1:
        return 1
    below = f.op(f"icmp slt i64 {a.name}, {limit}", "i1")
    return f.op(f"select i1 {below.name}, i64 {a.name}, i64 {limit}", "i64")
