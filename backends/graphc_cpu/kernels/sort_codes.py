"""Elements as unsigned integers in the order in which they are wanted: the smaller code comes first, equal elements have equal codes."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.target import Target
from graphc.types.dtype import DType, u8, u16, u32, u64
from graphc_cpu.emit.integer import Integers
from graphc_cpu.emit.ir import Function, Value, vector_type
from graphc_cpu.micro.memory import load_lanes, mask_literal

_UNSIGNED = {dtype.bits: dtype for dtype in (u8, u16, u32, u64)}
_INFINITY = {16: 0x7C00, 32: 0x7F800000, 64: 0x7FF0000000000000}


@dataclass(frozen=True)
class Codes:
    """Of elements of `dtype`, as vectors of 32 or 64 bits; the largest element's is the smallest where `largest` says so."""

    f: Function
    dtype: DType
    largest: bool
    target: Target

    @property
    def bits(self) -> int:
        """Of a vector's elements; those beyond the dtype's are 0."""
        return max(32, self.dtype.bits)

    @property
    def element(self) -> str:
        return f"i{self.bits}"

    @property
    def lanes(self) -> int:
        return self.target.vector_bytes * 8 // self.bits

    @property
    def type(self) -> str:
        return vector_type(self.element, self.lanes)

    @property
    def raw(self) -> DType:
        """Of the elements as bits."""
        return _UNSIGNED[self.dtype.bits]

    @property
    def vectors(self) -> Integers:
        return Integers(self.f, self.bits, False, self.lanes)

    def load(self, pointer: Value, valid: int) -> Value:
        """Of the `valid` first of a vector of elements; the others have the last code of all."""
        code = self._ordered(load_lanes(self.f, pointer, self.raw, self.lanes, 1, valid))
        if self.dtype.bits < self.bits:
            code = self.f.op(f"zext {code} to {self.type}", self.type)
        if valid == self.lanes:
            return code
        return self.f.op(f"select {mask_literal(self.lanes, valid)}, {code}, {self.vectors.const(-1)}", self.type)

    def _ordered(self, x: Value) -> Value:
        n = Integers(self.f, self.dtype.bits, True, self.lanes)
        lowest = -(1 << (n.bits - 1))
        if self.dtype.kind == "u":
            return n.op("xor", x, -1) if self.largest else x
        signed = self._signed(n, x) if self.dtype.is_float else x
        return n.op("xor", signed, -1 - lowest if self.largest else lowest)

    def _signed(self, n: Integers, x: Value) -> Value:
        """The order of floats as signed integers: the bits, all but the sign turned where it is set; NaN is beyond infinity."""
        low = (1 << (n.bits - 1)) - 1
        size = n.op("and", x, low)
        signed = n.op("xor", x, n.op("and", n.op("ashr", x, n.bits - 1), low))
        signed = n.select(n.compare("eq", size, 0), 0, signed)
        infinity = _INFINITY[n.bits]
        return n.select(n.compare("gt", size, infinity), infinity + 1, signed)
