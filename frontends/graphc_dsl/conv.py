"""Convolution layers over (N, C, *spatial).

kernel, stride, dilation: one number, or one for each spatial dim. padding: a number, one per dim, a (before, after) pair per dim, "same"
or "valid". Weights start he_normal, biases zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from graphc.errors import AttributeValueError, ShapeError
from graphc.ops.conv import Conv, ConvTranspose
from graphc.source import Source
from graphc.types.shape import Shape, static
from graphc_dsl.arguments import Padding, Sizes, pads, per_dim, whole
from graphc_dsl.init import InitLike
from graphc_dsl.matrix import Switch, bias_of
from graphc_dsl.pointwise import Activation, finish
from graphc_dsl.trace import Building, need_tensor, user_line

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def of_rank(spatial: int, name: str, layer: Callable[Concatenate[int, P], R]) -> Callable[P, R]:
    """The layer for one number of spatial dims, e.g. conv2d of conv."""

    def fixed(*args: P.args, **kwargs: P.kwargs) -> R:
        return layer(spatial, *args, **kwargs)

    signature = inspect.signature(layer)
    fixed.__name__ = fixed.__qualname__ = name
    fixed.__module__ = layer.__module__
    fixed.__doc__ = f"{spatial}-d: {layer.__doc__}"
    fixed.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return fixed


def need_spatial(x: Tensor, spatial: int) -> None:
    """A ShapeError unless x is (N, C, *spatial)."""
    if x.ndim != spatial + 2:
        dims = ", ".join(("N", "C", "D", "H", "W")[:2] + ("D", "H", "W")[3 - spatial :])
        raise ShapeError(f"input {x.type} has rank {x.ndim}", hint=f"({dims})")


def _conv(
    spatial: int, x: Tensor, channels: int, kernel: Sizes, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1, groups: int = 1,
    bias: Switch = True, activation: Activation = None, *, weight: Tensor | None = None, weight_init: InitLike = "he_normal",
    bias_init: InitLike = "zeros", name: str = "",
) -> Tensor:  # fmt: skip
    """Convolution (cross-correlation) (N, C, *spatial) -> (N, channels, *spatial').

    spatial' = (size + pads - dilation (k - 1) - 1) // stride + 1. Parameters: name.weight (channels, C/groups, *kernel), name.bias
    (channels). `weight`, `bias`: tensors to use instead. Raises ShapeError where channels, groups and weight do not fit together.
    """
    with Building(f"conv{spatial}d", name, x, weight, bias) as new:
        need_spatial(x, spatial)
        size, out = per_dim(kernel, spatial, "kernel"), whole(channels, "channels", 1)
        inner = _per_group(x, out, groups)
        w = new.parameter("weight", (out, inner, *size), weight_init, x.dtype) if weight is None else new.value(weight)
        if w.type.rank == spatial + 2 and w.type.shape[1] != inner:
            raise _channel_error(x, w.type.shape, groups)
        if w.type.shape != (out, inner, *size):
            raise ShapeError(f"weight {w.type} is not (channels, C/groups, *kernel) = {[out, inner, *size]}", hint="give it that shape")
        steps, spread = per_dim(stride, spatial, "stride"), per_dim(dilation, spatial, "dilation")
        before, after = pads(padding, x.shape[2:], size, steps, spread)
        b = bias_of(new, bias, out, bias_init, x.dtype)
        y = new.add(Conv(steps, spread, before, after, groups), new.value(x), w, *([] if b is None else [b]))
        return finish(new, y, activation, channels=1)


def _per_group(x: Tensor, channels: int, groups: int) -> int:
    """Input channels of one group."""
    (inputs,) = static(x.shape[1:2])
    if inputs % whole(groups, "groups", 1) or channels % groups:
        raise ShapeError(f"{inputs} input and {channels} output channels do not both split into {groups} groups", hint="a common divisor")
    return inputs // groups


def _channel_error(x: Tensor, weight: Shape, groups: int) -> ShapeError:
    wanted = weight[1] * groups
    reason = f"input has {x.shape[1]} channels, weight expects {wanted} (groups={groups})"
    return ShapeError(reason, hint=f"an input of shape (N, {wanted}, ...), or another weight")


def _conv_transpose(
    spatial: int, x: Tensor, channels: int, kernel: Sizes, stride: Sizes = 1, padding: Padding = 0, output_padding: Sizes = 0,
    dilation: Sizes = 1, groups: int = 1, bias: Switch = True, activation: Activation = None, *, weight: Tensor | None = None,
    weight_init: InitLike = "he_normal", bias_init: InitLike = "zeros", name: str = "",
) -> Tensor:  # fmt: skip
    """Transposed convolution (N, C, *spatial) -> (N, channels, *spatial').

    spatial' = (size - 1) stride + dilation (k - 1) + 1 + output_padding - pads; padding takes away from the result ("same" is refused).
    Parameters: name.weight (C, channels/groups, *kernel), name.bias (channels). `weight`, `bias`: tensors to use instead.
    """
    with Building(f"conv_transpose{spatial}d", name, x, weight, bias) as new:
        need_spatial(x, spatial)
        if padding == "same":
            raise AttributeValueError('padding="same" of a transposed convolution is ambiguous', hint="give numbers, and output_padding")
        size, out = per_dim(kernel, spatial, "kernel"), whole(channels, "channels", 1)
        inner = _per_group(x, out, groups)
        shape = (inner * groups, out // groups, *size)
        fans = inner * prod(size), out // groups * prod(size)
        w = new.parameter("weight", shape, weight_init, x.dtype, fans) if weight is None else new.value(weight)
        if w.type.shape != shape:
            raise ShapeError(f"weight {w.type} is not (C, channels/groups, *kernel) = {list(shape)}", hint="give it that shape")
        steps, spread = per_dim(stride, spatial, "stride"), per_dim(dilation, spatial, "dilation")
        before, after = pads(padding, x.shape[2:], size, steps, spread)
        op = ConvTranspose(steps, spread, before, after, per_dim(output_padding, spatial, "output_padding", 0), groups)
        b = bias_of(new, bias, out, bias_init, x.dtype)
        return finish(new, new.add(op, new.value(x), w, *([] if b is None else [b])), activation, channels=1)


def depthwise_conv2d(
    x: Tensor, kernel: Sizes, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1, multiplier: int = 1, bias: Switch = True,
    activation: Activation = None, *, weight_init: InitLike = "he_normal", bias_init: InitLike = "zeros", name: str = "",
) -> Tensor:  # fmt: skip
    """conv2d with a group for each channel: C -> C * multiplier channels."""
    place = user_line()
    need_tensor(x, Source(place.file, place.line, name, "depthwise_conv2d"))
    (channels,) = static(x.shape[1:2])
    return conv2d(
        x, channels * multiplier, kernel, stride, padding, dilation, channels, bias, activation,
        weight_init=weight_init, bias_init=bias_init, name=name,
    )  # fmt: skip


conv1d = of_rank(1, "conv1d", _conv)
conv2d = of_rank(2, "conv2d", _conv)
conv3d = of_rank(3, "conv3d", _conv)
conv_transpose1d = of_rank(1, "conv_transpose1d", _conv_transpose)
conv_transpose2d = of_rank(2, "conv_transpose2d", _conv_transpose)
conv_transpose3d = of_rank(3, "conv_transpose3d", _conv_transpose)
