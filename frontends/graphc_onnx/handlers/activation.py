"""Activation functions: most are one row of graphc's pointwise table with the ONNX defaults of their attributes."""

from __future__ import annotations

from graphc.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ops.norm import LogSoftmax, Softmax
from graphc.types.dtype import f16, f32
from graphc.types.shape import product
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

# operator -> (row, {parameter of the row: (attribute, default)})
_TABLE: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "Relu": ("relu", {}),
    "Sigmoid": ("sigmoid", {}),
    "Tanh": ("tanh", {}),
    "LeakyRelu": ("leaky_relu", {"alpha": ("alpha", 0.01)}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": ("alpha", 1.0)}),
    "Elu": ("elu", {"alpha": ("alpha", 1.0)}),
    "Celu": ("celu", {"alpha": ("alpha", 1.0)}),
    "Softplus": ("softplus", {}),
    "Softsign": ("softsign", {}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)}),
    "HardSwish": ("hard_swish", {}),
    "Mish": ("mish", {}),
    "Swish": ("silu", {"alpha": ("alpha", 1.0)}),
}
_SELU = (1.6732632423543772, 1.0507009873554805)
_SELU_1 = (1.6732, 1.0507)


@onnx_op(*_TABLE)
def activation(context: Context, node: OnnxNode) -> Value:
    row, parameters = _TABLE[node.op]
    return context.pointwise(row, node.input(0), **{name: node.number(*source) for name, source in parameters.items()})


@onnx_op("Selu")
def selu(context: Context, node: OnnxNode) -> Value:
    alpha, gamma = _SELU if node.opset >= 6 else _SELU_1
    return context.pointwise("selu", node.input(0), alpha=node.number("alpha", alpha), gamma=node.number("gamma", gamma))


@onnx_op("Gelu")
def gelu(context: Context, node: OnnxNode) -> Value:
    approximate = node.string("approximate", "none", choices=("none", "tanh"))
    return context.pointwise("gelu" if approximate == "none" else "gelu_tanh", node.input(0))


@onnx_op("Shrink")
def shrink(context: Context, node: OnnxNode) -> Value:
    """Integers are computed in float and converted back."""
    x = node.input(0)
    wide = x if x.type.dtype.is_float else context.cast(x, f32)
    result = context.pointwise("shrink", wide, lambd=node.number("lambd", 0.5), bias=node.number("bias", 0.0))
    return context.cast(result, x.type.dtype)


@onnx_op("PRelu")
def prelu(context: Context, node: OnnxNode) -> Value:
    """The slope broadcasts to x; below opset 7 a slope of shape (C) belongs to axis 1."""
    x, slope = node.input(0), node.input(1)
    if node.opset < 7 and slope.type.rank == 1 and slope.type.shape[0] != 1:
        slope = context.reshape(slope, (*slope.type.shape, *[1] * (x.type.rank - 2)))
    return context.pointwise("prelu", x, slope)


@onnx_op("Softmax", "LogSoftmax", since=13)
def softmax(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axis = normal_axis(node.integer("axis", -1), x.type.rank) if x.type.rank else 0
    return context.add(Softmax(axis) if node.op == "Softmax" else LogSoftmax(axis), x)


@onnx_op("Softmax", "LogSoftmax", until=12)
def softmax_flattened(context: Context, node: OnnxNode) -> Value:
    """Before opset 13 the input is flattened to 2-d at `axis`, and each row is normalised."""
    x = node.input(0)
    axis, rank = node.integer("axis", 1), x.type.rank
    make = Softmax if node.op == "Softmax" else LogSoftmax
    if axis == rank:
        flat = context.reshape(x, (*x.type.shape, 1))
        return context.reshape(context.add(make(rank), flat), x.type.shape)
    axis = normal_axis(axis, rank)
    if product(x.type.shape[axis + 1 :]) == 1:
        return context.add(make(axis), x)
    return context.reshape(context.add(make(1), context.flatten2(x, axis)), x.type.shape)


@onnx_op("Hardmax")
def hardmax(context: Context, node: OnnxNode) -> Value:
    """1 at the first maximum along the axis, 0 elsewhere."""
    from graphc.ops.gather import OneHot
    from graphc.ops.reduce import ArgReduce

    x = node.input(0)
    flat, axis = x, normal_axis(node.integer("axis", -1 if node.opset >= 13 else 1), x.type.rank)
    if node.opset < 13:
        flat, axis = context.flatten2(x, axis), 1
    depth = flat.type.shape[axis]
    if not isinstance(depth, int):
        raise ShapeError(f"Hardmax over the symbolic size {depth}", hint=f"fix it, e.g. dims={{{str(depth)!r}: 10}}")
    best = context.add(ArgReduce("max", axis, keepdims=False), flat)
    values = context.constant([0.0, 1.0], x.type.dtype if x.type.dtype != f16 else f32)
    made = context.add(OneHot(depth, axis), best, values)
    return context.reshape(context.cast(made, x.type.dtype), x.type.shape)
