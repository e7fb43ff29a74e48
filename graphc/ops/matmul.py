"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.op import Array, Cost, Lowering, Op, register, same_dtype
from graphc.kernel.access import Access, broadcast
from graphc.kernel.expr import Expr, reduce
from graphc.kernel.spec import Epilogue, MatmulSpec, Operand
from graphc.ops.express import Arithmetic
from graphc.ops.movement import surely_differ
from graphc.ops.shapes import broadcast_shapes
from graphc.types.dtype import bool_
from graphc.types.layout import PLAIN
from graphc.types.shape import DimLike, Shape, product
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value


@register
@dataclass(frozen=True)
class MatMul(Op):
    """y[*batch, i, j] = sum over k of a[*batch, i, k] * b[*batch, k, j]; the batch dims broadcast as in numpy.

    a (*batch, M, K), b (*batch, K, N); `trans_a`, `trans_b`: that operand has its last two dims swapped. Both have rank 2 or more
    (1-d operands are reshaped by the caller). Floats and integers. The sum over no element is 0. ONNX MatMul, the product of Gemm;
    np.matmul.
    """

    trans_a: bool = False
    trans_b: bool = False

    name: ClassVar[str] = "matmul"
    onnx: ClassVar[str] = "MatMul"
    inputs: ClassVar[tuple[int, int]] = (2, 2)
    family: ClassVar[str] = "contract"

    def infer(self, *types: TensorType) -> TensorType:
        a, b = types
        dtype = same_dtype(self, a, b)
        if dtype == bool_:
            raise TypeMismatchError("matmul of bool", hint="insert a cast")
        if a.rank < 2 or b.rank < 2:
            raise ShapeError(f"matmul takes matrices, got {a} and {b}", hint="reshape a vector to one row or column")
        m, k, n = self._sizes(a.shape, b.shape)
        if surely_differ(k, b.shape[-1 if self.trans_b else -2]):
            raise ShapeError(f"matmul: {a}{'^T' if self.trans_a else ''} and {b}{'^T' if self.trans_b else ''} differ in the inner dim")
        return TensorType(dtype, (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n))

    def _sizes(self, a: Shape, b: Shape) -> tuple[DimLike, DimLike, DimLike]:
        m, k = (a[-1], a[-2]) if self.trans_a else (a[-2], a[-1])
        return m, k, b[-2] if self.trans_b else b[-1]

    def reference(self, *arrays: Array) -> Array:
        a, b = arrays
        result: Array = np.matmul(a.swapaxes(-1, -2) if self.trans_a else a, b.swapaxes(-1, -2) if self.trans_b else b)
        return result

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per output element and step of the inner dim."""
        _, k, _ = self._sizes(types[0].shape, types[1].shape)
        return Cost(2 * int(outputs[0].size) * int(k), sum(t.nbytes for t in (*types, *outputs)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Two products: grad b^T and a^T grad, each transposed where its operand is; summed over broadcast batch dims."""
        (a, b), grad = node.inputs, grads[0]
        sum_to = Arithmetic(builder)
        if self.trans_a:
            d_a = builder.add(MatMul(self.trans_b, True), b, grad)
        else:
            d_a = builder.add(MatMul(False, not self.trans_b), grad, b)
        if b.type.rank == 2 and not self.trans_a:  # the batch becomes rows: no sum of many small products
            a, grad = (sum_to.reshape(v, (product(v.type.shape[:-1]), v.type.shape[-1])) for v in (a, grad))
        if self.trans_b:
            d_b = builder.add(MatMul(True, self.trans_a), grad, a)
        else:
            d_b = builder.add(MatMul(not self.trans_a, False), a, grad)
        return [sum_to.unbroadcast(d_a, node.inputs[0].type.shape), sum_to.unbroadcast(d_b, b.type.shape)]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        """For dtypes that the contract family does not take (see `spec`)."""
        a, b = inputs
        batch = output.static_shape[:-2]
        a_full, b_full = (*batch, *a.shape[-2:]), (*batch, *b.shape[-2:])

        def value(*index: Expr) -> Expr:
            *outer, i, j = index

            def term(k: Expr) -> Expr:
                left = broadcast(a, (*outer, k, i) if self.trans_a else (*outer, i, k), a_full)
                return left * broadcast(b, (*outer, j, k) if self.trans_b else (*outer, k, j), b_full)

            return reduce("sum", (a.shape[-2 if self.trans_a else -1],), term)

        return Lowering(value)

    def spec(
        self, a: Operand, b: Operand, a_shape: tuple[int, ...], b_shape: tuple[int, ...], packed: bool,
        extras: tuple[Operand, ...], output: Operand, epilogue: Epilogue,
    ) -> MatmulSpec:  # fmt: skip
        """The kernel of the contract family on plain operands that hold (*batch, rows, columns) of `a_shape` and `b_shape`.

        Transposes are swapped strides, broadcast batch dims have stride 0. The batch dims are those of the output.
        """
        for operand in (a, b, output):
            if operand.layout != PLAIN or operand.pitch:
                raise UnsupportedError(f"matmul reads and writes plain tensors, got layout {operand.layout}", hint="insert a layout change")
        m, k, n = (int(size) for size in self._sizes(a_shape, b_shape))
        batch = tuple(int(size) for size in broadcast_shapes(a_shape[:-2], b_shape[:-2]))
        a_strides, b_strides = _strides(a_shape, batch, self.trans_a), _strides(b_shape, batch, self.trans_b)
        c_strides = _strides((*batch, m, n), batch, False)
        return MatmulSpec(a.dtype, batch, m, n, k, a, b, a_strides, b_strides, c_strides, packed, extras, output, epilogue)


def _strides(shape: tuple[int, ...], batch: tuple[int, ...], swap: bool) -> tuple[int, ...]:
    """Row-major strides of `shape`, aligned with `batch` (0 where broadcast), then those of the two matrix dims."""
    own = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    outer = [0 if size == 1 else stride for size, stride in zip(shape[:-2], own[:-2], strict=True)]
    inner = own[-2:]
    return (*(0,) * (len(batch) - len(outer)), *outer, *(reversed(inner) if swap else inner))


def gemm(
    builder: Builder, a: Value, b: Value, c: Value | None = None, alpha: float = 1.0, beta: float = 1.0,
    trans_a: bool = False, trans_b: bool = False,
) -> Value:  # fmt: skip
    """alpha * a b + beta * c for 2-d a and b; c broadcasts. ONNX Gemm; a composition of MatMul, mul and add."""
    from graphc.ops.pointwise import op  # late: most users of this module need no pointwise table

    y = builder.add(MatMul(trans_a, trans_b), a, b)
    if alpha != 1.0:
        y = builder.add(op("mul"), y, builder.constant(alpha, y.type.dtype, name="alpha"))
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = builder.add(op("mul"), c, builder.constant(beta, c.type.dtype, name="beta"))
    return builder.add(op("add"), y, c)
