"""Accuracy of the math functions in units in the last place, on random and special arguments, for machines with and without FMA."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.types.dtype import DType, f32, f64

Array = np.ndarray[Any, Any]

LEVELS = ("avx512", "avx2", "sse2")
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 1e-40, -1e-40, 5e-324, 1e-310, 1e30, -1e30, 1e300, np.inf, -np.inf, np.nan]

# largest error in ulp that is promised: (float32, float64)
BOUNDS = {
    "exp": (1.05, 1.05), "expm1": (2.0, 2.0), "log": (1.0, 1.0), "log1p": (1.0, 1.0), "tanh": (1.6, 1.6), "erf": (1.8, 2.5),
    "sin": (0.6, 1.7), "cos": (0.6, 1.7), "tan": (0.6, 3.5), "asin": (2.4, 2.4), "acos": (1.6, 1.6), "atan": (2.0, 2.0),
    "sinh": (2.0, 2.0), "cosh": (2.0, 2.0), "asinh": (2.0, 2.0), "acosh": (2.5, 2.5), "atanh": (2.0, 2.0),
}  # fmt: skip
_NUMPY = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh"}


def reference(fn: str, x: Array) -> Array:
    """In long double; erf (not in numpy) from float64, itself within 1 ulp of that."""
    if fn == "erf":
        return np.array([math.erf(value) for value in x.astype(np.float64)], np.longdouble)
    function: Callable[[Array], Array] = getattr(np, _NUMPY.get(fn, fn))
    with np.errstate(all="ignore"):
        return function(x.astype(np.longdouble))


def ulps(result: Array, exact: Array) -> Array:
    """|result - exact| in units of the result type at the exact value; inf where one is NaN or infinite and the other is not."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(result.dtype)
        unit = np.spacing(np.abs(rounded)).astype(np.longdouble)
        error = np.abs(result.astype(np.longdouble) - exact) / unit
        same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0.0, np.where(np.isfinite(rounded) & np.isfinite(result), error, np.inf)).astype(float)


def arguments(dtype: DType, count: int) -> Array:
    rng = np.random.default_rng(11)
    top = 92 if dtype is f32 else 715
    lowest, highest = np.log(float(np.finfo(dtype.numpy).smallest_normal)), np.log(float(np.finfo(dtype.numpy).max))
    with np.errstate(over="ignore"):
        spread = np.exp(rng.uniform(-top, top, count))
        parts = [
            np.array(SPECIAL), rng.uniform(-1, 1, count), rng.uniform(-4, 4, count), rng.uniform(-top, top, count),
            rng.uniform(1, 2, count), spread, -spread, 1 + rng.normal(size=count) * 1e-3, rng.normal(size=count) * 1e-6,
            np.pi / 2 * rng.integers(-(10**6), 10**6, count),
            lowest + rng.uniform(-20, 1, count), highest + rng.normal(size=count) * 1e-2,
        ]  # fmt: skip
        return np.concatenate(parts).astype(dtype.numpy)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_math_functions(tools: Any, level: str, dtype: DType) -> None:
    x = arguments(dtype, 700)
    cases = [tools.primitive(fn, dtype, lanes, [x]) for fn in BOUNDS for lanes in (16, 1)]
    results = tools.run_cases(cases, level)
    for number, (fn, bounds) in enumerate(BOUNDS.items()):
        vector, scalar = results[2 * number : 2 * number + 2]
        error = ulps(vector, reference(fn, x))
        worst = int(np.argmax(error))
        bound = bounds[0 if dtype is f32 else 1]
        assert error[worst] <= bound, f"{fn}({x[worst]!r}) = {vector[worst]!r}: {error[worst]:.2f} ulp"
        np.testing.assert_array_equal(vector, scalar, err_msg=f"{fn}: lanes change the result")


@pytest.mark.parametrize("fn", ["sin", "tanh", "asinh", "atan", "erf", "expm1", "log1p", "sinh", "asin", "atanh"])
def test_odd_functions_keep_the_sign_of_zero(tools: Any, fn: str) -> None:
    for dtype in (f32, f64):
        zeros = np.array([0.0, -0.0], dtype.numpy)
        result = tools.run_cases([tools.primitive(fn, dtype, 1, [zeros])], "avx2")[0]
        assert list(np.signbit(result)) == [False, True]
        assert not result.any()


@pytest.mark.parametrize("level", LEVELS)
def test_power(tools: Any, level: str) -> None:
    rng = np.random.default_rng(3)
    special = np.array([*SPECIAL, 3.0, -3.0, -2.5, -7.0, 1e20, 9007199254740993.0, 4503599627370497.5])
    for dtype, bound in ((f32, 0.6), (f64, 1.1)):
        base = np.concatenate([np.exp(rng.uniform(-5, 5, 700)), 1 + rng.normal(size=700) * 1e-3])
        exponent = rng.uniform(-1, 1, 1400) * (86 if dtype is f32 else 705) / np.log(base)
        x, y = base.astype(dtype.numpy), exponent.astype(dtype.numpy)
        with np.errstate(all="ignore"):
            edges = [values.ravel().astype(dtype.numpy) for values in np.meshgrid(special, special)]
            expected = np.power(*(values.astype(np.float64) for values in edges)).astype(dtype.numpy)
        regular, corner = tools.run_cases([tools.primitive("pow", dtype, 16, [x, y]), tools.primitive("pow", dtype, 16, edges)], level)
        with np.errstate(all="ignore"):
            exact = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
        assert ulps(regular, exact).max() <= bound
        equal = ulps(corner, expected.astype(np.longdouble)) <= 1.0
        signs = np.signbit(corner) == np.signbit(expected)
        wrong = ~(equal & (signs | np.isnan(expected)))
        assert not wrong.any(), [(edges[0][i], edges[1][i], corner[i], expected[i]) for i in np.flatnonzero(wrong)[:4]]


def test_huge_angles(tools: Any) -> None:
    """Every binary exponent, each with arguments close to multiples of pi/2, where all digits of pi count."""
    rng = np.random.default_rng(8)
    for dtype, top in ((f32, 127), (f64, 1023)):
        x = (2.0 ** rng.integers(15, top, 4000) * rng.uniform(1, 2, 4000)).astype(dtype.numpy)
        hard = [6381956970095103.0 * 2.0**797] if dtype is f64 else [16367173.0 * 2.0**72]  # worst cases of Muller's book
        x = np.concatenate([x, -x, np.array(hard, dtype.numpy)])
        sine, cosine = tools.run_cases([tools.primitive(fn, dtype, 16, [x]) for fn in ("sin", "cos")], "avx2")
        assert ulps(sine, reference("sin", x)).max() < 2.0
        assert ulps(cosine, reference("cos", x)).max() < 2.0
