"""What the benchmarks share: how long contestants are timed, a kernel's figures, and lines of Markdown tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.backend import StepTime
from graphc.inspect.contest import Times, contest

_ROUNDS = (5, 40)  # fewest and most
_CALL_SECONDS = 0.05  # timed calls of one contestant in a round


def timed(
    contestants: Mapping[str, Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Times]:  # fmt: skip
    """About `seconds` of timing for all contestants together, within _ROUNDS."""
    trial = contest(contestants, range(2), 1, clock=clock)
    slowest = max(times.best for times in trial.values())
    calls = max(1, min(20, int(_CALL_SECONDS / slowest)))
    round_seconds = sum(0.02 + (calls + 1) * times.best for times in trial.values())
    return contest(contestants, range(max(_ROUNDS[0], min(_ROUNDS[1], int(seconds / round_seconds)))), calls, clock=clock)


def slowest_kernels(steps: Sequence[StepTime], count: int) -> list[dict[str, Any]]:
    """The figures of the kernels that take longest."""
    return [
        {
            "label": step.label, "family": step.family, "seconds": step.seconds, "gflops": step.flops / step.seconds / 1e9,
            "gbytes": step.bytes / step.seconds / 1e9, "origins": step.origins[:3],
        }
        for step in sorted(steps, key=lambda step: -step.seconds)[:count]
    ]  # fmt: skip


def table_head(cells: Sequence[str]) -> list[str]:
    return [table_line(cells), table_line(["---"] * len(cells))]


def table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
