"""choose-algorithm: the direct sum or Winograd, for each convolution that allows both (see `graphc.kernel.choose`)."""

from __future__ import annotations

from graphc.ir.graph import Graph, Node
from graphc.kernel.choose import DIRECT, TRAINING, ConvShape, choose_gradient
from graphc.ops.conv import Conv
from graphc.ops.conv_weight import ConvWeightGradient
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context
from graphc.passes.layout import FEW_CHANNELS
from graphc.types.dtype import f32


def run(graph: Graph, context: Context) -> int:
    """The number of convolutions that are not summed directly."""
    choose, count = context.choose, 0
    assert context.target is not None
    for node in graph.nodes:
        if has_choice(node):
            trained = not node.inputs[1].is_constant and context.accuracy == "default"
            node.algorithm = choose.algorithm(shape_of(node), TRAINING if trained else context.accuracy)
            count += node.algorithm != DIRECT
        elif _is_gradient_with_choice(node):
            node.algorithm = choose_gradient(_gradient_shape(node), context.target, context.accuracy)
            count += node.algorithm != DIRECT
    return count


def _is_gradient_with_choice(node: Node) -> bool:
    """The gradient of the weight of a convolution that has a choice, whose output channels fill a good part of a vector."""
    if anchor_family(node) != "conv-weight" or not isinstance(node.op, ConvWeightGradient):
        return False
    x, op = node.inputs[0].type, node.op
    plain = op.groups == 1 and op.kernel == (3, 3) and {*op.stride, *op.dilation} == {1}
    return plain and x.dtype is f32 and x.static_shape[1] > FEW_CHANNELS


def _gradient_shape(node: Node) -> ConvShape:
    n, outputs, height, width = node.inputs[1].type.static_shape
    return ConvShape(n, node.inputs[0].type.static_shape[1], outputs, height, width)


def has_choice(node: Node) -> bool:
    """3x3, stride 1, not dilated, one group, float32, and more input channels than a first layer has."""
    if anchor_family(node) != "conv" or not isinstance(node.op, Conv):
        return False
    x, w = node.inputs[0].type, node.inputs[1].type
    plain = node.op.groups == 1 and {*node.op.stride, *node.op.dilation} == {1} and 0 not in node.output.type.static_shape
    return plain and x.dtype is f32 and w.static_shape[2:] == (3, 3) and w.static_shape[1] > FEW_CHANNELS


def shape_of(node: Node) -> ConvShape:
    n, outputs, height, width = node.output.type.static_shape
    return ConvShape(n, node.inputs[1].type.static_shape[1], outputs, height, width)
