"""Normalisation layers. Channels are axis 1; scales start at 1, biases at 0. `affine=False`: neither scale nor bias."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ops.compose import reshape
from graphc.ops.norm import LRN, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from graphc.ops.pointwise import op
from graphc_dsl.arguments import axis_of, whole
from graphc_dsl.init import InitLike
from graphc_dsl.pointwise import Activation, finish
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor


def _affine(new: Building, x: Tensor, affine: bool, scale_init: InitLike = "ones") -> list[Value]:
    """Scale and bias, one per channel: parameters, or constant ones and zeros."""
    if x.ndim < 2:
        raise ShapeError(f"input {x.type} has no channels", hint="(N, C, *spatial)")
    if affine:
        return [new.parameter(part, x.shape[1:2], init, x.dtype) for part, init in (("weight", scale_init), ("bias", "zeros"))]
    size = x.shape[1].__index__()
    return [new.builder.constant(np.full(size, number, x.dtype.numpy), name=f"{new.name}.{number}") for number in (1, 0)]


def batch_norm(
    x: Tensor, epsilon: float = 1e-5, affine: bool = True, activation: Activation = None, *, weight_init: InitLike = "ones", name: str = "",
) -> Tensor:
    """(x - running_mean) / sqrt(running_var + epsilon) * weight + bias per channel. Ioffe and Szegedy 2015, arXiv:1502.03167.

    Parameters (C): name.weight, name.bias; statistics, which no optimizer trains: name.running_mean (starts at 0), name.running_var (1).
    """
    with Building("batch_norm", name, x) as new:
        scale, bias = _affine(new, x, affine, weight_init)
        mean = new.parameter("running_mean", x.shape[1:2], "zeros", x.dtype)
        var = new.parameter("running_var", x.shape[1:2], "ones", x.dtype)
        return finish(new, new.add(BatchNorm(float(epsilon)), new.value(x), scale, bias, mean, var), activation, channels=1)


def instance_norm(x: Tensor, epsilon: float = 1e-5, affine: bool = True, activation: Activation = None, *, name: str = "") -> Tensor:
    """Each channel of each sample to mean 0 and variance 1, then scaled and shifted. Ulyanov et al. 2016, arXiv:1607.08022.

    Parameters (C): name.weight, name.bias.
    """
    with Building("instance_norm", name, x) as new:
        y = new.add(InstanceNorm(float(epsilon)), new.value(x), *_affine(new, x, affine))
        return finish(new, y, activation, channels=1)


def group_norm(
    x: Tensor, groups: int, epsilon: float = 1e-5, affine: bool = True, activation: Activation = None, *, name: str = ""
) -> Tensor:
    """Each group of C/groups channels of each sample to mean 0 and variance 1, then scaled and shifted. Wu and He 2018, arXiv:1803.08494.

    Parameters (C): name.weight, name.bias.
    """
    with Building("group_norm", name, x) as new:
        y = new.add(GroupNorm(whole(groups, "groups", 1), float(epsilon)), new.value(x), *_affine(new, x, affine))
        return finish(new, y, activation, channels=1)


def layer_norm(
    x: Tensor, axis: int = -1, epsilon: float = 1e-5, affine: bool = True, activation: Activation = None, *, name: str = ""
) -> Tensor:
    """Mean 0 and variance 1 over the axes from `axis` to the last, then scaled and shifted. Ba et al. 2016, arXiv:1607.06450.

    Parameters (x.shape[axis:]): name.weight, name.bias.
    """
    with Building("layer_norm", name, x) as new:
        at = axis_of(axis, x.ndim)
        inits = (("weight", "ones"), ("bias", "zeros")) if affine else ()
        extra = [new.parameter(part, x.shape[at:], init, x.dtype) for part, init in inits]
        return finish(new, new.add(LayerNorm(at, float(epsilon)), new.value(x), *extra), activation, channels=-1)


def rms_norm(x: Tensor, axis: int = -1, epsilon: float = 1e-5, affine: bool = True, *, name: str = "") -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) over the axes from `axis` to the last, then scaled. Zhang and Sennrich 2019, arXiv:1910.07467.

    Parameter (x.shape[axis:]): name.weight.
    """
    with Building("rms_norm", name, x) as new:
        at = axis_of(axis, x.ndim)
        extra = [new.parameter("weight", x.shape[at:], "ones", x.dtype)] if affine else []
        return new.tensor(new.add(RMSNorm(at, float(epsilon)), new.value(x), *extra))


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, *, name: str = ""
) -> Tensor:
    """x / (bias + alpha / size * sum of squares over `size` neighbouring channels)^beta.

    Krizhevsky et al. 2012, section 3.3, where alpha stands for alpha / size.
    """
    with Building("lrn", name, x) as new:
        return new.tensor(new.add(LRN(whole(size, "size", 1), float(alpha), float(beta), float(bias)), new.value(x)))


def prelu(x: Tensor, slope_init: InitLike = 0.25, *, name: str = "") -> Tensor:
    """x where x >= 0, else slope x, with a trained slope per channel. He et al. 2015, arXiv:1502.01852. Parameter: name.weight (C)."""
    with Building("prelu", name, x) as new:
        slope = new.parameter("weight", x.shape[1:2] if x.ndim > 1 else (1,), slope_init, x.dtype)
        column = reshape(new.builder, slope, (*slope.type.shape, *(1,) * max(x.ndim - 2, 0)))
        return new.tensor(new.add(op("prelu"), new.value(x), column))
