"""Samples of normalisations and softmax. The oracle is PyTorch, or ONNX Runtime where the definitions differ (LRN)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ops.norm import LRN, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LogSoftmax, RMSNorm, Softmax
from graphc.types.dtype import DType, f16, f32, f64
from ops.oracles import by_ort, by_torch
from ops.sample import Array, Data, Sample

INF, NAN = math.inf, math.nan
TOLERANCE: dict[DType, tuple[float, float]] = {f32: (2e-5, 2e-6), f64: (1e-12, 1e-13), f16: (2e-3, 1e-3)}


def in_double(formula: Callable[..., Any]) -> Callable[..., Array]:
    """The oracle in float64, rounded to the dtype of x."""
    return lambda *arrays: np.asarray(formula(*(a.astype(np.float64) for a in arrays))).astype(arrays[0].dtype)


def torch_functional(name: str, *positions: Any, **attributes: Any) -> Callable[..., Array]:
    """torch.nn.functional.<name>(x, *positions, *further inputs, **attributes) in float64."""
    return in_double(by_torch(lambda torch: lambda x, *rest: getattr(torch.nn.functional, name)(x, *positions, *rest, **attributes)))


def _sample(label: str, op: Any, inputs: tuple[Any, ...], oracle: Any, symbolic: tuple[str, ...] = (), d: DType = f32) -> Sample:
    rtol, atol = TOLERANCE[d]
    return Sample(label, op, inputs, oracle, symbolic, rtol=rtol, atol=atol)


def _batch(epsilon: float) -> Callable[..., Array]:
    def call(torch: Any) -> Callable[..., Any]:
        return lambda x, scale, bias, mean, var: torch.nn.functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)

    return in_double(by_torch(call))


def _batch_norm() -> list[Sample]:
    found = []
    for d in (f32, f64, f16):
        for shape in ((2, 5, 7, 3), (3, 17), (2, 3, 9), (1, 3, 2, 3, 4)):
            c = (shape[1],)
            inputs = (Data(shape, d), Data(c, d, 0.5, 2), Data(c, d), Data(c, d), Data(c, d, 0.1, 3))
            text = ",".join(["N", *map(str, shape[1:])])
            found.append(_sample(f"{d} {shape}", BatchNorm(), inputs, _batch(1e-5), (text, *[str(shape[1])] * 4), d))
    c = (4,)
    wide = (Data((2, 4, 3)), Data(c), Data(c), Data(c), np.array([0, 1e-4, 1, 1e8], np.float32))
    found.append(_sample("epsilon, zero variance", BatchNorm(1e-2), wide, _batch(1e-2)))
    found.append(_sample("no batch", BatchNorm(), (Data((0, 4, 3)), Data(c), Data(c), Data(c), Data(c, low=0.1)), lambda x, *v: x))
    return found


def _layer_norm() -> list[Sample]:
    found = []
    for d in (f32, f64, f16):
        for axis in range(4):
            shape = (2, 3, 4, 5)
            tail = shape[axis:]
            label, op = f"{d}, axis {axis}", LayerNorm(axis)
            inputs = (Data(shape, d), Data(tail, d), Data(tail, d))
            oracle = torch_functional("layer_norm", tail)
            symbolic = ("N,3,4,5", *[",".join(map(str, tail))] * 2) if axis else ()
            found.append(_sample(f"{label}, scale and bias", op, inputs, oracle, symbolic, d))
            found.append(_sample(f"{label}, scale", op, inputs[:2], oracle, symbolic[:2], d))
            found.append(_sample(label, op, inputs[:1], oracle, symbolic[:1], d))
            found.append(_sample(label, RMSNorm(axis, 1e-5), inputs[:2], torch_functional("rms_norm", tail, eps=1e-5), symbolic[:2], d))
            unscaled = torch_functional("rms_norm", tail, None, 1e-5)
            found.append(_sample(f"{label}, no scale", RMSNorm(axis, 1e-5), inputs[:1], unscaled, d=d))
    for epsilon in (1e-6, 1e-12, 1e-1):
        oracle = torch_functional("layer_norm", (33,), None, None, epsilon)
        found.append(_sample(f"epsilon {epsilon}", LayerNorm(1, epsilon), (Data((3, 33)),), oracle))
    far = Data((2, 64), low=1000, high=1001)
    found.append(Sample("far from zero: two-pass", LayerNorm(1), (far,), torch_functional("layer_norm", (64,)), atol=2e-3))
    found.append(_sample("constant row", LayerNorm(1), (np.full((2, 5), 3, np.float32),), np.zeros_like))
    found.append(_sample("scale of the last axis only", LayerNorm(1), (Data((2, 3, 5)), Data((5,)), Data((1, 5))), _parts))
    found.append(_sample("one element", LayerNorm(0), (Data((1,)),), np.zeros_like))
    found.append(_sample("no row", LayerNorm(1), (Data((0, 5)),), lambda x: x))
    found.append(_sample("special", LayerNorm(1), (Data((3, 8), special=True),), torch_functional("layer_norm", (8,))))
    return found


def _parts(x: Array, scale: Array, bias: Array) -> Array:
    x = x.astype(np.float64)
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return np.asarray((x - mean) / np.sqrt(var + 1e-5) * scale + bias, np.float32)


def _instance_and_group() -> list[Sample]:
    found = []
    for d in (f32, f64, f16):
        for shape in ((2, 6, 5, 7), (1, 6, 9), (2, 6, 2, 3, 4)):
            c = Data((6,), d)
            inputs, text = (Data(shape, d), c, c), ("N," + ",".join(map(str, shape[1:])), "6", "6")
            instance = torch_functional("instance_norm", None, None, eps=1e-5)
            found.append(_sample(f"{d} {shape}", InstanceNorm(), inputs, instance, text, d))
            for groups in (1, 2, 3, 6):
                group = torch_functional("group_norm", groups)
                found.append(_sample(f"{d} {shape}, groups {groups}", GroupNorm(groups), inputs, group, text, d))
    c = Data((4,))
    found.append(_sample("epsilon", InstanceNorm(0.1), (Data((1, 4, 9)), c, c), torch_functional("instance_norm", None, None, eps=0.1)))
    found.append(_sample("epsilon", GroupNorm(2, 0.1), (Data((1, 4, 9)), c, c), torch_functional("group_norm", 2, eps=0.1)))
    found.append(_sample("no spatial axis", GroupNorm(2), (Data((3, 4)), c, c), torch_functional("group_norm", 2)))
    found.append(_sample("no batch", GroupNorm(2), (Data((0, 4, 3)), c, c), lambda x, *v: x))
    return found


def _even_lrn(size: int, alpha: float, beta: float, bias: float) -> Callable[[Array], Array]:
    def oracle(x: Array) -> Array:
        squares = np.pad(x.astype(np.float64) ** 2, ((0, 0), (size // 2 - 1, size // 2), (0, 0), (0, 0)))
        total = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(-1)
        return np.asarray(x / (bias + alpha / size * total) ** beta, np.float32)

    return oracle


def _local_response() -> list[Sample]:
    found = []
    for size in (1, 2, 3, 4, 5, 9):
        attributes = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 2.0}
        for shape in ((2, 7, 3, 5), (1, 3, 2, 2)):
            oracle = by_ort("LRN", **attributes) if size % 2 else _even_lrn(**attributes)  # the former takes odd sizes only
            found.append(_sample(f"size {size} {shape}", LRN(size, 0.5, 0.6, 2.0), (Data(shape),), oracle, ("N,C,H,W",)))
    found.append(_sample("AlexNet", LRN(5, 1e-4, 0.75, 1.0), (Data((1, 96, 2, 3), low=-60, high=60),), by_ort("LRN", size=5)))
    found.append(_sample("one spatial axis", LRN(3, 0.1), (Data((2, 5, 4)),), torch_functional("local_response_norm", 3, 0.1)))
    found.append(_sample("f64", LRN(5, 0.1), (Data((2, 9, 4), f64),), torch_functional("local_response_norm", 5, 0.1), d=f64))
    found.append(_sample("f16", LRN(5, 0.1), (Data((2, 9, 4), f16),), torch_functional("local_response_norm", 5, 0.1), d=f16))
    return found


def _softmaxes() -> list[Sample]:
    found = []
    rows = np.array(
        [[-INF, -INF, -INF], [-INF, 0, 1], [INF, 0, 1], [NAN, 0, 1], [1e30, -1e30, 0], [88, 89, 90], [-200, -201, -300]], np.float32
    )
    for op, name in ((Softmax, "softmax"), (LogSoftmax, "log_softmax")):
        for d in (f32, f64, f16):
            for axis in range(3):
                data = Data((3, 5, 7), d, -9, 9)
                found.append(_sample(f"{d}, axis {axis}", op(axis), (data,), torch_functional(name, axis), ("N,5,W",), d))
        found.append(_sample("special rows", op(1), (rows,), torch_functional(name, 1)))
        found.append(_sample("1000 classes", op(1), (Data((2, 1000), low=-20, high=20),), torch_functional(name, 1), ("N,1000",)))
        found.append(_sample("(1, 10, 1, 1), axis 1", op(1), (Data((1, 10, 1, 1)),), torch_functional(name, 1)))
        found.append(_sample("one element", op(0), (Data((1,)),), torch_functional(name, 0)))
        found.append(_sample("empty axis", op(1), (Data((2, 0)),), lambda x: x))
        found.append(_sample("no row", op(1), (Data((0, 3)),), lambda x: x))
        found.append(_sample("vector of 33", op(0), (Data((33,)),), torch_functional(name, 0), ("N",)))
    return found


SAMPLES: list[Sample] = [*_batch_norm(), *_layer_norm(), *_instance_and_group(), *_local_response(), *_softmaxes()]
