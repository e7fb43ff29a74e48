"""Scatters whose operand is a state of a loop or of the program: what they read of it must be the old values."""

from typing import Any

import numpy as np
import pytest

import graphc

Array = np.ndarray[Any, np.dtype[Any]]
STEPS, ROWS, WIDTH = 9, 6, 20
N = "N"


@graphc.model
def counted(at: graphc.i64[STEPS, 3], start: graphc.f32[ROWS, WIDTH]) -> Any:
    """Three rows of the state take twice what row 0 held before."""

    def cell(memory, rows):
        updates = graphc.expand(graphc.gather(memory, [0]) * 2.0, (3, WIDTH))
        new = graphc.scatter_nd(memory, rows.reshape(3, 1), updates, "add")
        return new, new.sum(1)

    return graphc.scan(cell, at, start, axis=0)


def _counted(at: Array, start: Array) -> tuple[Array, Array]:
    memory, sums = start.copy(), []
    for rows in at:
        row = memory[0] * 2
        for place in rows:
            memory[place] += row
        sums.append(memory.sum(1))
    return np.stack(sums), memory


def test_the_old_values_are_read() -> None:
    rng = np.random.default_rng(0)
    at, start = rng.integers(0, ROWS, (STEPS, 3)), rng.uniform(0.01, 0.1, (ROWS, WIDTH)).astype(np.float32)
    found = [graphc.compile(counted, threads=threads)(at, start) for threads in (1, 2, 4)]
    for result, expected in zip(found[0], _counted(at, start), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5)
    for other in found[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("own", [False, True], ids=["of the input", "of the state itself"])
def test_a_state_of_the_program(own: bool) -> None:
    """memory[rows] += updates in each run; the updates may be made of the memory."""

    @graphc.model
    def net(rows: graphc.i64[3], x: graphc.f32[3, WIDTH]) -> Any:
        memory = graphc.state((ROWS, WIDTH), name="memory")
        updates = x + graphc.gather(memory, rows) if own else x
        new = graphc.scatter_nd(memory, rows.reshape(3, 1), updates, "add")
        memory.assign(new)
        return new.sum(), memory.sum()

    program, rng, memory = graphc.compile(net, threads=2), np.random.default_rng(1), np.zeros((ROWS, WIDTH))
    for _ in range(4):
        rows, x = rng.integers(0, ROWS, 3), rng.uniform(0, 1, (3, WIDTH)).astype(np.float32)
        after, before = program(rows, x)
        np.testing.assert_allclose(before, memory.sum(), rtol=1e-5)
        updates = x + memory[rows] if own else x
        np.add.at(memory, rows, updates)
        np.testing.assert_allclose(after, memory.sum(), rtol=1e-5)
        np.testing.assert_allclose(program.state["memory"], memory, rtol=1e-5)


def test_an_embedding_is_trained_where_it_was_read() -> None:
    """Row k of the gradient is the sum over the places where k was read, in order; other rows get nothing."""

    @graphc.model
    def net(words: graphc.i64[N, 4], table: graphc.f32[300, WIDTH], x: graphc.f32[N, 4, WIDTH]) -> Any:
        return (graphc.gather(table, words) * x).sum()

    program, rng = graphc.compile(graphc.grad(net, ["table"])), np.random.default_rng(2)
    for count in (0, 1, 70):
        words, x = rng.integers(0, 40, (count, 4)), rng.standard_normal((count, 4, WIDTH)).astype(np.float32)
        found = program.run({"words": words, "table": np.zeros((300, WIDTH), np.float32), "x": x})["grad(table)"]
        expected = np.zeros((300, WIDTH), np.float32)
        np.add.at(expected, words.reshape(-1), x.reshape(-1, WIDTH))
        np.testing.assert_array_equal(found, expected)
