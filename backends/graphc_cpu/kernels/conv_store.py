"""The epilogue of a tile of convolution results: where the tile lies in the output's loop variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.kernel.expr import Expr
from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.kernels.conv_plan import spatial_indices
from graphc_cpu.micro.epilogue import Axis, Destination, TileEpilogue


@dataclass(frozen=True)
class Corner:
    """The first element of a tile: batch index, output position per dim of the plan, first block of output channels."""

    n: Value
    position: tuple[Value, ...]
    block: Value


def conv_epilogue(
    f: Function, target: Target, spec: ConvSpec, pointers: Sequence[Value], corner: Corner, shape: tuple[int, int], blocks: int
) -> TileEpilogue:
    """The epilogue of a tile of `shape` (rows, columns) pixels and `blocks` blocks of output channels."""
    index, lanes = spec.epilogue.index, target.lanes(spec.x.dtype)
    place = Destination(len(spec.operands) - 1, spec.output.physical_offset(index), spec.output, spec.output.layout.is_blocked)
    return TileEpilogue(f, target, lanes, pointers, spec.epilogue, tile_axes(f, target, spec, corner, shape, blocks), place)


def tile_axes(f: Function, target: Target, spec: ConvSpec, corner: Corner, shape: tuple[int, int], blocks: int) -> dict[Expr, Axis]:
    """The output's loop variables inside such a tile."""
    lanes, index, rank = target.lanes(spec.x.dtype), spec.epilogue.index, len(corner.position)
    axes = {index[0]: Axis(corner.n)}
    if spec.output.layout.is_blocked:
        axes[index[1]] = Axis(corner.block, by_block=tuple(range(blocks)))
        axes[index[-1]] = Axis(i64(0), vector=True)
    else:
        axes[index[1]] = Axis(f.mul(corner.block, lanes), by_block=tuple(b * lanes for b in range(blocks)), vector=True)
    by_row = tuple(r for r in range(shape[0]) for _ in range(shape[1]))
    by_column = tuple(c for _ in range(shape[0]) for c in range(shape[1]))
    deltas: list[tuple[int, ...]] = [*[()] * (rank - 2), by_row, by_column]
    spatial = spatial_indices(spec)
    axes.update({variable: Axis(i64(0)) for variable in spatial})
    for variable, base, delta in zip(spatial[::-1], corner.position[::-1], deltas[::-1], strict=False):
        axes[variable] = Axis(base, by_pixel=delta)
    return axes
