"""Operand: the memory of one tensor, as a kernel sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from graphc.kernel.expr import Expr, const
from graphc.types.dtype import DType, i64
from graphc.types.layout import PLAIN, Layout


@dataclass(frozen=True)
class Operand:
    """Memory of one tensor. `shape` is logical, e.g. (N, C, H, W); `layout` says how it lies in memory.

    `pitch`: for a channel slice of a larger blocked or plain buffer (a concat part), the channels of the whole buffer; 0: its own.
    The kernel's pointer then points at the slice's first channel.
    """

    dtype: DType
    shape: tuple[int, ...]
    layout: Layout = PLAIN
    pitch: int = 0

    @cached_property
    def physical_shape(self) -> tuple[int, ...]:
        """(N, C/block, *spatial with halo, block) where blocked; the shape plus halo where plain."""
        halo = self.layout.halo or ((0, 0),) * max(len(self.shape) - 2, 0)
        if not self.layout.is_blocked and not self.layout.has_halo:
            return self.shape if not self.pitch else (self.shape[0], self.pitch, *self.shape[2:])
        n, c, *spatial = self.shape
        c = self.pitch or c
        padded = tuple(size + before + after for size, (before, after) in zip(spatial, halo, strict=True))
        if not self.layout.is_blocked:
            return (n, c, *padded)
        return (n, -(-c // self.layout.block), *padded, self.layout.block)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Of `physical_shape`, in elements."""
        sizes = self.physical_shape
        return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))

    @cached_property
    def origin(self) -> int:
        """Elements from the pointer to element 0 of the map: the halo before it."""
        if not self.layout.has_halo:
            return 0
        return sum(before * stride for (before, _), stride in zip(self.layout.halo, self.strides[2:], strict=False))

    @cached_property
    def elements(self) -> int:
        """Allocated elements, halo and channel padding included (a slice: of the whole buffer)."""
        return prod(self.physical_shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize

    def offset(self, index: tuple[Expr, ...]) -> Expr:
        """Elements from the pointer to the element at a logical index."""
        total: Expr = const(self.origin, i64)
        if self.layout.is_blocked:
            n, c, *spatial = index
            index = (n, c // self.layout.block, *spatial, c % self.layout.block)
        return self.physical_offset(index) if not index else _dot(total, index, self.strides)

    def physical_offset(self, index: tuple[Expr, ...]) -> Expr:
        """The same for an index over `physical_shape` without halo: (n, channel block, *spatial, lane) where blocked."""
        return _dot(const(self.origin, i64), index, self.strides)


def _dot(total: Expr, index: tuple[Expr, ...], strides: tuple[int, ...]) -> Expr:
    for i, stride in zip(index, strides, strict=True):
        total = total + i * stride
    return total
