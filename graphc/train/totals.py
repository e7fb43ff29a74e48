"""Loss and metrics over the examples so far: means over examples, whatever the sizes of the batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from graphc.ir.graph import Array
from graphc.train.checkpoint import METRIC
from graphc.train.metrics import Metric


class Totals:
    """`loss`: the sum over the batches of mean loss times examples."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = list(metrics)
        self.loss, self.examples = 0.0, 0

    def fresh(self) -> Totals:
        """The same metrics from the start, apart from these."""
        made = Totals(deepcopy(self.metrics))
        made.reset()
        return made

    def add(self, loss: float, outputs: Any, y: Any, examples: int) -> None:
        """A batch with its mean loss."""
        self.loss += loss * examples
        self.examples += examples
        for metric in self.metrics:
            metric.update(outputs, y)

    def reset(self) -> None:
        self.loss, self.examples = 0.0, 0
        for metric in self.metrics:
            metric.reset()

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.examples, 1)

    def logs(self, prefix: str = "") -> dict[str, float]:
        return {f"{prefix}loss": self.mean_loss, **{prefix + metric.name: metric.result() for metric in self.metrics}}

    @property
    def arrays(self) -> dict[str, Array]:
        """What a checkpoint keeps of the metrics."""
        return {METRIC + metric.name: np.asarray(metric.total) for metric in self.metrics}

    def restore(self, loss: float, examples: int, arrays: Mapping[str, Array]) -> None:
        self.loss, self.examples = loss, examples
        for metric in self.metrics:
            metric.total = arrays[METRIC + metric.name]
