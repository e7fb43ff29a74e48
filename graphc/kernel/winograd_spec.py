"""Specs of Winograd convolutions, in one step or three, and of their gradients by weights. See `graphc.kernel.spec`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from graphc.kernel.conv_spec import ConvSpec, WeightGradientSpec
from graphc.kernel.operand import Operand
from graphc.types.dtype import DType


@dataclass(frozen=True)
class TileGrid:
    """The output tiles of a Winograd convolution F(m, 3): m by m pixels each, numbered (batch, row, column), the last fastest."""

    m: int
    batch: int
    rows: int
    columns: int

    @property
    def count(self) -> int:
        return self.batch * self.rows * self.columns

    @property
    def positions(self) -> int:
        """Entries of a transformed tile: each is one matrix product of its own."""
        return (self.m + 2) ** 2


def tile_buffer(dtype: DType, grid: TileGrid, tiles: int, blocks: int, lanes: int) -> Operand:
    """[position][channel block][tile][lane], plain. The pitch of positions is an odd number of cache lines, so that one tile's entries,
    which are written together, fall into different sets of a cache."""
    line = 64 // dtype.itemsize
    lines = -(-tiles * blocks * lanes // line) | 1
    return Operand(dtype, (grid.positions, lines * line))


@dataclass(frozen=True)
class WinogradConv:
    """A 3x3 convolution of stride 1 as F(m, 3), all in one: each thread takes `tiles` tiles at a time through input transform, products
    and output transform, `chunk` blocks of output channels at a time, in memory of its own.

    Operands: those of `conv`, then the scratch (per thread, one after the other).
    """

    conv: ConvSpec
    grid: TileGrid
    tiles: int
    chunk: int

    @property
    def family(self) -> str:
        return f"winograd{self.grid.m}"

    @property
    def lanes(self) -> int:
        return self.conv.x.layout.block

    @property
    def transformed(self) -> Operand:
        """The input tiles, in scratch."""
        return tile_buffer(self.conv.x.dtype, self.grid, self.tiles, -(-self.conv.x.shape[1] // self.lanes), self.lanes)

    @property
    def product(self) -> Operand:
        """The products of one chunk, in scratch behind the input tiles."""
        return tile_buffer(self.conv.x.dtype, self.grid, self.tiles, self.chunk, self.lanes)

    @property
    def scratch(self) -> Operand:
        return Operand(self.conv.x.dtype, (self.transformed.elements + self.product.elements,))

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.conv.operands, self.scratch)


@dataclass(frozen=True)
class WinogradInput:
    """First of three steps of a large Winograd convolution: all input tiles, transformed. Operands: x, transformed."""

    x: Operand
    pad: tuple[int, ...]
    grid: TileGrid
    transformed: Operand

    @property
    def family(self) -> str:
        return f"winograd{self.grid.m}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.x, self.transformed)


@dataclass(frozen=True)
class WinogradProduct:
    """Second step: product[position, oc, tile] = sum over ic of transformed[position, ic, tile] * weight[position, oc, ic], for `chunk`
    blocks of output channels at a time. Operands: transformed, packed weights, product."""

    transformed: Operand
    weight_shape: tuple[int, ...]  # (OC, IC, 3, 3)
    product: Operand
    grid: TileGrid
    lanes: int
    chunk: int

    @property
    def family(self) -> str:
        return f"winograd{self.grid.m}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.transformed, Operand(self.transformed.dtype, self.weight_shape), self.product)


@dataclass(frozen=True)
class WinogradOutput:
    """Third step: output tiles from their products, and the epilogue of `conv`, whose slots count through the operands of `conv`.

    Operands: product, the epilogue's extra operands, output."""

    product: Operand
    conv: ConvSpec
    grid: TileGrid

    @property
    def family(self) -> str:
        return f"winograd{self.grid.m}"

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.product, *self.conv.operands[2:])


@dataclass(frozen=True)
class WinogradGradient:
    """The sums of `gradient`, of a 3x3 convolution of stride 1, in Winograd's domain. Each thread takes `tiles` tiles at a time, with
    `inputs` blocks of input and `outputs` blocks of output channels, in memory of its own.

    Operands: those of `gradient`, then the scratch (per thread, one after the other).
    """

    gradient: WeightGradientSpec
    grid: TileGrid
    tiles: int
    inputs: int
    outputs: int

    @property
    def family(self) -> str:
        return f"winograd{self.grid.m}"

    @property
    def lanes(self) -> int:
        return self.gradient.grad.layout.block

    @property
    def transformed(self) -> Operand:
        """The tiles of x, in scratch."""
        return tile_buffer(self.gradient.x.dtype, self.grid, self.tiles, self.inputs, self.lanes)

    @property
    def gradients(self) -> Operand:
        """The tiles of grad, in scratch behind those of x."""
        return tile_buffer(self.gradient.x.dtype, self.grid, self.tiles, self.outputs, self.lanes)

    @property
    def sums(self) -> Operand:
        """[position][input channel][block of output channels][lane], in scratch behind the tiles."""
        return tile_buffer(self.gradient.x.dtype, self.grid, self.inputs * self.lanes, self.outputs, self.lanes)

    @property
    def scratch(self) -> Operand:
        return Operand(self.gradient.x.dtype, (self.transformed.elements + self.gradients.elements + self.sums.elements,))

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.gradient.operands, self.scratch)


WinogradSpec = Union[WinogradConv, WinogradInput, WinogradProduct, WinogradOutput, WinogradGradient]
