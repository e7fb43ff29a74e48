"""Reading and writing at positions that are data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import AttributeValueError
from graphc.ir.graph import Array
from graphc.ops.gather import Gather, GatherElements, GatherND, OneHot
from graphc.ops.scatter import ScatterElements, ScatterND
from graphc.types.dtype import f32
from graphc_dsl.arguments import DTypeLike, axis_of, element_type, whole
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor


def gather(x: Tensor, indices: Tensor | Sequence[int], axis: int = 0, name: str = "") -> Tensor:
    """x at integer positions along one axis; negative ones count from the end, those outside are clamped. np.take."""
    with Building("gather", name, x) as new:
        at = new.value(_positions(indices) if isinstance(indices, Sequence) else indices)
        return new.tensor(new.add(Gather(axis_of(axis, x.ndim)), new.value(x), at))


def _positions(listed: Sequence[int]) -> Array:
    """i64. Raises AttributeValueError for what is no list of whole numbers."""
    try:
        found = np.asarray(listed)
    except ValueError as error:  # ragged
        raise AttributeValueError(f"the indices are {listed!r}", hint="lists of equal lengths") from error
    if found.size and found.dtype.kind not in "iu":
        raise AttributeValueError(f"the indices are {listed!r}", hint="whole numbers")
    return found.astype(np.int64)


def gather_elements(x: Tensor, indices: Tensor, axis: int, name: str = "") -> Tensor:
    """y[a, i, b] = x[a, indices[a, i, b], b] along `axis`. np.take_along_axis, torch.gather."""
    with Building("gather_elements", name, x) as new:
        return new.tensor(new.add(GatherElements(axis_of(axis, x.ndim)), new.value(x), new.value(indices)))


def gather_nd(x: Tensor, indices: Tensor, name: str = "") -> Tensor:
    """y[*i] = x[*indices[*i]]: the last dim of the indices holds positions along the first axes of x. ONNX GatherND."""
    with Building("gather_nd", name, x) as new:
        return new.tensor(new.add(GatherND(), new.value(x), new.value(indices)))


def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str = "none", name: str = "") -> Tensor:
    """x with updates[a, i, b] at [a, indices[a, i, b], b] along `axis`: instead of the element there (none; the last of several stays), or
    combined with it (add, mul, max, min). ONNX ScatterElements; torch scatter, scatter_add, scatter_reduce."""
    with Building("scatter_elements", name, x) as new:
        op = ScatterElements(axis_of(axis, x.ndim), reduction)
        return new.tensor(new.add(op, new.value(x), new.value(indices), new.value(updates)))


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, reduction: str = "none", name: str = "") -> Tensor:
    """x with updates[*i] at [*indices[*i]], which are elements, or whole rows where the indices are shorter than x has axes; reductions as
    in `scatter_elements`. ONNX ScatterND; torch index_put, index_add."""
    with Building("scatter_nd", name, x) as new:
        return new.tensor(new.add(ScatterND(reduction), new.value(x), new.value(indices), new.value(updates)))


def one_hot(indices: Tensor, depth: int, axis: int = -1, dtype: DTypeLike = f32, name: str = "") -> Tensor:
    """A new axis of `depth` that holds 1 at the index and 0 elsewhere."""
    with Building("one_hot", name, indices) as new:
        values = new.builder.constant(np.array([0, 1], element_type(dtype).numpy), name=f"{new.name}.values")
        return new.tensor(new.add(OneHot(whole(depth, "depth", 0), axis_of(axis, indices.ndim + 1)), new.value(indices), values))
