"""The arena: buffers that live together never overlap, for random lifetimes and for whole programs; its size is what is needed."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphc.driver import lower
from graphc.errors import ResourceError
from graphc.ir.graph import Graph, Kind, Value
from graphc.passes.base import Context
from graphc.schedule import addresses
from graphc.schedule.memory import ALIGN, SLACK, Buffer, Lifetime, assign
from graphc.schedule.plan import Plan
from graphc.target import named
from graphc.types.dtype import f32
from ir.random_graphs import random_graph
from plan.networks import NETWORKS

seeds = st.integers(0, 1 << 32)
spans = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8)), max_size=24)


def _check(lifetimes: dict[Buffer, Lifetime], offsets: dict[Buffer, int], size: int) -> None:
    assert offsets.keys() == lifetimes.keys()
    for value, start in offsets.items():
        assert start % ALIGN == 0
        assert 0 <= start <= size - lifetimes[value].nbytes - SLACK
    for a, b in combinations(lifetimes, 2):
        together = lifetimes[a].first <= lifetimes[b].last and lifetimes[b].first <= lifetimes[a].last
        apart = offsets[a] + lifetimes[a].nbytes + SLACK <= offsets[b] or offsets[b] + lifetimes[b].nbytes + SLACK <= offsets[a]
        assert apart or not together, f"{a} and {b} live together and overlap"


@given(spans)
@settings(max_examples=200)
def test_buffers_that_live_together_are_apart(spans: list[tuple[int, int, int]]) -> None:
    made: dict[Buffer, Lifetime] = {
        Value(f"v{i}", f32[(1,)], Kind.RESULT): Lifetime(nbytes, first, first + length) for i, (nbytes, first, length) in enumerate(spans)
    }
    offsets, size = assign(made)
    _check(made, offsets, size)
    steps = range(30)
    alive = [sum(-(-(life.nbytes + SLACK) // ALIGN) * ALIGN for life in made.values() if life.first <= i <= life.last) for i in steps]
    assert size >= max(alive)
    assert size <= sum(-(-(life.nbytes + SLACK) // ALIGN) * ALIGN for life in made.values())
    assert assign(made) == (offsets, size)


def test_memory_is_reused() -> None:
    chain: dict[Buffer, Lifetime] = {Value(f"v{i}", f32[(1,)], Kind.RESULT): Lifetime(1000, i, i + 1) for i in range(10)}
    assert assign(chain)[1] == 2 * 1088
    assert assign({}) == ({}, 0)


def _planned(graph: Graph, level: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, dict[Buffer, Lifetime], dict[Buffer, int]]:
    """The plan, and what `assign` was given and answered."""
    seen: list[tuple[dict[Buffer, Lifetime], dict[Buffer, int]]] = []

    def spy(lifetimes: dict[Buffer, Lifetime]) -> tuple[dict[Buffer, int], int]:
        offsets, size = assign(lifetimes)
        seen.append((lifetimes, offsets))
        return offsets, size

    with monkeypatch.context() as patch:
        patch.setattr(addresses, "assign", spy)
        _, plan = lower(graph, Context(named(level)))
    ((lifetimes, offsets),) = seen
    return plan, lifetimes, offsets


def _check_program(plan: Plan, lifetimes: dict[Buffer, Lifetime], offsets: dict[Buffer, int]) -> None:
    """Every operand in the arena lies inside one buffer that lives then; whatever is read was written before, in this run."""
    _check(lifetimes, offsets, plan.arena_bytes)
    written: set[Buffer] = set()
    for number, step in enumerate(plan.steps):
        spec = plan.kernels[step.kernel]
        again = plan.groups * plan.repeated  # steps for groups of samples: lifetimes count those of the first group
        entry = number % plan.repeated if number < again else number - again + plan.repeated
        output = max(slot for slot, ref in enumerate(step.args) if ref.space != "scratch")
        for slot, (ref, operand) in enumerate(zip(step.args, spec.operands, strict=True)):
            if ref.space != "arena":
                continue
            extent = sum((size - 1) * stride for size, stride in zip(operand.physical_shape, operand.strides, strict=True))
            homes = [b for b, life in lifetimes.items() if life.first <= entry <= life.last and _inside(ref.offset, b, life, offsets)]
            assert len(homes) == 1, f"{step.label}: operand {slot} lies in {homes}"
            (home,) = homes
            if operand.elements and not operand.pitch:
                assert ref.offset + (extent + 1) * operand.dtype.itemsize <= offsets[home] + lifetimes[home].nbytes
            if slot == output:
                written.add(home)
            else:
                assert home in written, f"{step.label} reads {home}, which nothing has written"


def _inside(offset: int, buffer: Buffer, life: Lifetime, offsets: dict[Buffer, int]) -> bool:
    return offsets[buffer] <= offset < offsets[buffer] + max(life.nbytes, 1)


@given(seeds, st.sampled_from(["avx512", "avx2", "sse2", "neon"]))
@example(405697407, "avx512")  # runs on one sample at a time
@settings(max_examples=80)
def test_random_programs(seed: int, level: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _check_program(*_planned(random_graph(seed, size=14), level, patch))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, lifetimes, offsets = _planned(NETWORKS[name](), "avx512", monkeypatch)
    _check_program(plan, lifetimes, offsets)
    total = sum(life.nbytes for life in lifetimes.values())
    assert plan.arena_bytes < total, "nothing shares memory"


def test_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_MAX_BYTES", "100000")
    with pytest.raises(ResourceError, match=r"the arena would need \d+ bytes .*, the limit is GRAPHC_MAX_BYTES=100000.*smaller batch"):
        lower(NETWORKS["residual"](), Context(named("avx2")))
