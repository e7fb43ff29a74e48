"""compress-weights: who is compressed, how much is saved, and what it costs in accuracy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.errors import AttributeValueError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ops.matmul import MatMul
from graphc.ops.pointwise import op
from graphc.types.dtype import f32

K, N = 1000, 500


def dense(trans_b: bool = False) -> Graph:
    """Two layers; the second is small."""
    rng, builder = np.random.default_rng(0), Builder(Graph("dense"))
    x = builder.input("x", f32, (1, K))
    w = rng.standard_normal((N, K) if trans_b else (K, N)).astype(np.float32)
    wide = builder.add(op("relu"), builder.add(MatMul(False, trans_b), x, builder.constant(w, name="w")))
    small = builder.constant(rng.standard_normal((N, 3)).astype(np.float32), name="small")
    return builder.finish(wide=wide, narrow=builder.add(MatMul(False, False), wide, small))


def results(graph: Graph, weights: str) -> tuple[np.ndarray, int]:
    executable = graphc.compile(graph, weights=weights, threads=2)
    x = np.random.default_rng(1).standard_normal((1, K)).astype(np.float32)
    return np.asarray(executable(x)[0], np.float64), executable.compiled().program.memory.weights


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize(("weights", "size", "error"), [("bf16", 0.5, 0.003), ("int8", 0.25, 0.015)])
def test_errors_and_sizes_are_those_promised(weights: str, size: float, error: float, trans_b: bool) -> None:
    full, nbytes = results(dense(trans_b), "float32")
    narrow, fewer = results(dense(trans_b), weights)
    relative = np.sqrt(np.mean((narrow - full) ** 2) / np.mean(full**2))
    assert 0 < relative < error
    assert fewer < (size + 0.03) * nbytes


def test_small_matrices_stay_as_they_are() -> None:
    from graphc.driver import lower
    from graphc.passes.base import Context
    from graphc.target import named

    graph, plan = lower(dense().bind({}), Context(named("avx512"), weights="int8"))
    assert [node.algorithm for node in graph.nodes if node.op.name == "matmul"] == ["int8", ""]
    assert sorted(getattr(spec, "storage", "") for spec in plan.kernels if spec.family == "contract") == ["", "int8"]


def test_unknown_ways_are_refused() -> None:
    with pytest.raises(AttributeValueError, match="weights 'int4'"):
        graphc.compile(dense(), weights="int4")
