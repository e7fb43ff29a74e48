"""Independent oracles for samples: PyTorch and ONNX Runtime (or the reference evaluator of the onnx package)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

Oracle = Callable[..., Any]


def by_torch(fn: Callable[[Any], Callable[..., Any]]) -> Oracle:
    """`fn(torch)` gives a function of tensors: `by_torch(lambda torch: torch.nn.functional.relu)`. Skips where torch is missing."""

    def oracle(*arrays: Any) -> Any:
        torch = pytest.importorskip("torch")
        result = fn(torch)(*(torch.from_numpy(np.array(a)) for a in arrays))
        return tuple(r.detach().numpy() for r in result) if isinstance(result, (tuple, list)) else result.detach().numpy()

    return oracle


def node_model(op: str, arrays: tuple[Any, ...], opset: int, outputs: int, **attributes: Any) -> onnx.ModelProto:
    """A model of one node; inputs that are None are left out (empty name)."""
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(arrays)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(names, arrays, strict=True) if n
    ]
    graph = helper.make_graph([node], "sample", infos, [onnx.ValueInfoProto(name=n) for n in results])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def by_ort(op: str, *, opset: int = 21, outputs: int = 1, extra: tuple[Any, ...] = (), **attributes: Any) -> Oracle:
    """The ONNX operator in ONNX Runtime; `extra`: further constant inputs (None: left out). Skips where onnxruntime is missing."""

    def oracle(*arrays: Any) -> Any:
        ort = pytest.importorskip("onnxruntime")
        all_inputs = (*arrays, *(None if e is None else np.asarray(e) for e in extra))
        model = node_model(op, all_inputs, opset, outputs, **attributes)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return tuple(session.run(None, {f"x{i}": a for i, a in enumerate(all_inputs) if a is not None}))

    return oracle


def by_onnx(op: str, *, opset: int = 21, outputs: int = 1, extra: tuple[Any, ...] = (), **attributes: Any) -> Oracle:
    """The same with the onnx package's own reference evaluator."""

    def oracle(*arrays: Any) -> Any:
        all_inputs = (*arrays, *(None if e is None else np.asarray(e) for e in extra))
        model = node_model(op, all_inputs, opset, outputs, **attributes)
        feeds = {f"x{i}": a for i, a in enumerate(all_inputs) if a is not None}
        return tuple(np.asarray(r) for r in ReferenceEvaluator(model).run(None, feeds))

    return oracle


