"""Broken and hostile files: whatever is given, only a GraphcError that names the place comes out."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import FLOAT, info, model, small_cnn

from graphc.errors import GraphcError, ModelError, ResourceError, ShapeError, UnsupportedError
from graphc_onnx import load

INT64 = onnx.TensorProto.INT64
X, Y = info("x", [2, 3]), info("y", None)
BYTES = small_cnn().SerializeToString()


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def relu(*, opset: int = 17) -> onnx.ModelProto:
    return model([node("Relu", ["x"], ["y"])], [X], [Y], opset=opset)


# files -------------------------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file") as error:
        load(tmp_path / "nothing.onnx")
    assert "nothing.onnx" in str(error.value)
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not a model", b"\x00" * 100, BYTES[: len(BYTES) // 2], BYTES[:-1]])
def test_not_a_model(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        load(path)


def test_no_graph() -> None:
    with pytest.raises(ModelError, match="no graph"):
        load(onnx.ModelProto(ir_version=8).SerializeToString())


def test_versions() -> None:
    newer = relu()
    newer.ir_version = 1000
    with pytest.raises(UnsupportedError, match="IR version 1000"):
        load(newer)
    with pytest.raises(UnsupportedError, match="opset 999"):
        load(relu(opset=999))
    without = relu()
    del without.opset_import[:]
    with pytest.raises(ModelError, match="opset"):
        load(without)


# structure ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Relu", ["nothing"], ["y"])], "'nothing' is not defined"),
        ([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])], "'b' depends on itself"),
        ([node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])], "'a' is used before"),
        ([node("Relu", ["x"], ["y"]), node("Tanh", ["x"], ["y"])], "'y' is defined twice"),
        ([node("Relu", ["x"], ["x"]), node("Relu", ["x"], ["y"])], "'x' is defined twice"),
        ([node("Relu", ["x"], ["z"])], "output 'y' is not computed"),
        ([node("", ["x"], ["y"])], "no operator type"),
        ([node("Add", ["x", ""], ["y"])], "input 1 is missing"),
        ([node("Add", ["x"], ["y"])], "input 1 is missing"),
        ([node("Relu", ["x"], ["y"], alpha=1.0)], "unknown attribute 'alpha'"),
        ([node("LeakyRelu", ["x"], ["y"], alpha=3)], "attribute alpha has the wrong type int"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 0])], "not a permutation"),
        ([node("Concat", ["x", "x"], ["y"], axis=7)], "axis 7 is outside"),
        ([node("Softmax", ["x"], ["y"], axis=-3)], "axis -3 is outside"),
        ([node("Relu", ["x"], ["y", "z"])], "has 1 outputs"),
        ([node("Split", ["x"], ["y", "z"], axis=1)], "cannot split 3"),
        ([node("Cast", ["x"], ["y"], to=onnx.TensorProto.BFLOAT16)], "bfloat16"),
        ([node("Cast", ["x"], ["y"], to=12345)], "element type"),
        ([node("Constant", [], ["s"], value_ints=[2, -3]), node("ConstantOfShape", ["s"], ["y"])], r"f32\[2,-3\]: a negative size"),
        ([node("Constant", [], ["s"], value_ints=[-2, -3]), node("Expand", ["x", "s"], ["y"])], "Expand"),
    ],
)
def test_structure(nodes: list[onnx.NodeProto], reason: str) -> None:
    with pytest.raises(GraphcError, match=reason):
        load(model(nodes, [X], [Y]))


def test_errors_name_the_node() -> None:
    with pytest.raises(ShapeError) as error:
        load(model([node("MatMul", ["x", "x"], ["y"], name="my/matmul")], [X], [Y]))
    assert "MatMul 'my/matmul'" in str(error.value)


def test_an_unexpected_failure_of_a_handler_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc_onnx import registry

    def broken(context: object, onnx_node: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setitem(registry._table, ("", "Relu"), [registry.Entry(1, 100, broken)])
    with pytest.raises(ModelError, match=r"Relu 'Relu_0'.*surprise") as error:
        load(relu())
    assert isinstance(error.value.__cause__, KeyError)


def test_recursive_functions() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    f = helper.make_function("my", "F", ["a"], ["b"], [node("G", ["a"], ["b"], domain="my")], imports)
    g = helper.make_function("my", "G", ["a"], ["b"], [node("F", ["a"], ["b"], domain="my")], imports)
    with pytest.raises(ModelError, match="calls itself"):
        load(model([node("F", ["x"], ["y"], domain="my")], [X], [Y], functions=[f, g]))


def test_functions_that_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of 60 functions, each calling the next one twice, stands for 2^60 nodes."""
    monkeypatch.setenv("GRAPHC_MAX_NODES", "2000")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    chain = []
    for i in range(60):
        body = [node(f"F{i + 1}", ["a"], ["b"], domain="my"), node(f"F{i + 1}", ["b"], ["c"], domain="my")]
        chain.append(helper.make_function("my", f"F{i}", ["a"], ["c"], body, imports))
    chain.append(helper.make_function("my", "F60", ["a"], ["c"], [node("Relu", ["a"], ["c"])], imports))
    with pytest.raises(ResourceError, match="GRAPHC_MAX_NODES=2000"):
        load(model([node("F0", ["x"], ["y"], domain="my")], [X], [Y], functions=chain))


