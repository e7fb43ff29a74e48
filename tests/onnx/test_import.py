"""Import: names, origins, parameters, symbolic sizes, shape arithmetic, external data, functions."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_models import FLOAT, feeds_for, info, model, run, small_cnn

import graphc
from graphc.errors import DynamicShapeError, InputError, ModelError, UnsupportedError
from graphc.ir.graph import Kind
from graphc.types.shape import symbol
from graphc_onnx import load
from graphc_reference import ReferenceExecutable

INT64 = onnx.TensorProto.INT64


def test_result_and_names() -> None:
    proto = small_cnn()
    graph = load(proto)
    feeds = feeds_for(graph, {"N": 3})
    np.testing.assert_allclose(ReferenceExecutable(graph).run(feeds)["y"], run(proto, feeds)[0], rtol=1e-5, atol=1e-6)
    assert set(graph.parameters) == {t.name for t in proto.graph.initializer if t.data_type == FLOAT}
    assert {"x", "c", "b", "r", "p", "f", "y"} <= set(graph.values)
    assert graph.output_names == ["y"]
    assert [node.name for node in graph.nodes if node.op.name == "conv"] == ["conv"]


def test_compile_takes_paths_bytes_and_protos(tmp_path: Path) -> None:
    proto = small_cnn()
    onnx.save(proto, tmp_path / "m.onnx")
    feeds = feeds_for(load(proto), {"N": 2})
    forms = [str(tmp_path / "m.onnx"), tmp_path / "m.onnx", proto.SerializeToString(), bytearray(proto.SerializeToString()), proto]
    results = [graphc.compile(form).run(feeds)["y"].tobytes() for form in forms]
    assert len(set(results)) == 1
    for broken in (b"", b"x", proto.SerializeToString()[:100]):
        with pytest.raises(ModelError):
            graphc.compile(broken)


def test_every_onnx_node_is_accounted_for() -> None:
    graph = load(small_cnn())
    names = {node.name or f"{node.op_type}_{i}" for i, node in enumerate(small_cnn().graph.node)}
    assert set(graph.origins()) | set(graph.eliminated) == names
    assert all(node.source.node and node.source.op for node in graph.nodes)


def test_shape_arithmetic_leaves_no_node() -> None:
    graph = load(small_cnn())
    assert not [node for node in graph.nodes if node.output.type.dtype.is_int]
    (flat,) = [node for node in graph.nodes if node.op.name == "reshape"]
    assert flat.output.type.shape == (symbol("N"), 36)


def test_dims_are_bound_by_name() -> None:
    graph = load(small_cnn(), dims={"N": 4})
    assert graph.symbols == set()
    assert graph.outputs[0].type.shape == (4, 5)
    with pytest.raises(InputError, match=r"no symbolic dimension 'M'.*'N'"):
        load(small_cnn(), dims={"M": 4})
    with pytest.raises(InputError, match="not a size"):
        load(small_cnn(), dims={"N": -1})


def test_symbols_get_legal_names() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    proto = model(nodes, [info("x", ["batch size", None, "2x", -1])], [info("y", None)])
    shape = load(proto).inputs[0].type.shape
    assert [str(dim) for dim in shape] == ["batch_size", "unk_0", "_2x", "unk_1"]
    assert load(proto, dims={"batch size": 3, "unk_1": 5}).inputs[0].type.shape[::3] == (3, 5)


def test_kinds_of_leaves() -> None:
    nodes = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(2, np.float32))),
        helper.make_node("Add", ["x", "k"], ["a"]),
        helper.make_node("Add", ["a", "w"], ["b"]),
        helper.make_node("Gather", ["b", "i"], ["y"], axis=0),
    ]
    weights = {"w": np.zeros(2, np.float32), "i": np.asarray([1, 0, 1], np.int64)}
    graph = load(model(nodes, [info("x", [2]), info("w", [2])], [info("y", [3])], weights))
    assert [value.name for value in graph.inputs] == ["x"]  # w has an initialiser: not an input
    assert graph.values["k"].kind is Kind.CONSTANT
    assert graph.values["w"].kind is Kind.PARAMETER
    assert graph.values["i"].kind is Kind.CONSTANT


def _reshape_by_input() -> onnx.ModelProto:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    return model(nodes, [info("x", [2, 6]), info("shape", [2], INT64)], [info("y", None)])


def test_shape_from_a_graph_input() -> None:
    with pytest.raises(DynamicShapeError, match="'shape'") as error:
        load(_reshape_by_input())
    assert error.value.inputs == ("shape",)
    assert "Reshape" in str(error.value)
    graph = load(_reshape_by_input(), values={"shape": np.asarray([3, -1])})
    assert graph.outputs[0].type.shape == (3, 4)
    assert [value.name for value in graph.inputs] == ["x"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"nothing": np.zeros(2, np.int64)}, "no input 'nothing'"),
        ({"shape": np.zeros(2, np.int32)}, "must be i64"),
        ({"shape": np.zeros(3, np.int64)}, "has shape"),
    ],
)
def test_wrong_values(values: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load(_reshape_by_input(), values=values)


def test_unsupported_operators_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"]),
        helper.make_node("Det", ["x"], ["b"]),
        helper.make_node("Mystery", ["a", "b"], ["y"], domain="my.domain"),
    ]
    proto = model(nodes, [info("x", [2, 2])], [info("y", [])])
    with pytest.raises(UnsupportedError, match=r"3 nodes .*Det \(2\), my.domain:Mystery \(1\)"):
        load(proto)


def test_local_functions_are_inlined() -> None:
    """Attributes by reference and by default, an optional input left out, names that repeat between calls."""
    scaled = helper.make_node("Elu", ["a"], ["t"])
    scaled.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    body = [scaled, helper.make_node("Add", ["t", "b"], ["y"])]
    function = helper.make_function("my", "EluAdd", ["a", "b"], ["y"], body, [helper.make_opsetid("", 17)], attributes=["alpha"])
    calls = [
        helper.make_node("EluAdd", ["x", "x"], ["u"], domain="my", alpha=0.5, name="first"),
        helper.make_node("EluAdd", ["u", "x"], ["y"], domain="my", alpha=2.0, name="second"),
    ]
    proto = model(calls, [info("x", [5])], [info("y", [5])], functions=[function])
    feeds = {"x": np.linspace(-2, 2, 5, dtype=np.float32)}
    graph = load(proto)
    np.testing.assert_allclose(ReferenceExecutable(graph).run(feeds)["y"], run(proto, feeds)[0], rtol=1e-6)
    assert graph.origins() == ["first", "second"]


def test_function_body_of_the_schema() -> None:
    """GroupNormalization has a handler, CenterCropPad only a function body."""
    nodes = [helper.make_node("CenterCropPad", ["x", "size"], ["y"], axes=[0, 1])]
    proto = model(nodes, [info("x", [5, 4])], [info("y", None)], {"size": np.asarray([3, 6], np.int64)}, opset=18)
    feeds = {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}
    graph = load(proto)
    np.testing.assert_array_equal(ReferenceExecutable(graph).run(feeds)["y"], run(proto, feeds)[0])


def test_external_data_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(small_cnn(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = load(path)
    owner = graph.parameters["fc.weight"].data
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner, np.memmap) or isinstance(owner.base, mmap.mmap)
    expected = load(small_cnn())
    feeds = feeds_for(graph)
    np.testing.assert_array_equal(ReferenceExecutable(graph).run(feeds)["y"], ReferenceExecutable(expected).run(feeds)["y"])


def test_data_beyond_2_gb_is_not_read(tmp_path: Path) -> None:
    """A 3 GB file (with holes) of weights is mapped: loading takes neither its memory nor its time."""
    count = 3 << 28
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[count], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", 0), ("length", 4 * count)):
        tensor.external_data.add(key=key, value=str(value))
    proto = model([helper.make_node("Gather", ["w", "i"], ["y"])], [info("i", [1], INT64)], [info("y", [1])])
    proto.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as file:
        file.seek(4 * (count - 1))
        file.write(np.float32(7).tobytes())
    graph = load(tmp_path / "m.onnx")
    assert graph.parameters["w"].data is not None
    assert graph.parameters["w"].data[-1] == 7


def test_sparse_initializer() -> None:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", [2, 3])], [info("y", [2, 3])])
    values = numpy_helper.from_array(np.asarray([5, 7], np.float32), "w")
    indices = numpy_helper.from_array(np.asarray([[0, 1], [1, 2]], np.int64), "indices")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    np.testing.assert_array_equal(load(proto).parameters["w"].data, [[0, 5, 0], [0, 0, 7]])


def test_metadata_travels() -> None:
    proto = small_cnn()
    helper.set_model_props(proto, {"author": "nobody"})
    assert load(proto).metadata == {"author": "nobody"}
