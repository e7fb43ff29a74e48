"""Sequences and optionals as inputs and outputs of imported models, and inside them, on both back ends and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import Array, info, model
from onnx_sequences import BACKENDS, BOOL, INT64, by_ort, check, edits, equal, filled, floats, graph, node, opt, seq

import graphc
from graphc.errors import DynamicShapeError, InputError
from graphc_onnx import load, to_onnx

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
    optional = filled(18, info("opt", [2]), info("out", [2]))
    (other,) = floats((2,))
    check(optional, {"opt": None, "other": other}, values={"opt": None})


def test_elements_of_other_ranks() -> None:
    proto = model([node("SequenceInsert", ["seq", "x"], ["out"], name="I")], [seq("seq"), info("x", [2])], [seq("out")])
    feeds = {"seq": floats((), (3, 1, 2), (0,)), "x": floats((2,))[0]}
    check(proto, feeds, shapes={"seq": [(), (3, 1, "L"), ("K",)]})


@settings(max_examples=15)
@given(st.integers(0, 3), st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), max_size=6))
def test_random_edits(count: int, steps: list[tuple[bool, int]]) -> None:
    """Insertions and removals as those of a list."""
    rows, (x,) = floats(*((n, 2) for n in range(count))), floats((5, 2), seed=1)
    wanted, nodes, places, name = list(rows), [], {}, "seq"
    for number, (erase, at) in enumerate(steps):
        if not -len(wanted) <= at < len(wanted) + (not erase):
            continue
        places[f"at{number}"] = np.asarray(at)
        operands = [name, f"at{number}"] if erase else [name, "x", f"at{number}"]
        name = f"s{number}"
        nodes.append(node("SequenceErase" if erase else "SequenceInsert", operands, [name]))
        wanted.pop(at) if erase else wanted.insert(at, x)
    nodes += [node("Identity", [name], ["out"]), node("SequenceLength", [name], ["count"])]
    proto = model(nodes, [seq("seq", ["N", 2]), info("x", [5, 2])], [seq("out"), info("count", [], INT64)], places)
    feeds = {"seq": rows, "x": x}
    made = check(proto, feeds, shapes={"seq": count})
    equal(graphc.compile(made).run(feeds)["out"], wanted)


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


def test_a_choice_inside_of_a_loop() -> None:
    """Its branches give other sequences than they get: of the loop, and of the graph around both."""
    then = [node("SequenceAt", ["seq", "one"], ["q"]), node("SequenceAt", ["s", "zero"], ["a"]), node("Add", ["a", "q"], ["b"]),
            node("SequenceConstruct", ["b", "q"], ["t"])]  # fmt: skip
    other = [node("SequenceInsert", ["none", "x"], ["e0"]), node("SequenceInsert", ["e0", "x"], ["e"])]
    branches = {"then_branch": graph(then, [], [seq("t")]), "else_branch": graph(other, [], [seq("e")])}
    body = graph(
        [node("SequenceAt", ["s", "zero"], ["s0"]), node("ReduceSum", ["s0"], ["sum"], keepdims=0), node("Less", ["sum", "most"], ["c"]),
         node("If", ["c"], ["s2"], name="I", **branches), node("Identity", ["going"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), seq("s", [3])], [info("again", [], BOOL), seq("s2", [3])],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "seq"], ["out"], name="L", body=body)
    inputs = [seq("seq", [3]), info("x", [3]), info("most", []), info("n", [], INT64)]
    numbers = {"zero": np.asarray(0), "one": np.asarray(1)}
    proto = model([node("SequenceEmpty", [], ["none"]), loop], inputs, [seq("out")], numbers)
    feeds = {"seq": floats((3,), (3,)), "x": floats((3,), seed=2)[0]}
    calls = [{**feeds, "n": np.asarray(n), "most": np.asarray(most, np.float32)} for n in (0, 1, 5) for most in (-5, 1, 99)]
    made = check(proto, *calls, native=1, shapes={"seq": 2})
    exported = to_onnx(made)
    equal(by_ort(exported, calls[-1]), by_ort(proto, calls[-1]))


@pytest.mark.parametrize("count", [0, 2])
def test_a_loop_that_carries_what_has_no_tensors(count: int) -> None:
    body = graph(
        [node("Identity", ["s"], ["s2"]), node("Identity", ["o"], ["o2"]), node("Identity", ["going"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), seq("s", [3]), opt(info("o", [2]))],
        [info("again", [], BOOL), seq("s2", [3]), opt(info("o2", [2]))],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "seq", "opt"], ["out", "same"], body=body)
    outputs = [seq("out"), opt(info("same", [2]))]
    proto = model([loop], [seq("seq", [3]), opt(info("opt", [2])), info("n", [], INT64)], outputs, opset=18)
    rows = floats(*[(3,)] * count)
    for given_ in (None, floats((2,))[0]):
        exe = graphc.compile(load(proto, shapes={"seq": count, "opt": None if given_ is None else (2,)}))
        equal(list(exe(rows, given_, np.asarray(3))), [rows, given_])


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


def test_what_decides_inside_of_a_loop_is_named() -> None:
    """The size of a slice is a number of the graph around, plus the number of the iteration."""
    body = graph(
        [node("Add", ["i", "n"], ["j"]), node("Unsqueeze", ["j", "axes"], ["end"]), node("Slice", ["x", "axes", "end"], ["part"]),
         node("SequenceInsert", ["s", "part"], ["s2"]), node("Identity", ["going"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), seq("s")], [info("again", [], BOOL), seq("s2")], axes=np.asarray([0]),
    )  # fmt: skip
    loop = node("Loop", ["trips", "", "seq"], ["out"], name="L", body=body)
    proto = model([loop], [seq("seq"), info("x", [6]), info("n", [], INT64), info("trips", [], INT64)], [seq("out")])
    with pytest.raises(DynamicShapeError, match="Loop 'L'") as caught:
        load(proto, shapes={"seq": 0})
    assert set(caught.value.inputs) == {"n", "trips"}
    feeds = {"seq": floats((2,)), "x": floats((6,), seed=1)[0], "n": np.asarray(1), "trips": np.asarray(3)}
    for backend in BACKENDS:
        equal(list(backend.prepare(proto).run(feeds)), by_ort(proto, feeds))


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
