"""The family sort: the first k elements of each row in sorted order, and where they were."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.kernel.operand import Operand
from graphc.types.dtype import i64, u64

DIGIT = 8  # bits that one pass of a radix sort looks at
SLACK = 256  # elements that vectors may reach beyond the last


@dataclass(frozen=True)
class SortSpec:
    """Of each row of x (rows, n) the k first elements, largest or smallest first; of equals the one that lies first. NaN counts as the
    largest, -0.0 as 0.0.

    `outputs`: which results are stored, of "values" (rows, k), x's elements bit for bit, and "positions" (rows, k) i64. Operands: x, the
    outputs, then scratch (per thread, one after the other). The order is total, so the result does not depend on how it is found.
    """

    x: Operand
    k: int
    largest: bool
    outputs: tuple[str, ...]
    family: str = field(default="sort", init=False)

    @property
    def rows(self) -> int:
        return self.x.shape[0]

    @property
    def n(self) -> int:
        return self.x.shape[1]

    @property
    def words(self) -> int:
        """64-bit words of a record: an element's order and its position, in one word where both fit."""
        return 1 if self.x.dtype.bits <= 32 else 2

    @property
    def digits(self) -> int:
        return self.x.dtype.bits // DIGIT

    @property
    def capacity(self) -> int:
        """Records in a list, and orders of elements in a row, with slack."""
        return self.n + SLACK

    @property
    def regions(self) -> tuple[int, int, int, int]:
        """Words for each of two lists of records, for orders of elements, for the counters of all digits, and for orders or ranks of a few
        elements."""
        return self.words * self.capacity, self.capacity, self.digits * (1 << DIGIT) // 2, SLACK

    @property
    def scratch(self) -> Operand:
        """In whole cache lines."""
        records, *others = self.regions
        return Operand(u64, (-(-(2 * records + sum(others)) // 8) * 8,))

    @property
    def operands(self) -> tuple[Operand, ...]:
        dtypes = {"values": self.x.dtype, "positions": i64}
        return (self.x, *(Operand(dtypes[name], (self.rows, self.k)) for name in self.outputs), self.scratch)
