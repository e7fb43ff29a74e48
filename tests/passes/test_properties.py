"""Properties of the passes on random graphs: the numbers stay, every original node is accounted for, a second run finds nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array, Graph
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.verify import accounted
from graphc.passes.base import Context, Pass
from graphc.passes.pipeline import ALL, MACHINE, PORTABLE, run_passes, until
from graphc.target import TARGETS, named
from graphc.types.dtype import f16, f32, f64
from ir.random_graphs import feeds, random_graph
from ops.runners import run_reference

seeds = st.integers(0, 1 << 32)
DISTINCT = {step.run: step for step in ALL}
# What random graphs may give nothing to do.
IDLE = (
    "decompose", "recompute", "scale-weights", "choose-algorithm", "fuse-depthwise", "compress-weights", "order-updates",
    "capture-constants", "recapture-constants", "trim-loops", "hoist-products", "look-up-rows",
)  # fmt: skip


def _same(graph: Graph, expected: tuple[Array, ...], arrays: list[Array]) -> None:
    """In float64, so that reordered sums differ in the last digits only."""
    for got, wanted in zip(run_reference(graph, arrays), expected, strict=True):
        assert got.dtype == wanted.dtype
        scale = float(np.abs(wanted).max(initial=1.0))
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-10 * scale)


@given(seeds, st.sampled_from(sorted(TARGETS)))
@settings(max_examples=60)
def test_the_numbers_stay_after_every_pass(seed: int, level: str) -> None:
    graph = random_graph(seed, size=14, dtype=f64)
    arrays = list(feeds(graph, seed).values())
    expected = run_reference(graph, arrays)
    interface = [graph.output_names, [v.type for v in graph.outputs], [(v.name, v.type) for v in graph.inputs]]
    seen: list[str] = []

    def check(step: Pass, graph: Graph, count: int) -> None:
        seen.append(step.name)
        assert count >= 0
        _same(graph, expected, arrays)
        assert [graph.output_names, [v.type for v in graph.outputs], [(v.name, v.type) for v in graph.inputs]] == interface

    run_passes(graph, ALL, Context(named(level)), check)
    assert seen == [step.name for step in ALL]


@pytest.mark.parametrize("step", DISTINCT.values(), ids=[step.name for step in DISTINCT.values()])
def test_each_pass_alone(step: Pass) -> None:
    changed = 0
    for seed in range(40):
        graph = random_graph(seed, size=10, dtype=f16 if step.name == "widen-half" else f64)
        arrays = list(feeds(graph, seed).values())
        expected = run_reference(graph, arrays)
        changed += step.run(graph, Context(named("avx512"))) > 0
        if step.name != "widen-half":  # rounds less often
            _same(graph, expected, arrays)
    assert changed > 0 or step.name in IDLE, "no random graph gives it anything to do"


@given(seeds, st.booleans())
@settings(max_examples=100)
def test_every_original_node_is_accounted_for(seed: int, symbolic: bool) -> None:
    graph = random_graph(seed, size=16, symbolic=symbolic, odd_names=True)
    original = {f"n{i}" for i in range(len(graph.nodes))}
    assert accounted(graph) == original
    run_passes(graph, PORTABLE, Context())
    assert accounted(graph) == original
    assert not original - set(graph.origins()) - graph.eliminated.keys()
    assert set(graph.eliminated.values()) <= {step.name for step in PORTABLE}
    if not symbolic:
        run_passes(graph, MACHINE, Context(named("sse2")))
        assert accounted(graph) == original


@given(seeds)
@settings(max_examples=60)
def test_the_portable_form_is_stable(seed: int) -> None:
    graph = random_graph(seed, size=14)
    run_passes(graph, PORTABLE, Context())
    once = print_graph(graph)
    run_passes(graph, PORTABLE, Context())
    assert print_graph(graph) == once


@given(seeds)
@settings(max_examples=40)
def test_passes_are_deterministic(seed: int) -> None:
    texts = set()
    for _ in range(2):
        graph = random_graph(seed, size=14)
        run_passes(graph, ALL, Context(named("avx512")))
        texts.add(print_graph(graph))
    assert len(texts) == 1


@given(seeds)
@settings(max_examples=40)
def test_symbols_may_be_bound_before_or_after(seed: int) -> None:
    first, second = random_graph(seed, size=10, symbolic=True, dtype=f64), random_graph(seed, size=10, symbolic=True, dtype=f64)
    run_passes(first, PORTABLE, Context())
    early, late = second.bind({"N": 3}), first.bind({"N": 3})
    run_passes(early, PORTABLE, Context())
    arrays = list(feeds(early, seed).values())
    expected = run_reference(second.bind({"N": 3}), arrays)
    _same(early, expected, arrays)
    _same(late, expected, arrays)


def test_half_precision_rounds_where_it_is_told_to() -> None:
    """Computed in float32, and still as near to float64 as float16 can be."""
    for seed in range(20):
        graph = random_graph(seed, size=6, dtype=f16)
        arrays = list(feeds(graph, seed).values())
        expected = run_reference(graph, arrays)
        run_passes(graph, PORTABLE, Context())
        inner = {v.type.dtype for node in graph for v in node.inputs if node.op.name != "cast"}
        assert f16 not in inner
        for got, wanted in zip(run_reference(graph, arrays), expected, strict=True):
            assert got.dtype == wanted.dtype
            finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float32))
            scale = float(finite.max(initial=1.0))
            np.testing.assert_allclose(got.astype(np.float32), wanted.astype(np.float32), rtol=0.1, atol=0.02 * scale)


def test_float32_may_be_folded_only_where_it_is_safe() -> None:
    """x * 1e30 * 1e30 and x * 1e-30 * 1e-30 are not one product."""
    for number in ("1e+30", "1e-30"):
        leaves = f"graph g\ninput %x : f32[2]\nconst %c : f32[] = {number}\n"
        graph = parse_graph(leaves + "%a = mul(%x, %c) : f32[2]\n%b = mul(%a, %c) : f32[2]\noutput y = %b")
        run_passes(graph, PORTABLE, Context())
        assert [node.op.name for node in graph] == ["mul", "mul"]
        assert all(v.type.dtype == f32 for v in graph.values.values())


def test_until() -> None:
    assert until("canonicalize")[-1].name == "canonicalize"
    assert until(ALL[-1].name) == ALL
    with pytest.raises(UnsupportedError, match=r"no pass is called 'frob'.*one of fold-constants"):
        until("frob")
