"""What is wrong with sequences and optionals: of the feeds, of shapes and values given when loading, of the model."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import info, model
from onnx_sequences import INT64, edits, floats, node, opt, seq

import graphc
from graphc.errors import DynamicShapeError, GraphcError, InputError, ModelError, TypeMismatchError, UnsupportedError
from graphc_onnx import load
from graphc_reference import ReferenceExecutable

BYTES = edits().SerializeToString()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"seq": 1}, "'seq' has 1 elements, and the model takes .*: 2.*shapes={'seq': 1}"),
        ({"seq": 3}, "'seq' has 3 elements"),
        ({"seq": "array"}, "'seq' is a ndarray.*a list of 2 arrays"),
        ({"seq": None}, "'seq' is None"),
        ({"seq": "missing"}, r"'seq' \(\[f32.*is missing"),
        ({"seq": "dtype"}, r"'seq\[1\]' has dtype float64"),
        ({"seq": "rank"}, r"'seq\[1\]' has shape \(3,\)"),
        ({"seq": "size"}, r"'seq\[1\]' has shape \(2, 4\).*axis 1 is 4, not 3"),
        ({"seq": "none inside"}, r"'seq\[1\]' is None"),
        ({"x": None}, "'x' is None"),
        ({"x": "list"}, "'x' has shape"),
        ({"seq[0]": "array"}, r"no input 'seq\[0\]'"),
    ],
)
def test_wrong_feeds(feeds: dict[str, Any], message: str) -> None:
    a, b = floats((2, 3), (4, 3))
    odd = {
        "array": a, "dtype": [a, b.astype(np.float64)], "rank": [a, b[0]], "size": [a, np.zeros((2, 4), np.float32)],
        "none inside": [a, None], "list": [a], 1: [a], 3: [a, b, a], None: None,
    }  # fmt: skip
    given_ = {"seq": [a, b], "x": a} | {name: odd[kind] for name, kind in feeds.items() if kind != "missing"}
    if "missing" in feeds.values():
        del given_["seq"]
    made = load(edits(), shapes={"seq": 2})
    for run in (graphc.compile(made).run, ReferenceExecutable(made).run):
        with pytest.raises(InputError, match=message):
            run(given_)


def test_what_is_missing_is_named_all_at_once() -> None:
    proto = model([node("Identity", ["s"], ["y"])], [seq("s"), opt(info("o", [2, "N"])), info("x", None), seq("k", [2])], [seq("y")])
    with pytest.raises(DynamicShapeError) as caught:
        load(proto)
    assert caught.value.inputs == ("s", "o", "x", "k")
    assert "load_onnx(..., shapes={'s': [(2, 3), (4,)], 'o': None or (2, 2), 'x': (2, 3), 'k': 3})" in caught.value.hint
    with pytest.raises(DynamicShapeError, match="'s' has elements without a shape") as caught:
        load(proto, shapes={"s": 2, "o": None, "x": (), "k": 0})
    assert caught.value.inputs == ("s",)
    assert load(proto, shapes={"s": 0, "o": (2, 5), "x": 3, "k": [(None,)]}).takes == {"s": (), "o": "o", "x": "x", "k": ("k[0]",)}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"shapes": [2]}, "shapes is a list"),
        ({"shapes": {"y": 2}}, "no input 'y'"),
        ({"shapes": {"x": None}}, "'x' is None, and it is not optional"),
        ({"shapes": {"x": (2, 4)}}, r"'x' is given as \(2, 4\).*declares \[None, 3\]"),
        ({"shapes": {"x": (2,)}}, "'x' is given as"),
        ({"shapes": {"x": (2, -3)}}, r"'x' is a tensor: its shape; got \(2, -3\)"),
        ({"shapes": {"x": "N"}}, "'x' is a tensor"),
        ({"shapes": {"seq": -1}}, "'seq' is a sequence: the number of its elements, or a list of their shapes; got -1"),
        ({"shapes": {"seq": True}}, "got True"),
        ({"shapes": {"seq": (2, 3)}}, r"got \(2, 3\)"),
        ({"shapes": {"seq": [(2, 3), (2, 4)]}}, r"'seq\[1\]' is given as \(2, 4\)"),
        ({"shapes": {"seq": 1}, "values": {"seq": []}}, "the value of 'seq' is given too"),
        ({"values": {"seq": np.zeros((2, 3), np.float32)}}, "'seq' is a sequence, got a ndarray"),
        ({"values": {"seq": [np.zeros((2, 3))]}}, r"'seq\[0\]' must be f32, got float64"),
        ({"values": {"seq": None}}, "'seq' is a sequence, got a NoneType"),
        ({"shapes": {"seq": 1}, "dims": {"K": 1}}, "no symbolic dimension 'K'"),
    ],
)
def test_wrong_shapes_and_values(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(edits(), **given_)


def test_shapes_are_for_files() -> None:
    with pytest.raises(InputError, match="shapes are given when an ONNX model is read"):
        graphc.compile(load(edits(), shapes={"seq": 1}), shapes={"seq": 1})


def test_types_that_are_not_supported() -> None:
    tensor = info("x", [2]).type
    for type, shown in (
        (helper.make_sequence_type_proto(helper.make_sequence_type_proto(tensor)), "a sequence of: sequence"),
        (helper.make_map_type_proto(INT64, tensor), "a map"),
        (helper.make_optional_type_proto(helper.make_map_type_proto(INT64, tensor)), "a map"),
    ):
        with pytest.raises(UnsupportedError, match=f"input 'x' is {shown}"):
            load(model([node("Identity", ["x"], ["y"])], [helper.make_value_info("x", type)], [helper.make_value_info("y", type)]))


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        ("SequenceAt", ["seq", "ten"], "position 10 is outside a sequence of 2"),
        ("SequenceErase", ["seq", "ten"], "position 10 is outside a sequence of 2"),
        ("SequenceInsert", ["seq", "x", "ten"], "position 10 is outside a sequence of 2"),
        ("SequenceInsert", ["seq", "x", "two"], r"the position of SequenceInsert must be one element, got i64\[2\]"),
        ("SequenceInsert", ["seq", "ten"], "element 2 is i64"),
        ("SequenceConstruct", ["x", "ten"], "element 1 is i64"),
        ("SequenceLength", ["x"], r"input 0 must be a sequence, and is f32\[2\]"),
        ("Neg", ["seq"], "input 0 is a sequence of 2, and a tensor is needed here"),
        ("Neg", ["opt"], "input 0 is an optional that is absent"),
        ("SequenceLength", ["opt"], "must be a sequence, and is an optional that is absent"),
    ],
)
def test_wrong_operands(op: str, inputs: list[str], message: str) -> None:
    takes = [seq("seq", [2]), info("x", [2]), opt(info("opt", [2]))]
    proto = model([node(op, inputs, ["y"], name="O")], takes, [seq("y")], {"ten": np.asarray(10), "two": np.asarray([1, 1])}, opset=18)
    with pytest.raises(GraphcError, match=f"{op} 'O'.*{message}") as caught:
        load(proto, shapes={"seq": 2, "opt": None})
    assert isinstance(caught.value, (ModelError, TypeMismatchError))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=4), st.sampled_from([0, 2, [(2, 3)], None]))
def test_mutated_bytes_raise_nothing_but_graphc_errors(changes: list[tuple[int, int]], given_: Any) -> None:
    data = bytearray(BYTES)
    for at, byte in changes:
        data[at % len(data)] = byte
    with contextlib.suppress(GraphcError):
        load(bytes(data), shapes={"seq": given_})


def test_a_position_that_depends_on_data() -> None:
    proto = model([node("SequenceAt", ["seq", "at"], ["y"], name="A")], [seq("seq", [2]), info("at", [], INT64)], [info("y", [2])])
    with pytest.raises(DynamicShapeError, match="SequenceAt 'A'") as caught:
        load(proto, shapes={"seq": 2})
    assert caught.value.inputs == ("at",)
