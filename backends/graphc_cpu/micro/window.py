"""The depthwise micro-kernel: vectors over channels, a tile of pixels in registers, one weight vector per kernel position.

    acc[p][lane] = sum over taps of x[pixel p + tap][lane] * w[tap][lane]

Where the taps of neighbouring pixels meet, an input vector is loaded once and used for all of them. The sum runs over the taps in
order, whatever the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.micro.tile import multiply_add

BODY_FMAS = 320


class WindowTile:
    """Emits one tile: `pixels` are x offsets (elements), `kernel` (extent, x step) per dim, outermost first."""

    def __init__(self, f: Function, dtype: DType, lanes: int, pixels: Sequence[int], kernel: Sequence[tuple[int, int]]) -> None:
        self.f, self.dtype, self.lanes, self.pixels = f, dtype, lanes, tuple(pixels)
        self.element = scalar_type(dtype)
        self.vector = vector_type(self.element, lanes)
        self.looped, self.unrolled = _cut(tuple(kernel), len(self.pixels))

    def emit(self, x: Value, weights: Value, initial: Value | None = None) -> list[Value]:
        """One accumulator per pixel, which starts from `initial` (None: zero); x points at pixel 0's first tap."""
        start = initial or Value("zeroinitializer", self.vector)
        state = self._loops(x, (weights, *[start] * len(self.pixels)), self.looped)
        return list(state[1:])

    def _loops(self, x: Value, state: tuple[Value, ...], dims: tuple[tuple[int, int], ...]) -> tuple[Value, ...]:
        if not dims:
            return self._taps(x, state)
        (extent, step), *inner = dims

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            return (self._at(carried[0], step), *self._loops(carried[0], carried[1:], tuple(inner)))

        return self.f.loop(0, extent, 1, turn, (x, *state), hint="tap", guarded=False)[1:]

    def _taps(self, x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
        """All unrolled taps; inputs in the order of their addresses, so that every pixel meets its taps in order."""
        weights, acc = state[0], list(state[1:])
        taps = _offsets(self.unrolled)
        rows: dict[int, Value] = {}
        for offset, uses in sorted(_uses(self.pixels, taps).items()):
            value = self._vector(x, offset)
            for pixel, tap in uses:
                if tap not in rows:
                    rows[tap] = self._vector(weights, tap * self.lanes)
                acc[pixel] = multiply_add(self.f, self.dtype, value, rows[tap], acc[pixel])
        return (self._at(weights, len(taps) * self.lanes), *acc)

    def _vector(self, pointer: Value, offset: int) -> Value:
        return self.f.load(self.vector, self._at(pointer, offset), self.dtype.itemsize)

    def _at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, self.element)


def _cut(kernel: tuple[tuple[int, int], ...], pixels: int) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Kernel dims that become loops, and the inner ones that are unrolled."""
    for outer in range(len(kernel)):
        if len(_offsets(kernel[outer:])) * pixels <= BODY_FMAS:
            return kernel[:outer], kernel[outer:]
    return kernel, ()


def _offsets(kernel: Sequence[tuple[int, int]]) -> list[int]:
    """x offset of every tap, in order."""
    return [sum(position) for position in product(*([i * step for i in range(extent)] for extent, step in kernel))]


def _uses(pixels: Sequence[int], taps: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """x offset -> the (pixel, tap) pairs that read it."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for p, pixel in enumerate(pixels):
        for t, tap in enumerate(taps):
            uses.setdefault(pixel + tap, []).append((p, t))
    return uses


def distinct_loads(pixels: Sequence[int], kernel: Sequence[tuple[int, int]]) -> int:
    """Input vectors that a tile loads, for cost models."""
    looped, unrolled = _cut(tuple(kernel), len(pixels))
    return len(_uses(pixels, _offsets(unrolled))) * len(_offsets(looped))


def model(
    x: npt.NDArray[Any], weights: npt.NDArray[Any], pixels: Sequence[int], kernel: Sequence[tuple[int, int]], lanes: int
) -> npt.NDArray[Any]:
    """The same tile in numpy: flat x and weights (element 0 at the pointers); result (pixels, lanes)."""
    acc = np.zeros((len(pixels), lanes), x.dtype)
    for t, tap in enumerate(_offsets(kernel)):
        for p, pixel in enumerate(pixels):
            acc[p] += x[pixel + tap :][:lanes] * weights[t * lanes :][:lanes]
    return acc
