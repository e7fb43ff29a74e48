"""A convolution and the depthwise convolution behind it in one step, against the numpy model and against two steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cpu_conv.cases import LEVELS, Array, channel, compile_one, conv_spec, random
from cpu_conv.spills import assert_no_spills
from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel import expr as ex
from graphc.kernel.spec import ChainBands, ConvChain, Operand
from graphc.target import Target, named
from graphc.types.dtype import f32, f64
from graphc_cpu.kernels.chain import emit_chain, pack_chain_weight
from graphc_cpu.kernels.conv import emit_conv
from graphc_cpu.kernels.model import chain_model
from graphc_cpu.kernels.pack import pack_conv_weight

CASES: dict[str, dict[str, Any]] = {
    "3x3": {"ic": 24, "oc": 64, "size": (14, 15)},
    "stride 2": {"ic": 16, "oc": 48, "size": (12, 12), "stride": 2},
    "stride 2, odd map": {"ic": 5, "oc": 33, "size": (13, 11), "stride": 2, "chunk": 1},
    "5x5, odd channels": {"ic": 17, "oc": 41, "size": (9, 11), "kernel": 5, "chunk": 3},
    "5x5 stride 2": {"ic": 8, "oc": 20, "size": (14, 14), "kernel": 5, "stride": 2, "bands": 2},
    "a first layer": {"ic": 3, "oc": 32, "size": (18, 22), "first": (3, 3), "first_stride": 2, "plain_x": True, "bands": 3},
    "bands of different height": {"ic": 9, "oc": 32, "size": (11, 6), "bands": 4},
    "bands of one row": {"ic": 9, "oc": 16, "size": (5, 6), "bands": 5, "kernel": 5},
    "uneven pads": {"ic": 4, "oc": 16, "size": (8, 9), "pad": ((0, 1), (2, 0)), "bands": 2},
    "no pads": {"ic": 4, "oc": 16, "size": (8, 9), "pad": ((0, 0), (0, 0)), "bands": 2},
    "bands in the padding": {"ic": 4, "oc": 16, "size": (3, 4), "pad": ((7, 8), (1, 1)), "bands": 12},
    "padding of as many rows as the kernel": {"ic": 4, "oc": 16, "size": (6, 4), "pad": ((3, 3), (1, 1)), "bands": 10},
    "padding beyond one row": {"ic": 4, "oc": 16, "size": (3, 4), "kernel": 1, "pad": ((2, 2), (1, 0)), "bands": 4},
    "a wider halo": {"ic": 4, "oc": 16, "size": (8, 9), "halo": ((2, 3), (4, 1)), "bands": 3},
    "dilated": {"ic": 4, "oc": 16, "size": (9, 10), "dilation": 2, "pad": ((2, 2), (2, 2)), "bands": 2},
    "one pixel": {"ic": 33, "oc": 40, "size": (1, 1)},
    "batch of 3": {"ic": 10, "oc": 24, "size": (7, 7), "n": 3},
    "f64": {"ic": 10, "oc": 24, "size": (7, 7), "dtype": f64},
}


def chain_spec(
    target: Target, ic: int, oc: int, size: tuple[int, int], *, kernel: int = 3, stride: int = 1, dilation: int = 1, first: Any = (1, 1),
    first_stride: int = 1, n: int = 1, dtype: Any = f32, pad: Any = None, halo: Any = None, plain_x: bool = False, chunk: int = 2,
    bands: int = 1,
) -> ChainBands:  # fmt: skip
    """Both with a bias and a maximum that is not zero at zero."""

    def value(acc: ex.Expr, index: tuple[ex.Expr, ...], _: object, output: Operand) -> ex.Expr:
        return ex.maximum(acc + ex.load(2, channel(index, output), acc.dtype), 0.25)

    bias = (Operand(dtype, (oc,)),)
    pads = pad or ((kernel // 2, kernel // 2),) * 2
    a = conv_spec(
        target, ic, oc, size, first, n=n, stride=(first_stride, first_stride), dtype=dtype, plain_x=plain_x, out_halo=halo or pads,
        epilogue=value, extras=bias,
    )  # fmt: skip
    b = conv_spec(
        target, oc, oc, a.output.shape[2:], (kernel, kernel), n=n, stride=(stride, stride), dilation=(dilation, dilation), pad=pads,
        halo=halo, groups=oc, dtype=dtype, epilogue=value, extras=bias,
    )  # fmt: skip
    return ChainBands(ConvChain(a, b), chunk, bands)


def _operands(spec: ChainBands) -> list[Array]:
    rng = np.random.default_rng(7)
    return [random(o, rng) for o in spec.chain.operands[:-1]]


def _run(spec: ChainBands, target: Target, threads: int) -> Array:
    chain, operands = spec.chain, _operands(spec)
    w1, w2 = chain.weights
    operands[w1] = pack_chain_weight(spec, target, operands[w1].reshape(chain.first.weight_shape))
    operands[w2] = pack_conv_weight(chain.second, target, operands[w2].reshape(chain.second.weight_shape))
    out = np.full(chain.output.elements + 32, 77, chain.output.dtype.numpy)
    scratch = np.full(spec.scratch.elements * threads + 32, np.nan, out.dtype)  # what was there before must not matter
    compile_one(emit_chain(spec, target, "kernel"), target).call("kernel", [*operands, out, scratch], threads)
    assert (out[-32:] == 77).all(), "written beyond the output"
    assert np.isnan(scratch[-32:]).all(), "written beyond the scratch"
    return out[:-32]


def _in_two_steps(spec: ChainBands, target: Target) -> Array:
    (first, second), operands = (spec.chain.first, spec.chain.second), _operands(spec)
    between, out = np.zeros(second.x.elements, second.x.dtype.numpy), np.full(second.output.elements, 77, second.x.dtype.numpy)
    for conv, inputs, result in ((first, operands[:3], between), (second, [between, *operands[3:]], out)):
        packed = [inputs[0], pack_conv_weight(conv, target, inputs[1].reshape(conv.weight_shape)), *inputs[2:]]
        compile_one(emit_conv(conv, target, "kernel"), target).call("kernel", [*packed, result])
    return out


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_matches_model_and_two_steps(case: dict[str, Any], level: str) -> None:
    target = named(level)
    spec = chain_spec(target, **case)
    results = [_run(spec, target, threads) for threads in (1, 2, 3)]
    expected = np.full(spec.chain.output.elements, 77, results[0].dtype)
    chain_model(spec.chain, [*_operands(spec), expected])
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=128 * np.finfo(expected.dtype).eps * np.abs(expected).max())
    for other in (*results[1:], _in_two_steps(spec, target)):
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("level", LEVELS)
def test_around_the_tile(off: int, level: str) -> None:
    """Channels around whole chunks, rows around whole tiles and bands; the form never changes a bit."""
    target = named(level)
    lanes = target.lanes(f32)
    spec = chain_spec(target, lanes + off, 4 * lanes + off, (8 + off, 14 + off), chunk=2, bands=2)
    wanted = _in_two_steps(spec, target)
    for chunk in (1, 2, 3, 4):
        for bands in (1, 2, 3):
            np.testing.assert_array_equal(_run(replace(spec, chunk=chunk, bands=bands), target, 2), wanted)


@pytest.mark.parametrize("level", ["avx512", "avx2", "neon"])
@pytest.mark.parametrize("shape", [(24, 144, (56, 56), 2), (160, 960, (7, 7), 1)])
def test_hot_loops_do_not_spill(shape: tuple[int, int, tuple[int, int], int], level: str) -> None:
    target, (inputs, outputs, size, bands) = named(level), shape
    assert_no_spills(emit_chain(chain_spec(target, inputs, outputs, size, bands=bands), target, "kernel"), target, integers=True)


def test_what_is_refused() -> None:
    target = named("avx2")
    spec = chain_spec(target, 8, 8, (4, 4))
    chain = spec.chain
    with pytest.raises(UnsupportedError, match="chain"):
        emit_chain(replace(spec, chain=ConvChain(chain.first, chain.first)), target, "k")
    with pytest.raises(UnsupportedError, match="blocks of 8"):
        emit_chain(spec, named("avx512"), "k")
    wrong = replace(chain.second, x=replace(chain.second.x, layout=replace(chain.second.x.layout, halo=((0, 0), (1, 1)))))
    with pytest.raises(ShapeError, match="halo"):
        emit_chain(replace(spec, chain=ConvChain(chain.first, wrong)), target, "k")