def test_endless_loop() -> None:
    body = helper.make_graph(
        [node("Identity", ["going"], ["still"]), node("Relu", ["a"], ["b"])],
        "body",
        [info("i", [], INT64), info("going", [], onnx.TensorProto.BOOL), info("a", [2, 3])],
        [info("still", [], onnx.TensorProto.BOOL), info("b", [2, 3])],
    )
    trips = {"trips": np.asarray(1 << 62, np.int64)}
    with pytest.raises(ResourceError, match="GRAPHC_MAX_ITERATIONS=1000000"):
        load(model([node("Loop", ["trips", "", "x"], ["y"], body=body)], [X], [Y], trips))


def test_deep_nesting_of_subgraphs() -> None:
    graph = helper.make_graph([node("Relu", ["x"], ["y"])], "leaf", [], [Y])
    for depth in range(30):
        branch = node("If", ["c"], ["y"], then_branch=graph, else_branch=graph) if depth < 3 else node("Relu", ["x"], ["y"])
        graph = helper.make_graph([branch], f"level{depth}", [], [Y])
    with pytest.raises(GraphcError):
        load(model([node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)], [X], [Y]))


# data --------------------------------------------------------------------------------------------------------------------------


def with_weight(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model([node("Add", ["x", "w"], ["y"])], [X], [Y])
    proto.graph.initializer.append(tensor)
    return proto


def test_damaged_tensors() -> None:
    short = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2, 3], raw_data=b"\0" * 20)
    with pytest.raises(ModelError, match=r"'w'.*24 bytes.*20"):
        load(with_weight(short))
    typed = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2, 3], float_data=[1.0] * 5)
    with pytest.raises(ModelError, match=r"'w'.*holds 5"):
        load(with_weight(typed))
    negative = onnx.TensorProto(name="w", data_type=FLOAT, dims=[-2, 3], raw_data=b"")
    with pytest.raises(ModelError, match="negative size"):
        load(with_weight(negative))
    outside = onnx.TensorProto(name="w", data_type=onnx.TensorProto.INT8, dims=[1], int32_data=[300])
    with pytest.raises(ModelError, match="outside i8"):
        load(with_weight(outside))
    strings = onnx.TensorProto(name="w", data_type=onnx.TensorProto.STRING, dims=[1], string_data=[b"a"])
    with pytest.raises(UnsupportedError, match="string"):
        load(with_weight(strings))


def test_huge_tensors_are_refused_before_they_are_allocated() -> None:
    start = time.perf_counter()
    with pytest.raises(ResourceError, match="'w'"):
        load(with_weight(onnx.TensorProto(name="w", data_type=FLOAT, dims=[1 << 40, 1 << 40], raw_data=b"")))
    with pytest.raises(ResourceError, match="'x'"):
        load(model([node("Relu", ["x"], ["y"])], [info("x", [1 << 60])], [Y]))
    big = {"shape": np.asarray([1 << 20, 1 << 20, 64], np.int64)}
    with pytest.raises(ResourceError, match="'y'"):
        load(model([node("ConstantOfShape", ["shape"], ["y"])], [X], [Y], big))
    numbers = {"start": np.asarray(0, np.int64), "limit": np.asarray(1 << 62, np.int64), "delta": np.asarray(1, np.int64)}
    with pytest.raises(ResourceError, match="Range"):
        load(model([node("Range", ["start", "limit", "delta"], ["y"])], [X], [Y], numbers))
    assert time.perf_counter() - start < 2


def test_constants_of_the_importer_are_small() -> None:
    """Range over 2^28 numbers, and as many rows of a matrix: far below the memory limit, and nothing to compute while importing."""
    numbers = {"start": np.asarray(0, np.int32), "limit": np.asarray(1 << 28, np.int32), "delta": np.asarray(1, np.int32)}
    with pytest.raises(ResourceError, match=r"Range.*GRAPHC_FOLD_LIMIT"):
        load(model([node("Range", ["start", "limit", "delta"], ["y"])], [X], [Y], numbers))
    with pytest.raises(ResourceError, match=r"EyeLike.*GRAPHC_FOLD_LIMIT"):
        load(model([node("EyeLike", ["x"], ["y"])], [info("x", [1 << 20, 64])], [Y]))


