"""Which nodes give a kernel its shape: convolutions, gradients of their weights, products and recurrent layers, in the dtypes that their
kernel families take; sorting; and control flow, which is no kernel at all, but whose values lie in memory as those of recurrent layers
do."""

from __future__ import annotations

from graphc.ir.graph import Node
from graphc.types.dtype import f32, f64

WHOLE = ("recurrent", "sort", "control")  # families of several results, that nothing is fused with


def anchor_family(node: Node) -> str:
    """"conv", "conv-weight", "contract", one of `WHOLE`, or "" for a node that is lowered to loops, as empty tensors are."""
    if node.op.family in WHOLE:
        return node.op.family
    if node.op.family not in ("conv", "conv-weight", "contract") or node.inputs[0].type.dtype not in (f32, f64):
        return ""
    if any(0 in value.type.shape for value in (*node.inputs, *node.outputs)):
        return ""
    if node.op.family == "conv-weight" and getattr(node.op, "groups", 1) not in (1, _depth(node)):
        return ""
    return node.op.family


def _depth(node: Node) -> int:
    """The channels, where input and output of a convolution have equally many; else 0."""
    x, grad = (value.type.static_shape[1] for value in node.inputs)
    return x if x == grad else 0


def is_dense(node: Node) -> bool:
    """Its kernel stores its result without a halo, and as a whole."""
    return anchor_family(node) in ("conv-weight", "contract", *WHOLE)
