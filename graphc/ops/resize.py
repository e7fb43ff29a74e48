"""Resize: interpolation along axes at positions that are known at compile time.

Every mode is a sparse linear map per axis: result position o reads a few positions of the input with fixed weights. `sampling` computes
these tables in float64 (source: the ONNX Resize specification, versions 10 to 19), `Resample` applies them, Resize decomposes into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isclose, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, UnsupportedError
from graphc.ir.op import Array, Cost, Lowering, Op, register
from graphc.kernel.access import Access
from graphc.kernel.expr import Expr, const, reduce
from graphc.ops.gather import need_index, normalised, wrapped
from graphc.ops.movement import check_axis, surely_less, zeros
from graphc.types.dtype import f64, i64
from graphc.types.shape import DimLike
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

MODES = ("nearest", "linear", "cubic")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
)  # fmt: skip
JOINT_TAPS = 16  # up to so many products per element all axes are resampled in one step, beyond that axis by axis


@register
@dataclass(frozen=True)
class Resample(Op):
    """y[o] = sum over t of x[index[t, o]] * weight[t, o] along each of `axes`; without `weighted` one tap and no product.

    Inputs: x, then for each axis its index table i64 [taps, size] and, if `weighted`, its weight table [taps, size] of the dtype of x. An
    axis of x gets the size of its tables. Accumulates in the dtype of x. Indices are clamped to the axis.
    """

    axes: tuple[int, ...]
    weighted: bool = False

    name: ClassVar[str] = "resample"
    inputs: ClassVar[tuple[int, int]] = (2, -1)
    family: ClassVar[str] = "gather"
    keeps_layout: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        x, tables = types[0], types[1:]
        per_axis = 2 if self.weighted else 1
        if len(set(self.axes)) != len(self.axes) or len(tables) != per_axis * len(self.axes):
            raise AttributeValueError(f"resample of axes {self.axes} needs {per_axis} tables for each, got {len(tables)}")
        shape = list(x.shape)
        for number, axis in enumerate(self.axes):
            check_axis(axis, x)
            index, *weights = tables[per_axis * number : per_axis * (number + 1)]
            need_index(self, index)
            if index.rank != 2 or (not self.weighted and index.shape[0] != 1):
                raise ShapeError(f"resample: the table {index} of axis {axis} must be [taps, size], one tap without weights")
            if weights and (weights[0].dtype != x.dtype or weights[0].shape != index.shape):
                raise ShapeError(f"resample: the weights {weights[0]} must be {x.dtype} of the shape of {index}")
            if x.shape[axis] == 0 and index.size != 0:
                raise ShapeError(f"resample: axis {axis} of {x} is empty")
            shape[axis] = index.shape[1]
        return x.with_shape(tuple(shape))

    def reference(self, *arrays: Array) -> Array:
        y, tables = arrays[0], arrays[1:]
        for number, axis in enumerate(self.axes):
            index = normalised(tables[number * (2 if self.weighted else 1)], y.shape[axis])
            if not self.weighted:
                y = y.take(index[0], axis=axis)
                continue
            weight = tables[2 * number + 1].reshape(*index.shape, *(1,) * (y.ndim - 1 - axis))
            parts = [y.take(row, axis=axis) * w for row, w in zip(index, weight, strict=True)]
            y = sum(parts[1:], parts[0])
        return y

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per output element and product of taps."""
        taps = prod(int(t.shape[0]) for t in types[1::2]) if self.weighted else 0
        return Cost(2 * taps * int(outputs[0].size), sum(t.nbytes for t in (*types, *outputs)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Resample with the transposed tables, axis by axis; the tables must be constants and get no gradient."""
        grad, x = grads[0], node.inputs[0]
        per_axis = 2 if self.weighted else 1
        for number, axis in enumerate(self.axes):
            index, *weight = (table.data for table in node.inputs[1 + per_axis * number : 1 + per_axis * (number + 1)])
            if index is None or any(w is None for w in weight):
                raise UnsupportedError("the gradient of resample needs constant tables", where=node.where, hint="make the tables constants")
            size = int(x.type.shape[axis])
            factor = weight[0] if weight and weight[0] is not None else np.ones(index.shape)
            grad = resample_transposed(builder, grad, axis, normalised(index, size), factor, size)
        return [grad, *(None for _ in node.inputs[1:])]

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        x = inputs[0]
        index = inputs[1 :: 2 if self.weighted else 1]
        weight = inputs[2::2] if self.weighted else ()

        def at(out: tuple[Expr, ...], taps: Sequence[Expr]) -> tuple[Expr, ...]:
            position = list(out)
            for axis, table, tap in zip(self.axes, index, taps, strict=True):
                position[axis] = wrapped(table[tap, out[axis]], x.shape[axis])
            return tuple(position)

        def value(*out: Expr) -> Expr:
            if not self.weighted:
                return x[at(out, [const(0, i64)] * len(index))]

            def term(*taps: Expr) -> Expr:
                factor, *others = (table[tap, out[axis]] for axis, table, tap in zip(self.axes, weight, taps, strict=True))
                for other in others:
                    factor = factor * other
                return x[at(out, taps)] * factor

            return reduce("sum", [table.shape[0] for table in index], term)

        return Lowering(value)


@register
@dataclass(frozen=True)
class Resize(Op):
    """x resized to `out_shape` by interpolation; all ONNX modes. Any dtype (integers are rounded and saturated).

    One entry per axis: `out_shape`; `scales` (result over input size, as given: it need not divide exactly). `roi`: starts of all
    axes, then ends, normalised to 0..1 (tf_crop_and_resize; positions outside of x get `extrapolation_value`). `antialias` widens the
    filter of linear and cubic where scale < 1. ONNX Resize, Upsample; keep_aspect_ratio_policy is resolved by the caller.
    """

    out_shape: tuple[DimLike, ...]
    scales: tuple[float, ...]
    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    extrapolation_value: float = 0.0
    antialias: bool = False
    roi: tuple[float, ...] = ()

    name: ClassVar[str] = "resize"
    onnx: ClassVar[str] = "Resize"
    tolerance: ClassVar[float] = 8.0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        if not len(self.out_shape) == len(self.scales) == x.rank:
            raise AttributeValueError(f"resize of {x} needs {x.rank} sizes and scales, got {self.out_shape} and {self.scales}")
        bad = [not 0 < scale < inf and size != 0 for scale, size in zip(self.scales, self.out_shape, strict=True)]
        if any(bad) or any(surely_less(size, 0) for size in self.out_shape):
            raise AttributeValueError(f"resize by {self.scales} to {self.out_shape}: scales must be above 0, sizes at least 0")
        for value, known in ((self.mode, MODES), (self.nearest_mode, NEAREST), (self.coordinate_transformation_mode, COORDINATES)):
            if value not in known:
                raise AttributeValueError(f"resize with {value!r}", hint=f"one of {', '.join(known)}")
        if self.coordinate_transformation_mode == "tf_crop_and_resize" and len(self.roi) != 2 * x.rank:
            raise AttributeValueError(f"tf_crop_and_resize of {x} needs a roi of {2 * x.rank} numbers, got {len(self.roi)}")
        if any(have == 0 and surely_less(0, want) for have, want in zip(x.shape, self.out_shape, strict=True)):
            raise ShapeError(f"resize of {x} to {list(self.out_shape)} from an empty axis")
        return x.with_shape(self.out_shape)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        y = x if self.mode == "nearest" else x.astype(np.float64)
        for axis in self.resized(x.shape):
            index, weight, inside = sampling(self, axis, x.shape[axis])
            weight = weight.reshape(*weight.shape, *(1,) * (x.ndim - 1 - axis))
            if self.mode == "nearest":
                y = y.take(index[0], axis=axis)
            else:
                y = sum((y.take(row, axis=axis) * w for row, w in zip(index, weight, strict=True)), np.zeros((), np.float64))
            y = np.where(inside.reshape(weight.shape[1:]), y, y.dtype.type(self.extrapolation_value))
        return rounded(y, x.dtype)

    def resized(self, shape: Sequence[DimLike]) -> list[int]:
        """The axes that change; the others are copied."""
        whole = [(low, high) == (0.0, 1.0) for low, high in zip(self.roi[: len(shape)], self.roi[len(shape) :], strict=True)]
        whole = whole if self.coordinate_transformation_mode == "tf_crop_and_resize" else [True] * len(shape)
        rows = zip(shape, self.out_shape, self.scales, whole, strict=True)
        return [axis for axis, (have, want, scale, all_) in enumerate(rows) if not (have == want and all_ and isclose(scale, 1.0))]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two operations per output element and tap of each resized axis (an antialiasing filter is 1/scale wider)."""
        width = {"nearest": 0, "linear": 2, "cubic": 4}[self.mode]
        wider = [1 / min(self.scales[axis], 1.0) if self.antialias else 1.0 for axis in self.resized(types[0].shape)]
        return Cost(int(2 * int(outputs[0].size) * sum(width * factor for factor in wider)), types[0].nbytes + outputs[0].nbytes)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The transposed interpolation, axis by axis."""
        grad, (x,) = grads[0], node.inputs
        for axis in self.resized(x.type.shape):
            size = int(x.type.shape[axis])
            index, weight, inside = sampling(self, axis, size)
            grad = resample_transposed(builder, grad, axis, index, weight * inside, size)
        return [grad]

    def decompose(self, builder: Builder, *inputs: Value) -> Value | None:
        """Resample with constant tables; None while the size of a resized axis is symbolic."""
        (x,) = inputs
        axes = self.resized(x.type.shape)
        sizes = [x.type.shape[axis] for axis in axes]
        if not all(isinstance(size, int) and isinstance(self.out_shape[axis], int) for size, axis in zip(sizes, axes, strict=True)):
            return None
        tables = [sampling(self, axis, int(size)) for axis, size in zip(axes, sizes, strict=True)]
        return self._compose(builder, x, axes, tables)

    def _compose(self, builder: Builder, x: Value, axes: list[int], tables: list[Table]) -> Value:
        from graphc.ops.pointwise import Cast, op

        weighted = self.mode != "nearest"
        y = builder.add(Cast(f64), x) if weighted and not x.type.dtype.is_float else x
        joint = prod(index.shape[0] for index, _, _ in tables) <= JOINT_TAPS
        for group in [list(range(len(axes)))] if joint else [[number] for number in range(len(axes))]:
            constants: list[Value] = []
            for number in group:
                constants.append(builder.constant(tables[number][0], name="taps"))
                if weighted:
                    constants.append(builder.constant(tables[number][1], y.type.dtype, name="weights"))
            if group:
                y = builder.add(Resample(tuple(axes[number] for number in group), weighted), y, *constants)
        for axis, (_, _, inside) in zip(axes, tables, strict=True):
            if not inside.all():
                mask = builder.constant(inside.reshape(-1, *(1,) * (x.type.rank - 1 - axis)), name="inside")
                y = builder.add(op("where"), mask, y, builder.constant(self.extrapolation_value, y.type.dtype, name="outside"))
        if y.type.dtype != x.type.dtype:
            y = builder.add(Cast(x.type.dtype), builder.add(op("round"), y))
        return y


def resample_transposed(builder: Builder, grad: Value, axis: int, index: Array, weight: Array, size: int) -> Value:
    """The gradient of resampling an axis of `size`: result i is the sum of weight[t, o] * grad[o] over all index[t, o] == i."""
    taps, out = np.nonzero(weight)
    order = np.argsort(index[taps, out], kind="stable")
    taps, out = taps[order], out[order]
    target = index[taps, out]
    row = np.arange(len(target)) - np.searchsorted(target, target)
    table = np.zeros((int(row.max(initial=0)) + 1, size), np.int64)
    factor = np.zeros(table.shape, grad.type.dtype.numpy)
    table[row, target], factor[row, target] = out, weight[taps, out]
    if grad.type.shape[axis] == 0:
        return zeros(builder, grad, tuple(size if i == axis else dim for i, dim in enumerate(grad.type.shape)))
    constants = builder.constant(table, name="taps"), builder.constant(factor, name="weights")
    return builder.add(Resample((axis,), True), grad, *constants)


Table = tuple[Array, Array, Array]  # index [taps, size] i64, weight [taps, size] f64, inside [size] bool


def sampling(op: Resize, axis: int, size: int) -> Table:
    """Which elements of an axis of `size` each result position reads, with which weights, and whether it lies inside of x."""
    count = int(op.out_shape[axis])
    if count == 0 or size == 0:
        return np.zeros((1, count), np.int64), np.ones((1, count)), np.ones(count, bool)
    where = source_positions(op, axis, size, count)
    inside = np.ones(count, dtype=bool)
    if op.coordinate_transformation_mode == "tf_crop_and_resize":
        inside = (where >= 0) & (where <= size - 1)
    if op.mode == "nearest":
        return np.clip(_nearest(where, op.nearest_mode), 0, size - 1)[None], np.ones((1, count)), inside
    index, weight = _filtered(op, where, op.scales[axis])
    if op.exclude_outside:
        weight = np.where((index < 0) | (index >= size), 0.0, weight)
        total = weight.sum(axis=0)
        weight = weight / np.where(total == 0, 1.0, total)
    used = weight.any(axis=1)
    return np.clip(index, 0, size - 1)[used], weight[used], inside


def source_positions(op: Resize, axis: int, size: int, count: int) -> Array:
    """The position in the input (float64, in elements) of each of `count` result positions: coordinate_transformation_mode."""
    scale = op.scales[axis]
    out = np.arange(count, dtype=np.float64)
    width = scale * size  # of the result, before it is rounded to a number of elements
    position: Array
    match op.coordinate_transformation_mode:
        case "align_corners":
            position = out * 0.0 if width == 1 else out * (size - 1) / (width - 1)
        case "asymmetric":
            position = out / scale
        case "tf_crop_and_resize":
            low, high = op.roi[axis], op.roi[axis + len(op.out_shape)]
            step = (high - low) * (size - 1)
            position = low * (size - 1) + (out * 0.0 + step / 2 if width == 1 else out * step / (width - 1))
        case "pytorch_half_pixel":
            position = out * 0.0 - 0.5 if width == 1 else (out + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            position = size / 2 * (1 - count / width) + (out + 0.5) / scale - 0.5
        case _:
            position = (out + 0.5) / scale - 0.5
    return position


def _nearest(where: Array, mode: str) -> Array:
    rounding: dict[str, Array] = {
        "round_prefer_floor": np.ceil(where - 0.5),
        "round_prefer_ceil": np.floor(where + 0.5),
        "floor": np.floor(where),
        "ceil": np.ceil(where),
    }
    return rounding[mode].astype(np.int64)


def _filtered(op: Resize, where: Array, scale: float) -> tuple[Array, Array]:
    """Positions (unclamped) and weights of the linear or cubic filter around each source position."""
    shrink = min(scale, 1.0) if op.antialias else 1.0
    reach = 1 if op.mode == "linear" else 2
    offsets = np.arange(floor(-reach / shrink) + 1, ceil(reach / shrink) + 1)[:, None]
    base = np.floor(where)
    distance = abs(offsets - (where - base)) * shrink
    weight = np.clip(1 - distance, 0, 1) if op.mode == "linear" else cubic(distance, op.cubic_coeff_a)
    if op.antialias:
        weight = weight / weight.sum(axis=0)
    return base.astype(np.int64) + offsets, weight


def cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 4) for |x|."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    kernel: Array = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return kernel


def rounded(y: Array, dtype: np.dtype[Any]) -> Array:
    """As `dtype`; integers are rounded half to even and saturated."""
    if dtype.kind in "iu" and y.dtype.kind == "f":
        info = np.iinfo(dtype)
        y = np.clip(np.round(y), float(info.min), float(info.max))
    return y.astype(dtype)
