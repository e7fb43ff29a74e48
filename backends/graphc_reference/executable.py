"""ReferenceExecutable: evaluates a Graph node by node with `Op.evaluate`, in the order of the graph.

float16 is widened by the ops themselves. Nothing is fused, folded or reordered, so a difference to another back end is that back end's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.patch import topological
from graphc.signature import outputs_of, signature_of
from graphc.types.shape import symbols_of


class ReferenceExecutable:
    """Call it with arrays in input order or by name (see `graphc.executable.Executable`); symbolic dims take the sizes of the inputs.

    State (graph.updates) is kept in the executable and replaced after each run; the graph's own data is never changed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._signature = signature_of(graph)
        self.inputs = self._signature.inputs
        self.outputs = outputs_of(graph)
        self.state: dict[str, Array] = {name: value.data.copy() for name, value in graph.states.items() if value.data is not None}
        self._bound: dict[tuple[tuple[str, int], ...], Graph] = {}

    def __call__(self, *args: Any, **named: Any) -> Any:
        """One output, or a tuple in output order."""
        results = list(self.run(self._signature.by_name(args, named)).values())
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name: arrays, lists of arrays, None. Raises InputError where the feeds do not fit the graph's inputs."""
        return self.graph.delivered(self.results(feeds))

    def results(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """As `run`, every output as the graph has it, and those that only say how many elements of others count."""
        arrays, sizes = self._signature.check(feeds)
        graph = self._graph_for(sizes)
        return dict(zip(graph.output_names, self._evaluate(graph, arrays, graph.outputs), strict=True))

    def values(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Every value of the graph by name, for comparing intermediate results. Leaves the state as it is."""
        arrays, sizes = self._signature.check(feeds)
        graph = self._graph_for(sizes)
        kept = dict(self.state)
        names = [value for value in graph.values.values() if value.producer is None or value.producer in set(topological(graph))]
        found = self._evaluate(graph, arrays, names)
        self.state = kept
        return {value.name: array for value, array in zip(names, found, strict=True)}

    def _evaluate(self, graph: Graph, arrays: Mapping[str, Array], wanted: list[Value]) -> list[Array]:
        values: dict[Value, Array] = {value: arrays[value.name] for value in graph.inputs}
        for value in graph.values.values():
            if value.kind is Kind.STATE:
                values[value] = self.state[value.name]
            elif value.producer is None and value.data is not None:
                values[value] = value.data
        for node in topological(graph):
            results = evaluate_node(node, [values[value] for value in node.inputs])
            values.update(zip(node.outputs, results, strict=True))
        found = [np.array(values[value]) for value in wanted]
        for state, updated in graph.updates.items():
            self.state[state.name] = np.array(values[updated])
        return found

    def _graph_for(self, sizes: Mapping[str, int]) -> Graph:
        if not sizes:
            return self.graph
        key = tuple(sorted(sizes.items()))
        if key not in self._bound:
            self._bound[key] = self.graph.bind(sizes)
        return self._bound[key]


def evaluate_node(node: Node, inputs: list[Array]) -> tuple[Array, ...]:
    """The node's outputs; checks that dtype and shape are what the op inferred. A GraphcError names the node."""
    try:
        results = node.op.evaluate(*inputs)
    except GraphcError as error:
        raise error.at(node.where) from error.__cause__
    for value, array in zip(node.outputs, results, strict=True):
        if array.dtype != value.type.dtype.numpy or (not symbols_of(value.type.shape) and array.shape != value.type.shape):
            raise AssertionError(f"{node.where}: {value.name!r} is {array.dtype}{list(array.shape)}, its type says {value.type}")
    return results
