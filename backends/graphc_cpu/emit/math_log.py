"""log, log1p and the inverse hyperbolic functions over lanes.

x = 2**k * (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), log x = k*ln2 + log(1 + f); ln2 in two parts. log(1 + f) is a polynomial in f
(32 bits), or in s = f / (2 + f), because log(1 + f) = 2 atanh(s) (64 bits). Coefficients are minimax fits of our own.
"""

from __future__ import annotations

import math

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes, float_bits
from graphc_cpu.emit.math_exp import LN2

# (log(1 + f) - f + f*f/2) / f**3 in powers of f
_LOG32 = (
    0.3333331346511841, -0.2500016987323761, 0.20002226531505585, -0.16659210622310638, 0.14209386706352234, -0.12552212178707123,
    0.1211264356970787, -0.10903684049844742, 0.05315665528178215,
)  # fmt: skip
# (2 atanh(s) / s - 2) / s**2 in powers of s*s
_LOG64 = (
    0.6666666666666666, 0.40000000000004937, 0.2857142856940425, 0.22222222608261777, 0.1818177823725342, 0.15386994490646605,
    0.13252012707171207, 0.1323606770887415,
)  # fmt: skip
_LARGE = {32: 2.0**28, 64: 2.0**57}  # from here log(2x) is the inverse hyperbolic sine and cosine
_TINY = {32: (2.0**-126, 24), 64: (2.0**-1022, 54)}  # smallest normal number, the power of two that lifts the denormal ones


def split(v: Lanes, x: Value) -> tuple[Value, Value]:
    """(k, m) with x = 2**k * m, m in [sqrt(1/2), sqrt(2)), k as float; for finite x > 0, denormal ones too."""
    smallest, lift = _TINY[v.width]
    tiny = v.compare("olt", x, smallest)
    bits = v.bits(v.select(tiny, v.mul(x, 2.0**lift), x))
    k = v.integer_op("ashr", v.integer_op("sub", bits, float_bits(math.sqrt(0.5), v.width)), v.mantissa_bits)
    m = v.from_bits(v.integer_op("sub", bits, v.integer_op("shl", k, v.mantissa_bits)))
    return v.from_int(v.integer_op("sub", k, v.integer_select(tiny, lift, 0))), m


def _assemble(v: Lanes, k: Value, f: Value, correction: Value | None = None) -> Value:
    """k*ln2 + log(1 + f) + correction, the small terms first."""
    high, low = LN2[v.width]
    half_square = v.mul(v.mul(f, 0.5), f)
    small = v.mul(k, low) if correction is None else v.fma(k, low, correction)
    if v.width == 32:
        rest = v.fma(v.mul(v.mul(f, f), f), v.polynomial(f, _LOG32), small)
    else:
        s = v.div(f, v.add(f, 2.0))
        z = v.mul(s, s)
        rest = v.fma(s, v.fma(z, v.polynomial(z, _LOG64), half_square), small)
    return v.fma(k, high, v.sub(f, v.sub(half_square, rest)))


def _outside(v: Lanes, x: Value, result: Value) -> Value:
    """-inf at 0, NaN below, x itself at inf and NaN."""
    special = v.select(v.compare("olt", x, 0.0), math.nan, v.select(v.compare("oeq", x, 0.0), -math.inf, x))
    inside = v.both(v.compare("ogt", x, 0.0), v.compare("olt", x, math.inf))
    return v.select(inside, result, special)


def log(v: Lanes, x: Value) -> Value:
    """Natural logarithm. 1 ulp."""
    k, m = split(v, x)
    return _outside(v, x, _assemble(v, k, v.sub(m, 1.0)))


def log1p(v: Lanes, x: Value) -> Value:
    """log(1 + x), with what 1 + x loses in rounding added back. 1 ulp."""
    u = v.add(x, 1.0)
    lost = v.select(v.compare("ogt", x, 1.0), v.sub(1.0, v.sub(u, x)), v.sub(x, v.sub(u, 1.0)))
    k, m = split(v, u)
    whole = v.compare("oeq", k, 0.0)
    f = v.select(whole, x, v.sub(m, 1.0))
    result = _assemble(v, k, f, v.select(whole, 0.0, v.div(lost, u)))
    tiny = v.compare("olt", v.abs(x), 2.0 ** -(v.mantissa_bits + 2))
    return v.select(tiny, x, _outside(v, u, result))


def asinh(v: Lanes, x: Value) -> Value:
    """log(|x| + sqrt(x*x + 1)) with the sign of x. 2 ulp."""
    size = v.abs(x)
    large = v.compare("oge", size, _LARGE[v.width])
    square = v.mul(size, size)
    small = v.add(size, v.div(square, v.add(v.sqrt(v.add(square, 1.0)), 1.0)))
    result = log1p(v, v.select(large, size, small))
    return v.copysign(v.add(result, v.select(large, math.log(2.0), 0.0)), x)


def acosh(v: Lanes, x: Value) -> Value:
    """log(x + sqrt(x*x - 1)); NaN for x < 1. 2.5 ulp."""
    large = v.compare("oge", x, _LARGE[v.width])
    t = v.sub(x, 1.0)
    small = v.add(t, v.sqrt(v.mul(t, v.add(t, 2.0))))
    result = v.add(log1p(v, v.select(large, x, small)), v.select(large, math.log(2.0), 0.0))
    return v.select(v.compare("olt", x, 1.0), math.nan, result)


def atanh(v: Lanes, x: Value) -> Value:
    """log1p(2|x| / (1 - |x|)) / 2 with the sign of x; inf at 1, NaN beyond. 2 ulp."""
    size = v.abs(x)
    result = v.mul(log1p(v, v.div(v.add(size, size), v.sub(1.0, size))), 0.5)
    return v.copysign(result, x)
