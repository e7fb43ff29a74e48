"""Quantised operators in 8, 16 and 32 bits, composed of float operators: exact where every sum stays below 2^53 (float64)."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.conv import Conv
from graphc.types.dtype import DType, f16, f32, f64, i32, u8
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.handlers.conv import kernel_of, window
from graphc_onnx.handlers.matmul import matmul
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op
from graphc_onnx.tensors import dtype_of


def along(context: Context, vector: Value, x: Value, axis: int, block: int) -> Value:
    """Scale or zero point placed against x: one number, one per element of the axis, or one per block of it."""
    if vector.type.size == 1:
        return context.reshape(vector, ())
    at = normal_axis(axis, x.type.rank)
    if block:
        shape = vector.type.shape
        spread = context.expand(context.unsqueeze(vector, [at + 1]), (*shape[: at + 1], block, *shape[at + 1 :]))
        merged = context.reshape(spread, (*shape[:at], shape[at] * block, *shape[at + 1 :]))
        return context.slice_axis(merged, at, 0, x.type.shape[at])
    if vector.type.rank != 1:
        raise ShapeError(f"a scale of {vector.type} for {x.type}", hint="one number, or one per element of the axis")
    return context.reshape(vector, (*vector.type.shape, *[1] * (x.type.rank - at - 1)))


def saturated(context: Context, value: Value, to: DType) -> Value:
    """Rounded half to even, clipped to the range of an integer dtype."""
    limits = np.iinfo(to.numpy)
    clipped = context.pointwise("clip", context.pointwise("round", value), lo=float(limits.min), hi=float(limits.max))
    return context.cast(clipped, to)


def quantize(context: Context, x: Value, scale: Value, zero: Value | None, to: DType, axis: int = 1, block: int = 0) -> Value:
    """saturate(round(x / scale) + zero point)."""
    wide = f32 if scale.type.dtype == f16 else scale.type.dtype
    ratio = context.pointwise("div", context.cast(x, wide), along(context, context.cast(scale, wide), x, axis, block))
    rounded = context.pointwise("round", ratio)
    if zero is not None:
        rounded = context.pointwise("add", rounded, along(context, context.cast(zero, wide), x, axis, block))
    return saturated(context, rounded, to)


@onnx_op("QuantizeLinear")
def quantize_linear(context: Context, node: OnnxNode) -> Value:
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    given = node.integer("output_dtype", 0)
    to = zero.type.dtype if zero is not None else dtype_of(given, "output_dtype") if given else u8
    node.integer("saturate", 1)
    if node.integer("precision", 0) not in (0, 1):
        raise node.unsupported("QuantizeLinear with another precision than float32")
    return quantize(context, x, scale, zero, to, node.integer("axis", 1), node.integer("block_size", 0))


@onnx_op("DequantizeLinear")
def dequantize_linear(context: Context, node: OnnxNode) -> Value:
    """(x - zero point) * scale, in the dtype of the scale."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    axis, block = node.integer("axis", 1), node.integer("block_size", 0)
    given = node.integer("output_dtype", 0)
    to = dtype_of(given, "output_dtype") if given else scale.type.dtype
    value = context.cast(x, f32)
    if zero is not None:
        value = context.pointwise("sub", value, along(context, context.cast(zero, f32), x, axis, block))
    return context.cast(context.pointwise("mul", value, along(context, context.cast(scale, f32), x, axis, block)), to)


def _centred(context: Context, x: Value, zero: Value | None, row: bool = False) -> Value:
    """x - zero point in float64, where products of integers are exact. A 1-d zero point belongs to the rows or columns."""
    wide = context.cast(x, f64)
    if zero is None:
        return wide
    offset = context.cast(zero, f64)
    if zero.type.rank == 1 and zero.type.shape[0] != 1:
        offset = context.reshape(offset, (*zero.type.shape, 1) if row else zero.type.shape)
    elif zero.type.size == 1:
        offset = context.reshape(offset, ())
    return context.pointwise("sub", wide, offset)


@onnx_op("MatMulInteger")
def matmul_integer(context: Context, node: OnnxNode) -> Value:
    a = _centred(context, node.input(0), node.optional(2), row=True)
    b = _centred(context, node.input(1), node.optional(3))
    return context.cast(matmul(context, a, b), i32)


@onnx_op("QLinearMatMul")
def qlinear_matmul(context: Context, node: OnnxNode) -> Value:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.input(i) for i in range(8))
    product = matmul(context, _centred(context, a, a_zero, row=True), _centred(context, b, b_zero))
    factor = context.pointwise("mul", *(context.reshape(context.cast(s, f64), ()) for s in (a_scale, b_scale)))
    return quantize(context, context.pointwise("mul", product, factor), context.cast(y_scale, f64), y_zero, y_zero.type.dtype)


def _integer_conv(context: Context, node: OnnxNode, x: Value, x_zero: Value | None, w: Value, w_zero: Value | None) -> Value:
    made = window(node, x.type.shape[2:], kernel_of(w))
    weight = context.cast(w, f64)
    if w_zero is not None:
        offset = context.cast(w_zero, f64)
        shape = (*w_zero.type.shape, *[1] * (w.type.rank - 1)) if w_zero.type.size != 1 else ()
        weight = context.pointwise("sub", weight, context.reshape(offset, shape))
    op = Conv(made.stride, made.dilation, made.before, made.after, node.integer("group", 1))
    return context.add(op, _centred(context, x, x_zero), weight)


@onnx_op("ConvInteger")
def conv_integer(context: Context, node: OnnxNode) -> Value:
    return context.cast(_integer_conv(context, node, node.input(0), node.optional(2), node.input(1), node.optional(3)), i32)


@onnx_op("QLinearConv")
def qlinear_conv(context: Context, node: OnnxNode) -> Value:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (node.input(i) for i in range(8))
    bias = node.optional(8)
    total = _integer_conv(context, node, x, x_zero, w, w_zero)
    rank = total.type.rank
    if bias is not None:
        if bias.type.rank != 1:
            raise ModelError(f"a bias of {bias.type}")
        total = context.pointwise("add", total, context.reshape(context.cast(bias, f64), (*bias.type.shape, *[1] * (rank - 2))))
    per_channel = context.cast(w_scale, f64)
    per_channel = context.reshape(per_channel, () if w_scale.type.size == 1 else (*w_scale.type.shape, *[1] * (rank - 2)))
    factor = context.pointwise("mul", context.reshape(context.cast(x_scale, f64), ()), per_channel)
    return quantize(context, context.pointwise("mul", total, factor), context.cast(y_scale, f64), y_zero, y_zero.type.dtype)
