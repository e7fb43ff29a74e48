"""Direct and depthwise convolution against the numpy model, on every machine level that runs here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, bias_relu, channel, check_conv, compile_one, conv_spec, random, with_bias
from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel import expr as ex
from graphc.kernel.spec import Epilogue, Operand
from graphc.target import named
from graphc.types.dtype import bool_, f16, f32, f64, i32
from graphc.types.layout import Layout
from graphc_cpu.kernels.conv import emit_conv, flops, is_depthwise
from graphc_cpu.kernels.conv_plan import conv_plan
from graphc_cpu.kernels.pack import pack_conv_weight

CASES: dict[str, dict[str, Any]] = {
    "3x3": {"ic": 32, "oc": 32, "size": (14, 14), "kernel": (3, 3)},
    "first layer": {"ic": 3, "oc": 64, "size": (18, 22), "kernel": (7, 7), "stride": (2, 2), "plain_x": True},
    "odd channels": {"ic": 17, "oc": 17, "size": (9, 11), "kernel": (3, 3)},
    "three channels, blocked": {"ic": 3, "oc": 5, "size": (5, 5), "kernel": (3, 3)},
    "1x1 flattened": {"ic": 40, "oc": 48, "size": (7, 7), "kernel": (1, 1), "n": 2},
    "1x1 stride 2": {"ic": 16, "oc": 20, "size": (9, 8), "kernel": (1, 1), "stride": (2, 2)},
    "1x1 beside a halo": {"ic": 16, "oc": 20, "size": (7, 7), "kernel": (1, 1), "halo": ((1, 1), (1, 1))},
    "dilation, uneven pads": {"ic": 6, "oc": 9, "size": (10, 12), "kernel": (3, 2), "dilation": (2, 3), "pad": ((1, 2), (3, 0))},
    "wide map": {"ic": 8, "oc": 16, "size": (3, 61), "kernel": (1, 3)},
    "one pixel": {"ic": 33, "oc": 40, "size": (3, 3), "kernel": (3, 3), "pad": ((0, 0), (0, 0))},
    "34 channels per group": {"ic": 136, "oc": 136, "size": (5, 5), "kernel": (1, 1), "groups": 4},
    "groups, 3x3": {"ic": 24, "oc": 12, "size": (6, 7), "kernel": (3, 3), "groups": 3},
    "whole-block groups": {"ic": 64, "oc": 64, "size": (4, 4), "kernel": (3, 3), "groups": 2},
    "groups, plain": {"ic": 6, "oc": 9, "size": (5, 6), "kernel": (3, 3), "groups": 3, "plain_x": True},
    "1-d": {"ic": 20, "oc": 20, "size": (19,), "kernel": (3,), "dilation": (2,), "pad": ((2, 2),)},
    "3-d": {"ic": 5, "oc": 20, "size": (4, 5, 6), "kernel": (3, 1, 2), "pad": ((1, 1), (0, 0), (1, 0))},
    "3-d pointwise": {"ic": 5, "oc": 20, "size": (3, 2, 6), "kernel": (1, 1, 1)},
    "plain output": {"ic": 20, "oc": 37, "size": (6, 5), "kernel": (3, 3), "plain_x": True, "plain_y": True, "out_halo": ((1, 1), (2, 0))},
    "few channels, plain": {"ic": 16, "oc": 6, "size": (14, 15), "kernel": (5, 5), "n": 2, "plain_x": True, "plain_y": True},
    "one channel, plain": {
        "ic": 3, "oc": 1, "size": (9, 40), "kernel": (3, 4), "stride": (2, 1), "dilation": (2, 1), "plain_x": True, "plain_y": True,
        "out_halo": ((1, 1), (2, 0)),
    },
    "few channels, plain, one vector": {"ic": 5, "oc": 2, "size": (5, 16), "kernel": (3, 3), "plain_x": True, "plain_y": True},
    "few channels, plain, one vector + 1": {"ic": 5, "oc": 4, "size": (5, 17), "kernel": (3, 3), "plain_x": True, "plain_y": True},
    "few channels, plain, 1-d": {"ic": 5, "oc": 2, "size": (70,), "kernel": (3,), "plain_x": True, "plain_y": True},
    "few channels, plain, 3-d": {
        "ic": 5, "oc": 2, "size": (3, 4, 9), "kernel": (1, 3, 2), "plain_x": True, "plain_y": True, "pad": ((0, 0), (1, 1), (1, 0)),
    },
    "few channels, plain, f64": {"ic": 5, "oc": 3, "size": (5, 9), "kernel": (3, 3), "plain_x": True, "plain_y": True, "dtype": f64},
    "halos": {"ic": 20, "oc": 37, "size": (6, 5), "kernel": (3, 3), "halo": ((3, 2), (2, 4)), "out_halo": ((1, 1), (2, 0))},
    "f64": {"ic": 20, "oc": 37, "size": (8, 8), "kernel": (3, 3), "dtype": f64},
    "depthwise": {"ic": 40, "oc": 40, "size": (14, 15), "kernel": (3, 3), "groups": 40, "n": 2},
    "depthwise 5x5 stride 2": {"ic": 5, "oc": 5, "size": (14, 14), "kernel": (5, 5), "stride": (2, 2), "groups": 5},
    "depthwise 7x7 dilated": {
        "ic": 16,
        "oc": 16,
        "size": (15, 13),
        "kernel": (7, 7),
        "groups": 16,
        "dilation": (1, 2),
        "pad": ((3, 3), (6, 6)),
    },
    "depthwise 1-d": {"ic": 17, "oc": 17, "size": (23,), "kernel": (3,), "groups": 17},
    "depthwise 3-d": {"ic": 17, "oc": 17, "size": (5, 6, 7), "kernel": (3, 3, 3), "groups": 17},
    "depthwise multiplier": {"ic": 16, "oc": 32, "size": (8, 8), "kernel": (3, 3), "groups": 16},
    "depthwise plain": {"ic": 6, "oc": 6, "size": (8, 8), "kernel": (3, 3), "groups": 6, "plain_x": True},
    "depthwise f64": {"ic": 9, "oc": 9, "size": (8, 8), "kernel": (3, 3), "groups": 9, "dtype": f64},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_matches_model(case: dict[str, Any], level: str) -> None:
    check_conv(with_bias(named(level), **case), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", [1, 2, 10])
@pytest.mark.parametrize("pad", [(4, 4), (6, 1), (0, 7), (9, 9)])
@pytest.mark.parametrize("step", [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_kernel_rows_in_the_padding_are_left_out(step: tuple[int, int], pad: tuple[int, int], rows: int, level: str) -> None:
    """Also where a whole row of the output sees nothing but padding."""
    target, (stride, dilation) = named(level), step
    size = (rows + 8, 9) if dilation > 1 else (rows, 9)
    kwargs = {"stride": (stride, 1), "dilation": (dilation, 1), "pad": (pad, (2, 2)), "plain_x": True, "plain_y": True}
    check_conv(with_bias(target, 3, min(6, target.lanes(f32) // 2), size, (5, 5), **kwargs), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_around_the_tile(off: int, level: str) -> None:
    target = named(level)
    plan = conv_plan(with_bias(target, 16, 64, (4, 28), (3, 3)), target)
    width, chunk = plan.columns.width, plan.chunks.width * plan.lanes
    check_conv(with_bias(target, plan.lanes + off, chunk + off, (3, width + off), (3, 3)), level)


def test_integers_are_exact() -> None:
    check_conv(conv_spec(named("avx2"), 9, 10, (5, 5), (3, 3), dtype=i32), "avx2")


def test_weights_larger_than_the_map_put_channels_outside() -> None:
    target = named("avx512")
    spec = with_bias(target, 256, 128, (4, 4), (3, 3))
    assert conv_plan(spec, target).weights_outer
    check_conv(spec, "avx512")
    assert not conv_plan(with_bias(target, 32, 32, (28, 28), (3, 3)), target).weights_outer


@pytest.mark.parametrize("plain_y", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_residual_in_place(plain_y: bool, level: str) -> None:
    """The output buffer is also the residual operand: every element is read before it is written."""
    target = named(level)
    base = conv_spec(target, 9, 21, (5, 6), (3, 3), plain_y=plain_y)

    def add(acc: ex.Expr, index: tuple[ex.Expr, ...], _: object, output: Operand) -> ex.Expr:
        return acc + ex.load(2, output.physical_offset(index), acc.dtype)

    spec = conv_spec(target, 9, 21, (5, 6), (3, 3), plain_y=plain_y, epilogue=add, extras=(base.output,))
    apart = check_conv(spec, level)
    rng = np.random.default_rng(7)
    x, w, residual = (random(o, rng) for o in spec.operands[:-1])
    packed = pack_conv_weight(spec, target, w.reshape(spec.weight_shape))
    compile_one(emit_conv(spec, target, "kernel"), target).call("kernel", [x, packed, residual, residual], 2)
    np.testing.assert_array_equal(residual, apart)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("groups", [1, 12])
def test_rich_epilogue(groups: int, level: str) -> None:
    """Loads of other dtypes, values of loop variables, a broadcast over channels, offsets that are not affine, transcendental functions."""
    target = named(level)
    extras = (Operand(bool_, (12,)), Operand(f64, (5, 6)), Operand(f16, (12,)), Operand(f32, (4,)))

    def value(acc: ex.Expr, index: tuple[ex.Expr, ...], _: object, output: Operand) -> ex.Expr:
        c, (h, w) = channel(index, output), index[2:4]
        gate = ex.select(ex.load(2, c, bool_), acc, acc * 0.25)
        plane = ex.cast(ex.load(3, h * 6 + w, f64), f32)
        by_quarter = ex.load(5, c // 3 % 4, f32) + ex.load(5, (h * w) % 4, f32)
        return ex.call("tanh", gate) * plane + ex.cast(ex.load(4, c, f16), f32) * by_quarter + ex.cast(w - c, f32)

    check_conv(conv_spec(target, 12, 12, (5, 6), (3, 3), groups=groups, epilogue=value, extras=extras), level)


def test_epilogue_by_pixel_is_not_flattened_wrongly() -> None:
    """A 1x1 convolution whose epilogue reads a transposed plane."""
    target = named("avx2")

    def value(acc: ex.Expr, index: tuple[ex.Expr, ...], _: object, output: Operand) -> ex.Expr:
        return acc + ex.load(2, index[3] * 5 + index[2], f32)

    spec = conv_spec(target, 8, 8, (5, 6), (1, 1), epilogue=value, extras=(Operand(f32, (6, 5)),))
    assert conv_plan(spec, target).spatial == (5, 6)
    check_conv(spec, "avx2")
    assert conv_plan(conv_spec(target, 8, 8, (5, 6), (1, 1)), target).spatial == (1, 30)


def test_channel_slice_of_a_concat_buffer() -> None:
    """Output and input are parts of wider buffers: only the slice is written, only it is read."""
    target = named("avx512")
    lanes = 16
    spec = with_bias(target, 24, 20, (4, 5), (1, 1))
    x = Operand(f32, (2, 24, 4, 5), Layout(lanes), pitch=80)
    y = Operand(f32, (2, 20, 4, 5), Layout(lanes), pitch=96)
    index = tuple(ex.index(f"i{d}", e) for d, e in enumerate((2, 2, 4, 5, lanes)))
    wide = replace(spec, x=x, output=y, epilogue=Epilogue(index, spec.epilogue.acc, bias_relu(spec.epilogue.acc, index, (), y)))
    rng = np.random.default_rng(0)
    xs = rng.standard_normal(x.physical_shape).astype(np.float32)
    w = rng.standard_normal(spec.weight_shape).astype(np.float32)
    bias = rng.standard_normal(20).astype(np.float32)
    xs[:, 1, ..., 8:] = np.nan  # channels 24..31 belong to somebody else
    out = np.full(y.physical_shape, 77, np.float32)
    library = compile_one(emit_conv(wide, target, "kernel"), target)
    library.call("kernel", [xs, pack_conv_weight(wide, target, w), bias, out], 2)
    logical = np.moveaxis(xs, -1, 2).reshape(2, 80, 4, 5)[:, :24]
    expected = np.maximum(np.einsum("nchw,oc->nohw", logical, w[:, :, 0, 0]) + bias[:, None, None], 0.5)
    np.testing.assert_allclose(np.moveaxis(out, -1, 2).reshape(2, 96, 4, 5)[:, :20], expected, atol=1e-5)
    assert (out[:, 2:] == 77).all()
    assert (out[:, 1, ..., 4:] == 0).all()


def test_what_is_refused() -> None:
    target = named("avx2")
    with pytest.raises(UnsupportedError, match="blocks of 16"):
        emit_conv(conv_spec(named("avx512"), 16, 16, (4, 4), (1, 1)), target, "k")
    with pytest.raises(ShapeError, match="halo"):
        emit_conv(conv_spec(target, 8, 8, (4, 4), (3, 3), halo=((1, 0), (1, 1))), target, "k")
    with pytest.raises(UnsupportedError, match="f16"):
        emit_conv(conv_spec(target, 8, 8, (4, 4), (3, 3), dtype=f16), target, "k")

    with pytest.raises(UnsupportedError, match="epilogue of bool"):
        emit_conv(conv_spec(target, 8, 8, (4, 4), (3, 3), epilogue=lambda acc, *_: ex.call("lt", acc, 0.0)), target, "k")
    with pytest.raises(UnsupportedError, match="reduction"):
        emit_conv(conv_spec(target, 8, 8, (4, 4), (3, 3), epilogue=lambda acc, *_: ex.reduce("sum", (2,), lambda i: acc)), target, "k")


def test_flops_and_family() -> None:
    target = named("avx2")
    assert flops(conv_spec(target, 8, 16, (4, 5), (3, 3))) == 2 * 16 * 4 * 5 * 8 * 9
    assert is_depthwise(conv_spec(target, 8, 8, (4, 5), (3, 3), groups=8))
    assert not is_depthwise(conv_spec(target, 8, 16, (4, 5), (3, 3), groups=8))
