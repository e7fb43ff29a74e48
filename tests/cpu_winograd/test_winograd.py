"""Winograd kernels against the numpy model of the convolution: both forms, every level, edges of tiles, blocks and parts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import conv_spec
from cpu_winograd.winograd_cases import Array, check, conv_for, expected, fused, grid_of, operands_of, run_fused, run_steps, steps
from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel import expr as ex
from graphc.kernel.canonical import canonical, spec_text
from graphc.kernel.choose import ERROR_RATIO
from graphc.kernel.spec import KernelSpec, Operand
from graphc.kernel.winograd import transform_input, transform_kernel, transform_output
from graphc.target import named
from graphc.types.dtype import f32, f64
from graphc.types.layout import Layout
from graphc_cpu import elf, jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.winograd import emit_winograd
from graphc_cpu.kernels.winograd_pack import Numbers, pack_winograd_weight

LEVELS = ("avx512", "avx2", "sse2")
TOLERANCE = {2: 4e-6, 4: 1e-5}
CASES: dict[str, dict[str, Any]] = {
    "one whole tile of F(4, 3)": {"ic": 16, "oc": 16, "size": (4, 4)},
    "one pixel": {"ic": 5, "oc": 3, "size": (1, 1)},
    "tile - 1": {"ic": 8, "oc": 16, "size": (3, 7)},
    "tile + 1": {"ic": 16, "oc": 17, "size": (5, 9)},
    "odd channels, batch, halo of the output": {"ic": 19, "oc": 37, "size": (6, 7), "n": 2, "out_halo": ((1, 2), (0, 1))},
    "no padding": {"ic": 16, "oc": 32, "size": (10, 6), "pad": 0},
    "padding of 2": {"ic": 16, "oc": 16, "size": (6, 6), "pad": 2},
    "many channels": {"ic": 70, "oc": 81, "size": (8, 8)},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_both_forms(name: str, m: int, level: str) -> None:
    target = named(level)
    conv = conv_for(target, m=m, **CASES[name])
    operands = operands_of(conv)
    wanted = expected(conv, operands)
    one = run_fused(fused(conv, m, 5, 2), target, operands, (1, 2, 3))
    check(one, wanted, TOLERANCE[m])
    three = run_steps(steps(conv, m, 2), target, operands, (1, 2, 3))
    check(three, wanted, TOLERANCE[m])
    np.testing.assert_array_equal(one[0], three[0])


@pytest.mark.parametrize("m", [2, 4])
def test_size_of_pieces_changes_no_bit(m: int) -> None:
    """Tiles at a time: one below, at and above the whole grid and the register tile; blocks at a time: all widths."""
    target = named("avx512")
    conv = conv_for(target, 20, 100, (13, 14), m)
    operands, count = operands_of(conv), grid_of(conv, m).count
    first = run_fused(fused(conv, m, count, 1), target, operands, (1,))[0]
    check([first], expected(conv, operands), TOLERANCE[m])
    for tiles, chunk in ((count - 1, 2), (count + 1, 3), (1, 4), (13, 2), (14, 2), (15, 2)):
        np.testing.assert_array_equal(run_fused(fused(conv, m, tiles, chunk), target, operands, (2,))[0], first)
    for chunk in (1, 3, 4):
        np.testing.assert_array_equal(run_steps(steps(conv, m, chunk), target, operands, (2,))[0], first)


def test_transforms_in_float64() -> None:
    """One dimension in float64: m outputs of a 3-tap filter."""
    rng, numbers = np.random.default_rng(0), Numbers()
    for m in (2, 4):
        d, g = rng.standard_normal((m + 2, 50)), rng.standard_normal((3, 50))
        products: list[Array] = [
            a * b for a, b in zip(transform_input(m, list(d), numbers), transform_kernel(m, list(g), numbers), strict=True)
        ]
        found = np.stack(transform_output(m, products, numbers))
        wanted = np.stack([sum(d[i + k] * g[k] for k in range(3)) for i in range(m)])
        np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_residual_and_activation() -> None:
    """An epilogue that reads another map of the output's shape, and a bias per channel."""
    target = named("avx2")
    residual = Operand(f32, (2, 20, 7, 6), Layout(8, ((1, 1), (1, 1))))

    def value(acc: ex.Expr, index: tuple[ex.Expr, ...], extras: Any, _: Operand) -> ex.Expr:
        total = acc + ex.load(2, extras[0].physical_offset(index), f32)
        return ex.call("tanh", total * 0.1 + ex.load(3, index[1] * 8 + index[-1], f32))

    halo = ((1, 3), (1, 4))
    conv = conv_spec(target, 9, 20, (7, 6), (3, 3), n=2, halo=halo, epilogue=value, extras=(residual, Operand(f32, (20,))))
    operands = operands_of(conv)
    for m in (2, 4):
        check(run_fused(fused(conv, m, 3, 2), target, operands, (1, 2)), expected(conv, operands), 2e-5)
        check(run_steps(steps(conv, m, 1), target, operands, (1, 2)), expected(conv, operands), 2e-5)


