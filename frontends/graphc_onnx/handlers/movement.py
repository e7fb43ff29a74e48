"""Operators that move elements."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops import compose
from graphc.ops.movement import Concat, Pad, Slice, Tile, Transpose
from graphc.types.shape import Dim, DimLike, product
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

_END = (1 << 31) - 1  # exporters write this, or more, for "to the end"


@onnx_op("Reshape")
def reshape(context: Context, node: OnnxNode) -> Value:
    """-1 takes what is left; 0 copies the input's dim unless allowzero. The shape is an attribute in opset 1."""
    x = node.input(0)
    wanted: Sequence[DimLike] = node.ints("shape") if node.opset < 5 else context.ints(node.input(1), "the shape of Reshape")
    return context.identity(x) if _same(x, wanted) else context.reshape(x, resolve(x, wanted, node.flag("allowzero")))


def _same(x: Value, wanted: Sequence[DimLike]) -> bool:
    return tuple(wanted) == x.type.shape


def resolve(x: Value, wanted: Sequence[DimLike], allow_zero: bool = False) -> list[DimLike]:
    """The target shape without 0 and -1."""
    have = x.type.shape
    made: list[DimLike] = []
    for i, dim in enumerate(wanted):
        if isinstance(dim, int) and dim == 0 and not allow_zero:
            if i >= len(have):
                raise ShapeError(f"the shape {list(wanted)} copies dimension {i} of {x.type}, which does not exist")
            dim = have[i]
        if isinstance(dim, int) and dim < -1:
            raise ShapeError(f"the shape {list(wanted)} has a negative size")
        made.append(dim)
    holes = [i for i, dim in enumerate(made) if isinstance(dim, int) and dim == -1]
    if len(holes) > 1:
        raise ShapeError(f"the shape {list(wanted)} has more than one -1")
    if holes:
        rest = product(dim for i, dim in enumerate(made) if i != holes[0])
        if rest == 0:
            raise ShapeError(f"cannot tell what -1 stands for in {list(wanted)}: the other sizes are empty")
        if isinstance(x.type.size, int) and isinstance(rest, int) and x.type.size % rest:
            raise ShapeError(f"cannot reshape {x.type} to {list(wanted)}")
        made[holes[0]] = x.type.size // rest
    return made


