"""Kernel specs: WHAT one kernel computes, on which physical operands. Back ends turn a spec into code.

A spec is frozen and hashable, holds no addresses and no weights, and its text is the key of the code cache: two layers of the same
shape share one kernel. A compiled kernel is called as `void kernel(ptr args, i64 thread, i64 threads)`: `args` points to an array of
pointers to the spec's operands (`spec.operands` order: inputs, then outputs), and each thread does its share of the work. The share
never changes how one element is computed, so results do not depend on `threads`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Union

from graphc.kernel.expr import Expr
from graphc.kernel.operand import Operand as Operand
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
from graphc.kernel.sort import SortSpec
from graphc.types.dtype import DType


@dataclass(frozen=True)
class StoreAt:
    """`operand slot[offset] = value`, for every value of the nest's axes."""

    slot: int
    offset: Expr
    value: Expr


@dataclass(frozen=True)
class Nest:
    """Perfect loops over `axes` (outermost first; all may run in parallel and in any order) around the stores."""

    axes: tuple[Expr, ...]
    stores: tuple[StoreAt, ...]


@dataclass(frozen=True)
class NestSpec:
    """The families map, reduce, normalise, window, gather and copy: loops around scalar expressions.

    Reductions are `reduce` expressions; the code generator computes each at the outermost loop that binds its free indices (so the
    maximum and the sum of a softmax row are computed once per row). Several nests are independent of each other.
    """

    family: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    nests: tuple[Nest, ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.inputs, *self.outputs)


@dataclass(frozen=True)
class UpdateSpec:
    """For each value of `axes` (in parallel, in any order), for each value of `step` in order: the store, or, where `combine` is a
    primitive of two operands, `slot[offset] = combine(slot[offset], value)`. Different values of the axes store to different places.

    The output holds what a step before has left there.
    """

    inputs: tuple[Operand, ...]
    output: Operand
    axes: tuple[Expr, ...]
    step: Expr
    store: StoreAt
    combine: str = ""
    family: str = field(default="gather", init=False)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.inputs, self.output)


@dataclass(frozen=True)
class Epilogue:
    """What happens to an accumulator before it is stored.

    `index`: one loop variable per dim of the output's physical shape without halo (conv: (n, channel block, *spatial, lane), or
    (n, c, *spatial) where the output is plain; matmul: (*batch, m, n)). `value`: an expression over `arg("acc")`, those variables, and
    loads from slots; slots count through the spec's operands.
    """

    index: tuple[Expr, ...]
    acc: Expr
    value: Expr


@dataclass(frozen=True)
class ConvSpec:
    """out[n, oc, o] = epilogue(sum over ic, k of x[n, ic, o*stride + k*dilation - pad] * w[oc, ic, k])  (ONNX Conv).

    Operands: x, packed weights, the epilogue's extra operands, output. x's halo covers every position that is read; it is zero.
    Spatial tuples have 1 to 3 entries. `groups` splits channels as in ONNX; depthwise is groups == channels.
    """

    x: Operand
    weight_shape: tuple[int, ...]  # (OC, IC/groups, *kernel)
    extras: tuple[Operand, ...]
    output: Operand
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[int, ...]  # before, per spatial dim
    groups: int
    epilogue: Epilogue
    family: str = field(default="conv", init=False)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.x, Operand(self.x.dtype, self.weight_shape), *self.extras, self.output)


@dataclass(frozen=True)
class MatmulSpec:
    """out[*batch, m, n] = epilogue(sum over k of a[*batch, m, k] * b[*batch, k, n]).

    `a_strides`, `b_strides`, `c_strides`: elements per step of each batch dim (0 where broadcast), then of the two matrix dims. b is
    `packed` (a constant 2-d weight, packed once by the back end from its (K, N) row-major form) or read in place.
    Operands: a, b, extras, output. `storage`: how a packed float32 b lies in memory, "" as it is, "bf16", or "int8" with one scale per
    column (see `graphc.passes.compress_weights`).
    """

    dtype: DType
    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a: Operand
    b: Operand
    a_strides: tuple[int, ...]
    b_strides: tuple[int, ...]
    c_strides: tuple[int, ...]
    packed: bool
    extras: tuple[Operand, ...]
    output: Operand
    epilogue: Epilogue
    storage: str = ""
    family: str = field(default="contract", init=False)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.a, self.b, *self.extras, self.output)


