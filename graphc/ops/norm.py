"""Normalisations: batch, layer, RMS, instance, group (local response and softmax have files of their own, and are importable from here).

All take one floating point dtype; float16 is computed in float32. Means and variances are two-pass: the mean first, then the mean of
the centred squares (divided by the count, not count - 1). Channels are axis 1 of (N, C, *spatial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.op import Array, Cost, Lowering, Op, need_float, register
from graphc.kernel.access import Access, broadcast
from graphc.kernel.expr import Expr, call, cast, reduce
from graphc.ops.express import Arithmetic
from graphc.ops.lrn import LRN
from graphc.ops.precision import accurate, read
from graphc.ops.shapes import check_axes, check_broadcast_to
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.types.tensor import TensorType

__all__ = ["LRN", "BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "LogSoftmax", "RMSNorm", "Softmax"]

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

Along = Callable[..., Expr]  # (reduced index, ...) -> element


def _norm_cost(steps: int, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
    return Cost(steps * int(outputs[0].size), sum(t.nbytes for t in (*types, *outputs)))


def _check_channels(op: Op, x: TensorType, vectors: Sequence[TensorType]) -> None:
    if x.rank < 2:
        raise ShapeError(f"{op.name} needs (N, C, *spatial), got {x}")
    for vector in vectors:
        if vector.shape != (x.shape[1],):
            raise ShapeError(f"{op.name}: a vector of one number per channel, [{x.shape[1]}], expected, got {vector}")


def _per_channel(vector: Array, rank: int) -> Array:
    """(C,) as (1, C, 1, ...)."""
    return accurate(vector).reshape((1, -1) + (1,) * (rank - 2))


def _mean(extents: Sequence[int], along: Along) -> Expr:
    return reduce("sum", extents, along) / float(math.prod(extents))


def _np_mean(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.sum(x, axis=axes, keepdims=True) / x.dtype.type(math.prod(x.shape[axis] for axis in axes)))


def _np_centred(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over the axes."""
    centred = x - _np_mean(x, axes)
    return np.asarray(centred / np.sqrt(_np_mean(centred * centred, axes) + x.dtype.type(epsilon)))


def _centred(x: Expr, extents: Sequence[int], along: Along, epsilon: float) -> Expr:
    """The same for an element x of the slice that `along` reads."""
    mean = _mean(extents, along)

    def square(*r: Expr) -> Expr:
        distance = along(*r) - mean
        return distance * distance

    return (x - mean) / call("sqrt", _mean(extents, square) + epsilon)


def _standardised(a: Arithmetic, x: Value, axes: tuple[int, ...], epsilon: float, centre: bool = True) -> tuple[Value, Value]:
    """(normalised x, 1 / deviation) over the axes as nodes; `centre` False leaves the mean in (RMS)."""
    centred = a("sub", x, a.reduce("mean", x, axes)) if centre else x
    inverse = a("reciprocal", a("sqrt", a("add", a.reduce("mean", a("mul", centred, centred), axes), epsilon)))
    return a("mul", centred, inverse), inverse


def _standardised_gradient(a: Arithmetic, y: Value, inverse: Value, grad: Value, axes: tuple[int, ...], centre: bool = True) -> Value:
    """Of the input, from the gradient of the normalised y: (grad - mean(grad) - y mean(grad y)) / deviation."""
    along = a("mul", y, a.reduce("mean", a("mul", grad, y), axes))
    rest = a("sub", grad, a.reduce("mean", grad, axes)) if centre else grad
    return a("mul", a("sub", rest, along), inverse)


def _column(a: Arithmetic, vector: Value, rank: int) -> Value:
    """(C,) as (1, C, 1, ...)."""
    return a.reshape(vector, (1, vector.type.shape[0]) + (1,) * (rank - 2))


def _channel_sum(a: Arithmetic, x: Value) -> Value:
    """(N, C, *spatial) to (C,)."""
    return a.reduce("sum", x, (0, *range(2, x.type.rank)), keepdims=False)


