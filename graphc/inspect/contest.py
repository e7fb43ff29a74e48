"""Timing contestants against each other in one process, so that noise hits all of them alike.

Every round calls each contestant: the order rotates from round to round; before each one's timed calls there is a pause (threads of
another engine may still spin after a run) and one untimed call (caches, clocks). Ratios are paired: within a round, then the median.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

GAP = 0.02  # seconds


@dataclass(frozen=True)
class Times:
    """Seconds per call: `rounds[i]` are the timed calls of round i."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> float:
        return min(min(calls) for calls in self.rounds)

    @property
    def median(self) -> float:
        return median(call for calls in self.rounds for call in calls)

    def ratio(self, other: Times) -> float:
        """How many times as long as these the other's calls take: the median over rounds of the ratio of the medians of a round."""
        return median(median(theirs) / median(mine) for mine, theirs in zip(self.rounds, other.rounds, strict=True))


def contest(
    contestants: Mapping[str, Callable[[], object]], rounds: Iterable[int], calls: int, *, gap: float = GAP,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:  # fmt: skip
    """Time every contestant in each of the `rounds` (their numbers), `calls` timed calls each.

    `clock`: seconds. time.process_time gives what one thread would take on an idle machine where others are at work; with more threads it
    also counts waiting.
    """
    names = list(contestants)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for number in rounds:
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(gap)
            contestants[name]()
            found[name].append(_timed(contestants[name], calls, clock))
    return {name: Times(tuple(times)) for name, times in found.items()}


@dataclass(frozen=True)
class Latency:
    """Seconds of single calls, one after the other; `idle`: CPU seconds that the process used in each second after the last."""

    runs: int
    median: float
    p90: float
    p99: float
    max: float
    idle: float


def latency(call: Callable[[], object], runs: int, *, gap: float = GAP, rest: float = 0.25) -> Latency:
    """`runs` timed calls after one that is not; then CPU use in `rest` seconds of doing nothing."""
    time.sleep(gap)
    call()
    times = sorted(_timed(call, runs, time.perf_counter))
    before, start = time.process_time(), time.perf_counter()
    time.sleep(rest)
    idle = (time.process_time() - before) / (time.perf_counter() - start)
    return Latency(runs, percentile(times, 0.5), percentile(times, 0.9), percentile(times, 0.99), times[-1], idle)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the values that this share of them does not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _timed(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> tuple[float, ...]:
    times = []
    for _ in range(calls):
        start = clock()
        call()
        times.append(clock() - start)
    return tuple(times)
