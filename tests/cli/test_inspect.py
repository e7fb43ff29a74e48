"""graphc.inspect: units, comparisons, the float64 twin of a graph, samples, the ledger's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.inspect import compare, ledger, samples, sizes, units
from graphc.inspect.summary import summarize
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ops.movement import Reshape
from graphc.ops.pointwise import Cast, op
from graphc.types.dtype import f32, f64
from graphc.types.shape import symbol
from graphc_reference import ReferenceExecutable


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (12345, "12.3 k"), (999_600, "1.00 M"), (4e18, "4000 P")]
)
def test_count(number: float, text: str) -> None:
    assert units.count(number) == text


@pytest.mark.parametrize(
    ("time", "text"), [(0, "0 s"), (12.34, "12.3 s"), (0.9996, "1.00 s"), (5.29e-5, "52.9 µs"), (1e-9, "1.00 ns"), (np.inf, "inf s")]
)
def test_seconds(time: float, text: str) -> None:
    assert units.seconds(time) == text


def test_units_and_plurals() -> None:
    assert units.nbytes(627328) == "627 kB"
    assert units.count(5e6, "FLOP") == "5.00 MFLOP"
    assert [units.plural(n, "node") for n in (1, 2)] == ["1 node", "2 nodes"]
    assert units.plural(3, "pass") == "3 passes"
    assert units.three(-0.00012345) == "-0.000123"
    assert units.three(1.5e9) == "1.50e+09"


def test_difference() -> None:
    a = np.array([1.0, np.nan, np.inf, 4.0], np.float32)
    assert compare.difference(a, a.copy()) == compare.Difference(0, 0, 0, 4)
    off = compare.difference(a, np.array([1.5, np.nan, np.inf, 4.0]))
    assert (off.absolute, off.relative, off.unequal) == (0.5, 0.125, 1)
    for other in ([1, 0, np.inf, 4], [1, np.nan, 0, 4], [1, np.nan, -np.inf, 4]):
        assert compare.difference(a, np.array(other, np.float32)).absolute == np.inf
    assert compare.difference(a, a[:3]).absolute == np.inf
    assert compare.difference(np.array([3]), np.array([3.0])).absolute == np.inf
    assert compare.difference(np.zeros(0), np.zeros(0)).elements == 0


def _graph() -> Graph:
    b = Builder(Graph("g"))
    x = b.input("x", f32, (symbol("N"), 4))
    weight = b.parameter("w", np.linspace(-1, 1, 4, dtype=np.float32))
    y = b.add(op("tanh"), b.add(op("mul"), x, weight))
    return b.finish(y=b.add(Reshape((4, symbol("N"))), y), rounded=b.add(Cast(f32), y))


def test_widen_makes_everything_float64() -> None:
    graph = _graph().bind({"N": 3})
    wide = compare.widen(graph)
    assert {value.type.dtype for value in wide.values.values()} == {f64}
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    exact = ReferenceExecutable(wide).run(compare.widen_inputs({"x": x}))
    np.testing.assert_allclose(exact["y"], np.tanh(x.astype(np.float64) * graph.values["w"].data).reshape(4, 3), rtol=1e-14)
    assert graph.values["x"].type.dtype == f32


def test_the_rule_passes_rounding_and_refuses_more() -> None:
    exact = {"y": np.array([1.0, 2.0])}
    naive = {"y": np.array([1.0, 2.0 + 2e-7], np.float32)}
    limit = 4 * float(np.float32(2 + 2e-7) - 2.0)
    for error, ok in ((0.9 * limit, True), (1.5 * limit, False)):
        (verdict,) = compare.compare({"y": np.array([1.0, 2.0 + error], np.float32)}, exact, naive, factor=4, against="it")
        assert verdict.ok is ok
    (verdict,) = compare.compare({"y": np.array([1])}, {"y": np.array([2])}, {"y": np.array([2])}, factor=4, against="it")
    assert not verdict.ok


def test_random_inputs_are_reproducible() -> None:
    graph = _graph().bind({"N": 5})
    first, again, other = (samples.random_inputs(graph, seed)["x"] for seed in (1, 1, 2))
    assert first.shape == (5, 4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    with pytest.raises(graphc.ShapeError):
        samples.random_inputs(_graph(), 0)


def test_sizes() -> None:
    graph = _graph()
    assert sizes.assume_one(graph) == {"N": 1}
    assert sizes.sizes_of(graph, {"x": np.zeros((7, 4), np.float32)}) == {"N": 7}


def test_summary_counts_a_shared_parameter_once() -> None:
    b = Builder(Graph("g"))
    x = b.input("x", f32, (2,))
    w = b.parameter("w", np.ones(2, np.float32))
    made = summarize(b.finish(y=b.add(op("mul"), b.add(op("add"), x, w), w)))
    assert [row.parameters for row in made.rows] == [2, 0]
    assert (made.parameters, made.parameter_bytes, made.flops) == (2, 8, 4)
    assert made.ops == {"add": 1, "mul": 1}


def test_ledger_text(lenet: Path) -> None:
    exe = graphc.compile(lenet, dims={"N": 1})
    lines = ledger.ledger_text(exe.ledger).splitlines()
    assert len(lines) == len(exe.ledger)
    assert lines[0].startswith("c1 ")
    assert [use.label for use in ledger.kernels(exe.plan)] == [step.label for step in exe.plan.steps]
    assert sum(row[3] for row in ledger.families(exe.plan)) == exe.plan.flops
