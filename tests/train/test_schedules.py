"""Learning rates against torch.optim.lr_scheduler, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError
from graphc.train import schedules as s

BASE = 0.3


def _theirs(make: Callable[[Any, Any], Any], times: int) -> list[float]:
    torch: Any = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR calls step(epoch), which PyTorch itself calls deprecated
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        rates = []
        for _ in range(times):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


CASES: dict[str, tuple[s.Schedule, Callable[[Any, Any], Any], int]] = {
    "step": (s.Step(4, gamma=0.5), lambda m, o: m.StepLR(o, 4, gamma=0.5), 20),
    "multi": (s.MultiStep((9, 3, 3), gamma=0.2), lambda m, o: m.MultiStepLR(o, [3, 3, 9], gamma=0.2), 15),
    "exponential": (s.Exponential(0.9), lambda m, o: m.ExponentialLR(o, 0.9), 15),
    "polynomial": (s.Polynomial(7, power=2.0), lambda m, o: m.PolynomialLR(o, 7, power=2.0), 12),
    "lambda": (s.as_schedule(lambda t: 1 / (1 + t)), lambda m, o: m.LambdaLR(o, lambda t: 1 / (1 + t)), 9),
    "cosine": (s.Cosine(8, low=0.01), lambda m, o: m.CosineAnnealingLR(o, 8, eta_min=0.01), 40),
    "restarts": (s.CosineRestarts(5, low=0.02), lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, eta_min=0.02), 23),
    "restarts longer": (s.CosineRestarts(3, 2), lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, T_mult=2), 50),
    "warmup": (s.Warmup(6), lambda m, o: m.LinearLR(o, total_iters=6), 12),
    "warmup then cosine": (
        s.Warmup(4, s.Cosine(10, per="step"), start_factor=0.1),
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, total_iters=4), m.CosineAnnealingLR(o, 10)], [4]),
        14,
    ),
    "one cycle": (s.OneCycle(1.0, 20), lambda m, o: m.OneCycleLR(o, 1.0, 20, cycle_momentum=False), 20),
    "one cycle linear": (
        s.OneCycle(0.5, 33, up=0.25, anneal="linear", div_factor=10.0, final_div_factor=100.0),
        lambda m, o: m.OneCycleLR(
            o, 0.5, 33, pct_start=0.25, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0, cycle_momentum=False
        ),
        33,
    ),
    "one cycle of three": (
        s.OneCycle(0.5, 40, three_phase=True), lambda m, o: m.OneCycleLR(o, 0.5, 40, three_phase=True, cycle_momentum=False), 40,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_rates_are_those_of_torch(name: str) -> None:
    schedule, make, times = CASES[name]
    ours = [schedule.rate(BASE, step=t, epoch=t) for t in range(times)]
    np.testing.assert_allclose(ours, _theirs(make, times), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"patience": 2, "cooldown": 3}, {"mode": "max", "patience": 1, "factor": 0.5}, {"patience": 0, "low": 1e-3, "threshold": 0.05},
        {"relative": False, "threshold": 0.02, "patience": 1}, {"mode": "max", "relative": False, "patience": 3, "cooldown": 1},
    ],
)  # fmt: skip
def test_plateau_is_that_of_torch(options: dict[str, Any]) -> None:
    torch: Any = pytest.importorskip("torch")
    same = {key: value for key, value in options.items() if key not in ("low", "relative")}
    theirs = {**same, "min_lr": options.get("low", 0), "threshold_mode": "rel" if options.get("relative", True) else "abs"}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **theirs)
    plateau = s.Plateau("loss", **options)
    state = plateau.start()
    values = 1 / np.arange(1, 30) + np.random.default_rng(0).uniform(0, 0.1, 29)
    reduced = set()
    for epoch, value in enumerate([*values, float("nan"), *np.full(30, 0.5)]):
        scheduler.step(value)
        state = plateau.observe(state, BASE, {"loss": value})
        rate = plateau.rate(BASE, 100 * epoch, epoch, state)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), epoch
        reduced.add(rate)
    assert len(reduced) > 1


def test_units_of_time() -> None:
    assert s.Step(1).rate(1.0, step=9, epoch=1) == pytest.approx(0.1)
    assert s.Step(1, per="step").rate(1.0, step=2, epoch=9) == pytest.approx(0.01)
    mixed = s.Warmup(10, s.Step(2, gamma=0.5))
    assert [mixed.rate(1.0, step, step // 5) for step in (0, 5, 10, 20)] == pytest.approx([1 / 3, 2 / 3, 0.5, 0.25])


def test_warmup_hands_the_state_on() -> None:
    warm = s.Warmup(2, s.Plateau("loss", patience=0))
    state = warm.observe(warm.observe(warm.start(), 1.0, {"loss": 1.0}), 1.0, {"loss": 1.0})
    assert warm.rate(1.0, 0, 2, state) == pytest.approx(1 / 3)
    assert warm.rate(1.0, 2, 2, state) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: s.Step(0), lambda: s.Cosine(0), lambda: s.Warmup(0), lambda: s.Warmup(3, start_factor=0.0), lambda: s.OneCycle(1.0, 0),
        lambda: s.OneCycle(1.0, 9, up=2.0), lambda: s.OneCycle(1.0, 9, anneal="exp"), lambda: s.Plateau(factor=1.0),
        lambda: s.Plateau(mode="least"), lambda: s.Plateau(per="step"), lambda: s.Constant(per="week"), lambda: s.CosineRestarts(3, 0),
        lambda: s.Polynomial(0), lambda: s.as_schedule(3), lambda: s.OneCycle(1.0, 9).rate(1.0, 9),
    ],
)  # fmt: skip
def test_nonsense(make: Callable[[], Any]) -> None:
    with pytest.raises(AttributeValueError, match="Try: "):
        make()


def test_plateau_of_what_is_not_measured() -> None:
    plateau = s.Plateau("val_acc")
    with pytest.raises(InputError, match=r"'val_acc'.*one of loss, lr"):
        plateau.observe(plateau.start(), 1.0, {"loss": 1.0, "lr": 1.0})


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        s.Cosine(3).length = 4  # type: ignore[misc]
    assert graphc.schedules.Cosine(3) == s.Cosine(3)
