"""Kernels that should run at the speed of memory: the code has the shape that this needs, and the numbers are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cpu_nest.harness import Array, check, over_output, runs, tensor
from cpu_nest.samples import _pool
from graphc.kernel.access import Access, from_operand
from graphc.kernel.expr import Expr, call, const, index
from graphc.kernel.spec import Nest, NestSpec, StoreAt
from graphc.target import named
from graphc.types.dtype import i64
from graphc.types.layout import Layout
from graphc_cpu import jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.nest import emit_nest


def shuffled(channels: int, groups: int, block: int, halo: bool = True) -> NestSpec:
    """The channel shuffle of ShuffleNet on blocked channels; the last block may be partly filled."""
    x = tensor(1, channels, 3, 5, layout=Layout(block))
    out = tensor(1, channels, 3, 5, layout=Layout(block, ((1, 1), (1, 1)) if halo else ()))
    read = from_operand(0, x)

    def nest(first: int, blocks: int, lanes: int) -> Nest:
        axes = (index("b", blocks), index("h", 3), index("w", 5), index("lane", lanes))
        c: Expr = axes[0] * block + axes[3] + first
        value = read(0, c % groups * (channels // groups) + c // groups, axes[1], axes[2])
        return Nest(axes, (StoreAt(1, out.offset((const(0, i64), c, axes[1], axes[2])), value),))

    parts = [(0, channels // block, block), (channels // block * block, 1, channels % block)]
    return NestSpec("copy", (x,), (out,), tuple(nest(*part) for part in parts if part[1] and part[2]))


@pytest.mark.parametrize(
    ("channels", "groups", "block"),
    [(112, 4, 16), (136, 4, 16), (272, 4, 16), (544, 4, 16), (48, 3, 16), (40, 8, 16), (36, 2, 16), (1040, 4, 16),
     (136, 4, 8), (24, 3, 8), (136, 4, 4), (34, 17, 16)],
)  # fmt: skip
def test_channel_shuffles(channels: int, groups: int, block: int) -> None:
    check(shuffled(channels, groups, block))


@pytest.mark.parametrize(("channels", "groups"), [(112, 4), (136, 4), (272, 4), (544, 4)])
def test_channel_shuffles_load_whole_runs(channels: int, groups: int) -> None:
    target = named("avx512")
    text = module(target.triple, [emit_nest(shuffled(channels, groups, 16), target, "k")])
    assert "gather" not in text
    assert text.count("shufflevector") > channels // 16


def run(spec: NestSpec, *arrays: Array, level: str = "avx512") -> Array:
    """The output for flat inputs."""
    target = named(level)
    out = np.zeros(spec.outputs[0].elements, spec.outputs[0].dtype.numpy)
    with jit.build({"k": module(target.triple, [emit_nest(spec, target, "k")])}, target) as library:
        library.call("k", [*arrays, out], 1)
    return out


@pytest.mark.parametrize("size", [5, 6, 7, 9, 13, 14])
@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "pad"), [("max", 3, 1, 1), ("max", 3, 2, 1), ("max", 2, 2, 0), ("sum", 3, 1, 1), ("max", 2, 1, 0)]
)
def test_pools_of_every_width(kind: str, kernel: int, stride: int, pad: int, size: int) -> None:
    out = (size + 2 * pad - kernel) // stride + 1
    for layout in (Layout(16), Layout()):
        shapes = tensor(1, 16, size, size, layout=layout), tensor(1, 16, out, out, layout=layout)
        check(over_output([shapes[0]], shapes[1], _pool(kind, kernel, stride, pad)))


@pytest.mark.parametrize("special", [np.nan, -np.nan, np.inf, -np.inf])
def test_max_pooling_lets_nan_win_wherever_it_is(special: float) -> None:
    blocked = tensor(1, 16, 9, 9, layout=Layout(16))
    spec = over_output([blocked], blocked, _pool("max", 3, 1, 1))
    x = np.full((9, 9, 16), -2.0, np.float32)
    for place in range(9 * 9):
        x[place // 9, place % 9, place % 16] = special
    check(spec, [x.reshape(-1), np.zeros(9 * 9 * 16, np.float32)])


def test_overlapping_windows_share_columns() -> None:
    """Of four neighbouring windows 3x3 the 18 elements are loaded once and combined by 20 maxima."""
    blocked = tensor(1, 16, 30, 30, layout=Layout(16))
    target = named("avx512")
    text = module(target.triple, [emit_nest(over_output([blocked], blocked, _pool("max", 3, 1, 1)), target, "k")])
    inner = max(text.split("br i1"), key=lambda block: block.count("store <16"))
    assert inner.count("store <16 x float>") == 4
    assert inner.count("load <16 x float>") == 18


def _rsqrt(x: Access) -> Callable[..., Expr]:
    return lambda i: 1.0 / call("sqrt", x(i))


def test_reciprocal_roots_are_accurate_and_keep_special_values() -> None:
    special = np.array([0.0, np.inf, np.nan, -1.0, 1e-45, 3.4e38, 1.17e-38, 1.0], np.float32)
    x = np.concatenate([special, np.exp(np.linspace(-80, 80, 4088)).astype(np.float32)])
    spec = over_output([tensor(x.size)], tensor(x.size), _rsqrt)
    target = named("avx512")
    text = module(target.triple, [emit_nest(spec, target, "k")])
    assert "rsqrt14" in text
    if runs("avx512"):
        got = run(spec, x)
        with np.errstate(all="ignore"):
            want = 1.0 / np.sqrt(x.astype(np.float64))
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        assert got[0] == np.inf
        assert got[1] == 0.0
        finite = np.isfinite(want) & (want > 0)
        ulps = np.abs(got[finite].astype(np.float64) - want[finite]) / np.spacing(want[finite].astype(np.float32))
        assert ulps.max() < 1.6
