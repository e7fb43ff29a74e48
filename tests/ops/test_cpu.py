"""Every sample compiled for the CPU at every machine level: against its op's numpy meaning, by the tolerance rule, for 1 and 2 threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.backend import find
from graphc.errors import BackendError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.types.dtype import dtype
from ops.accuracy import check_tolerance, exact
from ops.runners import run_reference
from ops.sample import by_name

Array = np.ndarray[Any, np.dtype[Any]]
LEVELS = ("avx512", "avx2", "sse2")
SAMPLES = by_name()
# Ops whose further inputs are weights in most models: compiled with constant weights too, which packs or folds them.
WEIGHTED = (
    "conv", "conv_transpose", "matmul", "batch_norm", "layer_norm", "rms_norm", "instance_norm", "group_norm", "prelu", "gather",
    "recurrent", "recurrent_grad",
)  # fmt: skip
WITH_WEIGHTS = [name for name, s in SAMPLES.items() if isinstance(s.op, Op) and s.op.name in WEIGHTED and len(s.inputs) > 1]


@cache
def _expected(name: str) -> tuple[tuple[Array, ...], tuple[Array, ...] | None]:
    """In the sample's dtype, and in float64."""
    sample = SAMPLES[name]
    return run_reference(sample.graph(), sample.arrays()), exact(sample)


def _run(name: str, graph: Graph, level: str, arrays: Sequence[Array]) -> None:
    try:
        program = graphc.compile(graph, target=level, threads=1)
    except BackendError as error:
        pytest.skip(str(error))  # a level that this machine has not
    sample = SAMPLES[name]
    found = tuple(program.run(dict(zip(program.inputs, arrays, strict=True))).values())
    compiled = program.compiled()
    again = find("cpu").compile(compiled.graph, compiled.plan, 2).run([np.ascontiguousarray(a) for a in arrays])
    for one, two in zip(found, again, strict=True):
        assert one.tobytes() == two.tobytes(), "1 and 2 threads give different bits"
    naive, reference = _expected(name)
    sample.check(found, naive)
    if reference is not None:
        k = sample.op.tolerance if isinstance(sample.op, Op) else 8.0
        for got, near, true in zip(found, naive, reference, strict=True):
            check_tolerance(got, near, true, k)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", list(SAMPLES), ids=list(SAMPLES))
def test_compiled(name: str, level: str) -> None:
    sample = SAMPLES[name]
    _run(name, sample.graph(), level, sample.arrays())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", WITH_WEIGHTS, ids=WITH_WEIGHTS)
def test_compiled_with_constant_weights(name: str, level: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample.op, Op)
    x, *weights = sample.arrays()
    builder = Builder()
    values = [builder.input("x0", dtype(x.dtype), x.shape)]
    values += [builder.parameter(f"x{i}", w) for i, w in enumerate(weights, 1)]
    outputs = builder.add_many(sample.op, *values)
    graph = builder.finish(**{f"y{i}": value for i, value in enumerate(outputs)})
    _run(name, graph, level, [x])


def test_the_tolerance_rule_is_applied() -> None:
    applied = sum(_expected(name)[1] is not None for name in SAMPLES)
    assert applied > 500
    naive = np.array([1.0, 2.0], np.float32)
    check_tolerance(naive, naive, naive.astype(np.float64), 4.0)
    with pytest.raises(AssertionError, match=r"more than 4.0 times"):
        check_tolerance(naive * np.float32(1.00001), naive, naive.astype(np.float64), 4.0)
