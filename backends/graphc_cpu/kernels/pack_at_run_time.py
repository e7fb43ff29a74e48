"""Packing of weights that change between runs (training), as loops: the order of `graphc_cpu.kernels.pack`, read backwards.

Each packed index says which weight lies there. Output channels beyond the last are zeros; with groups, so are the input channels that
belong to another group than the output channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.kernel.expr import Expr, const, index, maximum, minimum, select, substitute
from graphc.kernel.index import simplify
from graphc.kernel.spec import ConvSpec, Nest, NestSpec, PackSpec, StoreAt, WinogradConv, WinogradProduct
from graphc.kernel.winograd import transform_kernel
from graphc.target import Target
from graphc.types.dtype import bool_, i64
from graphc_cpu.kernels.conv_plan import ConvPlan, conv_plan, is_depthwise
from graphc_cpu.kernels.conv_rows import is_rowwise
from graphc_cpu.micro.shape import Split, split


def pack_nests(spec: PackSpec, target: Target) -> NestSpec:
    """The loops that write `spec.packed`, in the order that the convolution's kernel for this target reads."""
    if not isinstance(spec.conv, ConvSpec):
        nests = _winograd(spec, spec.conv)
    elif is_depthwise(spec.conv):
        nests = _depthwise(spec)
    elif is_rowwise(spec.conv, target):
        nests = _rows(spec)
    else:
        nests = _dense(spec, spec.conv, conv_plan(spec.conv, target))
    return NestSpec("copy", spec.inputs, (spec.packed,), tuple(nests))


@dataclass(frozen=True)
class _Blocks:
    """Blocks of output channels that lie alike: `parts` chunks from block `start`, `width` blocks in each, of which the loop takes
    `count` from `first`, `lanes` lanes of each from `lane`. `zero`: they lie beyond the last channel."""

    start: int
    parts: int
    width: int
    first: int
    count: int
    lane: int
    lanes: int
    zero: bool = False


def _dense(spec: PackSpec, conv: ConvSpec, plan: ConvPlan) -> Iterator[Nest]:
    """[chunk][ic block][kernel position][channel][block of the chunk][lane]"""
    whole, rest = divmod(plan.window, plan.unit)
    for blocks in _blocks(plan.chunks, plan.lanes, conv.weight_shape[0]):
        for start, turns, unit in ((0, whole, plan.unit), (whole, 1, rest)):
            if turns and unit:
                yield _dense_nest(spec, conv, plan, blocks, start, turns, unit)


def _dense_nest(spec: PackSpec, conv: ConvSpec, plan: ConvPlan, blocks: _Blocks, start: int, turns: int, unit: int) -> Nest:
    kernel = tuple(index(f"k{d}", size) for d, size in enumerate(conv.weight_shape[2:]))
    chunk, turn, channel = index("chunk", blocks.parts), index("turn", turns), index("c", unit)
    block, lane = index("block", blocks.count), index("lane", blocks.lanes)
    tap = _flat(kernel, conv.weight_shape[2:])
    row = blocks.width * plan.lanes
    first_block = chunk * blocks.width + blocks.start
    steps = (turn + start) * (plan.unit * plan.taps) + tap * unit + channel
    offset = first_block * (plan.lanes * plan.window * plan.taps) + steps * row + (block + blocks.first) * plan.lanes + lane + blocks.lane
    axes = (chunk, turn, *kernel, channel, block, lane)
    value: Expr = const(0, spec.packed.dtype)
    if not blocks.zero:
        out = (first_block + block + blocks.first) * plan.lanes + lane + blocks.lane
        value = _weight(spec, conv, out, (turn + start) * plan.unit + channel, first_block * plan.lanes, kernel)
    return Nest(axes, (StoreAt(len(spec.inputs), simplify(offset), value),))


