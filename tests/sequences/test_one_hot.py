"""Products with one-hot rows become rows that are read and added up: the numbers of the product, for indices in and out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

Array = np.ndarray[Any, np.dtype[Any]]
DEPTH, WIDTH = 7, 21


def summed(indices: str) -> Any:
    """Squared one_hot(i) w + b, with its gradients."""

    @graphc.model(name="summed")
    def net(i: getattr(graphc, indices)["N", 3], w: graphc.f32[DEPTH, WIDTH], b: graphc.f32[WIDTH]) -> Any:
        y = graphc.one_hot(i, DEPTH) @ w + b
        return (y * y).sum()

    return graphc.grad(net, ["w", "b"])


def expected(i: Array, w: Array, b: Array) -> list[Array]:
    wide = np.where(i < 0, i + DEPTH, i)[..., None] == np.arange(DEPTH)
    y = wide.astype(np.float64) @ w + b
    return [(y * y).sum(), np.einsum("nkd,nkw->dw", wide, 2 * y), 2 * y.sum((0, 1))]


@pytest.mark.parametrize("indices", ["i64", "i32"])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_forward_and_gradient(count: int, indices: str) -> None:
    rng = np.random.default_rng(count)
    i = rng.integers(-DEPTH - 3, DEPTH + 3, (count, 3)).astype(np.int64 if indices == "i64" else np.int32)
    w, b = rng.standard_normal((DEPTH, WIDTH), np.float32), rng.standard_normal(WIDTH, np.float32)
    results = [graphc.compile(summed(indices), threads=threads).run({"i": i, "w": w, "b": b}) for threads in (1, 2, 4)]
    for found, wanted in zip(results[0].values(), expected(i, w, b), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    for other in results[1:]:
        assert all(a.tobytes() == c.tobytes() for a, c in zip(results[0].values(), other.values(), strict=True))


@pytest.mark.parametrize(("accuracy", "products"), [("default", 0), ("exact", 2)])
def test_no_product_is_left_unless_exact(accuracy: str, products: int) -> None:
    program = graphc.compile(summed("i64"), dims={"N": 5}, accuracy=accuracy)
    program(np.zeros((5, 3), np.int64), np.ones((DEPTH, WIDTH), np.float32), np.ones(WIDTH, np.float32))
    assert sum(program.plan.specs[step.kernel].family == "contract" for step in program.plan.steps) == products


def test_an_infinite_weight_reaches_only_its_own_rows() -> None:
    @graphc.model(name="rows")
    def net(i: graphc.i64["N"], w: graphc.f32[3, 2]) -> Any:
        return graphc.one_hot(i, 3) @ w

    w = np.array([[1, 2], [np.inf, np.nan], [3, 4]], np.float32)
    found = graphc.compile(net)(np.array([0, 1, 2]), w)
    np.testing.assert_array_equal(found, w)
