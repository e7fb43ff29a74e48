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
from graphc.types.dtype import bool_
from graphc.types.shape import DimLike, static

REDUCTIONS = ("none", "mean", "sum")


def softmax_cross_entropy(
    builder: Builder, scores: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0, axis: int = 1, mask: Value | None = None,
) -> tuple[Value, Value]:  # fmt: skip
    """(loss, log probabilities) of class scores (N, C, d1, ...) and integer labels (N, d1, ...). ONNX SoftmaxCrossEntropyLoss.

    The log probabilities are log_softmax of the scores over the classes; the loss is `nll_loss` of them. The rest: see `label_losses`.
    """
    log_prob = builder.add(LogSoftmax(axis=class_axis(axis, scores)), scores)
    losses, weight = label_losses(builder, log_prob, labels, weights, ignore_index, label_smoothing, axis, mask)
    return weighted(builder, losses, weight, reduction), log_prob


def nll_loss(
    builder: Builder, log_prob: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None,
    reduction: str = "mean", axis: int = 1, mask: Value | None = None,
) -> Value:  # fmt: skip
    """Negative log likelihood: loss = -w[label] * log_prob[n, label, ...]. ONNX NegativeLogLikelihoodLoss.

    log_prob (N, C, d1, ...) float; labels (N, d1, ...) integer; weights (C,) or None (all 1). w is 0 where label == ignore_index.
    reduction none: (N, d1, ...); sum; mean: the sum divided by the sum of w (by the count, without weights and ignore_index).
    """
    losses, weight = label_losses(builder, log_prob, labels, weights, ignore_index, axis=axis, mask=mask)
    return weighted(builder, losses, weight, reduction)


def label_losses(
    builder: Builder, log_prob: Value, labels: Value, weights: Value | None = None, ignore_index: int | None = None,
    label_smoothing: float = 0.0, axis: int = 1, mask: Value | None = None,
) -> tuple[Value, Value | None]:  # fmt: skip
    """The loss of each label and its weight w[label] in the mean (None: 1), both (N, d1, ...); the loss has the weight in it already.

    label_smoothing s: (1 - s) times the loss of the label plus s / C times the weighted losses of all classes, as PyTorch's
    CrossEntropyLoss has it; Szegedy et al. 2016, arXiv:1512.00567, section 7. axis: of the classes in log_prob, at least 1 or from the
    end: -1 for sequences (N, T, C). mask: bool of the labels' leading axes, false where the label counts for nothing.
    """
    axis = class_axis(axis, log_prob)
    _check_labels(log_prob, labels, axis)
    hot = _one_hot(builder, log_prob, labels, axis)
    a = Arithmetic(builder)
    losses = a("neg", _pick(builder, hot, log_prob, axis))
    weight = None if weights is None else _pick(builder, hot, _class_column(builder, log_prob, weights, axis), axis)
    losses = losses if weight is None else a("mul", losses, weight)
    if label_smoothing:
        spread = log_prob if weights is None else a("mul", log_prob, _class_column(builder, log_prob, weights, axis))
        (classes,) = static((log_prob.type.shape[axis],))
        every = a("mul", a.reduce("sum", spread, (axis,), keepdims=False), -label_smoothing / classes)
        losses = a("add", a("mul", losses, 1.0 - label_smoothing), every)
    if ignore_index is not None:
        ignored = builder.add(op("equal"), labels, builder.constant(ignore_index, labels.type.dtype))
        weight = a("where", ignored, 0.0, weight if weight is not None else a.ones(log_prob))
        losses = a("where", ignored, 0.0, losses)  # a product alone would make an ignored -inf NaN
    return (losses, weight) if mask is None else masked(builder, losses, weight, mask)


def masked(builder: Builder, losses: Value, weight: Value | None, mask: Value) -> tuple[Value, Value]:
    """The losses and their weights (None: 1), both 0 where the mask is false: bool of the losses' leading axes."""
    a, shape = Arithmetic(builder), losses.type.shape
    if mask.type.dtype != bool_ or mask.type.shape != shape[: mask.type.rank]:
        raise ShapeError(f"the mask {mask.type} does not fit losses {losses.type}", hint="bool, of the losses' leading axes")
    mask = a.reshape(mask, (*mask.type.shape, *(1 for _ in shape[mask.type.rank :])))
    ones = a.expand(a.ones(losses), shape) if weight is None else weight
    return a("where", mask, losses, 0.0), a("where", mask, ones, 0.0)


