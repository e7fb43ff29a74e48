"""Normalisations."""

from __future__ import annotations

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.norm import LRN, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from graphc.ops.norm_training import BatchNormTraining
from graphc.types.dtype import DType, f16, f32
from graphc.types.shape import DimLike
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op


@onnx_op("BatchNormalization")
def batch_norm(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Inference with given statistics; training (training_mode=1, or more than one output below opset 14) computes the batch's."""
    x, scale, bias, mean, var = (node.input(i) for i in range(5))
    if node.opset < 9 and not node.flag("spatial", True):
        raise node.unsupported("BatchNormalization with spatial=0", hint="export with a newer opset")
    momentum, epsilon = node.number("momentum", 0.9), node.number("epsilon", 1e-5)
    if node.opset >= 14:
        training = node.flag("training_mode")
    else:
        training = any(node.wants(i) for i in range(1, 5)) or (node.opset < 7 and node.has("is_test") and not node.flag("is_test"))
    dtype = x.type.dtype
    if not training:
        return (context.add(BatchNorm(epsilon, momentum), x, *(context.cast(v, dtype) for v in (scale, bias, mean, var))),)
    if node.opset < 14:
        raise node.unsupported("BatchNormalization in training mode below opset 14", hint="export with opset 14 or newer")
    return _training(context, x, (scale, bias), (mean, var), epsilon, momentum)


def _training(
    context: Context, x: Value, affine: tuple[Value, Value], running: tuple[Value, Value], epsilon: float, momentum: float
) -> tuple[Value, ...]:
    """y with the statistics of the batch, and the running mean and variance: running * momentum + batch * (1 - momentum)."""
    scale, bias = (context.cast(v, x.type.dtype) for v in affine)
    y, mean, var = context.builder.add_many(BatchNormTraining(epsilon), x, scale, bias)
    updated = []
    for old, new in zip(running, (mean, var), strict=True):
        kept = context.pointwise("mul", old, context.like(momentum, old))
        fresh = context.cast(new, old.type.dtype)
        updated.append(context.pointwise("add", kept, context.pointwise("mul", fresh, context.like(1.0 - momentum, old))))
    return (y, *updated)


@onnx_op("InstanceNormalization")
def instance_norm(context: Context, node: OnnxNode) -> Value:
    return context.add(InstanceNorm(node.number("epsilon", 1e-5)), node.input(0), node.input(1), node.input(2))


def _per_group(context: Context, vector: Value, groups: int, size: DimLike) -> Value:
    """(groups) as (groups * size), each number repeated."""
    return context.reshape(context.expand(context.reshape(vector, (groups, 1)), (groups, size)), (groups * size,))


@onnx_op("GroupNormalization")
def group_norm(context: Context, node: OnnxNode) -> Value:
    """Scale and bias are per group in opset 18, per channel from opset 21."""
    x, scale, bias = node.input(0), node.input(1), node.input(2)
    groups = node.integer("num_groups")
    if node.opset < 21:
        channels = x.type.shape[1]
        if groups < 1 or channels % groups != 0:
            raise ShapeError(f"{channels} channels do not split into {groups} groups")
        scale, bias = (_per_group(context, v, groups, channels // groups) for v in (scale, bias))
    dtype = x.type.dtype
    return context.add(GroupNorm(groups, node.number("epsilon", 1e-5)), x, context.cast(scale, dtype), context.cast(bias, dtype))


def _stash(node: OnnxNode, dtype: DType) -> DType:
    """The dtype that statistics are computed in: stash_type 1 is float32."""
    if node.integer("stash_type", 1) != 1:
        raise node.unsupported(f"stash_type {node.integer('stash_type', 1)}", hint="export with stash_type=1 (float32)")
    return f32 if dtype == f16 else dtype


@onnx_op("LayerNormalization")
def layer_norm(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Y, and where used Mean and InvStdDev, which keep the reduced axes as 1."""
    x = node.input(0)
    axis = normal_axis(node.integer("axis", -1), x.type.rank)
    epsilon = node.number("epsilon", 1e-5)
    stash = _stash(node, x.type.dtype)
    affine = [context.cast(v, x.type.dtype) for v in (node.input(1), node.optional(2)) if v is not None]
    y = context.add(LayerNorm(axis, epsilon), x, *affine)
    if not node.wants(1) and not node.wants(2):
        return (y,)
    axes, wide = range(axis, x.type.rank), context.cast(x, stash)
    mean = context.reduce("mean", wide, axes)
    centred = context.pointwise("sub", wide, mean)
    var = context.reduce("mean", context.pointwise("mul", centred, centred), axes)
    deviation = context.pointwise("sqrt", context.pointwise("add", var, context.like(epsilon, var)))
    return y, mean, context.pointwise("reciprocal", deviation)


@onnx_op("RMSNormalization")
def rms_norm(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axis = normal_axis(node.integer("axis", -1), x.type.rank)
    _stash(node, x.type.dtype)
    return context.add(RMSNorm(axis, node.number("epsilon", 1e-5)), x, context.cast(node.input(1), x.type.dtype))


@onnx_op("LRN")
def lrn(context: Context, node: OnnxNode) -> Value:
    op = LRN(node.integer("size"), node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0))
    return context.add(op, node.input(0))


@onnx_op("LpNormalization")
def lp_norm(context: Context, node: OnnxNode) -> Value:
    """x / (norm over the axis); 0 where the norm is 0."""
    x = node.input(0)
    p = node.integer("p", 2)
    if p not in (1, 2):
        raise ModelError(f"LpNormalization with p={p}, which is not 1 or 2")
    axis = normal_axis(node.integer("axis", -1), x.type.rank)
    norm = context.reduce("l1" if p == 1 else "l2", x, [axis])
    zero = context.pointwise("equal", norm, context.like(0, norm))
    return context.pointwise("div", x, context.pointwise("where", zero, context.like(1, norm), norm))


@onnx_op("MeanVarianceNormalization")
def mean_variance_norm(context: Context, node: OnnxNode) -> Value:
    """(x - mean) / (standard deviation + 1e-9) over the axes, as the function body of the ONNX specification."""
    x = node.input(0)
    if node.opset < 9:
        across = node.flag("across_channels")
        axes = [axis for axis in range(x.type.rank) if axis and (across or axis != 1)]
        if not node.flag("normalize_variance", True):
            return context.pointwise("sub", x, context.reduce("mean", x, axes))
    else:
        axes = [normal_axis(axis, x.type.rank) for axis in node.ints("axes", (0, 2, 3))]
    centred = context.pointwise("sub", x, context.reduce("mean", x, axes))
    deviation = context.pointwise("sqrt", context.reduce("mean", context.pointwise("mul", centred, centred), axes))
    return context.pointwise("div", centred, context.pointwise("add", deviation, context.like(1e-9, x)))
