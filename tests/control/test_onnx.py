"""Loop, Scan and If of ONNX as native loops and choices, against ONNX Runtime; their export; what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import graphc
from control.onnx_loops import BOOL, FLOAT, INT64, doubling, graph, info, model, node, rnn
from graphc.errors import DynamicShapeError, GraphcError, ModelError, ResourceError
from graphc.ir.text import graph_data, parse_graph, print_graph
from graphc_cpu import table
from graphc_onnx import load, to_onnx

Array = np.ndarray[Any, np.dtype[Any]]
X = info("x", [3])


def _by_ort(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Array] = session.run(None, feeds)
    return found


def _check(proto: onnx.ModelProto, *calls: dict[str, Array], native: int = 1) -> graphc.Graph:
    """As ONNX Runtime on every call, before and after export, with equal bits for 1, 2 and 4 threads."""
    made = load(proto)
    assert sum(bool(n.op.bodies()) for n in made.nodes) == native
    exported = to_onnx(made)
    onnx.checker.check_model(exported, full_check=True)
    programs = [graphc.compile(made, threads=threads) for threads in (1, 2, 4)]
    again = graphc.compile(load(exported))
    for feeds in calls:
        expected = _by_ort(proto, feeds)
        found = [list(program.run(feeds).values()) for program in programs]
        others = (list(again.run(feeds).values()), _by_ort(exported, feeds))
        for i, wanted in enumerate(expected):
            np.testing.assert_allclose(found[0][i], wanted, rtol=1e-5, atol=1e-6)
            assert found[0][i].tobytes() == found[1][i].tobytes() == found[2][i].tobytes()
            for other in others:
                np.testing.assert_allclose(other[i], wanted, rtol=1e-5, atol=1e-6)
    return made


def _floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# loops ----------------------------------------------------------------------------------------------------------------------


def test_while_on_data() -> None:
    proto = model([node("Loop", ["", "", "x"], ["y"], name="L", body=doubling())], [X, info("most", [])], [info("y", [3])])
    _check(proto, *({"x": np.ones(3, np.float32), "most": np.asarray(most, np.float32)} for most in (1, 7, 1000)))


def test_run_time_count_and_condition() -> None:
    inputs = [X, info("most", []), info("n", [], INT64), info("go", [], BOOL)]
    proto = model([node("Loop", ["n", "go", "x"], ["y"], name="L", body=doubling())], inputs, [info("y", [3])])
    calls = [
        {"x": _floats(3), "most": np.asarray(50, np.float32), "n": np.asarray(n), "go": np.asarray(go)}
        for n, go in ((0, True), (1, True), (4, True), (100, True), (5, False), (-3, True))
    ]
    _check(proto, *calls)


def test_iteration_number_and_states_of_all_kinds() -> None:
    """int, bool and float states; the number of the iteration; a value captured twice."""
    body = graph(
        [node("Cast", ["i"], ["f"], to=FLOAT), node("Add", ["a", "f"], ["b"]), node("Add", ["b", "x"], ["c"]),
         node("Mul", ["c", "half"], ["d"]),
         node("Not", ["flag"], ["turned"]), node("Add", ["total", "i"], ["sum"]), node("Identity", ["going"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), info("a", [3]), info("flag", [], BOOL), info("total", [], INT64)],
        [info("again", [], BOOL), info("d", [3]), info("turned", [], BOOL), info("sum", [], INT64)], half=np.float32(0.5),
    )  # fmt: skip
    inputs = [X, info("n", [], INT64), info("flag0", [], BOOL), info("zero", [], INT64)]
    outputs = [info("y", [3]), info("odd", [], BOOL), info("sum0", [], INT64)]
    proto = model([node("Loop", ["n", "", "x", "flag0", "zero"], ["y", "odd", "sum0"], name="L", body=body)], inputs, outputs)
    feeds = {"x": _floats(3), "flag0": np.asarray(True), "zero": np.asarray(0)}
    _check(proto, *({**feeds, "n": np.asarray(n)} for n in (0, 1, 7)))


def test_long_loop_with_stacked_results(monkeypatch: pytest.MonkeyPatch) -> None:
    body = graph(
        [node("Add", ["v", "x"], ["w"]), node("Identity", ["w"], ["w2"]), node("Identity", ["going"], ["again"]),
         node("ReduceMax", ["w"], ["m"], keepdims=0)],
        [info("i", [], INT64), info("going", [], BOOL), info("v", [3])],
        [info("again", [], BOOL), info("w", [3]), info("w2", [3]), info("m", [])],
    )  # fmt: skip
    outputs = [info("y", [3]), info("all", [500, 3]), info("most", [500])]
    loop = node("Loop", ["n", "", "x"], ["y", "all", "most"], name="L", body=body)
    proto = model([loop], [X], outputs, n=np.asarray(500))
    _check(proto, {"x": _floats(3)})
    monkeypatch.setenv("GRAPHC_UNROLL", "2000")
    assert not any(n.op.bodies() for n in load(proto).nodes)


def test_nested_loops() -> None:
    """The inner one runs as often as the outer one has run, captures from both graphs around, and chooses."""
    halve = graph([node("Mul", ["v", "half"], ["t"])], [], [info("t", [3])], half=np.float32(0.5))
    keep = graph([node("Sub", ["v", "x"], ["e"])], [], [info("e", [3])])
    inner = graph(
        [node("ReduceSum", ["v"], ["s"], keepdims=0), node("Greater", ["s", "limit"], ["large"]),
         node("If", ["large"], ["w"], name="I", then_branch=halve, else_branch=keep), node("Identity", ["go2"], ["again2"])],
        [info("j", [], INT64), info("go2", [], BOOL), info("v", [3])], [info("again2", [], BOOL), info("w", [3])],
    )  # fmt: skip
    outer = graph(
        [node("Loop", ["i", "", "a"], ["b"], name="inner", body=inner), node("Add", ["b", "a"], ["c"]),
         node("Identity", ["go1"], ["again1"])],
        [info("i", [], INT64), info("go1", [], BOOL), info("a", [3])], [info("again1", [], BOOL), info("c", [3])],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "x"], ["y"], name="outer", body=outer)
    proto = model([loop], [X, info("n", [], INT64), info("limit", [])], [info("y", [3])])
    feeds = {"x": _floats(3, seed=1), "limit": np.asarray(0.3, np.float32)}
    _check(proto, *({**feeds, "n": np.asarray(n)} for n in (0, 1, 5)))


@pytest.mark.parametrize("length", [60, "T"])
@pytest.mark.parametrize("attributes", [{}, {"scan_input_directions": [1], "scan_output_directions": [1]}], ids=["forward", "back"])
def test_scan(length: int | str, attributes: dict[str, Any]) -> None:
    calls = [{"h0": _floats(2, 4), "xs": _floats(size, 2, 3)} for size in ((60,) if length == 60 else (1, 5, 60))]
    made = _check(rnn(length, **attributes), *calls)
    assert sorted(made.parameters) == ["cell/r", "cell/w"]


def test_scan_of_nan_and_infinity() -> None:
    xs = _floats(40, 2, 3)
    xs[3, 0, 0], xs[5, 1, 1] = np.nan, np.inf
    proto = rnn(40)
    found, wanted = graphc.compile(load(proto))(_floats(2, 4), xs), _by_ort(proto, {"h0": _floats(2, 4), "xs": xs})
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_trains_weights_of_a_body(tmp_path: Path) -> None:
    """What is imported with a native loop trains, and goes back to ONNX under its names."""
    made = load(rnn(40))
    made.set_outputs({"last": made.outputs[0]})
    step = graphc.TrainStep(made, loss="mse", optimizer=graphc.optim.SGD(lr=0.1))
    xs, target = _floats(40, 2, 3), np.zeros((2, 4), np.float32)
    losses = [float(step((_floats(2, 4), xs), target)["loss"]) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    graphc.save_onnx(step, tmp_path / "trained.onnx")
    trained = onnx.load(tmp_path / "trained.onnx")
    assert sorted(tensor.name for tensor in trained.graph.initializer)[:2] == ["cell/r", "cell/w"]
    assert [n.op_type for n in trained.graph.node] == ["Scan"]
    last = _by_ort(trained, {"h0": _floats(2, 4), "xs": xs})[0]
    assert float((last**2).mean()) < losses[-1] * 1.01


def test_kept_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process finds a program with loops in the cache, and runs it alike."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "rnn.onnx"
    onnx.save(rnn(60), path)
    h, xs = _floats(2, 4), _floats(60, 2, 3)
    first, second = (graphc.compile(path) for _ in range(2))
    assert str(first.plan) == str(second.plan)
    assert first.plan.controls == second.plan.controls != []
    with pytest.raises(GraphcError, match="from the cache"):
        second.plan.specs
    for one, two in zip(first(h, xs), second(h, xs), strict=True):
        assert one.tobytes() == two.tobytes()


# choices --------------------------------------------------------------------------------------------------------------------


def _choice(then: list[onnx.NodeProto], other: list[onnx.NodeProto], shapes: tuple[list[int], list[int]] = ([3], [3])) -> onnx.ModelProto:
    branches = {"then_branch": graph(then, [], [info("t", shapes[0])]), "else_branch": graph(other, [], [info("e", shapes[1])])}
    return model([node("If", ["c"], ["y"], name="I", **branches)], [info("c", [], BOOL), X], [info("y", shapes[0])])


@pytest.mark.parametrize("which", [True, False])
def test_if_on_data(which: bool) -> None:
    proto = _choice([node("Exp", ["x"], ["t"])], [node("Neg", ["x"], ["n"]), node("Relu", ["n"], ["e"])])
    _check(proto, {"c": np.asarray(which), "x": _floats(3)})


@pytest.mark.parametrize("which", [True, False])
def test_branch_that_computes_nothing(which: bool) -> None:
    _check(_choice([node("Identity", ["x"], ["t"])], [node("Neg", ["x"], ["e"])]), {"c": np.asarray(which), "x": _floats(3)})


def test_branches_of_other_shapes() -> None:
    proto = _choice([node("Identity", ["x"], ["t"])], [node("Concat", ["x", "x"], ["e"], axis=0)], ([3], [6]))
    with pytest.raises(DynamicShapeError, match="If 'I': the condition of If depends on the data of 'c'") as caught:
        load(proto)
    assert caught.value.inputs == ("c",)
    assert load(proto, values={"c": np.asarray(False)}).outputs[0].type.shape == (6,)


# what is wrong --------------------------------------------------------------------------------------------------------------


def test_a_loop_on_data_has_a_limit() -> None:
    proto = model([node("Loop", ["", "", "x"], ["y"], name="L", body=doubling(1.0))], [X, info("most", [])], [info("y", [3])])
    (loop,) = load(proto).nodes
    assert loop.op.attributes()["limit"] == 1_000_000


def test_the_limit_is_a_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_MAX_ITERATIONS", "20")
    proto = model([node("Loop", ["", "", "x"], ["y"], name="L", body=doubling(1.0))], [X, info("most", [])], [info("y", [3])])
    for threads, shared in ((1, False), (2, False), (2, True)):
        if shared:
            monkeypatch.setattr(table, "small_loops", lambda plan: {})
        program = graphc.compile(load(proto), threads=threads)
        with pytest.raises(ResourceError, match="loop 'L': has not ended after 20 iterations"):
            program(np.ones(3, np.float32), np.float32(9))
        np.testing.assert_array_equal(program(np.ones(3, np.float32), np.float32(1)), np.ones(3))


def test_a_loop_that_nothing_ends() -> None:
    takes = [info("i", [], INT64), info("going", [], BOOL), info("v", [3])]
    body = graph([node("Relu", ["v"], ["w"])], takes, [info("yes", [], BOOL), info("w", [3])], yes=np.asarray(True))
    with pytest.raises((ModelError, ResourceError)):
        load(model([node("Loop", ["", "", "x"], ["y"], name="L", body=body)], [X], [info("y", [3])]))


def test_a_capture_that_does_not_exist() -> None:
    proto = model([node("Loop", ["", "", "x"], ["y"], name="L", body=doubling())], [X], [info("y", [3])])
    with pytest.raises(ModelError, match="'most' is not defined"):
        load(proto)


def test_a_state_that_changes_its_shape() -> None:
    """In a known number of iterations it is unrolled; else the inputs that decide are named."""
    body = graph(
        [node("Concat", ["v", "v"], ["w"], axis=0), node("Identity", ["going"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), info("v", ["N"])], [info("again", [], BOOL), info("w", ["M"])],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "x"], ["y"], name="L", body=body)
    unrolled = load(model([loop], [X], [info("y", [24])], n=np.asarray(3)))
    assert unrolled.outputs[0].type.shape == (24,)
    assert not any(n.op.bodies() for n in unrolled.nodes)
    dynamic = model([loop], [X, info("n", [], INT64)], [info("y", ["K"])])
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': the shape of 'x'.*before and.*after an iteration, depends on data") as caught:
        load(dynamic)
    assert "n" in caught.value.inputs
    assert load(dynamic, values={"n": np.asarray(2)}).outputs[0].type.shape == (12,)


@pytest.mark.parametrize("inside", [False, True])
def test_a_state_that_changes_its_shape_until_data_says_so(inside: bool) -> None:
    """The count is known, the condition is not: neither unrolled nor native."""
    again = [node("ReduceSum", ["v"], ["s"], keepdims=0), node("Less", ["s", "most"], ["again"])]
    body = graph(
        [node("Concat", ["v", "v"], ["w"], axis=0), *(again if inside else [node("Identity", ["going"], ["again"])])],
        [info("i", [], INT64), info("going", [], BOOL), info("v", ["N"])], [info("again", [], BOOL), info("w", ["M"])],
    )  # fmt: skip
    loop = node("Loop", ["n", "" if inside else "go", "x"], ["y"], name="L", body=body)
    proto = model([loop], [X, info("most", []), info("go", [], BOOL)], [info("y", ["K"])], n=np.asarray(3))
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': the shape of 'x'.*depends on data") as caught:
        load(proto)
    assert ("x" if inside else "go") in caught.value.inputs


def test_results_whose_length_depends_on_data() -> None:
    body = graph(
        [node("Identity", ["going"], ["again"]), node("Identity", ["v"], ["w"]), node("Identity", ["v"], ["z"])],
        [info("i", [], INT64), info("going", [], BOOL), info("v", [3])], [info("again", [], BOOL), info("w", [3]), info("z", [3])],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "x"], ["y", "all"], name="L", body=body)
    proto = model([loop], [X, info("n", [], INT64)], [info("y", [3]), info("all", ["K", 3])])
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': the number of iterations.*load_onnx\(\.\.\., values=") as caught:
        load(proto)
    assert caught.value.inputs == ("n",)
    found = graphc.compile(load(proto, values={"n": np.asarray(300)}))(np.ones(3, np.float32))
    assert found[1].shape == (300, 3)


def _early(extra: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
    """At most 40 doublings, all of them stacked."""
    body = doubling()
    body.node.append(node("Identity", ["w"], ["z"]))
    body.output.append(info("z", [3]))
    loop = node("Loop", ["n", "", "x"], ["y", "all"], name="L", body=body)
    return model([loop, *extra], [X, info("most", [])], outputs, n=np.asarray(40))


def test_results_with_a_known_most_length_are_cut(tmp_path: Path) -> None:
    proto = _early([], [info("y", [3]), info("all", ["K", 3])])
    calls = [{"x": np.ones(3, np.float32), "most": np.asarray(most, np.float32)} for most in (1, 100, 1e30)]
    made = _check(proto, *calls)
    program = graphc.compile(made)
    assert list(program.outputs) == ["y", "all"]
    assert [program(**feeds)[1].shape[0] for feeds in calls] == [1, 6, 40]
    text = print_graph(made)
    assert 'trim all 0 all:length' in text
    assert print_graph(parse_graph(text, graph_data(made))) == text
    path = tmp_path / "early.onnx"
    onnx.save(proto, path)
    for _ in range(2):  # compiled, then from the cache
        assert graphc.compile(path)(**calls[1])[1].shape == (6, 3)
    assert graphc.compile(made, backend="reference")(**calls[1])[1].shape == (6, 3)


def test_nothing_reads_a_result_of_unknown_length() -> None:
    proto = _early([node("ReduceSum", ["all"], ["sum"], keepdims=0)], [info("y", [3]), info("sum", [])])
    with pytest.raises(DynamicShapeError, match=r"Loop 'L': the number of iterations.*values="):
        load(proto)


@pytest.mark.parametrize("kind", ["carried", "inputs", "outputs", "dtype"])
def test_a_body_that_does_not_fit(kind: str) -> None:
    body = doubling()
    if kind == "inputs":
        body.input.append(info("more", [3]))
    if kind == "outputs":
        del body.output[1]
    if kind == "dtype":
        body.node.append(node("Cast", ["w"], ["u"], to=INT64))
        body.output[1].CopyFrom(info("u", [3], INT64))
    carried = ["x", "x"] if kind == "carried" else ["x"]
    proto = model([node("Loop", ["", "", *carried], ["y"], name="L", body=body)], [X, info("most", [])], [info("y", [3])])
    with pytest.raises(GraphcError, match="Loop 'L'"):
        load(proto)


def test_scan_over_unequal_lengths() -> None:
    body = graph([node("Add", ["a", "b"], ["c"])], [info("a", []), info("b", [])], [info("c", [])])
    scan = node("Scan", ["x", "z"], ["y"], name="S", body=body, num_scan_inputs=2)
    for shape in ([4], ["M"]):
        with pytest.raises(GraphcError, match="different sizes"):
            load(model([scan], [X, info("z", shape)], [info("y", [3])]))


def test_deep_nesting_of_native_loops() -> None:
    body = doubling()
    for depth in range(12):
        inner = node("Loop", ["", "", "v"], ["w"], name=f"L{depth}", body=body)
        nodes = [inner, node("ReduceSum", ["w"], ["s"], keepdims=0), node("Less", ["s", "most"], ["again"])]
        body = helper.make_graph(nodes, "body", list(body.input), list(body.output))
    proto = model([node("Loop", ["", "", "x"], ["y"], name="L", body=body)], [X, info("most", [])], [info("y", [3])])
    _check(proto, {"x": np.ones(3, np.float32), "most": np.asarray(100, np.float32)})