@onnx_op("Flatten")
def flatten(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axis = node.integer("axis", 1)
    if not -x.type.rank <= axis <= x.type.rank:
        raise ShapeError(f"axis {axis} of Flatten is outside {x.type}")
    made = context.flatten2(x, axis if axis >= 0 else axis + x.type.rank)
    return made if made is not x else context.identity(x)


@onnx_op("Transpose")
def transpose(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    perm = node.ints("perm", range(x.type.rank)[::-1])
    if sorted(perm) != list(range(x.type.rank)):
        raise ShapeError(f"perm {list(perm)} is not a permutation of the axes of {x.type}")
    return context.add(Transpose(tuple(perm)), x)


def _axes(context: Context, node: OnnxNode) -> tuple[int, ...] | None:
    """Axes as an attribute (below opset 13) or as an input; None where they are not given."""
    if node.opset < 13:
        return node.ints("axes") if node.has("axes") else None
    given = node.optional(1)
    return context.plain_ints(given, f"the axes of {node.op}") if given is not None else None


@onnx_op("Squeeze")
def squeeze(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axes = _axes(context, node)
    if axes is None:
        axes = tuple(i for i, dim in enumerate(x.type.shape) if dim == 1)
    made = context.squeeze(x, axes)
    return made if made is not x else context.identity(x)


@onnx_op("Unsqueeze")
def unsqueeze(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    axes = _axes(context, node)
    if axes is None:
        raise ModelError("the axes of Unsqueeze are missing")
    made = context.unsqueeze(x, axes)
    return made if made is not x else context.identity(x)


@onnx_op("Expand")
def expand(context: Context, node: OnnxNode) -> Value:
    """Broadcast in both directions: the result has the numpy broadcast of both shapes."""
    x = node.input(0)
    wanted = context.ints(node.input(1), "the shape of Expand")
    rank = max(x.type.rank, len(wanted))
    have = (*[1] * (rank - x.type.rank), *x.type.shape)
    made: list[DimLike] = []
    for a, b in zip(have, (*[1] * (rank - len(wanted)), *wanted), strict=True):
        if a != b and a != 1 and b != 1:
            raise ShapeError(f"cannot expand {x.type} to {list(wanted)}")
        made.append(b if a == 1 else a)
    result = context.expand(x, made)
    return result if result is not x else context.identity(x)


@onnx_op("Concat")
def concat(context: Context, node: OnnxNode) -> Value:
    inputs = node.inputs
    if not inputs:
        raise ModelError("Concat needs at least one input")
    axis = node.integer("axis", 1) if node.opset < 4 else node.integer("axis")
    return context.add(Concat(normal_axis(axis, inputs[0].type.rank)), *inputs)


@onnx_op("Slice")
def slice_(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    if node.opset < 10:
        starts: Sequence[DimLike] = node.ints("starts")
        ends: Sequence[DimLike] = node.ints("ends")
        axes = node.ints("axes", range(len(starts)))
        steps: tuple[int, ...] = (1,) * len(starts)
    else:
        starts, ends = (context.ints(node.input(i), f"the {what} of Slice") for i, what in ((1, "starts"), (2, "ends")))
        given, stride = node.optional(3), node.optional(4)
        axes = context.plain_ints(given, "the axes of Slice") if given is not None else tuple(range(len(starts)))
        steps = context.plain_ints(stride, "the steps of Slice") if stride is not None else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError("starts, ends, axes and steps of Slice differ in length")
    rank = x.type.rank
    begin: list[DimLike] = [0] * rank
    stride_of, shape = [1] * rank, list(x.type.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = normal_axis(axis, rank)
        begin[at], stride_of[at], shape[at] = bounds(x.type.shape[at], start, end, step)
    return context.add(Slice(tuple(begin), tuple(stride_of), tuple(shape)), x)


def bounds(size: DimLike, start: DimLike, end: DimLike, step: int) -> tuple[DimLike, int, DimLike]:
    """(first index, step, number of elements) of Python's `[start:end:step]` over an axis; sizes may be symbolic."""
    if step == 0:
        raise ModelError("Slice with step 0")
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        taken = range(size)[start:end:step]
        return (taken.start if len(taken) else 0), step, len(taken)
    low: DimLike = 0 if step > 0 else -1
    high: DimLike = size if step > 0 else size - 1
    first, last = (_clamped(bound, size, low, high) for bound in (start, end))
    span = last - first if step > 0 else first - last
    if isinstance(span, int) and span <= 0:
        return 0, step, 0
    count = span if abs(step) == 1 else -(-span // abs(step))
    return first, step, count


def _clamped(bound: DimLike, size: DimLike, low: DimLike, high: DimLike) -> DimLike:
    """A slice bound within an axis of symbolic size. Sizes are at least 1, and a bound beyond the axis means its end."""
    if isinstance(bound, int):
        if bound >= _END:
            return high
        if bound <= -_END:
            return low
        if bound < 0:
            bound = bound + size
    if isinstance(size, Dim) and bound == size:
        return high
    if bound > high:
        return high
    return low if bound < low else bound


@onnx_op("Split")
def split(context: Context, node: OnnxNode) -> list[Value]:
    """Sizes from `split`, or equal parts (from opset 18 the last one may be smaller)."""
    x = node.input(0)
    axis = normal_axis(node.integer("axis", 0), x.type.rank)
    size = x.type.shape[axis]
    sizes = _split_sizes(context, node, size)
    total: DimLike = 0
    parts: list[Value] = []
    for part in sizes:
        if isinstance(part, int) and part < 0:
            raise ShapeError(f"negative size in split {list(sizes)}")
        parts.append(context.slice_axis(x, axis, total, part))
        total = total + part
    if total != size:
        raise ShapeError(f"split {list(sizes)} does not add up to the size {size} of axis {axis}")
    return parts


def _split_sizes(context: Context, node: OnnxNode, size: DimLike) -> Sequence[DimLike]:
    if node.opset < 13 and node.has("split"):
        return node.ints("split")
    given = node.optional(1)
    if given is not None:
        return context.ints(given, "the sizes of Split")
    count = len(node.outputs)
    if count < 1 or (node.opset >= 18 and node.integer("num_outputs", count) != count):
        raise ModelError(f"Split has {count} outputs and num_outputs={node.integer('num_outputs', count)}")
    if isinstance(size, Dim):
        if size % count != 0:
            hint = f"fix it, e.g. dims={{{str(size)!r}: {count}}}"
            raise ShapeError(f"cannot split the symbolic size {size} into {count} parts", hint=hint)
        return [size // count] * count
    if size % count and node.opset < 18:
        raise ShapeError(f"cannot split {size} elements into {count} equal parts")
    part = -(-size // count)
    return [part] * (count - 1) + [size - part * (count - 1)]


@onnx_op("Tile")
def tile(context: Context, node: OnnxNode) -> Value:
    x = node.input(0)
    if node.opset < 6:
        axis = normal_axis(context.plain_ints(node.input(2), "the axis of Tile")[0], x.type.rank)
        times = context.plain_ints(node.input(1), "the tiles of Tile")[0]
        return context.add(Tile(tuple(times if i == axis else 1 for i in range(x.type.rank))), x)
    return context.add(Tile(context.plain_ints(node.input(1), "the repeats of Tile")), x)


@onnx_op("Pad")
def pad(context: Context, node: OnnxNode) -> Value:
    """Pads as an attribute (below opset 11) or as an input; from opset 18 for the given axes only."""
    x = node.input(0)
    mode = node.string("mode", "constant", choices=("constant", "reflect", "edge", "wrap"))
    rank = x.type.rank
    if node.opset < 11:
        pads: Sequence[int] = node.ints("paddings" if node.opset < 2 else "pads")
        return _pad(context, x, pads, range(rank), mode, node.number("value", 0.0), None)
    pads = context.plain_ints(node.input(1), "the pads of Pad")
    given = node.optional(3)
    axes = context.plain_ints(given, "the axes of Pad") if given is not None else range(rank)
    fill = node.optional(2)
    number = context.number(fill) if fill is not None else 0.0
    return _pad(context, x, pads, axes, mode, 0.0 if number is None else number, fill if number is None else None)


def _pad(context: Context, x: Value, pads: Sequence[int], axes: Sequence[int], mode: str, value: float, fill: Value | None) -> Value:
    if len(pads) != 2 * len(axes):
        raise ModelError(f"{len(pads)} pads for {len(axes)} axes")
    before, after = [0] * x.type.rank, [0] * x.type.rank
    for i, axis in enumerate(axes):
        at = normal_axis(axis, x.type.rank)
        before[at], after[at] = pads[i], pads[i + len(axes)]
    return context.add(Pad(tuple(before), tuple(after), mode, value), x, *([fill] if fill is not None else []))


@onnx_op("DepthToSpace", "SpaceToDepth")
def depth_space(context: Context, node: OnnxNode) -> Value:
    """Mode DCR: the block is the outer part of the channels; CRD: the inner part."""
    build = compose.depth_to_space if node.op == "DepthToSpace" else compose.space_to_depth
    return build(context.builder, node.input(0), node.integer("blocksize"), node.string("mode", "DCR", choices=("DCR", "CRD")))
