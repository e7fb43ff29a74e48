"""The weight-gradient kernel against its definition in float64: every level, edges of tiles, blocks, bands and parts, any threads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from cpu_conv.cases import LEVELS, Array, compile_one, random
from graphc.errors import ShapeError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.kernel.canonical import spec_text
from graphc.kernel.spec import Operand, WeightGradientSpec
from graphc.ops.conv_weight import ConvWeightGradient
from graphc.schedule.weight_gradient import parts_of, sum_spec
from graphc.target import Target, named
from graphc.types.dtype import DType, f32, f64, i32
from graphc.types.layout import Layout
from graphc_cpu import jit
from graphc_cpu.emit.ir import Function, module
from graphc_cpu.kernels import weight_gradient
from graphc_cpu.kernels.model import padded_map
from graphc_cpu.kernels.nest import emit_nest
from graphc_cpu.kernels.weight_gradient import choose_rows, emit_weight_gradient
from graphc_cpu.micro.outer import OuterTile, Pixels, model
from ops.runners import run_reference


def spec_of(
    target: Target, n: int, ic: int, oc: int, size: Sequence[int], kernel: Sequence[int], *, stride: int = 1, dilation: int = 1,
    pad: int = 0, groups: int = 1, plain_x: bool = False, plain: bool = False, grad_halo: int = 0, parts: int = 1, dtype: DType = f32,
) -> WeightGradientSpec:  # fmt: skip
    rank, lanes = len(size), target.lanes(dtype)
    out = tuple((s + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for s, k in zip(size, kernel, strict=True))
    halo = ((pad, pad),) * rank if pad else ()
    x = Operand(dtype, (n, ic, *size), Layout(0 if plain_x or plain else lanes, halo))
    grad = Operand(dtype, (n, oc, *out), Layout(0 if plain else lanes, ((grad_halo, grad_halo + 1),) * rank if grad_halo else ()))
    op = ConvWeightGradient(tuple(kernel), (stride,) * rank, (dilation,) * rank, (pad,) * rank, groups)
    return op.spec(x, grad, Operand(dtype, (ic // groups, oc, *kernel), Layout(0 if plain else lanes)), parts)


def expected(spec: WeightGradientSpec, x: Array, grad: Array) -> Array:
    """By the op's numpy meaning, in float64: (C, M, *kernel)."""
    rank = len(spec.kernel)
    inner = tuple(slice(before, before + size) for (before, _), size in zip(_halo(spec.x), spec.x.shape[2:], strict=True))
    outer = tuple(slice(before, before + size) for (before, _), size in zip(_halo(spec.grad), spec.grad.shape[2:], strict=True))
    op = ConvWeightGradient(spec.kernel, spec.stride, spec.dilation, spec.pad, spec.groups)
    whole = (slice(None),) * 2
    assert rank == len(inner)
    return op.reference(
        padded_map(spec.x, x)[(*whole, *inner)].astype(np.float64), padded_map(spec.grad, grad)[(*whole, *outer)].astype(np.float64)
    )  # fmt: skip


def _halo(operand: Operand) -> Sequence[tuple[int, int]]:
    return operand.layout.halo or ((0, 0),) * (len(operand.shape) - 2)


def run(spec: WeightGradientSpec, target: Target, x: Array, grad: Array, threads: Sequence[int] = (1, 2, 4)) -> Array:
    """(parts, C, M, *kernel); the same bits for all `threads`, zeros in the lanes beyond M, nothing written behind."""
    library = compile_one(emit_weight_gradient(spec, target, "kernel"), target)
    made = []
    for count in threads:
        sums = np.full(spec.sums.elements + 32, 77, x.dtype)
        library.call("kernel", [x, grad, sums], count)
        assert (sums[-32:] == 77).all()
        made.append(sums[:-32])
    for other in made[1:]:
        np.testing.assert_array_equal(made[0], other)
    if not spec.grad.layout.is_blocked:
        return made[0].reshape(spec.sums.shape)
    by_lane = np.moveaxis(made[0].reshape(spec.sums.shape), -1, 3)
    parts, channels, blocks, lanes, *kernel = by_lane.shape
    found = by_lane.reshape(parts, channels, blocks * lanes, *kernel)
    outputs = spec.grad.shape[1]
    assert not found[:, :, outputs:].any()
    return found[:, :, :outputs]


