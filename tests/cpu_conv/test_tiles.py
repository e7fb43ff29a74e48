"""The micro-kernels against their numpy models, the tile choice, and the shape of the machine code."""

from __future__ import annotations

from itertools import pairwise

import llvmlite.binding as llvm
import numpy as np
import pytest

from cpu_conv.cases import LEVELS, compile_one, matmul_spec, with_bias
from cpu_conv.spills import assert_no_spills
from graphc.kernel import expr as ex
from graphc.kernel.spec import ConvSpec
from graphc.target import TARGETS, Target, named
from graphc.types.dtype import f32, i64
from graphc_cpu import elf, jit
from graphc_cpu.emit.ir import Function, module
from graphc_cpu.kernels.conv import emit_conv
from graphc_cpu.kernels.conv_plan import conv_plan
from graphc_cpu.kernels.items import kernel_function, operand_pointers
from graphc_cpu.kernels.matmul import emit_matmul
from graphc_cpu.micro import tile, window
from graphc_cpu.micro.affine import affine
from graphc_cpu.micro.shape import max_pixels, split
from graphc_cpu.micro.tile import Reduction, RegisterTile
from graphc_cpu.micro.window import WindowTile

REDUCTIONS = {
    "channels only": Reduction(11, 16, 0, 1, (), 0),
    "blocks and rest": Reduction(35, 16, 400, 1, ((2, 60), (3, 20)), 0),
    "plain": Reduction(3, 16, 999, 200, ((3, 15), (3, 1)), 0),
    "prefetched": Reduction(32, 16, 300, 1, (), 0, prefetch=4096),
    "transposed": Reduction(37, 37, 0, 1, (), 1, lane_step=40),
    "strided": Reduction(7, 7, 0, 1, (), 3, lane_step=25),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (6, 1)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_register_tile(name: str, shape: tuple[int, int], level: str) -> None:
    target = named(level)
    (pixels, blocks), lanes, r = shape, target.lanes(f32), REDUCTIONS[name]
    if not r.weight_step:
        r = Reduction(r.channels, r.block, r.block_step, r.channel_step, r.kernel, blocks * lanes, 1, r.prefetch)
    offsets = [3 * p for p in range(pixels)]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1500).astype(np.float32)
    w = rng.standard_normal(r.steps * r.weight_step + blocks * lanes * r.lane_step).astype(np.float32)
    f = kernel_function("tile")
    pointers = operand_pointers(f, 3)
    acc = RegisterTile(f, f32, lanes, offsets, blocks, r).emit(pointers[0], pointers[1])
    for p in range(pixels):
        for b in range(blocks):
            f.store(acc[p][b], f.pointer(pointers[2], (p * blocks + b) * lanes, "float"), 4)
    out = np.zeros((pixels, blocks, lanes), np.float32)
    compile_one(f, target).call("tile", [x, w, out])
    expected = tile.model(x.astype(float), w.astype(float), offsets, blocks, lanes, r)
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("kernel", [(), ((3, 40), (3, 8)), ((7, 60), (7, 8)), ((2, 90), (3, 30), (3, 8))])
@pytest.mark.parametrize("step", [8, 16])
def test_window_tile(step: int, kernel: tuple[tuple[int, int], ...]) -> None:
    lanes, pixels = 8, [r * 40 + c * step for r in range(2) for c in range(4)]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(900).astype(np.float32), rng.standard_normal(lanes * 64).astype(np.float32)
    f = kernel_function("tile")
    pointers = operand_pointers(f, 3)
    for p, value in enumerate(WindowTile(f, f32, lanes, pixels, kernel).emit(pointers[0], pointers[1])):
        f.store(value, f.pointer(pointers[2], p * lanes, "float"), 4)
    out = np.zeros((len(pixels), lanes), np.float32)
    compile_one(f, named("avx2")).call("tile", [x, w, out])
    np.testing.assert_allclose(out, window.model(x.astype(float), w.astype(float), pixels, kernel, lanes), atol=2e-5)


def test_split_covers_everything() -> None:
    for total in range(1, 60):
        for most in range(1, 20):
            pieces = [width for first, last, width in split(total, most).ranges for _ in range(first, last)]
            assert sum(pieces) == total
            assert max(pieces) <= most
            assert max(pieces) - min(pieces) <= 1


def test_affine() -> None:
    i, j = ex.index("i", 4), ex.index("j", 5)
    form = affine((i * 3 - j) * 2 + 7 - i)
    assert form is not None
    assert (form.constant, form.coefficient(i), form.coefficient(j)) == (7, 5, -2)
    assert form.range == (7 - 8, 7 + 15)
    assert affine(i * j) is None
    assert affine(i // 2) is None
    assert affine(ex.const(3, i64) * i) is not None


LAYERS = {
    "56x56x64 3x3": (64, 64, (56, 56), (3, 3)), "28x28x128 3x3": (128, 128, (28, 28), (3, 3)),
    "14x14x256 3x3": (256, 256, (14, 14), (3, 3)), "7x7x512 3x3": (512, 512, (7, 7), (3, 3)),
    "56x56 64->256": (64, 256, (56, 56), (1, 1)), "14x14 1024->256": (1024, 256, (14, 14), (1, 1)),
    "7x7 512->2048": (512, 2048, (7, 7), (1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_avx512_tiles_of_resnet(layer: tuple[int, int, tuple[int, int], tuple[int, int]]) -> None:
    """Tiles that fill the registers and leave no waste at the edges of these maps."""
    target = named("avx512")
    plan = conv_plan(with_bias(target, *layer), target)
    assert plan.chunks.width == 2
    assert plan.rows.width * plan.columns.width >= 13


@pytest.mark.parametrize("level", [*LEVELS, "neon"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_hot_loops_do_not_spill(layer: tuple[int, int, tuple[int, int], tuple[int, int]], level: str) -> None:
    target = named(level)
    assert_no_spills(emit_conv(with_bias(target, *layer), target, "kernel"), target)


@pytest.mark.parametrize("level", LEVELS)
def test_hot_loops_of_matmul_and_depthwise_do_not_spill(level: str) -> None:
    target = named(level)
    assert_no_spills(emit_matmul(matmul_spec(256, 256, 256), target, "kernel"), target)
    assert_no_spills(emit_matmul(matmul_spec(256, 256, 256, packed=False), target, "kernel"), target)
    assert_no_spills(emit_conv(with_bias(target, 64, 64, (28, 28), (3, 3), groups=64), target, "kernel"), target)


def test_bodies_stay_small_and_compile_on_every_target() -> None:
    """Code for machines that do not run here is generated too, and calls nothing."""
    for target in TARGETS.values():
        for f in _kernels(target):
            (image,) = jit.compile_objects([("k", lambda f=f, t=target: module(t.triple, [f]))], target).values()  # type: ignore[misc]
            assert len(image) < 60_000
            if target.triple.startswith("x86"):
                assert not elf.symbols(image).undefined


def _kernels(target: Target) -> list[Function]:
    conv: list[ConvSpec] = [with_bias(target, 64, 64, (28, 28), (3, 3)), with_bias(target, 30, 30, (9, 9), (3, 3), groups=30)]
    return [*(emit_conv(spec, target, "k") for spec in conv), emit_matmul(matmul_spec(30, 40, 50, bias=True), target, "k")]


def test_fewer_registers_mean_smaller_tiles() -> None:
    sizes = [max_pixels(named(level), 2) for level in ("sse2", "avx2", "neon", "avx512")]
    assert all(a <= b for a, b in pairwise(sizes))
    assert sizes[-1] == 14
    assert llvm.llvm_version_info[0] >= 22
