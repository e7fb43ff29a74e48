"""The outer-product micro-kernel: a tile of sums in memory, to which the products of many pixels are added in registers.

    sums[row r][block b][lane] += sum over pixels p of x[p + row r] * g[p][block b][lane]

Rows are single elements of x (an input channel at a kernel position), blocks are vectors of g (16 output channels, say). The pixels are
visited in order, so that cutting them into bands changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Union

import numpy.typing as npt

from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.micro.memory import broadcast
from graphc_cpu.micro.tile import BODY_FMAS, even_unroll, multiply_add

MAX_UNROLL = 8


@dataclass(frozen=True)
class Pixels:
    """One dim of the pixels: how many (best known now, where it is the innermost), and elements from one to the next in x and in g."""

    count: Union[int, Value]
    x: int
    g: int


class OuterTile:
    """Emits one tile. `rows`, `blocks`: elements from the pointers to each row in x, and to each block in g; `unroll`: the most pixels at
    a time. `meanwhile`: done at the beginning of each turn of the innermost loop, whose number it is given."""

    def __init__(
        self, f: Function, dtype: DType, lanes: int, rows: Sequence[int], blocks: Sequence[int], pixels: Sequence[Pixels],
        unroll: int = MAX_UNROLL,
    ) -> None:  # fmt: skip
        self.meanwhile: Callable[[Value], None] | None = None
        self.f, self.dtype, self.lanes, self.unroll = f, dtype, lanes, unroll
        self.rows, self.blocks, self.pixels = tuple(rows), tuple(blocks), tuple(pixels)
        self.element = scalar_type(dtype)
        self.vector = vector_type(self.element, lanes)

    def emit(self, x: Value, g: Value, places: Sequence[Value]) -> None:
        """`places`: the addresses of the sums, row by row."""
        acc = [self.f.load(self.vector, place, self.dtype.itemsize) for place in places]
        for value, place in zip(self.sums(x, g, acc), places, strict=True):
            self.f.store(value, place, self.dtype.itemsize)

    def sums(self, x: Value, g: Value, acc: Sequence[Value]) -> Sequence[Value]:
        """The accumulators, row by row, with all pixels added."""
        return self._sweep(x, g, acc, self.pixels)

    def _sweep(self, x: Value, g: Value, acc: Sequence[Value], dims: Sequence[Pixels]) -> Sequence[Value]:
        dim, *inner = dims
        if not inner:
            return self._line(x, g, acc, dim)
        if dim.count == 1:
            return self._sweep(x, g, acc, inner)

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            at_x, at_g, *sums = carried
            return (self._at(at_x, dim.x), self._at(at_g, dim.g), *self._sweep(at_x, at_g, sums, inner))

        return self.f.loop(0, dim.count, 1, turn, (x, g, *acc), hint="row", guarded=False)[2:]

    def _line(self, x: Value, g: Value, acc: Sequence[Value], dim: Pixels) -> Sequence[Value]:
        if not isinstance(dim.count, int):
            return self._long_line(x, g, acc, dim, dim.count)
        unroll = even_unroll(dim.count, self._widest())
        turns, rest = divmod(dim.count, unroll)
        if turns > 1:

            def turn(number: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
                if self.meanwhile is not None:
                    self.meanwhile(number)
                at_x, at_g, *sums = self._opaque(carried)
                return (self._at(at_x, unroll * dim.x), self._at(at_g, unroll * dim.g), *self._body(at_x, at_g, sums, dim, unroll))

            x, g, *acc = self.f.loop(0, turns, 1, turn, (x, g, *acc), hint="pixel", guarded=False)
        else:
            acc = self._body(x, g, acc, dim, unroll)
            x, g = self._at(x, unroll * dim.x), self._at(g, unroll * dim.g)
        return self._body(x, g, acc, dim, rest) if rest else acc

    def _long_line(self, x: Value, g: Value, acc: Sequence[Value], dim: Pixels, count: Value) -> Sequence[Value]:
        """A line of at least one pixel: whole unrolled bodies, then one by one."""
        f, unroll = self.f, self.pixels_of_turn
        whole = f.op(f"and i64 {count.name}, {-unroll}", "i64")
        for start, stop, step in ((i64(0), whole, unroll), (whole, count, 1)):

            def turn(pixel: Value, carried: tuple[Value, ...], step: int = step) -> Sequence[Value]:
                if self.meanwhile is not None and step == unroll:
                    self.meanwhile(f.op(f"udiv i64 {pixel.name}, {unroll}", "i64"))
                at_x, at_g, *sums = self._opaque(carried)
                return (self._at(at_x, step * dim.x), self._at(at_g, step * dim.g), *self._body(at_x, at_g, sums, dim, step))

            x, g, *acc = f.loop(start, stop, step, turn, (x, g, *acc), hint="pixel")
        return acc

    def _opaque(self, carried: Sequence[Value]) -> list[Value]:
        """The two addresses unknown to LLVM's loop analysis, which looks for the best way to share out the many addresses of a body: for up
        to a second, and finds none that is faster."""
        return [*(self.f.op(f"freeze ptr {pointer.name}", "ptr") for pointer in carried[:2]), *carried[2:]]

    @property
    def pixels_of_turn(self) -> int:
        """Of the innermost loop, where its count is known only when it runs: a power of two."""
        return 1 << (self._widest().bit_length() - 1)

    def _widest(self) -> int:
        """The most pixels of an unrolled body."""
        return max(1, min(self.unroll, BODY_FMAS // (len(self.rows) * len(self.blocks))))

    def _body(self, x: Value, g: Value, acc: Sequence[Value], dim: Pixels, count: int) -> list[Value]:
        """`count` pixels, unrolled."""
        acc = list(acc)
        for pixel in range(count):
            vectors = [self._load(self.vector, g, pixel * dim.g + block) for block in self.blocks]
            for r, row in enumerate(self.rows):
                value = broadcast(self.f, self._load(self.element, x, pixel * dim.x + row), self.lanes)
                for i, vector in enumerate(vectors, r * len(vectors)):
                    acc[i] = multiply_add(self.f, self.dtype, value, vector, acc[i])
        return acc

    def _load(self, type: str, pointer: Value, offset: int) -> Value:
        return self.f.load(type, self._at(pointer, offset), self.dtype.itemsize)

    def _at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, self.element)


def model(
    x: npt.NDArray[Any], g: npt.NDArray[Any], sums: npt.NDArray[Any], rows: Sequence[int], blocks: Sequence[int], pixels: Sequence[Pixels]
) -> None:  # fmt: skip
    """The same tile in numpy: flat x and g (element 0 at the pointers), `sums` (rows, blocks, lanes) added to in place."""
    for position in product(*(range(int(dim.count)) for dim in pixels)):  # type: ignore[arg-type]
        at_x = sum(i * dim.x for i, dim in zip(position, pixels, strict=True))
        at_g = sum(i * dim.g for i, dim in zip(position, pixels, strict=True))
        for r, row in enumerate(rows):
            for b, block in enumerate(blocks):
                sums[r, b] += x[at_x + row] * g[at_g + block :][: sums.shape[-1]]
