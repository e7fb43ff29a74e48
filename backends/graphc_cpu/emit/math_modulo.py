"""Remainders of floats over lanes, exact, lane by lane in integer arithmetic (a rare operation)."""

from __future__ import annotations

import math

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes

# x = m * 2**e, y = d * 2**g: m is shifted left 11 bits at a time and reduced modulo d until the exponents are equal. Arguments are
# magnitudes; NaN, inf and 0 are treated by the caller, who must get some value without a trap for them.
_FMOD = """
define internal double @graphc.fmod(double %x, double %y) nounwind {
  %xb = bitcast double %x to i64
  %yb = bitcast double %y to i64
  %xe0 = lshr i64 %xb, 52
  %ye0 = lshr i64 %yb, 52
  %xf = and i64 %xb, 4503599627370495
  %yf = and i64 %yb, 4503599627370495
  %xden = icmp eq i64 %xe0, 0
  %yden = icmp eq i64 %ye0, 0
  %xn = or i64 %xf, 4503599627370496
  %yn = or i64 %yf, 4503599627370496
  %m0 = select i1 %xden, i64 %xf, i64 %xn
  %d0 = select i1 %yden, i64 %yf, i64 %yn
  %e0 = select i1 %xden, i64 1, i64 %xe0
  %g0 = select i1 %yden, i64 1, i64 %ye0
  %dzero = icmp eq i64 %d0, 0
  %d = select i1 %dzero, i64 1, i64 %d0
  %smaller = icmp slt i64 %xb, %yb
  br i1 %smaller, label %same, label %start
same:
  ret double %x
start:
  %gap0 = sub i64 %e0, %g0
  %r0 = urem i64 %m0, %d
  %more0 = icmp sgt i64 %gap0, 0
  br i1 %more0, label %step, label %done
step:
  %gap = phi i64 [ %gap0, %start ], [ %gapn, %step ]
  %r = phi i64 [ %r0, %start ], [ %rn, %step ]
  %short = icmp slt i64 %gap, 11
  %shift = select i1 %short, i64 %gap, i64 11
  %moved = shl i64 %r, %shift
  %rn = urem i64 %moved, %d
  %gapn = sub i64 %gap, %shift
  %more = icmp sgt i64 %gapn, 0
  br i1 %more, label %step, label %done
done:
  %last = phi i64 [ %r0, %start ], [ %rn, %step ]
  %zero = icmp eq i64 %last, 0
  br i1 %zero, label %nothing, label %pack
nothing:
  ret double 0.0
pack:
  %lz = call i64 @llvm.ctlz.i64(i64 %last, i1 true)
  %up = sub i64 %lz, 11
  %room = sub i64 %g0, 1
  %fits = icmp sle i64 %up, %room
  %by = select i1 %fits, i64 %up, i64 %room
  %mant = shl i64 %last, %by
  %exp = sub i64 %room, %by
  %field = shl i64 %exp, 52
  %bits = add i64 %field, %mant
  %out = bitcast i64 %bits to double
  ret double %out
}
"""


def fmod(v: Lanes, x: Value, y: Value) -> Value:
    """x - trunc(x / y) * y, exactly, with the sign of x (C's fmod); NaN for y = 0 and for infinite x."""
    w = v.wide()
    v.function.declare("declare i64 @llvm.ctlz.i64(i64, i1)")
    v.function.declare(_FMOD)
    size, divisor = w.abs(v.widen(x)), w.abs(v.widen(y))
    exact = v.copysign(v.narrow(w.each_lane("graphc.fmod", "double", size, divisor)), x)
    broken = v.either(v.compare("ueq", v.abs(x), math.inf), v.compare("ueq", y, 0.0))
    result = v.select(broken, math.nan, exact)
    return v.select(v.compare("oeq", v.abs(y), math.inf), v.select(broken, math.nan, x), result)


def _crosses(v: Lanes, remainder: Value, y: Value) -> Value:
    """Whether truncation and floor of the quotient differ: a remainder, of the other sign than y."""
    opposite = v.integer_compare("slt", v.integer_op("xor", v.bits(remainder), v.bits(y)), 0)
    return v.both(opposite, v.compare("one", remainder, 0.0))


def mod(v: Lanes, x: Value, y: Value) -> Value:
    """The remainder with the sign of y (Python's %); NaN for y = 0 and for infinite x."""
    remainder = fmod(v, x, y)
    moved = v.select(_crosses(v, remainder, y), v.add(remainder, y), remainder)
    return v.select(v.compare("oeq", remainder, 0.0), v.copysign(0.0, y), moved)


def floordiv(v: Lanes, x: Value, y: Value) -> Value:
    """The quotient rounded down (Python's //, as the integer nearest to (x - x mod y) / y); x / y for y = 0."""
    remainder = fmod(v, x, y)
    whole = v.div(v.sub(x, remainder), y)
    quotient = v.round_even(v.select(_crosses(v, remainder, y), v.sub(whole, 1.0), whole))
    return v.select(v.compare("oeq", y, 0.0), v.div(x, y), quotient)
