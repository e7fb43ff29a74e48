"""Updates in order at places that are data, against the numpy model, at every machine level and for 1 to 3 threads."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_nest.harness import LEVELS, check, tensor
from graphc.kernel import nest_model
from graphc.kernel.expr import Expr, cast, index, load
from graphc.kernel.spec import StoreAt, UpdateSpec
from graphc.types.dtype import DType, f32, f64, i32, i64

ROWS, COUNT = 5, 40


def rows_spec(columns: int, combine: str, dtype: DType = f32, outer: int = 1, each: bool = False) -> UpdateSpec:
    """y[o, rows[u], c] = combine(it, x[o, u, c] + 1); `each`: rows[u, c] says it for every column."""
    rows = tensor(COUNT, columns if each else 1, dtype=i64)
    x, y = tensor(outer, COUNT, columns, dtype=dtype), tensor(outer, ROWS, columns, dtype=dtype)
    o, c, u = index("o", outer), index("c", columns), index("u", COUNT)
    row = load(0, u * columns + c if each else u, i64)
    value: Expr = load(1, (o * COUNT + u) * columns + c, dtype) + 1
    return UpdateSpec((rows, x), y, (o, c), u, StoreAt(2, (o * ROWS + row) * columns + c, value), combine)


def buffers(spec: UpdateSpec) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    rows, x, y = spec.operands
    values = (rng.integers(-4, 4, operand.elements).astype(operand.dtype.numpy) for operand in (x, y))
    return [rng.integers(0, ROWS, rows.elements), *values]


@pytest.mark.parametrize("combine", ["", "add", "mul", "max", "min"])
@pytest.mark.parametrize("columns", [1, 2, 3, 16, 17, 61, 64, 257])
def test_rows(columns: int, combine: str) -> None:
    spec = rows_spec(columns, combine, f64 if combine == "mul" else f32)
    check(spec, buffers(spec), levels=LEVELS)


@pytest.mark.parametrize("each", [False, True], ids=["rows", "each"])
@pytest.mark.parametrize("dtype", [f32, f64, i32, i64], ids=str)
@pytest.mark.parametrize(("outer", "columns"), [(3, 7), (11, 1), (2, 150), (40, 33)])
def test_several_axes(outer: int, columns: int, dtype: DType, each: bool) -> None:
    spec = rows_spec(columns, "add", dtype, outer, each)
    check(spec, buffers(spec))


def test_single_elements_in_order() -> None:
    """No axis is common to all updates: y[at[u]] = u."""
    u, at, y = index("u", 1000), tensor(1000, dtype=i64), tensor(37, dtype=i64)
    spec = UpdateSpec((at,), y, (), u, StoreAt(1, load(0, u, i64), cast(u, i64)))
    places = np.random.default_rng(0).integers(0, 37, 1000)
    found = check(spec, [places, np.full(37, -1)])
    last = [int(np.flatnonzero(places == k)[-1]) for k in range(37)]
    assert found[1].tolist() == last


def test_nothing_to_do() -> None:
    spec = rows_spec(0, "add")
    check(spec, buffers(spec))


def test_the_model_refuses_one_update_that_meets_itself() -> None:
    c, u = index("c", 4), index("u", 2)
    spec = UpdateSpec((), tensor(2), (c,), u, StoreAt(0, u, cast(c, f32)), "add")
    with pytest.raises(ValueError, match="twice"):
        nest_model.run(spec, [np.zeros(2, np.float32)])
