"""How one convolution runs: the geometry in elements, the tile, the order of the work items. Shared by code generation and packing.

Output rows and columns are the last two spatial dims; a 1x1 convolution of stride 1 on maps without halo is flattened to one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.expr import Expr
from graphc.kernel.spec import ConvSpec, Operand
from graphc.target import Target
from graphc_cpu.micro.affine import merges
from graphc_cpu.micro.shape import MAX_BLOCKS, Split, max_pixels, split, tile_cost
from graphc_cpu.micro.tile import Reduction

L2_SHARE = 0.6
"""Weights up to this part of the second-level cache are streamed once per pixel tile; larger ones stay and the map is streamed."""
SMALL_MAP = 1.0
"""A map up to this part of the weights is streamed in any case: each core then reads its own part of the weights alone."""


@dataclass(frozen=True)
class ConvPlan:
    """`spatial`: output positions per dim, (rows, columns) last. `steps`: x elements per output position. `origin`: x element that
    output position 0 and kernel position 0 read. `window`: the most input channels that a chunk of output channels reads (its groups',
    in units of `unit`, which never straddle a block of lanes)."""

    lanes: int
    spatial: tuple[int, ...]
    steps: tuple[int, ...]
    origin: int
    kernel: tuple[tuple[int, int], ...]
    window: int
    unit: int
    blocks: int
    rows: Split
    columns: Split
    chunks: Split
    weights_outer: bool

    @property
    def outer(self) -> tuple[int, ...]:
        return self.spatial[:-2]

    @property
    def taps(self) -> int:
        return prod(extent for extent, _ in self.kernel)


def check_conv(spec: ConvSpec, target: Target) -> None:
    """Raises UnsupportedError or ShapeError with the reason where a convolution cannot be generated."""
    lanes = target.lanes(spec.x.dtype)
    if spec.x.dtype.name not in ("float32", "float64", "int32", "int64"):
        raise UnsupportedError(f"convolution of {spec.x.dtype}", hint="cast to f32 before it")
    for name, operand in (("x", spec.x), ("output", spec.output)):
        if operand.layout.is_blocked and operand.layout.block != lanes:
            raise UnsupportedError(f"convolution with {name} in blocks of {operand.layout.block}; {target.name} has {lanes} lanes")
    halo = spec.x.layout.halo or ((0, 0),) * len(spec.stride)
    kernel = spec.weight_shape[2:]
    for d, (before, after) in enumerate(halo):
        last = (spec.output.shape[2 + d] - 1) * spec.stride[d] + (kernel[d] - 1) * spec.dilation[d] - spec.pad[d]
        if spec.pad[d] > before or last >= spec.x.shape[2 + d] + after:
            raise ShapeError(f"convolution reads beyond the halo {before}:{after} of its input in spatial dim {d}")


def is_depthwise(spec: ConvSpec) -> bool:
    """One filter per channel, channels in blocks: vectors run over channels."""
    same = spec.groups == spec.x.shape[1] == spec.weight_shape[0] and spec.weight_shape[1] == 1
    return same and spec.x.layout.is_blocked and spec.output.layout.is_blocked


@lru_cache(maxsize=1024)
def conv_plan(spec: ConvSpec, target: Target) -> ConvPlan:
    """The plan; a function of spec and target alone, so code and packed weights always agree."""
    check_conv(spec, target)
    lanes = target.lanes(spec.x.dtype)
    blocks = -(-spec.weight_shape[0] // lanes)
    spatial, steps = _spatial(spec)
    taps = prod(spec.weight_shape[2:])

    def cost(choice: tuple[Split, Split, Split]) -> float:
        spans = [last - first for first, last in windows(spec, lanes, choice[2])]
        steps = taps * sum(spans) // len(spans)
        kinds = prod(len(s.ranges) for s in choice)
        total = sum(
            (r1 - r0) * (c1 - c0) * (b1 - b0) * tile_cost(r * c, b, steps)
            for r0, r1, r in choice[0].ranges for c0, c1, c in choice[1].ranges for b0, b1, b in choice[2].ranges
        )  # fmt: skip
        return total * (1 + 0.01 * kinds)

    rows, columns, chunks = min(_tiles(target, spatial, blocks), key=cost)
    x_strides = spec.x.strides[2 : 2 + len(spec.stride)]
    window = max(last - first for first, last in windows(spec, lanes, chunks))
    weight_bytes = blocks * lanes * window * taps * spec.x.dtype.itemsize
    return ConvPlan(
        lanes=lanes, spatial=spatial, steps=steps,
        origin=spec.x.origin - sum(p * s for p, s in zip(spec.pad, x_strides, strict=True)),
        kernel=tuple((k, d * s) for k, d, s in zip(spec.weight_shape[2:], spec.dilation, x_strides, strict=True) if k > 1),
        window=window, unit=lanes if spec.groups == 1 else gcd(spec.weight_shape[1], lanes),
        blocks=blocks, rows=rows, columns=columns, chunks=chunks,
        weights_outer=weight_bytes > L2_SHARE * target.l2 or spec.x.nbytes <= SMALL_MAP * weight_bytes,
    )  # fmt: skip


def _tiles(target: Target, spatial: tuple[int, ...], blocks: int) -> Iterator[tuple[Split, Split, Split]]:
    """Candidates: rows, columns and blocks per tile, in pieces as equal as can be."""
    height, width = spatial[-2:]
    for per_tile in range(1, min(blocks, MAX_BLOCKS) + 1):
        most = min(28, max_pixels(target, per_tile))
        for rows in range(1, min(height, most) + 1):
            yield split(height, rows), split(width, most // rows), split(blocks, per_tile)


def _spatial(spec: ConvSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Output positions per dim (at least rows and columns), and x elements per position."""
    positions = spec.output.shape[2:]
    rank = len(positions)
    steps = tuple(s * x for s, x in zip(spec.stride, spec.x.strides[2:], strict=False))
    if _flattens(spec):
        return (1, prod(positions)), (0, steps[-1])
    return ((1, *positions), (0, *steps)) if rank == 1 else (positions, steps)


