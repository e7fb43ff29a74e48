"""Initialisers: moments, bounds, and values that depend on seed and name alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc
from dsl.tracing import model_of
from graphc_dsl.init import NAMED, default_fans, generator, initialise

SHAPE = (64, 32, 3, 3)
FAN_IN, FAN_OUT = 288, 576


def _draw(init: object, shape: tuple[int, ...] = SHAPE, name: str = "w", seed: int = 0) -> np.ndarray:
    return initialise(init, name, seed, shape, graphc.f32)


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("normal", 1.0), ("uniform", 1 / math.sqrt(3)), ("he_normal", math.sqrt(2 / FAN_IN)), ("he_uniform", math.sqrt(2 / FAN_IN)),
        ("xavier_normal", math.sqrt(2 / (FAN_IN + FAN_OUT))), ("xavier_uniform", math.sqrt(2 / (FAN_IN + FAN_OUT))),
        ("lecun_normal", math.sqrt(1 / FAN_IN)), ("lecun_uniform", math.sqrt(1 / FAN_IN)),
        ("truncated_normal", math.sqrt(0.77374)),  # 1 - 2 * 2 phi(2) / (2 Phi(2) - 1)
        ("zeros", 0.0),
    ],
)  # fmt: skip
def test_moments(name: str, std: float) -> None:
    values = _draw(name)
    assert values.dtype == np.float32
    assert values.shape == SHAPE
    assert abs(values.mean()) <= 4 * std / math.sqrt(values.size)
    assert values.std() == pytest.approx(std, rel=0.02)
    if "uniform" in name:
        assert std * 1.7 < abs(values).max() <= std * math.sqrt(3) * (1 + 1e-6)


def test_table_is_complete() -> None:
    assert {name for name in NAMED if not callable(getattr(graphc.init, name))} == set()
    assert abs(_draw("truncated_normal")).max() <= 2
    assert (_draw("ones") == 1).all()
    assert (_draw(graphc.init.constant(0.5)) == 0.5).all()
    assert (_draw(0.25) == 0.25).all()


@pytest.mark.parametrize("shape", [(16, 4, 3, 3), (8, 3, 2, 2)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = _draw(graphc.init.orthogonal(gain=2.0), shape).reshape(shape[0], -1)
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    np.testing.assert_allclose(short @ short.T, 4 * np.eye(len(short)), atol=1e-5)
    with pytest.raises(graphc.ShapeError, match="at least two dims"):
        _draw("orthogonal", (3,))


def test_gains_are_those_of_torch() -> None:
    torch: Any = pytest.importorskip("torch")
    for activation in ("linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"):
        assert graphc.init.gain_of(activation) == torch.nn.init.calculate_gain(activation)
    assert graphc.init.gain_of("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)
    with pytest.raises(graphc.AttributeValueError, match="no gain is known"):
        graphc.init.he_normal("softmax")


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", FAN_IN), ("fan_out", FAN_OUT), ("fan_avg", (FAN_IN + FAN_OUT) / 2)])
def test_fan_modes(mode: str, fan: float) -> None:
    for make in (graphc.init.he_normal, graphc.init.he_uniform):
        assert _draw(make("tanh", mode)).std() == pytest.approx(5 / 3 / math.sqrt(fan), rel=0.02)
    with pytest.raises(graphc.AttributeValueError, match="fan mode"):
        graphc.init.he_normal(mode="fan")


@pytest.mark.parametrize("name", ["he_normal", "xavier_normal", "lecun_normal", "truncated_normal", "normal"])
def test_distributions_are_normal(name: str) -> None:
    """Fourth moment and quantiles, not mean and variance alone."""
    values = np.sort((_draw(name) / _draw(name).std()).reshape(-1).astype(np.float64))
    expected = {"truncated_normal": 2.37}.get(name, 3.0)
    assert np.mean(values**4) == pytest.approx(expected, rel=0.1)
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.02)


def test_fans() -> None:
    assert default_fans(SHAPE) == (FAN_IN, FAN_OUT)
    assert default_fans((10, 4)) == (4, 10)
    assert default_fans((7,)) == (7, 7)


def test_transposed_convolutions_count_their_inputs() -> None:
    def build(x):
        return graphc.conv_transpose2d(x, 4, 3, weight_init=fans)

    def fans(rng, shape, fan_in, fan_out):
        return np.full(shape, fan_in * 1000 + fan_out)

    graph = model_of(build, graphc.f32["N", 32, 8, 8]).graph()
    weight = graph.parameters["conv_transpose1.weight"]
    assert weight.type.shape == (32, 4, 3, 3)
    assert weight.data.flat[0] == 32 * 9 * 1000 + 4 * 9


def test_values_depend_on_seed_and_name_only() -> None:
    assert np.array_equal(_draw("normal"), _draw("normal"))
    assert not np.array_equal(_draw("normal"), _draw("normal", seed=1))
    assert not np.array_equal(_draw("normal"), _draw("normal", name="v"))
    assert generator(3, "layer.weight").integers(0, 1 << 30, 3).tolist() == [119939540, 850376303, 646650504]  # on every machine

    def one(x):
        return graphc.linear(x, 4, name="b")

    def two(x):
        return graphc.linear(graphc.linear(x, 6, name="a"), 4, name="c") + graphc.linear(x, 4, name="b")

    x = graphc.f32["N", 6]
    assert np.array_equal(model_of(one, x).graph().parameters["b.weight"].data, model_of(two, x).graph().parameters["b.weight"].data)


def test_given_arrays_and_wrong_ones() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(_draw(array, (2, 3)), array)
    with pytest.raises(graphc.ShapeError, match="has shape"):
        _draw(array, (3, 2))
    with pytest.raises(graphc.AttributeValueError, match="Try: 'he_normal' or"):
        _draw("he_norma")
    with pytest.raises(graphc.AttributeValueError, match="dtype"):
        _draw(np.array(["a"]), (1,))


def test_parameters_of_ones_own() -> None:
    def build(x):
        scale = graphc.parameter("scale", (3,), init="ones")
        with graphc.scope("inner"):
            shift = graphc.parameter("shift", (3,), init=np.array([1, 2, 3]), dtype=graphc.f32)
        return x * scale + shift

    graph = model_of(build, graphc.f32["N", 3]).graph()
    assert list(graph.parameters) == ["scale", "inner.shift"]
    assert graph.parameters["inner.shift"].data.tolist() == [1, 2, 3]
