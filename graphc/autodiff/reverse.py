"""Reverse-mode differentiation as a graph transformation: the gradient of a graph is more nodes of the same graph.

Each node's op builds its own vector-Jacobian product (`Op.gradient`); this module decides which nodes need one, in which order, and adds
up what flows together. Only nodes on a path of floats from a wanted value to a seeded one are differentiated. Contributions are added
in reverse order of the nodes, so a gradient is one fixed sum. A backward node carries the origins and the source of the forward node
that it serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import GraphcError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op
from graphc.ops.movement import Expand
from graphc.ops.pointwise import op

SUFFIX = ":grad"  # of the names of backward nodes


@dataclass(frozen=True)
class Missing:
    """A node without a gradient: where it is, and why."""

    node: str
    op: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def differentiate(graph: Graph, seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> dict[Value, Value | None]:
    """Append to `graph` the gradients with respect to `wrt` of sum(value * seed) over `seeds`; None where nothing depends on a value.

    seeds: value -> the gradient that flows into it, of its type. Raises UnsupportedError that lists every node on the way that has no
    gradient, with the reasons, before anything is added by a node of that list.
    """
    for value in wrt:
        if not value.type.dtype.is_float:
            raise UnsupportedError(f"{value.name!r} is {value.type}", hint="only floating point values have gradients")
    path = nodes_between(graph, wrt, seeds)
    _refuse(missing_gradients(path))
    return _Reverse(graph, seeds, set(path)).run(wrt)


def nodes_between(graph: Graph, sources: Iterable[Value], targets: Iterable[Value]) -> list[Node]:
    """The nodes through which floats flow from `sources` to `targets`, in the order of the graph."""
    reached = set(sources)
    ahead = []
    for node in graph.nodes:
        if any(value in reached for value in node.inputs):
            floats = [value for value in node.outputs if value.type.dtype.is_float]
            reached.update(floats)
            if floats:
                ahead.append(node)
    needed = set(targets)
    found = []
    for node in reversed(ahead):
        if any(value in needed for value in node.outputs):
            found.append(node)
            needed.update(node.inputs)
    return found[::-1]


def missing_gradients(nodes: Iterable[Node]) -> list[Missing]:
    """Those of the nodes whose op has no gradient at all."""
    return [
        _missing(node, node.op.not_differentiable or "its gradient is not written yet")
        for node in nodes
        if type(node.op).gradient is Op.gradient or node.op.not_differentiable
    ]


def unsupported_gradients(graph: Graph) -> list[Missing]:
    """Every node between the float inputs and parameters of a graph and its float outputs that cannot be differentiated.

    The gradients are built on a copy, so an op that refuses only some attributes is found too.
    """
    graph = graph.copy()
    sources = [value for value in (*graph.inputs, *graph.parameters.values()) if value.type.dtype.is_float]
    outputs = list(dict.fromkeys(value for value in graph.outputs if value.type.dtype.is_float))
    path = nodes_between(graph, sources, outputs)
    missing = missing_gradients(path)
    builder = Builder(graph)
    refused = {entry.node for entry in missing}
    for node in path:
        if node.name in refused:
            continue
        try:
            node.op.gradient(builder, node, [_zeros(builder, value) for value in node.outputs])
        except GraphcError as error:
            missing.append(_missing(node, error.reason))
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    return sorted(missing, key=lambda entry: order[entry.node])


class _Reverse:
    def __init__(self, graph: Graph, seeds: Mapping[Value, Value], path: set[Node]) -> None:
        self.graph, self.path = graph, path
        self.builder = Builder(graph)
        self.parts: dict[Value, list[Value]] = {value: [seed] for value, seed in seeds.items()}
        self.sums: dict[Value, Value] = {}
        self.refused: list[Missing] = []

    def run(self, wrt: Sequence[Value]) -> dict[Value, Value | None]:
        start = len(self.graph.nodes)
        for node in reversed([node for node in self.graph.nodes if node in self.path]):
            self._visit(node)
        _refuse(self.refused)
        found = {value: self._total(value) for value in wrt}
        _prune(self.graph, start, [grad for grad in found.values() if grad is not None])
        return found

    def _visit(self, node: Node) -> None:
        if not any(value in self.parts for value in node.outputs):
            return
        start = len(self.graph.nodes)
        with self.builder.at(node.source, node.origins):
            grads = [self._total(value) or _zeros(self.builder, value) for value in node.outputs]
            try:
                results = node.op.gradient(self.builder, node, grads)
            except UnsupportedError as error:
                self.refused.append(_missing(node, error.reason))
                return
        for value, result in zip(node.inputs, results, strict=True):
            if result is not None:
                self.parts.setdefault(value, []).append(result)
        for made in self.graph.nodes[start:]:
            made.name = f"{node.name}{SUFFIX}"

    def _total(self, value: Value) -> Value | None:
        """The sum of what has flowed into a value."""
        if value not in self.sums and value in self.parts:
            first, *rest = self.parts[value]
            for part in rest:
                first = self.builder.add(op("add"), first, part)
            self.sums[value] = first
        return self.sums.get(value)


def _prune(graph: Graph, start: int, kept: Iterable[Value]) -> None:
    """Remove the nodes from `start` on that none of the values needs: gradients that an op gave and nobody wanted."""
    needed = {value.producer for value in kept}
    live = []
    for node in reversed(graph.nodes[start:]):
        if node in needed:
            live.append(node)
            needed.update(value.producer for value in node.inputs)
            continue
        for value in node.inputs:
            value.users.pop(node, None)
        for value in node.outputs:
            del graph.values[value.name]
    graph.nodes[start:] = live[::-1]


def _zeros(builder: Builder, like: Value) -> Value:
    zero = builder.constant(np.zeros((), like.type.dtype.numpy), name="zero")
    return builder.add(Expand(tuple(like.type.shape)), zero) if like.type.rank else zero


def _missing(node: Node, reason: str) -> Missing:
    return Missing(node.name, node.op.name, node.where, reason)


def _refuse(missing: Sequence[Missing]) -> None:
    if not missing:
        return
    listed = "; ".join(str(entry) for entry in missing)
    count = "1 node has" if len(missing) == 1 else f"{len(missing)} nodes have"
    raise UnsupportedError(f"{count} no gradient: {listed}", where=missing[0].where, hint="freeze the parameters before them")
