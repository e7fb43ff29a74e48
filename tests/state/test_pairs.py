"""compile(state={input: output}) of graphs and ONNX files, and the way of a stateful model to ONNX and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import InputError, ShapeError, TypeMismatchError, UnsupportedError
from state.recurrent_models import UNITS, WIDTH, sequence, stateful

PAIRS = {"h_in": "h_out", "c_in": "c_out"}


@graphc.model
def plain(x: graphc.f32["N", "T", WIDTH], h_in: graphc.f32["N", 1, UNITS], c_in: graphc.f32["N", 1, UNITS]):  # type: ignore[no-untyped-def]
    """The states as inputs and outputs."""
    y, h, c = graphc.lstm(x, UNITS, h0=h_in, c0=c_in, name="cell")
    return {"y": y, "h_out": h, "c_out": c}


def _by_hand(exe: Any, x: Any) -> tuple[Any, Any, Any]:
    h = c = np.zeros((1, 1, UNITS), np.float32)
    ys = []
    for step in range(x.shape[1]):
        y, h, c = exe(x[:, step : step + 1], h, c)
        ys.append(y)
    return np.concatenate(ys, 1), h, c


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("way", ["dsl", "graph", "onnx"])
def test_pairs_are_kept(way: str, backend: str, tmp_path: Path) -> None:
    model: Any = plain
    if way == "graph":
        model = plain.graph()
    elif way == "onnx":
        model = tmp_path / "plain.onnx"
        graphc.save_onnx(plain, model)
    x = sequence(1, 9)
    y, h, c = _by_hand(graphc.compile(model, dims={"N": 1}, backend=backend), x)
    exe = graphc.compile(model, dims={"N": 1}, state=PAIRS, backend=backend)
    assert list(exe.inputs) == ["x"]
    assert list(exe.outputs) == ["y"]
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([exe(x[:, t : t + 1]) for t in range(9)], 1), y)
        np.testing.assert_array_equal(exe.state["h_in"], h)
        np.testing.assert_array_equal(exe.state["c_in"], c)
        exe.reset_state()


def test_a_kept_program_of_the_file_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of programs by file knows the model without state; both orders."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    path, x, zero = tmp_path / "plain.onnx", sequence(1, 2), np.zeros((1, 1, UNITS), np.float32)
    graphc.save_onnx(plain, path)
    for _ in range(2):
        assert len(graphc.compile(path, dims={"N": 1})(x, zero, zero)) == 3
        exe = graphc.compile(path, dims={"N": 1}, state=PAIRS)
        first = exe(x)
        assert isinstance(first, np.ndarray)
        assert not np.array_equal(exe(x), first)


def test_an_output_for_two_states_and_none_left() -> None:
    @graphc.model
    def net(x: graphc.f32[2], a: graphc.f32[2], b: graphc.f32[2]) -> Any:
        return {"next": x + a * 2 - b}

    exe, x = graphc.compile(net, state={"a": "next", "b": "next"}), np.array([1, 3], np.float32)
    assert exe(x) == ()
    exe(x)
    assert exe.state["a"].tolist() == exe.state["b"].tolist() == [2, 6]


BAD = {
    "no input": (InputError, {"k": "h_out"}, "no input 'k'"),
    "no output": (InputError, {"h_in": "k"}, "no output 'k'"),
    "no mapping": (InputError, ["h_in"], "state is a list"),
    "another shape": (ShapeError, {"h_in": "y"}, r"'h_in' is f32\[1,1,20\], the output 'y' is f32\[1,T,20\]"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_pairs_that_do_not_fit(name: str) -> None:
    error, pairs, message = BAD[name]
    with pytest.raises(error, match=message):
        graphc.compile(plain, dims={"N": 1}, state=pairs)  # type: ignore[arg-type]


def test_a_symbolic_state() -> None:
    with pytest.raises(ShapeError, match=r"its size must be known. Try: compile\(..., dims=\{'N': 1\}\)"):
        graphc.compile(plain, state=PAIRS)


def test_another_dtype() -> None:
    @graphc.model
    def net(x: graphc.f32[2], h: graphc.f64[2]) -> Any:
        return {"y": x + h.cast(graphc.f32), "next": x + 1}

    with pytest.raises(TypeMismatchError, match="'h' is f64"):
        graphc.compile(net, state={"h": "next"})


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_stateful_models_in_onnx(kind: str, tmp_path: Path) -> None:
    """A state is an input and an output of the file; ONNX Runtime that is handed them on gives what the executable gives, and the file with
    the pairs kept is the model again."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path, x = stateful(kind, layers=2), tmp_path / "net.onnx", sequence(1, 12)
    graphc.save_onnx(model, path)
    names = ["h", "c"] if kind == "lstm" else ["h"]
    exe, again = graphc.compile(model), graphc.compile(path, state={name: f"{name}.next" for name in names})
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == ["x", *names]
    assert [value.name for value in session.get_outputs()] == ["out", *(f"{name}.next" for name in names)]
    states = dict(exe.state)
    for start in range(0, 12, 4):
        part = x[:, start : start + 4]
        found, *last = session.run(None, {"x": part, **states})
        states = dict(zip(names, last, strict=True))
        mine = exe(part)
        np.testing.assert_allclose(found, mine, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(again(part), mine)
    for name in names:
        np.testing.assert_allclose(states[name], exe.state[name], rtol=1e-5, atol=1e-6)


def test_a_taken_name_in_onnx(tmp_path: Path) -> None:
    @graphc.model
    def net(x: graphc.f32[2]) -> Any:
        s = graphc.state((2,), name="s")
        s.assign(s + x)
        return {"s.next": x}

    with pytest.raises(UnsupportedError, match=r"the name 's.next' is taken"):
        graphc.save_onnx(net, tmp_path / "net.onnx")
