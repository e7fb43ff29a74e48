"""Dominators, components, longest path, live ranges, and the networkx form, on a graph whose answers are known."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import ModelError, ShapeError
from graphc.ir.analysis import components, dominators, live_ranges, longest_path, peak_memory, post_dominators, to_networkx
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import topological
from graphc.ops.pointwise import op
from graphc.types.dtype import f32
from ir.random_graphs import random_graph

seeds = st.integers(0, 1 << 32)


def _diamond() -> Graph:
    """x -> top -> left, right -> join -> tail; apart from them x -> lone."""
    builder = Builder()
    x = builder.input("x", f32, (256,))
    w = builder.parameter("w", np.ones(256, np.float32))
    top = builder.add(op("mul"), x, w, name="top")
    left, right = builder.add(op("relu"), top, name="left"), builder.add(op("exp"), top, name="right")
    join = builder.add(op("add"), left, right, name="join")
    tail = builder.add(op("mul"), join, join, name="tail")
    return builder.finish(tail=tail, lone=builder.add(op("abs"), x, name="lone"))


def _names(found: dict[Node, Node | None]) -> dict[str, str]:
    return {node.name: other.name if other else "" for node, other in found.items()}


def test_dominators() -> None:
    graph = _diamond()
    assert _names(dominators(graph)) == {"top": "", "left": "top", "right": "top", "join": "top", "tail": "join", "lone": ""}
    assert _names(post_dominators(graph)) == {"top": "join", "left": "join", "right": "join", "join": "tail", "tail": "", "lone": ""}


def test_a_dead_node_has_no_post_dominator() -> None:
    graph = _diamond()
    graph.set_outputs({"join": graph.values["join"]})
    assert "tail" not in _names(post_dominators(graph))
    assert _names(post_dominators(graph))["join"] == ""


def test_a_node_that_reads_a_leaf_is_dominated_by_nothing() -> None:
    builder = Builder()
    x, w = builder.input("x", f32, (2,)), builder.parameter("w", np.ones(2, np.float32))
    a = builder.add(op("relu"), x, name="a")
    graph = builder.finish(y=builder.add(op("mul"), a, w, name="b"))
    assert _names(dominators(graph)) == {"a": "", "b": ""}


def test_components() -> None:
    assert [[node.name for node in part] for part in components(_diamond())] == [["top", "left", "right", "join", "tail"], ["lone"]]
    assert components(Graph()) == []


def test_longest_path() -> None:
    graph = _diamond()
    assert [node.name for node in longest_path(graph)][::2] == ["top", "join"]
    heavy = {"lone": 100.0, "right": 2.0}
    assert [node.name for node in longest_path(graph, lambda node: heavy.get(node.name, 1.0))] == ["lone"]
    heavy["lone"] = 4.0
    assert [node.name for node in longest_path(graph, lambda node: heavy.get(node.name, 1.0))] == ["top", "right", "join", "tail"]
    assert longest_path(Graph()) == []


def test_live_ranges_and_peak() -> None:
    graph = _diamond()
    ranges = {value.name: found for value, found in live_ranges(graph).items()}
    assert ranges == {"top": (0, 2), "left": (1, 3), "right": (2, 3), "join": (3, 4), "tail": (4, 5), "lone": (5, 5)}
    assert peak_memory(graph) == 3 * 1024
    by_name = {node.name: node for node in graph.nodes}
    early = [by_name[name] for name in ("lone", "top", "left", "right", "join", "tail")]
    assert peak_memory(graph, early) == 4 * 1024


def test_orders_that_are_none() -> None:
    graph = _diamond()
    for order in (graph.nodes[1:], [*graph.nodes, graph.nodes[0]], [*graph.nodes[:-1], graph.nodes[0]]):
        with pytest.raises(ModelError, match="does not hold every node once"):
            live_ranges(graph, order)
    with pytest.raises(ModelError, match=r"uses 'top' before it is computed|uses 'join' before"):
        live_ranges(graph, graph.nodes[::-1])


def test_peak_memory_needs_sizes() -> None:
    graph = random_graph(3, symbolic=True)
    with pytest.raises(ShapeError):
        peak_memory(graph)
    assert peak_memory(graph.bind({"N": 2})) > 0


def test_to_networkx() -> None:
    graph = _diamond()
    found = to_networkx(graph)
    assert nx.is_directed_acyclic_graph(found)
    assert set(found) == {"x", "w", "top", "left", "right", "join", "tail", "lone"}
    assert set(found.edges) == {
        ("x", "top"), ("w", "top"), ("top", "left"), ("top", "right"), ("left", "join"), ("right", "join"), ("join", "tail"), ("x", "lone"),
    }  # fmt: skip
    assert found.nodes["w"] == {"kind": "param", "type": "f32[256]"}
    top = found.nodes["top"]
    assert (top["op"], top["type"], top["ir"], top["attributes"]) == ("mul", "f32[256]", graph.nodes[0], {})
    assert found.edges["join", "tail"]["values"] == ["join"]
    assert found.graph == {"name": "graph", "inputs": ["x"], "outputs": ["tail", "lone"]}


@given(seeds)
@settings(max_examples=50)
def test_random_graphs_against_brute_force(seed: int) -> None:
    graph = random_graph(seed, size=9)
    assert set(nx.topological_sort(to_networkx(graph))) >= {node.outputs[0].name for node in graph.nodes}
    depth: dict[Value, int] = {}
    for node in graph.nodes:
        level = 1 + max((depth.get(value, 0) for value in node.inputs), default=0)
        depth.update(dict.fromkeys(node.outputs, level))
    assert len(longest_path(graph)) == max(depth.values())
    assert sum(map(len, components(graph))) == len(graph.nodes)
    ranges = live_ranges(graph)
    alive = [sum(v.type.nbytes for v, (a, b) in ranges.items() if a <= i <= b) for i in range(len(graph.nodes))]
    assert peak_memory(graph) == max(alive)
    for node, above in dominators(graph).items():
        assert above is None or _only_way(node, above)


def _only_way(node: Node, through: Node) -> bool:
    """Whether no path leads from a leaf to the node around the other one."""
    stack = [node]
    seen = {node}
    while stack:
        top = stack.pop()
        for value in top.inputs:
            if value.producer is None:
                return False
            if value.producer is not through and value.producer not in seen:
                seen.add(value.producer)
                stack.append(value.producer)
    return True


def test_order_changes_nothing_but_the_peak() -> None:
    graph = _diamond()
    orders = [order for order in itertools.permutations(graph.nodes) if _is_order(order)]
    assert len(orders) > 5
    assert {peak_memory(graph, order) for order in orders} == {3 * 1024, 4 * 1024}
    assert topological(graph) in [list(order) for order in orders]


def _is_order(order: tuple[Node, ...]) -> bool:
    position = {node: i for i, node in enumerate(order)}
    return all(position[value.producer] < i for node, i in position.items() for value in node.inputs if value.producer)