@dataclass(frozen=True)
class MatmulPanels:
    """A product whose threads copy what they read into memory of their own, in the order of the register tiles: panels of up to `rows`
    rows of a (where these do not lie contiguous) and of a chunk of columns of b, of up to `steps` terms of the sum. Where the sum has
    more, its parts are kept there too, for up to `columns` columns.

    Operands: those of `product`, then the scratch (per thread, one after the other).
    """

    product: MatmulSpec
    rows: int
    columns: int
    steps: int
    family: str = field(default="contract", init=False)

    @property
    def copies_a(self) -> bool:
        return self.product.a_strides[-1] != 1

    @property
    def parts(self) -> int:
        """Of the sum."""
        return -(-self.product.k // self.steps)

    @property
    def regions(self) -> tuple[int, int, int]:
        """Elements for the panel of a, the panel of b, and the parts of sums. Tiles have rows of a whole vector, at most 16 lanes."""
        a = (self.steps + 16) * self.rows if self.copies_a else 0
        return a, self.steps * min(self.columns, 128), self.rows * self.columns if self.parts > 1 else 0

    @property
    def scratch(self) -> Operand:
        """In whole cache lines."""
        return Operand(self.product.dtype, (-(-sum(self.regions) // 16) * 16,))

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.product.operands, self.scratch)


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
class ConvChain:
    """A convolution of one group, and the depthwise convolution that reads it: `second.x` is `first.output`, with its halo.

    Operands: the inputs of `first`, those of `second` but for x, the output.
    """

    first: ConvSpec
    second: ConvSpec
    family: str = field(default="conv+dw", init=False)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        return (*self.first.operands[:-1], *self.second.operands[1:-1])

    @property
    def output(self) -> Operand:
        return self.second.output

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.inputs, self.output)

    @property
    def weights(self) -> tuple[int, int]:
        """Slots of the weights of the first and of the second convolution."""
        return 1, len(self.first.operands) - 1


@dataclass(frozen=True)
class ChainBands:
    """A chain in one step: each thread takes `chunk` blocks of channels and one of `bands` bands of output rows at a time, puts what
    the depthwise convolution reads of the map between into memory of its own, and computes the output from there.

    Operands: those of the chain, then the scratch (per thread, one after the other).
    """

    chain: ConvChain
    chunk: int
    bands: int
    family: str = field(default="conv+dw", init=False)

    @property
    def rows(self) -> int:
        """Of the map between, halo included, that the longest band reads."""
        second = self.chain.second
        longest = -(-second.output.shape[2] // self.bands)
        return (longest - 1) * second.stride[0] + (second.weight_shape[2] - 1) * second.dilation[0] + 1

    @property
    def scratch(self) -> Operand:
        """[channel block of the chunk][row][column with halo][lane]"""
        *_, columns, lanes = self.chain.second.x.physical_shape
        return Operand(self.chain.second.x.dtype, (self.chunk, self.rows, columns, lanes))

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.chain.operands, self.scratch)


@dataclass(frozen=True)
class PackSpec:
    """Weights that are known only at run time, into the order (and for Winograd the transform) in which the kernel `conv` reads them.

    weight[index] = value: one loop variable per dim of the convolution's weight, and loads from slots of `inputs`. The order is the back
    end's own. Operands: inputs, packed.
    """

    conv: Union[ConvSpec, WinogradConv, WinogradProduct]
    inputs: tuple[Operand, ...]
    index: tuple[Expr, ...]
    value: Expr
    lanes: int
    family: str = field(default="pack", init=False)

    @property
    def packed(self) -> Operand:
        """Room enough for any order of whole vectors of output channels: with groups, for all input channels beside each."""
        out, inner, *kernel = (axis.extent for axis in self.index)
        beside = inner
        if isinstance(self.conv, ConvSpec):
            x, y = self.conv.x, self.conv.output
            depthwise = x.layout.is_blocked and y.layout.is_blocked and self.conv.groups == out == x.shape[1]
            beside = 1 if depthwise else inner * self.conv.groups
        positions = prod(kernel) if isinstance(self.conv, ConvSpec) else self.conv.grid.positions
        return Operand(self.value.dtype, (-(-out // self.lanes) * self.lanes * beside * positions,))

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*self.inputs, self.packed)


@dataclass(frozen=True)
class WeightGradientSpec:
    """sums[part, c, m, k] = sum over n of the part, o of x[n, c, o*stride + k*dilation - pad] * grad[n, m, o]; with as many groups as
    channels x's channel is m, and c is 0.

    `sums`: [part][c][block of m][*kernel][lane]; the batch is cut into that many nearly equal parts. Where there is one part this is the
    memory of a (C, M, *kernel) tensor in blocks of M. Where grad is plain, so are x and the sums, and the stride along rows is 1. x's halo
    covers every position that is read; it is zero. Operands: x, grad, sums.
    """

    x: Operand
    grad: Operand
    sums: Operand
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad: tuple[int, ...]  # before, per spatial dim
    groups: int = 1
    family: str = field(default="conv-weight", init=False)

    @property
    def parts(self) -> int:
        return self.sums.shape[0]

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.x, self.grad, self.sums)


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
KernelSpec = Union[
    NestSpec, UpdateSpec, ConvSpec, MatmulSpec, MatmulPanels, PackSpec, WeightGradientSpec, RecurrentSpec, RecurrentGradSpec, WinogradSpec,
    ConvChain, ChainBands, SortSpec,
]  # fmt: skip
