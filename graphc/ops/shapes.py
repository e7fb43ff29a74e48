"""Shape rules that several op families share."""

from __future__ import annotations

from graphc.errors import AttributeValueError, ShapeError
from graphc.types.shape import DimLike, Shape, is_static


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The numpy broadcast of shapes, symbolic dims allowed: dims align from the right, and only a 1 stretches.

    Raises ShapeError where two dims differ or may differ (N against 3: N is not known to be 1 or 3).
    """
    rank = max((len(shape) for shape in shapes), default=0)
    aligned = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_broadcast_dim(dims, shapes) for dims in zip(*aligned, strict=True))


def _broadcast_dim(dims: tuple[DimLike, ...], shapes: tuple[Shape, ...]) -> DimLike:
    found: DimLike = 1
    for dim in dims:
        if dim == 1 or dim == found:
            continue
        if found != 1:
            listed = " and ".join(f"[{','.join(map(str, shape))}]" for shape in shapes)
            hint = "make the sizes equal or 1" if is_static((dim, found)) else "fix the symbolic dims, e.g. dims={'N': 1}"
            raise ShapeError(f"shapes {listed} do not broadcast: {found} against {dim}", hint=hint)
        found = dim
    return found


def check_broadcast_to(shape: Shape, target: Shape, what: str) -> None:
    """Raise ShapeError unless `shape` broadcasts to exactly `target`."""
    if len(shape) > len(target) or broadcast_shapes(shape, target) != tuple(target):
        raise ShapeError(f"{what} of shape [{','.join(map(str, shape))}] does not broadcast to [{','.join(map(str, target))}]")


def check_axes(op: str, axes: tuple[int, ...], rank: int) -> None:
    """Raise unless `axes` are distinct and within 0..rank-1 (attributes are normalised: no negative axes)."""
    for axis in axes:
        if not 0 <= axis < rank:
            raise ShapeError(f"{op}: axis {axis} is outside 0..{rank - 1}" if rank else f"{op}: axis {axis} of a scalar")
    if len(set(axes)) != len(axes):
        raise AttributeValueError(f"{op}: axes {axes} repeat one")
