"""asin, acos and atan over lanes. Coefficients are minimax fits of our own."""

from __future__ import annotations

import math

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes

# (asin(x) / x - 1) / x**2 in powers of x*x on |x| <= 1/2
_ASIN = {
    32: (0.16666659712791443, 0.07500521093606949, 0.04451363533735275, 0.03183605894446373, 0.014329171739518642, 0.03767315670847893),
    64: (
        0.16666666666666763, 0.07499999999970129, 0.044642857175254624, 0.03038194267688513, 0.022372215858130318, 0.01735159640103437,
        0.013981007252506155, 0.011397389090097604, 0.010788763113562345, 0.0036743637347029234, 0.021785181628618245,
        -0.021108760798870252, 0.032697049794297585,
    ),
}  # fmt: skip
# (atan(x) / x - 1) / x**2 in powers of x*x on |x| <= tan(pi/8)
_ATAN = {
    32: (-0.33333316445350647, 0.1999853104352951, -0.14244472980499268, 0.10599859058856964, -0.06091902032494545),
    64: (
        -0.333333333333332, 0.19999999999953819, -0.14285714280220552, 0.11111110784678684, -0.09090897792935669, 0.07692060838465359,
        -0.06663111053939905, 0.058479393735466324, -0.05039525389182746, 0.038070030914557705, -0.017913044359431658,
    ),
}  # fmt: skip
_PI_2_LOW = {32: -4.371139000186241e-08, 64: 6.123233995736766e-17}  # pi/2 less its nearest float32, float64


def _odd(v: Lanes, x: Value, z: Value, coefficients: tuple[float, ...]) -> Value:
    """x + x * z * P(z)."""
    return v.fma(v.mul(x, z), v.polynomial(z, coefficients), x)


def _asin_of(v: Lanes, size: Value) -> tuple[Value, Value, Value]:
    """(whether size > 1/2, t, asin(t)) with t = size, or beyond 1/2 t = sqrt((1 - size) / 2): there asin(size) = pi/2 - 2 asin(t)."""
    large = v.compare("ogt", size, 0.5)
    square = v.select(large, v.mul(v.sub(1.0, size), 0.5), v.mul(size, size))
    t = v.select(large, v.sqrt(square), size)
    return large, t, _odd(v, t, square, _ASIN[v.width])


def asin(v: Lanes, x: Value) -> Value:
    """NaN outside [-1, 1]. 2.4 ulp."""
    large, _, arc = _asin_of(v, v.abs(x))
    far = v.sub(math.pi / 2, v.sub(v.add(arc, arc), _PI_2_LOW[v.width]))
    return v.copysign(v.select(large, far, arc), x)


def acos(v: Lanes, x: Value) -> Value:
    """NaN outside [-1, 1]. 2 ulp."""
    large, _, arc = _asin_of(v, v.abs(x))
    signed = v.copysign(arc, x)
    near = v.sub(math.pi / 2, v.sub(signed, _PI_2_LOW[v.width]))
    twice = v.add(arc, arc)
    backward = v.sub(math.pi, v.sub(twice, 2 * _PI_2_LOW[v.width]))
    return v.select(large, v.select(v.compare("olt", x, 0.0), backward, twice), near)


def atan(v: Lanes, x: Value) -> Value:
    """By atan(x) = pi/4 + atan((x - 1) / (x + 1)) and pi/2 + atan(-1 / x), one division. 2 ulp."""
    size = v.abs(x)
    middle = v.compare("ogt", size, math.tan(math.pi / 8))
    far = v.compare("ogt", size, math.tan(3 * math.pi / 8))
    top = v.select(far, -1.0, v.select(middle, v.sub(size, 1.0), size))
    bottom = v.select(far, size, v.select(middle, v.add(size, 1.0), 1.0))
    t = v.div(top, bottom)
    base = v.select(far, math.pi / 2, v.select(middle, math.pi / 4, 0.0))
    low = _PI_2_LOW[v.width]
    rest = v.select(far, low, v.select(middle, low / 2, 0.0))
    z = v.mul(t, t)
    small = v.fma(v.mul(t, z), v.polynomial(z, _ATAN[v.width]), rest)
    return v.copysign(v.add(base, v.add(t, small)), x)
