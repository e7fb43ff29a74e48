"""Learning-rate schedules: names, defaults and numbers of torch.optim.lr_scheduler.

A schedule is a frozen description. `rate(base, step, epoch, state)` is a function of the optimizer's own rate `base`, of the steps done so
far, of the epochs done so far, and, for `Plateau` alone, of a small state that the trainer keeps and writes into checkpoints. `per` says
which of the two counts is the time t: "epoch" (once after each epoch, PyTorch's habit and the default) or "step".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import AttributeValueError, InputError

__all__ = [
    "Constant", "Function", "Step", "MultiStep", "Exponential", "Polynomial", "Cosine", "CosineRestarts", "Warmup", "OneCycle",
    "Plateau", "Schedule",
]  # fmt: skip

State = dict[str, Any]  # numbers and None: it is written as JSON


@dataclass(frozen=True)
class Schedule(ABC):
    """`per`: the unit of time, "step" or "epoch"."""

    per: str = field(default="epoch", kw_only=True)

    def __post_init__(self) -> None:
        _check(self.per in ("step", "epoch"), self, "per", '"step" or "epoch"')

    @abstractmethod
    def at(self, base: float, time: int) -> float:
        """The learning rate at a time from 0."""

    def rate(self, base: float, step: int = 0, epoch: int = 0, state: State | None = None) -> float:
        """The learning rate of the step that follows `step` steps and `epoch` epochs."""
        return self.at(base, self.time(step, epoch))

    def time(self, step: int, epoch: int) -> int:
        return step if self.per == "step" else epoch

    def start(self) -> State:
        """The state before the first step."""
        return {}

    def observe(self, state: State, base: float, logs: Mapping[str, float]) -> State:
        """The state after an epoch that ended with these losses and metrics."""
        return state


@dataclass(frozen=True)
class Constant(Schedule):
    """base"""

    def at(self, base: float, time: int) -> float:
        return base


@dataclass(frozen=True)
class Function(Schedule):
    """base * factor(t); LambdaLR."""

    factor: Callable[[int], float]

    def at(self, base: float, time: int) -> float:
        return base * float(self.factor(time))


@dataclass(frozen=True)
class Step(Schedule):
    """base * gamma^floor(t / size); StepLR."""

    size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.size >= 1, self, "size", "at least 1")

    def at(self, base: float, time: int) -> float:
        return base * self.gamma ** (time // self.size)


@dataclass(frozen=True)
class MultiStep(Schedule):
    """base * gamma^(how many milestones are at or before t); MultiStepLR."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def at(self, base: float, time: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, time)


@dataclass(frozen=True)
class Exponential(Schedule):
    """base * gamma^t; ExponentialLR."""

    gamma: float

    def at(self, base: float, time: int) -> float:
        return base * self.gamma**time


@dataclass(frozen=True)
class Polynomial(Schedule):
    """base * (1 - min(t, length) / length)^power; PolynomialLR."""

    length: int
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.length >= 1, self, "length", "at least 1")

    def at(self, base: float, time: int) -> float:
        return base * math.pow(1.0 - min(time, self.length) / self.length, self.power)


