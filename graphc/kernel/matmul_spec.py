"""Specs of matrix products. See `graphc.kernel.spec`."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.kernel.conv_spec import Epilogue
from graphc.kernel.operand import Operand
from graphc.types.dtype import DType


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
