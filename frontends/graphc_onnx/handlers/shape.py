"""Shapes and constants: mostly gone after the fold, because they are known while importing."""

from __future__ import annotations

from math import ceil

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops.movement import ShapeOf
from graphc.types.dtype import dtype
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op
from graphc_onnx.tensors import check_computed, dtype_of

_SCALARS = {
    "value_float": ("number", np.float32),
    "value_int": ("integer", np.int64),
    "value_floats": ("floats", np.float32),
    "value_ints": ("ints", np.int64),
}


@onnx_op("Constant")
def constant(context: Context, node: OnnxNode) -> Value:
    if node.has("value"):
        return context.constant(node.tensor("value"))
    if node.has("sparse_value"):
        return context.constant(node.sparse_tensor("sparse_value"))
    for name, (kind, numpy) in _SCALARS.items():
        if node.has(name):
            return context.constant(np.asarray(getattr(node, kind)(name), numpy))
    if node.has("value_string") or node.has("value_strings"):
        raise node.unsupported("a constant of strings", hint="graphc has no strings")
    raise ModelError("attribute value is missing", hint="export the model again")


@onnx_op("ConstantOfShape")
def constant_of_shape(context: Context, node: OnnxNode) -> Value:
    value = node.tensor("value", np.zeros(1, np.float32))
    if value.size != 1:
        raise ModelError(f"value must be one element, got {value.size}")
    shape = context.ints(node.input(0), "the shape of ConstantOfShape")
    return context.expand(context.constant(value.reshape(())), shape)


@onnx_op("Shape")
def shape(context: Context, node: OnnxNode) -> Value:
    """The shape, or the dims start .. end - 1 of it (clamped) from opset 15."""
    x = node.input(0)
    rank = x.type.rank
    start, end = (max(0, min(rank, v + rank if v < 0 else v)) for v in (node.integer("start", 0), node.integer("end", rank)))
    whole = context.add(ShapeOf(), x)
    return whole if (start, end) == (0, rank) else context.slice_axis(whole, 0, start, max(end - start, 0))


@onnx_op("Size")
def size(context: Context, node: OnnxNode) -> Value:
    """The product of the dims; 1 for a scalar."""
    return context.reduce("prod", context.add(ShapeOf(), node.input(0)), [0], keepdims=False)


@onnx_op("Range")
def range_(context: Context, node: OnnxNode) -> Value:
    """start, start + delta, ... below limit; all three must be known."""
    start, limit, delta = (context.array(node.input(i), f"{name} of Range") for i, name in enumerate(("start", "limit", "delta")))
    if start.size != 1 or limit.size != 1 or delta.size != 1:
        raise ModelError("start, limit and delta must be scalars")
    first, last, step = (a.reshape(-1)[0].item() for a in (start, limit, delta))
    if step == 0:
        raise ModelError("Range with delta 0")
    count = max(ceil((last - first) / step), 0)
    check_computed((count,), dtype(start.dtype), "the result of Range")
    return context.constant((first + np.arange(count) * step).astype(start.dtype))


@onnx_op("EyeLike")
def eye_like(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    if x.type.rank != 2:
        raise ModelError(f"EyeLike needs a matrix, got {x.type}")
    to = dtype_of(node.integer("dtype"), "EyeLike") if node.has("dtype") else x.type.dtype
    rows, columns = x.type.static_shape
    check_computed((rows, columns), to, "the result of EyeLike")
    return context.constant(np.eye(rows, columns, node.integer("k", 0), dtype=to.numpy))