@register
@dataclass(frozen=True)
class BatchNorm(Op):
    """(x - mean) / sqrt(var + epsilon) * scale + bias with given statistics (inference).

    x (N, C, *spatial); scale, bias, mean, var (C,). `momentum` is for training: how much of the running statistics a step keeps (1 minus
    PyTorch's momentum). ONNX BatchNormalization (training_mode 0); Ioffe and Szegedy 2015. In training it becomes BatchNormTraining.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    name: ClassVar[str] = "batch_norm"
    onnx: ClassVar[str] = "BatchNormalization"
    inputs: ClassVar[tuple[int, int]] = (5, 5)
    family: ClassVar[str] = "map"
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        _check_channels(self, types[0], types[1:])
        return types[0]

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        scale, bias, mean, var = (_per_channel(v, x.ndim) for v in arrays[1:])
        return np.asarray((x - mean) / np.sqrt(var + x.dtype.type(self.epsilon)) * scale + bias, dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Mean and variance are inputs like the others: d mean = -sum dx, d var = -1/2 sum grad scale (x - mean) / deviation^3."""
        a, (x, scale, _, mean, var), grad = Arithmetic(builder), node.inputs, grads[0]
        inverse = a("reciprocal", a("sqrt", a("add", var, self.epsilon)))
        factor = a("mul", scale, inverse)
        dot = _channel_sum(a, a("mul", grad, a("sub", x, _column(a, mean, x.type.rank))))
        total = _channel_sum(a, grad)
        d_var = a("mul", a("mul", dot, factor), a("mul", a("mul", inverse, inverse), -0.5))
        d_x = a("mul", grad, _column(a, factor, x.type.rank))
        return [d_x, a("mul", dot, inverse), total, a("neg", a("mul", total, factor)), d_var]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two per element, once the channel's factor and offset are known."""
        return _norm_cost(2, types, outputs)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, scale, bias, mean, var = (read(i) for i in inputs)

        def value(*index: Expr) -> Expr:
            c = index[1]
            factor = scale(c) / call("sqrt", var(c) + self.epsilon)
            return cast((x(*index) - mean(c)) * factor + bias(c), output.dtype)

        return Lowering(value)


