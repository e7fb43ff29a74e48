"""The numpy meaning of the conv and matmul kernels on their physical operands: slow, and obviously right.

`operands` are flat arrays in `spec.operands` order (weights in their logical order, not packed); the output is written in place.
Sums are made in float64 (integers: in int64, wrapping), so a kernel is compared against a better value than its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import Expr
from graphc.kernel.spec import ConvChain, ConvSpec, Epilogue, MatmulSpec, Operand

Array = npt.NDArray[Any]


def padded_map(operand: Operand, flat: Array) -> Array:
    """The logical (N, C, *spatial) tensor of an operand with its halo around it."""
    physical = np.lib.stride_tricks.as_strided(
        flat, operand.physical_shape, [s * flat.itemsize for s in operand.strides], writeable=False
    )
    channels = operand.shape[1]
    if not operand.layout.is_blocked:
        return physical[: operand.shape[0], :channels]
    moved = np.moveaxis(physical, -1, 2)
    return moved.reshape(moved.shape[0], -1, *moved.shape[3:])[: operand.shape[0], :channels]


def conv_model(spec: ConvSpec, operands: Sequence[Array]) -> None:
    """Direct convolution by its definition, then the epilogue, then zeros in the padding lanes of a blocked output."""
    x, w = padded_map(spec.x, operands[0]), operands[1].reshape(spec.weight_shape)
    halo = spec.x.layout.halo or ((0, 0),) * len(spec.stride)
    wide = np.float64 if spec.x.dtype.is_float else np.int64
    out_channels, per_group, *kernel = spec.weight_shape
    acc = np.zeros(spec.output.shape, wide)
    for oc in range(out_channels):
        group = oc // (out_channels // spec.groups)
        channels = x[:, group * per_group : (group + 1) * per_group]
        for position in np.ndindex(*kernel):
            window = tuple(
                slice(before - pad + k * dilation, before - pad + k * dilation + (size - 1) * stride + 1, stride)
                for k, dilation, stride, pad, (before, _), size in zip(
                    position, spec.dilation, spec.stride, spec.pad, halo, spec.output.shape[2:], strict=True
                )
            )
            taps = w[oc][(slice(None), *position)].astype(wide)
            acc[:, oc] += np.tensordot(channels[(slice(None), slice(None), *window)].astype(wide), taps, (1, 0))
    block = spec.output.layout.block
    if block:
        acc = _blocked(acc, block)
    offsets = spec.output.physical_offset(spec.epilogue.index)
    result = _apply(spec.epilogue, acc, operands, spec.x.dtype.numpy, out_channels if block else None)
    operands[-1][_evaluated(offsets, spec.epilogue.index, acc.shape)] = result


def chain_model(chain: ConvChain, operands: Sequence[Array]) -> None:
    """The first convolution into a map of zeros, then the second."""
    count = len(chain.first.operands) - 1
    between = np.zeros(chain.second.x.elements, chain.second.x.dtype.numpy)
    conv_model(chain.first, [*operands[:count], between])
    conv_model(chain.second, [between, *operands[count:]])


def matmul_model(spec: MatmulSpec, operands: Sequence[Array]) -> None:
    """Every element by its definition, then the epilogue."""
    wide = np.float64 if spec.dtype.is_float else np.int64
    sizes = (*spec.batch, spec.m, spec.n)
    batch = np.indices(spec.batch, sparse=False).reshape(len(spec.batch), *spec.batch)
    a = operands[0][_grid(batch, spec.a_strides, spec.m, spec.k)].astype(wide)
    b = operands[1][_grid(batch, spec.b_strides, spec.k, spec.n)].astype(wide)
    acc = np.matmul(a, b).reshape(sizes)
    result = _apply(spec.epilogue, acc, operands, spec.dtype.numpy, None)
    operands[-1][_grid(batch, spec.c_strides, spec.m, spec.n)] = result


def _grid(batch: Array, strides: Sequence[int], rows: int, columns: int) -> Array:
    """Offsets of a batch of matrices."""
    start = sum((index * stride for index, stride in zip(batch, strides, strict=False)), np.zeros(batch.shape[1:], np.int64))
    return start[..., None, None] + np.arange(rows)[:, None] * strides[-2] + np.arange(columns) * strides[-1]


def _blocked(acc: Array, block: int) -> Array:
    """(N, C, *spatial) -> (N, C/block, *spatial, block)."""
    n, c, *spatial = acc.shape
    wide = np.zeros((n, -(-c // block) * block, *spatial), acc.dtype)
    wide[:, :c] = acc
    return np.moveaxis(wide.reshape(n, -1, block, *spatial), 2, -1)


def _indices(index: Sequence[Expr], sizes: Sequence[int]) -> dict[Expr, Array]:
    grids = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    return dict(zip(index, grids, strict=True))


def _evaluated(offset: Expr, index: Sequence[Expr], sizes: Sequence[int]) -> Array:
    value = evaluate(offset, _indices(index, sizes))
    return np.broadcast_to(value, sizes)


def _apply(epilogue: Epilogue, acc: Array, operands: Sequence[Array], dtype: np.dtype[Any], channels: int | None) -> Array:
    """The epilogue on every element; lanes beyond `channels` (where given, for a blocked result) are zero."""
    env = {epilogue.acc: acc.astype(dtype), **_indices(epilogue.index, acc.shape)}
    valid = np.ones(acc.shape, bool) if channels is None else _valid_lanes(acc.shape, channels)

    def load(slot: int, offset: Array) -> Array:
        flat = operands[slot]
        return flat[np.where(valid, np.broadcast_to(offset, acc.shape), 0)]

    return np.where(valid, evaluate(epilogue.value, env, load), 0)


def _valid_lanes(shape: Sequence[int], channels: int) -> Array:
    block = np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return np.broadcast_to(block * shape[-1] + np.arange(shape[-1]) < channels, shape)
