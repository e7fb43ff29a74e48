"""Target: what a plan needs to know of a machine. Data only, so a plan can be made for any machine on any machine."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.errors import BackendError
from graphc.types.dtype import DType


@dataclass(frozen=True, slots=True)
class Target:
    """A machine level.

    `vector_bytes`: width of a vector register; `registers`: how many there are; caches in bytes per core (L3: all cores).
    `triple`, `cpu` and `features` are passed to LLVM as they are.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    has_fma: bool
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 16 << 20
    cores: int = 1

    def lanes(self, dtype: DType) -> int:
        """Elements of `dtype` in one vector register."""
        return self.vector_bytes // dtype.itemsize


@dataclass(frozen=True, slots=True)
class Limits:
    """What was measured on one machine (`graphc bench machine`); beside a Target, never part of it, so code and its cache do not depend
    on how a measurement went.

    Pairs are (one thread, all threads together). `fma_f32`, `fma_f64`: FLOP/s of independent multiply-adds. `l1`, `l2`, `l3`, `memory`:
    bytes read per second. `barrier`: seconds between two steps of one run; `fork_join`: seconds of a run that does nothing, called
    from Python.
    """

    fma_f32: tuple[float, float]
    fma_f64: tuple[float, float]
    l1: tuple[float, float]
    l2: tuple[float, float]
    l3: tuple[float, float]
    memory: tuple[float, float]
    barrier: tuple[float, float]
    fork_join: tuple[float, float]
    threads: int


_X86 = "x86_64-unknown-linux-gnu"
_AVX2 = "+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt,+lzcnt,+movbe"
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("avx512", _X86, "x86-64-v4", _AVX2 + ",+avx512f,+avx512dq,+avx512bw,+avx512vl,+avx512cd", 64, 32, True),
        Target("avx2", _X86, "x86-64-v3", _AVX2, 32, 16, True),
        Target("sse2", _X86, "x86-64", "+sse2", 16, 16, False),
        Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, True),
    )
}


def named(name: str) -> Target:
    """The Target of a level name (`graphc compile --target`); "host" is resolved by the CPU back end, not here."""
    if name not in TARGETS:
        raise BackendError(f"unknown target {name!r}", hint=f"one of host, {', '.join(TARGETS)}")
    return TARGETS[name]
