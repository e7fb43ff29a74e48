"""Weights that are stored narrower than they are computed with: packed by numpy, expanded in registers.

`bf16`: the upper half of a float32, rounded to nearest even. `int8`: round(w / scale) in -127 .. 127 with one float32 scale per output
column, max |w| / 127; the scales lie behind the numbers, and multiply the finished sums. Rounding a weight changes it by at most 2^-9 of
itself (bf16) or by 1/254 of its column's largest (int8).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.errors import UnsupportedError
from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type

Array = npt.NDArray[Any]
ITEMSIZE = {"bf16": 2, "int8": 1}
_STORED = {"bf16": "i16", "int8": "i8"}
_LINE = 64


def itemsize(storage: str, dtype: DType) -> int:
    """Bytes of one stored weight."""
    return ITEMSIZE.get(storage, dtype.itemsize)


def element(storage: str, dtype: DType) -> str:
    """LLVM type of one stored weight."""
    return _STORED.get(storage) or scalar_type(dtype)


def load_weights(f: Function, pointer: Value, storage: str, lanes: int) -> Value:
    """`lanes` stored weights as float32 (int8: without their scale)."""
    narrow = f.load(vector_type(_STORED[storage], lanes), pointer, ITEMSIZE[storage])
    integers, floats = vector_type("i32", lanes), vector_type("float", lanes)
    if storage == "int8":
        wide = f.op(f"sext {narrow} to {integers}", integers)
        return f.op(f"sitofp {wide} to {floats}", floats)
    wide = f.op(f"zext {narrow} to {integers}", integers)
    sixteen = "splat (i32 16)" if lanes > 1 else "16"
    return f.op(f"bitcast {f.op(f'shl {wide}, {sixteen}', integers)} to {floats}", floats)


def to_bf16(weights: Array) -> Array:
    """The upper halves (uint16), rounded to nearest even; NaN stays NaN, what rounds beyond the largest number becomes infinite."""
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(weights), (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


def from_bf16(stored: Array) -> Array:
    """The float32 values of `to_bf16`."""
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_int8(b: Array) -> tuple[Array, Array]:
    """(K, N) -> int8 numbers, and one float32 scale per column. Raises UnsupportedError where a weight is not finite."""
    if not np.isfinite(b).all():
        raise UnsupportedError("weights that are infinite or NaN cannot be stored as int8", hint="weights='bf16', or none")
    largest = np.max(np.abs(b), axis=0, initial=0.0).astype(np.float32)
    scale = np.where(largest > 0, np.maximum(largest / np.float32(127), np.float32(1e-38)), np.float32(1))
    return np.clip(np.rint(b / scale), -127, 127).astype(np.int8), scale


def scales_offset(columns: int, k: int) -> int:
    """Bytes from the start of packed int8 weights to their scales."""
    return -(-columns * k // _LINE) * _LINE


def with_scales(packed: Array, scale: Array, k: int) -> Array:
    """Packed numbers and the scales of all columns, padding included, as bytes."""
    gap = scales_offset(scale.size, k) - packed.size
    parts = packed.view(np.uint8), np.zeros(gap, np.uint8), np.ascontiguousarray(scale, np.float32).view(np.uint8)
    return np.concatenate(parts)
