"""The standard backend interface: prepare, run_model, run_node, inputs that decide shapes, numpy scalars."""

from __future__ import annotations

from unittest import SkipTest

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import FLOAT, Array, info, model

import graphc_onnx.backend as backend
from graphc.errors import GraphcError, InputError, ModelError
from graphc_onnx.backend import GraphcBackend, ReferenceBackend

INT64 = onnx.TensorProto.INT64
both = pytest.mark.parametrize("under_test", [GraphcBackend, ReferenceBackend])


@both
def test_run_model(under_test: type[GraphcBackend]) -> None:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", ["N", 3])], [info("y", ["N", 3])], {"w": np.ones(3, np.float32)})
    (y,) = under_test.run_model(proto, [np.zeros((2, 3), np.float32)])
    np.testing.assert_array_equal(y, np.ones((2, 3)))


@both
def test_outputs_by_name_and_in_order(under_test: type[GraphcBackend]) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["b"]), helper.make_node("Abs", ["x"], ["a"])]
    outputs = under_test.prepare(model(nodes, [info("x", [2])], [info("a", [2]), info("b", [2])])).run([np.asarray([1, -2], np.float32)])
    np.testing.assert_array_equal(outputs[0], [1, 2])
    np.testing.assert_array_equal(outputs["b"], [-1, 2])


@both
def test_run_node(under_test: type[GraphcBackend]) -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=0)
    (y,) = under_test.run_node(node, [np.zeros(2, np.float32), np.ones(1, np.float32)])
    np.testing.assert_array_equal(y, [0, 0, 1])


@both
def test_numpy_scalars(under_test: type[GraphcBackend]) -> None:
    proto = model([helper.make_node("Mul", ["x", "s"], ["y"])], [info("x", [2]), info("s", [])], [info("y", [2])])
    (y,) = under_test.run_model(proto, [np.ones(2, np.float32), np.float32(3)])
    np.testing.assert_array_equal(y, [3, 3])


@both
def test_specialises_for_inputs_that_decide_shapes(under_test: type[GraphcBackend]) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("ReduceSum", ["r", "axes"], ["y"], keepdims=0),
    ]
    inputs = [info("x", [2, 6]), info("shape", [2], INT64), info("axes", [1], INT64)]
    rep = under_test.prepare(model(nodes, inputs, [info("y", None)]))
    x = np.arange(12, dtype=np.float32).reshape(2, 6)

    def run(shape: list[int], axes: list[int]) -> Array:
        (y,) = rep.run([x, np.asarray(shape), np.asarray(axes)])
        return np.asarray(y)

    np.testing.assert_array_equal(run([3, 4], [0]), x.reshape(3, 4).sum(0))
    np.testing.assert_array_equal(run([4, 3], [1]), x.reshape(4, 3).sum(1))
    assert sorted(rep.bound) == ["axes", "shape"]
    kept = len(rep.programs)
    np.testing.assert_array_equal(run([3, 4], [0]), x.reshape(3, 4).sum(0))
    assert len(rep.programs) == kept  # the same bytes: no new specialisation


def test_unsupported_is_skipped_and_broken_is_an_error() -> None:
    with pytest.raises(SkipTest, match="Det"):
        backend.prepare(model([helper.make_node("Det", ["x"], ["y"])], [info("x", [2, 2])], [info("y", [])]))
    broken = model([helper.make_node("Relu", ["nothing"], ["y"])], [info("x", [2])], [info("y", [2])])
    with pytest.raises(ModelError):
        backend.prepare(broken)
    with pytest.raises(SkipTest):
        backend.prepare(broken, device="CUDA")
    assert issubclass(ModelError, GraphcError)


def test_too_many_inputs() -> None:
    rep = backend.prepare(model([helper.make_node("Relu", ["x"], ["y"])], [info("x", [2], FLOAT)], [info("y", [2])]))
    with pytest.raises(InputError):
        rep.run([np.zeros(2, np.float32)] * 2)


def test_devices() -> None:
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