def check(spec: WeightGradientSpec, target: Target) -> Array:
    rng = np.random.default_rng(3)
    x, grad = random(spec.x, rng), random(spec.grad, rng)
    found, wanted = run(spec, target, x, grad), expected(spec, x, grad)
    epsilon = np.finfo(x.dtype).eps
    np.testing.assert_allclose(found.sum(0, np.float64), wanted, rtol=0, atol=32 * epsilon * np.abs(wanted).max())
    return found


CASES: dict[str, dict[str, Any]] = {
    "3x3": {"n": 2, "ic": 32, "oc": 64, "size": (8, 8), "kernel": (3, 3), "pad": 1},
    "3x3, halo of grad": {"n": 2, "ic": 16, "oc": 16, "size": (7, 5), "kernel": (3, 3), "pad": 1, "grad_halo": 1},
    "channels + 1": {"n": 2, "ic": 17, "oc": 33, "size": (5, 6), "kernel": (3, 3), "pad": 1},
    "channels - 1": {"n": 2, "ic": 15, "oc": 31, "size": (5, 6), "kernel": (3, 3), "pad": 1},
    "groups - 1": {"n": 1, "ic": 23, "oc": 50, "size": (4, 3), "kernel": (1, 1)},
    "groups + 1": {"n": 1, "ic": 25, "oc": 100, "size": (4, 3), "kernel": (1, 1)},
    "1x1 dense map": {"n": 3, "ic": 24, "oc": 144, "size": (6, 6), "kernel": (1, 1)},
    "1x1 stride 2": {"n": 3, "ic": 16, "oc": 32, "size": (7, 7), "kernel": (1, 1), "stride": 2},
    "3x3 stride 2": {"n": 2, "ic": 16, "oc": 48, "size": (9, 9), "kernel": (3, 3), "pad": 1, "stride": 2},
    "dilation 2": {"n": 1, "ic": 16, "oc": 16, "size": (9, 8), "kernel": (3, 2), "pad": 2, "dilation": 2},
    "first layer, plain": {"n": 2, "ic": 3, "oc": 20, "size": (11, 13), "kernel": (5, 5), "pad": 2, "plain_x": True},
    "one channel, plain": {"n": 4, "ic": 1, "oc": 6, "size": (12, 12), "kernel": (5, 5), "pad": 2, "plain_x": True},
    "few channels": {"n": 2, "ic": 6, "oc": 16, "size": (14, 14), "kernel": (5, 5)},
    "rows longer than a band": {"n": 2, "ic": 8, "oc": 16, "size": (3, 150), "kernel": (3, 3), "pad": 1},
    "bands of rows": {"n": 2, "ic": 8, "oc": 16, "size": (31, 17), "kernel": (3, 3), "pad": 1},
    "bands of images": {"n": 9, "ic": 8, "oc": 16, "size": (5, 6), "kernel": (3, 3), "pad": 1},
    "one pixel": {"n": 5, "ic": 40, "oc": 20, "size": (1, 1), "kernel": (1, 1)},
    "one dim": {"n": 3, "ic": 12, "oc": 20, "size": (40,), "kernel": (3,), "pad": 1},
    "three dims": {"n": 2, "ic": 5, "oc": 18, "size": (4, 5, 6), "kernel": (3, 1, 2), "stride": 2, "pad": 0},
    "depthwise": {"n": 3, "ic": 40, "oc": 40, "size": (9, 14), "kernel": (3, 3), "pad": 1, "groups": 40},
    "depthwise, one block - 1": {"n": 1, "ic": 15, "oc": 15, "size": (5, 5), "kernel": (3, 3), "pad": 1, "groups": 15, "grad_halo": 1},
    "depthwise, stride 2": {"n": 2, "ic": 17, "oc": 17, "size": (9, 8), "kernel": (3, 3), "stride": 2, "pad": 1, "groups": 17},
    "depthwise, 5x7, dilation": {"n": 2, "ic": 16, "oc": 16, "size": (9, 13), "kernel": (5, 7), "dilation": 2, "pad": 6, "groups": 16},
    "depthwise, one dim": {"n": 3, "ic": 20, "oc": 20, "size": (23,), "kernel": (4,), "groups": 20},
    "rows": {"n": 3, "ic": 1, "oc": 6, "size": (12, 28), "kernel": (5, 5), "pad": 2, "plain": True},
    "rows, one vector": {"n": 2, "ic": 2, "oc": 4, "size": (3, 18), "kernel": (3, 3), "plain": True, "grad_halo": 1},
    "rows, one vector + 1": {"n": 2, "ic": 3, "oc": 1, "size": (3, 17), "kernel": (1, 1), "plain": True},
    "rows, one vector - 1": {"n": 2, "ic": 3, "oc": 5, "size": (3, 15), "kernel": (2, 3), "pad": 1, "plain": True},
    "rows, dilation": {"n": 2, "ic": 2, "oc": 8, "size": (9, 9), "kernel": (3, 3), "dilation": 2, "plain": True},
    "rows, one dim": {"n": 2, "ic": 2, "oc": 2, "size": (50,), "kernel": (3,), "pad": 1, "plain": True},
    "panels": {"n": 1, "ic": 130, "oc": 144, "size": (3, 3), "kernel": (3, 3), "pad": 1},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", CASES)
def test_by_definition(name: str, level: str) -> None:
    target = named(level)
    whole = check(spec_of(target, **CASES[name]), target)
    parts = min(3, CASES[name]["n"])
    cut = check(spec_of(target, parts=parts, **CASES[name]), target)
    assert cut.shape[0] == parts
    np.testing.assert_allclose(cut.sum(0), whole[0], rtol=0, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("level", LEVELS)
def test_float64(level: str) -> None:
    target = named(level)
    check(spec_of(target, 2, 10, 12, (6, 5), (3, 3), pad=1, dtype=f64), target)


def test_bands_and_panels_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    target, rng = named("avx512"), np.random.default_rng(5)
    spec = spec_of(target, 5, 40, 72, (9, 7), (3, 3), pad=1)
    x, grad = random(spec.x, rng), random(spec.grad, rng)
    first = run(spec, target, x, grad, (1,))
    for pixels, nbytes in ((1, 300_000), (62, 10_000), (63, 1), (64, 100_000), (10**6, 10**9)):
        monkeypatch.setattr(weight_gradient, "BAND_PIXELS", pixels)
        monkeypatch.setattr(weight_gradient, "PANEL_BYTES", nbytes)
        np.testing.assert_array_equal(run(spec, target, x, grad, (3,)), first)


def test_parts_are_added_in_order() -> None:
    target, rng = named("avx512"), np.random.default_rng(6)
    spec = spec_of(target, 4, 8, 20, (6, 6), (3, 3), pad=1, parts=3)
    parts = rng.standard_normal(spec.sums.elements).astype(np.float32)
    library = compile_one(emit_nest(sum_spec(spec), target, "kernel"), target)
    for threads in (1, 2, 4):
        total = np.zeros(spec.sums.elements // 3, np.float32)
        library.call("kernel", [parts, total], threads)
        a, b, c = parts.reshape(3, -1)
        np.testing.assert_array_equal(total, (a + b) + c)


@pytest.mark.parametrize(("batch", "nbytes", "parts"), [(64, 4, 16), (8, 4, 8), (32, 590_000, 16), (32, 900_000, 5), (32, 10**7, 1)])
def test_parts_follow_from_the_shape(batch: int, nbytes: int, parts: int) -> None:
    assert parts_of(batch, Operand(f32, (1, nbytes // 4)), "") == parts


def test_parts_of_depthwise_kernels() -> None:
    outputs = [Operand(f32, (1, channels, 3, 3), Layout(16)) for channels in (32, 144, 960)]
    assert [parts_of(16, output, "", output.shape[1]) for output in outputs] == [8, 1, 1]


@pytest.mark.parametrize("channels", [2, 3, 6, 20])
def test_of_a_map_by_itself(channels: int) -> None:
    """Both maps are one value: it is read in blocks of channels, or along rows, whatever a convolution of few channels would read."""
    x = np.random.default_rng(7).standard_normal((2, channels, 5, 6)).astype(np.float32)
    builder = Builder()
    value = builder.input("x", f32, x.shape)
    graph = builder.finish(y=builder.add(ConvWeightGradient((3, 3), (1, 1), (1, 1), (1, 1)), value, value))
    (wanted,) = run_reference(graph, [x])
    np.testing.assert_allclose(graphc.compile(graph, threads=2)(x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 13])
def test_micro_kernel(rows: int, count: int) -> None:
    target, rng, lanes = named("avx512"), np.random.default_rng(0), 16
    made, blocks = [3 * r + r % 2 for r in range(rows)], (0, 700)
    pixels = [Pixels(2, 7, 500), Pixels(3, 31, 150), Pixels(count, 2, lanes)]
    x, g = (rng.integers(-4, 5, 2000).astype(np.float32) for _ in range(2))
    sums = rng.integers(-4, 5, (rows, 2, lanes)).astype(np.float32)
    wanted = sums.copy()
    model(x, g, wanted, made, blocks, pixels)
    f = Function("kernel", [("ptr", "args"), ("i64", "thread"), ("i64", "threads")])
    pointers = [f.load("ptr", f.pointer(f.parameters[0], slot, "ptr"), 8) for slot in range(3)]
    places = [f.pointer(pointers[2], i * lanes, "float") for i in range(2 * rows)]
    OuterTile(f, f32, lanes, made, blocks, pixels).emit(*pointers[:2], places)
    flat = sums.ravel()
    compile_one(f, target).call("kernel", [x, g, flat], 1)
    np.testing.assert_array_equal(flat.reshape(wanted.shape), wanted)


LAYERS: dict[str, dict[str, Any]] = {
    "32x32 64-64": {"n": 4, "ic": 64, "oc": 64, "size": (32, 32), "kernel": (3, 3), "pad": 1},
    "4x4 512-512": {"n": 4, "ic": 512, "oc": 512, "size": (4, 4), "kernel": (3, 3), "pad": 1},
    "1x1 96-24": {"n": 4, "ic": 96, "oc": 24, "size": (24, 24), "kernel": (1, 1)},
    "first layer": {"n": 4, "ic": 3, "oc": 64, "size": (32, 32), "kernel": (3, 3), "pad": 1, "plain_x": True},
    "depthwise": {"n": 4, "ic": 96, "oc": 96, "size": (24, 24), "kernel": (3, 3), "pad": 1, "groups": 96},
    "LeNet c1": {"n": 4, "ic": 1, "oc": 6, "size": (28, 28), "kernel": (5, 5), "pad": 2, "plain_x": True},
    "LeNet c1, rows": {"n": 4, "ic": 1, "oc": 6, "size": (28, 28), "kernel": (5, 5), "pad": 2, "plain": True},
    "LeNet c3": {"n": 4, "ic": 6, "oc": 16, "size": (14, 14), "kernel": (5, 5)},
}


@pytest.mark.parametrize("level", [*LEVELS, "neon"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_hot_loops_do_not_spill(layer: dict[str, Any], level: str) -> None:
    target = named(level)
    text = module(target.triple, [emit_weight_gradient(spec_of(target, **layer), target, "kernel")])
    blocks = re.split(r"^[.\w]+:.*$|^\s*(?:j\w+|b(?:\.\w+)?|cbn?z)\s.*$", jit.assembly(text, target), flags=re.MULTILINE)
    hot = [block for block in blocks if len(re.findall(r"fmadd\w*ps|mulps|fmla", block)) >= 3]
    assert hot, "no hot block found"
    for block in hot:
        assert "(%rsp" not in block, block
        assert "[sp" not in block, block


def test_tiles_fill_the_registers() -> None:
    target = named("avx512")
    rows = choose_rows(spec_of(target, **LAYERS["32x32 64-64"]), target)
    assert rows.groups[0][1].width * rows.chunks.width >= 16
    assert choose_rows(spec_of(target, **LAYERS["LeNet c3"]), target).flat == (30, 30, 30, 30, 30)


def test_what_is_refused() -> None:
    target = named("avx512")
    spec = spec_of(target, 1, 16, 16, (6, 6), (3, 3), pad=1)
    with pytest.raises(UnsupportedError, match="lanes"):
        emit_weight_gradient(spec, named("avx2"), "k")
    with pytest.raises(ShapeError, match="halo"):
        emit_weight_gradient(replace(spec, pad=(2, 1)), target, "k")
    with pytest.raises(ShapeError, match="into"):
        emit_weight_gradient(replace(spec, kernel=(3, 1)), target, "k")
    with pytest.raises(UnsupportedError, match="i32"):
        emit_weight_gradient(replace(spec, x=replace(spec.x, dtype=i32)), target, "k")


def test_texts_tell_kernels_apart() -> None:
    target = named("avx512")
    spec = spec_of(target, 4, 16, 16, (6, 6), (3, 3), pad=1)
    others = [replace(spec, pad=(0, 1)), replace(spec, stride=(1, 2)), spec_of(target, 4, 16, 16, (6, 6), (3, 3), pad=1, parts=2)]
    assert len({spec_text(one) for one in (spec, *others)}) == 4
