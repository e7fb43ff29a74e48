"""Softmax and its logarithm along one axis, with the row's maximum subtracted first. float16 is computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.ir.op import Array, Cost, Lowering, Op, need_float, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, call, cast, reduce
from graphc.ops.express import Arithmetic
from graphc.ops.precision import accurate, read
from graphc.ops.shapes import check_axes
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@dataclass(frozen=True)
class _OverAxis(Op):
    """Shared by the softmaxes: rows along one axis."""

    axis: int
    family: ClassVar[str] = "normalise"
    tolerance: ClassVar[float] = 8.0

    def infer(self, *types: TensorType) -> TensorType:
        need_float(self, *types)
        check_axes(self.name, (self.axis,), types[0].rank)
        return types[0]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Maximum, subtract, exp, sum, divide."""
        return Cost(5 * int(outputs[0].size), types[0].nbytes + outputs[0].nbytes)

    def _np_shifted(self, x: Array) -> Array:
        return np.asarray(x - np.max(x, axis=self.axis, keepdims=True, initial=-np.inf))

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, extents = read(inputs[0]), (inputs[0].shape[self.axis],)

        def value(*index: Expr) -> Expr:
            def along(r: Expr) -> Expr:
                return x(*index[: self.axis], r, *index[self.axis + 1 :])

            peak = reduce("max", extents, along)
            total = reduce("sum", extents, lambda r: call("exp", along(r) - peak))
            return cast(self._combine(x(*index) - peak, total), output.dtype)

        return Lowering(value)

    def _combine(self, shifted: Expr, total: Expr) -> Expr:
        raise NotImplementedError


@register
@dataclass(frozen=True)
class Softmax(_OverAxis):
    """exp(x - max) / sum exp(x - max) along `axis`; a row of -inf or with an inf or NaN is NaN. Any rank. ONNX Softmax (opset 13)."""

    name: ClassVar[str] = "softmax"
    onnx: ClassVar[str] = "Softmax"

    def reference(self, *arrays: Array) -> Array:
        powers = np.exp(self._np_shifted(accurate(arrays[0])))
        return np.asarray(powers / np.sum(powers, axis=self.axis, keepdims=True), dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """y (grad - sum(grad y))."""
        a, y = Arithmetic(builder), node.output
        dot = a.reduce("sum", a("mul", grads[0], y), (self.axis,))
        return [a("mul", y, a("sub", grads[0], dot))]

    def _combine(self, shifted: Expr, total: Expr) -> Expr:
        return call("exp", shifted) / total


@register
@dataclass(frozen=True)
class LogSoftmax(_OverAxis):
    """x - max - log sum exp(x - max) along `axis`. Any rank. ONNX LogSoftmax (opset 13)."""

    name: ClassVar[str] = "log_softmax"
    onnx: ClassVar[str] = "LogSoftmax"

    def reference(self, *arrays: Array) -> Array:
        shifted = self._np_shifted(accurate(arrays[0]))
        return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=self.axis, keepdims=True)), dtype=arrays[0].dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """grad - exp(y) sum(grad)."""
        a, y = Arithmetic(builder), node.output
        total = a.reduce("sum", grads[0], (self.axis,))
        return [a("sub", grads[0], a("mul", a("exp", y), total))]

    def _combine(self, shifted: Expr, total: Expr) -> Expr:
        return shifted - call("log", total)
