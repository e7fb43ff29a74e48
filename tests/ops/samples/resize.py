"""Samples of Resize and Resample. The oracle is the onnx package's reference evaluator, and PyTorch or ONNX Runtime where they agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ops.resize import COORDINATES, NEAREST, Resample, Resize
from graphc.types.dtype import DType, bool_, f32, f64, i8, i32, i64, u8
from graphc.types.shape import symbol
from ops.oracles import by_onnx, by_ort, by_torch
from ops.sample import Array, Data, Sample

N = symbol("N")
NOTHING = np.zeros(0, np.float32)
ROI = (0.0, 0.0, 0.125, -0.25, 1.0, 1.0, 1.25, 0.75)


def _resize(
    label: str, shape: tuple[int, ...], *, sizes: tuple[int, ...] = (), scales: tuple[float, ...] = (), **attributes: Any
) -> Sample:
    """A sample against the reference evaluator, by sizes or by scales of the last axes."""
    lead = len(shape) - len(sizes or scales)
    tail = shape[lead:]
    exact = np.array(scales, np.float32)
    found = tuple(float(s) for s in exact) if scales else tuple(want / have for want, have in zip(sizes, tail, strict=True))
    out = (*shape[:lead], *(sizes or (int(s * n) for s, n in zip(found, tail, strict=True))))
    roi = ROI if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize" else ()
    op = Resize(out, ((1.0,) * lead + found), roi=roi, **attributes)
    full = np.concatenate([np.ones(lead, np.float32), exact]) if scales else NOTHING
    onnx = {k: int(v) if isinstance(v, bool) else v for k, v in attributes.items()}
    extra = (np.array(roi, np.float32), full if scales else None, None if scales else np.array(out))
    symbolic = (",".join(("N", *map(str, shape[1:]))),) if lead else ()
    twin = Resize((N, *out[1:]), op.scales, roi=roi, **attributes)
    return Sample(label, op, (Data(shape),), by_onnx("Resize", extra=extra, **onnx), symbolic, twin, lowers=False)


def _modes() -> list[Sample]:
    image = (2, 3, 5, 6)
    found = []
    for coordinates in COORDINATES:
        fields: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "extrapolation_value": 7.0}
        for nearest in NEAREST:
            nearest_fields = {"mode": "nearest", "nearest_mode": nearest, **fields}
            found.append(_resize(f"nearest {nearest}, {coordinates}, up", image, sizes=(8, 13), **nearest_fields))
            found.append(_resize(f"nearest {nearest}, {coordinates}, down", image, scales=(0.6, 0.7), **nearest_fields))
        for mode in ("linear", "cubic"):
            found.append(_resize(f"{mode}, {coordinates}, up", image, sizes=(8, 13), mode=mode, **fields))
            found.append(_resize(f"{mode}, {coordinates}, down", image, scales=(0.6, 0.7), mode=mode, **fields))
            found.append(_resize(f"{mode}, {coordinates}, to one", image, sizes=(1, 1), mode=mode, **fields))
    return found


def _filters() -> list[Sample]:
    image = (1, 2, 9, 8)
    found = [
        _resize("cubic, other coefficient", image, sizes=(11, 13), mode="cubic", cubic_coeff_a=-0.5),
        _resize("cubic, inside only", image, sizes=(11, 13), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=True),
        _resize("1-d linear", (1, 2, 9), scales=(2.5,), mode="linear"),
        _resize("3-d linear", (1, 2, 3, 4, 5), scales=(2.0, 0.5, 1.4), mode="linear"),
        _resize("3-d cubic", (1, 1, 3, 4, 5), sizes=(4, 4, 7), mode="cubic"),
        _resize("all axes", (2, 3, 4, 5), scales=(1.5, 0.7, 2.0, 1.2), mode="linear"),
        _resize("one axis", image, scales=(1.0, 2.0), mode="linear"),
        _resize("nothing to do", image, scales=(1.0, 1.0), mode="cubic"),
        _resize("of one pixel", (1, 2, 1, 1), sizes=(3, 4), mode="linear", coordinate_transformation_mode="align_corners"),
        _resize("to nothing", image, sizes=(0, 4), mode="nearest"),
    ]
    for mode in ("linear", "cubic"):
        for inside in (False, True):
            fields: dict[str, Any] = {"mode": mode, "antialias": True, "exclude_outside": inside}
            found.append(_resize(f"{mode}, antialias, inside only {inside}, down", image, sizes=(4, 3), **fields))
            found.append(_resize(f"{mode}, antialias, inside only {inside}, up and down", image, scales=(1.4, 0.3), **fields))
    return found


def _interpolate(mode: str, **more: Any) -> Any:
    return by_torch(lambda torch: lambda x: torch.nn.functional.interpolate(x, mode=mode, **more))


def _others() -> list[Sample]:
    """What PyTorch's interpolate and ONNX Runtime do."""
    x = (Data((1, 3, 6, 7)),)
    floor: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    corners: dict[str, Any] = {"coordinate_transformation_mode": "align_corners"}
    up, scales = (1, 3, 12, 14), (1.0, 1.0, 2.0, 2.0)
    upsample = by_ort("Upsample", opset=9, extra=(np.array(scales, np.float32),))
    return [
        Sample("nearest in PyTorch", Resize(up, scales, "nearest", **floor), x, _interpolate("nearest", scale_factor=2), lowers=False),
        Sample("linear in PyTorch", Resize(up, scales, "linear"), x, _interpolate("bilinear", scale_factor=2), lowers=False),
        Sample(
            "corners in PyTorch", Resize((1, 3, 4, 9), (1.0, 1.0, 4 / 6, 9 / 7), "linear", **corners), x,
            _interpolate("bilinear", size=(4, 9), align_corners=True), lowers=False,
        ),
        Sample("cubic in PyTorch", Resize(up, scales, "cubic"), x, _interpolate("bicubic", scale_factor=2), lowers=False),
        Sample("Upsample", Resize(up, scales, "nearest", **floor), x, upsample, lowers=False),
    ]  # fmt: skip


