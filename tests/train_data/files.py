"""Data files in memory, and writing them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from graphc.ir.graph import Array

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: Array) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cifar_records(count: int, labels: int, classes: int, seed: int = 0) -> tuple[bytes, Array, Array]:
    """The bytes of a file, its pictures (N, 3, 32, 32) and its labels (N, number of label bytes)."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 3, 32, 32), np.uint8)
    y = rng.integers(0, classes, (count, labels), np.uint8)
    return np.concatenate([y, x.reshape(count, -1)], 1).tobytes(), x, y


def picture(height: int, width: int, seed: int = 0) -> Array:
    """RGB noise (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, pixels: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
