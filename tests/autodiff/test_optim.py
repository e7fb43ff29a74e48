"""Optimizers against torch.optim: five steps with the same gradients, in float64 and float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autodiff.optim import SGD, Adam, AdamW, Group, Optimizer, RMSProp
from graphc.errors import AttributeValueError, InputError
from graphc.train.step import TrainStep

torch: Any = pytest.importorskip("torch")

PAIRS: dict[str, tuple[Optimizer, Any]] = {
    "sgd": (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd, default rate": (SGD(), torch.optim.SGD),
    "decay": (SGD(lr=0.1, weight_decay=0.05), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05)),
    "momentum": (SGD(lr=0.1, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)),
    "dampening": (SGD(lr=0.1, momentum=0.8, dampening=0.3), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.3)),
    "nesterov": (SGD(lr=0.1, momentum=0.9, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
    "rmsprop": (RMSProp(), torch.optim.RMSprop),
    "rmsprop, all": (
        RMSProp(0.02, 0.9, 1e-6, 0.01, 0.8, centered=True),
        lambda p: torch.optim.RMSprop(p, lr=0.02, alpha=0.9, eps=1e-6, weight_decay=0.01, momentum=0.8, centered=True),
    ),
    "adam": (Adam(), torch.optim.Adam),
    "adam, decay": (Adam(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), weight_decay=0.1)),
    "amsgrad": (Adam(lr=0.05, amsgrad=True), lambda p: torch.optim.Adam(p, lr=0.05, amsgrad=True)),
    "adamw": (AdamW(), torch.optim.AdamW),
    "adamw, all": (AdamW(lr=0.02, weight_decay=0.3, amsgrad=True), lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3, amsgrad=True)),
}


@graphc.model
def double(x: graphc.f64["N", 5]) -> Any:
    return graphc.linear(graphc.linear(x, 4, activation="tanh", name="a"), 3, name="b")


@graphc.model
def single(x: graphc.f32["N", 5]) -> Any:
    return graphc.linear(graphc.linear(x, 4, activation="tanh", name="a"), 3, name="b")


@pytest.mark.parametrize("model", [double, single], ids=["f64", "f32"])
@pytest.mark.parametrize("name", list(PAIRS))
def test_five_steps(name: str, model: Any) -> None:
    optimizer, make = PAIRS[name]
    step = TrainStep(model, loss="mse", optimizer=optimizer, threads=1)
    dtype = step.parameters["a.weight"].dtype
    parameters = {key: torch.from_numpy(array).requires_grad_() for key, array in step.parameters.items()}
    peer = make(list(parameters.values()))
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, y = rng.standard_normal((6, 5)).astype(dtype), rng.standard_normal((6, 3)).astype(dtype)
        hidden = torch.tanh(torch.nn.functional.linear(torch.from_numpy(x), parameters["a.weight"], parameters["a.bias"]))
        loss = torch.nn.functional.mse_loss(
            torch.nn.functional.linear(hidden, parameters["b.weight"], parameters["b.bias"]), torch.from_numpy(y)
        )
        peer.zero_grad()
        loss.backward()
        peer.step()
        assert step(x, y)["loss"] == pytest.approx(loss.item(), rel=1e-10 if dtype == np.float64 else 1e-4)
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == np.float64 else {"rtol": 2e-4, "atol": 2e-5}
    for key, ours in step.parameters.items():
        np.testing.assert_allclose(ours, parameters[key].detach().numpy(), **tolerance, err_msg=key)


GROUPS = (Group("b.*", lr_scale=0.5), Group(max_rank=1, weight_decay=0.0, l1=0.0, l2=0.0))


@pytest.mark.parametrize("make", [SGD, AdamW], ids=["sgd", "adamw"])
def test_groups_and_regularisation(make: Any) -> None:
    """Against torch with parameter groups, and the penalties in the loss."""
    step = TrainStep(double, loss="mse", optimizer=make(lr=0.1, weight_decay=0.2, l1=0.03, l2=0.05, groups=GROUPS), threads=1)
    parameters = {key: torch.from_numpy(array).requires_grad_() for key, array in step.parameters.items()}
    rows = [{"params": [parameters["a.weight"]]}, {"params": [parameters["b.weight"], parameters["b.bias"]], "lr": 0.05},
            {"params": [parameters["a.bias"]], "weight_decay": 0.0}]  # fmt: skip
    peer = (torch.optim.SGD if make is SGD else torch.optim.AdamW)(rows, lr=0.1, weight_decay=0.2)
    rng = np.random.default_rng(3)
    for _ in range(3):
        x, y = rng.standard_normal((6, 5)), rng.standard_normal((6, 3))
        hidden = torch.tanh(torch.nn.functional.linear(torch.from_numpy(x), parameters["a.weight"], parameters["a.bias"]))
        output = torch.nn.functional.linear(hidden, parameters["b.weight"], parameters["b.bias"])
        loss = torch.nn.functional.mse_loss(output, torch.from_numpy(y))
        punished = [parameters[name] for name in ("a.weight", "b.weight", "b.bias")]
        peer.zero_grad()
        (loss + sum(0.03 * p.abs().sum() + 0.025 * (p * p).sum() for p in punished)).backward()
        peer.step()
        assert step(x, y)["loss"] == pytest.approx(loss.item(), rel=1e-10), "without penalties"
    for key, ours in step.parameters.items():
        np.testing.assert_allclose(ours, parameters[key].detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=key)


def test_a_group_that_has_nothing_is_refused() -> None:
    step = TrainStep(single, loss="mse", optimizer=SGD(groups=Group("head.*")), threads=1)
    with pytest.raises(InputError, match=r"no trained parameter matches 'head\.\*'.*a\.weight"):
        step(np.ones((2, 5), np.float32), np.zeros((2, 3), np.float32))


def test_a_rate_of_ones_own() -> None:
    """The learning rate is an input: a schedule needs no new program."""
    steps = [TrainStep(single, loss="mse", optimizer=SGD(lr=rate), threads=1) for rate in (0.1, 0.5)]
    x, y = np.ones((2, 5), np.float32), np.zeros((2, 3), np.float32)
    steps[0](x, y, lr=0.5)
    steps[1](x, y)
    for key, array in steps[0].parameters.items():
        np.testing.assert_array_equal(array, steps[1].parameters[key])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(nesterov=True), "nesterov"),
        (lambda: SGD(lr=-1.0), "lr = -1.0"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: RMSProp(weight_decay=float("nan")), "weight_decay"),
        (lambda: SGD(l1=-1e-3), "l1"),
        (lambda: Group(lr_scale=-1.0), "lr_scale"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(AttributeValueError, match=message):
        make()
