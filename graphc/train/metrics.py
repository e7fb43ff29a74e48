"""Metrics as streaming objects: a total that each batch adds to, so that the result is over examples and not over batches.

Targets may be pairs of a target and what counts of it (lengths or a mask, see `masks`), as for losses.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Union

import numpy as np

from graphc.errors import AttributeValueError, InputError
from graphc.ir.graph import Array
from graphc.train.masks import is_pair, split

__all__ = [
    "Accuracy", "TopK", "ExactMatch", "BinaryAccuracy", "Confusion", "MacroF1", "MeanAbsoluteError", "MeanSquaredError",
    "RootMeanSquaredError", "Metric",
]  # fmt: skip

MetricLike = Union[str, "Metric"]


class Metric(ABC):
    """`name`: in logs and history. `mode`: whether "max" or "min" is good. `total`: all that is kept, an array."""

    mode = "max"

    def __init__(self, name: str) -> None:
        self.name = name
        self.total: Array = np.zeros(2)

    @abstractmethod
    def part(self, outputs: Array, y: Any) -> Array:
        """What a batch adds to the total, of the total's shape. outputs: the model's first output; y: the targets of the batch, an array,
        or a pair of arrays."""

    def update(self, outputs: Any, y: Any) -> None:
        """Add a batch; of several outputs the first counts."""
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        self.total = self.total + self.part(np.asarray(first), y if is_pair(y) else np.asarray(y))

    def result(self) -> float:
        """Over all batches since `reset`; nan where there was none. The total is (sum, count) unless a class says otherwise."""
        return float(self.total[0] / self.total[1]) if self.total[1] else float("nan")

    def reset(self) -> None:
        self.total = np.zeros_like(self.total)

    def __repr__(self) -> str:
        return f"<graphc.metrics.{type(self).__name__} {self.name!r}: {self.result():.6g}>"


class _OfLabels(Metric):
    """Labels that are `ignore` do not count (None: all count). `axis`: of the classes in the scores, -1 for sequences (N, T, C); a metric
    that a trainer is given by name takes that of the loss."""

    def __init__(self, name: str, ignore: int | None, axis: int) -> None:
        super().__init__(name)
        self.ignore, self.axis = ignore, axis

    def part(self, outputs: Array, y: Any) -> Array:
        if outputs.ndim < 2 or not -outputs.ndim < self.axis < outputs.ndim or self.axis == 0:
            raise InputError(f"scores of shape {outputs.shape} with classes along axis {self.axis}", hint="class scores (N, C, ...)")
        rows = y if is_pair(y) or y.shape != outputs.shape else np.moveaxis(y, self.axis, 1)
        scores = np.moveaxis(outputs, self.axis, 1)
        return self.count(scores, *labels_of(scores, rows, self.ignore))

    @abstractmethod
    def count(self, scores: Array, labels: Array, counted: Array) -> Array:
        """The part of a batch: scores (N, C, ...), labels (N, ...), and which of them count."""


class Accuracy(_OfLabels):
    """The part of right labels. outputs: class scores (N, C, ...); y: class numbers (N, ...), or rows of probabilities like the scores.

    `ignore`: a label that does not count (None: all count); `axis`: of the classes, -1 for sequences (N, T, C): the accuracy of tokens.
    """

    def __init__(self, name: str = "accuracy", ignore: int | None = -100, axis: int = 1) -> None:
        super().__init__(name, ignore, axis)

    def count(self, scores: Array, labels: Array, counted: Array) -> Array:
        return np.array([((scores.argmax(1) == labels) & counted).sum(), counted.sum()], np.float64)


class ExactMatch(_OfLabels):
    """The part of examples all of whose labels are right, of those that have a label that counts. outputs, y and options as in Accuracy."""

    def __init__(self, name: str = "exact_match", ignore: int | None = -100, axis: int = 1) -> None:
        super().__init__(name, ignore, axis)

    def count(self, scores: Array, labels: Array, counted: Array) -> Array:
        rest = tuple(range(1, labels.ndim))
        right, known = ((scores.argmax(1) == labels) | ~counted).all(rest), counted.any(rest)
        return np.array([(right & known).sum(), known.sum()], np.float64)


class TopK(_OfLabels):
    """The part of labels with fewer than k classes of a higher score. outputs, y and options as in Accuracy."""

    def __init__(self, k: int = 5, name: str = "", ignore: int | None = -100, axis: int = 1) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise AttributeValueError(f"TopK: k = {k!r}", hint="a whole number, at least 1")
        super().__init__(name or f"top{k}", ignore, axis)
        self.k = k

    def count(self, scores: Array, labels: Array, counted: Array) -> Array:
        if self.k > scores.shape[1]:
            raise AttributeValueError(f"the top {self.k} of {scores.shape[1]} classes", hint="a smaller k")
        own = np.take_along_axis(scores, np.expand_dims(labels, 1), 1)
        above = (~(scores <= own)).sum(1)  # nan is above everything: where the label's own score is nan all classes are
        return np.array([((above < self.k) & counted).sum(), counted.sum()], np.float64)


class BinaryAccuracy(Metric):
    """The part of outputs on the right side of `threshold`. outputs: logits (0) or probabilities (0.5); y: 0 or 1, of the same shape."""

    def __init__(self, threshold: float = 0.0, name: str = "binary_accuracy") -> None:
        super().__init__(name)
        self.threshold = threshold

    def part(self, outputs: Array, y: Any) -> Array:
        outputs, y = _numbers(outputs, y)
        right = (outputs > self.threshold) == (y > 0.5)
        return np.array([right.sum(), right.size], np.float64)


class Confusion(_OfLabels):
    """`total[i, j]`: how many of label i were taken for j, int64 (classes, classes). The result is the balanced accuracy (mean recall)."""

    def __init__(self, classes: int, name: str = "balanced_accuracy", ignore: int | None = -100, axis: int = 1) -> None:
        super().__init__(name, ignore, axis)
        if classes < 1:
            raise AttributeValueError(f"{type(self).__name__}: classes = {classes}", hint="at least 1")
        self.classes = classes
        self.total = np.zeros((classes, classes), np.int64)

    def count(self, scores: Array, labels: Array, counted: Array) -> Array:
        if scores.shape[1] != self.classes:
            raise InputError(f"scores of {scores.shape[1]} classes, {self.classes} expected", hint=f"{type(self).__name__}(classes=...)")
        pairs = (labels * self.classes + scores.argmax(1))[counted]
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

    def __init__(self, classes: int, name: str = "f1", ignore: int | None = -100, axis: int = 1) -> None:
        super().__init__(classes, name, ignore, axis)

    def result(self) -> float:
        return _mean(self.f1())


class MeanAbsoluteError(Metric):
    """mean |output - y| over all elements; y of the shape of the outputs."""

    mode = "min"

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name)

    def part(self, outputs: Array, y: Any) -> Array:
        outputs, y = _numbers(outputs, y)
        return np.array([np.abs(outputs.astype(np.float64) - y).sum(), outputs.size])


class MeanSquaredError(Metric):
    """mean (output - y)^2 over all elements; y of the shape of the outputs."""

    mode = "min"

    def __init__(self, name: str = "mse") -> None:
        super().__init__(name)

    def part(self, outputs: Array, y: Any) -> Array:
        outputs, y = _numbers(outputs, y)
        return np.array([np.square(outputs.astype(np.float64) - y).sum(), outputs.size])


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean squared error."""

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name)

    def result(self) -> float:
        return float(np.sqrt(super().result()))


