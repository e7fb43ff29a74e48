"""exp, expm1 and the hyperbolic functions as polynomials over lanes.

exp: x = n*ln2 + r with |r| <= ln2/2 (ln2 in two parts, Cody and Waite), e**r = 1 + r + r*r*q(r) with q a minimax polynomial of our own
fit, and scaling by 2**n in two steps, so results in the denormal range are right too.
"""

from __future__ import annotations

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_table import has_tables, odd
from graphc_cpu.emit.math_table_data import TANH

LOG2_E = 1.4426950408889634
LN2 = {32: (0.693145751953125, 1.428606765330187e-06), 64: (0.6931471803691238, 1.9082149292705877e-10)}

# (e**r - 1 - r) / r**2 on |r| <= ln2/2
_EXP = {
    32: (0.4999999403953552, 0.16666515171527863, 0.041668083518743515, 0.008369374088943005, 0.0013841392938047647),
    64: (
        0.5, 0.16666666666666688, 0.04166666666666682, 0.008333333333314003, 0.001388888888878731, 0.0001984126990286261,
        2.480158752638749e-05, 2.755722934111076e-06, 2.755710715236586e-07, 2.5113673561835145e-08, 2.096257905916823e-09,
    ),
}  # fmt: skip
_EXPM1 = {
    32: (0.5, 0.16666635870933533, 0.041666511446237564, 0.0083415936678648, 0.0013930406421422958, 0.0001494775788160041),
    64: (
        0.5, 0.16666666666666677, 0.041666666666666685, 0.008333333333321823, 0.0013888888888896383, 0.00019841269885246325,
        2.4801587268302444e-05, 2.755724522679881e-06, 2.75573418580084e-07, 2.510867742249505e-08, 2.088951808423827e-09,
    ),
}  # fmt: skip
_EXP_RANGE = {32: (-104.5, 89.5), 64: (-746.0, 711.0)}  # beyond: 0 and inf


def reduce_ln2(v: Lanes, x: Value) -> tuple[Value, Value, Value]:
    """(r, n as float, n as integer) with x = n*ln2 + r."""
    number, n = v.nearest(v.mul(x, LOG2_E))
    high, low = LN2[v.width]
    r = v.fma(number, -high, x)
    return v.fma(number, -low, r), number, n


def scale(v: Lanes, x: Value, number: Value, n: Value) -> Value:
    """x * 2**n for |n| up to twice the exponent range, n given in both forms. Only the last product rounds.

    One instruction on AVX-512, else two factors.
    """
    if v.has_scalef:
        name, mask = ("ps", "i16") if v.width == 32 else ("pd", "i8")
        arguments = (x, number, Value("zeroinitializer", v.type), Value("-1", mask), Value("4", "i32"))  # all lanes, current rounding
        return v.function.call(f"llvm.x86.avx512.mask.scalef.{name}.512", v.type, *arguments)
    half = v.integer_op("ashr", n, 1)
    rest = v.integer_op("sub", n, half)
    return v.mul(v.mul(x, v.power_of_two(half)), v.power_of_two(rest))


def exp(v: Lanes, x: Value, doublings: int = 0, low: Value | None = None) -> Value:
    """e**(x + low) * 2**doublings, without overflow in between. 1 ulp.

    `low`, for an exponent known better than `x` holds, is much smaller than 1 wherever the result is neither 0 nor infinite.
    """
    least, most = _EXP_RANGE[v.width]
    r, number, n = reduce_ln2(v, v.clamp(x, least, most - min(doublings, 0)))
    if low is not None:
        r = v.add(r, v.clamp(low, -1e-3, 1e-3))
    if doublings:
        number, n = v.add(number, float(doublings)), v.integer_op("add", n, doublings)
    q = v.polynomial(r, _EXP[v.width])
    return scale(v, v.add(v.fma(v.mul(r, r), q, r), 1.0), number, n)


def _expm1_parts(v: Lanes, x: Value) -> tuple[Value, Value]:
    """(p, n) with e**x = 2**n * (1 + p)."""
    r, _, n = reduce_ln2(v, x)
    return v.fma(v.mul(r, r), v.polynomial(r, _EXPM1[v.width]), r), n


def expm1(v: Lanes, x: Value) -> Value:
    """e**x - 1 = 2 * (2**(n-1) * p + (2**(n-1) - 1/2)). 2 ulp."""
    low, high = (-18.0, 89.0) if v.width == 32 else (-38.0, 710.0)
    p, n = _expm1_parts(v, v.clamp(x, low, high))
    half = v.power_of_two(v.integer_op("sub", n, 1))
    result = v.fma(half, p, v.sub(half, 0.5))
    tiny = v.compare("olt", v.abs(x), 2.0 ** -(v.mantissa_bits + 1))
    return v.select(tiny, x, v.mul(result, 2.0))


# sinh(x) / x - 1, divided by x*x, in powers of x*x on |x| <= 1
_SINH = {
    32: (0.1666666716337204, 0.008333311416208744, 0.00019842635083477944, 2.7839214453706518e-06),
    64: (
        0.16666666666666669, 0.008333333333332915, 0.0001984126984158925, 2.7557319108483573e-06, 2.5052130675651874e-08,
        1.6056687128132873e-10, 7.775689134734985e-13,
    ),
}  # fmt: skip


def _half_exp(v: Lanes, x: Value) -> tuple[Value, Value]:
    """(e**|x| / 2, e**-|x| / 2)."""
    half = exp(v, v.abs(x), doublings=-1)
    return half, v.div(0.25, half)


def sinh(v: Lanes, x: Value) -> Value:
    """(e**x - e**-x) / 2. 2 ulp."""
    z = v.mul(x, x)
    near = v.fma(v.mul(x, z), v.polynomial(z, _SINH[v.width]), x)
    up, down = _half_exp(v, x)
    return v.select(v.compare("olt", v.abs(x), 1.0), near, v.copysign(v.sub(up, down), x))


def cosh(v: Lanes, x: Value) -> Value:
    """(e**x + e**-x) / 2. 2 ulp."""
    return v.add(*_half_exp(v, x))


# (tanh(x) / x - 1) / x**2 in powers of x*x on |x| <= 0.55
_TANH = {
    32: (-0.33333316445350647, 0.13332541286945343, -0.05384696647524834, 0.02104734256863594, -0.006236860062927008),
    64: (
        -0.333333333333333, 0.13333333333326503, -0.0539682539636624, 0.021869488382401783, -0.008863232536126395, 0.0035920912940116565,
        -0.0014555376605088792, 0.0005884214796770479, -0.0002333190672489816, 8.322153334535397e-05, -1.9432972995517987e-05,
    ),
}  # fmt: skip


def tanh(v: Lanes, x: Value) -> Value:
    """1 - 2 / (e**(2|x|) + 1) with the sign of x, an odd polynomial near 0. 1.5 ulp."""
    if has_tables(v):
        return odd(v, x, TANH)
    size, z = v.upper_bound(v.abs(x), 10.0 if v.width == 32 else 20.0), v.mul(x, x)
    near = v.fma(v.mul(x, z), v.polynomial(z, _TANH[v.width]), x)
    r, number, n = reduce_ln2(v, v.add(size, size))
    power = v.add(v.fma(v.mul(r, r), v.polynomial(r, _EXP[v.width]), r), 1.0)
    scaled = scale(v, power, number, n) if v.has_scalef else v.mul(power, v.power_of_two(n))
    far = v.sub(1.0, v.div(2.0, v.add(scaled, 1.0)))
    return v.copysign(v.select(v.compare("olt", size, 0.55), near, far), x)
