"""Reductions, ArgMax and ArgMin, running sums, means over axes."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops.reduce import ArgReduce, CumSum
from graphc.types.dtype import bool_
from graphc_onnx.context import Context, normal_axes, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

_REDUCE = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod", "ReduceL1": "l1",
    "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceLogSum": "log_sum", "ReduceLogSumExp": "log_sum_exp",
}  # fmt: skip


@onnx_op(*_REDUCE)
def reduce(context: Context, node: OnnxNode) -> Value:
    """Axes are an attribute, or (ReduceSum from opset 13, the others from 18) an input. Without axes: all, or none where so stated."""
    x = node.input(0)
    as_input = node.opset >= (13 if node.op == "ReduceSum" else 18)
    axes: tuple[int, ...] = ()
    if as_input:
        given = node.optional(1)
        axes = context.plain_ints(given, "the axes") if given is not None else ()
    elif node.has("axes"):
        axes = node.ints("axes")
    if not axes:
        noop = as_input and node.flag("noop_with_empty_axes")
        axes = () if noop else tuple(range(x.type.rank))
    fn = _REDUCE[node.op]
    if x.type.dtype == bool_ and fn in ("max", "min"):
        fn = "any" if fn == "max" else "all"
    return context.reduce(fn, x, normal_axes(axes, x.type.rank), node.flag("keepdims", True))


@onnx_op("ArgMax", "ArgMin")
def arg_reduce(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axis = normal_axis(node.integer("axis", 0), x.type.rank)
    fn = "max" if node.op == "ArgMax" else "min"
    return context.add(ArgReduce(fn, axis, node.flag("keepdims", True), node.flag("select_last_index")), x)


@onnx_op("CumSum")
def cumsum(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axes = context.plain_ints(node.input(1), "the axis")
    if len(axes) != 1:
        raise ModelError(f"CumSum takes one axis, got {len(axes)}")
    return context.add(CumSum(normal_axis(axes[0], x.type.rank), node.flag("exclusive"), node.flag("reverse")), x)


@onnx_op("CumProd")
def cumprod(context: Context, node: OnnxNode) -> Value:
    """Each prefix is multiplied anew: the product over a new last axis, with ones outside of the prefix."""
    x = node.input(0)
    axis = normal_axis(context.plain_ints(node.input(1), "the axis of CumProd")[0], x.type.rank)
    size = x.type.static_shape[axis]
    i, j = np.ogrid[:size, :size]
    exclusive, reverse = node.flag("exclusive"), node.flag("reverse")
    inside = (j > i if exclusive else j >= i) if reverse else (j < i if exclusive else j <= i)
    mask = context.constant(inside.reshape(*[1] * axis, size, *[1] * (x.type.rank - axis - 1), size))
    last = [k for k in range(x.type.rank) if k != axis] + [axis]
    row = context.unsqueeze(context.transpose(x, last), [axis])  # (before, 1, after, size)
    return context.reduce("prod", context.pointwise("where", mask, row, context.like(1, x)), [x.type.rank], keepdims=False)
