"""The gradient of a convolution with respect to its weight."""

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
from graphc.kernel.spec import Operand, WeightGradientSpec
from graphc.ops.conv import Conv, ConvTranspose, cropped
from graphc.ops.movement import Transpose, surely_differ
from graphc.types.shape import static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class ConvWeightGradient(Op):
    """y[c, m, k] = sum over n, o of x[n, g*C/groups + c, o*stride + k*dilation - pad_before] * grad[n, m, o], zero outside of x.

    x (N, C, *spatial), grad (N, M, *output), y (C/groups, M, *kernel); g = m // (M/groups) is the group of m. The gradient of Conv's weight
    with the two channel dims swapped: the order in which the sums of a register tile lie side by side.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_before: tuple[int, ...]
    groups: int = 1

    name: ClassVar[str] = "conv_weight_gradient"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "conv-weight"

    def infer(self, *types: TensorType) -> TensorType:
        x, grad = types
        dtype = same_dtype(self, *types)
        rank = x.rank - 2
        if not 1 <= rank <= 3 or grad.rank != x.rank or surely_differ(x.shape[0], grad.shape[0]):
            raise ShapeError(f"{self.name} takes (N, C, *spatial) and (N, M, *output), 1 to 3 spatial dims, got {x} and {grad}")
        if any(len(entries) != rank for entries in (self.kernel, self.stride, self.dilation, self.pad_before)):
            raise AttributeValueError(f"{self.name} of {x} needs {rank} entries per attribute")
        if min(*self.stride, *self.dilation, 1) < 1 or min(*self.pad_before, *self.kernel) < 0:
            raise AttributeValueError(f"{self.name}: stride and dilation must be at least 1, padding and kernel at least 0")
        if self.groups < 1 or x.shape[1] % self.groups != 0 or grad.shape[1] % self.groups != 0:
            raise ShapeError(f"{self.name}: channels of {x} and {grad} do not split into {self.groups} groups")
        return TensorType(dtype, (x.shape[1] // self.groups, grad.shape[1], *self.kernel))

    def pad_after(self, sizes: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
        """What the last position of grad reads beyond the end of x, in each spatial dim; 0 where that is nothing."""
        rows = zip(sizes, counts, self.kernel, self.stride, self.dilation, self.pad_before, strict=True)
        return tuple(max(d * (k - 1) + s * (count - 1) + 1 - size - before, 0) for size, count, k, s, d, before in rows)

    def reference(self, *arrays: Array) -> Array:
        x, grad = arrays
        after = self.pad_after(x.shape[2:], grad.shape[2:])
        x = np.pad(x, [(0, 0), (0, 0), *zip(self.pad_before, after, strict=True)])
        inner, outer = x.shape[1] // self.groups, grad.shape[1] // self.groups
        result = np.zeros((inner, grad.shape[1], *self.kernel), x.dtype)
        rank = len(self.kernel)
        for k in positions(*map(range, self.kernel)):
            rows = zip(k, self.dilation, grad.shape[2:], self.stride, strict=True)
            window: tuple[Any, ...] = tuple(slice(t * d, t * d + (count - 1) * s + 1 if count else t * d, s) for t, d, count, s in rows)
            axes = (0, *range(2, rank + 2))
            met = x[(..., *window)]
            for g in range(self.groups):
                m = slice(g * outer, (g + 1) * outer)
                place: tuple[Any, ...] = (slice(None), m, *k)
                result[place] = np.tensordot(met[:, g * inner : (g + 1) * inner], grad[:, m], (axes, axes))
        return result

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Linear in both: the transposed convolution of grad, and the convolution of x, with the incoming gradient as the weight."""
        x, grad = node.inputs
        rank = len(self.kernel)
        weight = builder.add(Transpose((1, 0, *range(2, rank + 2))), grads[0])
        rows = zip(static(x.type.shape[2:]), static(grad.type.shape[2:]), self.kernel, self.stride, self.dilation, strict=True)
        covered = [s * (count - 1) + d * (k - 1) + 1 - size for size, count, k, s, d in rows]
        after = tuple(c - before for c, before in zip(covered, self.pad_before, strict=True))
        back = ConvTranspose(self.stride, self.dilation, self.pad_before, after, (0,) * rank, self.groups)
        forward = Conv(self.stride, self.dilation, self.pad_before, tuple(max(a, 0) for a in after), self.groups)
        return [builder.add(back, grad, weight), builder.add(forward, cropped(builder, x, self.pad_before, after), weight)]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per element of grad, input channel of its group and kernel position."""
        flops = 2 * int(types[1].size) * int(types[0].shape[1].__index__()) // self.groups * prod(self.kernel)
        return Cost(flops, sum(t.nbytes for t in (*types, *outputs)))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """For dtypes and sizes that its kernel family does not take (see `spec`)."""
        x, grad = inputs
        inner, outer = x.shape[1] // self.groups, max(grad.shape[1] // self.groups, 1)

        def value(c: Expr, m: Expr, *k: Expr) -> Expr:
            def term(n: Expr, *o: Expr) -> Expr:
                spatial = (i * s + t * d - p for i, t, s, d, p in zip(o, k, self.stride, self.dilation, self.pad_before, strict=True))
                channel = c if self.groups == 1 else m // outer * inner + c
                return padded(x, (n, channel, *spatial), 0) * grad[(n, m, *o)]

            return reduce("sum", (grad.shape[0], *grad.shape[2:]), term)

        return Lowering(value)

    def spec(self, x: Operand, grad: Operand, output: Operand, parts: int) -> WeightGradientSpec:
        """The kernel of the family. `x.layout.halo` covers all that is read; the layouts are those of `WeightGradientSpec`."""
        sums = Operand(output.dtype, (parts, *output.physical_shape))
        return WeightGradientSpec(x, grad, sums, self.kernel, self.stride, self.dilation, self.pad_before, self.groups)
