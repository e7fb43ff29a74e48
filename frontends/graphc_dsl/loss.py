"""Loss functions, for models that return their loss. reduction: "mean", "sum" or "none"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ops import loss as compose
from graphc_dsl.trace import Building, TensorLike

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor


def cross_entropy(scores: Tensor, labels: Tensor, ignore_index: int | None = None, reduction: str = "mean", name: str = "") -> Tensor:
    """Softmax cross entropy of class scores (N, C, d1, ...) and integer labels (N, d1, ...)."""
    with Building("cross_entropy", name, scores, labels) as new:
        values = new.value(scores), new.value(labels)
        return new.tensor(compose.softmax_cross_entropy(new.builder, *values, None, ignore_index, reduction)[0])


def nll_loss(log_prob: Tensor, labels: Tensor, ignore_index: int | None = None, reduction: str = "mean", name: str = "") -> Tensor:
    """Negative log likelihood of log probabilities (N, C, d1, ...) and integer labels (N, d1, ...)."""
    with Building("nll_loss", name, log_prob, labels) as new:
        return new.tensor(compose.nll_loss(new.builder, new.value(log_prob), new.value(labels), None, ignore_index, reduction))


def mse_loss(prediction: Tensor, target: TensorLike, reduction: str = "mean", name: str = "") -> Tensor:
    """(prediction - target)^2."""
    with Building("mse_loss", name, prediction, target) as new:
        return new.tensor(compose.mse(new.builder, new.value(prediction), new.value(target, prediction.dtype), reduction))


def l1_loss(prediction: Tensor, target: TensorLike, reduction: str = "mean", name: str = "") -> Tensor:
    """|prediction - target|."""
    with Building("l1_loss", name, prediction, target) as new:
        return new.tensor(compose.l1(new.builder, new.value(prediction), new.value(target, prediction.dtype), reduction))


def huber_loss(prediction: Tensor, target: TensorLike, delta: float = 1.0, reduction: str = "mean", name: str = "") -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = prediction - target."""
    with Building("huber_loss", name, prediction, target) as new:
        return new.tensor(compose.huber(new.builder, new.value(prediction), new.value(target, prediction.dtype), delta, reduction))


def binary_cross_entropy_with_logits(logits: Tensor, target: TensorLike, reduction: str = "mean", name: str = "") -> Tensor:
    """softplus(x) - x t for logits x and targets t in [0, 1]."""
    with Building("binary_cross_entropy_with_logits", name, logits, target) as new:
        values = new.value(logits), new.value(target, logits.dtype)
        return new.tensor(compose.binary_cross_entropy_with_logits(new.builder, *values, reduction))
