"""Builder functions for what is composed of ops: shape helpers, block rearrangements, global pooling. Axes may be negative here."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops.movement import Concat, Expand, Reshape, Slice, Transpose
from graphc.ops.pool import LpPool
from graphc.ops.reduce import Reduce
from graphc.types.dtype import DType, f32
from graphc.types.shape import DimLike, product, static


def axis_of(axis: int, rank: int) -> int:
    """The axis counted from 0; an AttributeValueError where there is none."""
    if not -rank <= axis < rank:
        raise AttributeValueError(f"axis {axis} of a tensor of rank {rank}", hint=f"{-rank} to {rank - 1}")
    return axis % rank


def reshape(builder: Builder, x: Value, shape: Sequence[DimLike]) -> Value:
    """x with another shape; one -1 takes what is left. x itself where nothing changes."""
    holes = [i for i, dim in enumerate(shape) if isinstance(dim, int) and dim == -1]
    if len(holes) > 1:
        raise ShapeError(f"cannot reshape to {list(shape)}: more than one -1")
    target = list(shape)
    if holes:
        rest = product(dim for i, dim in enumerate(shape) if i != holes[0])
        if rest == 0:
            raise ShapeError(f"cannot tell what -1 stands for in {list(shape)}")
        target[holes[0]] = x.type.size // rest
    return x if tuple(target) == x.type.shape else builder.add(Reshape(tuple(target)), x)


def flatten(builder: Builder, x: Value, axis: int = 1) -> Value:
    """2-d: the dims before `axis` as one, those from it on as the other. ONNX Flatten."""
    axis = axis + x.type.rank if axis < 0 else axis
    if not 0 <= axis <= x.type.rank:
        raise AttributeValueError(f"flatten {x.type} at axis {axis}")
    return reshape(builder, x, (product(x.type.shape[:axis]), product(x.type.shape[axis:])))


def squeeze(builder: Builder, x: Value, axes: Sequence[int] | None = None) -> Value:
    """x without the given axes, which have size 1 (None: without all that have). ONNX Squeeze; np.squeeze."""
    shape = x.type.shape
    gone = {i for i, dim in enumerate(shape) if dim == 1} if axes is None else {axis_of(axis, len(shape)) for axis in axes}
    if any(shape[axis] != 1 for axis in gone):
        raise ShapeError(f"squeeze of axes {sorted(gone)} of {x.type}: only axes of size 1 go")
    return reshape(builder, x, [dim for i, dim in enumerate(shape) if i not in gone])


def unsqueeze(builder: Builder, x: Value, axes: Sequence[int]) -> Value:
    """x with new axes of size 1 at these positions of the result. ONNX Unsqueeze; np.expand_dims."""
    rank = x.type.rank + len(axes)
    new = {axis_of(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise AttributeValueError(f"unsqueeze at {list(axes)}: an axis is given twice")
    old = iter(x.type.shape)
    return reshape(builder, x, [1 if i in new else next(old) for i in range(rank)])


def transpose(builder: Builder, x: Value, perm: Sequence[int]) -> Value:
    """x with its axes in another order; x itself where the order stays."""
    order = tuple(axis_of(axis, x.type.rank) for axis in perm)
    return x if order == tuple(range(x.type.rank)) else builder.add(Transpose(order), x)


def expand(builder: Builder, x: Value, shape: Sequence[DimLike]) -> Value:
    """x broadcast to a shape; x itself where it has it."""
    return x if tuple(shape) == x.type.shape else builder.add(Expand(tuple(shape)), x)


def slice_axis(builder: Builder, x: Value, axis: int, start: DimLike, size: DimLike, step: int = 1) -> Value:
    """`size` elements of one axis, from `start` (counted from 0) by `step`."""
    axis = axis_of(axis, x.type.rank)
    if (start, size, step) == (0, x.type.shape[axis], 1):
        return x
    rank = x.type.rank
    starts = tuple(start if i == axis else 0 for i in range(rank))
    steps = tuple(step if i == axis else 1 for i in range(rank))
    shape = tuple(size if i == axis else dim for i, dim in enumerate(x.type.shape))
    return builder.add(Slice(starts, steps, shape), x)


def split(builder: Builder, x: Value, axis: int, sizes: Sequence[DimLike]) -> tuple[Value, ...]:
    """x cut along `axis` into parts of these sizes. ONNX Split."""
    axis = axis_of(axis, x.type.rank)
    total: DimLike = 0
    for size in sizes:
        total = total + size
    if total != x.type.shape[axis]:
        raise ShapeError(f"split of {x.type}: the sizes {list(sizes)} do not add up to axis {axis}")
    parts: list[Value] = []
    start: DimLike = 0
    for size in sizes:
        parts.append(slice_axis(builder, x, axis, start, size))
        start = start + size
    return tuple(parts)


def stack(builder: Builder, values: Sequence[Value], axis: int = 0) -> Value:
    """Tensors of one shape along a new axis. np.stack."""
    axis = axis_of(axis, values[0].type.rank + 1)
    return builder.add(Concat(axis), *(unsqueeze(builder, value, [axis]) for value in values))


_DEPTH_MODES = ("DCR", "CRD")


def depth_to_space(builder: Builder, x: Value, block: int, mode: str = "DCR") -> Value:
    """(N, C, H, W) -> (N, C/block^2, H*block, W*block): blocks of channels become pixels. ONNX DepthToSpace; CRD: torch pixel_shuffle."""
    n, c, h, w = _block_shape(x, block, mode)
    if c % (block * block) != 0:
        raise ShapeError(f"depth_to_space of {x.type}: the channels are no multiple of {block}^2")
    inner = c // (block * block)
    if mode == "DCR":
        y = transpose(builder, reshape(builder, x, (n, block, block, inner, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = transpose(builder, reshape(builder, x, (n, inner, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(builder, y, (n, inner, h * block, w * block))


def space_to_depth(builder: Builder, x: Value, block: int, mode: str = "DCR") -> Value:
    """(N, C, H, W) -> (N, C*block^2, H/block, W/block): blocks of pixels become channels. ONNX SpaceToDepth; CRD: torch pixel_unshuffle."""
    n, c, h, w = _block_shape(x, block, mode)
    if h % block != 0 or w % block != 0:
        raise ShapeError(f"space_to_depth of {x.type}: height and width are no multiples of {block}")
    y = reshape(builder, x, (n, c, h // block, block, w // block, block))
    y = transpose(builder, y, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return reshape(builder, y, (n, c * block * block, h // block, w // block))


def _block_shape(x: Value, block: int, mode: str) -> tuple[DimLike, ...]:
    if x.type.rank != 4 or block < 1 or mode not in _DEPTH_MODES:
        raise AttributeValueError(f"block {block}, mode {mode!r} of {x.type}", hint="(N, C, H, W), a block of at least 1, DCR or CRD")
    return x.type.shape


def global_pool(builder: Builder, x: Value, kind: str, p: int = 2) -> Value:
    """(N, C, *spatial) -> (N, C, 1, ...): kind mean, max or lp. ONNX GlobalAveragePool, GlobalMaxPool, GlobalLpPool."""
    axes = tuple(range(2, x.type.rank))
    if kind in ("mean", "max"):
        return builder.add(Reduce(kind, axes, True), x)
    if kind != "lp":
        raise AttributeValueError(f"global pooling {kind!r}", hint="mean, max or lp")
    if p in (1, 2):
        return builder.add(Reduce(f"l{p}", axes, True), x)
    ones, zeros = (1,) * len(axes), (0,) * len(axes)
    return builder.add(LpPool(static(x.type.shape[2:]), ones, ones, zeros, zeros, p=p), x)


def mean_variance_normalization(builder: Builder, x: Value, axes: Sequence[int] = (0, 2, 3), epsilon: float = 1e-9) -> Value:
    """(x - mean) / (sqrt(mean of squared deviations) + epsilon) over `axes`. ONNX MeanVarianceNormalization."""
    from graphc.ops.pointwise import op

    over = tuple(sorted(axis_of(axis, x.type.rank) for axis in axes))
    centred = builder.add(op("sub"), x, builder.add(Reduce("mean", over, True), x))
    variance = builder.add(Reduce("mean", over, True), builder.add(op("mul"), centred, centred))
    deviation = builder.add(op("sqrt"), variance)
    return builder.add(op("div"), centred, builder.add(op("add"), deviation, builder.constant(epsilon, x.type.dtype, name="epsilon")))


def eye(builder: Builder, rows: int, columns: int, k: int = 0, dtype: DType = f32) -> Value:
    """A constant matrix with ones on the k-th diagonal. np.eye; ONNX EyeLike for known sizes."""
    return builder.constant(np.eye(rows, columns, k, dtype=dtype.numpy), name="eye")


def arange(builder: Builder, start: float, limit: float, delta: float, dtype: DType) -> Value:
    """The constant start, start + delta, ... below limit (above, where delta < 0). ONNX Range for known bounds."""
    if delta == 0:
        raise AttributeValueError("range with step 0")
    count = max(ceil((limit - start) / delta), 0)
    values = np.asarray(start, dtype.numpy) + np.arange(count) * np.asarray(delta, dtype.numpy)
    return builder.constant(values.astype(dtype.numpy), name="range")
