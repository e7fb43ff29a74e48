"""Pooling: windows, and whole maps."""

from __future__ import annotations

from math import prod

from graphc.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ops.movement import Pad
from graphc.ops.pool import AvgPool, LpPool, MaxPool, MaxPoolIndices
from graphc.ops.scatter import ScatterElements
from graphc_onnx.context import Context
from graphc_onnx.handlers.conv import Window, window
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op


def _window(node: OnnxNode, x: Value) -> Window:
    if x.type.rank < 3:
        raise ShapeError(f"pooling needs shape (N, C, *spatial), got {x.type}")
    return window(node, x.type.shape[2:])


@onnx_op("MaxPool")
def max_pool(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    x = node.input(0)
    w = _window(node, x)
    ceil = node.flag("ceil_mode")
    order = node.integer("storage_order", 0)
    pooled = context.add(MaxPool(w.kernel, w.stride, w.dilation, w.before, w.after, ceil=ceil), x)
    if not node.wants(1):
        return (pooled,)
    indices = MaxPoolIndices(w.kernel, w.stride, w.dilation, w.before, w.after, ceil=ceil, storage_order=order)
    return pooled, context.add(indices, x)


@onnx_op("AveragePool")
def average_pool(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    w = _window(node, x)
    include, ceil = node.flag("count_include_pad"), node.flag("ceil_mode")
    return context.add(AvgPool(w.kernel, w.stride, w.dilation, w.before, w.after, count_include_pad=include, ceil=ceil), x)


@onnx_op("LpPool")
def lp_pool(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    w = _window(node, x)
    p = node.number("p", 2.0) if node.opset < 2 else node.integer("p", 2)
    if p != int(p):
        raise node.unsupported(f"LpPool with the fractional p={p}")
    return context.add(LpPool(w.kernel, w.stride, w.dilation, w.before, w.after, p=int(p), ceil=node.flag("ceil_mode")), x)


@onnx_op("GlobalAveragePool", "GlobalMaxPool")
def global_pool(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    return context.reduce("mean" if node.op == "GlobalAveragePool" else "max", x, range(2, x.type.rank))


@onnx_op("GlobalLpPool")
def global_lp_pool(context: Context, node: OnnxNode) -> Value:
    """(sum |x|^p)^(1/p) over the map."""
    x = node.input(0)
    p = node.number("p", 2.0) if node.opset < 2 else float(node.integer("p", 2))
    axes = range(2, x.type.rank)
    if p in (1.0, 2.0):
        return context.reduce("l1" if p == 1.0 else "l2", x, axes)
    powers = context.pointwise("pow", context.pointwise("abs", x), context.like(p, x))
    return context.pointwise("pow", context.reduce("sum", powers, axes), context.like(1.0 / p, x))


@onnx_op("MaxUnpool")
def max_unpool(context: Context, node: OnnxNode) -> Value:
    """Each element at the position that MaxPool gave, within zeros; positions count in the result before `output_shape` pads it."""
    x, indices, wanted = node.input(0), node.input(1), node.optional(2)
    sizes = x.type.static_shape
    rank = len(sizes) - 2
    kernel, stride = node.ints("kernel_shape"), node.ints("strides", [1] * rank)
    pads = node.ints("pads", [0] * (2 * rank))
    if rank < 1 or not len(kernel) == len(stride) == len(pads) // 2 == rank:
        raise ShapeError(f"kernel_shape, strides or pads do not fit {x.type}")
    spatial = [(n - 1) * s + k - pads[i] - pads[i + rank] for i, (n, s, k) in enumerate(zip(sizes[2:], stride, kernel, strict=True))]
    shape = (*sizes[:2], *spatial)
    flat = context.expand(context.like(0, x), (prod(shape),))
    made = context.add(ScatterElements(0), flat, context.reshape(indices, (prod(sizes),)), context.reshape(x, (prod(sizes),)))
    unpooled = context.reshape(made, shape)
    if wanted is None:
        return unpooled
    after = tuple(want - have for want, have in zip(context.plain_ints(wanted, "the output shape of MaxUnpool"), shape, strict=True))
    return context.add(Pad((0,) * len(shape), after), unpooled)
