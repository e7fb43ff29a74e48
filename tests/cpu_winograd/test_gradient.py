"""Weight gradients in Winograd's domain against the definition: every level, edges of tiles, bands, panels and parts, any threads."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, Array, compile_one, random
from cpu_conv.test_weight_gradient import expected, spec_of
from cpu_conv.test_weight_gradient import run as run_direct
from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.canonical import spec_text
from graphc.kernel.choose import ERROR_RATIO, ConvShape, choose_gradient
from graphc.kernel.spec import Operand, WeightGradientSpec, WinogradGradient
from graphc.kernel.winograd import transform_gradient, transform_input, transform_sums
from graphc.schedule.weight_gradient import parts_of, winograd_gradient
from graphc.target import Target, named
from graphc.types.dtype import f32
from graphc.types.layout import Layout
from graphc_cpu import jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.winograd_gradient import emit_winograd_gradient
from graphc_cpu.kernels.winograd_pack import Numbers


def tiled(target: Target, n: int, ic: int, oc: int, size: tuple[int, int], parts: int = 1, pad: int = 1, **more: Any) -> WeightGradientSpec:
    """A spec whose x has the halo that whole tiles read."""
    spec = spec_of(target, n, ic, oc, size, (3, 3), pad=pad, parts=parts, **more)
    reach = [(pad, -(-count // 2) * 2 + 2 - pad - s) for count, s in zip(spec.grad.shape[2:], size, strict=True)]
    return replace(spec, x=replace(spec.x, layout=Layout(target.lanes(f32), tuple((b, max(a, 0)) for b, a in reach))))


def run(spec: WinogradGradient, target: Target, x: Array, grad: Array, threads: tuple[int, ...] = (1, 2, 4)) -> Array:
    """(parts, C, M, 3, 3); the same bits for all `threads`, whatever lies in the scratch."""
    library = compile_one(emit_winograd_gradient(spec, target, "kernel"), target)
    sums, made = spec.gradient.sums, []
    for count in threads:
        out, scratch = np.full(sums.elements + 32, 77, np.float32), np.full(spec.scratch.elements * count + 32, np.nan, np.float32)
        library.call("kernel", [x, grad, out, scratch], count)
        assert (out[-32:] == 77).all()
        assert np.isnan(scratch[-32:]).all()
        made.append(out[:-32])
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
    by_lane = np.moveaxis(made[0].reshape(sums.shape), -1, 3)
    parts, channels, blocks, lanes, *kernel = by_lane.shape
    found = by_lane.reshape(parts, channels, blocks * lanes, *kernel)
    assert not found[:, :, spec.gradient.grad.shape[1] :].any()
    return found[:, :, : spec.gradient.grad.shape[1]]


CASES: dict[str, dict[str, Any]] = {
    "whole tiles": {"n": 2, "ic": 32, "oc": 48, "size": (8, 8)},
    "tile - 1": {"n": 3, "ic": 16, "oc": 16, "size": (7, 5)},
    "tile + 1": {"n": 2, "ic": 17, "oc": 33, "size": (9, 4)},
    "one pixel": {"n": 5, "ic": 20, "oc": 15, "size": (1, 1)},
    "no padding": {"n": 2, "ic": 16, "oc": 16, "size": (10, 9), "pad": 0},
    "halo of grad": {"n": 2, "ic": 16, "oc": 31, "size": (5, 6), "grad_halo": 1},
    "panels": {"n": 2, "ic": 137, "oc": 81, "size": (4, 4)},
    "several bands": {"n": 3, "ic": 8, "oc": 16, "size": (13, 14)},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CASES)
def test_by_definition(name: str, level: str) -> None:
    target, rng = named(level), np.random.default_rng(3)
    for parts in {1, min(3, CASES[name]["n"])}:
        spec = tiled(target, parts=parts, **CASES[name])
        x, grad = random(spec.x, rng), random(spec.grad, rng)
        found, wanted = run(winograd_gradient(spec), target, x, grad), expected(spec, x, grad)
        assert found.shape[0] == parts
        np.testing.assert_allclose(found.sum(0, np.float64), wanted, rtol=0, atol=4e-6 * np.abs(wanted).max())


def test_bands_and_panels_change_no_bit() -> None:
    target, rng = named("avx512"), np.random.default_rng(5)
    spec = tiled(target, 5, 40, 72, (9, 7))
    x, grad = random(spec.x, rng), random(spec.grad, rng)
    made = winograd_gradient(spec)
    first = run(made, target, x, grad, (1,))
    for tiles, inputs, outputs in ((1, 1, 1), (19, 2, 3), (20, 3, 5), (21, 2, 2), (99, 3, 4), (100, 3, 5), (101, 1, 5)):
        np.testing.assert_array_equal(run(replace(made, tiles=tiles, inputs=inputs, outputs=outputs), target, x, grad, (3,)), first)


def test_transforms_in_float64() -> None:
    """One dimension: the gradient of two outputs of a 3-tap filter."""
    rng, numbers = np.random.default_rng(0), Numbers()
    d, dy = rng.standard_normal((4, 50)), rng.standard_normal((2, 50))
    products: list[Array] = [
        a * b for a, b in zip(transform_input(2, list(d), numbers), transform_gradient(2, list(dy), numbers), strict=True)
    ]
    found = np.stack(transform_sums(2, products, numbers))
    wanted = np.stack([sum(d[i + k] * dy[i] for i in range(2)) for k in range(3)])
    np.testing.assert_allclose(found, wanted, atol=1e-13)


@pytest.mark.parametrize(("channels", "size", "n"), [(64, 32, 8), (128, 16, 16), (256, 8, 16)])
def test_error_against_the_direct_sum(channels: int, size: int, n: int) -> None:
    """The rule behind `choose_gradient`: no less exact than the kernel of the direct sum, with as many parts."""
    target, rng = named("avx512"), np.random.default_rng(1)
    spec = tiled(target, n, channels, 32, (size, size))
    spec = replace(spec, sums=replace(spec.sums, shape=(parts_of(n, _result(target, channels, 32), "winograd2"), *spec.sums.shape[1:])))
    x, grad = random(spec.x, rng), random(spec.grad, rng)
    exact = expected(spec, x, grad)
    errors = [float(np.sqrt(np.mean((found.sum(0, np.float32) - exact) ** 2))) for found in (
        run(winograd_gradient(spec), target, x, grad, (2,)), run_direct(spec, target, x, grad, (2,))
    )]  # fmt: skip
    assert errors[0] <= errors[1] * max(ERROR_RATIO["winograd2"], 1.0), errors


def _result(target: Target, channels: int, outputs: int) -> Operand:
    return Operand(f32, (channels, outputs, 3, 3), Layout(target.lanes(f32)))


def test_parts_follow_from_the_shape() -> None:
    target = named("avx512")
    assert [parts_of(32, _result(target, c, c), "winograd2") for c in (64, 128, 256, 512)] == [8, 4, 1, 1]
    assert parts_of(2, _result(target, 64, 64), "winograd2") == 2


def test_choice() -> None:
    target = named("avx512")
    for channels, size in ((64, 32), (128, 16), (256, 8), (512, 4)):
        assert choose_gradient(ConvShape(32, channels, channels, size, size), target, "default") == "winograd2"
    assert choose_gradient(ConvShape(32, 64, 64, 32, 32), target, "exact") == "direct"
    assert choose_gradient(ConvShape(32, 8, 8, 32, 32), target, "default") == "direct"
    assert choose_gradient(ConvShape(32, 64, 64, 1, 1), target, "default") == "direct"


@pytest.mark.parametrize("level", [*LEVELS, "neon"])
def test_hot_loops_have_no_spills(level: str) -> None:
    target = named(level)
    text = module(target.triple, [emit_winograd_gradient(winograd_gradient(tiled(target, 2, 64, 64, (16, 16))), target, "k")])
    blocks = re.split(r"^[.\w]+:.*$|^\s*(?:j\w+|b(?:\.\w+)?|cbn?z)\s.*$", jit.assembly(text, target), flags=re.MULTILINE)
    hot = [block for block in blocks if len(re.findall(r"fmadd\w*ps|mulps|fmla", block)) >= 8]
    assert hot, "no hot block found"
    for block in hot:
        assert "(%rsp" not in block, block
        assert "[sp" not in block, block


def test_what_is_refused() -> None:
    target = named("avx512")
    made = winograd_gradient(spec_of(target, 2, 16, 16, (5, 6), (3, 3), pad=1))
    with pytest.raises(ShapeError, match="tiles"):
        emit_winograd_gradient(made, target, "k")
    with pytest.raises(UnsupportedError, match="stride"):
        emit_winograd_gradient(winograd_gradient(spec_of(target, 2, 16, 16, (5, 5), (3, 3), pad=1, stride=2)), target, "k")
    with pytest.raises(UnsupportedError, match="lanes"):
        emit_winograd_gradient(made, named("avx2"), "k")


def test_texts_tell_kernels_apart() -> None:
    made = winograd_gradient(tiled(named("avx512"), 4, 32, 32, (6, 6)))
    others = [replace(made, tiles=1), replace(made, inputs=1), replace(made, outputs=1), made.gradient]
    assert len({spec_text(one) for one in (made, *others)}) == 5
