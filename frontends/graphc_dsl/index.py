"""x[...]: numpy's basic indexing, as slice and reshape nodes, and gathering by one integer tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, UnsupportedError
from graphc.ir.graph import Value
from graphc.ops import compose
from graphc.ops.gather import Gather
from graphc.ops.movement import Slice, surely_less
from graphc.types.shape import Dim, DimLike
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Cut = tuple[DimLike, int, DimLike]  # start, step, count


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]. Raises ShapeError for what leaves x or depends on a symbolic size, UnsupportedError for masks."""
    with Building("slice", "", x) as new:
        items = _complete(list(index) if isinstance(index, tuple) else [index], x.ndim)
        value = _cut(new, x, items)
        value = _gathered(new, value, items)
        return new.tensor(_reshaped(new, value, items))


def _complete(items: list[Any], rank: int) -> list[Any]:
    """With ... written out: one entry per axis, and the Nones."""
    count = sum(item is not None and item is not Ellipsis for item in items)
    if count > rank:
        raise ShapeError(f"{count} indices for a tensor of rank {rank}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise AttributeValueError("an index with more than one ...")
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (rank - count), *items[at + 1 :]]


def _cut(new: Building, x: Tensor, items: list[Any]) -> Value:
    """The part of x that ints and slices choose; axes stay."""
    entries = [item for item in items if item is not None]
    cuts = [_axis_cut(item, dim, axis) for axis, (item, dim) in enumerate(zip(entries, x.shape, strict=True))]
    starts, steps, counts = (tuple(column) for column in zip(*cuts, strict=True)) if cuts else ((), (), ())
    if all(cut == (0, 1, dim) for cut, dim in zip(cuts, x.shape, strict=True)):
        return new.value(x)
    return new.add(Slice(starts, steps, counts), new.value(x))


def _axis_cut(item: Any, dim: DimLike, axis: int) -> Cut:
    if _is_gather(item):
        return 0, 1, dim
    if isinstance(item, slice):
        return _slice_cut(item, dim)
    if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
        raise UnsupportedError(f"an index of type {type(item).__name__}", hint="ints, slices, None, ..., integer tensors and lists of ints")
    start = int(item) + dim if item < 0 else int(item)
    if surely_less(start, 0) or surely_less(dim - 1, start):
        raise ShapeError(f"index {item} is outside of axis {axis} of size {dim}")
    return start, 1, 1


def _slice_cut(item: slice, dim: DimLike) -> Cut:
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise AttributeValueError("slice with step 0")
    if isinstance(dim, int):
        if any(isinstance(bound, Dim) for bound in (item.start, item.stop)):
            raise ShapeError(f"a slice with symbolic bounds of an axis of size {dim}", hint="use numbers")
        start, stop, step = item.indices(dim)
        return start if len(range(start, stop, step)) else 0, step, len(range(start, stop, step))
    if step < 0:
        if item.start is None and item.stop is None:
            return dim - 1, step, -(-dim // -step)
        raise ShapeError(f"a slice with a negative step and bounds of an axis of size {dim}", hint="fix the size, or use [::-1]")
    first, last = _bound(item.start, dim, 0), _bound(item.stop, dim, dim)
    return first, step, (last - first + step - 1) // step if last - first + 1 > 0 else 0


def _bound(bound: DimLike | None, dim: DimLike, default: DimLike) -> DimLike:
    """A slice bound within a symbolic size; a ShapeError where its order against the size is not certain."""
    if bound is None:
        return default
    if isinstance(bound, Dim) or bound >= 0:
        return bound if bound <= dim else dim
    return dim + bound if dim + bound >= 0 else 0


def _gathered(new: Building, value: Value, items: list[Any]) -> Value:
    """The gather of the one tensor or list among the items."""
    axes = [axis for axis, item in enumerate(item for item in items if item is not None) if _is_gather(item)]
    if len(axes) > 1:
        raise UnsupportedError("more than one index tensor", hint="graphc.gather along one axis after the other")
    for axis in axes:
        item = next(item for item in items if _is_gather(item))
        indices = new.value(item if _is_tensor(item) else _whole(np.asarray(item)))
        if indices.type.dtype.kind == "b":
            raise UnsupportedError("a bool mask as index: the result's size depends on the data", hint="graphc.where keeps the shape")
        value = new.add(Gather(axis), value, indices)
    return value


def _whole(array: Any) -> Any:
    if array.size and array.dtype.kind not in "iub":
        raise UnsupportedError(f"an index of dtype {array.dtype}", hint="integers")
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def _reshaped(new: Building, value: Value, items: list[Any]) -> Value:
    """Without the axes of the ints, with new axes for the Nones."""
    dims = iter(value.type.shape)
    shape: list[DimLike] = []
    for item in items:
        if item is None:
            shape.append(1)
        elif _is_gather(item):
            shape.extend(next(dims) for _ in range(item.ndim if hasattr(item, "ndim") else np.ndim(item)))
        else:
            dim = next(dims)
            shape.extend([dim] if isinstance(item, slice) else [])
    return compose.reshape(new.builder, value, shape)


def _is_tensor(item: Any) -> bool:
    from graphc_dsl.tensor import Tensor

    return isinstance(item, Tensor)


def _is_gather(item: Any) -> bool:
    return isinstance(item, (list, np.ndarray)) or _is_tensor(item)

