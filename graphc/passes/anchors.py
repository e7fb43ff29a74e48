"""Which nodes give a kernel its shape: convolutions and products, in the dtypes that their kernel families take."""

from __future__ import annotations

from graphc.ir.graph import Node
from graphc.types.dtype import f32, f64


def anchor_family(node: Node) -> str:
    """"conv", "contract", or "" for a node that is lowered to loops."""
    if node.op.family in ("conv", "contract") and node.inputs[0].type.dtype in (f32, f64):
        return node.op.family
    return ""
