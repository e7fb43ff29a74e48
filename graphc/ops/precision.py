"""The rule of precision that ops share: float16 is stored, float32 computes; results are rounded to float16 once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.op import Array
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, cast
from graphc.types.dtype import DType, f16, f32


def wide(d: DType) -> DType:
    """The dtype that an op computes in: float32 for float16, else itself."""
    return f32 if d == f16 else d


def read(x: Access, to: DType | None = None) -> Callable[..., Expr]:
    """x's elements as `to` (default: `wide` of its dtype)."""
    dtype = to or wide(x.dtype)
    return lambda *index: cast(x[index], dtype)


def accurate(a: Array) -> Array:
    """An array in the dtype that references compute in (see `wide`)."""
    return a.astype(np.float32) if a.dtype == np.float16 else a
