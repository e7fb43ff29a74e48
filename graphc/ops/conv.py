"""Convolution and its transpose, 1 to 3 spatial dims, layout (N, C, *spatial)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as positions
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.op import Array, Cost, Lowering, Op, register, same_dtype
from graphc.kernel.access import Access, padded
from graphc.kernel.expr import Expr, reduce
from graphc.kernel.spec import ConvSpec, Epilogue, Operand
from graphc.ops.express import Arithmetic
from graphc.ops.interleave import Interleave
from graphc.ops.movement import Dilate, Pad, Reshape, Slice, Transpose, surely_differ, surely_less
from graphc.types.shape import DimLike, Shape, static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


MOST_PHASES = 16  # of a transposed convolution; a larger stride takes one convolution of the dilated input


@register
@dataclass(frozen=True)
class Conv(Op):
    """y[n, m, o] = b[m] + sum over c, k of x[n, g*C/groups + c, o*stride + k*dilation - pad_before] * w[m, c, k], zero outside of x.

    x (N, C, *spatial), w (M, C/groups, *kernel), optional b (M); g = m // (M/groups) is the group of m. One entry per spatial dim in
    every attribute; pads are at least 0. Output size: (size + pads - dilation*(kernel-1) - 1) // stride + 1. The reference
    accumulates in the dtype of the inputs, over one product per kernel position. ONNX Conv; cross-correlation.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_before: tuple[int, ...]
    pad_after: tuple[int, ...]
    groups: int = 1

    name: ClassVar[str] = "conv"
    onnx: ClassVar[str] = "Conv"
    inputs: ClassVar[tuple[int, int]] = (2, 3)
    family: ClassVar[str] = "conv"

    def infer(self, *types: TensorType) -> TensorType:
        x, w = types[:2]
        dtype = same_dtype(self, *types)
        check_conv(self, x, w, self.stride, self.dilation, self.pad_before, self.pad_after)
        if self.groups < 1 or surely_differ(x.shape[1], w.shape[1] * self.groups):
            raise ShapeError(f"conv: input {x} has {x.shape[1]} channels, weight {w} expects {w.shape[1]} * {self.groups} groups")
        if w.shape[0] % self.groups != 0:
            raise ShapeError(f"conv: {w.shape[0]} output channels do not split into {self.groups} groups")
        check_bias(self, types, w.shape[0])
        return TensorType(dtype, (x.shape[0], w.shape[0], *self.output_sizes(x.shape[2:], w.shape[2:])))

    def output_sizes(self, sizes: Sequence[DimLike], kernel: Sequence[DimLike]) -> tuple[DimLike, ...]:
        """Spatial sizes of the result; a ShapeError where the kernel is larger than the padded input."""
        made: list[DimLike] = []
        for i, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
            room = size + self.pad_before[i] + self.pad_after[i] - self.dilation[i] * (k - 1) - 1
            if surely_less(room, 0):
                raise ShapeError(f"conv: kernel {k} (dilation {self.dilation[i]}) exceeds the padded spatial dim {i} of size {size}")
            made.append(room // self.stride[i] + 1)
        return tuple(made)

    def reference(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        sizes = tuple(int(size) for size in self.output_sizes(x.shape[2:], w.shape[2:]))
        x = np.pad(x, [(0, 0), (0, 0), *zip(self.pad_before, self.pad_after, strict=True)])
        weight = w.reshape(self.groups, w.shape[0] // self.groups, *w.shape[1:])
        total = np.zeros((x.shape[0], *weight.shape[:2], prod(sizes)), dtype=x.dtype)
        for k in positions(*map(range, w.shape[2:])):
            window = x[_window(k, self.dilation, sizes, self.stride)]
            total += weight[_last(k)] @ window.reshape(x.shape[0], self.groups, w.shape[1], prod(sizes))
        return _with_bias(total.reshape(x.shape[0], w.shape[0], *sizes), arrays)

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per output element, input channel of the group and kernel position; one more for the bias."""
        per_output = 2 * prod(static(types[1].shape[1:])) + (len(types) == 3)
        return Cost(int(outputs[0].size) * per_output, sum(t.nbytes for t in (*types, *outputs)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The transposed convolution of grad with w, the correlation of x with grad, and the sum per channel."""
        x, w, *bias = node.inputs
        sizes, kernel = zip(x.type.shape[2:], grads[0].type.shape[2:], strict=True), w.type.shape[2:]
        covered = [
            (count - 1) * s + d * (k - 1) + 1 - size
            for (size, count), s, d, k in zip(sizes, self.stride, self.dilation, kernel, strict=True)
        ]
        after = static(tuple(c - before for c, before in zip(covered, self.pad_before, strict=True)))
        back = ConvTranspose(self.stride, self.dilation, self.pad_before, after, (0,) * len(after), self.groups)
        d_w = weight_gradient(builder, x, grads[0], kernel, self)
        return [builder.add(back, grads[0], w), d_w, *(_channel_sum(builder, grads[0]) for _ in bias)]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """For dtypes that the conv family does not take (see `spec`)."""
        x, w = inputs[:2]
        per_group = w.shape[0] // self.groups

        def value(n: Expr, m: Expr, *o: Expr) -> Expr:
            def term(c: Expr, *k: Expr) -> Expr:
                spatial = (i * s + t * d - p for i, t, s, d, p in zip(o, k, self.stride, self.dilation, self.pad_before, strict=True))
                channel = c if self.groups == 1 else m // max(per_group, 1) * w.shape[1] + c
                return padded(x, (n, channel, *spatial), 0) * w[(m, c, *k)]

            total = reduce("sum", w.shape[1:], term)
            return total + inputs[2][m] if len(inputs) == 3 else total

        return Lowering(value)

    def spec(
        self, x: Operand, extras: tuple[Operand, ...], output: Operand, weight_shape: tuple[int, ...], epilogue: Epilogue
    ) -> ConvSpec:
        """The kernel of the conv family. `x.layout.halo` covers the pads; the bias, if any, is part of the epilogue."""
        return ConvSpec(x, weight_shape, extras, output, self.stride, self.dilation, self.pad_before, self.groups, epilogue)


@register
@dataclass(frozen=True)
class ConvTranspose(Op):
    """The transpose of Conv (its gradient with respect to x): y[.., i*stride + k*dilation - pad_before] += x[.., i] * w[.., k].

    x (N, C, *spatial), w (C, M/groups, *kernel), optional b (M). Output size: (size-1)*stride + dilation*(kernel-1) + 1 + output_padding
    - pads; pads may be negative, and 0 <= output_padding. Decomposes into Dilate and Conv. ONNX ConvTranspose.
    """

    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_before: tuple[int, ...]
    pad_after: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1

    name: ClassVar[str] = "conv_transpose"
    onnx: ClassVar[str] = "ConvTranspose"
    inputs: ClassVar[tuple[int, int]] = (2, 3)

    def infer(self, *types: TensorType) -> TensorType:
        x, w = types[:2]
        dtype = same_dtype(self, *types)
        check_conv(self, x, w, self.stride, self.dilation, (0,) * (x.rank - 2), self.output_padding)
        if not len(self.pad_before) == len(self.pad_after) == x.rank - 2:
            raise AttributeValueError(f"conv_transpose of {x}: pads {self.pad_before} and {self.pad_after}")
        if self.groups < 1 or surely_differ(x.shape[1], w.shape[0]) or x.shape[1] % self.groups != 0:
            raise ShapeError(f"conv_transpose: input {x} and weight {w} do not fit with {self.groups} groups")
        check_bias(self, types, w.shape[1] * self.groups)
        return TensorType(dtype, (x.shape[0], w.shape[1] * self.groups, *self.output_sizes(x.shape[2:], w.shape[2:])))

    def output_sizes(self, sizes: Sequence[DimLike], kernel: Sequence[DimLike]) -> tuple[DimLike, ...]:
        """Spatial sizes of the result; a ShapeError where the pads take away more than there is."""
        made: list[DimLike] = []
        for i, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
            full = (size - 1) * self.stride[i] + self.dilation[i] * (k - 1) + 1 + self.output_padding[i]
            made.append(full - self.pad_before[i] - self.pad_after[i])
            if surely_less(made[-1], 0):
                raise ShapeError(f"conv_transpose: pads {self.pad_before}, {self.pad_after} exceed the size {full} of spatial dim {i}")
        return tuple(made)

    def reference(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        weight = w.reshape(self.groups, w.shape[0] // self.groups, *w.shape[1:]).swapaxes(1, 2)
        column = x.reshape(x.shape[0], *weight.shape[:1], weight.shape[2], prod(x.shape[2:]))
        size = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(x.shape[2:], self.stride, self.dilation, w.shape[2:], strict=True)]
        full = np.zeros((x.shape[0], self.groups * w.shape[1], *size), dtype=x.dtype)
        for k in positions(*map(range, w.shape[2:])):
            part = weight[_last(k)] @ column
            full[_window(k, self.dilation, x.shape[2:], self.stride)] += part.reshape(*full.shape[:2], *x.shape[2:])
        before = (0, 0, *(-p for p in self.pad_before))
        after = (0, 0, *(extra - p for extra, p in zip(self.output_padding, self.pad_after, strict=True)))
        return _with_bias(Pad(before, after).reference(full), arrays)

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per input element, output channel of the group and kernel position."""
        flops = 2 * int(types[0].size) * prod(static(types[1].shape[1:])) + (int(outputs[0].size) if len(types) == 3 else 0)
        return Cost(flops, sum(t.nbytes for t in (*types, *outputs)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """A convolution of grad with w, the correlation of grad with x, and the sum per channel."""
        x, w, *bias = node.inputs
        after = tuple(p - extra for p, extra in zip(self.pad_after, self.output_padding, strict=True))
        grad = cropped(builder, grads[0], self.pad_before, after)
        pads = tuple(max(p, 0) for p in self.pad_before), tuple(max(p, 0) for p in after)
        conv = Conv(self.stride, self.dilation, *pads, self.groups)
        d_w = weight_gradient(builder, grad, x, w.type.shape[2:], conv)
        return [builder.add(conv, grad, w), d_w, *(_channel_sum(builder, grads[0]) for _ in bias)]

    def decompose(self, builder: Builder, *inputs: Value) -> Value:
        """Conv of the dilated input with the weight flipped and its two channel dims swapped; with a stride, one Conv for each phase of the
        output, so that no zero is multiplied."""
        x, w = inputs[:2]
        if self._has_phases(x, w, len(inputs) == 3):
            return by_phases(builder, self, *inputs)
        kernel = static(w.type.shape[2:])
        reach = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        before = [r - p for r, p in zip(reach, self.pad_before, strict=True)]
        after = [r - p + extra for r, p, extra in zip(reach, self.pad_after, self.output_padding, strict=True)]
        if any(s > 1 for s in self.stride):
            x = builder.add(Dilate((1, 1, *self.stride)), x)
        x = cropped(builder, x, before, after)
        pads = tuple(max(p, 0) for p in before), tuple(max(p, 0) for p in after)
        conv = Conv((1,) * len(kernel), self.dilation, *pads, self.groups)
        return builder.add(conv, x, flip_weight(builder, w, self.groups), *inputs[2:])

    def _has_phases(self, x: Value, w: Value, biased: bool) -> bool:
        """Whether `by_phases` applies: few phases of known sizes, and no bias where a phase may have no product at all."""
        known = all(isinstance(size, int) and size > 0 for size in (*x.type.shape[2:], *w.type.shape[2:]))
        if not known or prod(self.dilation) > 1 or not 1 < prod(self.stride) <= MOST_PHASES:
            return False
        return not biased or all(k >= s for k, s in zip(static(w.type.shape[2:]), self.stride, strict=True))


def by_phases(builder: Builder, op: ConvTranspose, x: Value, w: Value, *bias: Value) -> Value:
    """The transposed convolution as one convolution per phase a of the output, y[a + stride j].

    With (a + pad) = q0 stride + r in each dim, that is the sum over t of x[q0 + j - t] w[r + t stride].
    """
    out = op.output_types(x.type, w.type)[0]
    sizes, kernel = static(x.type.shape[2:]), static(w.type.shape[2:])
    present, parts = [], []
    for phase in positions(*map(range, op.stride)):
        first, taps, before, after = [], [], [], []
        for a, s, pad, size, k, total in zip(phase, op.stride, op.pad_before, sizes, kernel, static(out.shape[2:]), strict=True):
            q0, r = divmod(a + pad, s)
            count, reach = -(-(total - a) // s), len(range(r, k, s))
            first.append(r)
            taps.append(reach if count > 0 else 0)
            before.append(reach - 1 - q0)
            after.append(count - 1 + q0 - (size - 1))
        present.append(min(taps) > 0)
        if present[-1]:
            part = builder.add(Slice((0, 0, *first), (1, 1, *op.stride), (*w.type.shape[:2], *taps)), w)
            pads = tuple(max(p, 0) for p in before), tuple(max(p, 0) for p in after)
            conv = Conv((1,) * len(taps), (1,) * len(taps), *pads, op.groups)
            parts.append(builder.add(conv, cropped(builder, x, before, after), flip_weight(builder, part, op.groups), *bias))
    return builder.add(Interleave(op.stride, tuple(present), tuple(out.shape)), *parts)


def flip_weight(builder: Builder, w: Value, groups: int) -> Value:
    """(C, M/groups, *kernel) -> (M, C/groups, *kernel), the kernel mirrored: the weight of the transposed convolution."""
    c, m, *kernel = static(w.type.shape)
    rank = len(kernel)
    if any(k > 1 for k in kernel):
        mirror = Slice((0, 0, *(max(k - 1, 0) for k in kernel)), (1, 1, *(-1,) * rank), (c, m, *kernel))
        w = builder.add(mirror, w)
    if groups == 1:
        return builder.add(Transpose((1, 0, *range(2, rank + 2))), w)
    w = builder.add(Reshape((groups, c // groups, m, *kernel)), w)
    w = builder.add(Transpose((0, 2, 1, *range(3, rank + 3))), w)
    return builder.add(Reshape((groups * m, c // groups, *kernel)), w)


def weight_gradient(builder: Builder, x: Value, grad: Value, kernel: Shape, conv: Conv) -> Value:
    """dw[m, c, k] = sum over n, o of grad[n, m, o] * x[n, c, o*stride + k*dilation - pad]: (M, C/groups, *kernel).

    With groups itself a convolution: the batch is its input channels, stride and dilation change roles, pads are such that it gives
    `kernel`. With one group, or one for each channel, there are kernels of its own.
    """
    n, c, *sizes = x.type.shape
    rank, groups = len(sizes), conv.groups
    if groups == 1 or groups == c == grad.type.shape[1]:
        from graphc.ops.conv_weight import ConvWeightGradient  # late: it builds on this module

        op = ConvWeightGradient(static(kernel), conv.stride, conv.dilation, conv.pad_before, groups)
        return builder.add(Transpose((1, 0, *range(2, rank + 2))), builder.add(op, x, grad))
    rows = zip(sizes, grad.type.shape[2:], kernel, conv.stride, conv.dilation, conv.pad_before, strict=True)
    after = static(tuple(d * (k - 1) + s * (count - 1) + 1 - size - before for size, count, k, s, d, before in rows))
    x = cropped(builder, x, conv.pad_before, after)
    a = Arithmetic(builder)
    x = a.reshape(x, (n, groups, c // groups, *x.type.shape[2:]))
    x = builder.add(Transpose((2, 1, 0, *range(3, rank + 3))), x)
    x = a.reshape(x, (c // groups, groups * n, *x.type.shape[3:]))
    weight = builder.add(Transpose((1, 0, *range(2, rank + 2))), grad)
    swapped = Conv(conv.dilation, conv.stride, conv.pad_before, tuple(max(p, 0) for p in after), groups)
    return builder.add(Transpose((1, 0, *range(2, rank + 2))), builder.add(swapped, x, weight))


def cropped(builder: Builder, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """x without what negative pads of its spatial dims take away; x itself where there are none."""
    if min(*before, *after, 0) >= 0:
        return x
    return builder.add(Pad((0, 0, *(min(p, 0) for p in before)), (0, 0, *(min(p, 0) for p in after))), x)


def _channel_sum(builder: Builder, grad: Value) -> Value:
    return Arithmetic(builder).reduce("sum", grad, (0, *range(2, grad.type.rank)), False)


def check_conv(
    op: Op, x: TensorType, w: TensorType, stride: Sequence[int], dilation: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> None:
    """Ranks 3 to 5 that agree, one attribute entry per spatial dim, steps of at least 1, pads of at least 0."""
    spatial = x.rank - 2
    if not 1 <= spatial <= 3 or w.rank != x.rank:
        raise ShapeError(f"{op.name} takes (N, C, *spatial) and a weight of the same rank, 1 to 3 spatial dims, got {x} and {w}")
    if any(len(entries) != spatial for entries in (stride, dilation, before, after)):
        raise AttributeValueError(f"{op.name} of {x} needs {spatial} entries per attribute")
    if min(*stride, *dilation) < 1 or min(*before, *after) < 0:
        raise AttributeValueError(f"{op.name}: stride and dilation must be at least 1, padding at least 0")


def check_bias(op: Op, types: Sequence[TensorType], channels: DimLike) -> None:
    if len(types) == 3 and (types[2].rank != 1 or surely_differ(types[2].shape[0], channels)):
        raise ShapeError(f"{op.name}: the bias {types[2]} must have one entry for each of the {channels} output channels")


def _window(k: Sequence[int], dilation: Sequence[int], count: Sequence[int], stride: Sequence[int]) -> tuple[Any, ...]:
    """Index of the positions that kernel position k meets: `count` of them along each last axis, from k * dilation by `stride`."""
    starts = [t * d for t, d in zip(k, dilation, strict=True)]
    return _last([slice(a, a + (n - 1) * s + 1 if n else a, s) for a, n, s in zip(starts, count, stride, strict=True)])


def _last(index: Sequence[Any]) -> tuple[Any, ...]:
    """An index of the last axes."""
    return (..., *index)


def _with_bias(y: Array, arrays: Sequence[Array]) -> Array:
    return y + arrays[2].reshape(-1, *(1,) * (y.ndim - 2)) if len(arrays) == 3 else y
