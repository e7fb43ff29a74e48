"""Sums of weight gradients in parts: small results are summed over parts of the batch, and the parts then added in order.

The number of parts follows from the shape alone, so the bits of a result do not depend on the machine's cores or on threads.
"""

from __future__ import annotations

from graphc.kernel.canonical import canonical
from graphc.kernel.expr import const, index, load
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt, WeightGradientSpec
from graphc.types.dtype import i64

PIECES = 16
"""Independent pieces of work that a weight gradient should have."""
PIECE_BYTES = 300_000
"""Of a result: what stays in a second-level cache beside the maps that are read."""


def parts_of(batch: int, nbytes: int) -> int:
    """Of a batch, for a result of `nbytes` bytes."""
    return max(1, min(batch, PIECES // max(1, nbytes // PIECE_BYTES)))


def sum_spec(spec: WeightGradientSpec) -> NestSpec:
    """The parts of `spec.sums`, added in order."""
    count = spec.sums.elements // spec.parts
    element, dtype = index("i0", count), spec.sums.dtype
    total = load(0, element, dtype)
    for part in range(1, spec.parts):
        total = total + load(0, element + const(part * count, i64), dtype)
    sums = Operand(dtype, (spec.parts, count))
    return canonical(NestSpec("reduce", (sums,), (Operand(dtype, (count,)),), (Nest((element,), (StoreAt(1, element, total),)),)))
