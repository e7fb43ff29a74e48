"""Weights packed by a generated kernel lie exactly where numpy's packing puts them, on every machine level that runs here."""

from __future__ import annotations

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, compile_one, conv_spec
from cpu_conv.test_conv import CASES
from graphc.kernel import expr as ex
from graphc.kernel.canonical import canonical, spec_text
from graphc.kernel.spec import Operand, PackSpec
from graphc.target import named
from graphc_cpu.backend import emit_kernel
from graphc_cpu.kernels.pack import pack_conv_weight


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
