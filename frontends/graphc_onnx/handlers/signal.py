"""Fourier transforms as products with constant matrices of cosines and sines (O(n^2): for frames of some hundred samples)."""

from __future__ import annotations

import numpy as np

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.compose import stack
from graphc.ops.gather import Gather
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Pad
from graphc.types.dtype import f64
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import onnx_op
from graphc_onnx.tensors import Array, check_computed


def _waves(samples: int, bins: int, length: int) -> tuple[Array, Array]:
    """cos and sin of 2 pi s b / length, [samples, bins]; the angle is reduced in integers first, so that large ones stay exact."""
    check_computed((samples, bins), f64, "the matrix of a Fourier transform")
    angle = 2 * np.pi * ((np.arange(samples)[:, None] * np.arange(bins)) % length) / length
    return np.cos(angle), np.sin(angle)


def transform(context: Context, real: Value, imaginary: Value | None, length: int, inverse: bool, bins: int) -> Value:
    """`bins` of the transform over the last axis (padded or cut to `length` samples): (..., n) to (..., bins, 2)."""
    cos, sin = _waves(length, bins, length)
    scale, sign = (1 / length, 1.0) if inverse else (1.0, -1.0)  # exp(sign i angle)
    parts = [_product(context, real, wave * scale) for wave in (cos, sign * sin)]
    if imaginary is not None:
        other = [_product(context, imaginary, wave * scale) for wave in (-sign * sin, cos)]
        parts = [context.pointwise("add", a, b) for a, b in zip(parts, other, strict=True)]
    return stack(context.builder, [context.cast(part, real.type.dtype) for part in parts], real.type.rank)


def real_inverse(context: Context, real: Value, imaginary: Value, length: int) -> Value:
    """`length` real samples from the first length // 2 + 1 bins of a spectrum with Hermitian symmetry: (..., n) to (..., length, 1)."""
    bins = length // 2 + 1
    cos, sin = _waves(bins, length, length)
    weight = np.full((bins, 1), 2.0 / length)
    weight[0] = 1.0 / length
    if length % 2 == 0:
        weight[-1] = 1.0 / length
    parts = [_product(context, real, cos * weight), _product(context, imaginary, -sin * weight)]
    total = context.cast(context.pointwise("add", *parts), real.type.dtype)
    return context.unsqueeze(total, [total.type.rank])


def _product(context: Context, x: Value, matrix: Array) -> Value:
    """x @ matrix in float64 (a bin that should be 0 is one), x's last axis padded with zeros or cut to the matrix's rows."""
    have, want = x.type.shape[-1].__index__(), matrix.shape[0]
    if have != want:
        x = context.add(Pad((0,) * x.type.rank, (*[0] * (x.type.rank - 1), want - have)), x)
    return context.add(MatMul(), context.cast(x, f64), context.constant(matrix))


def _split(context: Context, x: Value, what: str) -> tuple[Value, Value | None]:
    """Real and imaginary part of (..., 1) or (..., 2)."""
    last = x.type.rank - 1
    if last < 1 or x.type.shape[last] not in (1, 2):
        raise ShapeError(f"{what} needs a last axis of size 1 (real) or 2 (complex), got {x.type}")
    pieces = [context.squeeze(context.slice_axis(x, last, i, 1), [last]) for i in range(x.type.shape[last].__index__())]
    return pieces[0], pieces[1] if len(pieces) == 2 else None


@onnx_op("DFT", since=17)
def dft(context: Context, node: OnnxNode) -> Value:
    """Over one axis of a real or complex signal. The axis is an attribute (default 1) below opset 20, then an input (default -2)."""
    x, given = node.input(0), node.optional(1)
    if node.opset < 20:
        axis = node.integer("axis", 1)
    else:
        chosen = node.optional(2)
        axis = context.plain_ints(chosen, "the axis of DFT")[0] if chosen is not None else -2
    axis = normal_axis(axis, x.type.rank)
    inverse, onesided = node.flag("inverse"), node.flag("onesided")
    if axis == x.type.rank - 1:
        raise ModelError("DFT over the axis of real and imaginary parts")
    real, imaginary = _split(context, x, "DFT")
    order = [i for i in range(real.type.rank) if i != axis] + [axis]
    real = context.transpose(real, order)
    imaginary = context.transpose(imaginary, order) if imaginary is not None else None
    have = real.type.shape[-1].__index__()
    default = 2 * (have - 1) if inverse and onesided else have
    length = context.plain_ints(given, "the length of DFT")[0] if given is not None else default
    if length < 1:
        raise ModelError(f"DFT of length {length}")
    if inverse and onesided:
        if imaginary is None:
            raise ShapeError("the inverse of a one-sided spectrum needs complex input")
        made = real_inverse(context, real, imaginary, length)
    else:
        made = transform(context, real, imaginary, length, inverse, length // 2 + 1 if onesided else length)
    back = list(range(real.type.rank - 1))
    back.insert(axis, real.type.rank - 1)
    return context.transpose(made, [*back, real.type.rank])


@onnx_op("STFT", since=17)
def stft(context: Context, node: OnnxNode) -> Value:
    """(batch, samples[, 1 or 2]) to (batch, frames, bins, 2): windows every `frame_step` samples, each transformed."""
    x, window = node.input(0), node.optional(2)
    step = context.plain_ints(node.input(1), "the step of STFT")[0]
    given = node.optional(3)
    if given is not None:
        size = context.plain_ints(given, "the frame length of STFT")[0]
    elif window is not None:
        size = window.type.shape[0].__index__()
    else:
        raise ModelError("STFT needs a window or a frame length")
    real, imaginary = _split(context, x, "STFT") if x.type.rank == 3 else (x, None)
    samples = real.type.shape[-1].__index__()
    if real.type.rank != 2 or step < 1 or not 1 <= size <= samples:
        raise ShapeError(f"STFT with step {step} and frames of {size} over {x.type}")
    at = context.constant(np.arange(0, samples - size + 1, step, dtype=np.int64)[:, None] + np.arange(size))

    def frames(part: Value) -> Value:
        cut = context.add(Gather(1), part, at)
        return context.pointwise("mul", cut, window) if window is not None else cut

    onesided = node.flag("onesided", True)
    bins = size // 2 + 1 if onesided else size
    return transform(context, frames(real), frames(imaginary) if imaginary is not None else None, size, False, bins)
