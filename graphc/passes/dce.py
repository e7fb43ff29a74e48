"""eliminate-dead: nodes and constants that no output and no state update needs go. (Every patch sweeps; this one does only that.)"""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.patch import Patch
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    before = len(graph.nodes)
    Patch(graph, "eliminate-dead").commit()
    return before - len(graph.nodes)
