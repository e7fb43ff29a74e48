"""Names of nodes and values: the ONNX ones are kept, those made on the way are derived and never collide."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import islice

import onnx

from graphc.ir.graph import Graph, Value
from graphc_onnx.registry import Item


def unique_node_names(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """A name per node: its own, or op_index where it has none; a repeated name gets a number."""
    nodes = list(nodes)
    taken: set[str] = set()
    own = {node.name for node in nodes if node.name}
    names: list[str] = []
    for i, node in enumerate(nodes):
        base = node.name or f"{node.op_type}_{i}"
        name, number = base, 1
        while name in taken or (not node.name and name in own):
            name, number = f"{base}.{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def rename_new(graph: Graph, before: tuple[int, int], prefix: str, node: str, outputs: Mapping[str, Item], reserved: Set[str]) -> None:
    """Name what a handler made: results as the ONNX outputs, the rest node/op. `before`: numbers of values and nodes until then."""
    names = list(islice(reversed(graph.values), len(graph.values) - before[0]))[::-1]
    if not names:
        return
    fresh = [graph.values.pop(name) for name in names]
    made = set(fresh)
    public = {item: prefix + name for name, item in reversed(list(outputs.items())) if isinstance(item, Value) and item in made}
    inside = f"{prefix}{node}/"  # where a nested list of nodes has named what it made
    for value in fresh:
        name = public.get(value) or (value.name if value.name.startswith(inside) else "")
        value.name = _free(graph, name, set()) if name else _free(graph, f"{inside}{value.name}", reserved)
        graph.values[value.name] = value
    _name_nodes(graph, before[1], prefix + node, list(public)[::-1])


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where it is taken."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}.{number}", number + 1
    return candidate


def _free(graph: Graph, name: str, reserved: Set[str]) -> str:
    candidate, number = name, 1
    while candidate in graph.values or candidate in reserved:
        candidate, number = f"{name}.{number}", number + 1
    return candidate


def _name_nodes(graph: Graph, first: int, name: str, results: Sequence[Value]) -> None:
    """The node that computes the first result gets the ONNX node's name, others name/op."""
    main = next((value.producer for value in results if value.producer is not None), None)
    for node in graph.nodes[first:]:
        if node is main:
            node.name = name
        elif not node.name.startswith(name):
            node.name = f"{name}/{node.name}"
