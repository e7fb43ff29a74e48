"""Patches: uses follow, the dead are swept, cycles are errors, origins are handed on or accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.errors import ModelError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.patch import Patch, inherit, topological
from graphc.ir.verify import verify
from graphc.ops.pointwise import op
from graphc.source import Source
from graphc.types.dtype import f32
from ir.random_graphs import random_graph


def _chain(*names: str) -> tuple[Graph, list[Value]]:
    """x through the pointwise ops, each with its own name as origin."""
    builder = Builder()
    values = [builder.input("x", f32, (2,))]
    for name in names:
        with builder.at(Source("net.py", len(values)), (name,)):
            values.append(builder.add(op(name), values[-1]))
    return builder.finish(y=values[-1]), values


def test_replace_moves_uses_and_origins() -> None:
    graph, (x, _relu, tanh, *_) = _chain("relu", "tanh", "exp")
    patch = Patch(graph, "test")
    assert tanh.producer is not None
    new = patch.add(op("sigmoid"), x, like=tanh.producer)
    patch.replace(tanh, new)
    assert patch.commit() == 1
    verify(graph)
    assert [(node.op.name, node.origins) for node in graph] == [("sigmoid", ("tanh",)), ("exp", ("exp",))]
    assert graph.eliminated == {"relu": "test"}
    assert new.producer is not None
    assert new.producer.source == Source("net.py", 2)


def test_the_new_producer_inherits() -> None:
    graph, (x, relu, tanh) = _chain("relu", "tanh")
    patch = Patch(graph, "test")
    patch.replace(tanh, relu)
    patch.commit()
    verify(graph)
    assert [node.origins for node in graph] == [("relu", "tanh")]
    assert graph.outputs == [relu]
    assert graph.eliminated == {}
    patch.replace(relu, x)
    patch.commit()
    assert (graph.nodes, graph.outputs) == ([], [x])
    assert graph.eliminated == {"relu": "test", "tanh": "test"}


def test_a_value_used_twice_by_one_node() -> None:
    builder = Builder()
    x = builder.input("x", f32, (2,))
    a = builder.add(op("relu"), x)
    graph = builder.finish(y=builder.add(op("mul"), a, a), again=a)
    patch = Patch(graph, "test")
    patch.replace(a, x)
    patch.commit()
    verify(graph)
    assert x.users == {graph.nodes[0]: 2}
    assert graph.outputs[1] is x


def test_constants_are_swept_parameters_too_state_stays() -> None:
    builder = Builder()
    x = builder.input("x", f32, (2,))
    builder.parameter("unused", np.ones(2, np.float32))
    builder.constant(np.ones(2, np.float32), name="returned")
    builder.state("counter", np.zeros(2, np.float32))
    graph = builder.finish(y=builder.add(op("relu"), x), c=builder.graph.values["returned"])
    Patch(graph, "test").commit()
    verify(graph)
    assert set(graph.values) == {"x", "relu", "returned", "counter"}


def test_updates_follow() -> None:
    builder = Builder()
    x, state = builder.input("x", f32, (2,)), builder.state("s", np.zeros(2, np.float32))
    old = builder.add(op("add"), x, state)
    graph = builder.finish(y=x)
    graph.updates[state] = old
    patch = Patch(graph, "test")
    assert old.producer is not None
    new = patch.add(op("sub"), x, state, like=old.producer)
    patch.replace(old, new)
    patch.commit()
    verify(graph)
    assert graph.updates == {state: new}


def test_new_names_are_free() -> None:
    graph, values = _chain("relu")
    patch = Patch(graph, "test")
    names = [patch.constant(np.ones(2, np.float32), values[-1]).name for _ in range(3)]
    assert names == ["relu.1", "relu.2", "relu.3"]


def test_a_cycle_is_an_error() -> None:
    graph, (_, relu, tanh, exp) = _chain("relu", "tanh", "exp")
    patch = Patch(graph, "test")
    assert relu.producer is not None
    patch.set_inputs(relu.producer, [exp])
    with pytest.raises(ModelError, match=r"the graph has a cycle through \w+ '\w+' \(net.py:\d\).*own output"):
        patch.commit()
    patch.set_inputs(relu.producer, [relu])
    with pytest.raises(ModelError, match=r"cycle through relu 'relu' \(net.py:1\)"):
        topological(graph)
    assert tanh.producer is not None


def test_a_long_chain_needs_no_recursion() -> None:
    graph, _ = _chain(*["relu"] * 5000)
    graph.nodes.reverse()
    assert topological(graph) == graph.nodes[::-1]


@given(st.integers(0, 1 << 32), st.randoms())
def test_topological_mends_any_order(seed: int, random: object) -> None:
    graph = random_graph(seed)
    Patch(graph, "test").commit()
    assert topological(graph) == graph.nodes  # what is sorted stays as it is
    random.shuffle(graph.nodes)  # type: ignore[attr-defined]
    graph.nodes = topological(graph)
    verify(graph)


def test_inherit_keeps_order_and_repeats_nothing() -> None:
    graph, _ = _chain("relu")
    inherit(graph.nodes[0], ["b", "relu", "a", "b"])
    assert graph.nodes[0].origins == ("relu", "b", "a")
