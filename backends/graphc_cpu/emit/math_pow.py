"""pow over lanes: |x|**y = e**(y * log|x|), and the cases of C's pow (Annex F) around it.

32-bit lanes work in 64 bits. 64-bit lanes carry log|x| and the product as sums of two floats (about 64 bits), because an error in the
exponent grows with the exponent.
"""

from __future__ import annotations

import math

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_exp import exp
from graphc_cpu.emit.math_log import split

Pair = tuple[Value, Value]  # an unevaluated sum, the larger part first

# (2 atanh(s) / s - 2) / (s*s * ln 2) in powers of s*s, and (2**x - 1) / x in powers of x: what a float32 result needs
_LOG2 = (0.9617966791314444, 0.5770828675713359, 0.4117052291749163, 0.3402419595394976)
_EXP2 = (0.6931472027867815, 0.2402263687472998, 0.05550329713377416, 0.009619925142502216, 0.0013400246452947107, 0.0001491423736006025)
# (2 atanh(s) / s - 2) / s**2 - (2/3 as float64), divided by s*s, in powers of s*s
_LOG_TAIL = (
    0.40000000000004937, 0.2857142856940425, 0.22222222608261777, 0.1818177823725342, 0.15386994490646605, 0.13252012707171207,
    0.1323606770887415,
)  # fmt: skip
_LN2 = (0.6931471805598903, 5.497923018708371e-14)  # the first has 42 bits: its product with an exponent is exact
_LARGEST_POWER = 2.0**70  # gives 0, 1 or inf for every x, as larger ones do, and products of it do not overflow


def pow(v: Lanes, x: Value, y: Value) -> Value:
    """x**y. 1 ulp in 32 bits, 2 ulp in 64."""
    size = v.abs(x)
    regular = v.narrow(_short_power(v.wide(), v.widen(size), v.widen(y))) if v.width == 32 else _long_power(v, size, y)
    infinite = v.compare("oeq", size, math.inf)
    edge = v.either(infinite, v.compare("oeq", x, 0.0))
    grows = v.function.op(f"xor {v.mask} {infinite.name}, {v.compare('olt', y, 0.0).name}", v.mask)
    result = v.select(edge, v.select(grows, math.inf, 0.0), regular)
    result = _with_sign(v, x, y, result, edge)
    result = v.select(v.compare("uno", x, y), v.add(x, y), result)
    one = v.either(v.compare("oeq", y, 0.0), v.compare("oeq", x, 1.0))
    return v.select(one, 1.0, result)


def _with_sign(v: Lanes, x: Value, y: Value, result: Value, edge: Value) -> Value:
    """Negative for odd y where x has a minus sign; NaN for fractional y where x < 0 is finite."""
    half = v.mul(y, 0.5)
    whole = v.compare("oeq", v.round_even(y), y)
    odd = v.both(whole, v.compare("one", v.round_even(half), half))
    signed = v.copysign(result, v.select(odd, x, 1.0))
    fractional = v.both(v.compare("olt", x, 0.0), v.negate(v.either(whole, edge)))
    return v.select(fractional, math.nan, signed)


def _short_power(w: Lanes, x: Value, y: Value) -> Value:
    """2**(y * log2 x) for x of float32 range, to about 2**-30."""
    k, m = split(w, x)
    s = w.div(w.sub(m, 1.0), w.add(m, 1.0))
    z = w.mul(s, s)
    log2 = w.add(k, w.fma(s, 2 / math.log(2.0), w.mul(w.mul(s, z), w.polynomial(z, _LOG2))))
    exponent = w.clamp(w.mul(w.clamp(y, -_LARGEST_POWER, _LARGEST_POWER), log2), -1000.0, 1000.0)
    number, n = w.nearest(exponent)
    r = w.sub(exponent, number)
    return w.mul(w.fma(r, w.polynomial(r, _EXP2), 1.0), w.power_of_two(n))


def _long_power(v: Lanes, x: Value, y: Value) -> Value:
    """e**(y * log x)."""
    bounded = v.clamp(y, -_LARGEST_POWER, _LARGEST_POWER)
    high, low = _multiply(v, _log_pair(v, x), (bounded, v.const(0.0)))
    return exp(v, high, low=low)


def _log_pair(v: Lanes, x: Value) -> Pair:
    """k*ln2 + 2s + s*z*(2/3 + z*T(z)), s = (m - 1) / (m + 1), z = s*s, leading terms as pairs."""
    k, m = split(v, x)
    s = _divide(v, v.sub(m, 1.0), _two_sum(v, m, v.const(1.0)))
    z = _multiply(v, s, s)
    tail = v.mul(z[0], v.polynomial(z[0], _LOG_TAIL))
    inner = _fast_sum(v, v.const(2 / 3), tail)
    series = _add(v, (v.const(2.0), v.const(0.0)), _multiply(v, z, inner))
    log = _multiply(v, s, series)
    high, low = _two_sum(v, v.mul(k, _LN2[0]), log[0])
    return _fast_sum(v, high, v.add(low, v.fma(k, _LN2[1], log[1])))


# arithmetic of pairs (Dekker 1971, Knuth) -------------------------------------------------------------------------------------------


def _two_sum(v: Lanes, a: Value, b: Value) -> Pair:
    total = v.add(a, b)
    other = v.sub(total, a)
    return total, v.add(v.sub(a, v.sub(total, other)), v.sub(b, other))


def _fast_sum(v: Lanes, a: Value, b: Value) -> Pair:
    """For |a| >= |b|."""
    total = v.add(a, b)
    return total, v.sub(b, v.sub(total, a))


def _halves(v: Lanes, a: Value) -> Pair:
    """The upper 26 bits and the rest."""
    upper = v.from_bits(v.integer_op("and", v.bits(a), -(1 << 27)))
    return upper, v.sub(a, upper)


def _two_product(v: Lanes, a: Value, b: Value) -> Pair:
    product = v.mul(a, b)
    (a1, a2), (b1, b2) = _halves(v, a), _halves(v, b)
    error = v.sub(v.mul(a1, b1), product)
    for left, right in ((a1, b2), (a2, b1), (a2, b2)):
        error = v.add(error, v.mul(left, right))
    return product, error


def _multiply(v: Lanes, a: Pair, b: Pair) -> Pair:
    high, low = _two_product(v, a[0], b[0])
    return _fast_sum(v, high, v.add(low, v.add(v.mul(a[0], b[1]), v.mul(a[1], b[0]))))


def _add(v: Lanes, a: Pair, b: Pair) -> Pair:
    high, low = _two_sum(v, a[0], b[0])
    return _fast_sum(v, high, v.add(low, v.add(a[1], b[1])))


def _divide(v: Lanes, a: Value, b: Pair) -> Pair:
    quotient = v.div(a, b[0])
    high, low = _two_product(v, quotient, b[0])
    rest = v.sub(v.sub(v.sub(a, high), low), v.mul(quotient, b[1]))
    return _fast_sum(v, quotient, v.div(rest, b[0]))
