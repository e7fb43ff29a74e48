"""Graphs with lists of tensors through text, the cache of programs, export and import again, the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import info, model
from onnx_sequences import INT64, by_ort, edits, equal, floats, node, opt, seq

import graphc
from cli.tools import call, call_json, refused
from graphc.cli import models
from graphc.errors import DynamicShapeError, GraphcError, UnsupportedError
from graphc.ir.text import graph_data, parse_graph, print_graph
from graphc_onnx import load, to_onnx

FEEDS = {"seq": floats((1, 3), (4, 3)), "x": floats((2, 3), seed=1)[0]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The model, and its inputs as files."""
    onnx.save(edits(), tmp_path / "edits.onnx")
    for name, array in (("a", FEEDS["seq"][0]), ("b", FEEDS["seq"][1]), ("x", FEEDS["x"])):
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path / "edits.onnx"


def test_text() -> None:
    made = load(edits(), shapes={"seq": 2})
    text = print_graph(made)
    assert 'takes seq = ("seq[0]", "seq[1]")\ntakes x\ngives out = ("out[0]", "out[1]", "out[2]")\n' in text
    again = parse_graph(text, graph_data(made))
    assert print_graph(again) == text
    equal(list(graphc.compile(again).run(FEEDS).values()), by_ort(edits(), FEEDS))


def test_kept_programs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process finds the program of each `shapes` in the cache, with lists in its signature."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(path.parent / "cache"))
    first, second = (graphc.compile(path, shapes={"seq": 2}) for _ in range(2))
    for exe in (first, second):
        equal(list(exe.run(FEEDS).values()), by_ort(edits(), FEEDS))
    with pytest.raises(GraphcError, match="from the cache"):
        second.plan.specs
    assert repr(first) == repr(second)
    one = {**FEEDS, "seq": FEEDS["seq"][:1]}
    equal(list(graphc.compile(path, shapes={"seq": 1}).run(one).values()), by_ort(edits(), one))
    with pytest.raises(DynamicShapeError, match="'seq'"):
        graphc.compile(path)


def test_kept_program_of_an_absent_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    proto = model([node("Identity", ["o"], ["p"]), node("Neg", ["x"], ["y"])], [opt(info("o", [2])), info("x", [2])],
                  [opt(info("p", [2])), info("y", [2])], opset=16)  # fmt: skip
    onnx.save(proto, tmp_path / "o.onnx")
    (x,) = floats((2,))
    for _ in range(2):
        exe = graphc.compile(tmp_path / "o.onnx", shapes={"o": None})
        equal(list(exe(None, x)), [None, -x])
        equal(list(graphc.compile(tmp_path / "o.onnx", shapes={"o": 2})(x, x)), [x, -x])


def test_export_and_import_again(tmp_path: Path) -> None:
    made = load(edits(), shapes={"seq": 2})
    exported = to_onnx(made)
    onnx.checker.check_model(exported, full_check=True)
    wanted = by_ort(edits(), FEEDS)
    equal(by_ort(exported, FEEDS), wanted)
    again = load(exported, shapes={"seq": 2})
    assert (again.takes, again.gives) == (made.takes, made.gives)
    equal(list(graphc.compile(again).run(FEEDS).values()), wanted)
    graphc.save_onnx(again, tmp_path / "again.onnx")
    equal(by_ort(onnx.load(tmp_path / "again.onnx"), FEEDS), wanted)


def test_exported_types() -> None:
    """Sizes that all elements share are declared, others are open; elements of several ranks have no shape."""

    def shape(shapes: list[Any]) -> Any:
        proto = model([node("SequenceInsert", ["s", "x"], ["y"])], [seq("s"), info("x", [2])], [seq("y")])
        declared = to_onnx(load(proto, shapes={"s": shapes})).graph.input[0].type.sequence_type.elem_type.tensor_type
        return [dim.dim_value or dim.dim_param for dim in declared.shape.dim] if declared.HasField("shape") else None

    assert shape([(2, 3), (4, 3)]) == ["", 3]
    assert shape([("N", 3), ("N", 3)]) == ["N", 3]
    assert shape([(2,), (2, 3)]) is None


def test_what_is_not_exported() -> None:
    proto = model([node("Identity", ["s"], ["y"]), node("Identity", ["o"], ["p"])], [seq("s", [2]), opt(info("o", [2]))],
                  [seq("y"), opt(info("p", [2]))], opset=16)  # fmt: skip
    with pytest.raises(UnsupportedError, match="'y' is an empty sequence"):
        to_onnx(load(proto, shapes={"s": 0, "o": (2,)}))
    with pytest.raises(UnsupportedError, match="'p' is an optional that is absent"):
        to_onnx(load(proto, shapes={"s": 1, "o": None}))
    assert to_onnx(load(proto, shapes={"s": 1, "o": (2,)})).graph.input[1].type.HasField("tensor_type")
    clash = load(proto, shapes={"s": 1, "o": (2,)})
    clash.gives = {"s": ("y[0]",)}
    with pytest.raises(UnsupportedError, match=r"an input and an output.*called 's'"):
        to_onnx(clash)


