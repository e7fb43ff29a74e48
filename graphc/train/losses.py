"""Losses: from a model's first output and a target to one scalar. `graphc.losses.CrossEntropy(label_smoothing=0.1)`.

Definitions, names of the options and their defaults are PyTorch's. `TrainStep` takes a loss, its name, or a function
(builder, prediction, target) -> scalar. A loss is a quotient: the sum of its elements over their weight (their number, or the sum of the
class weights of the labels that count). Gradient accumulation adds up both parts, so that the mean of several batches is that of one big
batch, whatever their sizes, and whatever part of each counts. Where nothing at all counts the mean is 0 / 0, NaN, as in PyTorch.

Sequences of different lengths: labels that are `ignore_index` do not count, or the target is a pair (labels, counted), where `counted` is
lengths (N,) or a bool mask of the target's leading axes; `axis=-1` for class scores (N, T, C). Losses of numbers take such a pair with
`masked=True`.
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
from graphc.ops.express import Arithmetic
from graphc.ops.pointwise import op
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.train import masks
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
        return prediction

    def target(self, given: Any, prediction: TensorType) -> Array:
        """The array for the program. Raises InputError for labels that are no classes of the prediction, and for a pair (target, counted)
        where the loss takes none."""
        if masks.is_pair(given):
            raise InputError(f"{self.name} takes no pair of a target and what counts of it", hint="labels, or a loss with masked=True")
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
    """`weight`: one number per class; `ignore_index`: a label that counts for nothing (None: there is none); `axis`: of the classes in the
    prediction, 1 as in PyTorch, -1 for sequences (N, T, C)."""

    weight: Sequence[float] | None = None
    ignore_index: int | None = -100
    axis: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight", _numbers("weight", self.weight))

    @property
    def labels(self) -> bool:
        return True

    def target_type(self, prediction: TensorType) -> TensorType:
        if not self.labels:
            return prediction
        axis = self._class_axis(prediction)
        return TensorType(i64, (*prediction.shape[:axis], *prediction.shape[axis + 1 :]))

    def _class_axis(self, prediction: TensorType) -> int:
        """Counted from 0. Raises ShapeError where the prediction has no such axis."""
        axis = self.axis + prediction.rank if self.axis < 0 else self.axis
        if not 1 <= axis < prediction.rank:
            wanted = "(N, C, ...)" if self.axis == 1 else f"with classes along axis {self.axis}"
            raise ShapeError(f"{self.name} needs class scores {wanted}, the model's first output is {prediction}")
        return axis

    def target(self, given: Any, prediction: TensorType) -> Array:
        """Labels as i64, (N, 1, ...) where they are given as (N,), `ignore_index` where a pair says that they do not count."""
        array = self._ignored(given) if masks.is_pair(given) else np.asarray(given)
        if array.dtype.kind not in "iu":
            raise InputError(f"labels of dtype {array.dtype}", hint="class numbers as integers, not one-hot rows")
        classes = prediction.shape[self._class_axis(prediction)]
        counted = array if self.ignore_index is None else array[array != self.ignore_index]
        if counted.size and isinstance(classes, int):
            low, high = counted.min(), counted.max()
            if low < 0 or high >= classes:
                raise InputError(f"labels from {low} to {high}, the model has the classes 0 to {classes - 1}")
        fill = prediction.rank - 1 - array.ndim
        labels = array.astype(np.int64, copy=False)
        return labels.reshape(array.shape + (1,) * fill) if fill > 0 else labels

    def _ignored(self, given: Any) -> Array:
        if self.ignore_index is None:
            raise InputError("labels with a mask, and no ignore_index to mark them with", hint="ignore_index=-100")
        labels, counted = masks.split(given)
        return np.where(counted, labels.astype(np.int64), self.ignore_index) if labels.dtype.kind in "iu" else labels

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
        return Loss.target(self, given, prediction) if self.probabilities else super().target(given, prediction)

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        axis = self._class_axis(prediction.type)
        log_prob = _log_probabilities(builder, prediction, axis)
        weights = self._weights(builder, log_prob)
        if self.probabilities:
            return compose.probability_losses(builder, log_prob, target, weights, self.label_smoothing, axis), None
        return compose.label_losses(builder, log_prob, target, weights, self.ignore_index, self.label_smoothing, axis)


@dataclass(frozen=True)
class NLL(_OfClasses):
    """Minus the log probability (N, C, d1, ...) of the label. torch.nn.NLLLoss."""

    name: ClassVar[str] = "nll"

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        weights = self._weights(builder, prediction)
        return compose.label_losses(builder, prediction, target, weights, self.ignore_index, axis=self._class_axis(prediction.type))


def _log_probabilities(builder: Builder, prediction: Value, axis: int) -> Value:
    made = _maker(prediction)
    if made is not None and isinstance(made.op, Softmax) and made.op.axis == axis:
        prediction = made.inputs[0]
    elif made is not None and isinstance(made.op, LogSoftmax) and made.op.axis == axis:
        return prediction
    return builder.add(LogSoftmax(axis=axis), prediction)


def _maker(value: Value) -> Node | None:
    """The node that computes a value, seen through nodes that change nothing."""
    node = value.producer
    while node is not None and node.op.name in ("identity", "reshape", "dropout") and node.inputs[0].type == value.type:
        node = node.inputs[0].producer
    return node


# of numbers -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OfNumbers(Loss):
    """`masked`: the target may be a pair (numbers, counted); a NaN in a target that is no pair does not count either."""

    masked: bool = field(default=False, kw_only=True)

    @abstractmethod
    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        """The losses one by one."""

    def target(self, given: Any, prediction: TensorType) -> Array:
        """Numbers, NaN where a pair says that they do not count."""
        if not self.masked or not masks.is_pair(given):
            return super().target(given, prediction)
        numbers, counted = masks.split(given)
        if numbers.dtype.kind == "f" and np.isnan(numbers[counted]).any():
            raise InputError("the target is NaN at a position that counts", hint="a mask that leaves it out")
        return np.where(counted, numbers, np.asarray(np.nan, prediction.dtype.numpy))

    def elements(self, builder: Builder, prediction: Value, target: Value) -> Parts:
        """What does not count takes no part: not even a NaN or an infinity of the prediction reaches the loss or a gradient."""
        if not self.masked:
            return self.each(builder, prediction, target), None
        a = Arithmetic(builder)
        hidden = builder.add(op("isnan"), target)
        losses = self.each(builder, *(a("where", hidden, 0.0, value) for value in (prediction, target)))
        return a("where", hidden, 0.0, losses), a("where", hidden, 0.0, a.ones(losses))


@dataclass(frozen=True)
class MSE(_OfNumbers):
    """(prediction - target)^2. torch.nn.MSELoss."""

    name: ClassVar[str] = "mse"

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        return compose.mse(builder, prediction, target, "none")


@dataclass(frozen=True)
class L1(_OfNumbers):
    """|prediction - target|, the mean absolute error. torch.nn.L1Loss."""

    name: ClassVar[str] = "l1"

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        return compose.l1(builder, prediction, target, "none")


@dataclass(frozen=True)
class Huber(_OfNumbers):
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). torch.nn.HuberLoss."""

    delta: float = 1.0
    name: ClassVar[str] = "huber"

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        return compose.huber(builder, prediction, target, self.delta, "none")


