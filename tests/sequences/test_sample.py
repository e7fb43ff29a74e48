"""graphc.sample: the distribution by chi-square, what top_k and top_p leave, the same bits for any threads, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, GraphcError, TypeMismatchError

ROWS, CLASSES = 4096, 8
LOGITS = np.array([0.3, -1.0, 2.0, 0.0, 1.1, -np.inf, -3.0, 0.3], np.float32)
# The quantile 0.999 of chi-square with 0 to 7 degrees of freedom (Abramowitz and Stegun 1964, table 26.8).
LIMITS = (0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32)


def _model(rows: int = ROWS, classes: int = CLASSES, **options: Any) -> Any:
    @graphc.model
    def net(logits: graphc.f32[rows, classes], step: graphc.u64[()]) -> Any:
        return graphc.sample(logits, step=step, **{"seed": 11, **options})

    return net


def _drawn(exe: Any, logits: np.ndarray, steps: int = 8) -> np.ndarray:
    rows = np.broadcast_to(logits, (ROWS, CLASSES)).copy()
    return np.concatenate([exe(rows, np.uint64(step)) for step in range(steps)])


def _nucleus(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The probabilities that are left, in double precision."""
    x = logits.astype(np.float64) / temperature
    order = np.argsort(-x, kind="stable")[: top_k or None]
    p = np.exp(x[order] - x.max())
    p /= p.sum()
    count = int(np.searchsorted(np.cumsum(p), top_p)) + 1
    left = np.zeros(len(x))
    left[order[:count]] = p[:count] / p[:count].sum()
    return left


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (3.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.8), (2.0, 5, 0.85), (1.0, 7, 0.4)],
)
def test_the_distribution_is_the_softmax_of_what_is_left(temperature: float, top_k: int, top_p: float) -> None:
    exe = graphc.compile(_model(temperature=temperature, top_k=top_k, top_p=top_p), threads=2)
    found = np.bincount(_drawn(exe, LOGITS), minlength=CLASSES)
    expected = _nucleus(LOGITS, temperature, top_k, top_p) * found.sum()
    kept = expected > 0
    assert not found[~kept].any()
    chi = ((found - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi < LIMITS[kept.sum() - 1] or (kept.sum() == 1 and chi == 0)


def test_draws_of_rows_and_steps_are_independent() -> None:
    """Pairs of neighbours, in a row's next step and in the next row, are distributed as a product."""
    exe = graphc.compile(_model(classes=2), threads=1)
    rows = np.zeros((ROWS, 2), np.float32)
    first, second = (exe(rows, np.uint64(step)) for step in (0, 1))
    for one, two in ((first, second), (first[:-1:2], first[1::2])):
        found = np.bincount(2 * one + two, minlength=4)
        assert ((found - found.sum() / 4) ** 2 / (found.sum() / 4)).sum() < LIMITS[3]


def test_the_same_bits_for_any_threads_and_other_draws_for_another_seed_or_step() -> None:
    logits = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
    model = _model(top_k=6, top_p=0.9)
    exes = [graphc.compile(model, threads=threads) for threads in (1, 2, 4)]
    one, two, four = (exe(logits, np.uint64(5)) for exe in exes)
    assert one.tobytes() == two.tobytes() == four.tobytes() == exes[1](logits, np.uint64(5)).tobytes()
    other = graphc.compile(_model(top_k=6, top_p=0.9, seed=12), threads=1)
    for changed in (exes[0](logits, np.uint64(6)), exes[0](logits, np.uint64(5 + 2**31)), other(logits, np.uint64(5))):
        assert 0.2 < (changed != one).mean() < 0.9


def test_a_draw_that_is_left_in_stays() -> None:
    """The noise is that of the class, whatever is left out."""
    logits = np.random.default_rng(1).standard_normal((ROWS, CLASSES)).astype(np.float32)
    step = np.uint64(3)
    plain = graphc.compile(_model(), threads=1)(logits, step)
    best = np.argsort(-logits, axis=1)[:, :3]
    some = graphc.compile(_model(top_k=3), threads=1)(logits, step)
    inside = (best == plain[:, None]).any(1)
    assert (some[inside] == plain[inside]).all()
    assert (best == some[:, None]).any(1).all()
    np.testing.assert_array_equal(graphc.compile(_model(top_k=CLASSES), threads=1)(logits, step), plain)


def test_layers_of_one_model_draw_apart_and_seeds_may_be_inputs() -> None:
    @graphc.model
    def net(logits: graphc.f32["N", 8], seed: graphc.u64[()]) -> Any:
        return graphc.sample(logits, seed=seed, step=4, name="a"), graphc.sample(logits, seed=seed, step=4, name="b")

    exe = graphc.compile(net, threads=1)
    rows = np.zeros((ROWS, 8), np.float32)
    a, b = exe(rows, np.uint64(11))
    assert 0.8 < (a != b).mean() < 0.95
    np.testing.assert_array_equal(a, graphc.compile(_model(), threads=1)(rows, np.uint64(4)))
    few, _ = exe(rows[:3], np.uint64(11))
    np.testing.assert_array_equal(few, a[:3])  # the place in the batch, not its size


def test_the_number_of_the_run_may_be_state() -> None:
    @graphc.model
    def net(logits: graphc.f32["N", CLASSES]) -> Any:
        runs = graphc.state((), dtype=graphc.u64, name="runs")
        runs.assign(runs + 1)
        return graphc.sample(logits, seed=11, step=runs)

    exe, rows = graphc.compile(net, threads=2), np.zeros((ROWS, CLASSES), np.float32)
    by_input = graphc.compile(_model(), threads=1)
    for _ in range(2):
        for step in range(3):
            np.testing.assert_array_equal(exe(rows), by_input(rows, np.uint64(step)))
        exe.state.reset()


def test_rows_without_a_finite_largest_logit_and_minus_infinity() -> None:
    special = np.array([[0, np.nan], [np.inf, 0], [-np.inf, -np.inf], [-np.inf, -1e30]], np.float32)
    for options in ({}, {"temperature": 0}, {"top_p": 0.5}, {"top_k": 1}, {"temperature": 1e-20}):
        exe = graphc.compile(_model(4, 2, **options), threads=1)
        for step in range(20):
            assert exe(special, np.uint64(step)).tolist() == [-1, -1, -1, 1]


def test_temperature_0_takes_the_first_of_the_largest() -> None:
    exe = graphc.compile(_model(2, 4, temperature=0), threads=1)
    assert exe(np.array([[1, 3, 3, 2], [-0.0, 0.0, -1, 0]], np.float32), np.uint64(9)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -1.0}, AttributeValueError, "temperature -1.0"), ({"temperature": np.nan}, AttributeValueError, "temperature nan"),
        ({"top_k": -1}, AttributeValueError, "top_k"), ({"top_k": 1.5}, AttributeValueError, "top_k"),
        ({"top_p": 0.0}, AttributeValueError, "top_p 0.0"), ({"top_p": 1.5}, AttributeValueError, "top_p 1.5"),
        ({"seed": -1}, TypeMismatchError, "-1 does not fit u64"), ({"step": 0.5}, TypeMismatchError, "does not fit u64"),
    ],
)  # fmt: skip
def test_refusals(options: dict[str, Any], error: type[GraphcError], message: str) -> None:
    @graphc.model
    def net(logits: graphc.f32["N", 3]) -> Any:
        return graphc.sample(logits, **options)

    with pytest.raises(error, match=message):
        net.graph()


def test_each_iteration_of_a_loop_draws_anew() -> None:
    @graphc.model
    def net(logits: graphc.f32[4, 10, CLASSES], step: graphc.u64[()]) -> Any:
        def pair(seen: Any, row: Any) -> Any:
            drawn, _ = graphc.scan(lambda s, x: (s, graphc.sample(x, seed=3, step=step)), graphc.stack([row, row], 1), seen)
            return seen, drawn

        ys, _ = graphc.scan(pair, logits, graphc.zeros((4, 1)))
        return ys

    zeros = np.zeros((4, 10, CLASSES), np.float32)
    one, two = graphc.compile(net, threads=1), graphc.compile(net, threads=2)
    first, second = one(zeros, np.uint64(0)), one(zeros, np.uint64(1))
    np.testing.assert_array_equal(first, two(zeros, np.uint64(0)))
    np.testing.assert_array_equal(first, graphc.compile(net, backend="reference")(zeros, np.uint64(0)))
    rows = [column for drawn in (first, second) for column in drawn.reshape(4, -1).T.tolist()]
    assert len({tuple(row) for row in rows}) == len(rows) == 40
