"""Specs of convolutions, of their gradients by weights, and of chains of two. See `graphc.kernel.spec`."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.kernel.expr import Expr
from graphc.kernel.operand import Operand


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
