"""Depthwise convolutions in one step with the convolution that they read: same bits as apart, in batches, and how a chain is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import graphc
from graphc.driver import lower
from graphc.ir.builder import Builder
from graphc.ir.graph import Array, Graph, Value
from graphc.kernel.choose_chain import ChainShape, chain_forms, choose_chain, is_worth
from graphc.kernel.spec import ChainBands
from graphc.ops.conv import Conv
from graphc.ops.pointwise import Cast, op
from graphc.passes.base import Context
from graphc.schedule.plan import Plan
from graphc.target import named
from graphc.types.dtype import f32, f64
from ops.runners import run_reference

SHAPE = ChainShape(1, 24, 144, 56, 56, 56, 56, 9, 3, 1, 1, 4, 24 * 56 * 56 * 4)  # of MobileNetV2
TARGET = replace(named("avx512"), l2=2 << 20, cores=2)


def network(batch: int, trained: bool = False) -> Graph:
    """A stem with a depthwise convolution, then an inverted residual whose shortcut is added to both ends. Odd sizes."""
    rng, b = np.random.default_rng(0), Builder(Graph("mobile"))
    x = b.input("x", f32, (batch, 3, 21, 19))

    def conv(value: Value, out: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        shape = (out, value.type.shape[1].__index__() // groups, kernel, kernel)
        data = rng.standard_normal(shape).astype(np.float32) / np.float32(shape[1] * kernel**2) ** 0.5
        pad, name = (kernel // 2,) * 2, f"w{len(b.graph.values)}"
        weight = b.input(name, f32, shape) if trained else b.parameter(name, data)
        return b.add(Conv((stride,) * 2, (1, 1), pad, pad, groups), value, weight)

    stem = b.add(op("silu"), conv(b.add(op("silu"), conv(x, 20, 3, 2)), 20, 3, 1, 20))
    wide = b.add(op("relu"), conv(stem, 72, 1))
    deep = b.add(op("add"), b.add(op("relu"), conv(wide, 72, 5, 2, 72)), conv(stem, 72, 1, 2))
    return b.finish(y=conv(deep, 20, 1))


def _run(batch: int, threads: int, x: Array) -> Array:
    found: Array = graphc.compile(network(batch), threads=threads)(x)
    return found


def _chains(plan: Plan) -> list[str]:
    return [step.label for step in plan.steps if isinstance(plan.specs[step.kernel], ChainBands)]


@pytest.mark.parametrize(("batch", "group"), [(1, "0"), (6, "0"), (6, "2")])
def test_same_bits_as_apart(batch: int, group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_SAMPLES", group)
    x = np.random.default_rng(1).standard_normal((batch, 3, 21, 19)).astype(np.float32)
    monkeypatch.setenv("GRAPHC_CHAIN", "-1")
    assert not _chains(lower(network(batch), Context(TARGET))[1])
    apart = _run(batch, 2, x)
    monkeypatch.setenv("GRAPHC_CHAIN", "1")
    plan = lower(network(batch), Context(TARGET))[1]
    assert len(_chains(plan)) == 2 * plan.groups
    assert plan.groups == (3 if group == "2" else 1)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(_run(batch, threads, x), apart)


def test_ledger_and_cost_name_both(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = lower(network(1), Context(TARGET))[1]
    monkeypatch.setenv("GRAPHC_CHAIN", "1")
    graph, plan = lower(network(1), Context(TARGET))
    assert plan.flops == apart.flops
    assert sorted(name for step in plan.steps for name in step.nodes) == sorted(node.name for node in graph)
    assert len(_chains(plan)) == 2
    for step in plan.steps:
        if isinstance(plan.specs[step.kernel], ChainBands):
            assert step.label == "conv+conv"
            assert step.nodes.count("conv") == 2


def test_not_with_weights_that_are_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CHAIN", "1")
    assert not _chains(lower(network(1, trained=True), Context(TARGET))[1])


def test_not_across_a_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two would have blocks of different size."""
    monkeypatch.setenv("GRAPHC_CHAIN", "1")
    rng, b = np.random.default_rng(0), Builder()
    x, w = b.input("x", f64, (1, 8, 9, 9)), b.parameter("w", rng.standard_normal((24, 8, 1, 1)))
    between = b.add(Cast(f32), b.add(Conv((1, 1), (1, 1), (0, 0), (0, 0), 1), x, w))
    v = b.parameter("v", rng.standard_normal((24, 1, 3, 3)).astype(np.float32))
    graph, data = b.finish(y=b.add(Conv((1, 1), (1, 1), (1, 1), (1, 1), 24), between, v)), rng.standard_normal((1, 8, 9, 9))
    (wanted,) = run_reference(graph, [data])
    np.testing.assert_allclose(graphc.compile(graph, threads=2)(data), wanted, rtol=1e-4, atol=1e-4)


def test_cut_for_the_cores_and_their_caches() -> None:
    """Two cores take a band each, because five chunks do not share out; a larger map is cut to stay in the cache."""
    form = choose_chain(SHAPE, TARGET)
    assert form.bands == 2
    assert form.cycles == min(other.cycles for other in chain_forms(SHAPE, TARGET))
    assert choose_chain(SHAPE, replace(TARGET, cores=1)).bands == 1
    assert form.cycles < choose_chain(SHAPE, replace(TARGET, cores=1)).cycles
    large = replace(SHAPE, height=224, width=224, out_height=224, out_width=224)
    assert choose_chain(large, TARGET).bands > 2


def test_bands_read_what_they_need() -> None:
    assert list(SHAPE.bands(1)) == [(56, 56)]
    assert list(SHAPE.bands(2)) == [(29, 28), (29, 28)]
    assert list(replace(SHAPE, out_height=28, stride=2).bands(2)) == [(28, 14), (29, 14)]
    assert list(replace(SHAPE, height=2, out_height=8, pad=4).bands(4)) == [(0, 2), (2, 2), (2, 2), (0, 2)]


def test_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_worth(SHAPE, TARGET)
    small = replace(SHAPE, reduction=3, channels=8, height=4, width=4, out_height=4, out_width=4)
    assert not is_worth(small, replace(TARGET, cores=1))
    monkeypatch.setenv("GRAPHC_CHAIN", "1")
    assert is_worth(small, replace(TARGET, cores=1))
    monkeypatch.setenv("GRAPHC_CHAIN", "-1")
    assert not is_worth(SHAPE, TARGET)
