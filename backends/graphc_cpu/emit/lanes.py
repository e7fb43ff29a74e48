"""Float lanes: short names for the instructions that the math functions are written with.

A `Lanes` appends to one `Function` and works on values of one shape, `lanes` floats of 32 or 64 bits (lanes=1: a scalar), beside
integers of the same width. Nothing here carries a fast-math flag, so that error-free transformations stay as written; `fma` is
`llvm.fmuladd`, which rounds twice on machines without FMA.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, vector_type


def float_literal(value: float, element: str) -> str:
    """An LLVM float or double constant: the bits of the double that has exactly that value."""
    if element == "float":
        try:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def splat_literal(text: str, element: str, lanes: int) -> Value:
    """A constant in every lane."""
    return Value(text, element) if lanes == 1 else Value(f"splat ({element} {text})", vector_type(element, lanes))


def intrinsic_suffix(element: str, lanes: int) -> str:
    """`v16f32` for 16 floats: how LLVM mangles a type into an intrinsic's name."""
    short = {"float": "f32", "double": "f64", "half": "f16"}.get(element, element)
    return f"v{lanes}{short}" if lanes > 1 else short


def has_rounding(target: Target) -> bool:
    """Whether floor, ceil, trunc and round-to-even are instructions (SSE2 has none: LLVM would call libm)."""
    return not target.triple.startswith("x86") or target.vector_bytes > 16 or "+sse4.1" in target.features


