"""Builders of conv and matmul specs, and a runner that compares a kernel with its numpy model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from graphc.kernel import expr as ex
from graphc.kernel.spec import ConvSpec, Epilogue, MatmulSpec, Operand
from graphc.target import Target, named
from graphc.types.dtype import DType, f32, i64
from graphc.types.layout import Layout
from graphc_cpu import jit
from graphc_cpu.emit.ir import Function, module
from graphc_cpu.kernels.conv import emit_conv
from graphc_cpu.kernels.matmul import emit_matmul, pack_matmul_weight
from graphc_cpu.kernels.model import conv_model, matmul_model
from graphc_cpu.kernels.pack import pack_conv_weight

Array = np.ndarray[Any, Any]
LEVELS = ("avx512", "avx2", "sse2")
MakeEpilogue = Callable[[ex.Expr, tuple[ex.Expr, ...], Sequence[Operand], Operand], ex.Expr]


def conv_spec(
    target: Target, ic: int, oc: int, size: Sequence[int], kernel: Sequence[int], *, n: int = 1, stride: Sequence[int] = (),
    dilation: Sequence[int] = (), pad: Sequence[tuple[int, int]] | None = None, groups: int = 1, dtype: DType = f32,
    plain_x: bool = False, plain_y: bool = False, halo: Sequence[tuple[int, int]] | None = None,
    out_halo: Sequence[tuple[int, int]] = (), epilogue: MakeEpilogue | None = None, extras: Sequence[Operand] = (),
) -> ConvSpec:  # fmt: skip
    """A convolution; pad defaults to "same" for odd kernels. `epilogue(acc, index, extras, output)` builds the value."""
    rank = len(size)
    stride, dilation = tuple(stride) or (1,) * rank, tuple(dilation) or (1,) * rank
    pads = tuple(pad) if pad is not None else tuple((k // 2, k // 2) for k in kernel)
    lanes = target.lanes(dtype)
    out = tuple(
        (s + b + a - d * (k - 1) - 1) // st + 1 for s, (b, a), d, k, st in zip(size, pads, dilation, kernel, stride, strict=True)
    )
    x = Operand(dtype, (n, ic, *size), Layout(0 if plain_x else lanes, tuple(halo) if halo is not None else pads))
    y = Operand(dtype, (n, oc, *out), Layout(0 if plain_y else lanes, tuple(out_halo)))
    extents = (n, oc, *out) if plain_y else (n, -(-oc // lanes), *out, lanes)
    index = tuple(ex.index(f"i{d}", extent) for d, extent in enumerate(extents))
    acc = ex.arg("acc", dtype)
    value = epilogue(acc, index, extras, y) if epilogue else acc
    first = tuple(b for b, _ in pads)
    return ConvSpec(x, (oc, ic // groups, *kernel), tuple(extras), y, stride, dilation, first, groups, Epilogue(index, acc, value))


def channel(index: Sequence[ex.Expr], output: Operand) -> ex.Expr:
    """The output channel, as an expression of the epilogue's loop variables."""
    return index[1] * output.layout.block + index[-1] if output.layout.is_blocked else index[1]


def bias_relu(acc: ex.Expr, index: tuple[ex.Expr, ...], extras: Sequence[Operand], output: Operand) -> ex.Expr:
    """max(acc + bias, 0.5): not zero at zero, so that padding lanes show."""
    return ex.maximum(acc + ex.load(2, channel(index, output), acc.dtype), 0.5)


def with_bias(target: Target, ic: int, oc: int, *args: Any, dtype: DType = f32, **kwargs: Any) -> ConvSpec:
    return conv_spec(target, ic, oc, *args, dtype=dtype, epilogue=bias_relu, extras=(Operand(dtype, (oc,)),), **kwargs)


