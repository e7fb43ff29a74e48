"""Functions that move elements and compute nothing: reshape, transpose, concat, pad, resize and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ops import compose
from graphc.ops.gather import Trilu
from graphc.ops.movement import Concat, Pad, Slice, Tile
from graphc.ops.resize import Resize
from graphc.types.dtype import f32
from graphc.types.shape import Dim, DimLike, product
from graphc_dsl.arguments import DTypeLike, Sizes, axes_of, axis_of, element_type, per_dim, whole
from graphc_dsl.trace import Building

if TYPE_CHECKING:
    from graphc_dsl.tensor import Tensor

Factors = Union[float, Sequence[float]]


def listed(items: Sequence[Any]) -> tuple[Any, ...]:
    """reshape(2, 3) and reshape((2, 3)) are the same."""
    return tuple(items[0]) if len(items) == 1 and isinstance(items[0], Sequence) else tuple(items)


def constant(data: Any, dtype: DTypeLike | None = None, name: str = "") -> Tensor:
    """A tensor with fixed values: a numpy array, or anything that numpy makes one of. Python floats become f32."""
    with Building("constant", name) as new:
        array = np.asarray(data)
        if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and array.dtype.kind == "f":
            dtype = f32
        return new.tensor(new.builder.constant(array, None if dtype is None else element_type(dtype), name=new.name))


def zeros(shape: Sequence[int], dtype: DTypeLike = f32, name: str = "") -> Tensor:
    """A constant tensor of zeros."""
    return constant(np.zeros(tuple(shape), element_type(dtype).numpy), name=name)


def ones(shape: Sequence[int], dtype: DTypeLike = f32, name: str = "") -> Tensor:
    """A constant tensor of ones."""
    return constant(np.ones(tuple(shape), element_type(dtype).numpy), name=name)


def arange(*bounds: float, dtype: DTypeLike | None = None, name: str = "") -> Tensor:
    """The constant numbers of np.arange(*bounds): [start,] stop[, step]. Integers are i64, floats f32."""
    return constant(np.arange(*bounds), dtype or (f32 if any(isinstance(b, float) for b in bounds) else None), name=name)


def reshape(x: Tensor, shape: Sequence[DimLike], name: str = "") -> Tensor:
    """x with another shape; one -1 takes what is left. Row-major, as np.reshape."""
    with Building("reshape", name, x) as new:
        dims = [dim if isinstance(dim, Dim) else whole(dim, "a size", -1) for dim in shape]
        return new.tensor(compose.reshape(new.builder, new.value(x), dims))


def flatten(x: Tensor, axis: int = 1, name: str = "") -> Tensor:
    """(N, C, H, W) -> (N, C*H*W): the dims from `axis` on become one. Those before it stay."""
    with Building("flatten", name, x) as new:
        at = axis_of(axis, x.ndim)
        return new.tensor(compose.reshape(new.builder, new.value(x), (*x.shape[:at], product(x.shape[at:]))))


def transpose(x: Tensor, perm: Sequence[int] | None = None, name: str = "") -> Tensor:
    """Axis i of the result is axis perm[i] of x; None reverses the axes. np.transpose, torch permute."""
    with Building("transpose", name, x) as new:
        return new.tensor(compose.transpose(new.builder, new.value(x), tuple(range(x.ndim))[::-1] if perm is None else perm))


def squeeze(x: Tensor, axes: int | Sequence[int] | None = None, name: str = "") -> Tensor:
    """x without these axes of size 1; None: without all of them."""
    with Building("squeeze", name, x) as new:
        return new.tensor(compose.squeeze(new.builder, new.value(x), None if axes is None else axes_of(axes, x.ndim)))


def unsqueeze(x: Tensor, axes: int | Sequence[int], name: str = "") -> Tensor:
    """x with new axes of size 1 at these positions of the result. np.expand_dims."""
    with Building("unsqueeze", name, x) as new:
        return new.tensor(compose.unsqueeze(new.builder, new.value(x), [axes] if isinstance(axes, int) else list(axes)))


def expand(x: Tensor, shape: Sequence[DimLike], name: str = "") -> Tensor:
    """x broadcast to a shape. np.broadcast_to."""
    with Building("expand", name, x) as new:
        return new.tensor(compose.expand(new.builder, new.value(x), tuple(shape)))


def concat(tensors: Sequence[Tensor], axis: int = 1, name: str = "") -> Tensor:
    """The tensors one after another along `axis` (channels, unless told). np.concatenate."""
    with Building("concat", name, *tensors) as new:
        if not tensors:
            raise ShapeError("concat of no tensor", hint="give at least one")
        return new.tensor(new.add(Concat(axis_of(axis, tensors[0].ndim)), *(new.value(x) for x in tensors)))


def stack(tensors: Sequence[Tensor], axis: int = 0, name: str = "") -> Tensor:
    """Tensors of one shape along a new axis. np.stack."""
    with Building("stack", name, *tensors) as new:
        if not tensors:
            raise ShapeError("stack of no tensor", hint="give at least one")
        return new.tensor(compose.stack(new.builder, [new.value(x) for x in tensors], axis))


def split(x: Tensor, parts: int | Sequence[int], axis: int = 1, name: str = "") -> list[Tensor]:
    """x cut along `axis` into `parts` equal tensors, or into tensors of the given sizes."""
    with Building("split", name, x) as new:
        at = axis_of(axis, x.ndim)
        size = x.shape[at]
        if isinstance(parts, int) and (whole(parts, "parts", 1) and size % parts != 0):
            raise ShapeError(f"axis {at} of {x.type} does not split into {parts} equal parts", hint="give the sizes, e.g. [2, 3]")
        sizes = [size // parts] * parts if isinstance(parts, int) else list(parts)
        return new.tensors(compose.split(new.builder, new.value(x), at, sizes))


def pad(x: Tensor, widths: Sequence[int | Sequence[int]], mode: str = "constant", value: float = 0.0, name: str = "") -> Tensor:
    """x with elements added at the ends of its last len(widths) axes: one number or a pair (before, after) for each; negative ones crop.

    pad(x, [(1, 2), 3]) of (N, C, H, W): 1 above, 2 below, 3 left and right. mode: constant (`value`), reflect, edge, wrap. np.pad.
    """
    with Building("pad", name, x) as new:
        if len(widths) > x.ndim:
            raise AttributeValueError(f"{len(widths)} pad widths for {x.type}", hint=f"at most {x.ndim}")
        least = -(1 << 62)
        pairs = [(0, 0)] * (x.ndim - len(widths)) + [per_dim(w, 2, "a pad width", least) for w in widths]
        return new.tensor(new.add(Pad(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), mode, float(value)), new.value(x)))


def tile(x: Tensor, repeats: Sequence[int], name: str = "") -> Tensor:
    """x repeated along each axis. np.tile."""
    with Building("tile", name, x) as new:
        return new.tensor(new.add(Tile(per_dim(repeats, x.ndim, "repeats", 0)), new.value(x)))


def flip(x: Tensor, axes: int | Sequence[int], name: str = "") -> Tensor:
    """x with the order of elements reversed along axes. np.flip."""
    with Building("flip", name, x) as new:
        over = axes_of(axes, x.ndim)
        starts = tuple(dim - 1 if i in over else 0 for i, dim in enumerate(x.shape))
        return new.tensor(new.add(Slice(starts, tuple(-1 if i in over else 1 for i in range(x.ndim)), x.shape), new.value(x)))


def triu(x: Tensor, k: int = 0, name: str = "") -> Tensor:
    """The last two dims without what lies below the k-th diagonal. np.triu."""
    with Building("triu", name, x) as new:
        return new.tensor(new.add(Trilu(True, k), new.value(x)))


def tril(x: Tensor, k: int = 0, name: str = "") -> Tensor:
    """The last two dims without what lies above the k-th diagonal. np.tril."""
    with Building("tril", name, x) as new:
        return new.tensor(new.add(Trilu(False, k), new.value(x)))


def depth_to_space(x: Tensor, block: int, mode: str = "DCR", name: str = "") -> Tensor:
    """(N, C, H, W) -> (N, C/block^2, H*block, W*block). ONNX DepthToSpace."""
    with Building("depth_to_space", name, x) as new:
        return new.tensor(compose.depth_to_space(new.builder, new.value(x), block, mode))


def pixel_shuffle(x: Tensor, factor: int, name: str = "") -> Tensor:
    """(N, C*factor^2, H, W) -> (N, C, H*factor, W*factor). Shi et al. 2016, arXiv:1609.05158; torch pixel_shuffle."""
    with Building("pixel_shuffle", name, x) as new:
        return new.tensor(compose.depth_to_space(new.builder, new.value(x), factor, "CRD"))


def space_to_depth(x: Tensor, block: int, mode: str = "DCR", name: str = "") -> Tensor:
    """(N, C, H, W) -> (N, C*block^2, H/block, W/block). ONNX SpaceToDepth."""
    with Building("space_to_depth", name, x) as new:
        return new.tensor(compose.space_to_depth(new.builder, new.value(x), block, mode))


def channel_shuffle(x: Tensor, groups: int, name: str = "") -> Tensor:
    """Channel i of group g becomes channel g of group i. Zhang et al. 2018 (ShuffleNet), arXiv:1707.01083."""
    with Building("channel_shuffle", name, x) as new:
        channels, rest = x.shape[1], x.shape[2:]
        if channels % whole(groups, "groups", 1) != 0:
            raise ShapeError(f"{channels} channels do not split into {groups} groups")
        y = compose.reshape(new.builder, new.value(x), (x.shape[0], groups, channels // groups, *rest))
        y = compose.transpose(new.builder, y, (0, 2, 1, *range(3, len(rest) + 3)))
        return new.tensor(compose.reshape(new.builder, y, x.shape))


def resize(
    x: Tensor, size: Sizes | None = None, scale: Factors | None = None, mode: str = "nearest", align_corners: bool = False,
    antialias: bool = False, name: str = "",
) -> Tensor:  # fmt: skip
    """(N, C, *spatial) interpolated to `size`, or by `scale`: mode nearest, linear (bilinear for images) or cubic (coefficient -0.75).

    Element centres are aligned (half_pixel; nearest: floor(i / scale)), or with `align_corners` the corners. torch interpolate.
    """
    with Building("resize", name, x) as new:
        spatial = x.ndim - 2
        if (size is None) == (scale is None):
            raise AttributeValueError(f"resize with size={size!r} and scale={scale!r}", hint="give one of them")
        if size is not None:
            sizes: list[DimLike] = list(per_dim(size, spatial, "size"))
            factors = [float(n) / float(have.__index__()) for n, have in zip(sizes, x.shape[2:], strict=True)]
        else:
            factors = [float(s) for s in scale] if isinstance(scale, Sequence) else [float(scale or 0)] * spatial
            sizes = [_scaled(have, factor) for have, factor in zip(x.shape[2:], factors, strict=True)]
        if align_corners and mode == "nearest":
            raise AttributeValueError("resize with mode nearest and align_corners", hint="linear or cubic align corners")
        where = "align_corners" if align_corners else "asymmetric" if mode == "nearest" else "half_pixel"
        rounding = "floor" if mode == "nearest" else "round_prefer_floor"
        plain = {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        op = Resize((*x.shape[:2], *sizes), (1.0, 1.0, *factors), plain, where, rounding, antialias=antialias)
        return new.tensor(new.add(op, new.value(x)))


def upsample(x: Tensor, scale: Factors = 2, mode: str = "nearest", align_corners: bool = False, name: str = "") -> Tensor:
    """`resize` by a factor."""
    return resize(x, scale=scale, mode=mode, align_corners=align_corners, name=name)


def _scaled(size: DimLike, factor: float) -> DimLike:
    """floor(size * factor); a symbolic size takes whole factors only."""
    if isinstance(size, int):
        return int(size * factor + 1e-9)
    if factor != int(factor):
        raise ShapeError(f"resize of the symbolic size {size} by {factor}", hint="fix the size, or scale by a whole number")
    return size * int(factor)
