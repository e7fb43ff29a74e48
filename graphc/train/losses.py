"""Losses: from a model's first output and a target to one scalar. `graphc.losses.CrossEntropy(label_smoothing=0.1)`.

Definitions, names of the options and their defaults are PyTorch's. `TrainStep` takes a loss, its name, or a function
(builder, prediction, target) -> scalar. A loss is a quotient: the sum of its elements over their weight (their number, or the sum of the
class weights of the labels that count). Gradient accumulation adds up both parts, so that the mean of several batches is that of one big
batch, whatever their sizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

import numpy as np

from graphc.errors import AttributeValueError, InputError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Node, Value
from graphc.ops import loss as compose
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.types.dtype import i64
from graphc.types.shape import product
from graphc.types.tensor import TensorType

__all__ = ["CrossEntropy", "NLL", "MSE", "L1", "Huber", "SmoothL1", "BCE", "BCEWithLogits", "Custom", "Loss"]

Build = Callable[[Builder, Value, Value], Value]  # (builder, prediction, target) -> scalar
Parts = tuple[Value, "Value | None"]
REDUCTIONS = ("mean", "sum")


def _numbers(name: str, given: Sequence[float] | None) -> tuple[float, ...] | None:
    """As a tuple. Raises AttributeValueError for what is negative or no number."""
    if given is None:
        return None
    array = np.asarray(given, np.float64)
    if array.ndim != 1 or not (array >= 0).all() or not np.isfinite(array).all():
        raise AttributeValueError(f"{name} {given!r}", hint="numbers of at least 0 in one row")
    return tuple(array.tolist())


@dataclass(frozen=True)
class Loss(ABC):
    """`reduction`: mean, over all elements that count, or sum."""

    reduction: str = field(default="mean", kw_only=True)
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise AttributeValueError(f"reduction {self.reduction!r}", hint=f"one of {', '.join(REDUCTIONS)}")

    @property
    def labels(self) -> bool:
        """Whether the target holds class numbers, not numbers like the prediction."""
        return False

    @abstractmethod
    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        """The losses one by one, and the weight of each in the mean, which is in the losses already; None: all 1."""

    def target_type(self, prediction: TensorType) -> TensorType:
        """Class numbers i64 (N, d1, ...) for class scores (N, C, d1, ...), else what the prediction is."""
        if not self.labels:
            return prediction
        if prediction.rank < 2:
            raise ShapeError(f"{self.name} needs class scores (N, C, ...), the model's first output is {prediction}")
        return TensorType(i64, (prediction.shape[0], *prediction.shape[2:]))

    def target(self, given: Any, prediction: TensorType) -> Array:
        """The array for the program. Raises InputError for labels that are no classes of the prediction."""
        return np.asarray(given)

    def build(self, builder: Builder, prediction: Value, target: Value) -> Value:
        """The loss itself, a scalar."""
        losses, weight = self.elements(builder, prediction, target)
        return compose.weighted(builder, losses, weight, self.reduction)

    def parts(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        """The sum of the losses and what the mean divides it by, both scalars; None where it divides by nothing."""
        losses, weight = self.elements(builder, prediction, target)
        total = compose.reduced(builder, losses, "sum")
        if self.reduction == "sum":
            return total, None
        if weight is not None:
            return total, compose.reduced(builder, weight, "sum")
        count = product(losses.type.shape).__index__()
        return total, builder.constant(np.asarray(count, total.type.dtype.numpy), name="count")


# of class numbers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OfClasses(Loss):
    """`weight`: one number per class; `ignore_index`: a label that counts for nothing (None: there is none)."""

    weight: Sequence[float] | None = None
    ignore_index: int | None = -100

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", _numbers("weight", self.weight))

    @property
    def labels(self) -> bool:
        return True

    def target(self, given: Any, prediction: TensorType) -> Array:
        """Labels as i64, (N, 1, ...) where they are given as (N,)."""
        array = np.asarray(given)
        if array.dtype.kind not in "iu":
            raise InputError(f"labels of dtype {array.dtype}", hint="class numbers as integers, not one-hot rows")
        classes = prediction.shape[1]
        counted = array if self.ignore_index is None else array[array != self.ignore_index]
        if counted.size and isinstance(classes, int):
            low, high = counted.min(), counted.max()
            if low < 0 or high >= classes:
                raise InputError(f"labels from {low} to {high}, the model has the classes 0 to {classes - 1}")
        fill = prediction.rank - 1 - array.ndim
        labels = array.astype(np.int64, copy=False)
        return labels.reshape(array.shape + (1,) * fill) if fill > 0 else labels

    def _weights(self, builder: Builder, like: Value) -> Value | None:
        return None if self.weight is None else builder.constant(np.asarray(self.weight, like.type.dtype.numpy), name="class_weight")


@dataclass(frozen=True)
class CrossEntropy(_OfClasses):
    """-log of the probability of the label. torch.nn.CrossEntropyLoss.

    The prediction holds logits (N, C, d1, ...), or what a final Softmax or LogSoftmax over the classes makes of them: then the loss is
    computed from the logits, which is exact where a probability is 0. label_smoothing: the part of the probability that is spread over
    all classes. `probabilities`: the target is (N, C, d1, ...) and holds a probability for each class, as mixing pictures makes them.
    """

    label_smoothing: float = 0.0
    probabilities: bool = False
    name: ClassVar[str] = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing <= 1:
            raise AttributeValueError(f"label_smoothing {self.label_smoothing}", hint="a part: 0 to 1")

    @property
    def labels(self) -> bool:
        return not self.probabilities

    def target(self, given: Any, prediction: TensorType) -> Array:
        return np.asarray(given) if self.probabilities else super().target(given, prediction)

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        log_prob = _log_probabilities(builder, prediction)
        weights = self._weights(builder, log_prob)
        if self.probabilities:
            return compose.probability_losses(builder, log_prob, target, weights, self.label_smoothing), None
        return compose.label_losses(builder, log_prob, target, weights, self.ignore_index, self.label_smoothing)


@dataclass(frozen=True)
class NLL(_OfClasses):
    """Minus the log probability (N, C, d1, ...) of the label. torch.nn.NLLLoss."""

    name: ClassVar[str] = "nll"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.label_losses(builder, prediction, target, self._weights(builder, prediction), self.ignore_index)


def _log_probabilities(builder: Builder, prediction: Value) -> Value:
    made = _maker(prediction)
    if made is not None and isinstance(made.op, Softmax) and made.op.axis == 1:
        prediction = made.inputs[0]
    elif made is not None and isinstance(made.op, LogSoftmax) and made.op.axis == 1:
        return prediction
    return builder.add(LogSoftmax(axis=1), prediction)


def _maker(value: Value) -> Node | None:
    """The node that computes a value, seen through nodes that change nothing."""
    node = value.producer
    while node is not None and node.op.name in ("identity", "reshape", "dropout") and node.inputs[0].type == value.type:
        node = node.inputs[0].producer
    return node


# of numbers -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MSE(Loss):
    """(prediction - target)^2. torch.nn.MSELoss."""

    name: ClassVar[str] = "mse"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.mse(builder, prediction, target, "none"), None


@dataclass(frozen=True)
class L1(Loss):
    """|prediction - target|, the mean absolute error. torch.nn.L1Loss."""

    name: ClassVar[str] = "l1"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.l1(builder, prediction, target, "none"), None


@dataclass(frozen=True)
class Huber(Loss):
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). torch.nn.HuberLoss."""

    delta: float = 1.0
    name: ClassVar[str] = "huber"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.huber(builder, prediction, target, self.delta, "none"), None


