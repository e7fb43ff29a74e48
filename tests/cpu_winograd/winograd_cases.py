"""Builders of Winograd specs, and a runner that compares both forms with the numpy model of the convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cpu_conv.cases import random, with_bias
from graphc.kernel.spec import (
    ConvSpec,
    KernelSpec,
    TileGrid,
    WinogradConv,
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
    tile_buffer,
)
from graphc.target import Target
from graphc.types.dtype import f32
from graphc_cpu import jit
from graphc_cpu.emit.ir import module
from graphc_cpu.kernels.model import conv_model
from graphc_cpu.kernels.winograd import emit_winograd
from graphc_cpu.kernels.winograd_pack import pack_winograd_weight

Array = np.ndarray[Any, Any]
ThreeSteps = tuple[WinogradInput, WinogradProduct, WinogradOutput]


def grid_of(conv: ConvSpec, m: int) -> TileGrid:
    n, _, h, w = conv.output.shape
    return TileGrid(m, n, -(-h // m), -(-w // m))


def conv_for(target: Target, ic: int, oc: int, size: Sequence[int], m: int, pad: int = 1, **kwargs: Any) -> ConvSpec:
    """3x3 with bias and clamp; the halo lets whole tiles be read."""
    halo = tuple((pad, -(-(s + 2 * pad - 2) // m) * m + 2 - pad - s) for s in size)
    return with_bias(target, ic, oc, size, (3, 3), pad=((pad, pad), (pad, pad)), halo=halo, **kwargs)


def fused(conv: ConvSpec, m: int, tiles: int, chunk: int) -> WinogradConv:
    return WinogradConv(conv, grid_of(conv, m), tiles, chunk)


def steps(conv: ConvSpec, m: int, chunk: int) -> ThreeSteps:
    grid, lanes = grid_of(conv, m), conv.x.layout.block
    blocks = [-(-channels // lanes) for channels in (conv.weight_shape[1], conv.weight_shape[0])]
    v, p = (tile_buffer(f32, grid, grid.count, count, lanes) for count in blocks)
    return (
        WinogradInput(conv.x, conv.pad, grid, v),
        WinogradProduct(v, conv.weight_shape, p, grid, lanes, chunk),
        WinogradOutput(p, conv, grid),
    )


def compiled(specs: Sequence[KernelSpec], target: Target) -> jit.Library:
    sources = {f"k{i}": module(target.triple, [emit_winograd(spec, target, f"k{i}")]) for i, spec in enumerate(specs)}  # type: ignore[arg-type]
    return jit.build(sources, target)


def operands_of(conv: ConvSpec, seed: int = 7) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [random(operand, rng) for operand in conv.operands[:-1]]


def run_fused(spec: WinogradConv, target: Target, operands: Sequence[Array], threads: Sequence[int]) -> list[Array]:
    """The output's memory (77 where nothing is stored) per number of threads; scratch starts as NaN."""
    x, w, *extras = operands
    library = compiled([spec], target)
    packed = pack_winograd_weight(spec, w)
    results = []
    for count in threads:
        out = np.full(spec.conv.output.elements + 32, 77, np.float32)
        scratch = np.full(spec.scratch.elements * count + 32, np.nan, np.float32)
        library.call("k0", [x, packed, *extras, out, scratch], count)
        assert np.isnan(scratch[-32:]).all(), "written beyond the scratch"
        results.append(out)
    return results


def run_steps(specs: ThreeSteps, target: Target, operands: Sequence[Array], threads: Sequence[int]) -> list[Array]:
    x, w, *extras = operands
    library = compiled(specs, target)
    packed = pack_winograd_weight(specs[1], w)
    results = []
    for count in threads:
        out = np.full(specs[2].conv.output.elements + 32, 77, np.float32)
        v, p = (np.full(o.elements, np.nan, np.float32) for o in (specs[1].transformed, specs[1].product))
        library.call("k0", [x, v], count)
        library.call("k1", [v, packed, p], count)
        library.call("k2", [p, *extras, out], count)
        results.append(out)
    return results


def expected(conv: ConvSpec, operands: Sequence[Array]) -> Array:
    """By the definition, sums in float64."""
    out = np.full(conv.output.elements, 77, np.float32)
    conv_model(conv, [*operands, out])
    return np.concatenate([out, np.full(32, 77, np.float32)])


def check(results: Sequence[Array], wanted: Array, tolerance: float) -> None:
    """Equal bits for all numbers of threads, close to what is wanted, nothing else touched."""
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    assert (wanted != 77).any()
    np.testing.assert_array_equal(wanted == 77, results[0] == 77)
    np.testing.assert_allclose(results[0], wanted, rtol=0, atol=tolerance * np.abs(wanted[wanted != 77]).max())
