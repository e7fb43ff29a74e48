"""The ONNX backend test suite as data: cases, the core subset and its tiers, and the exclusion list."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import TestCase

import onnx
import onnx.backend.test

_TIER_1 = """
    Conv Reshape Add Relu Transpose Concat Gemm Mul MaxPool MatMul Softmax ReduceMean Slice Gather GlobalAveragePool Pad Sigmoid
    AveragePool BatchNormalization Flatten Squeeze Unsqueeze Clip Div Sub LSTM GRU RNN Tanh LRN Sum Dropout Expand GlobalMaxPool
    Constant ConstantOfShape Shape Cast Identity
"""
_TIER_2 = """
    LayerNormalization Gelu Resize ConvTranspose InstanceNormalization GroupNormalization Where Split Pow Sqrt ReduceL2 LeakyRelu
    PRelu HardSwish HardSigmoid Elu Selu Softplus Mish Erf Exp Log Neg Abs Min Max Equal Greater Less Not And Or LogSoftmax
    ReduceSum ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceLogSum ReduceLogSumExp ArgMax ArgMin DepthToSpace
    SpaceToDepth Range Tile OneHot Upsample CastLike RMSNormalization LpPool MeanVarianceNormalization SoftmaxCrossEntropyLoss
    NegativeLogLikelihoodLoss
"""
_OF_FUNCTION_BODIES = """
    Reciprocal Size GatherElements LessOrEqual
"""
TIER_1 = frozenset(_TIER_1.split())
TIER_2 = frozenset((_TIER_2 + _OF_FUNCTION_BODIES).split())
CORE_TYPES = frozenset({1, 6, 7, 9})  # float32, int32, int64, bool
EXCLUSIONS = Path(__file__).with_name("conformance_exclusions.txt")


def build(backend: Any) -> dict[str, type[TestCase]]:
    """The suite's TestCase classes for a backend, CPU cases only."""
    os.environ.setdefault("ONNX_HOME", tempfile.mkdtemp(prefix="graphc-onnx-home-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = onnx.backend.test.BackendTest(backend, __name__)
        cases: dict[str, type[TestCase]] = suite.test_cases
    for case in cases.values():
        for name in [name for name in vars(case) if name.endswith("_cuda")]:
            delattr(case, name)
    return cases


@cache
def node_models() -> dict[str, onnx.ModelProto]:
    """name (with _cpu) -> model of every node case."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {f"{case.name}_cpu": case.model for case in collect_testcases(None) if case.model is not None}


def tier(name: str) -> int:
    """1 or 2 for a case of the core subset, else 0."""
    model = node_models().get(name)
    if model is None:
        return 0
    values = [*model.graph.input, *model.graph.output]
    if any(value.type.tensor_type.elem_type not in CORE_TYPES for value in values):
        return 0
    ops = set(_ops(model.graph))
    if any(domain not in ("", "ai.onnx") for domain, _ in ops):
        return 0
    names = {op for _, op in ops}
    return 1 if names <= TIER_1 else 2 if names <= TIER_1 | TIER_2 else 0


def _ops(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _ops(attribute.g)


@cache
def exclusions() -> list[tuple[re.Pattern[str], str, str]]:
    """(pattern, back end or "", reason): each line of the file is `pattern  # reason`, or `backend: pattern  # reason`."""
    found: list[tuple[re.Pattern[str], str, str]] = []
    for line in EXCLUSIONS.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, _, reason = line.partition("#")
            backend, _, only = pattern.rpartition(":")
            found.append((re.compile(f"^test_{only.strip()}_cpu$"), backend.strip(), reason.strip()))
    return found


def excluded(name: str, backend: str = "") -> str:
    """The reason why a case is not expected to pass, or ""."""
    return next((reason for pattern, only, reason in exclusions() if only in ("", backend) and pattern.search(name)), "")