@dataclass(frozen=True)
class _OverTrailing(Op):
    """Shared by LayerNorm and RMSNorm: a slice is everything over the axes axis..rank-1."""

    axis: int
    epsilon: float = 1e-5
    family: ClassVar[str] = "normalise"
    centre: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        check_axes(self.name, (self.axis,), types[0].rank)
        for what, t in zip(("scale", "bias"), types[1:], strict=False):
            check_broadcast_to(t.shape, types[0].shape, f"{self.name}: {what}")
        return types[0]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Sum, centre, square, sum, divide and one per affine input."""
        return _norm_cost(4 + len(types), types, outputs)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        a, (x, *affine), grad = Arithmetic(builder), node.inputs, grads[0]
        axes = tuple(range(self.axis, x.type.rank))
        y, inverse = _standardised(a, x, axes, self.epsilon, self.centre)
        inner = a("mul", grad, affine[0]) if affine else grad
        factors = (a("mul", grad, y), grad)
        of_affine = [a.unbroadcast(factor, v.type.shape) for factor, v in zip(factors, affine, strict=False)]
        return [_standardised_gradient(a, y, inverse, inner, axes, self.centre), *of_affine]

    def _np_affine(self, y: Array, arrays: Sequence[Array]) -> Array:
        y = y * accurate(arrays[1]) if len(arrays) > 1 else y
        y = y + accurate(arrays[2]) if len(arrays) > 2 else y
        return np.asarray(y, dtype=arrays[0].dtype)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, shape = read(inputs[0]), inputs[0].shape

        def value(*index: Expr) -> Expr:
            y = self._normalised(x(*index), shape[self.axis :], lambda *r: x(*index[: self.axis], *r))
            for i, affine in enumerate(inputs[1:]):
                factor = cast(broadcast(affine, index, shape), y.dtype)
                y = y * factor if i == 0 else y + factor
            return cast(y, output.dtype)

        return Lowering(value)

    def _normalised(self, x: Expr, extents: Sequence[int], along: Along) -> Expr:
        raise NotImplementedError


@register
@dataclass(frozen=True)
class LayerNorm(_OverTrailing):
    """(x - mean) / sqrt(variance + epsilon) [* scale [+ bias]], statistics over the axes axis..rank-1 of each slice.

    scale and bias broadcast to x's shape (usually x.shape[axis:]). ONNX LayerNormalization, output Y; Ba et al. 2016.
    """

    name: ClassVar[str] = "layer_norm"
    onnx: ClassVar[str] = "LayerNormalization"
    inputs: ClassVar[tuple[int, int]] = (1, 3)

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        return self._np_affine(_np_centred(x, tuple(range(self.axis, x.ndim)), self.epsilon), arrays)

    def _normalised(self, x: Expr, extents: Sequence[int], along: Along) -> Expr:
        return _centred(x, extents, along, self.epsilon)


@register
@dataclass(frozen=True)
class RMSNorm(_OverTrailing):
    """x / sqrt(mean(x^2) + epsilon) [* scale], the mean over the axes axis..rank-1 of each slice.

    scale broadcasts to x's shape. ONNX RMSNormalization; Zhang and Sennrich 2019.
    """

    name: ClassVar[str] = "rms_norm"
    onnx: ClassVar[str] = "RMSNormalization"
    inputs: ClassVar[tuple[int, int]] = (1, 2)
    centre: ClassVar[bool] = False

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        mean = _np_mean(x * x, tuple(range(self.axis, x.ndim)))
        return self._np_affine(np.asarray(x / np.sqrt(mean + x.dtype.type(self.epsilon))), arrays)

    def _normalised(self, x: Expr, extents: Sequence[int], along: Along) -> Expr:
        return x / call("sqrt", _mean(extents, lambda *r: along(*r) * along(*r)) + self.epsilon)


@register
@dataclass(frozen=True)
class InstanceNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, statistics over the spatial axes of each n, c.

    x (N, C, *spatial); scale, bias (C,). ONNX InstanceNormalization; Ulyanov et al. 2016.
    """

    epsilon: float = 1e-5
    name: ClassVar[str] = "instance_norm"
    onnx: ClassVar[str] = "InstanceNormalization"
    inputs: ClassVar[tuple[int, int]] = (3, 3)
    family: ClassVar[str] = "normalise"
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        _check_channels(self, types[0], types[1:])
        return types[0]

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        scale, bias = (_per_channel(v, x.ndim) for v in arrays[1:])
        return np.asarray(_np_centred(x, tuple(range(2, x.ndim)), self.epsilon) * scale + bias, dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        a, (x, scale, _), grad = Arithmetic(builder), node.inputs, grads[0]
        axes = tuple(range(2, x.type.rank))
        y, inverse = _standardised(a, x, axes, self.epsilon)
        inner = a("mul", grad, _column(a, scale, x.type.rank))
        return [_standardised_gradient(a, y, inverse, inner, axes), _channel_sum(a, a("mul", grad, y)), _channel_sum(a, grad)]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Sum, centre, square, sum, scale, shift."""
        return _norm_cost(7, types, outputs)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, scale, bias = (read(i) for i in inputs)

        def value(n: Expr, c: Expr, *at: Expr) -> Expr:
            y = _centred(x(n, c, *at), inputs[0].shape[2:], lambda *r: x(n, c, *r), self.epsilon)
            return cast(y * scale(c) + bias(c), output.dtype)

        return Lowering(value)


@register
@dataclass(frozen=True)
class GroupNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, statistics over C/groups neighbouring channels and all spatial axes.

    x (N, C, *spatial) with C a multiple of `groups`; scale, bias (C,). ONNX GroupNormalization (opset 21); Wu and He 2018.
    """

    groups: int
    epsilon: float = 1e-5
    name: ClassVar[str] = "group_norm"
    onnx: ClassVar[str] = "GroupNormalization"
    inputs: ClassVar[tuple[int, int]] = (3, 3)
    family: ClassVar[str] = "normalise"

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        _check_channels(self, types[0], types[1:])
        if self.groups < 1 or types[0].shape[1] % self.groups != 0:
            raise AttributeValueError(f"group_norm: {types[0].shape[1]} channels do not split into {self.groups} groups")
        return types[0]

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        split = x.reshape((x.shape[0], self.groups, x.shape[1] // self.groups, *x.shape[2:]))
        y = _np_centred(split, tuple(range(2, split.ndim)), self.epsilon).reshape(x.shape)
        scale, bias = (_per_channel(v, x.ndim) for v in arrays[1:])
        return np.asarray(y * scale + bias, dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        a, (x, scale, _), grad = Arithmetic(builder), node.inputs, grads[0]
        n, c, *spatial = x.type.shape
        split = (n, self.groups, c // self.groups, *spatial)
        axes = tuple(range(2, len(split)))
        y, inverse = _standardised(a, a.reshape(x, split), axes, self.epsilon)
        inner = a.reshape(a("mul", grad, _column(a, scale, x.type.rank)), split)
        d_x = a.reshape(_standardised_gradient(a, y, inverse, inner, axes), x.type.shape)
        return [d_x, _channel_sum(a, a("mul", grad, a.reshape(y, x.type.shape))), _channel_sum(a, grad)]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Sum, centre, square, sum, scale, shift."""
        return _norm_cost(7, types, outputs)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, scale, bias = (read(i) for i in inputs)
        size = inputs[0].shape[1] // self.groups

        def value(n: Expr, c: Expr, *at: Expr) -> Expr:
            first = c // size * size if size else c
            y = _centred(x(n, c, *at), (size, *inputs[0].shape[2:]), lambda k, *r: x(n, first + k, *r), self.epsilon)
            return cast(y * scale(c) + bias(c), output.dtype)

        return Lowering(value)