@dataclass(frozen=True)
class SmoothL1(Loss):
    """Huber with delta = beta, divided by beta. torch.nn.SmoothL1Loss."""

    beta: float = 1.0
    name: ClassVar[str] = "smooth_l1"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.smooth_l1(builder, prediction, target, self.beta, "none"), None


@dataclass(frozen=True)
class BCE(Loss):
    """Binary cross-entropy of probabilities. torch.nn.BCELoss; of logits `BCEWithLogits` is exact where this loses digits."""

    name: ClassVar[str] = "bce"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return compose.binary_cross_entropy(builder, prediction, target, "none"), None


@dataclass(frozen=True)
class BCEWithLogits(Loss):
    """Binary cross-entropy of logits. `pos_weight`: of positive targets, one number, or one per last axis. torch.nn.BCEWithLogitsLoss."""

    pos_weight: float | Sequence[float] | None = None
    name: ClassVar[str] = "bce_with_logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.pos_weight] if isinstance(self.pos_weight, (int, float)) else self.pos_weight
        object.__setattr__(self, "pos_weight", _numbers("pos_weight", given))

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        weight = None
        if self.pos_weight is not None:
            weight = builder.constant(np.asarray(self.pos_weight, prediction.type.dtype.numpy), name="pos_weight")
        return compose.binary_cross_entropy_with_logits(builder, prediction, target, "none", weight), None


@dataclass(frozen=True)
class Custom(Loss):
    """A function (builder, prediction, target) -> scalar, whose target is like the prediction. Of several batches the mean is taken."""

    function: Build
    name: ClassVar[str] = "function"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        return scalar(self.function(builder, prediction, target)), None


LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (CrossEntropy(), NLL(), MSE(), L1(), Huber(), SmoothL1(), BCE(), BCEWithLogits())
}  # fmt: skip
LOSSES["mae"] = LOSSES["l1"]
LossLike = Union[str, Loss, Build]


def find_loss(loss: LossLike) -> Loss:
    """The loss of a name, a loss itself, or a function (builder, prediction, target) -> scalar whose target is like the prediction."""
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Custom(loss)
    if loss not in LOSSES:
        raise AttributeValueError(f"unknown loss {loss!r}", hint=f"one of {', '.join(LOSSES)}")
    return LOSSES[loss]


def scalar(value: Value) -> Value:
    """The loss itself; a ShapeError where it is no float scalar."""
    if value.type.rank or not value.type.dtype.is_float:
        reason = f"the loss {value.name!r} is {value.type}, and must be one floating point number"
        raise ShapeError(reason, hint="take a mean or a sum of it")
    return value