def _dtypes() -> list[Sample]:
    found = []
    for d in (i8, u8, i32, f64):
        op = Resize((1, 1, 7), (1.0, 1.0, 1.4), "linear")
        oracle = by_onnx("Resize", extra=(None, None, np.array([1, 1, 7])), mode="linear")
        found.append(Sample(str(d), op, (Data((1, 1, 5), d, -100, 100),), oracle, lowers=False, rtol=1e-6))
    for d in (bool_, i64):
        op = Resize((8,), (2.0,), "nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        found.append(Sample(str(d), op, (Data((4,), d),), lambda x: x.repeat(2), lowers=False))
    overshoot = np.array([[[-128, 127, 127, -128, -128]]], np.int8)
    oracle = by_onnx("Resize", extra=(None, None, np.array([1, 1, 13])), mode="cubic")
    found.append(Sample("saturated", Resize((1, 1, 13), (1.0, 1.0, 13 / 5), "cubic"), (overshoot,), oracle, lowers=False))
    return found


def _weighted(x: Array, rows: Array, row_weights: Array, columns: Array, column_weights: Array) -> Array:
    """Both axes as dense matrices."""
    matrices = []
    for size, index, weight in ((x.shape[-2], rows, row_weights), (x.shape[-1], columns, column_weights)):
        matrix = np.zeros((size, index.shape[1]), x.dtype)
        for t, o in np.ndindex(*index.shape):
            matrix[index[t, o], o] += weight[t, o]
        matrices.append(matrix)
    return np.einsum("...hw,ho,wp->...op", x, *matrices)


def _resamples() -> list[Sample]:
    rows, columns = Data((3, 4), i64, 0, 5), Data((2, 9), i64, 0, 6)

    def tables(d: DType) -> tuple[Data, ...]:
        return rows, Data((3, 4), d), columns, Data((2, 9), d)

    return [
        Sample("two axes", Resample((2, 3), True), (Data((2, 3, 5, 6)), *tables(f32)), _weighted, ("N,C,5,6", "3,H", "3,H", "2,W", "2,W")),
        Sample("f64", Resample((1, 2), True), (Data((2, 5, 6), f64), *tables(f64)), _weighted, rtol=1e-12, differentiable=False),
        Sample("one tap", Resample((1,)), (Data((2, 5)), Data((1, 7), i64, 0, 5)), lambda x, i: x[:, i[0]], ("N,5", "1,W")),
        Sample("i32", Resample((0,)), (Data((5,), i32), Data((1, 3), i64, 0, 5)), lambda x, i: x[i[0]]),
        Sample("outside is clamped", Resample((0,)), (Data((3,)), np.array([[7, -9, 1]])), lambda x, i: x[[2, 0, 1]]),
    ]


SAMPLES = [*_modes(), *_filters(), *_others(), *_dtypes(), *_resamples()]
