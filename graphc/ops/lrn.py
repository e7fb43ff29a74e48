"""Local response normalisation over neighbouring channels. float16 is computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.op import Array, Cost, Lowering, Op, need_float, op_class, register
from graphc.kernel.access import Access, padded
from graphc.kernel.expr import Expr, call, cast, reduce
from graphc.ops.express import Arithmetic
from graphc.ops.precision import accurate, wide
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


def _channel_window(a: Arithmetic, x: Value, before: int, after: int) -> Value:
    """The sum over the channels c - before .. c + after, as a sum of shifted copies."""
    rank, shape = x.type.rank, x.type.shape
    edge = (0,) * (rank - 2)
    wide = a.builder.add(op_class("pad").build({"before": (0, before, *edge), "after": (0, after, *edge)}), x)
    total: Value | None = None
    for shift in range(before + after + 1):
        attributes = {"starts": (0, shift, *edge), "steps": (1,) * rank, "shape": shape}
        part = a.builder.add(op_class("slice").build(attributes), wide)
        total = part if total is None else a("add", total, part)
    assert total is not None
    return total


@register
@dataclass(frozen=True)
class LRN(Op):
    """x / (bias + alpha / size * s)^beta, s the sum of squares over `size` neighbouring channels, (size - 1) // 2 of them before.

    x (N, C, *spatial). ONNX LRN; Krizhevsky et al. 2012.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0
    name: ClassVar[str] = "lrn"
    onnx: ClassVar[str] = "LRN"
    family: ClassVar[str] = "window"
    keeps_layout: ClassVar[bool] = True
    tolerance: ClassVar[float] = 8.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise AttributeValueError(f"lrn: size must be at least 1, got {self.size}")

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        if types[0].rank < 2:
            raise ShapeError(f"lrn needs (N, C, *spatial), got {types[0]}")
        return types[0]

    def _reach(self, channels: DimLike) -> tuple[int, int]:
        """How many channels before and after one the window covers; none beyond the first and last of `channels` counts."""
        most = max(channels - 1, 0) if isinstance(channels, int) else self.size
        return min((self.size - 1) // 2, most), min(self.size // 2, most)

    def reference(self, *arrays: Array) -> Array:
        x = accurate(arrays[0])
        before, channels = (self.size - 1) // 2, x.shape[1]
        total = np.zeros_like(x)
        for c in range(channels):
            window = x[:, max(c - before, 0) : min(c - before + self.size, channels)]
            total[:, c] = np.sum(window * window, axis=1)
        kind = x.dtype.type
        return np.asarray(x / (kind(self.bias) + kind(self.alpha / self.size) * total) ** kind(self.beta), dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """With s = bias + alpha / size * window(x^2): grad s^-beta - 2 alpha beta / size * x * mirrored window(grad y / s)."""
        a, (x,), grad = Arithmetic(builder), node.inputs, grads[0]
        before, after = self._reach(x.type.shape[1])
        s = a("add", a("mul", _channel_window(a, a("mul", x, x), before, after), self.alpha / self.size), self.bias)
        shared = _channel_window(a, a("div", a("mul", grad, node.output), s), after, before)
        direct = a("mul", grad, a("pow", s, -self.beta))
        return [a("sub", direct, a("mul", a("mul", x, shared), 2 * self.alpha * self.beta / self.size))]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """A multiply-add per neighbour, then scale, shift, power, divide."""
        return Cost((2 * self.size + 4) * int(outputs[0].size), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        computed, (before, after) = wide(output.dtype), self._reach(x.shape[1])

        def value(n: Expr, c: Expr, *at: Expr) -> Expr:
            def square(k: Expr) -> Expr:
                neighbour = cast(padded(x, (n, c + (k - before), *at), 0), computed)
                return neighbour * neighbour

            total = reduce("sum", (before + after + 1,), square)
            scale = _inverse_power(total * (self.alpha / self.size) + self.bias, self.beta)
            return cast(cast(x(n, c, *at), computed) * scale, output.dtype)

        return Lowering(value)


def _inverse_power(base: Expr, exponent: float) -> Expr:
    """base^-exponent; the exponents of the papers by roots, each exact to half an ulp and ten times faster than a power."""
    if exponent not in (0.5, 0.75):
        return call("pow", base, -exponent)
    root = 1.0 / call("sqrt", base)
    return root if exponent == 0.5 else root * call("sqrt", root)
