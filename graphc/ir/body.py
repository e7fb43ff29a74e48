"""Sub-graphs: under construction, copied into the graph around them, and all those of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from graphc.ir.builder import Builder, ancestors
from graphc.ir.graph import Graph, Value
from graphc.ir.patch import Patch


class Body:
    """A sub-graph that a front end builds. What it reads of the graph around it becomes an input of its own at the first use.

    The inputs made with `builder.input` come first, then those that are captured, in the order of their first use.
    """

    def __init__(self, outer: Builder, name: str) -> None:
        self.outer = outer
        self.builder = Builder(Graph(name))
        self.builder.source, self.builder.origins = outer.source, outer.origins
        self.iteration: Value | None = None  # its number, where the front end makes the body of a loop
        self._captured: dict[Value, Value] = {}

    @property
    def graph(self) -> Graph:
        return self.builder.graph

    def owns(self, value: Value) -> bool:
        return self.graph.values.get(value.name) is value

    def capture(self, value: Value) -> Value:
        """What stands here for a value of the graph around; sizes that are known there are known here."""
        if value not in self._captured:
            made = self.builder.input(self.graph.fresh_name(value.name), value.type.dtype, value.type.shape)
            self.builder.assume(made, self.outer.known(value))
            self._captured[value] = made
        return self._captured[value]

    def outside(self, *values: Value) -> list[Value]:
        """The values of the graph around on which those of this graph depend."""
        leaves = {leaf for value in values for leaf in ancestors(value)}
        return [outer for outer, inner in self._captured.items() if inner in leaves]

    def finish(self, outputs: Iterable[tuple[str, Value]]) -> list[Value]:
        """Set the outputs and drop what they do not need; returns the values of the graph around that are captured."""
        self.graph.output_names, self.graph.outputs = [], []
        for name, value in outputs:
            taken = self.graph.output_names
            self.graph.output_names.append(name if name not in taken else next(n for i in count(1) if (n := f"{name}.{i}") not in taken))
            self.graph.outputs.append(value)
        Patch(self.graph, "import").commit()
        for inner in self._captured.values():
            if not inner.users and inner not in self.graph.outputs:
                self.graph.inputs.remove(inner)
                del self.graph.values[inner.name]
        return [outer for outer, inner in self._captured.items() if inner in self.graph.inputs]


def inline(builder: Builder, graph: Graph, inputs: Sequence[Value], also: Sequence[Value] = ()) -> list[Value]:
    """The nodes of a sub-graph built once more, on these values; returns its outputs, and what stands for the values `also` of it."""
    new = dict(zip(graph.inputs, inputs, strict=True))
    for value in graph.values.values():
        if value.data is not None:
            new[value] = builder.constant(value.data, name=value.name)
    for node in graph.nodes:
        with builder.at(node.source, node.origins):
            made = builder.add_many(node.op.bind({}), *(new[value] for value in node.inputs), name=node.name)
        new.update(zip(node.outputs, made, strict=True))
    return [new[value] for value in (*graph.outputs, *also)]


def graphs(graph: Graph) -> Iterator[Graph]:
    """The graph, and its sub-graphs at any depth."""
    yield graph
    for node in graph.nodes:
        for body in node.op.bodies():
            yield from graphs(body)