@pytest.mark.parametrize("m", [2, 4])
def test_error_of_one_layer(m: int) -> None:
    """The rule behind `choose.ERROR_RATIO`: rms error against float64 in units of what a plain float32 sum makes."""
    target = named("avx512")
    conv = conv_for(target, 128, 32, (16, 16), m)
    operands = operands_of(conv)
    x = np.moveaxis(operands[0].reshape(conv.x.physical_shape), -1, 2).reshape(128, *conv.x.physical_shape[2:4])
    w = operands[1].reshape(conv.weight_shape)
    operands[2][...] = 0
    exact, naive = np.zeros((32, 16, 16)), np.zeros((32, 16, 16), np.float32)
    for c, r, s in np.ndindex(128, 3, 3):
        window, tap = x[c, r : r + 16, s : s + 16], w[:, c, r, s, None, None]
        exact += tap.astype(np.float64) * window
        naive += tap * window
    out = run_fused(fused(conv, m, 16, 2), target, operands, (1,))[0][:-32].reshape(conv.output.physical_shape)
    found = np.moveaxis(out, -1, 2).reshape(32, 16, 16)
    free = exact > 0.6  # the epilogue clamps at 0.5
    assert free.mean() > 0.4
    ratio = np.sqrt(np.mean((found - exact)[free] ** 2) / np.mean((naive - exact)[free] ** 2))
    assert ratio < ERROR_RATIO[f"winograd{m}"], ratio


def test_weights_of_both_forms() -> None:
    target = named("avx512")
    conv = conv_for(target, 6, 70, (8, 8), 4)
    w = np.random.default_rng(1).standard_normal(conv.weight_shape).astype(np.float32)
    one, three = fused(conv, 4, 4, 2), steps(conv, 4, 2)[1]
    a, b = pack_winograd_weight(one, w), pack_winograd_weight(three, w)
    assert a.dtype == b.dtype == np.float32
    by_chunk = [part.reshape(36, 6, -1, 16) for part in np.split(a, [36 * 6 * 32, 36 * 6 * 64])]
    np.testing.assert_array_equal(np.concatenate([part.reshape(36, -1) for part in by_chunk], 1), b.reshape(36, -1))
    np.testing.assert_array_equal(by_chunk[1][35, 5, 1, 3], w[51, 5, 2, 2])  # the last position is g itself
    assert not by_chunk[2][:, :, 0, 6:].any()


def test_what_is_refused() -> None:
    target = named("avx512")
    conv = conv_for(target, 16, 16, (14, 14), 2)
    with pytest.raises(ShapeError, match="halo"):
        emit_winograd(fused(conv, 4, 8, 2), target, "k")
    with pytest.raises(UnsupportedError, match="lanes"):
        emit_winograd(fused(conv, 2, 8, 2), named("avx2"), "k")
    with pytest.raises(UnsupportedError, match="f64"):
        emit_winograd(fused(conv_for(target, 16, 16, (8, 8), 2, dtype=f64), 2, 8, 2), target, "k")
    with pytest.raises(UnsupportedError, match="stride"):
        emit_winograd(fused(replace(conv, stride=(2, 2)), 2, 8, 2), target, "k")


def test_texts_tell_kernels_apart() -> None:
    target = named("avx512")
    conv = conv_for(target, 16, 16, (14, 14), 4)
    specs: list[KernelSpec] = [fused(conv, 4, 8, 2), fused(conv, 4, 9, 2), fused(conv, 4, 8, 1), fused(conv, 2, 8, 2), conv]
    specs += [*steps(conv, 4, 2), *steps(conv, 4, 1)[1:2], *steps(conv, 2, 2)]
    texts = [spec_text(canonical(spec)) for spec in specs]
    assert len(set(texts)) == len(specs)


@pytest.mark.parametrize("level", ["avx512", "avx2", "sse2", "neon"])
def test_hot_loops_have_no_spills(level: str) -> None:
    """The products' inner loop touches no stack, on every target; both forms emit it by the same lines."""
    target = named(level)
    text = module(target.triple, [emit_winograd(steps(conv_for(target, 64, 64, (28, 28), 4), 4, 2)[1], target, "k")])
    blocks = re.split(r"^[.\w]+:.*$|^\s*(?:j\w+|b(?:\.\w+)?|cbn?z)\s.*$", jit.assembly(text, target), flags=re.MULTILINE)
    hot = [block for block in blocks if len(re.findall(r"fmadd\w*ps|mulps|fmla", block)) >= 20]
    assert hot, "no hot block found"
    for block in hot:
        assert "(%rsp" not in block, block
        assert "[sp" not in block, block


@pytest.mark.parametrize("level", ["avx512", "avx2", "sse2", "neon"])
def test_kernels_call_nothing(level: str) -> None:
    target = named(level)
    conv = conv_for(target, 20, 20, (9, 9), 4)
    for spec in (fused(conv, 4, 6, 2), *steps(conv, 4, 2)):
        text = module(target.triple, [emit_winograd(spec, target, "k")])
        (image,) = jit.compile_objects([("k", lambda text=text: text)], target).values()  # type: ignore[misc]
        assert not elf.symbols(image).undefined


def test_few_functions_per_network_shape() -> None:
    """Transforms do not depend on the other channel count, so layers share them."""
    target = named("avx512")
    first, second = (steps(conv_for(target, 32, oc, (8, 8), 4), 4, 2) for oc in (32, 64))
    assert spec_text(first[0]) == spec_text(second[0])
    assert spec_text(first[1]) != spec_text(second[1])
