"""Sub-graphs under construction, and all those of a graph."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value


class Body:
    """A sub-graph that a front end builds. What it reads of the graph around it becomes an input of its own at the first use.

    `captured`: value of the graph around -> input that stands for it, in the order of the inputs behind those made with `builder.input`.
    """

    def __init__(self, outer: Builder, name: str) -> None:
        self.outer = outer
        self.builder = Builder(Graph(name))
        self.captured: dict[Value, Value] = {}

    @property
    def graph(self) -> Graph:
        return self.builder.graph

    def owns(self, value: Value) -> bool:
        return self.graph.values.get(value.name) is value

    def capture(self, value: Value) -> Value:
        """What stands here for a value of the graph around; sizes that are known there are known here."""
        if value not in self.captured:
            made = self.builder.input(self.graph.fresh_name(value.name), value.type.dtype, value.type.shape)
            self.builder.assume(made, self.outer.known(value))
            self.captured[value] = made
        return self.captured[value]


def graphs(graph: Graph) -> Iterator[Graph]:
    """The graph, and its sub-graphs at any depth."""
    yield graph
    for node in graph.nodes:
        for body in node.op.bodies():
            yield from graphs(body)
