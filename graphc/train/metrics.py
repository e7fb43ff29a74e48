"""Metrics as streaming objects: a total that each batch adds to, so that the result is over examples and not over batches."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Union

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array

__all__ = [
    "Accuracy", "TopK", "BinaryAccuracy", "Confusion", "MacroF1", "MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError",
    "Metric",
]  # fmt: skip

MetricLike = Union[str, "Metric"]


class Metric(ABC):
    """`name`: in logs and history. `mode`: whether "max" or "min" is good. `total`: all that is kept, an array."""

    mode = "max"

    def __init__(self, name: str) -> None:
        self.name = name
        self.total: Array = np.zeros(2)

    @abstractmethod
    def part(self, outputs: Array, y: Array) -> Array:
        """What a batch adds to the total, of the total's shape. outputs: the model's first output; y: the targets of the batch."""

    def update(self, outputs: Any, y: Any) -> None:
        """Add a batch; of several outputs the first counts."""
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        self.total = self.total + self.part(np.asarray(first), np.asarray(y))

    def result(self) -> float:
        """Over all batches since `reset`; nan where there was none. The total is (sum, count) unless a class says otherwise."""
        return float(self.total[0] / self.total[1]) if self.total[1] else float("nan")

    def reset(self) -> None:
        self.total = np.zeros_like(self.total)

    def __repr__(self) -> str:
        return f"<graphc.metrics.{type(self).__name__} {self.name!r}: {self.result():.6g}>"


class Accuracy(Metric):
    """The part of right labels. outputs: class scores (N, C, ...); y: class numbers (N, ...), or rows of probabilities like the scores.

    Labels that are `ignore` do not count (None: all count).
    """

    def __init__(self, name: str = "accuracy", ignore: int | None = -100) -> None:
        super().__init__(name)
        self.ignore = ignore

    def part(self, outputs: Array, y: Array) -> Array:
        labels, counted = labels_of(outputs, y, self.ignore)
        return np.array([((outputs.argmax(1) == labels) & counted).sum(), counted.sum()], np.float64)


class TopK(Metric):
    """The part of labels with fewer than k classes of a higher score. outputs, y and ignore as in Accuracy."""

    def __init__(self, k: int = 5, name: str = "", ignore: int | None = -100) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise AttributeValueError(f"TopK: k = {k!r}", hint="a whole number, at least 1")
        super().__init__(name or f"top{k}")
        self.k, self.ignore = k, ignore

    def part(self, outputs: Array, y: Array) -> Array:
        labels, counted = labels_of(outputs, y, self.ignore)
        if self.k > outputs.shape[1]:
            raise AttributeValueError(f"the top {self.k} of {outputs.shape[1]} classes", hint="a smaller k")
        own = np.take_along_axis(outputs, np.expand_dims(labels, 1), 1)
        above = (~(outputs <= own)).sum(1)  # nan is above everything: where the label's own score is nan all classes are
        return np.array([((above < self.k) & counted).sum(), counted.sum()], np.float64)


class BinaryAccuracy(Metric):
    """The part of outputs on the right side of `threshold`. outputs: logits (0) or probabilities (0.5); y: 0 or 1, of the same shape."""

    def __init__(self, threshold: float = 0.0, name: str = "binary_accuracy") -> None:
        super().__init__(name)
        self.threshold = threshold

    def part(self, outputs: Array, y: Array) -> Array:
        right = (outputs > self.threshold) == (_like(outputs, y) > 0.5)
        return np.array([right.sum(), right.size], np.float64)


class Confusion(Metric):
    """`total[i, j]`: how many of label i were taken for j, int64 (classes, classes). The result is the balanced accuracy (mean recall)."""

    def __init__(self, classes: int, name: str = "balanced_accuracy", ignore: int | None = -100) -> None:
        super().__init__(name)
        self.ignore = ignore
        if classes < 1:
            raise AttributeValueError(f"{type(self).__name__}: classes = {classes}", hint="at least 1")
        self.classes = classes
        self.total = np.zeros((classes, classes), np.int64)

    def part(self, outputs: Array, y: Array) -> Array:
        if outputs.ndim < 2 or outputs.shape[1] != self.classes:
            raise InputError(f"scores of shape {outputs.shape} for {self.classes} classes", hint=f"{type(self).__name__}(classes=...)")
        labels, counted = labels_of(outputs, y, self.ignore)
        pairs = (labels * self.classes + outputs.argmax(1))[counted]
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    def recall(self) -> Array:
        """By class: right / examples of the class; nan where there are none."""
        return _ratio(self.total.diagonal(), self.total.sum(1))

    def precision(self) -> Array:
        """By class: right / taken for the class; nan where none was."""
        return _ratio(self.total.diagonal(), self.total.sum(0))

    def f1(self) -> Array:
        """By class: 2 right / (examples + taken for it); nan where both are 0."""
        return _ratio(2 * self.total.diagonal(), self.total.sum(0) + self.total.sum(1))

    def result(self) -> float:
        return _mean(self.recall())


class MacroF1(Confusion):
    """The mean over the classes of F1; classes that neither occur nor are predicted do not count."""

    def __init__(self, classes: int, name: str = "f1", ignore: int | None = -100) -> None:
        super().__init__(classes, name, ignore)

    def result(self) -> float:
        return _mean(self.f1())


class MeanAbsoluteError(Metric):
    """mean |output - y| over all elements; y of the shape of the outputs."""

    mode = "min"

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name)

    def part(self, outputs: Array, y: Array) -> Array:
        return np.array([np.abs(_difference(outputs, y)).sum(), outputs.size])


class MeanSquaredError(Metric):
    """mean (output - y)^2 over all elements; y of the shape of the outputs."""

    mode = "min"

    def __init__(self, name: str = "mse") -> None:
        super().__init__(name)

    def part(self, outputs: Array, y: Array) -> Array:
        return np.array([np.square(_difference(outputs, y)).sum(), outputs.size])


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean squared error."""

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name)

    def result(self) -> float:
        return float(np.sqrt(super().result()))


