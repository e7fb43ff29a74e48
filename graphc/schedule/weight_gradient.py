"""Sums of weight gradients in parts: small results are summed over parts of the batch, and the parts then added in order.

The number of parts follows from the shape alone, so the bits of a result do not depend on the machine's cores or on threads.
"""

from __future__ import annotations

from math import prod

from graphc.kernel.canonical import canonical
from graphc.kernel.choose import ALGORITHMS, GRADIENT_PANEL, GRADIENT_TILES
from graphc.kernel.expr import const, index, load
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt, TileGrid, WeightGradientSpec, WinogradGradient
from graphc.types.dtype import i64

PIECES = 16
"""Independent pieces of work that a weight gradient should have."""
PIECE_BYTES = 300_000
"""Of a result: what stays in a second-level cache beside the maps that are read."""


WINOGRAD_PIECES = 8
"""The same for those in Winograd's domain, where each piece has transforms of its own."""


def parts_of(batch: int, output: Operand, algorithm: str, groups: int = 1) -> int:
    """Of a batch, for sums in the memory of `output` (C/groups, M, *kernel)."""
    if groups > 1:  # a piece for each block
        return max(1, min(batch, PIECES // output.physical_shape[1]))
    if not ALGORITHMS.get(algorithm):
        return max(1, min(batch, PIECES // max(1, output.nbytes // PIECE_BYTES)))
    panels = prod(-(-channels // (panel * output.layout.block)) for channels, panel in zip(output.shape, GRADIENT_PANEL, strict=False))
    return max(1, min(batch, WINOGRAD_PIECES // panels))


def winograd_gradient(spec: WeightGradientSpec) -> WinogradGradient:
    """The same sums by tiles of 2x2 pixels."""
    n, outputs, height, width = spec.grad.shape
    lanes = spec.grad.layout.block
    grid = TileGrid(2, n, -(-height // 2), -(-width // 2))
    blocks = (min(-(-channels // lanes), panel) for channels, panel in zip((spec.x.shape[1], outputs), GRADIENT_PANEL, strict=True))
    return WinogradGradient(spec, grid, min(GRADIENT_TILES, -(-n // spec.parts) * grid.rows * grid.columns), *blocks)


def sum_spec(spec: WeightGradientSpec) -> NestSpec:
    """The parts of `spec.sums`, added in order."""
    count = spec.sums.elements // spec.parts
    element, dtype = index("i0", count), spec.sums.dtype
    total = load(0, element, dtype)
    for part in range(1, spec.parts):
        total = total + load(0, element + const(part * count, i64), dtype)
    sums = Operand(dtype, (spec.parts, count))
    return canonical(NestSpec("reduce", (sums,), (Operand(dtype, (count,)),), (Nest((element,), (StoreAt(1, element, total),)),)))
