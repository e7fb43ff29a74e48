"""Reductions over axes, positions of extremes, running sums. `axes`: one, several, or None for all; `keepdims` leaves them as 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

from graphc.ops.reduce import ArgReduce, CumSum, Reduce
from graphc.ops.sort import TopK
from graphc_dsl.arguments import axes_of, axis_of, whole
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Axes = Union[int, Sequence[int], None]


def _reduce(fn: str, x: Tensor, axes: Axes, keepdims: bool, name: str, kind: str = "") -> Tensor:
    with Building(kind or fn, name, x) as new:
        return new.tensor(new.add(Reduce(fn, axes_of(axes, x.ndim), keepdims), new.value(x)))


def sum(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Sum; integers wrap."""
    return _reduce("sum", x, axes, keepdims, name)


def mean(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Arithmetic mean."""
    return _reduce("mean", x, axes, keepdims, name)


def max(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Largest element; NaN wins."""
    return _reduce("max", x, axes, keepdims, name)


def min(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Smallest element; NaN wins."""
    return _reduce("min", x, axes, keepdims, name)


def prod(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Product."""
    return _reduce("prod", x, axes, keepdims, name)


def norm_l1(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Sum of absolute values."""
    return _reduce("l1", x, axes, keepdims, name, "norm_l1")


def norm_l2(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Square root of the sum of squares."""
    return _reduce("l2", x, axes, keepdims, name, "norm_l2")


def log_sum_exp(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """log sum exp(x), the maximum taken out first."""
    return _reduce("log_sum_exp", x, axes, keepdims, name)


def any(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Whether some element of a bool tensor is true."""
    return _reduce("any", x, axes, keepdims, name)


def all(x: Tensor, axes: Axes = None, keepdims: bool = False, name: str = "") -> Tensor:
    """Whether every element of a bool tensor is true."""
    return _reduce("all", x, axes, keepdims, name)


def argmax(x: Tensor, axis: int, keepdims: bool = False, name: str = "") -> Tensor:
    """Where the largest element lies along `axis`, i64; the first of equals."""
    with Building("argmax", name, x) as new:
        return new.tensor(new.add(ArgReduce("max", axis_of(axis, x.ndim), keepdims), new.value(x)))


def argmin(x: Tensor, axis: int, keepdims: bool = False, name: str = "") -> Tensor:
    """Where the smallest element lies along `axis`, i64; the first of equals."""
    with Building("argmin", name, x) as new:
        return new.tensor(new.add(ArgReduce("min", axis_of(axis, x.ndim), keepdims), new.value(x)))


def cumsum(x: Tensor, axis: int, exclusive: bool = False, reverse: bool = False, name: str = "") -> Tensor:
    """Running sum along `axis`."""
    with Building("cumsum", name, x) as new:
        return new.tensor(new.add(CumSum(axis_of(axis, x.ndim), exclusive, reverse), new.value(x)))


def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True, name: str = "") -> tuple[Tensor, Tensor]:
    """The k largest (smallest) elements along `axis`, best first, and their positions (i64)."""
    with Building("topk", name, x) as new:
        op = TopK(whole(k, "k", 0), axis_of(axis, x.ndim), largest)
        values, positions = new.tensors(new.builder.add_many(op, new.value(x)))
        return values, positions
