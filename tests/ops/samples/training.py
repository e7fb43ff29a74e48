"""Samples of the ops of training: batch statistics, random bits, dropout."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from graphc.ops.conv_weight import ConvWeightGradient
from graphc.ops.interleave import Interleave
from graphc.ops.norm_training import BatchNormTraining
from graphc.ops.pool import AvgPool
from graphc.ops.pool_spread import PoolSpread
from graphc.ops.random import Dropout, RandomBits, RandomBitsAt
from graphc.types.dtype import DType, f16, f32, f64
from ops.sample import Array, Data, Sample

_TOLERANCE: dict[DType, tuple[float, float]] = {f32: (2e-5, 4e-6), f64: (1e-12, 1e-12), f16: (2e-3, 2e-3)}


def _one_pass(x: Array, scale: Array, bias: Array) -> tuple[Array, ...]:
    """By the other formula of the variance, E[x^2] - E[x]^2, channels first, in float64."""
    rows = np.moveaxis(x.astype(np.float64), 1, 0)
    flat = rows.reshape(rows.shape[0], -1)
    mean = flat.sum(axis=1) / flat.shape[1]
    var = (flat * flat).sum(axis=1) / flat.shape[1] - mean * mean
    y = np.stack([(row - m) / np.sqrt(v + 1e-5) * s + b for row, m, v, s, b in zip(rows, mean, var, scale, bias, strict=True)], axis=1)
    return tuple(v.astype(x.dtype) for v in (y, mean, var))


def _batch_norm() -> list[Sample]:
    found = []
    for d in (f32, f64, f16):
        rtol, atol = _TOLERANCE[d]
        for shape in ((4, 5, 7, 3), (6, 17), (2, 3, 9), (2, 3, 2, 3, 4)):
            inputs = (Data(shape, d), Data(shape[1:2], d, 0.5, 2), Data(shape[1:2], d))
            text = ",".join(["N", *map(str, shape[1:])])
            symbolic = (text, str(shape[1]), str(shape[1]))
            sample = Sample(f"{d} {shape}", BatchNormTraining(), inputs, _one_pass, symbolic, rtol=rtol, atol=atol)
            found.append(replace(sample, differentiable=False))  # several outputs: their gradients are tested in tests/autodiff
    return found


def _philox(seed: int, step: int, stream: int, shape: tuple[int, ...]) -> Array:
    """Salmon et al. 2011, in Python's integers."""
    mask = 2**32 - 1
    words = []
    for i in range(int(np.prod(shape))):
        counter, key = [i & mask, i >> 32, step & mask, stream], [seed & mask, seed >> 32]
        for _ in range(10):
            one, two = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = [(two >> 32) ^ counter[1] ^ key[0], two & mask, (one >> 32) ^ counter[3] ^ key[1], one & mask]
            key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
        words.append(counter[0])
    return np.array(words, np.uint32).reshape(shape)


def _random() -> list[Sample]:
    found = []
    cases = (((5, 7), 0, 0, 0), ((2, 3, 9), 3, 2**64 - 1, 17), ((33,), 1, 12345678901234567890, 2**33 + 5), ((), 0, 1, 1))
    for shape, stream, seed, step in cases:
        inputs = (np.array(seed, np.uint64), np.array(step, np.uint64))
        expected = _philox(seed, step, stream, shape)
        found.append(Sample(f"seed {seed}", RandomBits(shape, stream), inputs, lambda *_, expected=expected: expected))
        places = np.array([[5, 0], [2, 5]]) % expected.size
        some = expected.reshape(-1)[places]
        found.append(Sample(f"some, seed {seed}", RandomBitsAt(stream), (places, *inputs), lambda *_, some=some: some, ("N,2", "", "")))
    return found


def _spread() -> list[Sample]:
    """The oracle is PyTorch's gradient of the sum over windows."""
    cases: list[tuple[tuple[int, ...], tuple[Any, ...]]] = [
        ((2, 3, 6, 8), ((2, 2), (2, 2), (1, 1), (0, 0), (0, 0))),
        ((2, 3, 7, 9), ((2, 2), (2, 2), (1, 1), (0, 0), (0, 0))),
        ((1, 2, 7, 6), ((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))),
        ((2, 3, 5, 9), ((3, 2), (1, 3), (1, 1), (1, 0), (1, 0))),
        ((2, 17, 11), ((4,), (3,), (1,), (2,), (2,))),
    ]
    found = []
    for shape, fields in cases:
        pooled = AvgPool(*fields).infer(f64[shape])
        for d in (f32, f64):
            rtol, atol = _TOLERANCE[d]
            oracle = _torch_spread(shape, fields)
            inputs = (Data(pooled.static_shape, d),)
            found.append(Sample(f"{d} {shape}", PoolSpread(*fields, False, shape), inputs, oracle, rtol=rtol, atol=atol))
    return found


