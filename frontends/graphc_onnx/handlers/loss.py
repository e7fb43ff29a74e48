"""Training losses and dropout."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops import loss
from graphc.types.dtype import bool_
from graphc_onnx.context import Context
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op


def _reduction(node: OnnxNode) -> str:
    return node.string("reduction", "mean", choices=loss.REDUCTIONS)


def _ignored(node: OnnxNode) -> int | None:
    return node.integer("ignore_index") if node.has("ignore_index") else None


@onnx_op("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    return loss.softmax_cross_entropy(
        context.builder, node.input(0), node.input(1), node.optional(2), _ignored(node), _reduction(node)
    )  # fmt: skip


@onnx_op("NegativeLogLikelihoodLoss")
def nll_loss(context: Context, node: OnnxNode) -> Value:
    return loss.nll_loss(context.builder, node.input(0), node.input(1), node.optional(2), _ignored(node), _reduction(node))


@onnx_op("Dropout", until=11)
def dropout_attributes(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Inference: a copy. Opsets below 7 train where is_test=0 is given explicitly."""
    if node.opset < 7 and node.has("is_test") and not node.flag("is_test"):
        raise node.unsupported("Dropout in training mode", hint="export the model for inference")
    return _copied(context, node, node.input(0))


@onnx_op("Dropout", since=12)
def dropout(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Inference, or training with ratio 0: a copy and a mask of ones."""
    ratio, training = node.optional(1), node.optional(2)
    if training is not None and context.array(training, "training_mode of Dropout").any():
        drop = context.array(ratio, "the ratio of Dropout").reshape(-1) if ratio is not None else np.array([0.5])
        if drop.size != 1:
            raise ModelError(f"the ratio of Dropout must be one number, got {drop.size}")
        if drop[0] != 0:
            raise node.unsupported("Dropout in training mode: its random numbers follow no standard", hint="export for inference")
    return _copied(context, node, node.input(0))


def _copied(context: Context, node: OnnxNode, x: Value) -> tuple[Value, ...]:
    y = context.identity(x)
    if not node.wants(1):
        return (y,)
    mask_dtype = bool_ if node.opset >= 10 else x.type.dtype
    return y, context.expand(context.constant(np.ones((), mask_dtype.numpy)), x.type.shape)
