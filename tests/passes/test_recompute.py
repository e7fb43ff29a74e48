"""recompute and order-updates on training steps: the plan gets smaller, the numbers stay, nothing is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.verify import accounted, verify
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.passes import order_updates, recompute
from graphc.passes.base import Context
from graphc.passes.pipeline import MACHINE, PORTABLE, run_passes
from graphc.schedule.planner import make_plan
from graphc.target import named
from graphc.train.build import Recipe, build_step
from graphc.train.losses import find_loss
from ops.runners import run_reference

TARGET = named("avx2")
STEPS = ("recompute", "order-updates")


@graphc.model
def deep(image: graphc.f32[8, 16, 16, 16], *, dropout: float = 0.0) -> Any:
    """Rows of convolution, batch normalisation and activation."""
    x = image
    for number in range(4):
        x = graphc.conv2d(x, 16, kernel=3, padding=1, bias=False, name=f"c{number}")
        x = graphc.batch_norm(x, activation="relu", name=f"n{number}")
        x = graphc.dropout(x, dropout) if dropout else x
    return graphc.linear(graphc.flatten(graphc.global_avg_pool(x)), 4, name="out")


def _built(dropout: float = 0.0) -> Graph:
    optimizer = graphc.optim.SGD(lr=0.1, momentum=0.9)
    graph = build_step(deep.configure(dropout=dropout).graph(), Recipe(find_loss("cross_entropy"), optimizer))
    return run_passes(graph, PORTABLE, Context(TARGET))


def _arena(graph: Graph, without: tuple[str, ...] = ()) -> int:
    made = graph.copy()
    run_passes(made, [step for step in MACHINE if step.name not in without], Context(TARGET))
    return make_plan(made, TARGET).arena_bytes


@pytest.mark.parametrize(("dropout", "part"), [(0.0, 0.8), (0.25, 0.95)])
def test_the_plan_gets_smaller(dropout: float, part: float) -> None:
    graph = _built(dropout)
    plain, ordered, both = _arena(graph, STEPS), _arena(graph, STEPS[:1]), _arena(graph)
    assert ordered <= plain
    assert both < part * ordered, "the activations and the centred values of each layer are computed again"


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_RECOMPUTE", "0")
    graph = _built()
    assert recompute.run(graph, Context(TARGET)) == 0
    assert _arena(graph) == _arena(graph, STEPS[:1])


def test_what_it_adds_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _built()
    counts = []
    for limit in (1, 4, 100):
        monkeypatch.setenv("GRAPHC_RECOMPUTE", str(limit))
        counts.append(recompute.run(graph.copy(), Context(TARGET)))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_numbers_and_origins_stay() -> None:
    """In float64 the clones make the same numbers; every original node is accounted for, and a clone names what its node named."""
    graph = _built(0.25)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((8, 16, 16, 16)).astype(np.float32), rng.integers(0, 4, 8), np.array(0.1)]
    expected, before = run_reference(_with_updates(graph), arrays), accounted(graph)
    nodes = len(graph.nodes)
    assert recompute.run(graph, Context(TARGET)) > 0
    verify(graph)
    assert len(graph.nodes) > nodes
    assert accounted(graph) == before
    assert order_updates.run(graph, Context(TARGET)) > 0
    verify(graph)
    for got, wanted in zip(run_reference(_with_updates(graph), arrays), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def _with_updates(graph: Graph) -> Graph:
    made = graph.copy()
    made.outputs = list(made.roots)
    return made


def test_inference_is_left_alone() -> None:
    graph = run_passes(deep.graph(), PORTABLE, Context(TARGET))
    order = list(graph.nodes)
    assert recompute.run(graph, Context(TARGET)) == order_updates.run(graph, Context(TARGET)) == 0
    assert graph.nodes == order


def test_a_state_is_replaced_after_it_is_read() -> None:
    """Also where its new value is known long before."""
    builder = Builder()
    x = builder.input("x", graphc.f32, (4, 4))
    state = builder.state("s", np.ones((4, 4), np.float32))
    graph = builder.graph
    graph.updates[state] = builder.add(op("tanh"), x)
    y = builder.add(op("mul"), state, x)
    builder.finish(y=builder.add(Reduce("sum", (0, 1), False), y))
    order_updates.run(graph, Context(TARGET))
    verify(graph)
    assert [node.op.name for node in graph.nodes] == ["mul", "reduce", "tanh"]