def _torch_spread(shape: tuple[int, ...], fields: tuple[Any, ...]) -> Any:
    def oracle(x: Array) -> Array:
        torch: Any = pytest.importorskip("torch")

        kernel, stride, _, pad, _ = fields
        pool = getattr(torch.nn.functional, f"avg_pool{len(kernel)}d")
        leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        y: Any = pool(leaf, kernel, stride, pad) * float(np.prod(kernel))
        y.backward(torch.from_numpy(x.astype(np.float64)))
        assert leaf.grad is not None
        return np.asarray(leaf.grad.numpy()).astype(x.dtype)

    return oracle


def _weight_gradient() -> list[Sample]:
    """The oracle is PyTorch's gradient of a convolution with respect to its weight."""
    cases: list[tuple[tuple[int, ...], int, tuple[Any, ...]]] = [
        ((2, 3, 7, 8), 4, ((3, 3), (1, 1), (1, 1), (1, 1))),
        ((2, 6, 7, 8), 9, ((3, 3), (1, 1), (1, 1), (1, 1), 3)),
        ((2, 17, 7, 9), 17, ((3, 3), (2, 1), (1, 1), (1, 1), 17)),
        ((2, 17, 9, 6), 33, ((3, 2), (2, 1), (1, 1), (1, 0))),
        ((3, 16, 8, 8), 20, ((3, 3), (1, 1), (1, 1), (1, 1))),
        ((1, 5, 9, 10), 16, ((2, 3), (1, 2), (3, 2), (0, 2))),
        ((4, 24, 5, 5), 40, ((1, 1), (2, 2), (1, 1), (0, 0))),
        ((2, 1, 6, 28), 6, ((5, 5), (1, 1), (1, 1), (2, 2))),
        ((3, 12, 19), 20, ((3,), (1,), (1,), (1,))),
        ((2, 3, 4, 5, 6), 18, ((2, 1, 3), (1, 2, 1), (1, 1, 1), (1, 0, 1))),
    ]
    found = []
    for shape, channels, fields in cases:
        kernel, stride, dilation, pad, *_ = fields
        rows = zip(shape[2:], kernel, stride, dilation, pad, strict=True)
        grad = (shape[0], channels, *((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, d, p in rows))
        for d in (f32, f64):
            rtol, atol = _TOLERANCE[d]
            oracle = _torch_weight_gradient(fields)
            found.append(Sample(f"{d} {shape}", ConvWeightGradient(*fields), (Data(shape, d), Data(grad, d)), oracle, rtol=rtol, atol=atol))
    return found


def _torch_weight_gradient(fields: tuple[Any, ...]) -> Any:
    def oracle(x: Array, grad: Array) -> Array:
        torch: Any = pytest.importorskip("torch")
        kernel, stride, dilation, pad, groups = (*fields, 1)[:5]
        conv = getattr(torch.nn.functional, f"conv{len(kernel)}d")
        weight = torch.zeros((grad.shape[1], x.shape[1] // groups, *kernel), dtype=torch.float64, requires_grad=True)
        y: Any = conv(torch.from_numpy(x.astype(np.float64)), weight, None, stride, pad, dilation, groups)
        y.backward(torch.from_numpy(grad.astype(np.float64)))
        assert weight.grad is not None
        return np.asarray(weight.grad.numpy()).swapaxes(0, 1).astype(x.dtype)

    return oracle


def _interleaved(*parts: Array, shape: tuple[int, ...], phases: list[tuple[int, ...]], stride: tuple[int, ...]) -> Array:
    y = np.zeros(shape, parts[0].dtype)
    for part, phase in zip(parts, phases, strict=True):
        for place in np.ndindex(*part.shape[2:]):
            y[(slice(None), slice(None), *(a + s * j for a, s, j in zip(phase, stride, place, strict=True)))] = part[(..., *place)]
    return y


def _interleave() -> list[Sample]:
    found = []
    cases: list[tuple[tuple[int, ...], tuple[int, ...], set[int]]] = [
        ((2, 3, 4, 6), (2, 2), set()), ((1, 17, 5, 7), (2, 2), {1, 3}), ((2, 3, 7), (3,), {0}), ((2, 3, 5, 4), (1, 3), set()),
    ]  # fmt: skip
    for shape, stride, absent in cases:
        every = list(np.ndindex(*stride))
        phases = [phase for number, phase in enumerate(every) if number not in absent]
        sizes = [tuple(-(-(n - a) // s) for n, a, s in zip(shape[2:], phase, stride, strict=True)) for phase in phases]
        inputs = tuple(Data((*shape[:2], *size)) for size in sizes)
        op = Interleave(stride, tuple(number not in absent for number in range(len(every))), shape)
        found.append(Sample(f"{shape} by {stride}", op, inputs, partial(_interleaved, shape=shape, phases=phases, stride=stride)))
    return found


SAMPLES: list[Sample] = [
    *_interleave(),
    *_spread(),
    *_weight_gradient(),
    *_batch_norm(),
    *_random(),
    *(Sample(f"{d}", Dropout(0.3), (Data((3, 4), d),), lambda x: x, ("N,4",)) for d in (f32, f64, f16)),
]
