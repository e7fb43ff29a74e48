"""Lists of tensors as inputs and outputs of a graph: taken apart and put together, copied, printed, kept, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, InputError, ModelError, VerifyError
from graphc.inspect.compare import widen
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.parts import put_together, taken_apart
from graphc.ir.state import keep_state
from graphc.ir.text import graph_data, parse_graph, print_graph
from graphc.ir.verify import verify
from graphc.ops.pointwise import op
from graphc.schedule.saved import signature_data, signature_graph
from graphc.train.retype import retyped
from graphc.types.dtype import f32
from graphc.types.shape import symbol
from graphc_reference import ReferenceExecutable


def _graph() -> Graph:
    """([a, b], none, c, []) -> ([a + b, b], absent, c, last = -c)."""
    builder = Builder(Graph("lists"))
    a, b, c = (builder.input(name, f32, (symbol("N"),)) for name in "abc")
    graph = builder.finish(**{"out 0": builder.add(op("add"), a, b), "out 1": b, "same": c, "last": builder.add(op("neg"), c)})
    graph.takes = {"in": ("a", "b"), "none": None, "c": "c", "empty": ()}
    graph.gives = {"out": ("out 0", "out 1"), "absent": None, "same": "same"}
    return graph


def _rows(count: int, size: int = 3) -> list[Any]:
    return [np.arange(size, dtype=np.float32) + i for i in range(count)]


@pytest.mark.parametrize("copied", [Graph.copy, lambda g: g.bind({"N": 3}), lambda g: retyped(g, {}, {}, lambda node, _: node.op)])
def test_run(copied: Callable[[Graph], Graph]) -> None:
    a, b, c = _rows(3)
    for exe in (graphc.compile(copied(_graph())), graphc.compile(_graph(), backend="reference"), ReferenceExecutable(_graph())):
        assert list(exe.inputs) == ["in", "none", "c", "empty"]
        found = exe.run({"in": [a, b], "none": None, "c": c, "empty": ()})
        assert list(found) == ["out", "absent", "same", "last"]
        np.testing.assert_array_equal(found["out"], [a + b, b])
        assert found["absent"] is None
        np.testing.assert_array_equal([found["same"], found["last"]], [c, -c])
        out, *rest = exe([a, b], None, c, empty=[])
        np.testing.assert_array_equal(out, found["out"])
        assert len(rest) == 3
        with pytest.raises(InputError, match="'empty' has 1 elements"):
            exe([a, b], None, c, [a])
        with pytest.raises(InputError, match="'none' is a ndarray, and the model was loaded for its absence"):
            exe([a, b], c, c, [])
        with pytest.raises(InputError, match=r"'in\[1\]' has"):
            exe([a, b[:2]], None, c, [])


def test_shown() -> None:
    assert "(in: [f32[N], f32[N]], none: None, c: f32[N], empty: [])" in repr(graphc.compile(_graph()))


def test_profile() -> None:
    exe = graphc.compile(_graph())
    assert exe.profile(_rows(2), None, _rows(1)[0], [], runs=1)


def test_text() -> None:
    text = print_graph(_graph())
    assert 'takes in = (a, b)\ntakes none = none\ntakes c\ntakes empty = ()\n' in text
    assert 'gives out = ("out 0", "out 1")\ngives absent = none\ngives same\n' in text
    again = parse_graph(text, graph_data(_graph()))
    assert (again.takes, again.gives) == (_graph().takes, _graph().gives)
    assert print_graph(again) == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("takes in = (a)", "'in' is given twice"),
        ("takes more = (a, nothing)", "not all of which are tensors"),
        ("takes more = (a)", "a tensor twice"),
        ("takes more = a", "expected '\\('"),
        ("takes more", "not all of which are tensors"),
        ("gives last = none", "a tensor has that name"),
    ],
)
def test_wrong_text(line: str, message: str) -> None:
    with pytest.raises(GraphcError, match=message):
        parse_graph(f"{print_graph(_graph())}{line}\n")


def test_kept_signature() -> None:
    data = json.loads(json.dumps(signature_data(_graph())))
    again = signature_graph(data)
    assert (again.takes, again.gives) == (_graph().takes, _graph().gives)
    for key, wrong in (("takes", {"in": ["a", "nothing"]}), ("gives", {"out": [3]}), ("takes", {"in": 3})):
        with pytest.raises((ValueError, TypeError)):
            signature_graph({**data, key: wrong})


def test_edits_keep_what_still_fits() -> None:
    graph = _graph()
    values = dict(zip(graph.output_names, graph.outputs, strict=True))
    graph.set_outputs({"out 1": values["out 1"], "last": values["last"]})
    assert graph.gives == {"absent": None}
    verify(graph)
    assert list(graphc.compile(graph).outputs) == ["absent", "out 1", "last"]
    flat = _graph().flat()
    assert list(graphc.compile(flat).inputs) == ["a", "b", "c"]
    assert widen(_graph()).takes == _graph().takes


def test_states_are_tensors() -> None:
    wrong = {"in": ("last", "'in' is no tensor"), "c": ("out", "'out' is no tensor"), "a": ("last", "'a' is an element")}
    for name, (source, message) in wrong.items():
        with pytest.raises(InputError, match=message):
            keep_state(_graph().bind({"N": 3}), {name: source})
    exe = graphc.compile(_graph(), dims={"N": 3}, state={"c": "last"})
    assert list(exe.inputs) == ["in", "none", "empty"]
    exe.state["c"] = np.ones(3, np.float32)
    for wanted in (1, -1, 1):
        np.testing.assert_array_equal(exe.run({"in": _rows(2), "empty": []})["same"], np.full(3, wanted))


def test_gradients_and_training() -> None:
    """Gradients come behind; a step takes the tensors."""
    graph = _graph().bind({"N": 3})
    builder = Builder(graph)
    w = builder.parameter("w", np.ones(3, np.float32))
    made = builder.add(op("mul"), graph.outputs[0], w)
    graph.set_outputs({"fit": made, **dict(zip(graph.output_names, graph.outputs, strict=True))})
    verify(graph)
    assert list(graphc.compile(graph).outputs) == ["out", "absent", "same", "fit", "last"]
    step = graphc.TrainStep(graph, loss="mse", optimizer=graphc.optim.SGD(lr=0.1))
    a, b, c = _rows(3)
    losses = [step({"a": a, "b": b, "c": c}, np.zeros(3, np.float32))["loss"] for _ in range(3)]
    assert losses[2] < losses[0]
    assert graphc.compile(step.graph()).inputs.keys() == _graph().takes.keys()


@pytest.mark.parametrize(
    ("takes", "message"),
    [
        ({"in": ("a", "gone")}, "not all of which are tensors"),
        ({"in": ("a", "a")}, "a tensor twice"),
        ({"in": ("a", "b"), "a": "a"}, "a tensor twice"),
        ({"x": "a"}, "a tensor has that name"),
        ({"c": ("a", "b")}, "a tensor has that name"),
    ],
)
def test_verify(takes: dict[str, Any], message: str) -> None:
    graph = _graph()
    verify(graph)
    graph.takes = takes
    with pytest.raises(VerifyError, match=message):
        verify(graph)


def test_a_hidden_output_is_no_part() -> None:
    with pytest.raises((VerifyError, ModelError)):
        parse_graph("graph g\ninput %x : f32[4]\nconst %n : i64[] = 2\noutput y = %x\noutput k = %n\ntrim y 0 k\ngives z = (y, k)\n")
    good = parse_graph("graph g\ninput %x : f32[4]\nconst %n : i64[] = 2\noutput y = %x\noutput k = %n\ntrim y 0 k\ngives z = (y)\n")
    (cut,) = graphc.compile(good)(np.ones(4, np.float32))
    assert cut.shape == (2,)


def test_taken_apart() -> None:
    parts = {"in": ("a", "b"), "none": None, "c": "c"}
    wholes = put_together(parts, {"a": 1, "b": 2, "c": 3, "d": 4})
    assert wholes == {"in": [1, 2], "none": None, "c": 3, "d": 4}
    assert taken_apart(parts, wholes) == {"a": 1, "b": 2, "c": 3, "d": 4}
    with pytest.raises(InputError, match="'in' has 1 elements, not 2"):
        taken_apart(parts, {"in": [1]})