METRICS: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy, "exact_match": ExactMatch, "binary_accuracy": BinaryAccuracy, "mae": MeanAbsoluteError,
    "mse": MeanSquaredError, "rmse": RootMeanSquaredError,
}  # fmt: skip


def find_metrics(metrics: Iterable[MetricLike] | MetricLike, axis: int = 1) -> list[Metric]:
    """Metrics by name ("accuracy", "top5", ...), with classes along `axis`, or as they are. Raises AttributeValueError for an unknown or a
    repeated name."""
    given = [metrics] if isinstance(metrics, (str, Metric)) else list(metrics)
    found = [_find(metric, axis) for metric in given]
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1 or name in ("loss", "lr", "epoch", "seconds", "skipped") or name.startswith("val_"):
            raise AttributeValueError(f"a metric called {name!r}, which is taken", hint="Metric(name=...)")
    return found


def _find(metric: MetricLike, axis: int) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if metric in METRICS:
        made = METRICS[metric]()
        if isinstance(made, _OfLabels):
            made.axis = axis
        return made
    match = re.fullmatch(r"top([1-9]\d*)", metric) if isinstance(metric, str) else None
    if match is None:
        raise AttributeValueError(f"unknown metric {metric!r}", hint=f"one of {', '.join(METRICS)}, top5, or a graphc.metrics.Metric")
    return TopK(int(match[1]), axis=axis)


def labels_of(scores: Array, y: Any, ignore: int | None) -> tuple[Array, Array]:
    """Class numbers, and which of them count, in the shape of scores.argmax(1); 0 where they do not. y: an array, or a pair.

    Raises InputError where shapes do not fit or a label is no class.
    """
    y, within = split(y) if is_pair(y) else (y, None)
    shape, classes = (scores.shape[0], *scores.shape[2:]), scores.shape[1]
    if y.dtype.kind == "f" and y.shape == scores.shape:
        return y.argmax(1), np.ones(shape, np.bool_)
    if y.dtype.kind not in "iu" or y.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"labels {y.dtype}{list(y.shape)} for scores {scores.dtype}{list(scores.shape)}", hint="class numbers (N, ...)")
    labels = y.reshape(shape).astype(np.int64)
    counted = np.ones(shape, np.bool_) if ignore is None else labels != ignore
    counted = counted if within is None else counted & within.reshape(shape)
    wrong = labels[counted & ((labels < 0) | (labels >= classes))]
    if wrong.size:
        raise InputError(f"the label {wrong[0]}, the scores are of the classes 0 to {classes - 1}")
    return np.where(counted, labels, 0), counted


def _numbers(outputs: Array, y: Any) -> tuple[Array, Array]:
    """Outputs and targets of one shape, of a pair those that count."""
    y, counted = split(y) if is_pair(y) else (y, None)
    if y.size != outputs.size:
        raise InputError(f"targets of shape {y.shape} for outputs of shape {outputs.shape}")
    y = y.reshape(outputs.shape)
    if counted is None:
        return outputs, y
    counted = counted.reshape(outputs.shape)
    return outputs[counted], y[counted]


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
