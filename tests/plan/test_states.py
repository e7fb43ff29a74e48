"""State in programs: updates of every awkward kind, run after run, against the numpy meaning; and whole random programs with state."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.text import parse_graph
from graphc.ops.conv import Conv
from graphc.ops.pointwise import op
from graphc.types.dtype import f32, f64
from graphc_reference.executable import ReferenceExecutable
from ir.random_graphs import feeds, random_graph
from ops.accuracy import check_tolerance
from ops.runners import run_reference

LEVELS = ("avx512", "avx2", "sse2")
HEAD = "graph g\ninput %x : f32[2]\nstate %s : f32[2] = [1.0, 2.0]\nstate %t : f32[2] = [3.0, 4.0]\nconst %c : f32[2] = [7.0, 8.0]\n"
SUM = "%y = add(%x, %s) : f32[2]\noutput y = %y\n"
TURNED = "%r = slice(%s) {starts=(1,), steps=(-1,), shape=(2,)} : f32[2]\n"
UPDATES = {
    "the input": SUM + "update %s = %x",
    "a constant": SUM + "update %s = %c",
    "two states change places": SUM + "update %s = %t\nupdate %t = %s",
    "itself": SUM + "update %s = %s",
    "an output": SUM + "update %s = %y",
    "one value for two states": SUM + "update %s = %y\nupdate %t = %y",
    "the old value is an output": SUM + "output old = %s\nupdate %s = %y",
    "read after it is known": SUM + TURNED + "%w = add(%r, %y) : f32[2]\noutput w = %w\nupdate %s = %y\nupdate %t = %r",
    "written in another order than read": TURNED + "%e = neg(%r) : f32[2]\noutput x = %x\nupdate %s = %e",
    "through reshapes": SUM + "%a = reshape(%y) {shape=(1, 2)} : f32[1,2]\n%b = tanh(%a) : f32[1,2]\n"
    "%d = reshape(%b) {shape=(2,)} : f32[2]\nupdate %s = %d",
    "nothing reads it": "output x = %x\nupdate %s = %x",
    "the old value moves on": SUM.replace("output y = %y", "output x = %x") + "update %t = %s\nupdate %s = %y",
    "one value for two states, which nobody returns": SUM.replace("output y = %y", "output x = %x") + "update %s = %y\nupdate %t = %y",
    "each from both": "%a = add(%s, %t) : f32[2]\n%b = sub(%s, %t) : f32[2]\noutput x = %x\nupdate %s = %a\nupdate %t = %b",
}


@pytest.mark.parametrize("name", list(UPDATES))
def test_updates(name: str) -> None:
    program, meaning = graphc.compile(parse_graph(HEAD + UPDATES[name]), threads=2), ReferenceExecutable(parse_graph(HEAD + UPDATES[name]))
    for run in range(4):
        x = np.array([0.25, run - 1.5], np.float32)
        _same(program.run({"x": x}), meaning.run({"x": x}))
        _same(program.state, meaning.state)


def _same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6, err_msg=name)


def _averaged(channels: int, size: int) -> Graph:
    """The state is replaced by a 3x3 convolution of it and the input: blocked memory inside, rows outside."""
    builder = Builder()
    x = builder.input("x", f32, (1, channels, size, size))
    state = builder.state("s", np.zeros((1, channels, size, size), np.float32))
    rng = np.random.default_rng(0)
    w = builder.parameter("w", (rng.standard_normal((channels, channels, 3, 3)) * 0.2 / channels).astype(np.float32))
    mixed = builder.add(Conv((1, 1), (1, 1), (1, 1), (1, 1)), x, w)
    again = builder.add(Conv((1, 1), (1, 1), (1, 1), (1, 1)), state, w)
    graph = builder.finish(y=mixed)
    graph.updates[state] = builder.add(op("add"), mixed, again)
    return graph


@pytest.mark.parametrize("channels", [3, 8, 17])
@pytest.mark.parametrize("level", LEVELS)
def test_a_convolution_updates_a_state(channels: int, level: str) -> None:
    try:
        program = graphc.compile(_averaged(channels, 16), target=level, threads=2)
    except graphc.GraphcError as error:
        pytest.skip(str(error))
    meaning = ReferenceExecutable(_averaged(channels, 16))
    for run in range(3):
        x = np.random.default_rng(run).standard_normal((1, channels, 16, 16)).astype(np.float32)
        _same(program.run({"x": x}), meaning.run({"x": x}))
        _same(program.state, meaning.state)


@pytest.mark.parametrize("seed", range(30))
def test_random_programs(seed: int) -> None:
    """Compiled at a level that goes with the seed; two runs with other inputs, so that state and stale memory count."""
    level = LEVELS[seed % len(LEVELS)]
    graph, exact = random_graph(seed, size=14), random_graph(seed, size=14, dtype=f64)
    try:
        program = graphc.compile(graph.copy(), target=level, threads=1 + seed % 3)
    except graphc.BackendError as error:
        pytest.skip(str(error))
    for run in range(2):
        given = feeds(graph, 1000 * run + seed)
        naive = run_reference(graph, list(given.values()))
        true = run_reference(exact, [array.astype(np.float64) for array in given.values()])
        for got, near, wanted in zip(program.run(given).values(), naive, true, strict=True):
            check_tolerance(got, near, wanted, 16.0)
        _advance(graph, exact, given, program.state)


def _advance(graph: Graph, exact: Graph, given: dict[str, np.ndarray], state: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Check the new state; the numpy meanings go on from the compiled one's."""
    for meaning, arrays, wide in ((graph, list(given.values()), False), (exact, [a.astype(np.float64) for a in given.values()], True)):
        updates = {s.name: v for s, v in meaning.updates.items()}
        twin = meaning.copy()
        twin.set_outputs({name: twin.values[value.name] for name, value in updates.items()})
        for name, wanted in zip(updates, run_reference(twin, arrays), strict=True):
            if wide:
                scale = float(np.abs(wanted).max(initial=1.0))
                np.testing.assert_allclose(state[name], wanted, rtol=1e-3, atol=1e-4 * scale)
            meaning.values[name].data = state[name].astype(wanted.dtype)
