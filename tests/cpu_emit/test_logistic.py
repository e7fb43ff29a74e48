"""a / (1 + e**u) as one function: where it is recognised, its accuracy in ulp, its special values, and the same bits for any lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.kernel.expr import Expr, arg, call
from graphc.target import TARGETS, Target
from graphc.types.dtype import f32, f64
from graphc_cpu.emit.ir import Function, Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_logistic import has_logistic, logistic, logistic_parts
from graphc_cpu.emit.math_table import LANES, lookup

Array = np.ndarray[Any, Any]
x, y = arg("x", f32), arg("y", f32)


def sigmoid(u: Expr) -> Expr:
    return 1 / (1 + call("exp", u))


@pytest.mark.parametrize(("node", "parts"), [
    (sigmoid(-x), (1.0, -x)), (1 / (call("exp", x) + 1), (1.0, x)), (x * sigmoid(-x), (x, -x)), (sigmoid(x) * y, (y, x)),
    (y / (1 + call("exp", x)), (y, x)),
])  # fmt: skip
def test_recognised(node: Expr, parts: tuple[Expr | float, Expr]) -> None:
    found = logistic_parts(node)
    assert found is not None
    assert found[1] is parts[1]
    assert found[0] is parts[0] or found[0].attr == parts[0]


def test_not_recognised() -> None:
    double = arg("x", f64)
    others = [1 / (2 + call("exp", x)), 1 / (1 - call("exp", x)), 1 / (1 + call("expm1", x)), x * (2 / (1 + call("exp", x))), x * y, x / y]
    assert [logistic_parts(node) for node in (*others, 1 / (1 + call("exp", double)))] == [None] * (len(others) + 1)


def applied(f: Function, args: list[Value], lanes: int, target: Target) -> Value:
    return logistic(Lanes(f, 32, lanes, target), args[0], args[1])


def run(tools: Any, numerator: Array, exponent: Array, lanes: int = LANES) -> Array:
    result: Array = tools.run_cases([tools.Case(applied, [f32, f32], f32, lanes, [numerator, exponent])], "avx512")[0]
    return result


def test_accuracy(tools: Any) -> None:
    rng = np.random.default_rng(2)
    for low, high, bound in ((-200, -20, 1.0), (-20, 20, 4.0), (20, 87, 6.0)):
        u = rng.uniform(low, high, 20000).astype(np.float32)
        exact = 1 / (1 + np.exp(u.astype(np.longdouble)))
        result = run(tools, np.ones_like(u), u)
        error = np.abs(result - exact) / np.spacing(exact.astype(np.float32)).astype(np.longdouble)
        assert error.max() <= bound, (u[error.argmax()], float(error.max()))
        assert error.max() > 0


def test_special_values(tools: Any) -> None:
    inf, nan = np.inf, np.nan
    table = np.array([  # a, u, a / (1 + exp(u))
        [1, inf, 0], [1, -inf, 1], [1, nan, nan], [1, 0, 0.5], [nan, 0, nan], [-5, 200, -0.0], [3e38, -3e38, 3e38], [-3e38, 3e38, -0.0],
        [inf, -inf, inf], [-inf, inf, nan], [0.0, -1e-40, 0.0], [-0.0, 1e-40, -0.0], [1, 95, 0],
    ], np.float32)  # fmt: skip
    result = run(tools, table[:, 0], table[:, 1])
    np.testing.assert_array_equal(result, table[:, 2])
    number = ~np.isnan(result)
    np.testing.assert_array_equal(np.signbit(result)[number], np.signbit(table[:, 2])[number])


def test_every_number_of_lanes_gives_the_same_bits(tools: Any) -> None:
    rng = np.random.default_rng(3)
    a, u = rng.normal(size=1024).astype(np.float32), (rng.normal(size=1024) * 20).astype(np.float32)
    expected = run(tools, a, u)
    for lanes in (1, 2, 4, 8, 32, 48, 64):
        np.testing.assert_array_equal(run(tools, a, u, lanes), expected, err_msg=str(lanes))


def test_only_on_avx512_float32() -> None:
    f = Function("none", [])
    cases = [(32, 16, "avx512"), (32, 1, "avx512"), (64, 8, "avx512"), (32, 8, "avx2"), (32, 4, "neon")]
    assert [has_logistic(Lanes(f, width, lanes, TARGETS[level])) for width, lanes, level in cases] == [True, True, False, False, False]


def test_lookup_takes_the_index_modulo_16(tools: Any) -> None:
    table = [float(k * k) for k in range(LANES)]

    def body(f: Function, args: list[Value], lanes: int, target: Target) -> Value:
        v = Lanes(f, 32, lanes, target)
        return lookup(v, table, v.nearest(args[0])[1])

    values = np.arange(-32, 32, dtype=np.float32)
    result = tools.run_cases([tools.Case(body, [f32], f32, LANES, [values])], "avx512")[0]
    np.testing.assert_array_equal(result, np.array(table, np.float32)[values.astype(int) % LANES])
