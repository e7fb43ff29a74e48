"""Chooser: what answers the two questions of `graphc.kernel.choose`, from predictions or from times that a back end measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from graphc.kernel.choose import Candidate, ConvShape, choose_algorithm, choose_form
from graphc.target import Limits, Target


class Chooser(Protocol):
    """How convolutions are computed. The same answers in every run and for any number of threads: the algorithm decides the bits."""

    def algorithm(self, shape: ConvShape, accuracy: str) -> str:
        """The name of the sum."""
        ...

    def form(self, shape: ConvShape, algorithm: str) -> Candidate:
        """The form in which that sum is computed; every form has the same bits."""
        ...


@dataclass(frozen=True)
class Predicted:
    """By the cost model. `limits`, where given, are measured rates of the machine: they change forms, and no algorithm."""

    target: Target
    limits: Limits | None = None

    def algorithm(self, shape: ConvShape, accuracy: str) -> str:
        return choose_algorithm(shape, self.target, accuracy)

    def form(self, shape: ConvShape, algorithm: str) -> Candidate:
        return choose_form(shape, algorithm, self.target, self.limits)
