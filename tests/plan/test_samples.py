"""Batches in groups of samples: the same bits as at once, only where samples do not meet, and the kernels of a smaller batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.driver import lower
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.kernel.canonical import canonical, spec_text
from graphc.kernel.spec import KernelSpec
from graphc.ops.conv import Conv
from graphc.ops.movement import Concat, Reshape, Slice, Transpose
from graphc.ops.norm import Softmax
from graphc.ops.pointwise import op
from graphc.ops.pool import MaxPool
from graphc.ops.reduce import Reduce
from graphc.passes.base import Context
from graphc.schedule.plan import Plan
from graphc.schedule.planner import make_plan
from graphc.schedule.samples import Split, Traffic, best_split, for_samples
from graphc.target import named
from graphc.types.dtype import f32
from ir.random_graphs import feeds, random_graph

TARGET = named("avx2")
MB = 1e6


def network(batch: int) -> Graph:
    """Two convolutions into a concat, pooling, and a classifier."""
    rng = np.random.default_rng(0)
    b = Builder(Graph("net"))
    x = b.input("x", f32, (batch, 5, 12, 12))

    def conv(value: Value, out: int, kernel: int) -> Value:
        shape = (out, value.type.shape[1].__index__(), kernel, kernel)
        weight = b.parameter(f"w{len(b.graph.values)}", rng.standard_normal(shape).astype(np.float32))
        pad = (kernel // 2,) * 2
        return b.add(op("relu"), b.add(Conv((1, 1), (1, 1), pad, pad, 1), value, weight))

    first = conv(x, 16, 3)
    both = b.add(Concat(1), conv(first, 16, 1), conv(first, 24, 3))
    pooled = b.add(MaxPool((3, 3), (2, 2), (1, 1), (1, 1), (1, 1)), conv(both, 12, 3))
    return b.finish(y=b.add(Softmax(1), b.add(Reduce("mean", (2, 3), False), pooled)), middle=both)


def planned(graph: Graph) -> Plan:
    return lower(graph, Context(TARGET))[1]


def specs(plan: Plan) -> list[KernelSpec]:
    return [plan.specs[step.kernel] for step in plan.steps]


@pytest.mark.parametrize("group", [1, 2, 4])
def test_same_bits_as_the_whole_batch(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(1).standard_normal((8, 5, 12, 12)).astype(np.float32)
    monkeypatch.setenv("GRAPHC_SAMPLES", "-1")
    whole = graphc.compile(network(8), threads=2)
    monkeypatch.setenv("GRAPHC_SAMPLES", str(group))
    parts = graphc.compile(network(8), threads=2)
    assert parts.plan.groups == 8 // group
    assert len(parts.plan.steps) == parts.plan.groups * parts.plan.repeated
    assert parts.plan.arena_bytes < whole.plan.arena_bytes
    assert parts.plan.flops == whole.plan.flops
    for _ in range(2):
        wanted, got = whole.run({"x": x}), parts.run({"x": x})
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
        x = x[::-1].copy()


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is found to be separable is: the bits are those of the whole batch."""
    graph = random_graph(seed, symbolic=True)
    if graph.states:
        return
    given = feeds(graph, seed, batch=6)
    found = {}
    for group in ("-1", "1", "3"):
        monkeypatch.setenv("GRAPHC_SAMPLES", group)
        found[group] = graphc.compile(random_graph(seed, symbolic=True), dims={"N": 6}, threads=2).run(given)
    for group in ("1", "3"):
        for name, wanted in found["-1"].items():
            assert np.array_equal(found[group][name], wanted, equal_nan=True), name


