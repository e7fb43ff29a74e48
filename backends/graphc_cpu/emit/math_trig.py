"""sin, cos and tan over lanes: x = n*pi/2 + r with |r| <= pi/4, then polynomials in r by quadrant n mod 4.

Up to |x| = 2**20 the reduction subtracts n times pi/2 in parts whose products with n are exact (Cody and Waite). Beyond, which is
rare, a scalar function multiplies with the bits of 2/pi that matter (Payne and Hanek). So every finite argument is right.
32-bit lanes are computed in 64 bits with shorter polynomials. Coefficients are minimax fits of our own.
"""

from __future__ import annotations

from functools import lru_cache

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes

LIMIT = 2.0**20
# pi/2 in parts: three of 33 bits, and the rest
_PI_2 = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
# by width of the result, in powers of r*r: (sin(r) / r - 1) / r**2 and (cos(r) - 1 + r*r/2) / r**4
_SIN = {
    32: (-0.1666665487505291, 0.008332173637701477, -0.00019516666949415497),
    64: (
        -0.16666666666666632, 0.008333333333322457, -0.0001984126982981431, 2.755731368753707e-06, -2.5050756648216354e-08,
        1.5896674605091004e-10,
    ),
}  # fmt: skip
_COS = {
    32: (0.041666646762753265, -0.001388736221126832, 2.4437820071673756e-05),
    64: (
        0.0416666666666666, -0.0013888888888874446, 2.4801587289640183e-05, -2.755731438873085e-07, 2.087572723756869e-09,
        -1.1359811774699042e-11,
    ),
}  # fmt: skip


def sin(v: Lanes, x: Value) -> Value:
    """NaN at infinity. 1 ulp (2 ulp in 64 bits beyond 2**20)."""
    return _keep_zero(v, x, _by_quadrant(v, x, 0))


def cos(v: Lanes, x: Value) -> Value:
    """As sin."""
    return _by_quadrant(v, x, 1)


def tan(v: Lanes, x: Value) -> Value:
    """sin / cos. 2 ulp (4 ulp in 64 bits beyond 2**20)."""
    sine, cosine, n, w = _sine_cosine(v, x)
    odd = w.integer_compare("ne", w.integer_op("and", n, 1), 0)
    quotient = w.div(w.select(odd, w.neg(cosine), sine), w.select(odd, sine, cosine))
    return _keep_zero(v, x, v.narrow(quotient))


def _keep_zero(v: Lanes, x: Value, result: Value) -> Value:
    """x itself where it is 0, for the sign of zero."""
    return v.select(v.compare("oeq", x, 0.0), x, result)


def _by_quadrant(v: Lanes, x: Value, offset: int) -> Value:
    """sin(x + offset * pi/2)."""
    sine, cosine, n, w = _sine_cosine(v, x)
    quadrant = w.integer_op("add", n, offset) if offset else n
    odd = w.integer_compare("ne", w.integer_op("and", quadrant, 1), 0)
    sign = w.integer_op("shl", w.integer_op("and", quadrant, 2), 62)
    chosen = w.bits(w.select(odd, cosine, sine))
    return v.narrow(w.from_bits(w.integer_op("xor", chosen, sign)))


def _sine_cosine(v: Lanes, x: Value) -> tuple[Value, Value, Value, Lanes]:
    """(sin r, cos r, n, the 64-bit lanes that they are in)."""
    w, x = v.wide(), v.widen(x)
    r, low, n = _reduce(w, x, short=v.width == 32)
    z = w.mul(r, r)
    sine = w.fma(w.mul(r, z), w.polynomial(z, _SIN[v.width]), low)
    half = w.mul(z, 0.5)
    head = w.sub(1.0, half)
    tail = w.sub(w.sub(1.0, head), half)
    cosine = w.fma(w.mul(z, z), w.polynomial(z, _COS[v.width]), w.sub(tail, w.mul(r, low)))
    return w.add(r, sine), w.add(head, cosine), n, w


def _reduce(w: Lanes, x: Value, short: bool) -> tuple[Value, Value, Value]:
    """(r, its low part, n). `short`: as much as a float32 result needs."""
    number, n = w.nearest(w.mul(x, 0.6366197723675814))
    first, second, third, fourth = _PI_2
    rest = w.fma(number, -first, x)
    if short:
        r, low = w.fma(number, -second, rest), w.const(0.0)
    else:
        r, low = _subtract(w, rest, w.mul(number, second))
        r, more = _subtract(w, r, w.mul(number, third))
        low = w.sub(w.add(low, more), w.mul(number, fourth))
        r, low = _add_fast(w, r, low)
    size = w.abs(x)
    far = w.both(w.compare("ogt", size, LIMIT), w.compare("olt", size, float("inf")))

    def slow() -> tuple[Value, Value, Value]:
        for text in ("declare i64 @llvm.fshl.i64(i64, i64, i64)", "declare i128 @llvm.ctlz.i128(i128, i1)", _payne_hanek()):
            w.function.declare(text)
        packed = w.bits(x)
        turns = w.each_lane("graphc.quadrant", "i64", packed)
        angle = w.each_lane("graphc.angle", "double", packed)
        return w.select(far, angle, r), w.select(far, 0.0, low), w.integer_select(far, turns, n)

    r, low, n = w.rarely(far, (r, low, n), slow)
    return r, low, n


