"""Kernel specs: WHAT one kernel computes, on which physical operands. Back ends turn a spec into code.

A spec is frozen and hashable, holds no addresses and no weights, and its text is the key of the code cache: two layers of the same
shape share one kernel. A compiled kernel is called as `void kernel(ptr args, i64 thread, i64 threads)`: `args` points to an array of
pointers to the spec's operands (`spec.operands` order: inputs, then outputs), and each thread does its share of the work. The share
never changes how one element is computed, so results do not depend on `threads`.

Here are the loops, and the names of all specs; convolutions, products, recurrent layers and sorting have modules of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Union

from graphc.kernel.conv_spec import ChainBands as ChainBands
from graphc.kernel.conv_spec import ConvChain as ConvChain
from graphc.kernel.conv_spec import ConvSpec as ConvSpec
from graphc.kernel.conv_spec import Epilogue as Epilogue
from graphc.kernel.conv_spec import WeightGradientSpec as WeightGradientSpec
from graphc.kernel.expr import Expr
from graphc.kernel.matmul_spec import MatmulPanels as MatmulPanels
from graphc.kernel.matmul_spec import MatmulSpec as MatmulSpec
from graphc.kernel.operand import Operand as Operand
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
from graphc.kernel.sort import SortSpec
from graphc.kernel.winograd_spec import TileGrid as TileGrid
from graphc.kernel.winograd_spec import WinogradConv as WinogradConv
from graphc.kernel.winograd_spec import WinogradGradient as WinogradGradient
from graphc.kernel.winograd_spec import WinogradInput as WinogradInput
from graphc.kernel.winograd_spec import WinogradOutput as WinogradOutput
from graphc.kernel.winograd_spec import WinogradProduct as WinogradProduct
from graphc.kernel.winograd_spec import WinogradSpec as WinogradSpec
from graphc.kernel.winograd_spec import tile_buffer as tile_buffer


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


KernelSpec = Union[
    NestSpec, UpdateSpec, ConvSpec, MatmulSpec, MatmulPanels, PackSpec, WeightGradientSpec, RecurrentSpec, RecurrentGradSpec, WinogradSpec,
    ConvChain, ChainBands, SortSpec,
]  # fmt: skip
