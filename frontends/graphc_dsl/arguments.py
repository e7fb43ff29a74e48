"""Arguments of layers: one number or one per dim, padding in its spellings, names looked up with a suggestion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Union

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.types.dtype import ALL, DType
from graphc.types.dtype import dtype as dtype_of
from graphc.types.shape import DimLike

Sizes = Union[int, Sequence[int]]  # one for all spatial dims, or one for each
DTypeLike = Any  # a DType, its name, or a numpy dtype
Padding = Union[str, int, Sequence[Union[int, Sequence[int]]]]  # "same", "valid", one, one per dim, or a (before, after) pair per dim


def whole(value: object, what: str, least: int = 0) -> int:
    """An int of at least `least`, or an AttributeValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise AttributeValueError(f"{what} is {value!r}", hint=f"a whole number of at least {least}")
    return int(value)


def element_type(given: DTypeLike) -> DType:
    """The DType of a DType, a name, or a numpy dtype. An AttributeValueError for what is none."""
    try:
        return dtype_of("" if given is None else given)  # numpy takes None for float64
    except (KeyError, TypeError) as error:
        raise AttributeValueError(f"there is no dtype {given!r}", hint=", ".join(d.name for d in ALL)) from error


def number(value: object, what: str) -> float:
    """A float, or an AttributeValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise AttributeValueError(f"{what} is {value!r}", hint="a number")
    return float(value)


def per_dim(value: Sizes, spatial: int, what: str, least: int = 1) -> tuple[int, ...]:
    """One int for each of the spatial dims."""
    if isinstance(value, Sequence):
        if len(value) != spatial:
            raise AttributeValueError(f"{what} is {value!r}", hint=f"one number, or {spatial} of them")
        return tuple(whole(item, what, least) for item in value)
    return (whole(value, what, least),) * spatial


def pads(
    padding: Padding, sizes: Sequence[DimLike], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements to add before and after each spatial dim.

    "same": the result has ceil(size / stride) elements, of an odd number of pads the larger half lies behind (TensorFlow's SAME, ONNX's
    SAME_UPPER); with a stride the sizes must be known. "valid": none.
    """
    spatial = len(kernel)
    if padding == "valid":
        return (0,) * spatial, (0,) * spatial
    if padding == "same":
        total = [_same(*row) for row in zip(sizes, kernel, stride, dilation, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if isinstance(padding, str):
        raise AttributeValueError(f"padding is {padding!r}", hint='"same", "valid", a number, one per dim, or a pair per dim')
    if isinstance(padding, Sequence) and any(isinstance(item, Sequence) for item in padding):
        pairs = [per_dim(item, 2, "padding", 0) for item in padding]  # type: ignore[arg-type]
        if len(pairs) != spatial:
            raise AttributeValueError(f"padding is {padding!r}", hint=f"{spatial} pairs (before, after)")
        return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)
    both = per_dim(padding, spatial, "padding", 0)  # type: ignore[arg-type]
    return both, both


def _same(size: DimLike, kernel: int, stride: int, dilation: int) -> int:
    reach = dilation * (kernel - 1)
    if stride == 1:
        return reach
    if not isinstance(size, int):
        raise ShapeError(f'padding="same" with stride {stride} depends on the size {size}', hint="give the padding in numbers")
    return max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from 0; negative ones count from the end."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -rank <= axis < rank:
        raise AttributeValueError(f"axis {axis!r} of a tensor of rank {rank}", hint=f"{-rank} to {rank - 1}" if rank else "it is a scalar")
    return int(axis) % rank


def axes_of(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Distinct axes counted from 0, in order; None: all."""
    if axes is None:
        return tuple(range(rank))
    listed = list(axes) if isinstance(axes, Sequence) else [axes]
    found = sorted({axis_of(axis, rank) for axis in listed})
    if len(found) != len(listed):
        raise AttributeValueError(f"axes {axes!r} name one axis twice")
    return tuple(found)


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's hint: what the user may have meant, else all that there is."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return " or ".join(map(repr, close)) if close else ", ".join(names)
