"""What lies beyond the end of a row of a batch of sequences, taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import ShapeError, TypeMismatchError
from graphc.ir.op import Array, Lowering, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, call, cast, const, select
from graphc.ops.movement import Movement, surely_differ
from graphc.types.dtype import i32, i64
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class WithinLengths(Movement):
    """x (T, B, F), or (B, T, F) where `batch_first`, where t < lengths[b], else 0. lengths (B) i32.

    A recurrent layer does not look at the other steps; the gradient of the weights of its input product would, and 0 * NaN is NaN.
    """

    batch_first: bool = False

    name: ClassVar[str] = "within_lengths"
    onnx: ClassVar[str] = ""
    inputs: ClassVar[tuple[int, int]] = (2, 2)

    def infer(self, *types: TensorType) -> TensorType:
        x, lengths = types
        if lengths.dtype != i32:
            raise TypeMismatchError(f"lengths are {lengths.dtype}", hint="cast them to i32")
        if x.rank != 3 or lengths.rank != 1 or surely_differ(x.shape[0 if self.batch_first else 1], lengths.shape[0]):
            raise ShapeError(f"{self.name}: lengths is {lengths} for sequences {x}", hint="one length for each row")
        return x

    def reference(self, *arrays: Array) -> Array:
        x, lengths = arrays
        steps = np.arange(x.shape[1 if self.batch_first else 0])
        live = steps < lengths[:, None] if self.batch_first else steps[:, None] < lengths
        return np.where(live[:, :, None], x, np.zeros((), x.dtype))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        return [builder.add(self, grads[0], node.inputs[1]), None]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x, lengths = inputs

        def value(*index: Expr) -> Expr:
            row, step = index[:2] if self.batch_first else index[1::-1]
            live = call("lt", step, cast(lengths[(row,)], i64))
            return select(live, x[index], const(0, output.dtype))

        return Lowering(value)
