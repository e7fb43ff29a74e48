"""A tile decides no bit: kernels with every kind of tile, at its edges, against the numpy meaning, for 1 to 4 threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.backend import find
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.kernel.recurrent import Tile, choose_tile
from graphc.ops.recurrent import Recurrent
from graphc.schedule import recurrent as schedule
from graphc.schedule.planner import make_plan
from ops.runners import run_reference
from recurrent.test_gradient import gradient_graph, inputs

CELLS = {
    "rnn": Recurrent("rnn", "reverse"),
    "lstm": Recurrent("lstm", given=("peepholes", "lengths", "h0", "c0")),
    "gru": Recurrent("gru", given=("lengths", "h0")),
    "gru, linear before reset": Recurrent("gru", "bidirectional", given=("bias", "h0"), linear_before_reset=True, batch_first=True),
}


def _typed(named: tuple[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    return named[0], str(named[1].dtype), named[1].shape


def _graph(op: Recurrent, arrays: list[Any]) -> Graph:
    """The layer with constant weights; those of a gradient are packed at run time."""
    builder = Builder()
    x, weights, *others = zip(op.input_names, arrays, strict=True)
    values = [builder.input(*_typed(x)), builder.parameter(*weights), *(builder.input(*_typed(other)) for other in others)]
    results = zip(op.output_names, builder.add_many(op, *values), strict=True)
    return builder.finish(**{name: value for name, value in results if name in ("y", "y_h", "y_c")})


def _tiles(chosen: Tile, phases: tuple[int, ...], batch: int) -> Iterator[Tile]:
    """One unit and several, one row and several, the whole item in one register tile or in parts, one group of rows and several."""
    for units, rows, group in ((1, 1, 1), (1, 2, 3), (2, 3, batch), (2, 2, 4), (4, 3, 5)):
        most = [v for v in range(1, 9) if all(units * gates % v == 0 for gates in phases)]
        yield replace(chosen, units=units, rows=rows, group=min(group, batch), vectors=most[-1] if rows < 3 else most[0])


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize(("batch", "edge"), [(3, -1), (4, 0), (7, 1)])
def test_tiles_decide_no_bit(cell: str, batch: int, edge: int, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The units are four vectors, and one more or less: tiles of 1, 2 and 4 vectors end within, at and behind them."""
    op, target = CELLS[cell], graphc.compile(_graph(CELLS[cell], inputs(CELLS[cell], "float32"))).compiled().plan.target
    lanes = target.lanes(graphc.f32)
    arrays = inputs(op, "float32", (4, batch, 4 * lanes + edge))
    if backward:
        graph, seeds, _ = gradient_graph(op, arrays)
        given = [*arrays, *seeds]
    else:
        graph, given = _graph(op, arrays), [arrays[0], *arrays[2:]]
    machine = graphc.compile(graph).compiled().graph
    expected = run_reference(graph, given)
    seen: set[Tile] = set()

    def run(number: int | None, threads: int) -> list[Any]:
        def choose(phases: tuple[int, ...], depth: int, hidden: int, rows: int, *rest: Any) -> Tile:
            chosen = choose_tile(phases, depth, hidden, rows, *rest)
            made = chosen if number is None else list(_tiles(chosen, phases, rows))[number]
            seen.add(made)
            return made

        monkeypatch.setattr(schedule, "choose_tile", choose)
        return list(find("cpu").compile(machine, make_plan(machine, target), threads).run(given))

    chosen = run(None, 1)
    for got, want in zip(chosen, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(want).max())))
    for number in range(5):
        for threads in (1, 2, 3, 4):
            for one, other in zip(chosen, run(number, threads), strict=True):
                assert one.tobytes() == other.tobytes(), (number, threads)
    assert {tile.units for tile in seen} >= {1, 2, 4}
    assert {tile.group for tile in seen} >= {1, min(3, batch)}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_threads_that_share_a_state_wait_for_each_other(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short steps of items of one vector: a thread that ran ahead, or waited once too rarely, would change bits or hang."""
    op = Recurrent(cell)
    target = graphc.compile(_graph(op, inputs(op, "float32"))).compiled().plan.target
    arrays = inputs(op, "float32", (300, 1, 7 * target.lanes(graphc.f32)))
    graph, seeds, _ = gradient_graph(op, arrays)
    machine = graphc.compile(graph).compiled().graph
    monkeypatch.setattr(schedule, "choose_tile", lambda *args: replace(choose_tile(*args), units=1, vectors=1, rows=1, group=1))
    plan = make_plan(machine, target)
    first, *others = ([a.tobytes() for a in find("cpu").compile(machine, plan, threads).run([*arrays, *seeds])]
                      for threads in (1, 2, 2, 3, 4, 7, 16) for _ in range(3))  # fmt: skip
    assert all(other == first for other in others)