def _subtract(w: Lanes, a: Value, b: Value) -> tuple[Value, Value]:
    """a - b and its rounding error (Knuth's two-sum)."""
    difference = w.sub(a, b)
    taken = w.sub(a, difference)
    return difference, w.add(w.sub(a, w.add(difference, taken)), w.sub(taken, b))


def _add_fast(w: Lanes, a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, for |a| >= |b|."""
    total = w.add(a, b)
    return total, w.sub(b, w.sub(total, a))


@lru_cache(maxsize=1)
def _payne_hanek() -> str:
    """Module text: the turns and the angle of x = m * 2**e, |x| >= 2**20, from 192 bits of 2/pi.

    m * 2/pi * 2**e mod 4 as a 128-bit fixed-point number: the top two bits count quarter turns, the rest, rounded to nearest, is the
    angle in quarter turns. Bits of 2/pi worth a multiple of 4 are left out, bits below the 192 change the angle by 2**-70 or less.
    """
    words = _two_over_pi_words(21)
    table = ", ".join(f"i64 {word}" for word in words)
    return f"""
@graphc.two_over_pi = private unnamed_addr constant [{len(words)} x i64] [{table}]

define internal i128 @graphc.turn(i64 %bits) nounwind {{
  %biased = lshr i64 %bits, 52
  %exponent = and i64 %biased, 2047
  %stored = and i64 %bits, {(1 << 52) - 1}
  %m = or i64 %stored, {1 << 52}
  %position = sub i64 %exponent, {1075 + 2 - 64}
  %low = icmp slt i64 %position, 0
  %nonnegative = select i1 %low, i64 0, i64 %position
  %high = icmp ugt i64 %nonnegative, {2046 - (1075 + 2 - 64)}
  %start = select i1 %high, i64 0, i64 %nonnegative
  %word = lshr i64 %start, 6
  %shift = and i64 %start, 63
  %p0 = getelementptr i64, ptr @graphc.two_over_pi, i64 %word
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %p3 = getelementptr i64, ptr %p0, i64 3
  %t0 = load i64, ptr %p0
  %t1 = load i64, ptr %p1
  %t2 = load i64, ptr %p2
  %t3 = load i64, ptr %p3
  %w0 = call i64 @llvm.fshl.i64(i64 %t0, i64 %t1, i64 %shift)
  %w1 = call i64 @llvm.fshl.i64(i64 %t1, i64 %t2, i64 %shift)
  %w2 = call i64 @llvm.fshl.i64(i64 %t2, i64 %t3, i64 %shift)
  %m128 = zext i64 %m to i128
  %top = mul i64 %m, %w0
  %top128 = zext i64 %top to i128
  %first = shl i128 %top128, 64
  %w1x = zext i64 %w1 to i128
  %second = mul i128 %m128, %w1x
  %w2x = zext i64 %w2 to i128
  %product = mul i128 %m128, %w2x
  %third = lshr i128 %product, 64
  %sum = add i128 %first, %second
  %all = add i128 %sum, %third
  ret i128 %all
}}

define internal i64 @graphc.quadrant(i64 %bits) nounwind {{
  %turn = call i128 @graphc.turn(i64 %bits)
  %shifted = lshr i128 %turn, 125
  %eighths = trunc i128 %shifted to i64
  %rounded = add i64 %eighths, 1
  %quadrant = lshr i64 %rounded, 1
  %negated = sub i64 0, %quadrant
  %negative = icmp slt i64 %bits, 0
  %signed = select i1 %negative, i64 %negated, i64 %quadrant
  ret i64 %signed
}}

define internal double @graphc.angle(i64 %bits) nounwind {{
  %turn = call i128 @graphc.turn(i64 %bits)
  %fraction = shl i128 %turn, 2
  %mirrored = sub i128 0, %fraction
  %below = icmp slt i128 %fraction, 0
  %size = select i1 %below, i128 %mirrored, i128 %fraction
  %zeros = call i128 @llvm.ctlz.i128(i128 %size, i1 false)
  %amount = and i128 %zeros, 127
  %normal = shl i128 %size, %amount
  %head128 = lshr i128 %normal, 64
  %head = trunc i128 %head128 to i64
  %mantissa = uitofp i64 %head to double
  %zeros64 = trunc i128 %zeros to i64
  %scale = sub i64 {1023 - 64}, %zeros64
  %scalebits = shl i64 %scale, 52
  %factor = bitcast i64 %scalebits to double
  %quarters = fmul double %mantissa, %factor
  %angle = fmul double %quarters, 0x3FF921FB54442D18
  %upward = icmp sge i64 %bits, 0
  %same = xor i1 %upward, %below
  %opposite = fneg double %angle
  %signed = select i1 %same, double %angle, double %opposite
  ret double %signed
}}
"""


def _two_over_pi_words(count: int) -> list[int]:
    """A zero word, then the bits of 2/pi after the point in words of 64; pi by Machin's formula 16 atan(1/5) - 4 atan(1/239)."""
    precision = 64 * (count + 1)

    def arctangent(inverse: int) -> int:
        power, total, k = (1 << precision) // inverse, 0, 0
        while power:
            total += (power if k % 2 == 0 else -power) // (2 * k + 1)
            power //= inverse * inverse
            k += 1
        return total

    pi = 16 * arctangent(5) - 4 * arctangent(239)
    bits = (2 << (2 * precision)) // pi >> 64 * 2
    return [0, *(bits >> 64 * i & (1 << 64) - 1 for i in reversed(range(count - 1)))]
