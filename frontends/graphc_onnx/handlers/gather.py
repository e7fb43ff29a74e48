"""Reading and writing at indices."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops.gather import Gather, GatherElements, GatherND, OneHot, Trilu
from graphc.ops.pointwise import Cast
from graphc.ops.scatter import ScatterElements, ScatterND
from graphc.ops.sort import TopK
from graphc.types.dtype import i64
from graphc.types.shape import DimLike
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op


@onnx_op("Gather")
def gather(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    return context.add(Gather(normal_axis(node.integer("axis", 0), x.type.rank)), x, node.input(1))


@onnx_op("GatherElements")
def gather_elements(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    return context.add(GatherElements(normal_axis(node.integer("axis", 0), x.type.rank)), x, node.input(1))


@onnx_op("GatherND")
def gather_nd(context: Context, node: OnnxNode) -> Value:
    return context.add(GatherND(node.integer("batch_dims", 0)), node.input(0), node.input(1))


@onnx_op("Scatter", "ScatterElements")
def scatter_elements(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    reduction = node.string("reduction", "none", choices=("none", "add", "mul", "max", "min"))
    op = ScatterElements(normal_axis(node.integer("axis", 0), x.type.rank), reduction)
    return context.add(op, x, node.input(1), node.input(2))


@onnx_op("ScatterND")
def scatter_nd(context: Context, node: OnnxNode) -> Value:
    reduction = node.string("reduction", "none", choices=("none", "add", "mul", "max", "min"))
    return context.add(ScatterND(reduction), node.input(0), node.input(1), node.input(2))


@onnx_op("OneHot")
def one_hot(context: Context, node: OnnxNode) -> Value:
    """The depth must be known; float indices are truncated."""
    indices, depth, values = node.input(0), node.input(1), node.input(2)
    number = context.array(depth, "the depth of OneHot")
    if number.size != 1:
        raise ModelError(f"the depth of OneHot must be one number, got {depth.type}")
    if indices.type.dtype.is_float:
        indices = context.add(Cast(i64), indices)
    op = OneHot(int(number.reshape(-1)[0]), normal_axis(node.integer("axis", -1), indices.type.rank + 1))
    return context.add(op, indices, values)


@onnx_op("Trilu")
def trilu(context: Context, node: OnnxNode) -> Value:
    """The upper or lower triangle; `k` must be known."""
    x, shift = node.input(0), node.optional(1)
    k = context.plain_ints(shift, "k of Trilu")[0] if shift is not None else 0
    return context.add(Trilu(node.flag("upper", True), k), x)


@onnx_op("TopK")
def top_k(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Always sorted, which sorted=0 allows."""
    x = node.input(0)
    ks = (node.integer("k"),) if node.opset < 10 else context.plain_ints(node.input(1), "k of TopK")
    if len(ks) != 1:
        raise ModelError(f"k of TopK must be one number, got {len(ks)}")
    op = TopK(ks[0], normal_axis(node.integer("axis", -1), x.type.rank), node.flag("largest", True))
    return context.builder.add_many(op, x)


@onnx_op("NonZero")
def non_zero(context: Context, node: OnnxNode) -> Value:
    """The positions of what is not zero; the data must be known, because it decides the shape."""
    return context.constant(np.asarray(np.nonzero(context.array(node.input(0), "the data of NonZero")), np.int64))


@onnx_op("Compress")
def compress(context: Context, node: OnnxNode) -> Value:
    """The slices where the condition (which must be known) holds."""
    x = node.input(0)
    kept = np.flatnonzero(context.array(node.input(1), "the condition of Compress").reshape(-1))
    if not node.has("axis"):
        x = context.reshape(x, (x.type.size,))
    return context.add(Gather(normal_axis(node.integer("axis", 0), x.type.rank)), x, context.constant(kept.astype(np.int64)))


@onnx_op("ReverseSequence")
def reverse_sequence(context: Context, node: OnnxNode) -> Value:
    """The first lengths[b] elements along the time axis backwards, for each b of the batch axis."""
    x, lengths = node.input(0), node.input(1)
    time, batch = (normal_axis(node.integer(name, default), x.type.rank) for name, default in (("time_axis", 0), ("batch_axis", 1)))
    if time == batch:
        raise ModelError("time_axis and batch_axis of ReverseSequence are the same")

    def placed(axis: int, size: DimLike) -> list[DimLike]:
        return [size if i == axis else 1 for i in range(x.type.rank)]

    steps = context.constant(np.arange(x.type.shape[time].__index__()).astype(np.int64))
    t = context.reshape(steps, placed(time, x.type.shape[time]))
    count = context.reshape(context.cast(lengths, i64), placed(batch, x.type.shape[batch]))
    mirrored = context.pointwise("sub", context.pointwise("sub", count, t), context.constant(np.asarray(1)))
    at = context.pointwise("where", context.pointwise("less", t, count), mirrored, t)
    return context.add(GatherElements(time), x, context.expand(at, x.type.shape))
