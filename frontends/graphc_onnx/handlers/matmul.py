"""Matrix products."""

from __future__ import annotations

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.einsum import einsum
from graphc.ops.matmul import MatMul, gemm
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op


def matmul(context: Context, a: Value, b: Value) -> Value:
    """numpy.matmul: a 1-d operand is a row on the left and a column on the right, and vanishes from the result."""
    if a.type.rank == 0 or b.type.rank == 0:
        raise ShapeError(f"matmul of {a.type} and {b.type}: scalars are not allowed")
    row, column = a.type.rank == 1, b.type.rank == 1
    left = context.reshape(a, (1, *a.type.shape)) if row else a
    right = context.reshape(b, (*b.type.shape, 1)) if column else b
    y = context.add(MatMul(), left, right)
    if row or column:
        shape = list(y.type.shape)
        y = context.reshape(y, shape[: len(shape) - row - column] if row and column else shape[:-2] + shape[-1:] if row else shape[:-1])
    return y


@onnx_op("MatMul")
def matmul_node(context: Context, node: OnnxNode) -> Value:
    return matmul(context, node.input(0), node.input(1))


@onnx_op("Gemm")
def gemm_node(context: Context, node: OnnxNode) -> Value:
    """alpha * A * B + beta * C; below opset 7 C broadcasts only where `broadcast` is set."""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if a.type.rank != 2 or b.type.rank != 2:
        raise ShapeError(f"Gemm takes matrices, got {a.type} and {b.type}")
    if node.opset < 7:
        node.flag("broadcast")
        if c is None:
            raise ModelError("Gemm below opset 7 needs C")
    return gemm(
        context.builder, a, b, c, node.number("alpha", 1.0), node.number("beta", 1.0), node.flag("transA"), node.flag("transB")
    )  # fmt: skip


@onnx_op("Einsum")
def einsum_node(context: Context, node: OnnxNode) -> Value:
    return einsum(context.builder, node.string("equation"), *node.inputs)
