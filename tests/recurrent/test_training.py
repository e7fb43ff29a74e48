"""Recurrent layers in a training step: gradients of all parameters are those of PyTorch's modules on packed sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch")
N, T, WIDTH, UNITS, LENGTHS = 4, 6, 5, 7, np.array([6, 1, 4, 2])
ORDER = {"rnn": (0,), "lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}  # our gates in PyTorch's order


def _ordered(kind: str, rows: Any) -> Any:
    return np.concatenate([np.split(rows, len(ORDER[kind]))[gate] for gate in ORDER[kind]])


def _expected(kind: str, layers: int, parameters: dict[str, Any], x: Any, target: Any) -> tuple[float, dict[str, Any]]:
    """The loss, and its gradients under PyTorch's names."""
    module = getattr(torch.nn, kind.upper())(WIDTH, UNITS, layers, bidirectional=True, batch_first=True)
    for layer in range(layers):
        for k in range(2):
            end = f"l{layer}" + ("_reverse" if k else "")
            inside = np.zeros_like(parameters[f"l.{layer}.bias"][k])
            if kind == "gru":
                inside[2 * UNITS :] = parameters[f"l.{layer}.recurrent_bias"][k]
            new = {"weight_ih": parameters[f"l.{layer}.weight"][k], "weight_hh": parameters[f"l.{layer}.recurrent_weight"][k],
                   "bias_ih": parameters[f"l.{layer}.bias"][k], "bias_hh": inside}  # fmt: skip
            for key, value in new.items():
                getattr(module, f"{key}_{end}").data.copy_(torch.tensor(_ordered(kind, value)))
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True, total_length=T)
    loss = ((y - torch.tensor(target)) ** 2).mean()
    loss.backward()
    return float(loss.detach()), {name: value.grad.numpy() for name, value in module.named_parameters()}


@pytest.mark.parametrize("padding", [0.0, np.nan], ids=["zeros", "nan"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_gradients_are_those_of_torch(kind: str, layers: int, padding: float) -> None:
    @graphc.model
    def net(x: graphc.f32[N, T, WIDTH]):  # type: ignore[valid-type,no-untyped-def]
        y, *_ = getattr(graphc, kind)(x, UNITS, layers, bidirectional=True, lengths=graphc.constant(LENGTHS), name="l")
        return y

    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((N, T, WIDTH), np.float32), rng.standard_normal((N, T, 2 * UNITS), np.float32)
    x[np.arange(T) >= LENGTHS[:, None]] = padding
    found = []
    for threads in (1, 2, 4):
        step = graphc.TrainStep(net, loss="mse", optimizer=graphc.optim.SGD(lr=0.1), threads=threads)
        parameters = {name: np.array(value) for name, value in step.parameters.items()}
        found.append(step.gradients(x, target))
    loss, expected = _expected(kind, layers, parameters, x, target)
    assert float(found[0]["loss"]) == pytest.approx(loss, rel=1e-5)
    parts = {"weight": "weight_ih", "recurrent_weight": "weight_hh", "bias": "bias_ih", "recurrent_bias": "bias_hh"}
    for name, grad in found[0]["grads"].items():
        assert all(grad.tobytes() == other["grads"][name].tobytes() for other in found[1:]), f"threads change bits of {name}"
        _, layer, part = name.split(".")
        for k in range(2):
            want = expected[f"{parts[part]}_l{layer}" + ("_reverse" if k else "")]
            got = grad[k] if part == "recurrent_bias" else _ordered(kind, grad[k])
            np.testing.assert_allclose(got, want[-UNITS:] if part == "recurrent_bias" else want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reset_after", [False, True])
def test_nan_in_the_padding_reaches_nothing(reset_after: bool) -> None:
    """Neither results nor gradients of anything, x included: the same bits as with zeros there."""

    @graphc.model
    def net(x: graphc.f32[N, T, WIDTH]):  # type: ignore[valid-type,no-untyped-def]
        y, h = graphc.gru(x, UNITS, lengths=graphc.constant(LENGTHS), reset_after=reset_after, name="l")
        return y, h

    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((N, T, WIDTH), np.float32), rng.standard_normal((N, T, UNITS), np.float32)
    results = []
    for padding in (0.0, np.nan):
        x[np.arange(T) >= LENGTHS[:, None]] = padding
        found = graphc.TrainStep(net, loss="mse").gradients(x, target)
        results.append([*graphc.compile(net)(x), *found["grads"].values(), *found["input_grads"].values()])
    for zeros, nan in zip(*results, strict=True):
        assert np.isfinite(zeros).all()
        assert zeros.tobytes() == nan.tobytes()


def test_training_lowers_the_loss() -> None:
    """A GRU learns to add up what it saw."""

    @graphc.model
    def net(x: graphc.f32[16, 8, 2]):  # type: ignore[valid-type,no-untyped-def]
        y, _ = graphc.gru(x, 16, name="l")
        return graphc.linear(y, 1, name="out")

    rng = np.random.default_rng(0)
    step = graphc.TrainStep(net, loss="mse", optimizer=graphc.optim.Adam(lr=0.01))
    losses = []
    for _ in range(150):
        x = rng.uniform(-1, 1, (16, 8, 2)).astype(np.float32)
        losses.append(float(step(x, np.cumsum(x.sum(2, keepdims=True), 1) / 4)["loss"]))
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:10])
