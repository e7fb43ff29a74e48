"""Each pass proved by text and by numbers: `cases/<pass>.txt` holds graphs before and after, and both sides must compute the same.

A case is `=== what it shows`, the graph before, `--- N rewrites`, the graph after. `pytest --bless tests/passes` writes the second
halves anew; review the diff like code. Machine passes run for AVX2.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.ir.graph import Graph
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.verify import accounted, verify
from graphc.passes.base import Context, Pass
from graphc.passes.pipeline import ALL
from graphc.target import named
from ops.runners import run_reference

FOLDER = Path(__file__).parent / "cases"
PASSES = {step.name: step for step in ALL}


@dataclass(frozen=True)
class Case:
    """`after` begins with the line `--- N rewrites`."""

    name: str
    title: str
    before: str
    after: str


def _read(path: Path) -> list[Case]:
    found = []
    for block in path.read_text(encoding="utf-8").split("=== ")[1:]:
        title, _, text = block.partition("\n")
        before, mark, after = text.partition("--- ")
        found.append(Case(path.stem, title, before.strip() + "\n", (mark + after).strip() + "\n"))
    return found


CASES = [case for path in sorted(FOLDER.glob("*.txt")) for case in _read(path)]


def _after(case: Case) -> tuple[Graph, str]:
    graph = parse_graph(case.before)
    kept = accounted(graph)
    count = PASSES[case.name].run(graph, Context(named("avx2")))
    verify(graph)
    assert kept <= accounted(graph), "an original node is lost"
    return graph, f"--- {count} rewrites\n{print_graph(graph)}"


@pytest.mark.parametrize("case", CASES, ids=[f"{case.name}: {case.title}" for case in CASES])
def test_text(case: Case, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--bless"):
        pytest.skip("blessed by test_bless")
    assert _after(case)[1] == case.after


@pytest.mark.parametrize("case", CASES, ids=[f"{case.name}: {case.title}" for case in CASES])
def test_numbers(case: Case) -> None:
    before, (after, _) = parse_graph(case.before), _after(case)
    arrays = _feeds(before)
    assert [(v.name, v.type) for v in after.inputs] == [(v.name, v.type) for v in before.inputs]
    assert after.output_names == before.output_names
    for got, expected in zip(run_reference(_all_roots(after), arrays), run_reference(_all_roots(before), arrays), strict=True):
        assert got.dtype == expected.dtype
        # float16: rounded once instead of after each operation
        np.testing.assert_allclose(got, expected, rtol=2e-3 if got.dtype == np.float16 else 2e-6, atol=1e-6)


def _all_roots(graph: Graph) -> Graph:
    """Updates as further outputs; symbols bound."""
    bound = graph.bind(dict.fromkeys(graph.symbols, 2))
    bound.outputs = list(bound.roots)
    return bound


def _feeds(graph: Graph) -> list[np.ndarray[Any, Any]]:
    bound = graph.bind(dict.fromkeys(graph.symbols, 2))
    rng = np.random.default_rng(zlib.crc32(print_graph(graph).encode()))
    # positive, since some of them are variances
    return [rng.uniform(0.5, 4, value.type.static_shape).astype(value.type.dtype.numpy) for value in bound.inputs]


def test_every_pass_has_cases() -> None:
    functions = {case.name: PASSES[case.name].run for case in CASES}
    missing = [step.name for step in ALL if step.run not in functions.values()]
    assert not missing, f"no case for {missing}"
    for name in functions:
        titles = [case.title for case in CASES if case.name == name]
        assert len(set(titles)) == len(titles)


def test_some_cases_rewrite_and_some_do_not(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--bless"):
        pytest.skip("the cases are being written")
    counts = [int(case.after.split()[1]) for case in CASES]
    assert counts.count(0) < len(counts) / 3
    assert 0 in counts


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_bless(name: str, request: pytest.FixtureRequest) -> None:
    """Without --bless: the file is what blessing would write (layout of the file, not only of the graphs)."""
    path = FOLDER / f"{name}.txt"
    text = "\n".join(f"=== {case.title}\n{case.before}{_after(case)[1]}" for case in _read(path))
    if request.config.getoption("--bless"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_the_reasons_are_given() -> None:
    step: Pass
    for step in ALL:
        assert step.reason
        assert step.run.__module__.startswith("graphc.passes.")
    assert len(PASSES) == len(ALL), "two passes of one name"
