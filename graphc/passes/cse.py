"""eliminate-common: two nodes with the same op, attributes and inputs become one."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node
from graphc.ir.patch import Patch
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "eliminate-common")
    seen: dict[tuple[object, ...], Node] = {}
    for node in [node for node in graph.nodes if not node.op.bodies()]:
        key = (repr(node.op), *(id(value) for value in node.inputs))  # repr tells -0.0 from 0.0 and NaN equal to itself
        first = seen.setdefault(key, node)
        if first is not node:
            for old, new in zip(node.outputs, first.outputs, strict=True):
                patch.replace(old, new)
    return patch.commit()
