"""Functions of 16 float32 lanes whose coefficients are looked up in AVX-512 registers, on a port of its own beside multiply-adds.

The argument's interval i is found by rounding. With u = x - center[i] the function is value[i] + u * (q[0][i] + q[1][i] u + ...), where
center[i] was chosen such that value[i] is the function's value to 8 bits more than float32 has. So a few terms are as good as the long
polynomials of the other modules. Least-squares fits of our own, relative to the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphc_cpu.emit.ir import Value, vector_type
from graphc_cpu.emit.lanes import Lanes, float_literal

LANES = 16


@dataclass(frozen=True)
class OddTable:
    """An odd function that is 1 from `top` on. Interval i, of 16, lies around i / scale; in interval 0 the function is u + u * (...).

    `value` is 0 in interval 0, and larger than any u elsewhere.
    """

    top: float
    scale: float
    center: Sequence[float]
    value: Sequence[float]
    q: Sequence[Sequence[float]]


def has_tables(v: Lanes) -> bool:
    """Whether these lanes can be computed in AVX-512 registers of 16 float32."""
    return v.width == 32 and "+avx512f" in v.target.features and (v.lanes < LANES or v.lanes % LANES == 0)


def by_sixteen(v: Lanes, x: Value, body: Callable[[Lanes, Value], Value]) -> Value:
    """`body` on registers of 16 lanes: an element has the same bits whatever the number of lanes. Needs `has_tables`."""
    full = Lanes(v.function, v.width, LANES, v.target)
    if v.lanes == LANES:
        return body(full, x)
    if v.lanes == 1:
        wide = v.function.op(f"insertelement {full.type} zeroinitializer, {x}, i64 0", full.type)
        return v.function.op(f"extractelement {body(full, wide)}, i64 0", v.type)
    parts = [body(full, _lanes(v, x, x, range(i, i + LANES))) for i in range(0, v.lanes, LANES)]
    whole = parts[0]
    for i, part in enumerate(parts[1:], 1):
        padded = _lanes(v, part, part, range(i * LANES))
        whole = _lanes(v, whole, padded, [*range(i * LANES), *range(i * LANES, i * LANES + LANES)])
    return whole if v.lanes > LANES else _lanes(v, whole, whole, range(v.lanes))


def _lanes(v: Lanes, a: Value, b: Value, order: Iterable[int]) -> Value:
    """The lanes `order` of a, followed by b."""
    size = int(a.type[1:].split(" ")[0])
    mask = [f"i32 {i}" if i < 2 * size else "i32 poison" for i in order]
    return v.function.op(f"shufflevector {a}, {b}, <{len(mask)} x i32> <{', '.join(mask)}>", vector_type(v.element, len(mask)))


def lookup(v: Lanes, table: Sequence[float], index: Value) -> Value:
    """table[index mod 16], per lane."""
    literal = Value("<" + ", ".join(f"float {float_literal(entry, 'float')}" for entry in table) + ">", v.type)
    return v.function.call("llvm.x86.avx512.permvar.sf.512", v.type, literal, index)


def odd(v: Lanes, x: Value, table: OddTable) -> Value:
    """The table's function. NaN stays NaN; the sign of zero is kept."""

    def body(w: Lanes, argument: Value) -> Value:
        size = w.upper_bound(w.abs(argument), table.top)
        index = w.bits(w.fma(size, table.scale, 1.5 * 2.0**w.mantissa_bits))
        u = w.sub(size, lookup(w, table.center, index))
        value = lookup(w, table.value, index)
        start = w.select(w.compare("ogt", value, u), value, u)  # the larger, one instruction
        total = lookup(w, table.q[-1], index)
        for coefficients in table.q[-2::-1]:
            total = w.fma(total, u, lookup(w, coefficients, index))
        return w.copysign(w.fma(u, total, start), argument)

    return by_sixteen(v, x, body)
