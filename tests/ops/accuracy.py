"""The tolerance rule: the error against float64 is at most k times that of a naive float32 evaluation, or a few units in the last place.

k is the op's `tolerance`. Errors are the largest over the tensor, among elements that are finite; NaN and infinities must agree in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.op import Op
from graphc.types.dtype import dtype
from ops.runners import run_reference
from ops.sample import Sample

Array = np.ndarray[Any, np.dtype[Any]]
FLOOR_ULPS = 8.0  # of the largest element: roundings that the naive evaluation may happen not to make


def exact(sample: Sample) -> tuple[Array, ...] | None:
    """The sample in float64; None where it is not all float32, or where the op itself names a dtype."""
    arrays = sample.arrays()
    if not any(a.dtype == np.float32 for a in arrays) or any(a.dtype in (np.float16, np.float64) for a in arrays):
        return None
    wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
    try:
        graph = build(sample.op, wide)
    except GraphcError:
        return None
    results = run_reference(graph, wide)
    return None if any(r.dtype == np.float32 for r in results) else results


def build(what: Any, arrays: list[Array]) -> Graph:
    """An op, or a function that builds with ops, on inputs x0, x1, ..."""
    builder = Builder()
    values: list[Value] = [builder.input(f"x{i}", dtype(a.dtype), a.shape) for i, a in enumerate(arrays)]
    results = builder.add_many(what, *values) if isinstance(what, Op) else what(builder, *values)
    outputs = results if isinstance(results, tuple) else (results,)
    return builder.finish(**{f"y{i}": value for i, value in enumerate(outputs)})


def check_tolerance(got: Array, naive: Array, exact: Array, k: float) -> None:
    """Assert the rule for one output; integers and bools must agree."""
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, naive)
        return
    np.testing.assert_array_equal(np.isnan(got), np.isnan(naive), "NaN in other places")
    finite = np.isfinite(naive) & np.isfinite(exact) & np.isfinite(got)
    if not finite.any():
        return
    reference = exact[finite]
    ulp = float(np.finfo(got.dtype).eps * np.abs(reference).max()) / 2
    error, allowed = (float(np.abs(a[finite] - reference).max()) for a in (got, naive))
    limit = k * allowed + FLOOR_ULPS * ulp
    assert error <= limit, f"error {error:.3g}, of the naive evaluation {allowed:.3g}: more than {k} times that and {FLOOR_ULPS} ulps"
