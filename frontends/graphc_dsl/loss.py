"""Loss functions, for models that return their loss. reduction: "mean", "sum" or "none". Definitions are PyTorch's.

`mask`: a bool tensor of the losses' leading axes, such as `graphc.sequence_mask(lengths, steps)`; losses are 0 where it is false, and the
mean is over the others (0 / 0, NaN, where there are none). `axis`: of the classes, -1 for sequences (N, T, C).

For `TrainStep` the same losses are objects: `graphc.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.ir.graph import Value
from graphc.ops import loss as compose
from graphc.ops.pointwise import op
from graphc_dsl.trace import Building, TensorLike

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor


def cross_entropy(
    scores: Tensor, labels: Tensor, ignore_index: int | None = None, reduction: str = "mean", name: str = "", *,
    weight: Sequence[float] | None = None, label_smoothing: float = 0.0, axis: int = 1, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Softmax cross entropy of class scores (N, C, d1, ...) and integer labels (N, d1, ...). weight: one number per class (C,)."""
    with Building("cross_entropy", name, scores, labels, mask) as new:
        weights, masked = _constant(new, weight, scores), _mask(new, mask)
        rest = weights, ignore_index, reduction, label_smoothing, axis, masked
        return new.tensor(compose.softmax_cross_entropy(new.builder, new.value(scores), new.value(labels), *rest)[0])


def nll_loss(
    log_prob: Tensor, labels: Tensor, ignore_index: int | None = None, reduction: str = "mean", name: str = "", *,
    weight: Sequence[float] | None = None, axis: int = 1, mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Negative log likelihood of log probabilities (N, C, d1, ...) and integer labels (N, d1, ...). weight: one number per class (C,)."""
    with Building("nll_loss", name, log_prob, labels, mask) as new:
        rest = _constant(new, weight, log_prob), ignore_index, reduction, axis, _mask(new, mask)
        return new.tensor(compose.nll_loss(new.builder, new.value(log_prob), new.value(labels), *rest))


def mse_loss(prediction: Tensor, target: TensorLike, reduction: str = "mean", name: str = "", *, mask: Tensor | None = None) -> Tensor:
    """(prediction - target)^2."""
    with Building("mse_loss", name, prediction, target, mask) as new:
        return _difference(new, compose.mse, prediction, target, reduction, mask)


def l1_loss(prediction: Tensor, target: TensorLike, reduction: str = "mean", name: str = "", *, mask: Tensor | None = None) -> Tensor:
    """|prediction - target|."""
    with Building("l1_loss", name, prediction, target, mask) as new:
        return _difference(new, compose.l1, prediction, target, reduction, mask)


def huber_loss(prediction: Tensor, target: TensorLike, delta: float = 1.0, reduction: str = "mean", name: str = "") -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = prediction - target."""
    with Building("huber_loss", name, prediction, target) as new:
        return new.tensor(compose.huber(new.builder, new.value(prediction), new.value(target, prediction.dtype), delta, reduction))


def smooth_l1_loss(prediction: Tensor, target: TensorLike, beta: float = 1.0, reduction: str = "mean", name: str = "") -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, d = prediction - target."""
    with Building("smooth_l1_loss", name, prediction, target) as new:
        return new.tensor(compose.smooth_l1(new.builder, new.value(prediction), new.value(target, prediction.dtype), beta, reduction))


def binary_cross_entropy(probability: Tensor, target: TensorLike, reduction: str = "mean", name: str = "") -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) for probabilities p, each logarithm at least -100."""
    with Building("binary_cross_entropy", name, probability, target) as new:
        values = new.value(probability), new.value(target, probability.dtype)
        return new.tensor(compose.binary_cross_entropy(new.builder, *values, reduction))


def binary_cross_entropy_with_logits(
    logits: Tensor, target: TensorLike, reduction: str = "mean", name: str = "", *, pos_weight: float | Sequence[float] | None = None
) -> Tensor:
    """softplus(x) - x t for logits x and targets t in [0, 1]. pos_weight: of positive targets, one number, or one per last axis."""
    with Building("binary_cross_entropy_with_logits", name, logits, target) as new:
        values = new.value(logits), new.value(target, logits.dtype)
        weight = _constant(new, pos_weight, logits)
        return new.tensor(compose.binary_cross_entropy_with_logits(new.builder, *values, reduction, weight))


def _difference(
    new: Building, loss: Callable[..., Value], prediction: Tensor, target: TensorLike, reduction: str, mask: Tensor | None
) -> Tensor:
    """A loss of the difference; with a mask, a NaN or an infinity where it is false reaches neither the loss nor a gradient."""
    given, wanted = new.value(prediction), new.value(target, prediction.dtype)
    if mask is None:
        return new.tensor(loss(new.builder, given, wanted, reduction))
    difference, _ = compose.masked(new.builder, new.add(op("sub"), given, wanted), None, new.value(mask))
    losses = loss(new.builder, difference, new.builder.constant(0, given.type.dtype), "none")
    return new.tensor(compose.weighted(new.builder, *compose.masked(new.builder, losses, None, new.value(mask)), reduction))


def _mask(new: Building, mask: Tensor | None) -> Value | None:
    return None if mask is None else new.value(mask)


def _constant(new: Building, numbers: float | Sequence[float] | None, like: Tensor) -> Value | None:
    return None if numbers is None else new.builder.constant(np.asarray(numbers, like.dtype.numpy), name=f"{new.name}.weight")
