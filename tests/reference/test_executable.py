"""ReferenceExecutable: feeds, symbolic sizes, state, intermediate values, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import InputError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ops.pointwise import op
from graphc.types import dtype as dt
from graphc.types.shape import symbol
from graphc_reference import ReferenceExecutable


def affine() -> Graph:
    """y = 2 x + w over (N, 3)."""
    builder = Builder(Graph("affine"))
    x = builder.input("x", "f32", (symbol("N"), 3))
    doubled = builder.add(op("mul"), x, builder.constant(2.0, dt.f32, "two"), name="doubled")
    w = builder.parameter("w", np.asarray([1, 2, 3], np.float32))
    return builder.finish(y=builder.add(op("add"), doubled, w, name="sum"))


def test_by_position_and_by_name() -> None:
    exe = ReferenceExecutable(affine())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(exe(x), [[3, 4, 5]] * 2)
    np.testing.assert_array_equal(exe(x=x[:1]), [[3, 4, 5]])
    assert list(exe.run({"x": x})) == ["y"]


def test_intermediate_values() -> None:
    values = ReferenceExecutable(affine()).values({"x": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(values["doubled"], [[2, 2, 2]])
    assert {"x", "two", "w", "sum"} <= set(values)


def test_state_is_updated_by_run_and_not_by_values() -> None:
    builder = Builder(Graph("counter"))
    count = builder.state("count", np.zeros((), np.float32))
    x = builder.input("x", "f32", ())
    after = builder.add(op("add"), count, x)
    graph = builder.finish(y=count)
    graph.updates[count] = after
    exe = ReferenceExecutable(graph)
    one = np.float32(1)
    assert [float(exe(one)) for _ in range(3)] == [0, 1, 2]
    exe.values({"x": one})
    assert float(exe(one)) == 3
    assert float(graph.values["count"].data) == 0  # the graph itself stays as it was


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({}, "'x' .* is missing"),
        ({"x": np.ones((1, 3), np.float32), "z": 1}, "no input 'z'"),
        ({"x": np.ones((1, 3))}, "dtype float64"),
        ({"x": np.ones((1, 4), np.float32)}, "shape"),
        ({"x": np.ones(3, np.float32)}, "shape"),
    ],
)
def test_feeds_are_checked(feeds: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ReferenceExecutable(affine()).run(feeds)


def test_one_symbol_has_one_size() -> None:
    builder = Builder(Graph("pair"))
    a, b = (builder.input(name, "f32", (symbol("N"),)) for name in "ab")
    graph = builder.finish(y=builder.add(op("add"), a, b))
    with pytest.raises(InputError, match="N=3"):
        ReferenceExecutable(graph)(np.ones(2, np.float32), np.ones(3, np.float32))
