"""choose_panels: whether the threads of a matrix product copy what they read (`MatmulPanels`), and how much at a time.

No answer changes a bit of a result. Read in place, a^T takes a cache line, and often a page, for each step of the sum; squares of b^T are
transposed in registers again for each tile of rows; columns of a large b fall into few sets of the caches.
"""

from __future__ import annotations

from math import prod

from graphc.kernel.spec import MatmulPanels, MatmulSpec
from graphc.target import Target

_L1_SHARE = 0.5  # of the first-level cache that an operand may take which is read in place
_L2_SHARE = 0.5  # of the second-level cache, for rows of a, for a panel of b, and for parts of sums
_NEAR_ROWS = 14  # a tile of rows reads b^T in place
_TILE_ROWS, _TILE_COLUMNS, _LANES = 28, 128, 16  # the most of a register tile, and of a vector
_STEPS = 256  # a panel of b then fits into the first-level cache


def with_panels(spec: MatmulSpec, target: Target) -> MatmulSpec | MatmulPanels:
    """The product, with panels where they pay."""
    if spec.packed or not prod(spec.batch) or min(spec.m, spec.n, spec.k) < 2 or spec.dtype.itemsize not in (4, 8):
        return spec
    itemsize = spec.dtype.itemsize
    a = spec.a_strides[-2] == 1 and spec.k * spec.a_strides[-1] * itemsize > _L1_SHARE * target.l1
    b = spec.b_strides[-2] == 1 != spec.b_strides[-1] and _rows(spec) > _NEAR_ROWS
    if not (a or b) or (spec.a_strides[-1] != 1 and not a):
        return spec
    share = int(_L2_SHARE * target.l2) // itemsize
    steps = spec.k
    if a or spec.k * _TILE_COLUMNS // 4 > share:
        steps = -(-spec.k // -(-spec.k // _STEPS))
    columns = -(-spec.n // _LANES) * _LANES
    rows = min(_rows(spec), max(share // steps, _TILE_ROWS))
    if steps < spec.k:
        columns = min(columns, max(share // rows // _LANES * _LANES, _TILE_COLUMNS))
    return MatmulPanels(spec, rows, columns, steps)


def _rows(spec: MatmulSpec) -> int:
    """Rows of a that read the same b."""
    return spec.m * (1 if any(spec.b_strides[:-2]) else prod(spec.batch))
