"""Optionals as inputs and outputs of imported models; the ONNX backend with lists of arrays and None."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import info, model
from onnx_sequences import BACKENDS, BOOL, by_ort, check, edits, equal, filled, floats, graph, node, opt, seq
from onnx_suite import node_models

import graphc
from graphc.errors import DynamicShapeError, InputError, ModelError
from graphc_onnx import load
from graphc_onnx.backend import GraphcBackend


@pytest.mark.parametrize("opset", [16, 18])
@pytest.mark.parametrize("there", [True, False])
def test_an_optional_tensor(opset: int, there: bool) -> None:
    proto = filled(opset, info("opt", ["N", 2]), info("out", ["M", 2]))
    first, other = floats((3, 2), (4, 2))
    made = check(proto, {"opt": first if there else None, "other": other}, shapes={"opt": (None, 2) if there else None})
    exe = graphc.compile(made)
    out, has, same = exe(first if there else None, other)
    assert bool(has) == there
    equal([out, same], [first, first] if there else [other, None])
    if not there:
        equal(exe.run({"other": other})["out"], other)  # what is absent may be left out
        assert exe.inputs["opt"] is None
        assert exe.outputs["same"] is None
    with pytest.raises(InputError, match=r"'opt'.*None"):
        exe(None if there else first, other)


@pytest.mark.parametrize("count", [None, 0, 2])
def test_an_optional_sequence(count: int | None) -> None:
    proto = filled(18, seq("opt", [2]), seq("out", [2]))
    feeds = {"opt": None if count is None else floats(*[(2,)] * count), "other": floats((2,), seed=1)}
    check(proto, feeds, shapes={"opt": count, "other": 1})


def test_optional_made_in_the_model() -> None:
    nodes = [
        node("Optional", [], ["none"], type=info("x", [2]).type), node("Optional", ["x"], ["some"]),
        node("OptionalHasElement", ["none"], ["a"]), node("OptionalHasElement", ["some"], ["b"]),
        node("OptionalGetElement", ["some"], ["y"]),
    ]  # fmt: skip
    outputs = [opt(info("none", [2])), info("a", [], BOOL), info("b", [], BOOL), info("y", [2])]
    made = check(model(nodes, [info("x", [2])], outputs, opset=18), {"x": floats((2,))[0]})
    assert list(made.gives.values()) == [None, "a", "b", "y"]


def test_the_element_of_what_is_absent() -> None:
    proto = model([node("OptionalGetElement", ["opt"], ["y"], name="G")], [opt(info("opt", [2]))], [info("y", [2])], opset=18)
    with pytest.raises(ModelError, match="OptionalGetElement 'G': the element of an optional that is absent"):
        load(proto, shapes={"opt": None})
    branches = {"then_branch": graph([node("OptionalGetElement", ["opt"], ["t"])], [], [info("t", [2])]),
                "else_branch": graph([node("Neg", ["x"], ["e"])], [], [info("e", [2])])}  # fmt: skip
    inputs = [opt(info("opt", [2])), info("x", [2]), info("c", [], BOOL)]
    proto = model([node("If", ["c"], ["y"], name="I", **branches)], inputs, [info("y", [2])], opset=18)
    with pytest.raises(DynamicShapeError, match="the condition of If depends on the data of 'c'"):
        load(proto, shapes={"opt": None})
    (x,) = floats((2,))
    check(proto, {"opt": None, "x": x, "c": np.asarray(False)}, shapes={"opt": None}, values={"c": np.asarray(False)})
    check(proto, {"opt": x, "x": x, "c": np.asarray(True)}, shapes={"opt": (2,)}, native=1)


# the ONNX backend -----------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=3), st.integers(0, 99))
def test_backend_takes_another_number_in_each_call(calls: list[list[int]], seed: int) -> None:
    proto = edits()
    prepared = [backend.prepare(proto) for backend in BACKENDS]
    for sizes in calls:
        feeds = {"seq": floats(*((n, 3) for n in sizes), seed=seed), "x": floats((2, 3), seed=seed + 1)[0]}
        wanted = by_ort(proto, feeds)
        for rep in prepared:
            equal(list(rep.run(feeds)), wanted)
            equal(list(rep.run([feeds["seq"], feeds["x"]])), wanted)


def test_backend_optionals() -> None:
    proto = filled(18, info("opt", None), info("out", None))
    first, other = floats((3, 2), (4,))
    for backend in BACKENDS:
        rep = backend.prepare(proto)
        for given_ in (first, None, other):
            equal(list(rep.run([given_, other])), by_ort(proto, {"opt": given_, "other": other}))
        equal(rep.run({"other": other})["out"], other)
        with pytest.raises(InputError, match="'other' is None"):
            rep.run([first, None])


def test_backend_run_node() -> None:
    a, b = floats((2,), (3,))
    for backend in BACKENDS:
        (out,) = backend.run_node(node("SequenceInsert", ["s", "x"], ["y"]), [[a], b])
        equal(out, [a, b])
        with pytest.raises(InputError, match="'s' is an empty sequence"):
            backend.run_node(node("SequenceLength", ["s"], ["y"]), [[]])
    with pytest.raises(InputError, match="'seq' is a ndarray"):
        GraphcBackend.prepare(edits()).run([a, b])


def test_the_case_that_the_suite_cannot_compare() -> None:
    """Its runner takes len() of the 0-d element of the expected sequence."""
    proto = node_models()["test_loop16_seq_none_cpu"]
    rows = [np.arange(1, n + 1, dtype=np.float32) for n in range(1, 6)]
    for backend in BACKENDS:
        rep = backend.prepare(proto)
        for start in ([np.asarray(7, np.float32)], [], None):
            (found,) = rep.run([np.asarray(5), np.asarray(True), start])
            equal(found, [*([np.asarray(0, np.float32)] if start is None else start), *rows])
