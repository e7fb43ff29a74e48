"""Loss functions: graphs composed of registered ops, so that they fuse, differentiate and export like anything else.

Class labels select by comparison with the class numbers (a one-hot mask that exists only inside the fused kernel), never by gathering:
the gradient then needs no scatter, and a label outside 0..C-1 reads nothing: it contributes 0 to the loss.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops.express import Arithmetic
from graphc.ops.movement import Reshape
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.ops.softmax import LogSoftmax
from graphc.types.shape import DimLike, static

REDUCTIONS = ("none", "mean", "sum")


def softmax_cross_entropy(
    builder: Builder, scores: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Value, Value]:  # fmt: skip
    """(loss, log probabilities) of class scores (N, C, d1, ...) and integer labels (N, d1, ...). ONNX SoftmaxCrossEntropyLoss.

    The log probabilities are log_softmax of the scores over axis 1; the loss is `nll_loss` of them. label_smoothing: see `label_losses`.
    """
    log_prob = builder.add(LogSoftmax(axis=1), scores)
    losses, weight = label_losses(builder, log_prob, labels, weights, ignore_index, label_smoothing)
    return weighted(builder, losses, weight, reduction), log_prob


def nll_loss(
    builder: Builder, log_prob: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None, reduction: str = "mean"
) -> Value:
    """Negative log likelihood: loss = -w[label] * log_prob[n, label, ...]. ONNX NegativeLogLikelihoodLoss.

    log_prob (N, C, d1, ...) float; labels (N, d1, ...) integer; weights (C,) or None (all 1). w is 0 where label == ignore_index.
    reduction none: (N, d1, ...); sum; mean: the sum divided by the sum of w (by the count, without weights and ignore_index).
    """
    losses, weight = label_losses(builder, log_prob, labels, weights, ignore_index)
    return weighted(builder, losses, weight, reduction)


def label_losses(
    builder: Builder, log_prob: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Value, Value | None]:  # fmt: skip
    """The loss of each label and its weight w[label] in the mean (None: 1), both (N, d1, ...); the loss has the weight in it already.

    label_smoothing s: (1 - s) times the loss of the label plus s / C times the weighted losses of all classes, as PyTorch's
    CrossEntropyLoss has it; Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    _check_labels(log_prob, labels)
    mask = _one_hot(builder, log_prob, labels)
    a = Arithmetic(builder)
    losses = a("neg", _pick(builder, mask, log_prob))
    weight = None if weights is None else _label_weights(builder, log_prob, mask, weights)
    losses = losses if weight is None else a("mul", losses, weight)
    if label_smoothing:
        spread = log_prob if weights is None else a("mul", log_prob, _class_column(builder, log_prob, weights))
        (classes,) = static((log_prob.type.shape[1],))
        every = a("mul", a.reduce("sum", spread, (1,), keepdims=False), -label_smoothing / classes)
        losses = a("add", a("mul", losses, 1.0 - label_smoothing), every)
    if ignore_index is not None:
        ignored = builder.add(op("equal"), labels, builder.constant(ignore_index, labels.type.dtype))
        weight = a("where", ignored, 0.0, weight if weight is not None else a.ones(log_prob))
        losses = a("where", ignored, 0.0, losses)  # a product alone would make an ignored -inf NaN
    return losses, weight


def probability_losses(
    builder: Builder, log_prob: Value, target: Value, weights: Value | None = None, label_smoothing: float = 0.0
) -> Value:
    """-sum over c of w[c] t[n, c, ...] log_prob[n, c, ...]: (N, d1, ...); the target t (N, C, d1, ...) is moved towards 1/C.

    PyTorch CrossEntropyLoss with class probabilities as the target.
    """
    if target.type.shape != log_prob.type.shape:
        raise ShapeError(f"class scores {log_prob.type} need probabilities of their shape, got {target.type}")
    a = Arithmetic(builder)
    if label_smoothing:
        (classes,) = static((log_prob.type.shape[1],))
        target = a("add", a("mul", target, 1.0 - label_smoothing), label_smoothing / classes)
    if weights is not None:
        target = a("mul", target, _class_column(builder, log_prob, weights))
    return a("neg", a.reduce("sum", a("mul", target, log_prob), (1,), keepdims=False))


