"""Questions about a graph as a whole: dominators, components, longest path, live ranges; and its export to networkx.

The only module that uses networkx. Leaves (inputs, constants, parameters, state) are nodes of the networkx graph too: every node is
known by the name of its value, an op with several outputs by its first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx

from graphc.errors import ModelError
from graphc.ir.graph import Graph, Node, Value

Weight = Callable[[Node], float]


def to_networkx(graph: Graph) -> nx.DiGraph[str]:
    """A DiGraph: nodes have `kind` (input, const, param, state, result), `type`, and where computed `op`, `name`, `attributes`, `origins`,
    `kernel`, `ir` (the Node); edges have `values`, the names of the values that flow there. Graph attributes: name, inputs, outputs."""
    made: nx.DiGraph[str] = nx.DiGraph(name=graph.name, inputs=[v.name for v in graph.inputs], outputs=[v.name for v in graph.outputs])
    for value in graph.values.values():
        if value.producer is None:
            made.add_node(value.name, kind=value.kind.value, type=str(value.type))
    for node in graph.nodes:
        made.add_node(_key(node), kind="result", type=str(node.outputs[0].type), **_attributes(node))
        for value in dict.fromkeys(node.inputs):
            source = _key(value.producer) if value.producer else value.name
            carried = made.get_edge_data(source, _key(node), {"values": []})["values"]
            made.add_edge(source, _key(node), values=[*carried, value.name])
    return made


def dominators(graph: Graph) -> dict[Node, Node | None]:
    """Each node's immediate dominator: the last node that every path from a leaf to it passes. None: there is no such node."""
    return _dominators(graph, _between(graph))


def post_dominators(graph: Graph) -> dict[Node, Node | None]:
    """Each live node's immediate post-dominator: the first node that every path from it to an output or update passes."""
    return _dominators(graph, _between(graph).reverse())


def components(graph: Graph) -> list[list[Node]]:
    """Independent parts, each in graph order: no computed value flows between them (they may share leaves)."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    flow = _flow(graph)
    parts = [sorted(part, key=position.__getitem__) for part in nx.weakly_connected_components(flow)]
    return sorted(parts, key=lambda part: position[part[0]])


def longest_path(graph: Graph, weight: Weight = lambda node: 1.0) -> list[Node]:
    """The chain of dependent nodes with the largest total weight (at least 0 each): a bound on the time with endless parallelism."""
    flow = _flow(graph)
    if not flow:
        return []
    for source, target in flow.edges:
        flow.edges[source, target]["weight"] = weight(source)
    end = object()  # so that the last node's own weight counts
    for node in graph.nodes:
        flow.add_edge(node, end, weight=weight(node))
    path: list[Any] = nx.dag_longest_path(flow)
    return path[:-1]


def live_ranges(graph: Graph, order: Sequence[Node] | None = None) -> dict[Value, tuple[int, int]]:
    """Computed value -> (position where it is made, position of its last use) in an order (default: the graph's).

    Outputs and state updates live to the end, position len(order) - 1. Raises ModelError where the order is not one of the graph's nodes
    with operands first.
    """
    nodes = list(graph.nodes if order is None else order)
    position = {node: i for i, node in enumerate(nodes)}
    if len(nodes) != len(graph.nodes) or position.keys() != set(graph.nodes):
        raise ModelError("the order does not hold every node once", where=graph.name)
    kept = set(graph.roots)
    ranges: dict[Value, tuple[int, int]] = {}
    for i, node in enumerate(nodes):
        for value in node.outputs:
            uses = [position[user] for user in value.users]
            if any(use <= i for use in uses):
                raise ModelError(f"the order uses {value.name!r} before it is computed", where=graph.name)
            ranges[value] = (i, len(nodes) - 1 if value in kept else max(uses, default=i))
    return ranges


def peak_memory(graph: Graph, order: Sequence[Node] | None = None) -> int:
    """The largest number of bytes of computed values alive at once: what no arena can stay below, if every value is in memory.

    Shapes must be static, else ShapeError.
    """
    change = [0] * (len(graph.nodes) + 1)
    for value, (first, last) in live_ranges(graph, order).items():
        change[first] += value.type.nbytes
        change[last + 1] -= value.type.nbytes
    peak = now = 0
    for delta in change:
        now += delta
        peak = max(peak, now)
    return peak


def _key(node: Node) -> str:
    return node.outputs[0].name


def _attributes(node: Node) -> dict[str, Any]:
    found = {"op": node.op.name, "name": node.name, "attributes": node.op.attributes(), "origins": node.origins}
    return {**found, "kernel": node.kernel, "ir": node}


def _flow(graph: Graph) -> nx.DiGraph[Any]:
    """Node -> node, over computed values."""
    flow: nx.DiGraph[Any] = nx.DiGraph()
    flow.add_nodes_from(graph.nodes)
    flow.add_edges_from((value.producer, node) for node in graph.nodes for value in node.inputs if value.producer)
    return flow


_SOURCE, _SINK = "source", "sink"


def _between(graph: Graph) -> nx.DiGraph[Any]:
    """The flow with a node before all that read leaves or nothing, and one after all that outputs and updates are."""
    flow = _flow(graph)
    flow.add_nodes_from((_SOURCE, _SINK))
    for node in graph.nodes:
        if not node.inputs or any(value.producer is None for value in node.inputs):
            flow.add_edge(_SOURCE, node)
    flow.add_edges_from((value.producer, _SINK) for value in graph.roots if value.producer)
    return flow


def _dominators(graph: Graph, flow: nx.DiGraph[Any]) -> dict[Node, Node | None]:
    start = _SOURCE if flow.in_degree(_SOURCE) == 0 else _SINK
    found = nx.immediate_dominators(flow, start)
    return {node: found[node] if isinstance(found[node], Node) else None for node in graph.nodes if node in found}
