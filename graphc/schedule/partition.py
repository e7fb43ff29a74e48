"""partition: the nodes of each kernel, in an order in which the kernels can run."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Node, Value
from graphc.passes.anchors import WHOLE, anchor_family


@dataclass(frozen=True)
class Kernel:
    """Nodes that run as one kernel, operands first, and the values that it stores: one, but for recurrent layers, sorting, control flow."""

    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]

    @property
    def output(self) -> Value:
        """The only one, or the first."""
        return self.outputs[0]

    @property
    def inputs(self) -> tuple[Value, ...]:
        """Values read from memory, in order, once."""
        inside = {value for node in self.nodes for value in node.outputs}
        return tuple(dict.fromkeys(value for node in self.nodes for value in node.inputs if value not in inside))

    @property
    def anchor(self) -> Node:
        """The node that gives the kernel its shape: the convolution or product, else the last node."""
        return next((node for node in self.nodes if anchor_family(node)), self.nodes[-1])

    @property
    def chain(self) -> tuple[Kernel, ...]:
        """A convolution and the depthwise one that reads it as two kernels, where this is both (`graphc.passes.fuse_depthwise`); else
        the kernel alone."""
        anchors = [node for node in self.nodes if anchor_family(node)]
        if len(anchors) < 2:
            return (self,)
        between = anchors[1].inputs[0]
        needed = {between}
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.inputs)
        first = tuple(node for node in self.nodes if not needed.isdisjoint(node.outputs))
        return Kernel(first, (between,)), Kernel(tuple(node for node in self.nodes if node not in first), self.outputs)

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(origin for node in self.nodes for origin in node.origins))


def partition(graph: Graph) -> list[Kernel]:
    """Kernels in the order of their last nodes: all that a kernel reads is stored by earlier ones."""
    groups: dict[object, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(node if node.kernel is None else node.kernel, []).append(node)
    position = {node: i for i, node in enumerate(graph.nodes)}
    ordered = sorted(groups.values(), key=lambda nodes: position[nodes[-1]])
    return [_kernel(graph, nodes) for nodes in ordered]


def _kernel(graph: Graph, nodes: list[Node]) -> Kernel:
    inside = set(nodes)
    roots = set(graph.roots)
    stored = [value for node in nodes for value in node.outputs if value in roots or any(user not in inside for user in value.users)]
    if len(stored) != 1 and not (stored and anchor_family(nodes[-1]) in WHOLE):
        raise VerifyError(f"the kernel of {nodes[-1].where} stores {len(stored)} values, and must store one")
    return Kernel(tuple(nodes), tuple(stored))
