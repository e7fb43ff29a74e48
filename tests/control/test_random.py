"""Random loops and choices, nested: machine code against the ops' numpy meaning, and the same bits for 1, 2 and 4 threads."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc
from control.random_loops import SIZE, random_loops
from graphc.backend import find
from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.text import graph_data, parse_graph, print_graph
from graphc.ops.reduce import Reduce
from graphc_cpu import table
from graphc_reference import ReferenceExecutable


def _feeds(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, (SIZE, SIZE)).astype(np.float32) for _ in range(2)]


@given(st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_machine_code_computes_what_the_ops_mean(seed: int) -> None:
    graph, feeds = random_loops(seed), _feeds(seed)
    expected = ReferenceExecutable(graph)(*feeds)
    program = graphc.compile(graph, threads=1)
    found = program(*feeds)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5 * max(1.0, float(np.abs(wanted).max())))
    again = program(*feeds)
    compiled = program.compiled()
    for threads, shared in ((2, True), (4, True), (2, False)):
        with patch.object(table, "small_loops", lambda plan: {}) if shared else nullcontext():
            others = find("cpu").compile(compiled.graph, compiled.plan, threads).run(feeds)
        for one, two, other in zip(found, again, others, strict=True):
            assert one.tobytes() == two.tobytes(), "a second run gives other bits"
            assert one.tobytes() == other.tobytes(), f"{threads} threads give other bits"


@given(st.integers(0, 1 << 32))
@settings(max_examples=40)
def test_gradients_compile_to_what_they_mean(seed: int) -> None:
    """Trimmed, hoisted and fused for 1 and 2 threads, against the backward graph as it was built."""
    graph = random_loops(seed)
    loss = Builder(graph).add(Reduce("mean", (0, 1), False), graph.outputs[0])
    graph.set_outputs({"loss": loss})
    try:
        graph = graphc.grad(graph, ["a", "b", "p"])
    except UnsupportedError:
        return  # through a loop with a condition
    feeds = dict(zip("ab", _feeds(seed), strict=True))
    one, two = (graphc.compile(graph, threads=threads).run(feeds) for threads in (1, 2))
    for name, wanted in ReferenceExecutable(graph).run(feeds).items():
        np.testing.assert_allclose(one[name], wanted, rtol=2e-3, atol=2e-4 * max(1.0, float(np.abs(wanted).max())))
        assert one[name].tobytes() == two[name].tobytes()


@given(st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_text(seed: int) -> None:
    graph = random_loops(seed)
    text = print_graph(graph)
    assert print_graph(parse_graph(text, graph_data(graph))) == text


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_shares_no_body(seed: int) -> None:
    graph = random_loops(seed)
    text = print_graph(graph)
    graphc.compile(graph)
    assert print_graph(graph) == text
