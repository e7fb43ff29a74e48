"""Initial values of parameters. `graphc.init.he_normal()` and the like make initialisers; every layer states its default.

An initialiser is called with a random generator, the shape, and the fans: how many inputs one output sums over (fan_in), and how many
outputs one input reaches (fan_out). For a weight (out, in, *kernel) fan_in = in * prod(kernel) and fan_out = out * prod(kernel).

Reproducible: a parameter's values depend on the seed and its full name only, never on the order of creation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, Union

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.graph import Array
from graphc.types.dtype import DType
from graphc_dsl.arguments import nearest

Shape = tuple[int, ...]
Initialiser = Callable[[np.random.Generator, Shape, int, int], Array]
InitLike = Union[str, float, Array, Initialiser]  # a name, a constant, the array itself, or an initialiser


def constant(value: float) -> Initialiser:
    """Every element is `value`."""
    return lambda rng, shape, fan_in, fan_out: np.broadcast_to(np.float64(value), shape)


def zeros() -> Initialiser:
    """0."""
    return constant(0.0)


def ones() -> Initialiser:
    """1."""
    return constant(1.0)


def normal(std: float = 1.0, mean: float = 0.0) -> Initialiser:
    """Normal distribution."""
    return lambda rng, shape, fan_in, fan_out: _normal(rng, shape, std, mean)


def uniform(low: float = -1.0, high: float = 1.0) -> Initialiser:
    """Uniform distribution over low <= x < high."""
    return lambda rng, shape, fan_in, fan_out: _uniform(rng, shape, low, high)


GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
_FANS: dict[str, Callable[[int, int], float]] = {
    "fan_in": lambda fan_in, fan_out: fan_in,
    "fan_out": lambda fan_in, fan_out: fan_out,
    "fan_avg": lambda fan_in, fan_out: (fan_in + fan_out) / 2,
}


def gain_of(activation: str, slope: float = 0.01) -> float:
    """The factor that keeps the variance through an activation, as torch.nn.init.calculate_gain recommends; `slope`: of leaky_relu."""
    if activation == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + slope * slope))
    if activation not in GAINS:
        raise AttributeValueError(f"no gain is known for {activation!r}", hint=nearest(activation, [*GAINS, "leaky_relu"]) or "a number")
    return GAINS[activation]


def _number(gain: float | str) -> float:
    return gain_of(gain) if isinstance(gain, str) else gain


def _fan(mode: str) -> Callable[[int, int], float]:
    if mode not in _FANS:
        raise AttributeValueError(f"fan mode {mode!r}", hint=f"one of {', '.join(_FANS)}")
    return _FANS[mode]


def truncated_normal(std: float = 1.0, mean: float = 0.0, limit: float = 2.0) -> Initialiser:
    """Normal distribution, drawn again where farther than `limit` standard deviations from the mean. `std` is that before truncation."""
    if limit <= 0:
        raise AttributeValueError(f"truncated_normal with limit {limit}", hint="a positive number of standard deviations, e.g. 2.0")

    def draw(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        values = _normal(rng, shape, 1.0, 0.0)
        while (outside := np.abs(values) > limit).any():
            values[outside] = _normal(rng, (int(outside.sum()),), 1.0, 0.0)
        return values * np.float32(std) + np.float32(mean)

    return draw


def he_normal(gain: float | str = "relu", mode: str = "fan_in") -> Initialiser:
    """std = gain / sqrt(fan). He et al. 2015, arXiv:1502.01852, eq. 10, for ReLU. gain: a number, or of an activation (`gain_of`)."""
    factor, fan = _number(gain), _fan(mode)
    return lambda rng, shape, fan_in, fan_out: _normal(rng, shape, factor / math.sqrt(max(fan(fan_in, fan_out), 1)), 0.0)


def he_uniform(gain: float | str = "relu", mode: str = "fan_in") -> Initialiser:
    """Uniform with the variance of he_normal: the bound is gain * sqrt(3 / fan)."""
    factor, fan = _number(gain), _fan(mode)
    return lambda rng, shape, fan_in, fan_out: _uniform_within(rng, shape, factor * math.sqrt(3.0 / max(fan(fan_in, fan_out), 1)))


def xavier_normal(gain: float | str = 1.0) -> Initialiser:
    """std = gain * sqrt(2 / (fan_in + fan_out)). Glorot and Bengio 2010, for tanh and the like."""
    factor = _number(gain)
    return lambda rng, shape, fan_in, fan_out: _normal(rng, shape, factor * math.sqrt(2.0 / max(fan_in + fan_out, 1)), 0.0)


def xavier_uniform(gain: float | str = 1.0) -> Initialiser:
    """The bound is gain * sqrt(6 / (fan_in + fan_out)). Glorot and Bengio 2010, eq. 16."""
    factor = _number(gain)
    return lambda rng, shape, fan_in, fan_out: _uniform_within(rng, shape, factor * math.sqrt(6.0 / max(fan_in + fan_out, 1)))


def lecun_normal() -> Initialiser:
    """std = 1 / sqrt(fan_in). LeCun et al. 1998, Efficient BackProp, eq. 16; for SELU and tanh."""
    return he_normal(1.0)


def lecun_uniform() -> Initialiser:
    """Uniform with the variance of lecun_normal: the bound is sqrt(3 / fan_in)."""
    return he_uniform(1.0)


def orthogonal(gain: float = 1.0) -> Initialiser:
    """gain times a random matrix (out, everything else) with orthonormal rows or columns. Saxe et al. 2014, arXiv:1312.6120."""

    def draw(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
        if len(shape) < 2:
            raise ShapeError(f"orthogonal needs at least two dims, got {list(shape)}", hint="use another initialiser for vectors")
        rows, columns = shape[0], math.prod(shape[1:])
        matrix = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(matrix)
        q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # makes the decomposition unique, and the distribution uniform
        return (gain * (q if rows >= columns else q.T)).reshape(shape)

    return draw


NAMED: dict[str, Callable[[], Initialiser]] = {
    "zeros": zeros, "ones": ones, "normal": normal, "uniform": uniform, "truncated_normal": truncated_normal,
    "he_normal": he_normal, "he_uniform": he_uniform, "xavier_normal": xavier_normal, "xavier_uniform": xavier_uniform,
    "lecun_normal": lecun_normal, "lecun_uniform": lecun_uniform, "orthogonal": orthogonal,
}  # fmt: skip


def initialise(init: InitLike, name: str, seed: int, shape: Shape, dtype: DType, fans: tuple[int, int] | None = None) -> Array:
    """The initial array of the parameter `name`, a new one. Raises AttributeValueError, ShapeError where the initialiser does not fit."""
    if isinstance(init, str):
        if init not in NAMED:
            raise AttributeValueError(f"unknown initialiser {init!r}", hint=nearest(init, NAMED))
        init = NAMED[init]()
    if isinstance(init, (int, float)):
        init = constant(init)
    if not callable(init):
        return _checked(np.asarray(init), name, shape, dtype)
    fan_in, fan_out = fans or default_fans(shape)
    return _checked(np.asarray(init(generator(seed, name), shape, fan_in, fan_out)), name, shape, dtype)


def default_fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, *kernel); a vector's fans are its size."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def generator(seed: int, name: str) -> np.random.Generator:
    """The random generator of one parameter."""
    digest = hashlib.sha256(name.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def _checked(array: Array, name: str, shape: Shape, dtype: DType) -> Array:
    if array.shape != shape:
        raise ShapeError(f"the initial value of {name!r} has shape {list(array.shape)}, the parameter {list(shape)}")
    if array.dtype.kind not in "fiub":
        raise AttributeValueError(f"the initial value of {name!r} has dtype {array.dtype}", hint=f"return numbers that fit {dtype}")
    return np.array(array, dtype=dtype.numpy)


def _normal(rng: np.random.Generator, shape: Shape, std: float, mean: float) -> Array:
    """Drawn in float32: half the time and memory of float64, for weights that are float32 nearly always."""
    values: Any = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(std)
    values += np.float32(mean)
    return np.asarray(values)


def _uniform(rng: np.random.Generator, shape: Shape, low: float, high: float) -> Array:
    values: Any = rng.random(shape, dtype=np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return np.asarray(values)


def _uniform_within(rng: np.random.Generator, shape: Shape, bound: float) -> Array:
    return _uniform(rng, shape, -bound, bound)
