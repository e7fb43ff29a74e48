"""Small ONNX models for the tests, and running them in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

onnxruntime.set_default_logger_severity(3)
Array = np.ndarray[Any, np.dtype[Any]]
FLOAT = onnx.TensorProto.FLOAT


def info(name: str, shape: Sequence[int | str | None] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, Array] | None = None, opset: int = 17, functions: Sequence[onnx.FunctionProto] = (), **more: Any,
) -> onnx.ModelProto:  # fmt: skip
    """A model of IR version 8 (10 with newer opsets)."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), initializer=tensors)
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
    return helper.make_model(graph, opset_imports=imports, ir_version=10 if opset > 17 else 8, functions=list(functions), **more)


def small_cnn() -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, MaxPool, Flatten through Shape arithmetic, Gemm, Softmax; symbolic batch N."""
    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=4).astype(np.float32),
        "bn.scale": rng.uniform(0.5, 1.5, 4).astype(np.float32),
        "bn.bias": rng.normal(size=4).astype(np.float32),
        "bn.mean": rng.normal(size=4).astype(np.float32),
        "bn.var": rng.uniform(0.5, 1.5, 4).astype(np.float32),
        "fc.weight": rng.normal(size=(5, 36)).astype(np.float32),
        "fc.bias": rng.normal(size=5).astype(np.float32),
        "zero": np.asarray(0, np.int64),
        "minus": np.asarray([-1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"], name="bn"),
        helper.make_node("Relu", ["b"], ["r"], name="relu"),
        helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["p", "target"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["g"], name="fc", transB=1),
        helper.make_node("Softmax", ["g"], ["y"], name="softmax", axis=-1),
    ]
    return model(nodes, [info("x", ["N", 3, 6, 6])], [info("y", ["N", 5])], {**weights, "axes": np.asarray([0], np.int64)})


def run(proto: onnx.ModelProto | str, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs in ONNX Runtime."""
    source = proto if isinstance(proto, str) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def feeds_for(graph: Any, sizes: Mapping[str, int] | None = None, seed: int = 0) -> dict[str, Array]:
    """Random inputs of a graph; symbolic dims take `sizes`, else 2."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in graph.inputs:
        shape = [dim if isinstance(dim, int) else (sizes or {}).get(str(dim), 2) for dim in value.type.shape]
        made[value.name] = rng.normal(size=shape).astype(value.type.dtype.numpy)
    return made