def _flattens(spec: ConvSpec) -> bool:
    """Whether all positions are one contiguous row for x, the output and the epilogue's operands."""
    trivial = prod(spec.weight_shape[2:]) == 1 and prod(spec.stride) == 1 and len(spec.stride) > 1
    if not trivial or spec.x.layout.has_halo or spec.output.layout.has_halo or any(spec.pad):
        return False
    return merges(spec.epilogue.value, spatial_indices(spec))


def spatial_indices(spec: ConvSpec) -> tuple[Expr, ...]:
    """The epilogue's loop variables of the output's spatial dims."""
    return spec.epilogue.index[2 : 2 + len(spec.stride)]


def channel_steps(x: Operand, lanes: int) -> tuple[int, int]:
    """x elements per block of `lanes` channels, and per channel inside one."""
    return (x.strides[1], 1) if x.layout.is_blocked else (lanes * x.strides[1], x.strides[1])


def windows(spec: ConvSpec, lanes: int, chunks: Split) -> list[tuple[int, int]]:
    """For each chunk of output channels the input channels that its groups span: first, last + 1."""
    per_group, found = spec.weight_shape[1], []
    if spec.groups == 1:
        return [(0, per_group)] * chunks.parts
    for chunk in range(chunks.parts):
        first, last = chunk_channels(chunks, chunk, lanes, spec.weight_shape[0])
        found.append((group_of(spec, first) * per_group, (group_of(spec, last - 1) + 1) * per_group))
    return found


def chunk_channels(chunks: Split, chunk: int, lanes: int, channels: int) -> tuple[int, int]:
    """First and last + 1 output channel of a chunk of blocks."""
    narrow = max(0, chunk - chunks.wide)
    start = chunk * chunks.width - narrow
    width = chunks.width if chunk < chunks.wide else chunks.width - 1
    return start * lanes, min((start + width) * lanes, channels)


def group_of(spec: ConvSpec, output_channel: int) -> int:
    """The group of an output channel."""
    return output_channel // (spec.weight_shape[0] // spec.groups)


def reduction(spec: ConvSpec, plan: ConvPlan, blocks: int, prefetch: int) -> Reduction:
    """The sum of one tile with `blocks` output blocks."""
    block_step, channel_step = channel_steps(spec.x, plan.lanes)
    return Reduction(plan.window, plan.unit, block_step, channel_step, plan.kernel, blocks * plan.lanes, prefetch=prefetch)
