"""Stateful execution: steps called one by one are the sequence at once; reset, save, load; independence; threads; errors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import InputError
from state.recurrent_models import UNITS, WIDTH, sequence, stateful

STEPS = 24


def _in_pieces(exe: Any, x: Any, lengths: list[int]) -> Any:
    ends = np.cumsum(lengths)
    return np.concatenate([exe(x[:, end - length : end]) for length, end in zip(lengths, ends, strict=True)], 1)


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_steps_are_the_sequence(kind: str, layers: int, batch: int) -> None:
    """Bit for bit, in any pieces; the sizes of T share the state."""
    model, x = stateful(kind, batch, layers), sequence(batch, STEPS)
    whole = graphc.compile(model, threads=2)
    expected = whole(x)
    for lengths in ([1] * STEPS, [5, 1, 10, 8]):
        exe = graphc.compile(model, threads=1)
        np.testing.assert_array_equal(_in_pieces(exe, x, lengths), expected)
        for name, array in whole.state.items():
            np.testing.assert_array_equal(exe.state[name], array)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_reference_agrees(kind: str) -> None:
    """numpy's products of other shapes differ in the last bits, so within a tolerance."""
    model, x = stateful(kind, 2, 2), sequence(2, STEPS)
    mine, meaning = graphc.compile(model), graphc.compile(model, backend="reference")
    for lengths in ([4, 3], [1] * 7):
        np.testing.assert_allclose(_in_pieces(mine, x, lengths), _in_pieces(meaning, x, lengths), rtol=1e-5, atol=1e-6)
        for name in mine.state:
            np.testing.assert_allclose(mine.state[name], meaning.state[name], rtol=1e-5, atol=1e-6)


def test_reset_gives_the_initial_value() -> None:
    first = np.linspace(-1, 1, UNITS, dtype=np.float32).reshape(1, 1, UNITS)

    @graphc.model
    def net(x: graphc.f32[1, 1, WIDTH]) -> Any:
        h = graphc.state((1, 1, UNITS), init=first, name="h")
        y, last = graphc.rnn(x, UNITS, h0=h, name="cell")
        h.assign(last)
        return y

    exe, x = graphc.compile(net), sequence(1, 1)
    np.testing.assert_array_equal(exe.state["h"], first)
    answers = [exe(x) for _ in range(3)]
    assert not np.array_equal(answers[0], answers[1])
    exe.reset_state()
    np.testing.assert_array_equal(exe.state["h"], first)
    np.testing.assert_array_equal(exe(x), answers[0])


def test_saved_in_the_middle(tmp_path: Path) -> None:
    """What continues from the file gives the same bits."""
    pytest.importorskip("safetensors")
    model, x = stateful("lstm", layers=2), sequence(1, STEPS)
    exe = graphc.compile(model)
    _in_pieces(exe, x, [1] * 10)
    exe.save_state(tmp_path / "state.safetensors")
    rest = _in_pieces(exe, x[:, 10:], [1] * 14)
    for other in (exe, graphc.compile(model)):
        other.load_state(tmp_path / "state.safetensors")
        np.testing.assert_array_equal(_in_pieces(other, x[:, 10:], [1] * 14), rest)


def test_a_state_that_does_not_fit(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    exe = graphc.compile(stateful("lstm"))
    exe(sequence(1, 3))
    kept = dict(exe.state)
    wrong = {
        "h.*is missing": {"c": kept["c"]},
        "'x' is unknown here": {**kept, "x": kept["c"]},
        r"'h' is float32\[1, 20\], here float32\[1, 1, 20\]": {**kept, "h": kept["h"][0]},
        r"'c' is float64\[1, 1, 20\], here float32\[1, 1, 20\]": {**kept, "c": kept["c"].astype(np.float64)},
    }
    path = tmp_path / "wrong.safetensors"
    for message, arrays in wrong.items():
        numpy.save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
        with pytest.raises(InputError, match=message):
            exe.load_state(path)
    path.write_bytes(b"nothing")
    for bad in (path, tmp_path / "absent"):
        with pytest.raises(InputError, match="cannot be read as a state"):
            exe.load_state(bad)
    with pytest.raises(graphc.ResourceError):
        exe.save_state(tmp_path / "no folder" / "state")
    for name, array in kept.items():
        np.testing.assert_array_equal(exe.state[name], array)


def test_the_mapping() -> None:
    exe = graphc.compile(stateful("lstm"))
    assert list(exe.state) == ["h", "c"]
    assert list(exe.inputs) == ["x"]
    value = np.full((1, 1, UNITS), 0.5, np.float32)
    exe.state["h"] = value
    copy = exe.state["h"]
    copy[...] = 7
    np.testing.assert_array_equal(exe.state["h"], value)
    with pytest.raises(InputError, match="no state 'k'"):
        exe.state["k"] = value
    with pytest.raises(InputError, match="got float64"):
        exe.state["h"] = value.astype(np.float64)
    with pytest.raises(InputError, match=r"got float32\[1, 20\]"):
        exe.state["h"] = value[0]
    with pytest.raises(InputError, match="cannot be deleted"):
        del exe.state["h"]
    assert not graphc.compile(_stateless()).state


def _stateless() -> Any:
    @graphc.model
    def net(x: graphc.f32["N", 4]) -> Any:
        return graphc.linear(x, 2, name="out")

    return net


def test_executables_are_independent() -> None:
    """Of one model, and of one graph; neither changes the model."""
    model, x = stateful("gru"), sequence(1, 1)
    graph = model.graph()
    first, second, third = graphc.compile(model), graphc.compile(model), graphc.compile(graph)
    expected = first(x)
    first(x)
    for fresh in (second, third, graphc.compile(graph)):
        np.testing.assert_array_equal(fresh(x), expected)
    assert not graph.states["h"].data.any()


def test_profile_leaves_the_state() -> None:
    exe, x = graphc.compile(stateful("gru")), sequence(1, 4)
    exe(x)
    before = dict(exe.state)
    assert exe.profile(x, runs=2)
    np.testing.assert_array_equal(exe.state["h"], before["h"])


def test_many_programs_keep_one_state() -> None:
    """More sizes than an executable keeps programs for."""
    model, x = stateful("rnn"), sequence(1, 190)
    exe = graphc.compile(model)
    lengths = list(range(1, 19)) + [19]
    np.testing.assert_array_equal(_in_pieces(exe, x, lengths), graphc.compile(model)(x))


def test_threads_take_turns() -> None:
    """A counter that many threads step: no step is lost, and each thread sees another number."""

    @graphc.model
    def counter(x: graphc.f32[1]) -> Any:
        n = graphc.state((1,), name="n")
        n.assign(n + x)
        return n + x

    exe, one = graphc.compile(counter), np.ones(1, np.float32)
    seen: list[float] = []
    workers = [threading.Thread(target=lambda: seen.extend(float(exe(one)[0]) for _ in range(50))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(seen) == list(range(1, 201))
    assert exe.state["n"] == 200
