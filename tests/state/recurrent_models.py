"""A recurrent classifier of steps in the DSL, whose states are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc

WIDTH, UNITS, CLASSES = 6, 20, 5


def stateful(kind: str, batch: int = 1, layers: int = 1, steps: int | str = "T") -> Any:
    """x (batch, steps, WIDTH) -> scores (batch, steps, CLASSES); states h (and c of an lstm)."""

    @graphc.model
    def net(x: graphc.f32[batch, steps, WIDTH]):  # type: ignore[no-untyped-def]
        names = ("h", "c") if kind == "lstm" else ("h",)
        states = {f"{name}0": graphc.state((batch, layers, UNITS), name=name) for name in names}
        y, *last = getattr(graphc, kind)(x, UNITS, layers, name="cell", **states)
        for state, new in zip(states.values(), last, strict=True):
            state.assign(new)
        return graphc.linear(y, CLASSES, name="out")

    return net


def sequence(batch: int, steps: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((batch, steps, WIDTH), np.float32)
