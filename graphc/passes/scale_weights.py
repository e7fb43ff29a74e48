"""scale-weights: a gate on channels, the same for all samples, scales the weights of the convolution behind it instead of the map.

    conv(x * s, w) = conv(x, w * s)    s (1, C, 1, 1) in [0, 1], w (M, C, *kernel)

Squeeze and excitation ends so. The scaled weights are packed at every run, which costs less than to read and write the map where they are
much smaller. Only gates that a logistic makes: any other factor might overflow with the weights where it does not with the map.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.conv import Conv
from graphc.ops.pointwise import op
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context

SMALLER = 16  # times, that weights must be than the map: packing takes them out of their order, one by one
GATES = ("sigmoid", "hard_sigmoid")


def run(graph: Graph, context: Context) -> int:
    patch, roots = Patch(graph, "scale-weights"), set(graph.roots)
    for node in list(graph.nodes):
        found = _map_and_gate(node, roots)
        if found is None:
            continue
        (x, gate), weight, scaled = found, node.inputs[1], node.inputs[0].producer
        assert scaled is not None
        patch.set_inputs(node, [x, patch.add(op("mul"), weight, gate, like=scaled), *node.inputs[2:]])
        patch.count += 1
    return patch.commit()


def _map_and_gate(node: Node, roots: set[Value]) -> tuple[Value, Value] | None:
    """x and s where the convolution reads x * s, nothing else does, and its weights are small."""
    if anchor_family(node) != "conv" or not isinstance(node.op, Conv) or node.op.groups != 1 or not node.inputs[1].is_constant:
        return None
    product, weight = node.inputs[:2]
    if product.producer is None or product.producer.op.name != "mul" or dict(product.users) != {node: 1} or product in roots:
        return None
    a, b = product.producer.inputs
    for x, gate in ((a, b), (b, a)):
        per_channel = gate.type.static_shape == (1, product.type.shape[1], *(1 for _ in product.type.shape[2:]))
        bounded = gate.producer is not None and gate.producer.op.name in GATES
        if per_channel and bounded and x.type == product.type and SMALLER * int(weight.type.size) <= int(x.type.size):
            return x, gate
    return None
