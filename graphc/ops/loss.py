"""Loss functions: graphs composed of registered ops, so that they fuse, differentiate and export like anything else.

Class labels select by comparison with the class numbers (a one-hot mask that exists only inside the fused kernel), never by gathering:
the gradient then needs no scatter, and a label outside 0..C-1 reads nothing: it contributes 0 to the loss.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops.movement import Reshape
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.ops.softmax import LogSoftmax
from graphc.types.shape import DimLike, static

REDUCTIONS = ("none", "mean", "sum")


def softmax_cross_entropy(
    builder: Builder, scores: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None, reduction: str = "mean"
) -> tuple[Value, Value]:
    """(loss, log probabilities) of class scores (N, C, d1, ...) and integer labels (N, d1, ...). ONNX SoftmaxCrossEntropyLoss.

    The log probabilities are log_softmax of the scores over axis 1; the loss is `nll_loss` of them.
    """
    log_prob = builder.add(LogSoftmax(axis=1), scores)
    return nll_loss(builder, log_prob, labels, weights, ignore_index, reduction), log_prob


def nll_loss(
    builder: Builder, log_prob: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None, reduction: str = "mean"
) -> Value:
    """Negative log likelihood: loss = -w[label] * log_prob[n, label, ...]. ONNX NegativeLogLikelihoodLoss.

    log_prob (N, C, d1, ...) float; labels (N, d1, ...) integer; weights (C,) or None (all 1). w is 0 where label == ignore_index.
    reduction none: (N, d1, ...); sum; mean: the sum divided by the sum of w (by the count, without weights and ignore_index).
    """
    _check_labels(log_prob, labels)
    mask = _one_hot(builder, log_prob, labels)
    picked = builder.add(op("neg"), _pick(builder, mask, log_prob))
    zero = _scalar(builder, log_prob, 0)
    weight = None if weights is None else _label_weights(builder, log_prob, mask, weights)
    if ignore_index is not None:
        ignored = builder.add(op("equal"), labels, builder.constant(ignore_index, labels.type.dtype))
        weight = builder.add(op("where"), ignored, zero, weight if weight is not None else _scalar(builder, log_prob, 1))
        picked = builder.add(op("where"), ignored, zero, picked)  # a product alone would make an ignored -inf NaN
    if weight is None:
        return reduced(builder, picked, reduction)
    loss = builder.add(op("mul"), picked, weight)
    if reduction != "mean":
        return reduced(builder, loss, reduction)
    return builder.add(op("div"), reduced(builder, loss, "sum"), reduced(builder, weight, "sum"))


def mse(builder: Builder, prediction: Value, target: Value, reduction: str = "mean") -> Value:
    """(prediction - target)^2, shapes broadcast; the mean is over all elements. PyTorch MSELoss."""
    difference = builder.add(op("sub"), prediction, target)
    return reduced(builder, builder.add(op("mul"), difference, difference), reduction)


def l1(builder: Builder, prediction: Value, target: Value, reduction: str = "mean") -> Value:
    """|prediction - target|, shapes broadcast. PyTorch L1Loss."""
    return reduced(builder, builder.add(op("abs"), builder.add(op("sub"), prediction, target)), reduction)


def huber(builder: Builder, prediction: Value, target: Value, delta: float = 1.0, reduction: str = "mean") -> Value:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = prediction - target. PyTorch HuberLoss.

    Computed as q (|d| - q / 2) with q = min(|d|, delta), which is the same.
    """
    if delta <= 0:
        raise AttributeValueError(f"huber: delta must be positive, got {delta}")
    distance = builder.add(op("abs"), builder.add(op("sub"), prediction, target))
    clipped = builder.add(op("clip", hi=delta), distance)
    half = builder.add(op("mul"), clipped, builder.constant(0.5, clipped.type.dtype))
    return reduced(builder, builder.add(op("mul"), clipped, builder.add(op("sub"), distance, half)), reduction)


def binary_cross_entropy_with_logits(builder: Builder, logits: Value, target: Value, reduction: str = "mean") -> Value:
    """softplus(x) - x t for logits x and targets t in [0, 1], shapes broadcast. PyTorch BCEWithLogitsLoss."""
    product = builder.add(op("mul"), logits, target)
    return reduced(builder, builder.add(op("sub"), builder.add(op("softplus"), logits), product), reduction)


def reduced(builder: Builder, loss: Value, reduction: str) -> Value:
    """The loss itself (none), or the mean or sum of all its elements as a scalar."""
    if reduction not in REDUCTIONS:
        raise AttributeValueError(f"reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if reduction == "none":
        return loss
    return builder.add(Reduce(reduction, tuple(range(loss.type.rank)), keepdims=False), loss)


def _check_labels(log_prob: Value, labels: Value) -> None:
    shape = log_prob.type.shape
    if len(shape) < 2 or labels.type.shape != (shape[0], *shape[2:]):
        raise ShapeError(f"class scores (N, C, d1, ...) need labels (N, d1, ...), got {log_prob.type} and {labels.type}")
    if not labels.type.dtype.is_int:
        raise TypeMismatchError(f"labels must be integers, got {labels.type.dtype}", hint="pass class numbers, not one-hot rows")


def _one_hot(builder: Builder, log_prob: Value, labels: Value) -> Value:
    """(N, C, d1, ...) bool: label == class number."""
    (classes,) = static((log_prob.type.shape[1],))
    numbers = np.arange(classes).reshape((1, classes) + (1,) * (log_prob.type.rank - 2))
    column = builder.add(Reshape(_with_class_axis(labels)), labels)
    return builder.add(op("equal"), column, builder.constant(numbers, labels.type.dtype, "classes"))


def _with_class_axis(labels: Value) -> tuple[DimLike, ...]:
    return (labels.type.shape[0], 1, *labels.type.shape[1:])


def _pick(builder: Builder, mask: Value, table: Value) -> Value:
    """The entry of `table` (broadcast to the mask) at each label: (N, d1, ...)."""
    return builder.add(Reduce("sum", (1,), keepdims=False), builder.add(op("where"), mask, table, _scalar(builder, table, 0)))


def _label_weights(builder: Builder, log_prob: Value, mask: Value, weights: Value) -> Value:
    """weights[label]: (N, d1, ...)."""
    classes = log_prob.type.shape[1]
    if weights.type.shape != (classes,):
        raise ShapeError(f"one weight per class expected, [{classes}], got {weights.type}")
    return _pick(builder, mask, builder.add(Reshape((1, classes) + (1,) * (log_prob.type.rank - 2)), weights))


def _scalar(builder: Builder, like: Value, number: float) -> Value:
    return builder.constant(np.asarray(number, like.type.dtype.numpy))