def weighted(builder: Builder, losses: Value, weight: Value | None, reduction: str) -> Value:
    """`reduced`, the mean being the sum of the losses divided by the sum of the weights."""
    if weight is None or reduction != "mean":
        return reduced(builder, losses, reduction)
    return builder.add(op("div"), reduced(builder, losses, "sum"), reduced(builder, weight, "sum"))


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
    if not delta > 0:
        raise AttributeValueError(f"huber: delta must be positive, got {delta}")
    a = Arithmetic(builder)
    distance = a("abs", a("sub", prediction, target))
    clipped = a("clip", distance, hi=delta)
    return reduced(builder, a("mul", clipped, a("sub", distance, a("mul", clipped, 0.5))), reduction)


def smooth_l1(builder: Builder, prediction: Value, target: Value, beta: float = 1.0, reduction: str = "mean") -> Value:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2: huber / beta; beta 0: l1. PyTorch SmoothL1Loss."""
    if not beta >= 0:
        raise AttributeValueError(f"smooth_l1: beta must be at least 0, got {beta}")
    if beta == 0:
        return l1(builder, prediction, target, reduction)
    return reduced(builder, Arithmetic(builder)("mul", huber(builder, prediction, target, beta, "none"), 1.0 / beta), reduction)


def binary_cross_entropy(builder: Builder, probability: Value, target: Value, reduction: str = "mean") -> Value:
    """-(t log p + (1 - t) log(1 - p)) for p in [0, 1], each logarithm at least -100, shapes broadcast. PyTorch BCELoss.

    Where a logarithm is held at -100 it passes no gradient.
    """
    a = Arithmetic(builder)
    yes, no = (a("clip", logarithm, lo=-100.0) for logarithm in (a("log", probability), a("log1p", a("neg", probability))))
    return reduced(builder, a("neg", a("add", a("mul", target, yes), a("mul", a("sub", 1.0, target), no))), reduction)


def binary_cross_entropy_with_logits(
    builder: Builder, logits: Value, target: Value, reduction: str = "mean", pos_weight: Value | None = None
) -> Value:
    """softplus(x) - x t for logits x and targets t in [0, 1], shapes broadcast. PyTorch BCEWithLogitsLoss.

    pos_weight: of the positive part, (1 - t) x + (1 + (pos_weight - 1) t) softplus(-x).
    """
    a = Arithmetic(builder)
    if pos_weight is None:
        return reduced(builder, a("sub", a("softplus", logits), a("mul", logits, target)), reduction)
    factor = a("add", a("mul", a("sub", pos_weight, 1.0), target), 1.0)
    losses = a("add", a("mul", a("sub", 1.0, target), logits), a("mul", factor, a("softplus", a("neg", logits))))
    return reduced(builder, losses, reduction)


def reduced(builder: Builder, loss: Value, reduction: str) -> Value:
    """The loss itself (none), or the mean or sum of all its elements as a scalar."""
    if reduction not in REDUCTIONS:
        raise AttributeValueError(f"reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")
    if reduction == "none" or not loss.type.rank:
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
    return _pick(builder, mask, _class_column(builder, log_prob, weights))


def _class_column(builder: Builder, log_prob: Value, weights: Value) -> Value:
    """One weight per class, (1, C, 1, ...)."""
    classes = log_prob.type.shape[1]
    if weights.type.shape != (classes,):
        raise ShapeError(f"one weight per class expected, [{classes}], got {weights.type}")
    return builder.add(Reshape((1, classes) + (1,) * (log_prob.type.rank - 2)), weights)


def _scalar(builder: Builder, like: Value, number: float) -> Value:
    return builder.constant(np.asarray(number, like.type.dtype.numpy))
