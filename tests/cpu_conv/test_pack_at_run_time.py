"""Weights packed by a generated kernel lie exactly where numpy's packing puts them, on every machine level that runs here."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, compile_one, conv_spec
from cpu_conv.test_conv import CASES
from cpu_winograd.winograd_cases import conv_for, fused, steps
from graphc.kernel import expr as ex
from graphc.kernel.canonical import canonical, spec_text
from graphc.kernel.spec import ConvSpec, Operand, PackSpec
from graphc.target import named
from graphc_cpu.kernel_code import emit_kernel
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.kernels.winograd_pack import pack_winograd_weight


def _pack_spec(level: str, name: str) -> PackSpec:
    target = named(level)
    conv = conv_spec(target, **CASES[name])
    index = tuple(ex.index(f"w{d}", size) for d, size in enumerate(conv.weight_shape))
    weight = Operand(conv.x.dtype, conv.weight_shape)
    value = ex.load(0, weight.offset(index), conv.x.dtype)
    return canonical(PackSpec(conv, (weight,), index, value, target.lanes(conv.x.dtype)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", list(CASES))
def test_packing(name: str, level: str) -> None:
    spec, target = _pack_spec(level, name), named(level)
    assert isinstance(spec.conv, ConvSpec)
    weight = np.random.default_rng(3).standard_normal(spec.conv.weight_shape).astype(spec.conv.x.dtype.numpy)
    expected = pack_conv_weight(spec.conv, target, weight)
    assert expected.size <= spec.packed.elements
    library = compile_one(emit_kernel(spec, target, "kernel"), target)
    for threads in (1, 3):
        result = np.full(spec.packed.elements, 77, weight.dtype)
        library.call("kernel", [weight, result], threads)
        np.testing.assert_array_equal(result[: expected.size], expected)




def test_text_tells_orders_apart() -> None:
    one, other = _pack_spec("avx512", "3x3"), _pack_spec("avx512", "odd channels")
    assert spec_text(one) != spec_text(other)
    assert spec_text(one) == spec_text(canonical(one))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", ["fused", "steps"])
@pytest.mark.parametrize(("m", "channels", "chunk"), [(2, (20, 37), 2), (2, (5, 64), 1), (4, (17, 50), 3)])
def test_winograd_packing(m: int, channels: tuple[int, int], chunk: int, form: str, level: str) -> None:
    """The same transform, in float32 instead of float64: equal up to rounding, zeros in the same places."""
    target = named(level)
    conv = conv_for(target, *channels, (9, 10), m)
    made = fused(conv, m, 7, chunk) if form == "fused" else steps(conv, m, chunk)[1]
    index = tuple(ex.index(f"w{d}", size) for d, size in enumerate(conv.weight_shape))
    weight = Operand(conv.x.dtype, conv.weight_shape)
    spec = canonical(PackSpec(made, (weight,), index, ex.load(0, weight.offset(index), conv.x.dtype), target.lanes(conv.x.dtype)))
    values = np.random.default_rng(3).standard_normal(conv.weight_shape).astype(np.float32)
    expected = pack_winograd_weight(made, values)
    assert expected.size == spec.packed.elements
    library = compile_one(emit_kernel(spec, target, "kernel"), target)
    results = [np.full(expected.size, 77, np.float32) for _ in range(2)]
    for threads, result in zip((1, 3), results, strict=True):
        library.call("kernel", [values, result], threads)
    np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(results[0], results[1])
    assert not results[0][expected == 0].any()
