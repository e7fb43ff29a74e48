"""The numpy meaning of expressions against plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.evaluate import evaluate, neutral
from graphc.kernel.expr import COMBINERS, Expr, arg, call, cast, const, index, load, maximum, minimum, reduce, select
from graphc.types.dtype import DType, bool_, f16, f32, f64, i8, i32, i64, u8
from graphc.types.shape import symbol

NUMBERS = [-128, -127, -8, -3, -1, 0, 1, 2, 5, 7, 127]
A, B = np.meshgrid(NUMBERS, NUMBERS)


def binary(fn: str, dtype: DType, a: Any, b: Any) -> np.ndarray[Any, Any]:
    x, y = arg("x", dtype), arg("y", dtype)
    return evaluate(call(fn, x, y), {x: np.asarray(a).astype(dtype.numpy), y: np.asarray(b).astype(dtype.numpy)})


def wrap8(value: int) -> int:
    return (value + 128) % 256 - 128


PYTHON = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "idiv": lambda a, b: math.trunc(a / b) if b else 0, "fmod": lambda a, b: int(math.fmod(a, b)) if b else 0,
    "min": min, "max": max, "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b if 0 <= b < 8 else 0, "shr": lambda a, b: a >> b if 0 <= b < 8 else 0,
    "pow": lambda a, b: a**b if b >= 0 else int(1 / a**-b) if a else 0,
}  # fmt: skip


@pytest.mark.parametrize("fn", PYTHON)
def test_integers(fn: str) -> None:
    expected = [[wrap8(PYTHON[fn](int(a), int(b))) for a, b in zip(*rows, strict=True)] for rows in zip(A, B, strict=True)]
    np.testing.assert_array_equal(binary(fn, i8, A, B), np.array(expected))


@pytest.mark.parametrize("fn", ["mod", "floordiv"])
def test_float_remainders_are_those_of_python(fn: str) -> None:
    expected = [[PYTHON[fn](float(a), float(b)) if b else np.nan for a, b in zip(*rows, strict=True)] for rows in zip(A, B, strict=True)]
    result = binary(fn, f64, A, B)
    np.testing.assert_array_equal(np.where(B == 0, np.nan, result), np.array(expected))


def test_nan_wins() -> None:
    values = np.array([1.0, np.nan]), np.array([np.nan, 1.0])
    assert np.isnan(binary("min", f32, *values)).all()
    assert np.isnan(binary("max", f32, *values)).all()


def test_casts_saturate() -> None:
    x = arg("x", f32)
    values = np.array([np.nan, np.inf, -np.inf, 300, -300, 1.9, -1.9, 255], np.float32)
    assert evaluate(cast(x, i8), {x: values}).tolist() == [0, 127, -128, 127, -128, 1, -1, 127]
    assert evaluate(cast(x, u8), {x: values}).tolist() == [0, 255, 0, 255, 0, 1, 0, 255]
    assert evaluate(cast(x, i64), {x: values}).tolist()[1:3] == [2**63 - 1, -(2**63)]
    assert evaluate(cast(x, bool_), {x: values}).all()
    assert evaluate(cast(arg("n", i32), u8), {arg("n", i32): np.array([-1, 256, 257])}).tolist() == [255, 0, 1]


def test_constants_and_round() -> None:
    assert evaluate(const(300, u8), {}) == 44
    assert evaluate(const(0.1, f16), {}) == np.float16(0.1)
    x = arg("x", f64)
    assert evaluate(call("round", x), {x: np.array([0.5, 1.5, 2.5, -0.5])}).tolist() == [0, 2, 2, 0]
    assert evaluate(call("erf", x), {x: np.array([0.0, 0.5])}).tolist() == [0, math.erf(0.5)]


def test_loads_and_reductions() -> None:
    i, memory = index("i", 3), np.arange(12.0, dtype=np.float32)
    fetch = lambda slot, offset: memory[offset] * (slot + 1)  # noqa: E731
    total = reduce("sum", (2, 2), lambda r, s: load(1, i * 4 + r * 2 + s, f32))
    np.testing.assert_array_equal(evaluate(total, {i: np.arange(3)}, fetch), 2 * memory.reshape(3, 4).sum(1))
    highest = reduce("max", (4,), lambda r: load(0, i * 4 + r, f32))
    spread = reduce("sum", (4,), lambda r: call("exp", load(0, i * 4 + r, f32) - highest))  # a reduce inside another one's body
    expected = np.exp(memory.reshape(3, 4) - memory.reshape(3, 4).max(1, keepdims=True)).sum(1)
    np.testing.assert_allclose(evaluate(spread, {i: np.arange(3)}, fetch), expected, rtol=1e-6)


@pytest.mark.parametrize("combiner", COMBINERS)
def test_reducing_nothing_gives_the_neutral_element(combiner: str) -> None:
    dtype = bool_ if combiner in ("any", "all") else f32
    x = arg("x", dtype)
    nothing = evaluate(reduce(combiner, (0,), lambda r: x), {})
    assert nothing == neutral(combiner, dtype)
    value = np.array([True, False]) if dtype is bool_ else np.array([-3.5, 2.0], np.float32)
    np.testing.assert_array_equal(evaluate(reduce(combiner, (1,), lambda r: x), {x: value}), value)


def test_symbolic_sizes() -> None:
    n, x, y = symbol("N"), arg("x", i64), arg("y", i64)
    sizes = {x: np.array([n, 6, n * 4], object), y: np.array([2, 4, 2])}

    def value(e: Expr) -> list[Any]:
        return evaluate(e, sizes).tolist()

    assert value(x * y + 1) == [n * 2 + 1, 25, n * 8 + 1]
    assert value(x // y)[1:] == [1, n * 2]
    assert value(call("idiv", x * 2, y)) == [n, 3, n * 4]
    assert value(maximum(x, 1)) == [n, 6, n * 4]
    assert value(minimum(x, 1)) == [1, 1, 1]
    assert value(select(call("eq", x, 6), y, x)) == [n, 4, n * 4]
    assert value(cast(x, i32)) == sizes[x].tolist()
    assert evaluate(call("eq", x, 6), sizes).dtype == np.bool_
    with pytest.raises(ShapeError, match="cannot decide"):
        evaluate(maximum(x, 2), sizes)
    with pytest.raises(ShapeError, match="symbolic"):
        evaluate(cast(x, f32), sizes)
    with pytest.raises(UnsupportedError, match="symbolic"):
        evaluate(call("shl", x, y), sizes)


def test_missing_values_and_meanings() -> None:
    x = arg("x", i32)
    with pytest.raises(KeyError, match="no value for x"):
        evaluate(x + 1, {})
    with pytest.raises(KeyError, match="no load function"):
        evaluate(load(0, const(0, i64), f32), {})
    with pytest.raises(UnsupportedError, match="exp has no meaning on int32"):
        evaluate(call("exp", x), {x: np.array([1], np.int32)})