# the command line -----------------------------------------------------------------------------------------------------------


def test_run(path: Path) -> None:
    """The elements are inputs and outputs of their own; how many there are follows from the files."""
    folder, out = path.parent, path.parent / "out.npz"
    files = ["--input", f"seq[0]={folder / 'a.npy'}", "--input", f"seq[1]={folder / 'b.npy'}", "--input", f"x={folder / 'x.npy'}"]
    call("run", path, *files, "--output", out)
    with np.load(out) as found:
        equal([[found[f"out[{i}]"] for i in range(3)], found["all"], found["exp"], found["count"]], by_ort(edits(), FEEDS))
    shown = call_json("run", path, folder / "a.npy", folder / "b.npy", folder / "x.npy", "--shape", "seq=2")
    assert list(shown["runs"][0]["outputs"]) == ["out[0]", "out[1]", "out[2]", "all", "exp", "count"]
    assert "'seq', a sequence, is not known" in refused("run", path, "--input", f"x={folder / 'x.npy'}")
    assert "the model has no input 'seq[1]'" in refused("run", path, *files, "--shape", "seq=1")


def test_inputs_that_must_be_known(tmp_path: Path) -> None:
    """A position given as a file becomes a constant, and so does a sequence whose data decides a shape."""
    nodes = [node("SequenceAt", ["seq", "at"], ["one"]), node("Expand", ["x", "one"], ["y"])]
    proto = model(nodes, [seq("seq", [2], INT64), info("at", [], INT64), info("x", [1])], [info("y", None)])
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "s.npy", np.asarray([2, 3]))
    np.save(tmp_path / "at.npy", np.asarray(0))
    np.save(tmp_path / "x.npy", np.ones(1, np.float32))
    names = {"seq[0]": "s", "at": "at", "x": "x"}
    files = [part for name, file in names.items() for part in ("--input", f"{name}={tmp_path / file}.npy")]
    assert "f32[2,3]" in call("run", tmp_path / "m.onnx", *files).output


def test_what_the_file_leaves_open_has_the_shapes_of_the_arrays(tmp_path: Path) -> None:
    """It stays an input: only what decides shapes by its data becomes a constant."""
    nodes = [node("OptionalGetElement", ["opt"], ["o"]), node("SequenceAt", ["seq", "at"], ["s"]), node("Sum", ["o", "s", "x"], ["y"])]
    inputs = [opt(info("opt", [2])), seq("seq"), info("at", [], INT64), info("x", None)]
    onnx.save(model(nodes, inputs, [info("y", [2])], opset=18), tmp_path / "open.onnx")
    a, b, c, x = floats((2,), (3,), (2,), (2,))
    values = {"opt": a, "seq[0]": b, "seq[1]": c, "at": np.asarray(1), "x": x}
    made, left = models.load_with(str(tmp_path / "open.onnx"), models.Sizes(), values)
    assert [str(value) for value in made.inputs] == ["%opt: f32[2]", "%seq[0]: f32[3]", "%seq[1]: f32[2]", "%x: f32[2]"]
    assert list(left) == ["opt", "seq[0]", "seq[1]", "x"]
    del values["seq[0]"]
    with pytest.raises(DynamicShapeError, match="'seq'"):
        models.load_with(str(tmp_path / "open.onnx"), models.Sizes(), values)


def test_verify(path: Path) -> None:
    for extra in (["--shape", "seq=2"], ["--shape", "seq=2x3,5x3"], ["--shape", "seq=?x3,", "--dims", "N=4"]):
        shown = call_json("verify", path, *extra)
        assert shown["ok"]
        assert {entry["against"] for entry in shown["comparisons"]} == {"reference", "onnxruntime"}


def test_other_commands(path: Path) -> None:
    given = ["--shape", "seq=2"]
    assert "takes seq" in call("dump", path, *given).output
    assert "gives out" in call("dump", path, *given, "--after", "eliminate-dead").output
    assert "ok: it can be compiled" in call("check", path, *given).output
    assert "'seq', a sequence, is not known" in call("check", path, code=1).output
    for command in ("summary", "compile", "explain", "profile"):
        call(command, path, *given)
    call("bench", path, *given, "--runs", 1, "--calls", 1)


@pytest.mark.parametrize("text", ["seq", "seq=", "seq=x", "seq=2xx3", "seq=-1", "seq=2,,3", "seq=1.5"])
def test_shapes_that_are_none(path: Path, text: str) -> None:
    assert "is not NAME=SHAPE" in call("check", path, "--shape", text, code=2).output


def test_shapes_that_do_not_fit(path: Path) -> None:
    assert "it is not optional" in refused("summary", path, "--shape", "seq=none")
    assert "a list of their shapes" in refused("summary", path, "--shape", "seq=2x3")
    assert "declares" in refused("summary", path, "--shape", "seq=2x4,")
    script = path.with_suffix(".py")
    script.write_text("import graphc\n\n\n@graphc.model\ndef net(x: graphc.f32[2]):\n    return graphc.relu(x)\n")
    assert "this model is none" in refused("summary", script, "--shape", "x=2")
