"""compress-weights: dense layers keep their constant weights as bf16 or int8 in memory, where the caller asks for it.

A dense layer at batch 1 reads each weight once, so its time is the time to read them. Sums stay in float32, and so do activations; the
weights alone are rounded: bf16 to 8 significant bits, int8 to a 127th of the largest weight of each output column. Only float32 matrices
of at least `SMALLEST` elements are taken: smaller ones stay in a cache from run to run, and nothing is gained.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context
from graphc.types.dtype import f32

STORAGES = ("float32", "bf16", "int8")
SMALLEST = 1 << 16


def run(graph: Graph, context: Context) -> int:
    """The number of products whose weights are compressed."""
    if context.weights == "float32":
        return 0
    found = [node for node in graph.nodes if is_dense(node)]
    for node in found:
        node.algorithm = context.weights
    return len(found)


def is_dense(node: Node) -> bool:
    """A float32 product with a large constant matrix."""
    if anchor_family(node) != "contract":
        return False
    b = node.inputs[1]
    return b.is_constant and b.type.rank == 2 and b.type.dtype is f32 and int(b.type.size) >= SMALLEST
