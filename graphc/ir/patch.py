"""Patches: the only way in which passes edit a graph.

A patch adds nodes, redirects uses and, at `commit`, sorts the graph, sweeps what is dead and hands the origins of swept nodes on: to
the node that replaced them, or to `graph.eliminated` where none did.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from graphc.errors import ModelError
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op
from graphc.types.dtype import dtype
from graphc.types.tensor import TensorType


class Patch:
    """Edits `graph` on behalf of a pass; `count` is how many rewrites it made."""

    def __init__(self, graph: Graph, pass_name: str) -> None:
        self.graph = graph
        self.pass_name = pass_name
        self.count = 0
        self.builder = Builder(graph)

    def add(self, op: Op, *inputs: Value, like: Node, name: str = "") -> Value:
        """A new node that stands for the same original nodes as `like`."""
        self.builder.source, self.builder.origins = like.source, like.origins
        return self.builder.add(op, *inputs, name=name or like.name)

    def constant(self, data: Array, like: Value) -> Value:
        """A new constant, named after the value that it replaces or derives from; a parameter stays trainable only itself."""
        name = self.graph.fresh_name(like.name)
        array = np.asarray(data)
        return self.graph.add_value(name, TensorType(dtype(array.dtype), tuple(array.shape)), Kind.CONSTANT, array)

    def replace(self, old: Value, new: Value) -> None:
        """Every use of `old` becomes a use of `new`; the new producer inherits the origins of the old one."""
        for user in list(old.users):
            self.set_inputs(user, [new if value is old else value for value in user.inputs])
        self.graph.outputs = [new if value is old else value for value in self.graph.outputs]
        self.graph.updates = {state: new if value is old else value for state, value in self.graph.updates.items()}
        if old.producer is not None and new.producer is not None:
            inherit(new.producer, old.producer.origins)
        self.count += 1

    def set_inputs(self, node: Node, inputs: Iterable[Value]) -> None:
        for value in node.inputs:
            value.users.pop(node, None)
        node.inputs = list(inputs)
        for value in node.inputs:
            value.users[node] = value.users.get(node, 0) + 1

    def commit(self) -> int:
        """Sort, sweep the dead, account for origins; returns the number of rewrites."""
        live = topological(self.graph)
        kept = set(live)
        dead = [node for node in self.graph.nodes if node not in kept]
        self.graph.nodes = live
        for node in dead:
            for value in node.inputs:
                value.users.pop(node, None)
            for value in node.outputs:
                self.graph.values.pop(value.name, None)
        for name, value in list(self.graph.values.items()):
            if value.is_constant and not value.users and value not in self.graph.outputs and value not in self.graph.updates.values():
                del self.graph.values[name]
        carried = {origin for node in live for origin in node.all_origins}
        for node in dead:
            for origin in node.all_origins:
                if origin not in carried:
                    self.graph.eliminated.setdefault(origin, self.pass_name)
        return self.count


def inherit(node: Node, origins: Iterable[str]) -> None:
    node.origins = tuple(dict.fromkeys((*node.origins, *origins)))


def topological(graph: Graph) -> list[Node]:
    """The nodes that the outputs and updates need, operands first, otherwise in their present order. A cycle is a ModelError."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    needed: set[Node] = set()
    stack = [value.producer for value in graph.roots if value.producer]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(value.producer for value in node.inputs if value.producer)
    result: list[Node] = []
    state: dict[Node, bool] = {}  # False: being visited, True: done
    for root in sorted(needed, key=order.__getitem__):
        visit = [root]
        while visit:
            node = visit[-1]
            if state.get(node):
                visit.pop()
                continue
            waiting = [value.producer for value in node.inputs if value.producer and not state.get(value.producer)]
            if not waiting:
                state[node] = True
                result.append(node)
                visit.pop()
            elif node in state:
                raise ModelError(f"the graph has a cycle through {node.where}", hint="a model must not depend on its own output")
            else:
                state[node] = False
                visit.extend(reversed(waiting))
    return result
