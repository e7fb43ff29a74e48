"""A graph's meaning in numpy, node by node: what the reference of an op with sub-graphs runs them by."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import GraphcError
from graphc.ir.graph import Array, Graph, Value
from graphc.ir.patch import topological


def evaluate_graph(graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """The outputs for inputs in order. A GraphcError names the node."""
    values: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    values.update({value: value.data for value in graph.values.values() if value.data is not None})
    for node in topological(graph):
        try:
            results = node.op.evaluate(*(values[value] for value in node.inputs))
        except GraphcError as error:
            raise error.at(node.where) from error.__cause__
        values.update(zip(node.outputs, results, strict=True))
    return tuple(values[value] for value in graph.outputs)