def test_random_graphs_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is about something: most of those graphs have kernels that run in groups."""
    monkeypatch.setenv("GRAPHC_SAMPLES", "1")
    split = 0
    for seed in range(24):
        steps = planned(random_graph(seed, symbolic=True).bind({"N": 6})).steps
        split += len({step.label for step in steps}) < len(steps)
    assert split >= 8


@pytest.mark.parametrize("group", [2, 4])
def test_kernels_are_those_of_a_smaller_batch(group: int) -> None:
    """Code that is compiled for one serves the other."""
    whole, small = planned(network(8)), planned(network(group))
    for spec, wanted in zip(specs(whole), specs(small), strict=True):
        if spec.family.startswith("winograd"):
            continue
        made = for_samples(spec, 8, group)
        assert made is not None
        assert spec_text(made.spec) == spec_text(canonical(wanted))
        assert made.steps[-1] == wanted.operands[-1].strides[0]


def _joined(b: Builder, x: Value) -> Iterator[Value]:
    """Results in which samples meet."""
    yield b.add(Reduce("max", (0,), True), x)
    yield b.add(op("neg"), _rolled(b, x))
    yield b.add(Softmax(0), x)
    yield b.add(Transpose((1, 0, 2)), x)
    yield b.add(op("neg"), b.add(Reshape((6, 4, 8)), x))


def _rolled(b: Builder, x: Value) -> Value:
    """Sample i becomes sample i + 1."""
    last, others = b.add(Slice((3, 0, 0), (1, 1, 1), (1, 6, 8)), x), b.add(Slice((0, 0, 0), (1, 1, 1), (3, 6, 8)), x)
    return b.add(Concat(0), last, others)


@pytest.mark.parametrize("number", range(5))
def test_samples_that_meet_are_not_parted(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def graph() -> Graph:
        b = Builder(Graph("join"))
        x = b.input("x", f32, (4, 6, 8))
        y = b.add(op("exp"), x)
        return b.finish(y=list(_joined(b, y))[number], z=y)

    x = np.random.default_rng(3).standard_normal((4, 6, 8)).astype(np.float32)
    monkeypatch.setenv("GRAPHC_SAMPLES", "-1")
    wanted = graphc.compile(graph(), threads=1).run({"x": x})
    monkeypatch.setenv("GRAPHC_SAMPLES", "1")
    made = graphc.compile(graph(), threads=1)
    assert all(np.array_equal(array, wanted[name]) for name, array in made.run({"x": x}).items())
    labels = [step.label for step in made.plan.steps]
    assert labels.count(labels[-1]) == 1


def test_one_sample_for_all_is_not_read_from_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """x[0] of what a group has written is the first sample of that group, not of the batch."""

    def graph() -> Graph:
        b = Builder(Graph("first"))
        x = b.input("x", f32, (4, 6))
        y = b.add(op("exp"), x)
        first = b.add(Slice((0, 0), (1, 1), (1, 6)), y)
        return b.finish(z=b.add(op("mul"), y, first), y=y)

    x = np.random.default_rng(4).standard_normal((4, 6)).astype(np.float32)
    monkeypatch.setenv("GRAPHC_SAMPLES", "1")
    got = graphc.compile(graph(), threads=1).run({"x": x})
    np.testing.assert_allclose(got["z"], np.exp(x) * np.exp(x[:1]), rtol=1e-5)


def _layers(*sizes: tuple[float, float]) -> list[Traffic]:
    return [Traffic(activations * MB, weights * MB) for activations, weights in sizes]


def test_model_splits_what_overflows_the_cache_and_keeps_large_weights_together() -> None:
    target = replace(TARGET, l2=1 << 20, l3=32 << 20, cores=2)
    small = _layers(*[(0.01, 0.01)] * 10)
    assert best_split(small, 10, 8, target) is None
    maps = _layers(*[(6.0, 0.1)] * 10)
    found = best_split(maps, 10, 8, target)
    assert found is not None
    assert found.kernels == 10
    assert found.group <= 2
    weights = _layers(*[(0.2, 10.0)] * 10)
    assert best_split(weights, 10, 8, target) is None
    assert best_split([*maps, *weights], 20, 8, target) == Split(10, found.group)
    assert best_split([*maps, *weights], 4, 8, target) == Split(4, found.group)
    assert best_split(maps, 10, 1, target) is None


def test_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = _layers((6.0, 0.1))
    for value, wanted in (("-1", None), ("3", None), ("8", None), ("4", Split(1, 4))):
        monkeypatch.setenv("GRAPHC_SAMPLES", value)
        assert best_split(maps, 1, 8, TARGET) == wanted


def test_profile_has_one_row_for_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_SAMPLES", "2")
    made = graphc.compile(network(8), threads=1)
    x: Any = np.zeros((8, 5, 12, 12), np.float32)
    rows = made.profile(x, runs=1)
    assert len(rows) < len(made.plan.steps)
    assert sum(row.flops for row in rows) == made.plan.flops
    assert [row.label for row in rows] == [step.label for step in made.plan.steps[: made.plan.repeated]]
    monkeypatch.setenv("GRAPHC_SAMPLES", "-1")
    whole = graphc.compile(network(8), threads=1)
    assert len(whole.profile(x, runs=1)) == len(whole.plan.steps)


def test_plan_without_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_SAMPLES", "1")
    b = Builder(Graph("scalar"))
    assert len(make_plan(b.finish(y=b.add(op("neg"), b.input("x", f32, ()))), TARGET).steps) == 1