@dataclass(frozen=True)
class SmoothL1(_OfNumbers):
    """Huber with delta = beta, divided by beta. torch.nn.SmoothL1Loss."""

    beta: float = 1.0
    name: ClassVar[str] = "smooth_l1"

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        return compose.smooth_l1(builder, prediction, target, self.beta, "none")


@dataclass(frozen=True)
class BCE(_OfNumbers):
    """Binary cross-entropy of probabilities. torch.nn.BCELoss; of logits `BCEWithLogits` is exact where this loses digits."""

    name: ClassVar[str] = "bce"

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        return compose.binary_cross_entropy(builder, prediction, target, "none")


@dataclass(frozen=True)
class BCEWithLogits(_OfNumbers):
    """Binary cross-entropy of logits. `pos_weight`: of positive targets, one number, or one per last axis. torch.nn.BCEWithLogitsLoss."""

    pos_weight: float | Sequence[float] | None = None
    name: ClassVar[str] = "bce_with_logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self.pos_weight] if isinstance(self.pos_weight, (int, float)) else self.pos_weight
        object.__setattr__(self, "pos_weight", _numbers("pos_weight", given))

    def each(self, builder: Builder, prediction: Value, target: Value) -> Value:
        weight = None
        if self.pos_weight is not None:
            weight = builder.constant(np.asarray(self.pos_weight, prediction.type.dtype.numpy), name="pos_weight")
        return compose.binary_cross_entropy_with_logits(builder, prediction, target, "none", weight)


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
