"""An output that is a reshape: its kernel writes it where it is returned, unless somebody else reads what is reshaped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc


def run(net: Any, *arrays: Any) -> tuple[list[str], tuple[Any, ...]]:
    """Labels of the steps; the outputs of the second run, and they must not share memory with those of the first."""
    program = graphc.compile(net, threads=2)
    first = program(*arrays)
    second = program(*(array + 1 for array in arrays))
    firsts, seconds = (found if isinstance(found, tuple) else (found,) for found in (first, second))
    assert not any(np.shares_memory(a, b) for a in firsts for b in seconds)
    return [step.label for step in program.plan.steps], seconds


def pooled(x: np.ndarray) -> np.ndarray:
    return x.reshape(2, 3, 2, 2, 2, 2).max((3, 5)).reshape(2, 12)


X = np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)


def test_no_copy() -> None:
    @graphc.model
    def net(x: graphc.f32[2, 3, 4, 4]) -> Any:
        return graphc.max_pool2d(x, 2).reshape(2, 12)

    labels, (y,) = run(net, X)
    assert len(labels) == 1
    np.testing.assert_array_equal(y, pooled(X + 1))


@pytest.mark.parametrize("both", [False, True], ids=["read again", "returned too"])
def test_a_copy_where_it_is_read_twice(both: bool) -> None:
    @graphc.model
    def net(x: graphc.f32[2, 3, 4, 4]) -> Any:
        y = graphc.max_pool2d(x, 2)
        return y.reshape(2, 12), (y if both else (y * 2).sum())

    _, (flat, other) = run(net, X)
    np.testing.assert_array_equal(flat, pooled(X + 1))
    expected = pooled(X + 1)
    np.testing.assert_allclose(other, expected.reshape(2, 3, 2, 2) if both else 2 * expected.sum(), rtol=1e-5)


def test_the_results_of_a_recurrent_layer() -> None:
    @graphc.model
    def net(x: graphc.f32[2, 5, 3]) -> Any:
        return graphc.lstm(x, 4)

    program = graphc.compile(net)
    x = np.ones((2, 5, 3), np.float32)
    y, h, _ = program(x)
    np.testing.assert_array_equal(y[:, -1], h[:, 0])
    families = [program.plan.specs[step.kernel].family for step in program.plan.steps]
    assert families.count("copy") <= 1, "only the recurrent weights may be packed"


def test_a_state_that_is_a_reshape() -> None:
    """The new value of a state is stored after all that reads the old one."""

    @graphc.model
    def net(x: graphc.f32[2, 3, 4, 4]) -> Any:
        kept = graphc.state((2, 12), name="kept")
        new = graphc.max_pool2d(x, 2).reshape(2, 12)
        total = kept + new
        kept.assign(new)
        return total, new

    program = graphc.compile(net)
    for turn in range(3):
        total, new = program(X + turn)
        np.testing.assert_array_equal(new, pooled(X + turn))
        np.testing.assert_allclose(total, pooled(X + turn) + (pooled(X + turn - 1) if turn else 0), rtol=1e-6)
