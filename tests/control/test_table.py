"""Loops in the step table: which of them one thread runs alone, and that a run which comes to a limit stops at once."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ResourceError
from graphc_cpu import table
from graphc_cpu.table import small_loops


def _cell(units: int) -> graphc.Model:
    @graphc.model
    def net(x: graphc.f32[8, 20, 16]):
        h = graphc.constant(np.zeros((8, units), np.float32))

        def cell(h: Any, xt: Any) -> tuple[Any, Any]:
            new = graphc.tanh(graphc.linear(xt, units, name="x") + graphc.linear(h, units, name="h"))
            return new, new

        return graphc.scan(cell, x, h)[0]

    return net


def test_small_loops() -> None:
    assert len(small_loops(graphc.compile(_cell(8)).plan)) == 1
    assert not small_loops(graphc.compile(_cell(512)).plan)


def test_the_outermost_small_loop_is_taken() -> None:
    @graphc.model
    def nested(x: graphc.f32[6, 5]):
        def outer(total, row):
            return (total + graphc.scan(lambda s, v: (s + v,), row, total, axis=0)[1],)

        return graphc.scan(outer, x, x[0, 0], axis=0)[1]

    plan = graphc.compile(nested).plan
    assert [control.kind for control in plan.controls] == ["enter", "enter", "again", "again"]
    assert small_loops(plan) == {0: 3}


def test_layers_inside_of_which_threads_meet_are_shared() -> None:
    @graphc.model
    def deep(x: graphc.f32[3, 1, 4, 2]):
        return graphc.scan(lambda h, xt: (h + graphc.lstm(xt, 2, name="l")[0].sum(1),), x, x[0, :, 0] * 0.0, axis=0)[1]

    program = graphc.compile(deep, threads=2)
    assert not small_loops(program.plan)
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 2)).astype(np.float32)
    assert program(x).tobytes() == graphc.compile(deep, threads=1)(x).tobytes()


@pytest.mark.parametrize("shared", [False, True])
def test_nothing_runs_behind_a_limit(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop behind the one that does not end would not end either, and would take its own limit."""
    if shared:
        monkeypatch.setattr(table, "small_loops", lambda plan: {})

    @graphc.model
    def two(x: graphc.f32[2]):
        first = graphc.while_loop(lambda v: graphc.all(v < 1.0), lambda v: v + x, x, limit=30, name="first")
        return graphc.while_loop(lambda v: graphc.all(v < 9.0), lambda v: v + first * 0.0, first, limit=40, name="second")

    for threads in (1, 2):
        program = graphc.compile(two, threads=threads)
        with pytest.raises(ResourceError, match="loop 'first': has not ended after 30 iterations"):
            program(np.zeros(2, np.float32))
        with pytest.raises(ResourceError, match="loop 'second': has not ended after 40 iterations"):
            program(np.full(2, 0.3, np.float32))
        np.testing.assert_array_equal(program(np.full(2, 9, np.float32)), [9, 9])
