"""The plan as text: kernels, operands, memory and barriers of small networks, held by files (`pytest --bless` writes them anew)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphc.driver import lower
from graphc.ir.graph import Graph
from graphc.ir.text import parse_graph
from graphc.passes.base import Context
from graphc.schedule.plan import Plan
from graphc.target import named
from ir.random_graphs import random_graph
from plan.networks import NETWORKS

FILE = Path(__file__).parent / "plans.txt"


def _cases() -> list[tuple[str, str, str]]:
    """(title, graph, plan)"""
    found = []
    for block in FILE.read_text(encoding="utf-8").split("=== ")[1:]:
        title, _, text = block.partition("\n")
        graph, _, plan = text.partition("---\n")
        found.append((title, graph, plan.rstrip("\n") + "\n"))
    return found


def _plan(graph: Graph, level: str = "avx2") -> Plan:
    return lower(graph, Context(named(level)))[1]


@pytest.mark.parametrize(("title", "graph", "plan"), _cases(), ids=[title for title, _, _ in _cases()])
def test_text(title: str, graph: str, plan: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--bless"):
        pytest.skip("the plans are being written")
    assert str(_plan(parse_graph(graph))) + "\n" == plan


def test_bless(request: pytest.FixtureRequest) -> None:
    text = "\n".join(f"=== {title}\n{graph}---\n{_plan(parse_graph(graph))}\n" for title, graph, _ in _cases())
    if request.config.getoption("--bless"):
        FILE.write_text(text, encoding="utf-8")
    assert FILE.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_node_is_in_one_step(name: str) -> None:
    """Each node of the machine form runs in the kernel of one label; origins go with the nodes."""
    graph = NETWORKS[name]()
    _, plan = lower(graph, Context(named("avx512")))
    ran = {name for step in plan.steps for name in step.nodes}
    aliases = {"reshape", "concat"}  # share memory, no kernel
    assert {node.name for node in graph if node.op.name not in aliases} <= ran
    assert plan.flops == sum(step.cost.flops for step in plan.steps) > 0
    assert plan.outputs == [(n, v.type) for n, v in zip(graph.output_names, graph.outputs, strict=True)]


def test_equal_layers_share_a_kernel() -> None:
    plan = _plan(NETWORKS["attention"]())
    numbers = [step.kernel for step in plan.steps]
    assert len(set(numbers)) < len(numbers)
    assert sorted(set(numbers)) == list(range(len(plan.kernels)))


def test_specs_of_any_target_can_be_planned() -> None:
    """A plan needs no machine: NEON is planned here as well."""
    for level in ("avx512", "avx2", "sse2", "neon"):
        for seed in range(10):
            plan = _plan(random_graph(seed), level)
            assert re.match(rf"plan random for {level}: \d+ steps, \d+ kernels, arena \d+ bytes", str(plan))
            assert len(str(plan).splitlines()) >= 1 + len(plan.steps)
