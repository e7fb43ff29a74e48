"""Loss and metrics over the examples so far: means over examples, whatever the sizes of the batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from graphc.ir.graph import Array
from graphc.train.batches import size_of
from graphc.train.checkpoint import METRIC
from graphc.train.metrics import Metric


class Totals:
    """`loss` over `weight` is the mean loss; `examples` of the batches so far, `skipped` the batches that did not count."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = list(metrics)
        self.loss = self.weight = 0.0
        self.examples = self.skipped = 0

    def fresh(self) -> Totals:
        """The same metrics from the start, apart from these."""
        made = Totals(deepcopy(self.metrics))
        made.reset()
        return made

    def add(self, loss: float, weight: float, outputs: Any, x: Any, y: Any) -> None:
        """A batch with the sum of its losses and their weight in the mean."""
        self.loss += loss
        self.weight += weight
        self.examples += size_of(x)
        for metric in self.metrics:
            metric.update(outputs, y)

    def reset(self) -> None:
        self.loss = self.weight = 0.0
        self.examples = self.skipped = 0
        for metric in self.metrics:
            metric.reset()

    @property
    def mean_loss(self) -> float:
        """nan where nothing counted."""
        return self.loss / self.weight if self.weight else math.nan

    def logs(self) -> dict[str, float]:
        return {"loss": self.mean_loss, **{metric.name: metric.result() for metric in self.metrics}}

    # what a checkpoint keeps --------------------------------------------------------------------------------------------------

    @property
    def arrays(self) -> dict[str, Array]:
        return {METRIC + metric.name: np.asarray(metric.total) for metric in self.metrics}

    @property
    def numbers(self) -> dict[str, float]:
        return {"loss": self.loss, "weight": self.weight, "examples": self.examples, "skipped": self.skipped}

    def restore(self, numbers: Mapping[str, float], arrays: Mapping[str, Array]) -> None:
        self.loss, self.weight = float(numbers["loss"]), float(numbers["weight"])
        self.examples, self.skipped = int(numbers["examples"]), int(numbers["skipped"])
        for metric in self.metrics:
            metric.total = arrays[METRIC + metric.name]
