"""Gradients of whole graphs by finite differences in float64, computed by the reference, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.ir.graph import Graph
from graphc_reference.executable import ReferenceExecutable

Array = np.ndarray[Any, np.dtype[Any]]
STEP = 1e-6


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return ReferenceExecutable(graph).run(feeds)


def slope(graph: Graph, feeds: Mapping[str, Array], name: str, direction: Array, output: str) -> float:
    """The derivative of a scalar output along `direction` of an input or parameter: a central difference."""

    def at(sign: float) -> float:
        moved = graph.copy()
        given = dict(feeds)
        if name in given:
            given[name] = given[name] + sign * STEP * direction
        else:
            value = moved.values[name]
            assert value.data is not None
            value.data = value.data + sign * STEP * direction
        return float(run(moved, given)[output])

    return (at(1) - at(-1)) / (2 * STEP)


def check(graph: Graph, derived: Graph, feeds: Mapping[str, Array], output: str, rtol: float = 1e-6) -> int:
    """Every output `grad(name)` of `derived` is the slope of `output` in a random direction; returns how many there are."""
    rng = np.random.default_rng(11)
    found = run(derived, feeds)
    names = [name for name in found if name.startswith("grad(")]
    for name in names:
        direction = rng.standard_normal(found[name].shape)
        expected = slope(graph, feeds, name[len("grad(") : -1], direction, output)
        actual = float(np.sum(found[name] * direction))
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-7, err_msg=name)
    return len(names)
