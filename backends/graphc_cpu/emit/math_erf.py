"""erf over lanes."""

from __future__ import annotations

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes

# erf(x) / x = P(x*x) / Q(x*x) on |x| <= 3.925, from where erf is 1 in float32; all coefficients positive, so nothing cancels
_P32 = (1.1283791459465284, 0.19057864888293524, 0.05276731899745084, 0.0037719148572196103, 0.0002848313099125758, 2.0461640012897485e-06)
_Q32 = (1.0, 0.5022286630529204, 0.11417649602768, 0.014981914545214301, 0.0011637082393586569, 3.804856775015042e-05)


def erf(v: Lanes, x: Value) -> Value:
    """The error function 2/sqrt(pi) * integral of e**(-t*t) from 0 to x. 3 ulp."""
    bounded = v.clamp(x, -3.925, 3.925)
    z = v.mul(bounded, bounded)
    return v.div(v.mul(bounded, v.polynomial(z, _P32)), v.polynomial(z, _Q32))
