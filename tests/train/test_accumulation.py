"""Gradient accumulation: several batches make the update of one big batch; state, statistics and dropout in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError, InputError, NumericalError
from graphc.train.step import TrainStep
from train.nets import CASES, torch

SIZES = (3, 1, 4)  # of the batches: unequal


@graphc.model
def net(x: graphc.f64["N", 6]) -> Any:
    return graphc.linear(graphc.linear(x, 8, activation="tanh", name="a"), 4, name="b")


def _batches(seed: int = 0) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, 6)) for n in SIZES], [rng.integers(0, 4, n) for n in SIZES]


LOSSES = {
    "mean": graphc.losses.CrossEntropy(), "sum": graphc.losses.CrossEntropy(reduction="sum"),
    "class weights": graphc.losses.CrossEntropy(weight=[1, 2, 0.5, 3], label_smoothing=0.1),
}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}], ids=["plain", "clipped"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_several_batches_equal_one(name: str, options: Any) -> None:
    made = {"loss": LOSSES[name], "optimizer": graphc.optim.Adam(lr=0.1), "threads": 1, **options}
    whole, parts = TrainStep(net, **made), TrainStep(net, **made, accumulate=len(SIZES))
    for turn in range(2):
        xs, ys = _batches(turn)
        whole(np.concatenate(xs), np.concatenate(ys))
        start = dict(parts.parameters)
        found = [parts(x, y) for x, y in zip(xs, ys, strict=True)]
        assert [result["updated"] for result in found] == [False, False, True]
        assert not any(np.array_equal(parts.parameters[key], start[key]) for key in start)
    for key, array in whole.state.items():
        np.testing.assert_allclose(parts.state[key], array, rtol=1e-9, atol=1e-12, err_msg=key)
    assert int(parts.state["train.step"]) == 2
    assert int(parts.state["train.batches"]) == 2 * len(SIZES)
    assert not parts.state["a.weight.grad_sum"].any()


def test_an_update_before_its_time_and_a_state_in_between() -> None:
    xs, ys = _batches()
    first = TrainStep(net, threads=1, accumulate=5)
    first(xs[0], ys[0])
    second = TrainStep(net, threads=1, accumulate=5)
    second.state = first.state
    assert second(xs[1], ys[1], update=True)["updated"]
    whole = TrainStep(net, threads=1)
    whole(np.concatenate(xs[:2]), np.concatenate(ys[:2]))
    for key, array in whole.parameters.items():
        np.testing.assert_allclose(second.parameters[key], array, rtol=1e-10, err_msg=key)
    assert int(second.state["train.waiting"]) == 0


def test_statistics_move_at_each_batch_as_in_torch() -> None:
    case = CASES["residual"]
    step = TrainStep(case.model, optimizer=graphc.optim.SGD(lr=0.05, momentum=0.9), threads=2, accumulate=2)
    peer = case.torch(dict(step.parameters))
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.05, momentum=0.9)
    for turn in range(2):
        for part in range(2):
            x, y = case.batch(4, seed=10 * turn + part)
            loss = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x)), torch.from_numpy(y))
            (loss / 2).backward()
            assert step(x, y)["loss"] == pytest.approx(loss.item(), rel=2e-4)
        optimizer.step()
        optimizer.zero_grad()
    for key, array in step.parameters.items():
        np.testing.assert_allclose(array, peer.state_dict()[key].numpy(), rtol=2e-3, atol=2e-5, err_msg=key)


def test_dropout_differs_from_batch_to_batch() -> None:
    @graphc.model
    def dropping(x: graphc.f32["N", 64]) -> Any:
        return graphc.dropout(x * 1.0, 0.5)

    x = np.ones((2, 64), np.float32)
    step = TrainStep(dropping, loss="mse", threads=1, accumulate=3)
    masks = [step(x, x)["outputs"] for _ in range(3)]
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_same_bits_for_any_number_of_threads(accumulate: int) -> None:
    case, states = CASES["residual"], []
    for threads in (1, 2, 4):
        step = TrainStep(case.model, threads=threads, accumulate=accumulate, clip_norm=1.0)
        for turn in range(accumulate + 1):
            step(*case.batch(5, seed=turn))
        states.append(step.state)
    for other in states[1:]:
        for key, array in other.items():
            np.testing.assert_array_equal(array, states[0][key], err_msg=key)


# NaN and infinity -------------------------------------------------------------------------------------------------------------


@graphc.model
def steep(x: graphc.f32["N", 2]) -> Any:
    y = graphc.linear(x, 2, weight_init=1.0, name="fc")
    return graphc.log(y, name="logarithm")


GOOD, ZERO = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    step = TrainStep(steep, loss="mse", optimizer=graphc.optim.Adam(), threads=1)
    step(GOOD, GOOD)
    before = step.state
    step.parameters["fc.bias"] = np.full(2, -9, np.float32)
    with pytest.raises(NumericalError, match=r"step 2: the loss is nan: log 'logarithm'.*test_accumulation.* first node.*Nothing was"):
        step(GOOD, GOOD)
    step.parameters["fc.bias"] = before["fc.bias"]
    for key, array in step.state.items():
        np.testing.assert_array_equal(array, before[key], err_msg=key)
    bad = GOOD.copy()
    bad[1, 1] = np.inf
    with pytest.raises(NumericalError, match="input 'x' holds numbers that are NaN or infinite"):
        step(bad, GOOD)
    with pytest.raises(NumericalError, match=r"input 'train.target' holds"):
        step(GOOD, bad)
    assert step.diagnose(GOOD, GOOD) == ""
    assert step(GOOD, GOOD)["finite"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_no_number(accumulate: int) -> None:
    """sqrt at 0: the loss is 1, the slope infinite."""

    @graphc.model
    def root(x: graphc.f32["N", 2]) -> Any:
        return graphc.sqrt(graphc.linear(x, 2, weight_init=1.0, bias=False, name="fc"), name="root")

    target = np.ones((2, 2), np.float32)
    made = {"loss": "mse", "threads": 1, "accumulate": accumulate, "check_gradients": True}
    with pytest.raises(NumericalError, match=r"the loss is 1.0, the norm of the gradients (nan|inf).*'root:grad'"):
        TrainStep(root, **made)(ZERO, target, update=True)
    step = TrainStep(root, **made, nonfinite="skip")
    for _ in range(2 * accumulate - 1):
        assert step(GOOD, target)["finite"]
    before = step.state
    found = step(ZERO, target)
    assert (found["finite"], found["updated"], found["loss"]) == (False, False, 1.0)
    for key, array in step.state.items():
        np.testing.assert_array_equal(array, before[key], err_msg=key)
    assert step(GOOD, target)["updated"]
    careless = TrainStep(root, loss="mse", threads=1, nonfinite="report")
    careless(ZERO, target)
    assert not np.isfinite(careless.parameters["fc.weight"]).all()


def test_norms_are_reported() -> None:
    case = CASES["lenet5"]
    x, y = case.batch(4)
    grads = TrainStep(case.model, threads=1).gradients(x, y)["grads"].values()
    norm = float(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads)))
    for options in ({"check_gradients": True}, {"clip_norm": 1e-3}):
        assert TrainStep(case.model, threads=1, **options)(x, y)["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert TrainStep(case.model, threads=1)(x, y)["grad_norm"] is None


def test_refusals() -> None:
    for options in ({"accumulate": 0}, {"accumulate": 1.5}, {"nonfinite": "ignore"}):
        with pytest.raises(AttributeValueError, match=next(iter(options))):
            TrainStep(net, **options)
    xs, ys = _batches()
    with pytest.raises(InputError, match="does not accumulate"):
        TrainStep(net)(xs[0], ys[0], update=False)
    fixed = TrainStep(net, dims={"N": 4})
    with pytest.raises(InputError, match="axis 0 is 3, not 4"):
        fixed(xs[0], ys[0])
    assert "train.step" not in fixed.state
