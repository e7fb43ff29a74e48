"""1 / sqrt(x) without the divider: the machine's estimate and one Newton step."""

from __future__ import annotations

from graphc_cpu.emit.ir import Value
from graphc_cpu.emit.lanes import Lanes


def has_rsqrt(v: Lanes) -> bool:
    """Whether the machine estimates 1 / sqrt(x) of these lanes to 14 bits: one AVX-512 register of float32."""
    return v.width == 32 and v.has_scalef


def rsqrt(v: Lanes, x: Value) -> Value:
    """1 / sqrt(x) to 1.5 ulp; inf at 0, 0 at inf, NaN below 0 and at NaN. Needs `has_rsqrt`.

    With the estimate r and e = 1 - x r^2, r (1 + e/2) is right to 3/8 e^2. Where e is NaN (0 * inf), the estimate is exact.
    """
    zero = Value("zeroinitializer", v.type)
    r = v.function.call("llvm.x86.avx512.rsqrt14.ps.512", v.type, x, zero, Value("-1", "i16"))
    e = v.fma(v.neg(v.mul(x, r)), r, 1.0)
    better = v.fma(v.mul(r, 0.5), e, r)
    return v.select(v.compare("ord", e, e), better, r)