def matmul_spec(
    m: int, n: int, k: int, *, batch: Sequence[int] = (), packed: bool = True, dtype: DType = f32, transpose: str = "",
    shared: str = "", bias: bool = False,
) -> MatmulSpec:  # fmt: skip
    """`transpose` and `shared` name operands out of "abc": stored with the last two dims swapped; without batch dims."""
    batch = tuple(batch)
    shared += "b" if packed else ""

    def strides(name: str, rows: int, columns: int) -> tuple[int, ...]:
        matrix = (1, rows) if name in transpose else (columns, 1)
        outer = tuple(0 if name in shared else rows * columns * prod(batch[d + 1 :]) for d in range(len(batch)))
        return (*outer, *matrix)

    def operand(name: str, rows: int, columns: int) -> Operand:
        return Operand(dtype, (rows, columns) if name in shared else (*batch, rows, columns))

    a, b, c = operand("a", m, k), operand("b", k, n), operand("c", m, n)
    index = tuple(ex.index(f"j{d}", extent) for d, extent in enumerate((*batch, m, n)))
    acc = ex.arg("acc", dtype)
    value, extras = acc, ()
    if bias:
        offset = sum((i * s for i, s in zip(index, strides("c", m, n), strict=True)), ex.const(0, i64))
        value = ex.maximum(acc + ex.load(2, index[-1], dtype), 0) + ex.load(3, offset, dtype)
        extras = (Operand(dtype, (n,)), c)
    return MatmulSpec(
        dtype, batch, m, n, k, a, b, strides("a", m, k), strides("b", k, n), strides("c", m, n), packed, extras, c,
        Epilogue(index, acc, value),
    )  # fmt: skip


def random(operand: Operand, rng: np.random.Generator) -> Array:
    """A flat buffer: random where the tensor is, zero in halo and padding lanes."""
    dtype = operand.dtype.numpy
    flat = np.zeros(operand.elements, dtype)
    fill = rng.integers(-9, 10, operand.shape) if dtype.kind in "iu" else rng.standard_normal(operand.shape)
    if dtype.kind == "b":
        fill = rng.integers(0, 2, operand.shape)
    physical = flat.reshape(operand.physical_shape)
    halo = operand.layout.halo or ((0, 0),) * (len(operand.shape) - 2)
    inner = tuple(slice(before, before + size) for (before, _), size in zip(halo, operand.shape[2:], strict=False))
    if not operand.layout.is_blocked:
        physical[(slice(None), slice(None), *inner)[: physical.ndim]] = fill
        return flat
    block = operand.layout.block
    for c in range(operand.shape[1]):
        physical[(slice(None), c // block, *inner, c % block)] = fill[:, c]
    return flat


def compile_one(f: Function, target: Target) -> jit.Library:
    return jit.build({f.name: module(target.triple, [f])}, target)


def check_conv(spec: ConvSpec, level: str, threads: Sequence[int] = (1, 2, 3)) -> Array:
    """Runs kernel and model on random operands: equal up to rounding, same bits for any number of threads, halo untouched."""
    target, rng = named(level), np.random.default_rng(7)
    operands = [random(o, rng) for o in spec.operands[:-1]]
    packed = [operands[0], pack_conv_weight(spec, target, operands[1].reshape(spec.weight_shape)), *operands[2:]]
    return _check(spec, compile_one(emit_conv(spec, target, "kernel"), target), operands, packed, conv_model, threads)


def check_matmul(spec: MatmulSpec, level: str, threads: Sequence[int] = (1, 2, 3)) -> Array:
    target, rng = named(level), np.random.default_rng(7)
    operands = [random(o, rng) for o in spec.operands[:-1]]
    packed = list(operands)
    if spec.packed:
        packed[1] = pack_matmul_weight(spec, target, operands[1].reshape(spec.k, spec.n))
    return _check(spec, compile_one(emit_matmul(spec, target, "kernel"), target), operands, packed, matmul_model, threads)


def _check(
    spec: Any, library: jit.Library, operands: list[Array], packed: list[Array], model: Callable[..., None], threads: Sequence[int]
) -> Array:
    guard, mark = 32, 77
    expected = np.full(spec.output.elements, mark, spec.output.dtype.numpy)
    model(spec, [*operands, expected])
    results = []
    for count in threads:
        result = np.full(spec.output.elements + guard, mark, spec.output.dtype.numpy)
        library.call("kernel", [*packed, result], count)
        assert (result[-guard:] == mark).all(), "written beyond the output"
        results.append(result[:-guard])
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    assert (expected != mark).any() or not prod(spec.output.shape), "the model wrote nothing"
    if spec.output.dtype.is_float:
        scale = np.abs(expected).max()
        epsilon = np.finfo(spec.output.dtype.numpy).eps
        np.testing.assert_allclose(results[0], expected, rtol=0, atol=64 * epsilon * scale)
    else:
        np.testing.assert_array_equal(results[0], expected)
    return results[0]
