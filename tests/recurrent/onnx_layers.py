"""ONNX models of one recurrent layer, with all weights as initialisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ops.recurrent_loop import ORDER, layer

Array = np.ndarray[Any, np.dtype[Any]]
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
T, B, WIDTH, H = 5, 4, 3, 7
LENGTHS: dict[str, list[int] | None] = {"none": None, "equal": [T] * B, "ragged": [5, 2, 4, 1], "zero": [3, 0, 5, 0], "one": [1] * B}


@dataclass(frozen=True)
class Layer:
    """One model: `feeds` are its inputs at run time, the lengths among them."""

    op: str
    direction: str
    lengths: str = "none"
    layout: int = 0
    initial: bool = False
    linear_before_reset: int = 0
    peepholes: bool = False

    @property
    def tensors(self) -> dict[str, Array]:
        d, gates, rng = len(ORDER[self.direction]), GATES[self.op] * H, np.random.default_rng(1)
        state = (B, d, H) if self.layout else (d, B, H)
        shapes = {"x": (B, T, WIDTH) if self.layout else (T, B, WIDTH), "w": (d, gates, WIDTH), "r": (d, gates, H), "b": (d, 2 * gates)}
        if self.initial:
            shapes |= {"h0": state} | ({"c0": state} if self.op == "LSTM" else {})
        if self.peepholes:
            shapes["p"] = (d, 3 * H)
        made: dict[str, Array] = {key: rng.uniform(-0.7, 0.7, shape).astype(np.float32) for key, shape in shapes.items()}
        lengths = LENGTHS[self.lengths]
        return made if lengths is None else made | {"lengths": np.asarray(lengths, np.int32)}

    @property
    def feeds(self) -> dict[str, Array]:
        return {key: value for key, value in self.tensors.items() if key not in "wrbp"}

    def model(self, **attributes: Any) -> onnx.ModelProto:
        tensors = self.tensors
        names = ["x", "w", "r", "b", "lengths", "h0", *(["c0", "p"] if self.op == "LSTM" else [])]
        outputs = ["y", "y_h", *(["y_c"] if self.op == "LSTM" else [])]
        extra = {"linear_before_reset": self.linear_before_reset} if self.op == "GRU" else {}
        node = helper.make_node(self.op, [n if n in tensors else "" for n in names], outputs, hidden_size=H, direction=self.direction,
                                layout=self.layout, **extra, **attributes)  # fmt: skip
        kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
        given = [helper.make_tensor_value_info(k, kinds[v.dtype.name], v.shape) for k, v in self.feeds.items()]
        constants = [numpy_helper.from_array(v, k) for k, v in tensors.items() if k not in self.feeds]
        graph = helper.make_graph([node], "layer", given, [onnx.ValueInfoProto(name=n) for n in outputs], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def expected(self) -> list[Array]:
        """By plain loops."""
        tensors = self.tensors
        d, gates = len(ORDER[self.direction]), GATES[self.op] * H
        outer, inner = np.split(tensors["b"].astype(np.float64), 2, axis=1)
        inside = None
        if self.linear_before_reset:
            inside, inner = inner[:, 2 * H :], np.concatenate([inner[:, : 2 * H], np.zeros((d, H))], 1)
        x = tensors["x"].astype(np.float64) @ tensors["w"].reshape(d * gates, WIDTH).T + (outer + inner).reshape(-1)
        made = layer(
            self.op.lower(), x, tensors["r"], direction=self.direction, bias=inside, peepholes=tensors.get("p"), h0=tensors.get("h0"),
            lengths=tensors.get("lengths"), c0=tensors.get("c0"), batch_first=bool(self.layout),
            linear_before_reset=inside is not None,
        )  # fmt: skip
        return [made[name] for name in ("y", "y_h", *(["y_c"] if self.op == "LSTM" else []))]
