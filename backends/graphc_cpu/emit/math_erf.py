"""erf over lanes: an odd polynomial near 0, one minus the complement further out. Coefficients are minimax fits of our own."""

from __future__ import annotations

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_exp import exp
from graphc_cpu.emit.math_table import has_tables, odd
from graphc_cpu.emit.math_table_data import ERF

# erf(x) / x - 1 in powers of x*x: |x| <= 0.9 (32 bits), |x| <= 1 (64 bits)
_SMALL = {
    32: (
        0.1283791065216064, -0.37612223625183105, 0.11279123276472092, -0.026672981679439545, 0.004860653076320887,
        -0.0005335587775334716,
    ),
    64: (
        0.1283791670955126, -0.3761263890318332, 0.11283791670934931, -0.026866170641418757, 0.005223977590083035, -0.0008548325031341253,
        0.00012055261650284517, -1.4923964132875103e-05, 1.643542340786924e-06, -1.6085186970735218e-07, 1.2915690472954597e-08,
        -4.777814121432395e-10, -4.959406475587015e-11,
    ),
}  # fmt: skip
_BORDER = {32: 0.89, 64: 1.0}
# log(erfc(x)) in powers of x on [0.88, 3.95]; erf is 1 in float32 from 3.92 on
_LOG_ERFC = (
    -0.0001398366439389065, -1.127909541130066, -0.6367833614349365, -0.10428596287965775, 0.022399699315428734, -0.0030870267655700445,
    0.00020044806296937168,
)  # fmt: skip
# e**(x*x) * erfc(x) in powers of 1 / (1 + x/4) on [1, 6]; erf is 1 in float64 from 5.93 on
_ERFCX = (
    -0.0004008303760315515, 0.14716904056039093, 0.10005073003952221, 0.29156387629799563, -0.21747396902856875, 0.49787532979323273,
    0.2369657901791923, -1.1479527940220382, 2.162866158601743, -1.8865990892146163, 1.012883805651969, -0.19694809786827677,
)  # fmt: skip


def erf(v: Lanes, x: Value) -> Value:
    """The error function, 2/sqrt(pi) * integral of e**(-t*t) from 0 to x. 2 ulp."""
    if has_tables(v):
        return odd(v, x, ERF)
    size = v.upper_bound(v.abs(x), 3.95 if v.width == 32 else 6.0)
    near = v.fma(x, v.polynomial(v.mul(x, x), _SMALL[v.width]), x)
    if v.width == 32:
        complement = exp(v, v.polynomial(size, _LOG_ERFC))
    else:
        t = v.div(1.0, v.fma(size, 0.25, 1.0))
        complement = v.mul(exp(v, v.neg(v.mul(size, size))), v.polynomial(t, _ERFCX))
    far = v.copysign(v.sub(1.0, complement), x)
    return v.select(v.compare("olt", size, _BORDER[v.width]), near, far)
