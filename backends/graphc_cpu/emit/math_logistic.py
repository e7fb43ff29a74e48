"""a / (1 + e**u), which is the logistic function (a = 1, u = -x) and SiLU (a = x), recognised in expressions.

On AVX-512 the sum is computed without the general exp, its range checks and half of its polynomial: e**u = 2**n * e**r with n a multiple
of 1/16, whose fraction is looked up, and |r| <= ln2/32. Division stays the machine's: beside it the estimate with a Newton step needs
more of the port for multiply-adds, and is not the same on all machines.
"""

from __future__ import annotations

from graphc.kernel.expr import Expr
from graphc.types.dtype import f32
from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_exp import LOG2_E, scale
from graphc_cpu.emit.math_table import by_sixteen, has_tables, lookup

_LN2 = 0.6931471805599453
_POWERS = tuple(2.0 ** (i / 16) for i in range(16))
_EXP = (0.5000166, 0.16667016)  # (e**r - 1 - r) / r**2 on |r| <= ln2/32
_RANGE = (-60.0, 100.0)  # beyond, the sum is 1 and inf

has_logistic = has_tables


def logistic_parts(node: Expr) -> tuple[Expr, Expr] | None:
    """(a, u) where the node is a / (1 + exp(u)) or a * (1 / (1 + exp(u))) in float32, else None."""
    if node.dtype != f32 or node.fn not in ("div", "mul"):
        return None
    a, b = node.args
    if node.fn == "div":
        exponent = _exponent(b)
        return None if exponent is None else (a, exponent)
    for factor, other in ((a, b), (b, a)):
        if other.fn == "div" and _is_one(other.args[0]) and (exponent := _exponent(other.args[1])) is not None:
            return factor, exponent
    return None


def _exponent(node: Expr) -> Expr | None:
    """u of 1 + exp(u)."""
    if node.fn != "add":
        return None
    a, b = node.args
    power = b if _is_one(a) else a if _is_one(b) else None
    return power.args[0] if power is not None and power.fn == "exp" else None


def _is_one(node: Expr) -> bool:
    return node.is_const and node.attr == 1.0


def logistic(v: Lanes, a: Value, u: Value) -> Value:
    """a / (1 + e**u). For a = 1: 4 ulp for u <= 20, 6 ulp up to where the result leaves the normal numbers. Needs `has_logistic`."""
    return v.div(a, by_sixteen(v, u, _one_plus_exp))


def _one_plus_exp(v: Lanes, u: Value) -> Value:
    bounded, magic = v.clamp(u, *_RANGE), 1.5 * 2.0 ** (v.mantissa_bits - 4)
    shifted = v.fma(bounded, LOG2_E, magic)
    n = v.sub(shifted, magic)
    r = v.fma(n, -_LN2, bounded)
    fraction = lookup(v, _POWERS, v.bits(shifted))
    series = v.fma(v.mul(r, r), v.polynomial(r, _EXP), r)
    return v.add(scale(v, v.fma(fraction, series, fraction), n, n), 1.0)
