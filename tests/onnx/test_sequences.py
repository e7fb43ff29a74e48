"""Sequences and optionals as inputs and outputs of imported models, and inside them, on both back ends and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import Array, info, model
from onnx_sequences import BOOL, INT64, by_ort, edits, equal, floats, graph, node, opt, seq
from onnx_suite import node_models

import graphc
from graphc.errors import DynamicShapeError, InputError, ModelError
from graphc_onnx import load
from graphc_onnx.backend import GraphcBackend, ReferenceBackend
from graphc_reference import ReferenceExecutable

BACKENDS = (GraphcBackend, ReferenceBackend)


def check(proto: onnx.ModelProto, *calls: Mapping[str, Any], native: int = 0, **given: Any) -> graphc.Graph:
    """Compiled and in the reference as in ONNX Runtime, which gets all feeds; `given`: of load. `native`: loops and choices that stay."""
    made = load(proto, **given)
    assert sum(bool(n.op.bodies()) for n in made.nodes) == native
    constant = given.get("values", {})
    runs: list[Callable[..., Any]] = [graphc.compile(made, backend=backend).run for backend in ("cpu", "reference")]
    runs.append(ReferenceExecutable(made).run)
    for feeds in calls:
        wanted = by_ort(proto, feeds)
        for run in runs:
            found = run({name: value for name, value in feeds.items() if name not in constant})
            assert list(found) == [output.name for output in proto.graph.output]
            equal(list(found.values()), wanted)
    return made


# sequences ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2,), (1, 4), (5, 5, 1)])
def test_edits(sizes: tuple[int, ...]) -> None:
    feeds = {"seq": floats(*((n, 3) for n in sizes)), "x": floats((2, 3), seed=1)[0]}
    made = check(edits(), feeds, shapes={"seq": len(sizes)})
    assert [value.name for value in made.inputs] == [*(f"seq[{i}]" for i in range(len(sizes))), "x"]
    exe = graphc.compile(made)
    assert [str(type) for type in exe.inputs["seq"]] == [f"f32[seq_{i}__N,3]" for i in range(len(sizes))]
    assert len(exe.outputs["out"]) == len(sizes) + 1
    assert str(exe.outputs["count"]) == "i64[]"
    out, *_ = exe(feeds["seq"], x=feeds["x"])
    equal(out, by_ort(edits(), feeds)[0])


def test_one_size_for_all_elements_and_one_of_each() -> None:
    feeds = {"seq": floats((4, 3), (4, 3)), "x": floats((1, 3))[0]}
    check(edits(), feeds, shapes={"seq": 2}, dims={"N": 4})
    made = check(edits(), feeds, shapes={"seq": [("K", 3), ("K", None)]})
    assert {str(value.type) for value in made.inputs[:2]} == {"f32[K,3]"}
    with pytest.raises(InputError, match=r"'seq\[1\]' has K=2"):
        graphc.compile(made).run({**feeds, "seq": floats((4, 3), (2, 3))})
    assert load(edits(), shapes={"seq": 2}, dims={"seq_1__N": 7}).inputs[1].type.shape == (7, 3)


def test_an_empty_sequence_comes_in_and_goes_out() -> None:
    nodes = [node("Identity", ["seq"], ["same"]), node("Neg", ["x"], ["y"])]
    proto = model(nodes, [info("x", [2]), seq("seq")], [seq("same"), info("y", [2])])
    (x,) = floats((2,))
    check(proto, {"x": x, "seq": []}, shapes={"seq": 0})
    exe = graphc.compile(load(proto, shapes={"seq": 0}))
    assert exe(x, [])[0] == []
    assert exe.inputs["seq"] == []
    with pytest.raises(InputError, match=r"'seq' has 1 elements.*shapes={'seq': 1}"):
        exe(x, [x])


def test_values_of_a_sequence() -> None:
    feeds = {"seq": floats((1, 3), (2, 3)), "x": floats((2, 3), seed=1)[0]}
    made = check(edits(), feeds, values={"seq": feeds["seq"]})
    assert list(graphc.compile(made).inputs) == ["x"]


def test_elements_of_other_ranks() -> None:
    proto = model([node("SequenceInsert", ["seq", "x"], ["out"], name="I")], [seq("seq"), info("x", [2])], [seq("out")])
    feeds = {"seq": floats((), (3, 1, 2), (0,)), "x": floats((2,))[0]}
    check(proto, feeds, shapes={"seq": [(), (3, 1, "L"), ("K",)]})


@pytest.mark.parametrize(("split", "keepdims"), [(None, 0), (None, 1), (2, 1), (4, 1), ([1, 3, 2], 1), ([6], 0)])
def test_split(split: int | list[int] | None, keepdims: int) -> None:
    names = ["x"] if split is None else ["x", "split"]
    weights = {} if split is None else {"split": np.asarray(split, np.int64)}
    proto = model([node("SplitToSequence", names, ["parts"], axis=1, keepdims=keepdims)], [info("x", ["N", 6])], [seq("parts")], weights)
    check(proto, {"x": floats((3, 6))[0]}, {"x": floats((1, 6))[0]})


def test_map() -> None:
    """SequenceMap is defined by a Loop that grows; the tensor is given to each call of the body."""
    body = graph([node("MatMul", ["a", "w"], ["m"]), node("Shape", ["m"], ["s"])], [info("a", ["N", 3]), info("w", [3, "K"])],
                 [info("m", ["N", "K"]), info("s", [2], INT64)])  # fmt: skip
    proto = model([node("SequenceMap", ["seq", "w"], ["ms", "sizes"], body=body)], [seq("seq", ["N", 3]), info("w", [3, "K"])],
                  [seq("ms"), seq("sizes", dtype=INT64)])  # fmt: skip
    for sizes in ((2, 5), (1,), ()):
        check(proto, {"seq": floats(*((n, 3) for n in sizes)), "w": floats((3, 4), seed=1)[0]}, shapes={"seq": len(sizes)})


def test_a_name_that_an_element_would_have() -> None:
    nodes = [node("SequenceInsert", ["seq", "seq[0]"], ["out"]), node("Neg", ["seq[0]"], ["out[1]"])]
    proto = model(nodes, [seq("seq", [2]), info("seq[0]", [2])], [seq("out"), info("out[1]", [2])])
    first, second = floats((2,), (2,))
    made = check(proto, {"seq": [first], "seq[0]": second}, shapes={"seq": 1})
    with pytest.raises(InputError, match=r"input 'seq\[0\]' has dtype float64"):
        graphc.compile(made).run({"seq": [first.astype(np.float64)], "seq[0]": second})


def test_a_position_that_is_given_when_loading() -> None:
    proto = model([node("SequenceAt", ["seq", "at"], ["y"])], [seq("seq", [2]), info("at", [], INT64)], [info("y", [2])])
    for at in (0, 1, -2):
        check(proto, {"seq": floats((2,), (2,)), "at": np.asarray(at)}, shapes={"seq": 2}, values={"at": np.asarray(at)})


# choices and loops ----------------------------------------------------------------------------------------------------------


def choice(then: list[onnx.NodeProto], other: list[onnx.NodeProto], *more: onnx.NodeProto, **takes: Any) -> onnx.ModelProto:
    """If of a run-time condition over sequences t and e, from x and seq."""
    branches = {"then_branch": graph(then, [], [seq("t")]), "else_branch": graph(other, [], [seq("e")])}
    inputs = [info("c", [], BOOL), info("x", [3]), seq("seq", [3])]
    return model([node("If", ["c"], ["out"], name="I", **branches), *more], inputs, [seq("out")], **takes)


def test_a_choice_of_sequences_is_one_native_if() -> None:
    then = [node("Exp", ["x"], ["a"]), node("SequenceInsert", ["seq", "a"], ["t"])]
    other = [node("SequenceInsert", ["seq", "x", "zero"], ["e0"]), node("Identity", ["e0"], ["e"])]
    other.insert(0, node("Constant", [], ["zero"], value=onnx.numpy_helper.from_array(np.asarray(0))))
    feeds = {"x": floats((3,))[0], "seq": floats((3,), (3,), seed=1)}
    check(choice(then, other), *({**feeds, "c": np.asarray(c)} for c in (True, False)), native=1, shapes={"seq": 2})


def test_a_choice_of_unequal_sequences_needs_its_condition() -> None:
    proto = choice([node("SequenceInsert", ["seq", "x"], ["t"])], [node("Identity", ["seq"], ["e"])])
    with pytest.raises(DynamicShapeError, match="If 'I': the condition of If depends on the data of 'c'") as caught:
        load(proto, shapes={"seq": 2})
    assert caught.value.inputs == ("c",)
    feeds = {"x": floats((3,))[0], "seq": floats((3,), (3,), seed=1)}
    for c in (True, False):
        check(proto, {**feeds, "c": np.asarray(c)}, shapes={"seq": 2}, values={"c": np.asarray(c)})


def test_a_choice_of_empty_sequences_is_none() -> None:
    empty = [node("SequenceEmpty", [], ["t"])], [node("SequenceEmpty", [], ["e"])]
    feeds = {"x": floats((3,))[0], "seq": floats((3,)), "c": np.asarray(True)}
    check(choice(*empty), feeds, shapes={"seq": 1})


def turning(condition: Sequence[onnx.NodeProto], count: str, cond: str, *inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    """Loop that carries a sequence of two: (a, b) -> (b, a + x / 2)."""
    body = graph(
        [node("SequenceAt", ["s", "zero"], ["a"]), node("SequenceAt", ["s", "one"], ["b"]), node("Mul", ["x", "half"], ["h"]),
         node("Add", ["a", "h"], ["c"]), node("SequenceConstruct", ["b", "c"], ["s2"]), node("ReduceSum", ["c"], ["sum"], keepdims=0),
         *condition],
        [info("i", [], INT64), info("going", [], BOOL), seq("s", [3])], [info("again", [], BOOL), seq("s2", [3]), info("sum", [])],
        zero=np.asarray(0), one=np.asarray(1), half=np.asarray(0.5, np.float32),
    )  # fmt: skip
    if cond != "":
        del body.output[2]
    loop = node("Loop", [count, "", "seq"], ["out"] if cond else ["out", "sums"], name="L", body=body)
    outputs = [seq("out")] if cond else [seq("out"), info("sums", None)]
    return model([loop], [seq("seq", [3]), info("x", [3]), *inputs], outputs, {"many": np.asarray(200)})


def test_a_loop_with_a_run_time_count_carries_a_sequence() -> None:
    proto = turning([node("Identity", ["going"], ["again"])], "n", "count", info("n", [], INT64))
    feeds = {"seq": floats((3,), (3,)), "x": floats((3,), seed=1)[0]}
    check(proto, *({**feeds, "n": np.asarray(n)} for n in (0, 1, 7)), native=1, shapes={"seq": 2})


def test_a_loop_on_data_carries_a_sequence() -> None:
    proto = turning([node("Less", ["sum", "most"], ["again"])], "", "data", info("most", []))
    feeds = {"seq": floats((3,), (3,)), "x": np.ones(3, np.float32)}
    check(proto, *({**feeds, "most": np.asarray(most, np.float32)} for most in (-9, 3, 50)), native=1, shapes={"seq": 2})


def test_a_long_loop_over_a_sequence_stays_a_loop_and_a_short_one_is_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = turning([node("Identity", ["going"], ["again"])], "many", "")
    feeds = {"seq": floats((3,), (3,)), "x": floats((3,), seed=1)[0]}
    check(proto, feeds, native=1, shapes={"seq": 2})
    monkeypatch.setenv("GRAPHC_UNROLL", "5000")
    check(proto, feeds, shapes={"seq": 2})


def growing(condition: Sequence[onnx.NodeProto], count: str, *inputs: onnx.ValueInfoProto, **weights: Array) -> onnx.ModelProto:
    """Loop that appends the last element of the sequence, doubled."""
    body = graph(
        [node("SequenceAt", ["s", "last"], ["a"]), node("Add", ["a", "a"], ["b"]), node("SequenceInsert", ["s", "b"], ["s2"]), *condition],
        [info("i", [], INT64), info("going", [], BOOL), seq("s", [3])], [info("again", [], BOOL), seq("s2", [3])],
        last=np.asarray(-1), five=np.asarray(5),
    )  # fmt: skip
    loop = node("Loop", [count, "", "seq"], ["out"], name="L", body=body)
    return model([loop], [seq("seq", [3]), *inputs], [seq("out")], weights)


def test_a_loop_that_grows_a_sequence_is_unrolled() -> None:
    proto = growing([node("Identity", ["going"], ["again"])], "n", info("n", [], INT64))
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': the number of.*tensors, a sequence of 2 before and a sequence of 3") as caught:
        load(proto, shapes={"seq": 2})
    assert caught.value.inputs == ("n",)
    for n in (0, 1, 60):
        check(proto, {"seq": floats((3,), (3,)), "n": np.asarray(n)}, shapes={"seq": 2}, values={"n": np.asarray(n)})


def test_a_loop_that_ends_by_the_length_of_a_sequence() -> None:
    until = [node("SequenceLength", ["s2"], ["n"]), node("Less", ["n", "five"], ["again"])]
    for count in (1, 3, 7):
        check(growing(until, ""), {"seq": floats(*[(3,)] * count)}, shapes={"seq": count})


def test_a_loop_that_grows_a_sequence_until_data_says_so() -> None:
    until = [node("ReduceSum", ["b"], ["sum"], keepdims=0), node("Less", ["sum", "most"], ["again"])]
    proto = growing(until, "many", info("most", []), many=np.asarray(9))
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': .*depends on data") as caught:
        load(proto, shapes={"seq": 1})
    assert {"seq", "most"} <= set(caught.value.inputs)
    feeds = {"seq": [np.ones(3, np.float32)], "most": np.asarray(20, np.float32)}
    for backend in BACKENDS:
        equal(list(backend.prepare(proto).run(feeds)), by_ort(proto, feeds))


# optionals ------------------------------------------------------------------------------------------------------------------


def filled(opset: int, of: onnx.ValueInfoProto, out: onnx.ValueInfoProto) -> onnx.ModelProto:
    """The element of an optional, else `other`; and the optional again."""
    branches = {
        "then_branch": graph([node("OptionalGetElement", ["opt"], ["t"])], [], [helper.make_value_info("t", out.type)]),
        "else_branch": graph([node("Identity", ["other"], ["e"])], [], [helper.make_value_info("e", out.type)]),
    }
    nodes = [node("OptionalHasElement", ["opt"], ["has"]), node("If", ["has"], [out.name], **branches), node("Identity", ["opt"], ["same"])]
    inputs = [opt(of), helper.make_value_info("other", out.type)]
    return model(nodes, inputs, [out, info("has", [], BOOL), opt(helper.make_value_info("same", of.type))], opset=opset)


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
