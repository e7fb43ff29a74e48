"""Resize in all its versions, Upsample, GridSample."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.grid_sample import GridSample
from graphc.ops.resize import Resize
from graphc.types.shape import Dim, DimLike
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip


@onnx_op("Upsample")
def upsample(context: Context, node: OnnxNode) -> Value:
    """Scales are attributes (opsets 1 and 7) or an input (9); positions are asymmetric, nearest rounds down."""
    x = node.input(0)
    if node.opset < 7:
        scales: Sequence[float] = (1.0, 1.0, node.number("height_scale"), node.number("width_scale"))
    elif node.opset < 9:
        scales = node.floats("scales")
    else:
        scales = _numbers(context, node.input(1), "the scales of Upsample")
    return _asymmetric(context, node, x, scales)


@onnx_op("Resize", until=10)
def resize_10(context: Context, node: OnnxNode) -> Value:
    return _asymmetric(context, node, node.input(0), _numbers(context, node.input(1), "the scales of Resize"))


def _asymmetric(context: Context, node: OnnxNode, x: Value, scales: Sequence[float]) -> Value:
    mode = node.string("mode", "nearest", choices=("nearest", "linear", "bilinear"))
    shape = scaled(x.type.shape, scales)
    op = Resize(shape, tuple(scales), "nearest" if mode == "nearest" else "linear", "asymmetric", "floor")
    return context.add(op, x)


@onnx_op("Resize", since=11)
def resize(context: Context, node: OnnxNode) -> Value:
    """By `scales` or by `sizes`, for all axes or the given ones (from opset 18)."""
    x = node.input(0)
    rank = x.type.rank
    axes = [normal_axis(axis, rank) for axis in node.ints("axes", range(rank))]
    coordinates = node.string("coordinate_transformation_mode", "half_pixel", choices=_COORDINATES)
    roi = _roi(context, node, axes, rank) if coordinates == "tf_crop_and_resize" else ()
    shape, scales = _target(context, node, x, axes, roi)
    op = Resize(
        shape, scales, node.string("mode", "nearest", choices=("nearest", "linear", "cubic")),
        "half_pixel" if coordinates == "tf_half_pixel_for_nn" else coordinates, node.string("nearest_mode", "round_prefer_floor"),
        node.number("cubic_coeff_a", -0.75), node.flag("exclude_outside"), node.number("extrapolation_value", 0.0),
        node.flag("antialias"), roi,
    )  # fmt: skip
    return context.add(op, x)


def _target(
    context: Context, node: OnnxNode, x: Value, axes: Sequence[int], roi: Sequence[float]
) -> tuple[tuple[DimLike, ...], tuple[float, ...]]:
    """Result shape and scales of all axes."""
    have = x.type.shape
    given, sizes = node.optional(2), node.optional(3)
    full = [1.0] * len(have)
    if given is not None and given.type.shape != (0,):
        scales = _numbers(context, given, "the scales of Resize")
        _check_count(scales, axes)
        for axis, scale in zip(axes, scales, strict=True):
            full[axis] = scale
        spans = [roi[axis + len(have)] - roi[axis] for axis in range(len(have))] if roi else [1.0] * len(have)
        return scaled(have, [scale * span for scale, span in zip(full, spans, strict=True)]), tuple(full)
    if sizes is None:
        raise ModelError("Resize needs scales or sizes")
    wanted = context.ints(sizes, "the sizes of Resize")
    _check_count(wanted, axes)
    policy = node.string("keep_aspect_ratio_policy", "stretch", choices=("stretch", "not_larger", "not_smaller"))
    shape = list(have)
    for axis, size in zip(axes, wanted, strict=True):
        shape[axis], full[axis] = size, _ratio(size, have[axis])
    if policy != "stretch":
        scale = (min if policy == "not_larger" else max)(full[axis] for axis in axes)
        for axis in axes:
            shape[axis], full[axis] = floor(scale * have[axis].__index__() + 0.5), scale
    return tuple(shape), tuple(full)


def _check_count(given: Sequence[object], axes: Sequence[int]) -> None:
    if len(given) != len(axes):
        raise ModelError(f"{len(given)} scales or sizes for {len(axes)} axes")


def _ratio(size: DimLike, have: DimLike) -> float:
    if size == have:
        return 1.0
    if isinstance(size, Dim) or isinstance(have, Dim):
        raise ShapeError(f"resize from {have} to {size}: the sizes must be known", hint="fix the symbolic dims, e.g. dims={'H': 224}")
    return size / have if have else 1.0


def scaled(shape: Sequence[DimLike], scales: Sequence[float]) -> tuple[DimLike, ...]:
    """floor(size * scale) per axis, in float32 as ONNX Runtime computes it; symbolic sizes by whole numbers and their reciprocals."""
    if len(scales) != len(shape):
        raise ModelError(f"{len(scales)} scales for {len(shape)} axes")
    made: list[DimLike] = []
    for size, scale in zip(shape, scales, strict=True):
        if isinstance(size, int):
            with np.errstate(over="ignore"):  # floor refuses infinity
                made.append(floor(np.float32(scale) * np.float32(size)))
        elif scale >= 1 and scale == int(scale):
            made.append(size * int(scale))
        elif 0 < scale < 1 and 1 / scale == int(1 / scale):
            made.append(size // int(1 / scale))
        else:
            raise ShapeError(f"the symbolic size {size} times {scale}", hint=f"fix it, e.g. dims={{{str(size)!r}: 224}}")
    return tuple(made)


def _roi(context: Context, node: OnnxNode, axes: Sequence[int], rank: int) -> tuple[float, ...]:
    """Starts then ends of all axes; those not in `axes` are whole."""
    given = _numbers(context, node.input(1), "the roi of Resize")
    if len(given) != 2 * len(axes):
        raise ModelError(f"a roi of {len(given)} numbers for {len(axes)} axes")
    starts, ends = [0.0] * rank, [1.0] * rank
    for i, axis in enumerate(axes):
        starts[axis], ends[axis] = given[i], given[i + len(axes)]
    return (*starts, *ends)


def _numbers(context: Context, value: Value, what: str) -> tuple[float, ...]:
    return tuple(float(number) for number in context.array(value, what).reshape(-1))


@onnx_op("GridSample")
def grid_sample(context: Context, node: OnnxNode) -> Value:
    """Opset 16 calls the modes bilinear and bicubic."""
    mode = node.string("mode", "linear", choices=("linear", "nearest", "cubic", "bilinear", "bicubic"))
    padding = node.string("padding_mode", "zeros", choices=("zeros", "border", "reflection"))
    return context.add(GridSample(mode.removeprefix("bi"), padding, node.flag("align_corners")), node.input(0), node.input(1))
