"""Weights of Winograd convolutions: transformed in float64, rounded once, in the order in which the products read them.

Fused: [chunk of output blocks][position][input channel][block][lane]; three steps: [position][chunk][input channel][block][lane].
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.kernel.spec import WinogradConv, WinogradProduct
from graphc.kernel.winograd import transform_kernel
from graphc_cpu.micro.shape import split

Array = npt.NDArray[Any]


class Numbers:
    """`graphc.kernel.winograd.Arithmetic` on numpy arrays."""

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def sub(self, x: Array, y: Array) -> Array:
        return x - y

    def scale(self, c: float, x: Array) -> Array:
        return c * x

    def fma(self, c: float, x: Array, y: Array) -> Array:
        return c * x + y


def pack_winograd_weight(spec: WinogradConv | WinogradProduct, w: Array) -> Array:
    """w (OC, IC, 3, 3) -> the flat array that the kernel takes, float32; zero in the padding lanes."""
    fused = isinstance(spec, WinogradConv)
    lanes, shape = spec.lanes, spec.conv.weight_shape if isinstance(spec, WinogradConv) else spec.weight_shape
    chunks = split(-(-shape[0] // lanes), spec.chunk)
    starts = [part * chunks.width - max(0, part - chunks.wide) for part in range(chunks.parts + 1)]
    positions, channels = spec.grid.positions, shape[1]
    packed = np.empty(positions * channels * chunks.total * lanes, np.float32)
    if fused:
        bounds = [start * lanes * channels * positions for start in starts]
        places = [packed[a:b].reshape(positions, -1) for a, b in pairwise(bounds)]
    else:
        rows = packed.reshape(positions, -1)
        places = [rows[:, a * lanes * channels : b * lanes * channels] for a, b in pairwise(starts)]
    w = np.asarray(w, np.float32).reshape(shape)
    for place, start, end in zip(places, starts, starts[1:], strict=False):
        place[...] = _transformed(w[start * lanes : end * lanes], (end - start) * lanes, spec.grid.m)
    return packed


def _transformed(w: Array, width: int, m: int) -> Array:
    """(oc, IC, 3, 3) -> (positions, IC * width), float64; kernel by kernel G g G^T."""
    g = np.zeros((3, 3, w.shape[1], width))
    g[..., : len(w)] = w.transpose(2, 3, 1, 0)
    numbers = Numbers()
    columns = [transform_kernel(m, [g[r, c] for r in range(3)], numbers) for c in range(3)]
    rows = [transform_kernel(m, list(row), numbers) for row in zip(*columns, strict=True)]
    return np.stack([value for row in rows for value in row]).reshape((m + 2) ** 2, -1)
