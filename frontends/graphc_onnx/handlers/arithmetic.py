"""Arithmetic: binary operators (with the broadcast attribute of opsets below 7), unary functions, casts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.types import dtype as dt
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op
from graphc_onnx.tensors import dtype_of

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh", "Ceil": "ceil",
    "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "Log": "log", "Neg": "neg",
    "Reciprocal": "reciprocal", "Round": "round", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan",
    "Not": "not", "BitwiseNot": "bit_not", "IsNaN": "isnan",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "And": "and", "Or": "or", "Xor": "xor", "Equal": "equal",
    "Greater": "greater", "Less": "less", "GreaterOrEqual": "greater_equal", "LessOrEqual": "less_equal",
    "BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor",
}  # fmt: skip


def aligned(context: Context, node: OnnxNode) -> tuple[Value, Value]:
    """Both operands; below opset 7 the second one is placed at `axis` of the first where `broadcast` is set."""
    a, b = node.input(0), node.input(1)
    if node.opset >= 7 or not node.flag("broadcast"):
        return a, b
    axis = node.integer("axis", a.type.rank - b.type.rank)
    if b.type.rank == 0 or (b.type.rank == 1 and b.type.shape[0] == 1 and not node.has("axis")):
        return a, b
    trailing = a.type.rank - normal_axis(axis, a.type.rank) - b.type.rank
    if trailing < 0:
        raise ModelError(f"axis {axis} does not place {b.type} within {a.type}")
    return a, context.reshape(b, (*b.type.shape, *[1] * trailing))


@onnx_op(*_UNARY)
def unary(context: Context, node: OnnxNode) -> Value:
    return context.pointwise(_UNARY[node.op], node.input(0))


@onnx_op(*_BINARY)
def binary(context: Context, node: OnnxNode) -> Value:
    return context.pointwise(_BINARY[node.op], *aligned(context, node))


@onnx_op("Pow")
def power(context: Context, node: OnnxNode) -> Value:
    return context.pointwise("pow", *aligned(context, node))


@onnx_op("Mod")
def mod(context: Context, node: OnnxNode) -> Value:
    return context.pointwise("mod", node.input(0), node.input(1), fmod=node.flag("fmod"))


def chain(context: Context, name: str, inputs: Sequence[Value]) -> Value:
    """inputs[0] op inputs[1] op ...; one input alone is copied."""
    if not inputs:
        raise ModelError("needs at least one input")
    total = inputs[0] if len(inputs) > 1 else context.identity(inputs[0])
    for value in inputs[1:]:
        total = context.pointwise(name, total, value)
    return total


@onnx_op("Sum", "Max", "Min")
def variadic(context: Context, node: OnnxNode) -> Value:
    return chain(context, {"Sum": "add", "Max": "max", "Min": "min"}[node.op], node.inputs)


@onnx_op("Mean")
def mean(context: Context, node: OnnxNode) -> Value:
    total = chain(context, "add", node.inputs)
    return context.pointwise("div", total, context.like(len(node.inputs), total))


@onnx_op("BitShift")
def bit_shift(context: Context, node: OnnxNode) -> Value:
    """Shifting a signed integer right by its width or more (or by a negative amount) leaves its sign."""
    x, amount = node.input(0), node.input(1)
    if node.string("direction", choices=("LEFT", "RIGHT")) == "LEFT":
        return context.pointwise("shift_left", x, amount)
    if x.type.dtype.kind == "i":
        most = context.like(x.type.dtype.bits - 1, amount)
        inside = context.pointwise("min", amount, most)
        negative = context.pointwise("less", amount, context.like(0, amount))
        amount = context.pointwise("where", negative, most, inside)
    return context.pointwise("shift_right", x, amount)


@onnx_op("Cast")
def cast(context: Context, node: OnnxNode) -> Value:
    """To a dtype; opset 1 names it as a string."""
    to: int = _named(node.string("to")) if node.opset < 6 else node.integer("to")
    return _cast(context, node.input(0), dtype_of(to, "the target of the cast"))


def _named(name: str) -> int:
    import onnx

    try:
        return int(onnx.TensorProto.DataType.Value(name.upper()))
    except ValueError as error:
        raise ModelError(f"attribute to={name!r} is not a data type") from error


@onnx_op("CastLike")
def cast_like(context: Context, node: OnnxNode) -> Value:
    return _cast(context, node.input(0), node.input(1).type.dtype)


def _cast(context: Context, value: Value, to: dt.DType) -> Value:
    return context.identity(value) if value.type.dtype == to else context.cast(value, to)


@onnx_op("IsInf")
def is_inf(context: Context, node: OnnxNode) -> Value:
    return context.pointwise(
        "isinf", node.input(0), detect_negative=node.flag("detect_negative", True), detect_positive=node.flag("detect_positive", True)
    )


@onnx_op("Clip", until=10)
def clip_attributes(context: Context, node: OnnxNode) -> Value:
    return context.pointwise("clip", node.input(0), lo=node.number("min", -np.inf), hi=node.number("max", np.inf))


@onnx_op("Clip", since=11)
def clip(context: Context, node: OnnxNode) -> Value:
    """Bounds that are known become attributes; others are computed with max and min."""
    x, low, high = node.input(0), node.optional(1), node.optional(2)
    lo = context.number(low) if low is not None else -np.inf
    hi = context.number(high) if high is not None else np.inf
    if lo is not None and hi is not None and not np.isnan(lo) and not np.isnan(hi):
        return context.pointwise("clip", x, lo=lo, hi=hi)
    if low is not None:
        x = context.pointwise("max", x, low)
    return context.pointwise("min", x, high) if high is not None else x


@onnx_op("Where")
def where(context: Context, node: OnnxNode) -> Value:
    return context.pointwise("where", node.input(0), node.input(1), node.input(2))