@dataclass(frozen=True)
class Cosine(Schedule):
    """low + (base - low) (1 + cos(pi t / length)) / 2, which rises again after `length`; CosineAnnealingLR (T_max, eta_min).

    Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    length: int
    low: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.length >= 1, self, "length", "at least 1")

    def at(self, base: float, time: int) -> float:
        return _cosine(base, self.low, time / self.length)


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """A cosine from base to low over `length`, then again over length * factor, and so on; CosineAnnealingWarmRestarts (T_0, T_mult)."""

    length: int
    factor: int = 1
    low: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.length >= 1, self, "length", "at least 1")
        _check(isinstance(self.factor, int) and self.factor >= 1, self, "factor", "a whole number, at least 1")

    def at(self, base: float, time: int) -> float:
        length = self.length
        if self.factor == 1:
            time %= length
        while time >= length:
            time, length = time - length, length * self.factor
        return _cosine(base, self.low, time / length)


@dataclass(frozen=True)
class Warmup(Schedule):
    """base * (start_factor + (1 - start_factor) t / length) for t < length, then another schedule (None: base).

    LinearLR, and SequentialLR with what follows: time begins at 0 for `then` where both count in the same unit; where they do not, `then`
    sees the whole count of its own unit. Counts steps by default.
    """

    length: int
    then: Schedule | None = None
    start_factor: float = 1.0 / 3
    per: str = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.length >= 1, self, "length", "at least 1")
        _check(0 < self.start_factor <= 1, self, "start_factor", "above 0, at most 1")

    def at(self, base: float, time: int) -> float:
        return base * (self.start_factor + (1 - self.start_factor) * min(time, self.length) / self.length)

    def rate(self, base: float, step: int = 0, epoch: int = 0, state: State | None = None) -> float:
        time = self.time(step, epoch)
        if time < self.length or self.then is None:
            return self.at(base, time)
        if self.then.per == self.per:
            step, epoch = (step - self.length, epoch) if self.per == "step" else (step, epoch - self.length)
        return self.then.rate(base, step, epoch, state)

    def start(self) -> State:
        return self.then.start() if self.then else {}

    def observe(self, state: State, base: float, logs: Mapping[str, float]) -> State:
        return self.then.observe(state, base, logs) if self.then else state


@dataclass(frozen=True)
class OneCycle(Schedule):
    """From max_rate / div_factor up to max_rate over the first part `up` of `length` steps, then down to the first rate / final_div_factor.

    OneCycleLR with cycle_momentum=False; Smith and Topin 2018, arXiv:1708.07120. The optimizer's rate is not used. `three_phase`: down to
    the first rate over another part `up`, then to the end. `anneal`: "cos" or "linear". Counts steps by default. Raises
    AttributeValueError for t >= length.
    """

    max_rate: float
    length: int
    up: float = 0.3
    anneal: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False
    per: str = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.length >= 1, self, "length", "at least 1")
        _check(0 <= self.up <= 1, self, "up", "from 0 to 1")
        _check(self.anneal in ("cos", "linear"), self, "anneal", '"cos" or "linear"')
        _check(self.div_factor > 0 and self.final_div_factor > 0, self, "div_factor", "above 0, as final_div_factor")

    def at(self, base: float, time: int) -> float:
        if time >= self.length:
            raise AttributeValueError(f"OneCycle(length={self.length}) at {self.per} {time}", hint="length = all steps of the training")
        first = self.max_rate / self.div_factor
        peak, last = self.up * self.length - 1, float(self.length - 1)
        phases = [(peak, first, self.max_rate), (last, self.max_rate, first / self.final_div_factor)]
        if self.three_phase:
            down = 2 * self.up * self.length - 2
            phases[1:] = [(down, self.max_rate, first), (last, first, first / self.final_div_factor)]
        begin = 0.0
        for end, low, high in phases:
            if time <= end or end == last:
                part = (time - begin) / (end - begin) if end != begin else 1.0
                return _cosine(low, high, part) if self.anneal == "cos" else low + (high - low) * part
            begin = end
        raise AssertionError("the last phase ends at the last step")


@dataclass(frozen=True)
class Plateau(Schedule):
    """rate * factor, at least `low`, after more than `patience` epochs without a better `monitor`; ReduceLROnPlateau.

    Better: by the part `threshold` of the best (relative=True) or by `threshold`; `mode`: "min" or "max". After a reduction `cooldown`
    epochs do not count. A change of at most `eps` is none.
    """

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: int = 10
    mode: str = "min"
    threshold: float = 1e-4
    relative: bool = True
    cooldown: int = 0
    low: float = 0.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.factor < 1, self, "factor", "below 1")
        _check(self.mode in ("min", "max"), self, "mode", '"min" or "max"')
        _check(self.per == "epoch", self, "per", '"epoch": it looks at what an epoch ends with')

    def at(self, base: float, time: int) -> float:
        return base

    def rate(self, base: float, step: int = 0, epoch: int = 0, state: State | None = None) -> float:
        reduced = (state or {}).get("rate")
        return base if reduced is None else float(reduced)

    def start(self) -> State:
        return {"best": None, "bad": 0, "cooldown": 0, "rate": None}

    def observe(self, state: State, base: float, logs: Mapping[str, float]) -> State:
        if self.monitor not in logs:
            raise InputError(f"Plateau looks at {self.monitor!r}, which is not measured", hint=f"one of {', '.join(logs)}")
        value, best = float(logs[self.monitor]), state["best"]
        better = not math.isnan(value) and (best is None or self._better(value, best))
        best, bad = (value, 0) if better else (best, state["bad"] + 1)
        cooldown, rate = state["cooldown"], state["rate"]
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self.patience:
            old = base if rate is None else rate
            new = max(old * self.factor, self.low)
            rate = new if old - new > self.eps else rate
            cooldown, bad = self.cooldown, 0
        return {"best": best, "bad": bad, "cooldown": cooldown, "rate": rate}

    def _better(self, value: float, best: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        margin = self.threshold * (best if self.relative else 1.0)
        return sign * value > sign * (best + sign * margin)


def as_schedule(schedule: Schedule | Callable[[int], float] | None) -> Schedule:
    """A schedule, a function of the number of epochs (a factor of the rate, as LambdaLR), or None for a constant rate."""
    if schedule is None:
        return Constant()
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule):
        return Function(schedule)
    raise AttributeValueError(f"schedule={schedule!r}", hint="graphc.schedules.Cosine(epochs), ..., or a function of the epoch")


def _cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1.0 + math.cos(math.pi * part)) / 2.0


def _check(holds: bool, schedule: Schedule, name: str, hint: str) -> None:
    if not holds:
        raise AttributeValueError(f"{type(schedule).__name__}: {name} = {getattr(schedule, name)!r}", hint=hint)
