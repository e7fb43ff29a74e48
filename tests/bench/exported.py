"""Building ONNX models as PyTorch's dynamo exporter writes them, with calibrated random weights.

Every call of `Export` runs the new node on a few calibration images in ONNX Runtime, so weights can be fitted to what flows where they are
used: He et al. 2015 (arXiv:1502.01852), then unit variance by layer (Mishkin and Matas 2016, arXiv:1511.06422), as in `bench.models`.

The forms are the exporter's at opset 20: batch normalisation folded into the convolution (its bias is called NAME.folded_bias), global
pooling as ReduceMean over axes [2, 3], Reshape with allowzero=1 and a fixed batch of 1, SiLU as Sigmoid and Mul, ReLU6 as Clip with 0-d
bounds, linear layers as Gemm with transB=1 on matrices and as MatMul and Add on images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
OPSET = 20
_FEW = 64  # positions in all calibration images together
_DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


@dataclass(frozen=True)
class Tensor:
    """A value of the model and what it is on the calibration images."""

    name: str
    array: Array

    @property
    def channels(self) -> int:
        """Size of axis 1."""
        return int(self.array.shape[1])


class Export:
    """A model in the making. Methods add nodes and return the new value."""

    def __init__(self, name: str, images: Array, seed: int) -> None:
        self.name = name
        self.image = Tensor("x", images)
        self._rng = np.random.default_rng([seed, OPSET])
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._counts: Counter[str] = Counter()

    def op(self, kind: str, inputs: Sequence[Tensor], **attributes: Any) -> Tensor:
        """One node with one output."""
        name = self._name(kind.lower())
        node = helper.make_node(kind, [x.name for x in inputs], [name], name=f"node_{name}", **attributes)
        self._nodes.append(node)
        return Tensor(name, _evaluate(node, [x.array for x in inputs]))

    def constant(self, name: str, array: Array) -> Tensor:
        """An initialiser."""
        self._constants[name] = array
        return Tensor(name, array)

    def conv(
        self, x: Tensor, channels: int, kernel: int, stride: int = 1, *, groups: int = 1, folded: bool = True, pad: int | None = None,
        std: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Conv with a bias, padded to keep the size (at stride 1) unless `pad` is given. `folded`: batch normalisation was folded in."""
        around = kernel // 2 if pad is None else pad
        return self._weighted(
            "Conv", x, (channels, x.channels // groups, kernel, kernel), 0, folded, std, auto_pad="NOTSET", dilations=[1, 1], group=groups,
            pads=[around] * 4, strides=[stride] * 2,
        )  # fmt: skip

    def conv_transpose(self, x: Tensor, channels: int, kernel: int, stride: int) -> Tensor:
        """ConvTranspose with a bias and no padding."""
        return self._weighted(
            "ConvTranspose", x, (x.channels, channels, kernel, kernel), 1, False, auto_pad="NOTSET", dilations=[1, 1], group=1,
            pads=[0] * 4, strides=[stride] * 2,
        )  # fmt: skip

    def gemm(self, x: Tensor, features: int, std: float = 1.0) -> Tensor:
        """A linear layer on a matrix; its output has that standard deviation."""
        return self._weighted("Gemm", x, (features, x.channels), 0, False, std=std, alpha=1.0, beta=1.0, transB=1, transA=0)

    def linear(self, x: Tensor, features: int) -> Tensor:
        """A linear layer on the last axis of an image: MatMul and Add."""
        name = self._name("linear")
        weight = self._draw((x.array.shape[-1], features), x.array.shape[-1])
        y = x.array.reshape(-1, x.array.shape[-1]) @ weight
        scale = np.float32(1 / y.std())
        product = self.op("MatMul", [x, self.constant(f"{name}.weight", weight * scale)])
        bias = self._draw((features,), 50) - product.array.mean(axis=tuple(range(product.array.ndim - 1)))
        return self.op("Add", [product, self.constant(f"{name}.bias", bias.astype(np.float32))])

    def layer_norm(self, x: Tensor) -> Tensor:
        """LayerNormalization over the last axis."""
        name, size = self._name("norm"), x.array.shape[-1]
        scale = self.constant(f"{name}.weight", np.clip(1 + self._draw((size,), 50), 0.4, 1.6))
        return self.op("LayerNormalization", [x, scale, self.constant(f"{name}.bias", self._draw((size,), 50))], axis=-1, epsilon=1e-6)

    def layer_scale(self, x: Tensor) -> Tensor:
        """Mul by one factor per channel (axis 1)."""
        factor = np.clip(0.3 + self._draw((x.channels, 1, 1), 200), 0.05, 0.6)
        return self.op("Mul", [x, self.constant(f"{self._name('scale')}.weight", factor)])

    def relu(self, x: Tensor) -> Tensor:
        return self.op("Relu", [x])

    def relu6(self, x: Tensor) -> Tensor:
        low, high = self.constant("zero", np.zeros((), np.float32)), self.constant("six", np.full((), 6, np.float32))
        return self.op("Clip", [x, low, high])

    def silu(self, x: Tensor) -> Tensor:
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def max_pool(self, x: Tensor, kernel: int, stride: int, pad: int = 0) -> Tensor:
        return self.op(
            "MaxPool", [x], auto_pad="NOTSET", ceil_mode=0, dilations=[1, 1], kernel_shape=[kernel] * 2, pads=[pad] * 4, storage_order=0,
            strides=[stride] * 2,
        )  # fmt: skip

    def transpose(self, x: Tensor, *axes: int) -> Tensor:
        return self.op("Transpose", [x], perm=axes)

    def global_mean(self, x: Tensor) -> Tensor:
        """Mean over the image, (N, C, 1, 1)."""
        return self.op("ReduceMean", [x, self.constant("axes_2_3", np.array([2, 3], np.int64))], keepdims=1, noop_with_empty_axes=0)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """Of one sample; the batch stays."""
        target = self.constant("shape_1_" + "_".join(map(str, shape)), np.array([1, *shape], np.int64))
        name = self._name("view")
        self._nodes.append(helper.make_node("Reshape", [x.name, target.name], [name], name=f"node_{name}", allowzero=1))
        return Tensor(name, x.array.reshape(len(x.array), *shape))

    def model(self, *outputs: Tensor) -> onnx.ModelProto:
        """The finished model with these outputs, for a batch of 1."""
        results = [helper.make_tensor_value_info(y.name, TensorProto.FLOAT, (1, *y.array.shape[1:])) for y in outputs]
        image = helper.make_tensor_value_info(self.image.name, TensorProto.FLOAT, (1, *self.image.array.shape[1:]))
        weights = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(self._nodes, self.name, [image], results, weights)
        return helper.make_model(graph, producer_name="graphc tests", ir_version=10, opset_imports=[helper.make_opsetid("", OPSET)])

    def _weighted(
        self, kind: str, x: Tensor, shape: tuple[int, ...], axis: int, folded: bool, std: float = 1.0, **attributes: Any
    ) -> Tensor:  # fmt: skip
        """A layer with weight and bias; `axis` of the weight holds the output channels (of a group)."""
        name = self._name("layer")
        weight = self._draw(shape, prod(shape[1:]) if axis == 0 else shape[0])
        node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
        plain = _evaluate(node, [x.array, weight]).astype(np.float64)
        channels = plain.shape[1]
        by_channel = np.moveaxis(plain, 1, 0).reshape(channels, -1)
        few = by_channel.shape[1] < _FEW  # pooled images: what differs between them is little, and would be blown up
        mean, spread = (np.zeros(channels), plain.std()) if few else (by_channel.mean(1), np.sqrt(by_channel.var(1).mean()))
        scale = _coarse(std / spread)
        bias = 0.2 * std * self._rng.standard_normal(channels) - _coarse(mean) * scale
        parts = [
            self.constant(f"{name}.weight", (weight * scale).astype(np.float32)),
            self.constant(f"{name}.{'folded_' if folded else ''}bias", bias.astype(np.float32)),
        ]
        return self.op(kind, [x, *parts], **attributes)

    def _draw(self, shape: tuple[int, ...], fan_in: int) -> Array:
        return self._rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))

    def _name(self, kind: str) -> str:
        number = self._counts[kind]
        self._counts[kind] += 1
        return f"{kind}_{number}" if number else kind


def _coarse(x: Any) -> Any:
    """Rounded to eight significant bits, so that an engine's rounding rarely changes the model."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(mantissa * 256) / 256, exponent)


def _evaluate(node: onnx.NodeProto, inputs: list[Array]) -> Array:
    """The output of one node, computed by ONNX Runtime."""
    plain = onnx.NodeProto(op_type=node.op_type, attribute=node.attribute, output=["y"], input=[f"x{i}" for i in range(len(inputs))])
    session = _session(plain.SerializeToString(), tuple((x.dtype, x.ndim) for x in inputs))
    return np.asarray(session.run(None, dict(zip(plain.input, inputs, strict=True)))[0])


@cache
def _session(node: bytes, types: tuple[tuple[np.dtype[np.generic], int], ...]) -> onnxruntime.InferenceSession:
    proto = onnx.NodeProto.FromString(node)
    inputs = [helper.make_tensor_value_info(n, _DTYPES[d], [None] * rank) for n, (d, rank) in zip(proto.input, types, strict=True)]
    graph = helper.make_graph([proto], "node", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", OPSET)])
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