@dataclass(frozen=True)
class Lanes:
    """`lanes` floats of `width` bits in `function`."""

    function: Function
    width: int
    lanes: int
    target: Target

    @property
    def element(self) -> str:
        return "float" if self.width == 32 else "double"

    @property
    def type(self) -> str:
        return vector_type(self.element, self.lanes)

    @property
    def integer(self) -> str:
        """Type of the integers of the same width."""
        return vector_type(f"i{self.width}", self.lanes)

    @property
    def mask(self) -> str:
        """Type of a comparison's result."""
        return vector_type("i1", self.lanes)

    @property
    def mantissa_bits(self) -> int:
        """Stored bits of the significand."""
        return 23 if self.width == 32 else 52

    @property
    def bias(self) -> int:
        return 127 if self.width == 32 else 1023

    @property
    def has_scalef(self) -> bool:
        """Whether these lanes are one AVX-512 register, which multiplies with powers of two in one instruction."""
        return "+avx512f" in self.target.features and self.lanes * self.width == 512

    def wide(self) -> Lanes:
        """The same lanes in 64 bits."""
        return Lanes(self.function, 64, self.lanes, self.target)

    # constants ----------------------------------------------------------------------------------------------------------------

    def const(self, value: float) -> Value:
        return splat_literal(float_literal(value, self.element), self.element, self.lanes)

    def integer_const(self, value: int) -> Value:
        return splat_literal(str(value), f"i{self.width}", self.lanes)

    def _float(self, value: Value | float) -> Value:
        return value if isinstance(value, Value) else self.const(value)

    def _integer(self, value: Value | int) -> Value:
        return value if isinstance(value, Value) else self.integer_const(value)

    # float arithmetic ---------------------------------------------------------------------------------------------------------

    def _binary(self, opcode: str, a: Value | float, b: Value | float) -> Value:
        return self.function.op(f"{opcode} {self.type} {self._float(a).name}, {self._float(b).name}", self.type)

    def add(self, a: Value | float, b: Value | float) -> Value:
        return self._binary("fadd", a, b)

    def sub(self, a: Value | float, b: Value | float) -> Value:
        return self._binary("fsub", a, b)

    def mul(self, a: Value | float, b: Value | float) -> Value:
        return self._binary("fmul", a, b)

    def div(self, a: Value | float, b: Value | float) -> Value:
        return self._binary("fdiv", a, b)

    def neg(self, a: Value) -> Value:
        return self.function.op(f"fneg {a}", self.type)

    def intrinsic(self, name: str, *args: Value | float) -> Value:
        """`llvm.<name>` on this type."""
        return self.function.call(f"llvm.{name}.{intrinsic_suffix(self.element, self.lanes)}", self.type, *map(self._float, args))

    def fma(self, a: Value | float, b: Value | float, c: Value | float) -> Value:
        """a * b + c."""
        return self.intrinsic("fmuladd", a, b, c)

    def abs(self, a: Value) -> Value:
        return self.intrinsic("fabs", a)

    def sqrt(self, a: Value) -> Value:
        return self.intrinsic("sqrt", a)

    def copysign(self, magnitude: Value | float, sign: Value) -> Value:
        return self.intrinsic("copysign", magnitude, sign)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """sum of coefficients[k] * x**k, by Horner's rule."""
        *rest, last = coefficients
        total = self.const(last)
        for coefficient in reversed(rest):
            total = self.fma(total, x, coefficient)
        return total

    # comparison and choice ----------------------------------------------------------------------------------------------------

    def compare(self, predicate: str, a: Value | float, b: Value | float) -> Value:
        """`fcmp` with an LLVM predicate: oeq, olt, ole, uno (either is NaN), une, ..."""
        return self.function.op(f"fcmp {predicate} {self.type} {self._float(a).name}, {self._float(b).name}", self.mask)

    def select(self, condition: Value, yes: Value | float, no: Value | float) -> Value:
        return self.function.op(f"select {condition}, {self._float(yes)}, {self._float(no)}", self.type)

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """NaN stays NaN."""
        return self.lower_bound(self.upper_bound(x, high), low)

    def upper_bound(self, x: Value, high: float) -> Value:
        """min(high, x); NaN stays NaN (the order that is one instruction on x86)."""
        return self.select(self.compare("olt", high, x), high, x)

    def lower_bound(self, x: Value, low: float) -> Value:
        """max(low, x); NaN stays NaN."""
        return self.select(self.compare("ogt", low, x), low, x)

    def either(self, a: Value, b: Value) -> Value:
        return self.function.op(f"or {self.mask} {a.name}, {b.name}", self.mask)

    def negate(self, condition: Value) -> Value:
        """Not."""
        true = splat_literal("true", "i1", self.lanes)
        return self.function.op(f"xor {condition}, {true.name}", self.mask)

    def both(self, a: Value, b: Value) -> Value:
        return self.function.op(f"and {self.mask} {a.name}, {b.name}", self.mask)

    # integers of the same width -----------------------------------------------------------------------------------------------

    def integer_op(self, opcode: str, a: Value | int, b: Value | int) -> Value:
        """`opcode` (add, sub, and, shl, lshr, ashr, ...) on the integers."""
        return self.function.op(f"{opcode} {self.integer} {self._integer(a).name}, {self._integer(b).name}", self.integer)

    def integer_compare(self, predicate: str, a: Value | int, b: Value | int) -> Value:
        return self.function.op(f"icmp {predicate} {self.integer} {self._integer(a).name}, {self._integer(b).name}", self.mask)

    def integer_select(self, condition: Value, yes: Value | int, no: Value | int) -> Value:
        return self.function.op(f"select {condition}, {self._integer(yes)}, {self._integer(no)}", self.integer)

    def bits(self, x: Value) -> Value:
        return self.function.op(f"bitcast {x} to {self.integer}", self.integer)

    def from_bits(self, bits: Value) -> Value:
        return self.function.op(f"bitcast {bits} to {self.type}", self.type)

    def from_int(self, value: Value) -> Value:
        """An integer of at most `mantissa_bits - 2` bits as float (by its bits in 64-bit lanes: most machines have no such conversion)."""
        if self.width == 32:
            return self.function.op(f"sitofp {value} to {self.type}", self.type)
        magic = 1.5 * 2.0**self.mantissa_bits
        return self.sub(self.from_bits(self.integer_op("add", value, float_bits(magic, self.width))), magic)

    # rare cases ---------------------------------------------------------------------------------------------------------------

    def any(self, condition: Value) -> Value:
        """One i1: whether the condition holds in some lane."""
        if self.lanes == 1:
            return condition
        packed = self.function.op(f"bitcast {condition} to i{self.lanes}", f"i{self.lanes}")
        return self.function.op(f"icmp ne {packed}, 0", "i1")

    def rarely(self, condition: Value, usual: Sequence[Value], slow: Callable[[], Sequence[Value]]) -> tuple[Value, ...]:
        """`usual`, or what `slow` emits where the condition holds in some lane; then a branch is taken."""
        f = self.function
        before, tag = f.block, f.fresh("rare")[1:]
        f.do(f"br i1 {self.any(condition).name}, label %{tag}.slow, label %{tag}.end")
        f.label(f"{tag}.slow")
        results = slow()
        last = f.block
        f.do(f"br label %{tag}.end")
        f.label(f"{tag}.end")
        arms = zip(results, usual, strict=True)
        return tuple(f.op(f"phi {new.type} [ {new.name}, %{last} ], [ {old.name}, %{before} ]", new.type) for new, old in arms)

    def each_lane(self, function: str, result: str, *args: Value) -> Value:
        """A scalar function (its name, its result's LLVM type) applied lane by lane."""
        f = self.function
        if self.lanes == 1:
            return f.op(f"call {result} @{function}({', '.join(map(str, args))})", result)
        type = vector_type(result, self.lanes)

        def turn(i: Value, carried: tuple[Value, ...]) -> tuple[Value, ...]:
            lane = [f.op(f"extractelement {arg}, i64 {i.name}", arg.type.split(" x ")[1][:-1]) for arg in args]
            value = f.op(f"call {result} @{function}({', '.join(map(str, lane))})", result)
            return (f.op(f"insertelement {carried[0]}, {value}, i64 {i.name}", type),)

        return f.loop(0, self.lanes, 1, turn, (Value("zeroinitializer", type),), hint="lane", guarded=False)[0]

    # between widths -----------------------------------------------------------------------------------------------------------

    def widen(self, x: Value) -> Value:
        """To 64 bits, exactly."""
        wide = self.wide()
        return x if self.width == 64 else self.function.op(f"fpext {x} to {wide.type}", wide.type)

    def narrow(self, x: Value) -> Value:
        """From 64 bits to this width."""
        return x if self.width == 64 else self.function.op(f"fptrunc {x} to {self.type}", self.type)

    # nearest integers ---------------------------------------------------------------------------------------------------------

    def nearest(self, x: Value) -> tuple[Value, Value]:
        """x rounded to an integer, as float and as integer; for |x| < 2**(mantissa bits - 1). NaN gives NaN and any integer.

        Adds and takes away 1.5 * 2**mantissa_bits, whose last bit is worth 1.
        """
        magic = 1.5 * 2.0**self.mantissa_bits
        shifted = self.add(x, magic)
        number = self.integer_op("sub", self.bits(shifted), float_bits(magic, self.width))
        return self.sub(shifted, magic), number

    def round_even(self, x: Value) -> Value:
        """To the nearest integer, half to even; emulated by adding 2**mantissa_bits, whose last bit is worth 1."""
        if has_rounding(self.target):
            return self.intrinsic("roundeven", x)
        size, limit = self.abs(x), 2.0**self.mantissa_bits
        rounded = self.copysign(self.sub(self.add(size, limit), limit), x)
        return self.select(self.compare("olt", size, limit), rounded, x)

    def floor(self, x: Value) -> Value:
        if has_rounding(self.target):
            return self.intrinsic("floor", x)
        near = self.round_even(x)
        return self.select(self.compare("ogt", near, x), self.sub(near, 1.0), near)

    def ceil(self, x: Value) -> Value:
        return self.intrinsic("ceil", x) if has_rounding(self.target) else self.neg(self.floor(self.neg(x)))

    def trunc(self, x: Value) -> Value:
        return self.intrinsic("trunc", x) if has_rounding(self.target) else self.copysign(self.floor(self.abs(x)), x)

    def power_of_two(self, n: Value) -> Value:
        """2.0**n for integers n in the range of normal numbers."""
        return self.from_bits(self.integer_op("shl", self.integer_op("add", n, self.bias), self.mantissa_bits))


def float_bits(value: float, width: int) -> int:
    """The bits of a float32 or float64 as an unsigned integer."""
    small, code = (("<f", "<I") if width == 32 else ("<d", "<Q"))
    return int(struct.unpack(code, struct.pack(small, value))[0])
