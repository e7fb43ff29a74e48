"""Training losses and dropout."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError
from graphc.ir.graph import Value
from graphc.ops import loss
from graphc.ops.random import Dropout
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
    """Opsets below 7 train where is_test=0 is given explicitly."""
    if node.opset < 7 and node.has("is_test") and not node.flag("is_test"):
        raise node.unsupported("Dropout in training mode", hint=_FOR_INFERENCE)
    return _dropout(context, node, node.number("ratio", 0.5))


@onnx_op("Dropout", since=12)
def dropout(context: Context, node: OnnxNode) -> tuple[Value, ...]:
    """Inference, or training with ratio 0: nothing is dropped, the mask is all ones."""
    given, training = node.optional(1), node.optional(2)
    ratio = context.array(given, "the ratio of Dropout").reshape(-1) if given is not None else np.array([0.5])
    if ratio.size != 1:
        raise ModelError(f"the ratio of Dropout must be one number, got {ratio.size}")
    if training is not None and context.array(training, "training_mode of Dropout").any() and ratio[0] != 0:
        raise node.unsupported("Dropout in training mode: its random numbers follow no standard", hint=_FOR_INFERENCE)
    return _dropout(context, node, float(ratio[0]))


_FOR_INFERENCE = "export for inference; a graphc.TrainStep switches dropout on"


def _dropout(context: Context, node: OnnxNode, ratio: float) -> tuple[Value, ...]:
    """A dropout node, which does nothing until the graph is trained."""
    y = context.add(Dropout(ratio), node.input(0))
    if not node.wants(1):
        return (y,)
    mask_dtype = bool_ if node.opset >= 10 else y.type.dtype
    return y, context.expand(context.constant(np.ones((), mask_dtype.numpy)), y.type.shape)
