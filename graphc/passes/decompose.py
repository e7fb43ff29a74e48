"""decompose: an op that is defined by simpler ops is replaced by them."""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.patch import Patch
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "decompose")
    for node in list(graph.nodes):
        patch.builder.source, patch.builder.origins = node.source, node.origins
        result = node.op.decompose(patch.builder, *node.inputs)
        if result is None:
            continue
        values = result if isinstance(result, tuple) else (result,)
        for old, new in zip(node.outputs, values, strict=True):
            patch.replace(old, new)
    return patch.commit()
