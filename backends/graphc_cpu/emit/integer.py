"""Integer and boolean primitives over lanes. Never undefined: division by zero gives 0, overflow wraps, an oversized shift gives 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, vector_type
from graphc_cpu.emit.lanes import intrinsic_suffix, splat_literal


@dataclass(frozen=True)
class Integers:
    """`lanes` integers of `bits` bits in `function`."""

    function: Function
    bits: int
    signed: bool
    lanes: int

    @property
    def element(self) -> str:
        return f"i{self.bits}"

    @property
    def type(self) -> str:
        return vector_type(self.element, self.lanes)

    @property
    def mask(self) -> str:
        return vector_type("i1", self.lanes)

    def const(self, value: int) -> Value:
        return splat_literal(str(value), self.element, self.lanes)

    def _value(self, value: Value | int) -> Value:
        return value if isinstance(value, Value) else self.const(value)

    def op(self, opcode: str, a: Value | int, b: Value | int) -> Value:
        return self.function.op(f"{opcode} {self.type} {self._value(a).name}, {self._value(b).name}", self.type)

    def compare(self, predicate: str, a: Value | int, b: Value | int) -> Value:
        """`icmp`; lt, le, gt, ge take the sign of the type."""
        if predicate in ("lt", "le", "gt", "ge"):
            predicate = ("s" if self.signed else "u") + predicate
        return self.function.op(f"icmp {predicate} {self.type} {self._value(a).name}, {self._value(b).name}", self.mask)

    def select(self, condition: Value, yes: Value | int, no: Value | int) -> Value:
        return self.function.op(f"select {condition}, {self._value(yes)}, {self._value(no)}", self.type)

    def masks(self, opcode: str, a: Value, b: Value) -> Value:
        return self.function.op(f"{opcode} {self.mask} {a.name}, {b.name}", self.mask)

    def intrinsic(self, name: str, *args: Value) -> Value:
        return self.function.call(f"llvm.{name}.{intrinsic_suffix(self.element, self.lanes)}", self.type, *args)


def emit_integer(f: Function, fn: str, dtype: DType, args: Sequence[Value], lanes: int) -> Value | None:
    """A primitive on integers of `dtype`; None where integers do not have it."""
    emitter = _INTEGER.get(fn)
    return emitter(Integers(f, dtype.bits, dtype.kind == "i", lanes), *args) if emitter else None


def emit_bool(f: Function, fn: str, args: Sequence[Value], lanes: int) -> Value | None:
    """A primitive on i1; None where bool does not have it. min is and, max is or, false < true."""
    n = Integers(f, 1, False, lanes)
    if fn in _BOOL_OPCODES:
        return n.op(_BOOL_OPCODES[fn], *args)
    if fn in _PREDICATES:
        return n.compare(_PREDICATES[fn], *args)
    return n.op("xor", args[0], splat_literal("true", "i1", lanes)) if fn == "not" else None


def _never(n: Integers, _: Value) -> Value:
    return splat_literal("false", "i1", n.lanes)


def _neg(n: Integers, a: Value) -> Value:
    return n.op("sub", 0, a)


def _abs(n: Integers, a: Value) -> Value:
    """The lowest value of a signed type stays itself."""
    return n.select(n.compare("lt", a, 0), _neg(n, a), a) if n.signed else a


def _sign(n: Integers, a: Value) -> Value:
    positive = n.select(n.compare("gt", a, 0), 1, 0)
    return n.select(n.compare("lt", a, 0), -1, positive) if n.signed else positive


def _division(opcode: str, a: Value, b: Value, n: Integers) -> Value:
    """div or rem with a divisor that cannot trap: 1 in the place of 0, and of -1 for the lowest dividend (then the result is the same
    as with wrapping: the dividend, remainder 0)."""
    trap = n.compare("eq", b, 0)
    if n.signed:
        lowest = -(1 << (n.bits - 1))
        trap = n.masks("or", trap, n.masks("and", n.compare("eq", a, lowest), n.compare("eq", b, -1)))
    return n.op(("s" if n.signed else "u") + opcode, a, n.select(trap, 1, b))


def _zero_divisor(n: Integers, b: Value, result: Value) -> Value:
    return n.select(n.compare("eq", b, 0), 0, result)


def _idiv(n: Integers, a: Value, b: Value) -> Value:
    return _zero_divisor(n, b, _division("div", a, b, n))


def _fmod(n: Integers, a: Value, b: Value) -> Value:
    return _zero_divisor(n, b, _division("rem", a, b, n))


def _crosses(n: Integers, b: Value, remainder: Value) -> Value:
    """Whether truncation and floor differ: a remainder, of the other sign than the divisor."""
    opposite = n.compare("lt", n.op("xor", remainder, b), 0)
    return n.masks("and", n.compare("ne", remainder, 0), opposite)


def _mod(n: Integers, a: Value, b: Value) -> Value:
    remainder = _fmod(n, a, b)
    if not n.signed:
        return remainder
    return _zero_divisor(n, b, n.select(_crosses(n, b, remainder), n.op("add", remainder, b), remainder))


def _floordiv(n: Integers, a: Value, b: Value) -> Value:
    quotient = _division("div", a, b, n)
    if n.signed:
        remainder = n.op("sub", a, n.op("mul", quotient, b))
        quotient = n.select(_crosses(n, b, remainder), n.op("sub", quotient, 1), quotient)
    return _zero_divisor(n, b, quotient)


def _shift(opcode: str) -> Callable[..., Value]:
    """Amounts outside [0, bits) give 0."""

    def emit(n: Integers, a: Value, b: Value) -> Value:
        fits = n.compare("ult", b, n.bits)
        kind = "ashr" if opcode == "shr" and n.signed else "lshr" if opcode == "shr" else opcode
        return n.select(fits, n.op(kind, a, n.select(fits, b, 0)), 0)

    return emit


def _pow(n: Integers, a: Value, b: Value) -> Value:
    """By repeated squaring, wrapping. A negative exponent gives the truncated quotient 1 / a**-b (and 0 for a = 0)."""
    exponent = _abs(n, b)
    power = _power_loop(n, a, exponent)
    if not n.signed:
        return power
    unit = n.masks("or", n.compare("eq", a, 1), n.compare("eq", a, -1))
    return n.select(n.masks("and", n.compare("lt", b, 0), n.masks("xor", unit, splat_literal("true", "i1", n.lanes))), 0, power)


def _power_loop(n: Integers, a: Value, exponent: Value) -> Value:
    def body(counter: Value, carried: tuple[Value, ...]) -> tuple[Value, ...]:
        result, square, left = carried
        odd = n.compare("ne", n.op("and", left, 1), 0)
        return n.select(odd, n.op("mul", result, square), result), n.op("mul", square, square), n.op("lshr", left, 1)

    return n.function.loop(0, n.bits, 1, body, (n.const(1), a, exponent), hint="power", guarded=False)[0]


def _op(opcode: str) -> Callable[..., Value]:
    return lambda n, a, b: n.op(opcode, a, b)


def _compare(predicate: str) -> Callable[..., Value]:
    return lambda n, a, b: n.compare(predicate, a, b)


def _extremum(name: str) -> Callable[..., Value]:
    return lambda n, a, b: n.intrinsic(("s" if n.signed else "u") + name, a, b)


def _same(_: Integers, a: Value) -> Value:
    return a


_PREDICATES = {fn: fn for fn in ("eq", "ne")} | {fn: "u" + fn for fn in ("lt", "le", "gt", "ge")}
_BOOL_OPCODES = {"and": "and", "or": "or", "xor": "xor", "min": "and", "max": "or"}
_INTEGER: dict[str, Callable[..., Value]] = {
    "add": _op("add"), "sub": _op("sub"), "mul": _op("mul"), "fma": lambda n, a, b, c: n.op("add", n.op("mul", a, b), c),
    "neg": _neg, "abs": _abs, "sign": _sign, "idiv": _idiv, "fmod": _fmod, "mod": _mod, "floordiv": _floordiv, "pow": _pow,
    "min": _extremum("min"), "max": _extremum("max"),
    "eq": _compare("eq"), "ne": _compare("ne"), "lt": _compare("lt"), "le": _compare("le"), "gt": _compare("gt"), "ge": _compare("ge"),
    "isnan": _never, "isinf": _never, "floor": _same, "ceil": _same, "round": _same, "trunc": _same,
    "and": _op("and"), "or": _op("or"), "xor": _op("xor"), "not": lambda n, a: n.op("xor", a, -1),
    "shl": _shift("shl"), "shr": _shift("shr"),
}  # fmt: skip