def test_an_empty_tensor_with_a_size_that_overflows() -> None:
    pads = [0, 0, (1 << 62) - 1, (1 << 62) - 1]
    with pytest.raises(ResourceError, match=r"\[0,1,\d+\]"):
        load(model([node("Pad", ["x", "pads"], ["y"])], [info("x", [0, 1, 5])], [Y], {"pads": np.asarray([0, 0, 1 << 62, 0, 0, 1 << 62])}))
    with pytest.raises(ResourceError, match=r"\[0,1,\d+\]"):
        load(model([node("AveragePool", ["x"], ["y"], kernel_shape=[1], pads=pads[2:])], [info("x", [0, 1, 5])], [Y]))


def test_the_limit_is_a_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_MAX_BYTES", "16")
    with pytest.raises(ResourceError, match="GRAPHC_MAX_BYTES=16"):
        load(relu())


def external(location: str, offset: int = 0, length: int = 24) -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2, 3], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return with_weight(tensor)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/etc/passwd", "not a path inside"),
        ("../secret.bin", "not a path inside"),
        ("sub/../../secret.bin", "not a path inside"),
        ("C:\\secret.bin", "not a path inside"),
        ("..\\secret.bin", "not a path inside"),
        ("", "not a path inside"),
        ("a\0b", "not a path inside"),
        ("missing.bin", "is missing"),
        ("link.bin", "not a file inside"),
        ("folder", "not a file inside"),
        ("short.bin", "lies outside"),
    ],
)
def test_external_data_stays_in_the_folder(location: str, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(b"\0" * 24)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(b"\0" * 23)
    (folder / "m.onnx").write_bytes(external(location).SerializeToString())
    with pytest.raises(ModelError, match=reason):
        load(folder / "m.onnx")


@pytest.mark.parametrize(("offset", "length"), [(-4, 24), (8, 24), (0, 20), (1 << 70, 24)])
def test_external_data_outside_the_file(offset: int, length: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 24)
    (tmp_path / "m.onnx").write_bytes(external("w.bin", offset, length).SerializeToString())
    with pytest.raises(ModelError, match="'w'"):
        load(tmp_path / "m.onnx")


def test_external_data_without_a_folder() -> None:
    with pytest.raises(ModelError, match="load the model by its path"):
        load(external("w.bin"))


# mutations ---------------------------------------------------------------------------------------------------------------------

_MUTATION = st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255), st.sampled_from(["set", "insert", "delete"]))


def mutated(changes: list[tuple[int, int, str]]) -> bytes:
    data = bytearray(BYTES)
    for position, value, kind in changes:
        at = position % max(len(data), 1)
        if kind == "set" and data:
            data[at] = value
        elif kind == "insert":
            data.insert(at, value)
        elif data:
            del data[at]
    return bytes(data)


def only_graphc_errors(source: bytes | onnx.ModelProto) -> None:
    """Importing works, or fails with a GraphcError; any other exception fails the test."""
    with contextlib.suppress(GraphcError):
        assert load(source).outputs


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_MUTATION, min_size=1, max_size=4))
def test_mutated_bytes_raise_nothing_but_graphc_errors(changes: list[tuple[int, int, str]]) -> None:
    only_graphc_errors(mutated(changes))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(BYTES)))
def test_truncated_bytes_raise_nothing_but_graphc_errors(length: int) -> None:
    only_graphc_errors(BYTES[:length])


_NUMBERS = st.one_of(st.integers(-4, 8), st.sampled_from([-(1 << 63), (1 << 63) - 1, 1 << 31, 1 << 40, -(1 << 31)]))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_attributes_and_shapes_raise_nothing_but_graphc_errors(data: st.DataObject) -> None:
    """Numbers in attributes, shapes and integer initialisers take hostile values; the structure stays."""
    proto = small_cnn()
    for onnx_node in proto.graph.node:
        for attribute in onnx_node.attribute:
            for i in range(len(attribute.ints)):
                if data.draw(st.booleans()):
                    attribute.ints[i] = data.draw(_NUMBERS)
            if attribute.type == onnx.AttributeProto.INT:
                attribute.i = data.draw(_NUMBERS)
    for tensor in proto.graph.initializer:
        if tensor.data_type == INT64 and data.draw(st.booleans()):
            count = int(np.prod(tensor.dims))
            tensor.raw_data = np.asarray([data.draw(_NUMBERS) for _ in range(count)], np.int64).tobytes()
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        if data.draw(st.booleans()):
            dim.dim_value = data.draw(_NUMBERS)
    only_graphc_errors(proto)
