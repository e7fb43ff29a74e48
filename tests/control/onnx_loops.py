"""ONNX models with control flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def info(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], opset: int = 21,
    **initializers: Array,
) -> onnx.ModelProto:  # fmt: skip
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(list(nodes), "control", list(inputs), list(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def graph(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], **initializers: Array
) -> onnx.GraphProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs), tensors)


def doubling(step: float = 2.0) -> onnx.GraphProto:
    """v = v * step while the sum is below `most`, of the graph around."""
    return graph(
        [node("Mul", ["v", "step"], ["w"]), node("ReduceSum", ["w"], ["s"], keepdims=0), node("Less", ["s", "most"], ["again"])],
        [info("i", [], INT64), info("going", [], BOOL), info("v", [3])], [info("again", [], BOOL), info("w", [3])],
        step=np.float32(step),
    )  # fmt: skip


def rnn(length: int | str, **attributes: Any) -> onnx.ModelProto:
    """Scan of h = tanh(x W + h R), with weights inside of the body."""
    rng = np.random.default_rng(0)
    body = graph(
        [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["h", "r"], ["b"]), node("Add", ["a", "b"], ["c"]), node("Tanh", ["c"], ["d"]),
         node("Identity", ["d"], ["e"])],
        [info("h", [2, 4]), info("x", [2, 3])], [info("d", [2, 4]), info("e", [2, 4])],
        w=rng.standard_normal((3, 4)).astype(np.float32), r=rng.uniform(-0.5, 0.5, (4, 4)).astype(np.float32),
    )  # fmt: skip
    scan = node("Scan", ["h0", "xs"], ["last", "ys"], name="cell", body=body, num_scan_inputs=1, **attributes)
    return model([scan], [info("h0", [2, 4]), info("xs", [length, 2, 3])], [info("last", [2, 4]), info("ys", [length, 2, 4])])
