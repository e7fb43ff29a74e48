"""Batch normalisation as training computes it: with the statistics of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.op import Array, Cost, Op, need_float, register
from graphc.ops.express import Arithmetic, is_zero
from graphc.ops.norm import BatchNorm
from graphc.ops.precision import accurate
from graphc.types.shape import product
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class BatchNormTraining(Op):
    """(y, mean, var): y = (x - mean) / sqrt(var + epsilon) * scale + bias with mean and var of the batch, over all axes but 1.

    x (N, C, *spatial), scale and bias (C); y as x, mean and var (C). Two-pass; var is divided by the count n (population variance),
    and a batch of one element per channel has var 0. Decomposes into reductions and BatchNorm. ONNX BatchNormalization with
    training_mode 1, whose running statistics are for the caller to update; Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    epsilon: float = 1e-5
    name: ClassVar[str] = "batch_norm_training"
    onnx: ClassVar[str] = "BatchNormalization"
    inputs: ClassVar[tuple[int, int]] = (3, 3)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        need_float(self, *types)
        x = types[0]
        if x.rank < 2 or any(vector.shape != (x.shape[1],) for vector in types[1:]):
            raise ShapeError(f"{self.name} needs (N, C, *spatial) and two vectors of one number per channel, got {types}")
        vector = x.with_shape((x.shape[1],))
        return x, vector, vector

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        x = accurate(arrays[0])
        axes, count = _axes(x.ndim), x.size // max(x.shape[1], 1)
        mean = np.sum(x, axis=axes) / x.dtype.type(count)
        centred = x - mean.reshape(-1, *(1,) * (x.ndim - 2))
        var = np.sum(centred * centred, axis=axes) / x.dtype.type(count)
        y = BatchNorm(self.epsilon).reference(arrays[0], *arrays[1:], mean, var)
        return y, mean.astype(y.dtype), var.astype(y.dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Of y: d_x = scale/deviation (grad - mean(grad) - z mean(grad z)), z the normalised x; of mean and var: what follows from their
        definition."""
        a, (x, scale, _), (_, mean, var) = Arithmetic(builder), node.inputs, node.outputs
        grad, d_mean, d_var = grads
        axes, rank = _axes(x.type.rank), x.type.rank
        n = 1.0 / max(product(x.type.shape[axis] for axis in axes).__index__(), 1)
        centred = a("sub", x, a.column(mean, rank))
        inverse = a("reciprocal", a("sqrt", a("add", var, self.epsilon)))
        d_bias = _by_channel(a, "sum", grad)
        d_scale = a("mul", _by_channel(a, "sum", a("mul", grad, centred)), inverse)
        along, flat = a("mul", a("mul", d_scale, inverse), n), a("mul", d_bias, n)
        inner = a("sub", a("sub", grad, a.column(flat, rank)), a("mul", centred, a.column(along, rank)))
        d_x = a("mul", inner, a.column(a("mul", scale, inverse), rank))
        if not is_zero(d_mean):
            d_x = a("add", d_x, a.column(a("mul", d_mean, n), rank))
        if not is_zero(d_var):
            d_x = a("add", d_x, a("mul", centred, a.column(a("mul", d_var, 2.0 * n), rank)))
        return [d_x, d_scale, d_bias]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Sum, centre, square, sum, scale, shift."""
        return Cost(6 * int(types[0].size), 3 * types[0].nbytes)

    def decompose(self, builder: Builder, *inputs: Value) -> tuple[Value, ...]:
        a, (x, scale, bias) = Arithmetic(builder), inputs
        mean = _by_channel(a, "mean", x)
        centred = a("sub", x, a.column(mean, x.type.rank))
        var = _by_channel(a, "mean", a("mul", centred, centred))
        return builder.add(BatchNorm(self.epsilon), x, scale, bias, mean, var), mean, var


def _by_channel(a: Arithmetic, kind: str, value: Value) -> Value:
    """The sum or mean of each channel: of each sample's map first, then over the batch, so that rounding grows with the root of the map's
    size instead of that of the whole batch, and the maps are shared out over threads."""
    if value.type.rank > 2:
        value = a.reduce(kind, value, tuple(range(2, value.type.rank)), keepdims=False)
    return a.reduce(kind, value, (0,), keepdims=False)


def _axes(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank))
