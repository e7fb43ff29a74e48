"""Symbolic derivatives against central differences, and PyTorch's conventions at corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import UnsupportedError
from graphc.kernel.derivative import derivative
from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import COMPARISONS, PRIMITIVES, Expr, arg, call, cast, load, maximum, minimum, reduce, select
from graphc.types.dtype import f32, f64, i64

X, Y, Z = (arg(name, f64) for name in "xyz")
INTEGER_ONLY = {"idiv", "and", "or", "xor", "not", "shl", "shr"}
DOMAIN = {"acosh": (1.2, 3.0), "log": (0.2, 3.0), "sqrt": (0.2, 3.0), "pow": (0.2, 3.0), "log1p": (-0.5, 3.0)}
FLOATS = sorted(PRIMITIVES.keys() - INTEGER_ONLY - COMPARISONS - {"select"})


def slope(e: Expr, values: dict[Expr, np.ndarray], wrt: Expr) -> np.ndarray:
    step = 1e-6
    up, down = (evaluate(e, values | {wrt: values[wrt] + delta}) for delta in (step, -step))
    return np.asarray((up - down) / (2 * step))


@pytest.mark.parametrize("fn", FLOATS)
def test_primitives(fn: str) -> None:
    rng = np.random.default_rng(4)
    low, high = DOMAIN.get(fn, (-0.9, 0.9))
    values = {v: rng.uniform(low, high, 200) for v in (X, Y, Z)}
    args = (X, Y, Z)[: PRIMITIVES[fn]]
    e = call(fn, *args)
    for wrt in args:
        if fn in ("floordiv", "mod", "fmod"):  # away from their jumps
            quotient = values[X] / values[Y]
            smooth = (np.abs(quotient - np.round(quotient)) > 1e-3) & (np.abs(values[Y]) > 0.05)
        else:
            smooth = np.ones(200, bool)
        result = np.broadcast_to(evaluate(derivative(e, wrt), values), 200)
        assert smooth.sum() > 100
        np.testing.assert_allclose(result[smooth], slope(e, values, wrt)[smooth], rtol=2e-6, atol=2e-7)


def expressions() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from([X, Y, X + Y, X * 2.0, 0.5 - X])

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        return st.one_of(
            st.tuples(st.sampled_from(["add", "sub", "mul"]), inner, inner).map(lambda t: call(*t)),
            st.tuples(st.sampled_from(["neg", "tanh", "sin", "erf", "atan"]), inner).map(lambda t: call(*t)),
            inner.map(lambda u: 1.0 / (1.0 + call("exp", -u))),
            st.tuples(inner, inner).map(lambda t: select(Y < 0.0, t[0], t[1])),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_chains(e: Expr) -> None:
    values = {X: np.linspace(-1, 1, 9), Y: np.linspace(0.7, -0.6, 9)}
    result = np.broadcast_to(evaluate(derivative(e, X), values), 9)
    np.testing.assert_allclose(result, np.broadcast_to(slope(e, values, X), 9), rtol=1e-5, atol=1e-7)


def at(e: Expr, *points: float) -> list[float]:
    result = evaluate(derivative(e, X), {X: np.array(points), Y: np.zeros(len(points))})
    return np.broadcast_to(result, len(points)).tolist()  # type: ignore[no-any-return]


def test_corners() -> None:
    assert at(maximum(X, 0.0), -1, 0, 1) == [0, 0, 1]
    assert at(maximum(0.0, X), -1, 0, 1) == [0, 0, 1]
    assert at(minimum(maximum(X, 0.0), 6.0), 0, 3, 6, 7) == [0, 1, 0, 0]
    assert at(maximum(X, Y), -1, 0, 1) == [0, 0.5, 1]
    assert at(minimum(X, Y), -1, 0, 1) == [1, 0.5, 0]
    assert at(maximum(X, X), 2) == [1]
    assert at(abs(X), -2, 0, 2) == [-1, 0, 1]
    assert at(call("pow", X, 0.0), 0) == [0]
    assert at(call("pow", X, 3.0), 0, 2) == [0, 12]
    assert at(call("pow", X, Y), 0, 2) == [0, 0]


def test_logistic_does_not_overflow() -> None:
    for logistic in (1.0 / (1.0 + call("exp", -X)), 1.0 / (call("exp", -X) + 1.0)):
        assert at(logistic, -1e4, 0, 1e4) == [0, 0.25, 0]


def test_the_side_not_chosen_stays_out() -> None:
    assert at(select(X > 0.0, call("log", X), X), -1, 2) == [1, 0.5]


def test_loads_sums_and_casts() -> None:
    x, i = load(0, Y_INDEX, f32), Y_INDEX
    assert derivative(x * x, x) is x + x
    total = reduce("sum", (3,), lambda r: X * cast(cast(r, f64), f64) + X)
    assert at(total, 5.0) == [6.0]
    assert at(reduce("sum", (4,), lambda r: X), 1.0) == [4.0]
    assert derivative(cast(x, f64), x).dtype == f64
    assert i.dtype == i64


Y_INDEX = arg("offset", i64)


def test_refusals() -> None:
    with pytest.raises(UnsupportedError, match="only floats"):
        derivative(Y_INDEX + 1, Y_INDEX)
    with pytest.raises(UnsupportedError, match="max reduction"):
        derivative(reduce("max", (3,), lambda r: X * cast(r, f64)), X)


def test_constant_where_it_does_not_depend() -> None:
    assert derivative(call("exp", Y), X).attr == 0.0
    assert derivative(call("floor", X), X).attr == 0.0
    assert derivative(X, X).attr == 1.0