def probability_losses(
    builder: Builder, log_prob: Value, target: Value, weights: Value | None = None, label_smoothing: float = 0.0, axis: int = 1
) -> Value:
    """-sum over c of w[c] t[n, c, ...] log_prob[n, c, ...]: (N, d1, ...); the target t (N, C, d1, ...) is moved towards 1/C.

    PyTorch CrossEntropyLoss with class probabilities as the target. axis: of the classes.
    """
    axis = class_axis(axis, log_prob)
    if target.type.shape != log_prob.type.shape:
        raise ShapeError(f"class scores {log_prob.type} need probabilities of their shape, got {target.type}")
    a = Arithmetic(builder)
    if label_smoothing:
        (classes,) = static((log_prob.type.shape[axis],))
        target = a("add", a("mul", target, 1.0 - label_smoothing), label_smoothing / classes)
    if weights is not None:
        target = a("mul", target, _class_column(builder, log_prob, weights, axis))
    return a("neg", a.reduce("sum", a("mul", target, log_prob), (axis,), keepdims=False))


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


def class_axis(axis: int, scores: Value) -> int:
    """The axis of the classes counted from 0. Raises AttributeValueError for the batch's or one that is not there."""
    rank = scores.type.rank
    at = axis + rank if axis < 0 else axis
    if rank >= 2 and not 1 <= at < rank:
        raise AttributeValueError(f"axis {axis} of class scores {scores.type}", hint="1 for (N, C, ...), -1 for (N, T, C)")
    return at


def _check_labels(log_prob: Value, labels: Value, axis: int) -> None:
    shape = log_prob.type.shape
    if len(shape) < 2 or labels.type.shape != (*shape[:axis], *shape[axis + 1 :]):
        reason = f"class scores (N, C, d1, ...) need labels (N, d1, ...), got {log_prob.type} and {labels.type}"
        raise ShapeError(reason if axis == 1 else f"{reason}, classes along axis {axis}")
    if not labels.type.dtype.is_int:
        raise TypeMismatchError(f"labels must be integers, got {labels.type.dtype}", hint="pass class numbers, not one-hot rows")


def _one_hot(builder: Builder, log_prob: Value, labels: Value, axis: int) -> Value:
    """Bool of the shape of log_prob: label == class number."""
    (classes,) = static((log_prob.type.shape[axis],))
    numbers = np.arange(classes).reshape(_column(log_prob, classes, axis))
    column = builder.add(Reshape((*labels.type.shape[:axis], 1, *labels.type.shape[axis:])), labels)
    return builder.add(op("equal"), column, builder.constant(numbers, labels.type.dtype, "classes"))


def _pick(builder: Builder, hot: Value, table: Value, axis: int) -> Value:
    """The entry of `table` (broadcast to the mask) at each label: (N, d1, ...)."""
    return builder.add(Reduce("sum", (axis,), keepdims=False), builder.add(op("where"), hot, table, _scalar(builder, table, 0)))


def _class_column(builder: Builder, log_prob: Value, weights: Value, axis: int) -> Value:
    """One weight per class, (1, C, 1, ...)."""
    classes = log_prob.type.shape[axis]
    if weights.type.shape != (classes,):
        raise ShapeError(f"one weight per class expected, [{classes}], got {weights.type}")
    return builder.add(Reshape(_column(log_prob, classes, axis)), weights)


def _column(log_prob: Value, classes: DimLike, axis: int) -> tuple[DimLike, ...]:
    return (*(1 for _ in range(axis)), classes, *(1 for _ in range(axis + 1, log_prob.type.rank)))


def _scalar(builder: Builder, like: Value, number: float) -> Value:
    return builder.constant(np.asarray(number, like.type.dtype.numpy))
