"""widen-half: float16 tensors are computed in float32 and rounded where they enter and leave the program, or are cast to float16.

CPUs compute float16 by converting to float32 anyway; doing it at the edges is faster and more accurate. Constants are widened here.
"""

from __future__ import annotations

from dataclasses import fields, replace

from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.pointwise import Cast
from graphc.passes.base import Context
from graphc.types.dtype import f16, f32
from graphc.types.tensor import TensorType


def run(graph: Graph, context: Context) -> int:
    if all(value.type.dtype != f16 for value in graph.values.values()):
        return 0
    patch = Patch(graph, "widen-half")
    wide: dict[Value, Value] = {}
    for node in list(graph.nodes):
        if all(value.type.dtype != f16 for value in (*node.inputs, *node.outputs)) or _rounds(node):
            continue
        if node.op.bodies():  # which are widened inside, and take what they are declared to take
            patch.set_inputs(node, [_narrow(patch, value, wide) for value in node.inputs])
            continue
        changes = {f.name: f32 for f in fields(node.op) if getattr(node.op, f.name) == f16}
        op = replace(node.op, **changes) if changes else node.op
        patch.builder.source, patch.builder.origins = node.source, node.origins
        new = patch.builder.add_many(op, *(_widen(patch, value, wide) for value in node.inputs), name=node.name)
        for old, value in zip(node.outputs, new, strict=True):
            if old.type.dtype == f16:
                wide[old] = value
            else:
                patch.replace(old, value)
    for value in dict.fromkeys(graph.roots):
        if value in wide and value.producer is not None and not _rounds(value.producer) and not value.producer.op.bodies():
            patch.replace(value, patch.add(Cast(f16), wide[value], like=value.producer, name=value.name))
    return patch.commit()


def _narrow(patch: Patch, value: Value, wide: dict[Value, Value]) -> Value:
    """A float16 value itself, as which nothing computes it any more."""
    if value not in wide or value.producer is None or _rounds(value.producer) or value.producer.op.bodies():
        return value
    return patch.add(Cast(f16), wide[value], like=value.producer, name=value.name)


def _rounds(node: Node) -> bool:
    """A cast from another dtype to float16 is meant to round, and stays."""
    return isinstance(node.op, Cast) and node.op.to == f16 and node.inputs[0].type.dtype != f16


def _widen(patch: Patch, value: Value, wide: dict[Value, Value]) -> Value:
    if value.type.dtype != f16:
        return value
    if value not in wide:
        if value.is_constant and value.data is not None:
            data = value.data.astype(f32.numpy)
            wide[value] = patch.graph.add_value(patch.graph.fresh_name(value.name), TensorType(f32, value.type.shape), Kind.CONSTANT, data)
        else:
            wide[value] = patch.builder.add(Cast(f32), value, name=value.name)
    return wide[value]
