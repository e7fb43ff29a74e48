"""Random numbers: Multinomial and Bernoulli.

The standard leaves open what is drawn. Here it is a function of the seed, of how many runs there were, and of the place in the output: a
new executable draws the same again, and its next run draws anew (the number of runs is state of the model, `NODE/runs`). Where the
attribute `seed` is not given it is 0.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops.random import RandomBits
from graphc.ops.sampling import Sample
from graphc.types.dtype import DType, f32, i32, u32, u64
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op
from graphc_onnx.tensors import dtype_of


@onnx_op("Multinomial")
def multinomial(context: Context, node: OnnxNode) -> Value:
    """Class numbers (N, sample_size) drawn from the softmax of (N, C)."""
    logits, size = node.input(0), node.integer("sample_size", 1)
    if logits.type.rank != 2 or size < 1:
        raise ModelError(f"{size} samples from {logits.type}", hint="logarithms of probabilities (N, C), at least one sample")
    rows, classes = logits.type.shape
    each = context.expand(context.reshape(logits, (rows, 1, classes)), (rows, size, classes))
    return context.cast(context.add(Sample(stream=_stream(context)), each, *_counters(context, node)), _dtype(node, i32))


@onnx_op("Bernoulli")
def bernoulli(context: Context, node: OnnxNode) -> Value:
    """1 with the probability that the input holds, else 0, compared in steps of 2^-24: never where it is 0, always where it is 1."""
    chance = node.input(0)
    bits = context.add(RandomBits(tuple(chance.type.shape), _stream(context)), *_counters(context, node))
    high = context.cast(context.pointwise("shift_right", bits, context.constant(8, u32)), f32)
    uniform = context.pointwise("mul", high, context.constant(2.0**-24, f32))
    hit = context.pointwise("less", uniform, context.cast(chance, f32))
    return context.cast(hit, _dtype(node, chance.type.dtype))


def _dtype(node: OnnxNode, default: DType) -> DType:
    return dtype_of(node.integer("dtype"), node.op) if node.has("dtype") else default


def _stream(context: Context) -> int:
    """Random nodes before this one: each draws from a stream of its own."""
    return sum(isinstance(node.op, (Sample, RandomBits)) for node in context.builder.graph.nodes)


def _counters(context: Context, node: OnnxNode) -> tuple[Value, Value]:
    """Seed and number of the run. Raises UnsupportedError in a sub-graph, where each iteration would draw the same."""
    if context.in_sub_graph:
        raise node.unsupported(f"{node.op} in a sub-graph that is not unrolled", hint="GRAPHC_UNROLL=100000 unrolls longer loops")
    graph = context.builder.graph
    runs = context.builder.state(graph.fresh_name("runs"), np.zeros((), np.uint64))
    graph.updates[runs] = context.pointwise("add", runs, context.constant(1, u64))
    bits = int(np.float32(node.number("seed", 0.0)).view(np.uint32))
    return context.constant(bits, u64), runs
