"""Losses by name: from a model's first output and a target to one scalar, all means over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ops import loss as losses
from graphc.ops.softmax import LogSoftmax, Softmax
from graphc.types.dtype import i64
from graphc.types.tensor import TensorType

Build = Callable[[Builder, Value, Value], Value]  # (builder, prediction, target) -> scalar
LossLike = Union[str, Build]


@dataclass(frozen=True)
class Loss:
    """`build(builder, prediction, target)` makes the scalar; `labels`: the target holds class numbers, not numbers like the prediction."""

    name: str
    build: Build
    labels: bool

    def target_type(self, prediction: TensorType) -> TensorType:
        """Class numbers i64 (N, d1, ...) for class scores (N, C, d1, ...), else what the prediction is."""
        if not self.labels:
            return prediction
        if prediction.rank < 2:
            raise ShapeError(f"{self.name} needs class scores (N, C, ...), the model's first output is {prediction}")
        return TensorType(i64, (prediction.shape[0], *prediction.shape[2:]))


def cross_entropy(builder: Builder, prediction: Value, labels: Value) -> Value:
    """-log of the probability of the label, mean over the batch.

    `prediction` holds logits (N, C, ...), or what a final Softmax or LogSoftmax over the classes makes of them: then the loss is computed
    from the logits, which is exact where a probability is 0.
    """
    made = _maker(prediction)
    if made is not None and isinstance(made.op, Softmax) and made.op.axis == 1:
        prediction = made.inputs[0]
    elif made is not None and isinstance(made.op, LogSoftmax) and made.op.axis == 1:
        return losses.nll_loss(builder, prediction, labels)
    return losses.softmax_cross_entropy(builder, prediction, labels)[0]


def _maker(value: Value) -> Node | None:
    """The node that computes a value, seen through nodes that change nothing."""
    node = value.producer
    while node is not None and node.op.name in ("identity", "reshape", "dropout") and node.inputs[0].type == value.type:
        node = node.inputs[0].producer
    return node


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("cross_entropy", cross_entropy, labels=True),
        Loss("nll", losses.nll_loss, labels=True),
        Loss("mse", losses.mse, labels=False),
        Loss("l1", losses.l1, labels=False),
        Loss("huber", losses.huber, labels=False),
        Loss("bce_with_logits", losses.binary_cross_entropy_with_logits, labels=False),
    )
}


def find_loss(loss: LossLike) -> Loss:
    """The loss of a name, or a function (builder, prediction, target) -> scalar whose target is like the prediction."""
    if callable(loss):
        return Loss(getattr(loss, "__name__", "loss"), loss, labels=False)
    if loss not in LOSSES:
        raise AttributeValueError(f"unknown loss {loss!r}", hint=f"one of {', '.join(LOSSES)}")
    return LOSSES[loss]


def scalar(value: Value) -> Value:
    """The loss itself; a ShapeError where it is no float scalar."""
    if value.type.rank or not value.type.dtype.is_float:
        reason = f"the loss {value.name!r} is {value.type}, and must be one floating point number"
        raise ShapeError(reason, hint="take a mean or a sum of it")
    return value