METRICS: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy, "binary_accuracy": BinaryAccuracy, "mae": MeanAbsoluteError, "mse": MeanSquaredError,
    "rmse": RootMeanSquaredError,
}  # fmt: skip


def find_metrics(metrics: Iterable[MetricLike] | MetricLike) -> list[Metric]:
    """Metrics by name ("accuracy", "top5", ...) or as they are. Raises AttributeValueError for an unknown or a repeated name."""
    given = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)
    found = [_find(metric) for metric in given]
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1 or name in ("loss", "lr", "epoch", "seconds", "skipped") or name.startswith("val_"):
            raise AttributeValueError(f"a metric called {name!r}, which is taken", hint="Metric(name=...)")
    return found


def _find(metric: MetricLike) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if metric in METRICS:
        return METRICS[metric]()
    match = re.fullmatch(r"top([1-9]\d*)", metric) if isinstance(metric, str) else None
    if match is None:
        raise AttributeValueError(f"unknown metric {metric!r}", hint=f"one of {', '.join(METRICS)}, top5, or a graphc.metrics.Metric")
    return TopK(int(match[1]))


def labels_of(scores: Array, y: Array, ignore: int | None) -> tuple[Array, Array]:
    """Class numbers, and which of them count, in the shape of scores.argmax(1); 0 where they do not.

    Raises InputError where shapes do not fit or a label is no class.
    """
    if scores.ndim < 2:
        raise InputError(f"scores of shape {scores.shape}", hint="class scores (N, C, ...)")
    shape, classes = (scores.shape[0], *scores.shape[2:]), scores.shape[1]
    if y.dtype.kind == "f" and y.shape == scores.shape:
        return y.argmax(1), np.ones(shape, np.bool_)
    if y.dtype.kind not in "iu" or y.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"labels {y.dtype}{list(y.shape)} for scores {scores.dtype}{list(scores.shape)}", hint="class numbers (N, ...)")
    labels = y.reshape(shape).astype(np.int64)
    counted = np.ones(shape, np.bool_) if ignore is None else labels != ignore
    wrong = labels[counted & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise InputError(f"the label {wrong[0]}, the scores are of the classes 0 to {classes - 1}")
    return np.where(counted, labels, 0), counted


def _like(outputs: Array, y: Array) -> Array:
    if y.size != outputs.size:
        raise InputError(f"targets of shape {y.shape} for outputs of shape {outputs.shape}")
    return y.reshape(outputs.shape)


def _difference(outputs: Array, y: Array) -> Array:
    return outputs.astype(np.float64) - _like(outputs, y)


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
