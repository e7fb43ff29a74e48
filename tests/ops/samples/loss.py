"""Samples of the composed loss functions. The oracle is PyTorch, or the reference evaluator of the onnx package."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.graph import Value
from graphc.ops import loss
from graphc.types.dtype import f16, f32, f64, i32, i64
from ops.oracles import by_onnx, by_torch
from ops.sample import Array, Data, Sample

REDUCTIONS = loss.REDUCTIONS


def composed(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A builder function with its options bound."""

    def build(builder: Builder, *values: Value) -> Any:
        return fn(builder, *values, **options)

    build.__name__ = fn.__name__
    return build


def _class_losses() -> list[Sample]:
    found = []
    shapes = ((5, 7), (3, 4, 6), (2, 5, 3, 2), (1, 1))
    for fn, onnx, outputs in (
        (loss.softmax_cross_entropy, "SoftmaxCrossEntropyLoss", 2), (loss.nll_loss, "NegativeLogLikelihoodLoss", 1),
    ):  # fmt: skip
        for shape in shapes:
            classes, rest = shape[1], (shape[0], *shape[2:])
            scores, labels, weights = Data(shape, low=-4, high=0), Data(rest, i64, 0, classes), Data((classes,), low=0.2, high=2)
            for reduction in REDUCTIONS:
                for weighted in (False, True):
                    inputs = (scores, labels, weights) if weighted else (scores, labels)
                    label = f"{shape}, {reduction}{', weighted' if weighted else ''}"
                    oracle = by_onnx(onnx, outputs=outputs, reduction=reduction, opset=13)
                    found.append(Sample(label, composed(fn, reduction=reduction), inputs, oracle))
                    ignoring = by_onnx(onnx, outputs=outputs, reduction=reduction, ignore_index=0, opset=13)
                    build = composed(fn, reduction=reduction, ignore_index=0)
                    found.append(Sample(f"{label}, ignore 0", build, inputs, ignoring))
    return found


def _cross_entropy(**options: Any) -> Callable[..., Any]:
    def call(torch: Any) -> Callable[..., Any]:
        return lambda x, y: (torch.nn.functional.cross_entropy(x, y.long(), **options), torch.nn.functional.log_softmax(x, 1))

    return by_torch(call)


def _functional(name: str, **options: Any) -> Callable[..., Array]:
    call = by_torch(lambda torch: lambda x, y: getattr(torch.nn.functional, name)(x, y, **options))
    return lambda x, y: np.asarray(call(x.astype(np.float64), y.astype(np.float64))).astype(x.dtype)


def _elementwise_losses() -> list[Sample]:
    found = []
    for reduction in REDUCTIONS:
        for d, rtol in ((f32, 1e-5), (f64, 1e-12), (f16, 3e-3)):
            pair = (Data((4, 5), d, -3, 3), Data((4, 5), d, 0, 1))
            for fn, name, options in (
                (loss.mse, "mse_loss", {}), (loss.l1, "l1_loss", {}), (loss.huber, "huber_loss", {"delta": 0.7}),
                (loss.smooth_l1, "smooth_l1_loss", {"beta": 0.7}), (loss.smooth_l1, "smooth_l1_loss", {"beta": 0.0}),
                (loss.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", {}),
            ):  # fmt: skip
                oracle = _functional(name, reduction=reduction, **options)
                build = composed(fn, reduction=reduction, **options)
                label = ", ".join([f"{d}, {reduction}", *(f"{key}={value}" for key, value in options.items())])
                found.append(Sample(label, build, pair, oracle, rtol=rtol, atol=rtol / 5))
        for d, rtol in ((f32, 1e-5), (f64, 1e-12)):
            oracle = _functional("binary_cross_entropy", reduction=reduction)
            build = composed(loss.binary_cross_entropy, reduction=reduction)
            found.append(Sample(f"{d}, {reduction}", build, (Data((4, 5), d, 0, 1),) * 2, oracle, rtol=rtol, atol=rtol / 5))
    return found


SURE = np.array([[0.0, 1.0, 0.25]], np.float32)
MINUS_INF = np.array([[-math.inf, -1, -2], [-3, -0.5, -1]], np.float32)
SAMPLES: list[Sample] = [
    *_class_losses(),
    *_elementwise_losses(),
    Sample("i32 labels", composed(loss.softmax_cross_entropy), (Data((5, 7), f32), Data((5,), i32, 0, 7)), _cross_entropy()),
    Sample(
        "f64", composed(loss.softmax_cross_entropy), (Data((5, 7), f64), Data((5,), i64, 0, 7)), _cross_entropy(), rtol=1e-12, atol=1e-13
    ),
    Sample(
        "negative ignore_index", composed(loss.softmax_cross_entropy, ignore_index=-1),
        (Data((4, 3)), np.array([-1, 2, 0, -1])), _cross_entropy(ignore_index=-1),
    ),
    Sample(
        "all ignored", composed(loss.softmax_cross_entropy, ignore_index=1),
        (Data((2, 3)), np.array([1, 1])), _cross_entropy(ignore_index=1),
    ),
    Sample("ignored -inf", composed(loss.nll_loss, ignore_index=0), (MINUS_INF, np.array([0, 1])), lambda x, y: np.float32(0.5)),
    Sample("label out of range", composed(loss.nll_loss, reduction="sum"), (MINUS_INF, np.array([7, 1])), lambda x, y: np.float32(0.5)),
    Sample("sure", composed(loss.binary_cross_entropy, reduction="none"), (SURE, np.array([[1, 0, 1]], np.float32)),
           lambda x, y: np.array([[100, 100, np.log(4)]], np.float32)),
    Sample("smoothed", composed(loss.softmax_cross_entropy, label_smoothing=0.2, ignore_index=1),
           (Data((4, 3, 2)), np.array([[0, 1], [2, 2], [1, 1], [0, 2]])), _cross_entropy(label_smoothing=0.2, ignore_index=1)),
    Sample("empty", composed(loss.nll_loss, reduction="none"), (Data((0, 3)), Data((0,), i64)), lambda x, y: np.zeros(0, np.float32)),
]  # fmt: skip