def _weight(spec: PackSpec, conv: ConvSpec, out: Expr, channel: Expr, first: Expr, kernel: Sequence[Expr]) -> Expr:
    """The weight of output channel `out` for channel `channel` of the window of the chunk that starts at output channel `first`."""
    if conv.groups == 1:
        return _element(spec, (out, channel, *kernel))
    per_group, inner = conv.weight_shape[0] // conv.groups, conv.weight_shape[1]
    local = simplify((first // per_group - out // per_group) * inner + channel)
    inside = select(local >= 0, local < inner, const(False, bool_))
    safe = minimum(maximum(local, 0), inner - 1)
    return select(inside, _element(spec, (out, safe, *kernel)), const(0, spec.packed.dtype))


def _blocks(chunks: Split, lanes: int, channels: int) -> Iterator[_Blocks]:
    """The kinds of blocks: of wide and narrow chunks, the last block apart where the channels do not fill it."""
    last, tail = chunks.total - 1, channels % lanes
    start = 0
    for first, end, width in chunks.ranges:
        parts = end - first
        if tail and start + parts * width - 1 == last:
            parts -= 1
            at = start + parts * width
            if width > 1:
                yield _Blocks(at, 1, width, 0, width - 1, 0, lanes)
            yield _Blocks(at, 1, width, width - 1, 1, 0, tail)
            yield _Blocks(at, 1, width, width - 1, 1, tail, lanes - tail, zero=True)
        if parts:
            yield _Blocks(start, parts, width, 0, width, 0, lanes)
        start += (end - first) * width


def _depthwise(spec: PackSpec) -> Iterator[Nest]:
    """[channel block][kernel position][lane]"""
    lanes, channels = spec.lanes, spec.index[0].extent
    sizes = tuple(axis.extent for axis in spec.index[2:])
    kernel = tuple(index(f"k{d}", size) for d, size in enumerate(sizes))
    taps = 1
    for size in sizes:
        taps *= size
    whole, tail = divmod(channels, lanes)
    kinds = ((0, whole, 0, lanes, False), (whole, 1, 0, tail, False), (whole, 1, tail, lanes - tail, True))
    for start, count, lane, width, zero in kinds if tail else kinds[:1]:
        if not count:
            continue
        block, i = index("block", count), index("lane", width)
        offset = ((block + start) * taps + _flat(kernel, sizes)) * lanes + i + lane
        value = const(0, spec.packed.dtype) if zero else _element(spec, ((block + start) * lanes + i + lane, const(0, i64), *kernel))
        yield Nest((block, *kernel, i), (StoreAt(len(spec.inputs), simplify(offset), value),))


def _rows(spec: PackSpec) -> Iterator[Nest]:
    """[input channel][kernel position][output channel]"""
    outputs, inputs, *sizes = (axis.extent for axis in spec.index)
    out, channel = index("out", outputs), index("c", inputs)
    kernel = tuple(index(f"k{d}", size) for d, size in enumerate(sizes))
    offset = _flat((channel, *kernel, out), (inputs, *sizes, outputs))
    yield Nest((channel, *kernel, out), (StoreAt(len(spec.inputs), simplify(offset), _element(spec, (out, channel, *kernel))),))


def _winograd(spec: PackSpec, conv: WinogradConv | WinogradProduct) -> Iterator[Nest]:
    """Fused: [chunk][position][ic][block][lane]; three steps: [position][chunk][ic][block][lane]. One store per position."""
    lanes, positions = conv.lanes, conv.grid.positions
    channels, inner = spec.index[0].extent, spec.index[1].extent
    chunks = split(-(-channels // lanes), conv.chunk)
    for blocks in _blocks(chunks, lanes, channels):
        chunk, c = index("chunk", blocks.parts), index("c", inner)
        block, lane = index("block", blocks.count), index("lane", blocks.lanes)
        first, row = chunk * blocks.width + blocks.start, blocks.width * lanes
        inside = c * row + (block + blocks.first) * lanes + lane + blocks.lane
        if isinstance(conv, WinogradConv):
            start, step = first * (lanes * inner * positions), row * inner
        else:
            start, step = first * (lanes * inner), chunks.total * lanes * inner
        out = (first + block + blocks.first) * lanes + lane + blocks.lane
        values = [const(0, spec.packed.dtype)] * positions if blocks.zero else _transformed(spec, conv.grid.m, out, c)
        stores = (StoreAt(len(spec.inputs), simplify(start + inside + p * step), value) for p, value in enumerate(values))
        yield Nest((chunk, c, block, lane), tuple(stores))


def _transformed(spec: PackSpec, m: int, out: Expr, channel: Expr) -> list[Expr]:
    """G g G^T of one kernel, row by row."""
    taps = [[_element(spec, (out, channel, const(r, i64), const(c, i64))) for c in range(3)] for r in range(3)]
    columns = [transform_kernel(m, [taps[r][c] for r in range(3)], _Expressions()) for c in range(3)]
    return [value for row in zip(*columns, strict=True) for value in transform_kernel(m, list(row), _Expressions())]


class _Expressions:
    """`graphc.kernel.winograd.Arithmetic` on expressions."""

    def add(self, x: Expr, y: Expr) -> Expr:
        return x + y

    def sub(self, x: Expr, y: Expr) -> Expr:
        return x - y

    def scale(self, c: float, x: Expr) -> Expr:
        return x * c

    def fma(self, c: float, x: Expr, y: Expr) -> Expr:
        return x * c + y


def _element(spec: PackSpec, position: Sequence[Expr]) -> Expr:
    return substitute(spec.value, dict(zip(spec.index, position, strict=True)))


def _flat(position: Sequence[Expr], sizes: Sequence[int]) -> Expr:
    total: Expr = const(0, i64)
    for i, size in zip(position, sizes, strict=True):
        total = total * size + i
    return total
