"""Which nodes give a kernel its shape: convolutions and products, in the dtypes that their kernel families take."""

from __future__ import annotations

from graphc.ir.graph import Node
from graphc.types.dtype import f32, f64


def anchor_family(node: Node) -> str:
    """"conv", "contract", or "" for a node that is lowered to loops, as empty tensors are."""
    if node.op.family not in ("conv", "contract") or node.inputs[0].type.dtype not in (f32, f64):
        return ""
    if any(0 in value.type.shape for value in (*node.inputs, *node.outputs)):
        return ""
    return node.op.family
