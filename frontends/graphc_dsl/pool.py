"""Pooling over the spatial dims of (N, C, *spatial).

kernel, stride and padding as in `graphc_dsl.conv`; the stride is the kernel unless told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.errors import ShapeError
from graphc.ir.graph import Value
from graphc.ops.compose import global_pool, slice_axis
from graphc.ops.movement import Concat
from graphc.ops.pool import AvgPool, LpPool, MaxPool
from graphc.ops.reduce import Reduce
from graphc.types.shape import static
from graphc_dsl.arguments import Padding, Sizes, pads, per_dim, whole
from graphc_dsl.conv import need_spatial, of_rank
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Window = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _window(x: Tensor, spatial: int, kernel: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes) -> Window:
    """kernel, stride, dilation, pads before and after."""
    need_spatial(x, spatial)
    size, spread = per_dim(kernel, spatial, "kernel"), per_dim(dilation, spatial, "dilation")
    steps = size if stride is None else per_dim(stride, spatial, "stride")
    return (size, steps, spread, *pads(padding, x.shape[2:], size, steps, spread))


def _max_pool(
    spatial: int, x: Tensor, kernel: Sizes, stride: Sizes | None = None, padding: Padding = 0, dilation: Sizes = 1, ceil: bool = False,
    name: str = "",
) -> Tensor:  # fmt: skip
    """The largest element of each window; padding is no element. `ceil`: a last, partial window counts too."""
    with Building(f"max_pool{spatial}d", name, x) as new:
        return new.tensor(new.add(MaxPool(*_window(x, spatial, kernel, stride, padding, dilation), ceil), new.value(x)))


def _avg_pool(
    spatial: int, x: Tensor, kernel: Sizes, stride: Sizes | None = None, padding: Padding = 0, ceil: bool = False,
    count_include_pad: bool = False, dilation: Sizes = 1, name: str = "",
) -> Tensor:  # fmt: skip
    """The mean of each window, over its elements, or with `count_include_pad` (torch's default) over padding zeros as well."""
    with Building(f"avg_pool{spatial}d", name, x) as new:
        window = _window(x, spatial, kernel, stride, padding, dilation)
        return new.tensor(new.add(AvgPool(*window, ceil, count_include_pad), new.value(x)))


def _lp_pool(
    spatial: int, x: Tensor, p: int, kernel: Sizes, stride: Sizes | None = None, padding: Padding = 0, ceil: bool = False, name: str = ""
) -> Tensor:
    """(sum of |x|^p over each window)^(1/p)."""
    with Building(f"lp_pool{spatial}d", name, x) as new:
        return new.tensor(new.add(LpPool(*_window(x, spatial, kernel, stride, padding, 1), ceil, whole(p, "p", 1)), new.value(x)))


max_pool1d, max_pool2d, max_pool3d = (of_rank(n, f"max_pool{n}d", _max_pool) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (of_rank(n, f"avg_pool{n}d", _avg_pool) for n in (1, 2, 3))
lp_pool1d, lp_pool2d, lp_pool3d = (of_rank(n, f"lp_pool{n}d", _lp_pool) for n in (1, 2, 3))


def _global(kind: str, fn: str, x: Tensor, name: str, p: int = 2) -> Tensor:
    with Building(kind, name, x) as new:
        if x.ndim < 3:
            raise ShapeError(f"input {x.type} has no spatial dims", hint="(N, C, *spatial)")
        return new.tensor(global_pool(new.builder, new.value(x), fn, p))


def global_avg_pool(x: Tensor, name: str = "") -> Tensor:
    """The mean of each channel: (N, C, *spatial) -> (N, C, 1, ...). Lin et al. 2014, arXiv:1312.4400."""
    return _global("global_avg_pool", "mean", x, name)


def global_max_pool(x: Tensor, name: str = "") -> Tensor:
    """The largest element of each channel: (N, C, *spatial) -> (N, C, 1, ...)."""
    return _global("global_max_pool", "max", x, name)


def global_lp_pool(x: Tensor, p: int = 2, name: str = "") -> Tensor:
    """(sum of |x|^p of each channel)^(1/p): (N, C, *spatial) -> (N, C, 1, ...)."""
    return _global("global_lp_pool", "lp", x, name, whole(p, "p", 1))


def adaptive_avg_pool2d(x: Tensor, size: Sizes, name: str = "") -> Tensor:
    """(N, C, H, W) -> (N, C, *size): means over windows floor(i H / size) to ceil((i + 1) H / size). H and W must be known."""
    return _adaptive("adaptive_avg_pool2d", "mean", x, size, name)


def adaptive_max_pool2d(x: Tensor, size: Sizes, name: str = "") -> Tensor:
    """(N, C, H, W) -> (N, C, *size): maxima over windows floor(i H / size) to ceil((i + 1) H / size). H and W must be known."""
    return _adaptive("adaptive_max_pool2d", "max", x, size, name)


def _adaptive(kind: str, fn: str, x: Tensor, size: Sizes, name: str) -> Tensor:
    with Building(kind, name, x) as new:
        need_spatial(x, 2)
        have, want = static(x.shape[2:]), per_dim(size, 2, "size")
        value = new.value(x)
        if all(h % w == 0 for h, w in zip(have, want, strict=True)):
            kernel = tuple(h // w for h, w in zip(have, want, strict=True))
            return new.tensor(new.add((AvgPool if fn == "mean" else MaxPool)(kernel, kernel, (1, 1), (0, 0), (0, 0)), value))
        for axis, count in enumerate(want, start=2):  # windows are rectangles: one axis after the other
            value = _uneven(new, fn, value, axis, count)
        return new.tensor(value)


def _uneven(new: Building, fn: str, x: Value, axis: int, count: int) -> Value:
    """One axis reduced to `count` windows of unequal size."""
    (size,) = static(x.type.shape[axis : axis + 1])
    parts = []
    for i in range(count):
        start, end = i * size // count, -(-(i + 1) * size // count)
        parts.append(new.add(Reduce(fn, (axis,), True), slice_axis(new.builder, x, axis, start, end - start)))
    return new.add(Concat(axis), *parts)
