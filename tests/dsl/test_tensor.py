"""Operators and indexing of Tensor mean what they mean in numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from dsl.tracing import evaluate, graph_of

X = np.linspace(-2.0, 3.0, 24, dtype=np.float32).reshape(2, 3, 4)
Y = np.array([1.5, -2.0, 0.5, 3.0], np.float32)
M, K = np.array([[7, -3, 4]], np.int32), np.array([[2, 5, 1], [1, 3, 9]], np.int32)
P, Q = np.array([True, True, False, False]), np.array([True, False, True, False])
ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.mod, operator.floordiv]
COMPARISON = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("fn", [*ARITHMETIC, *COMPARISON], ids=lambda fn: fn.__name__)
def test_binary(fn: Callable[[Any, Any], Any]) -> None:
    for left, right in ((X, Y), (Y, X)):
        found = evaluate(fn, left, right)
        np.testing.assert_array_equal(found, fn(left, right))
        assert found.dtype == fn(left, right).dtype


@pytest.mark.parametrize("fn", [*ARITHMETIC, *COMPARISON], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("other", [2, 0.75, np.float64(1.25), Y], ids=["int", "float", "numpy scalar", "array"])
def test_with_numbers_and_arrays_on_either_side(fn: Callable[[Any, Any], Any], other: Any) -> None:
    exact = other if isinstance(other, np.ndarray) else np.float32(other)
    np.testing.assert_allclose(evaluate(lambda x: fn(x, other), X), fn(X, exact), rtol=1e-6)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(evaluate(lambda x: fn(other, x), X + 5), fn(exact, X + 5), rtol=1e-6)


@pytest.mark.parametrize("fn", [operator.add, operator.mul, operator.mod, operator.floordiv, operator.and_, operator.or_, operator.xor],
                         ids=lambda fn: fn.__name__)  # fmt: skip
def test_integers(fn: Callable[[Any, Any], Any]) -> None:
    np.testing.assert_array_equal(evaluate(fn, M, K), fn(M, K))
    np.testing.assert_array_equal(evaluate(lambda x: fn(x, 3), M), fn(M, 3))
    np.testing.assert_array_equal(evaluate(lambda x: fn(13, x), K), fn(13, K))


def test_logic_and_unary() -> None:
    for fn in (operator.and_, operator.or_, operator.xor):
        np.testing.assert_array_equal(evaluate(fn, P, Q), fn(P, Q))
        np.testing.assert_array_equal(evaluate(lambda x, fn=fn: fn(True, x), P), fn(True, P))
    np.testing.assert_array_equal(evaluate(operator.invert, P), ~P)
    np.testing.assert_array_equal(evaluate(operator.invert, M), ~M)
    for unary in (operator.neg, operator.pos, operator.abs):
        np.testing.assert_array_equal(evaluate(lambda x, unary=unary: unary(x) * 1, X), unary(X))
    np.testing.assert_allclose(evaluate(lambda x: x**2, X), X**2, rtol=1e-6)
    np.testing.assert_allclose(evaluate(lambda x: 2**x, X), np.float32(2) ** X, rtol=1e-6)


@pytest.mark.parametrize(
    "index",
    [
        0, -1, (1, -2), (0, 1, 2), ..., (..., 1), (0, ..., -1), None, (slice(None), None), (None, 0, None, ..., None),
        slice(1, None), slice(None, -1), (slice(None), slice(0, 10, 2)), (..., slice(None, None, -1)), (..., slice(3, 0, -2)),
        (..., slice(2, 2)), (..., slice(5, None)), (..., slice(-100, 100)), (slice(None), [2, 0, -1]), (0, [[1, 2]], slice(1, 3)),
        (slice(None), np.array([1, 1])), np.int64(1),
    ],
    ids=repr,
)  # fmt: skip
def test_indexing(index: Any) -> None:
    expected = X[index]
    found = evaluate(lambda x: x[index] * 1.0, X)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def test_indexing_by_a_tensor() -> None:
    at = np.array([[2, 0], [1, -1]], np.int64)
    np.testing.assert_array_equal(evaluate(lambda x, i: x[:, i], X, at), X[:, at])
    np.testing.assert_array_equal(evaluate(lambda x, i: x[1, i, None, :2], X, at), X[1][at][:, :, None, :2])


def test_indexing_of_symbolic_sizes() -> None:
    def shape(index: Any) -> str:
        return str(graph_of(lambda x: x[index], graphc.f32["N", 5]).outputs[0].type)

    assert shape(slice(1, None)) == "f32[N-1,5]"
    assert shape(slice(None, -1)) == "f32[N-1,5]"
    assert shape(slice(None, None, -1)) == "f32[N,5]"
    assert shape((slice(None), 2)) == "f32[N]"
    assert shape(0) == "f32[5]"
    with pytest.raises(graphc.ShapeError, match="cannot decide whether"):
        shape(slice(None, 3))


def test_unpacking_and_len_of_a_known_first_dim() -> None:
    def build(x):
        first, second = x
        assert len(x) == 2
        return first - second

    np.testing.assert_array_equal(evaluate(build, X), X[0] - X[1])


def test_properties() -> None:
    def build(x):
        assert (x.shape, x.dtype, x.ndim, x.name) == ((2, 3, 4), graphc.f32, 3, "x")
        assert repr(x) == "<Tensor x: f32[2,3,4]>"
        assert len({x, x}) == 1
        return x.reshape((4, 6)).reshape(2, 12).T.cast(graphc.f64).squeeze().unsqueeze(0).expand(3, 12, 2)

    found = evaluate(build, X)
    np.testing.assert_array_equal(found, np.broadcast_to(X.reshape(2, 12).T, (3, 12, 2)).astype(np.float64))
