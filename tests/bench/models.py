"""Nine well-known CNNs with random but calibrated weights: what benchmarks and whole-model tests run.

The package onnx carries the graphs of AlexNet, DenseNet-121, Inception v1 and v2, ResNet-50, ShuffleNet, SqueezeNet, VGG-19 and ZFNet-512
(`onnx/backend/test/data/light/light_*.onnx`), but every weight in them is one repeated number, so that their outputs are all but uniform
and prove little. Here each weight becomes a constant of seeded random numbers, scaled as a trained network's would be:

* Conv and Gemm weights by He et al. 2015 (arXiv:1502.01852), then by the measured spread of the layer's output over a few structured
  random images (layer-sequential unit variance, Mishkin and Matas 2016, arXiv:1511.06422); biases centre each channel, nearly.
* BatchNormalization gets the measured mean and variance of its channels, perturbed, and scale and bias near 1 and 0.
* The last layer is scaled so that the logits have a standard deviation of 3: the softmax is neither uniform nor saturated.

So activations stay of order one all through, and different images give different outputs. Measured numbers are rounded to eight bits
before they enter a weight, so that an engine's rounding rarely changes the model.

Deep random networks amplify rounding: ONNX Runtime with and without its graph optimisations differs by 2e-6 (SqueezeNet) to 7e-5
(Inception v2) of the largest output, as `--check` shows. A comparison of engines should allow several times that.

The models are written to a cache folder ($GRAPHC_BENCH_CACHE, else graphc-bench in the user's cache folder; 1.4 GB for all nine).

    python tests/bench/models.py --check [NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Iterable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Floats = NDArray[np.float32]

NAMES = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512")
IMAGE = (1, 3, 224, 224)
LOGITS_STD = 3.0
_CALIBRATION_IMAGES = 6
_WEIGHTED = ("Conv", "Gemm")
_DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}


def light_names() -> tuple[str, ...]:
    """The nine names that `light_model` takes."""
    return NAMES


def light_model(name: str) -> onnx.ModelProto:
    """The model with calibrated random weights as initialisers; its only input is the image, float32 (1, 3, 224, 224)."""
    return onnx.load(light_path(name))


def light_path(name: str) -> Path:
    """The file of `light_model(name)`; made on first use, in seconds."""
    source = _light_source(name)
    key = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = cache_folder()
    path = folder / f"light_{name}-{key}.onnx"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    model = _Calibration(onnx.load(source), seed=NAMES.index(name)).model()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "model.onnx"
        onnx.save(model, made)
        for stale in folder.glob(f"light_{name}-*.onnx"):
            stale.unlink(missing_ok=True)
        os.replace(made, path)
    return path


def light_input(seed: int) -> Floats:
    """A structured random image, float32 (1, 3, 224, 224): patches of several sizes, a colour cast, noise; standard deviation about 1."""
    rng = np.random.default_rng([seed, 224])
    image = 0.5 * rng.standard_normal((3, 1, 1))
    for patches, strength in ((4, 0.6), (14, 0.5), (56, 0.4), (224, 0.3)):
        side = 224 // patches
        image = image + strength * np.kron(rng.standard_normal((3, patches, patches)), np.ones((1, side, side)))
    return np.ascontiguousarray(image[None], dtype=np.float32)


def cache_folder() -> Path:
    """Where generated models lie."""
    given = os.environ.get("GRAPHC_BENCH_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc-bench"


def _light_source(name: str) -> Path:
    if name not in NAMES:
        raise ValueError(f"unknown light model {name!r}; one of {', '.join(NAMES)}")
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


@cache
def _session(node: bytes, dtypes: tuple[np.dtype[np.generic], ...]) -> onnxruntime.InferenceSession:
    """One node as a model whose inputs are all run-time inputs."""
    proto = onnx.NodeProto.FromString(node)
    inputs = [helper.make_tensor_value_info(n, _DTYPES[d], None) for n, d in zip(proto.input, dtypes, strict=True)]
    outputs = [helper.make_tensor_value_info(proto.output[0], TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph([proto], "node", inputs, outputs), ir_version=8, opset_imports=[helper.make_opsetid("", 9)]
    )
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _run(node: onnx.NodeProto, inputs: list[Array]) -> Floats:
    """The first output of one node, computed by ONNX Runtime."""
    if node.op_type == "Dropout":  # in inference the identity; its mask is not wanted
        return np.asarray(inputs[0], dtype=np.float32)
    plain = onnx.NodeProto(op_type=node.op_type, attribute=node.attribute, output=["y"], input=[f"x{i}" for i in range(len(inputs))])
    session = _session(plain.SerializeToString(), tuple(x.dtype for x in inputs))
    return np.asarray(session.run(None, dict(zip(plain.input, inputs, strict=True)))[0])


def _coarse(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to eight significant bits."""
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.round(mantissa * 256) / 256, exponent))


class _Calibration:
    """Walks the graph once, node by node, drawing each weight when it is first used and fitting it to what flows there."""

    def __init__(self, source: onnx.ModelProto, seed: int) -> None:
        self.source = source
        self.graph = source.graph
        self.rng = np.random.default_rng([seed, 9])
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.weight_shapes = {name: x.shape for name, x in self.constants.items() if x.dtype == np.float32}
        self.roots: dict[str, str] = {}  # a reshaped weight -> the weight
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        (self.image,) = (i for i in self.graph.input if i.name not in self.constants)
        self.flow: dict[str, list[Floats]] = {self.image.name: [light_input(1000 + i) for i in range(_CALIBRATION_IMAGES)]}
        self.last_weighted: onnx.NodeProto | None = None

    def model(self) -> onnx.ModelProto:
        """The finished model; call once."""
        kept = []
        for node in self.graph.node:
            if node.op_type == "ConstantOfShape":
                self.weight_shapes[node.output[0]] = tuple(int(n) for n in self.constants[node.input[0]])
                continue
            kept.append(node)
            self._visit(node)
        return self._build(kept)

    def _visit(self, node: onnx.NodeProto) -> None:
        if node.input[0] not in self.flow:
            self._derive_weight(node)
            return
        self._draw(node)
        if node.op_type == "BatchNormalization":
            self._fit_batchnorm(node)
        y = [self._compute(node, x) for x in zip(*(self.flow[i] for i in node.input if i in self.flow), strict=True)]
        if node.op_type in _WEIGHTED:
            self.last_weighted = node
            if all(user.op_type != "BatchNormalization" for user in self.users.get(node.output[0], ())):
                self._fit_weighted(node, y)
        if node.op_type == "Softmax":
            self._fit_logits(self.flow[node.input[0]])
        self.flow[node.output[0]] = y
        for name in node.input:
            if name in self.flow and self.users[name][-1] is node:
                del self.flow[name]

    def _compute(self, node: onnx.NodeProto, flowing: tuple[Floats, ...]) -> Floats:
        rest = iter(flowing)
        return _run(node, [next(rest) if name in self.flow else self.constants[name] for name in node.input])

    def _derive_weight(self, node: onnx.NodeProto) -> None:
        """Unsqueeze or Reshape of a weight: drawn as what it is used as."""
        weight, (user,) = node.input[0], self.users[node.output[0]]
        shape = tuple(int(n) for n in self.constants[node.input[1]]) if node.op_type == "Reshape" else self.weight_shapes[weight]
        self.constants[weight] = self._random(user, list(user.input).index(node.output[0]), shape).reshape(self.weight_shapes[weight])
        self.constants[node.output[0]] = _run(node, [self.constants[name] for name in node.input])
        self.roots[node.output[0]] = weight
        self.weight_shapes.pop(weight)

    def _draw(self, node: onnx.NodeProto) -> None:
        for slot, name in enumerate(node.input):
            if name in self.weight_shapes:
                self.constants[name] = self._random(node, slot, self.weight_shapes.pop(name))

    def _random(self, node: onnx.NodeProto, slot: int, shape: tuple[int, ...]) -> Floats:
        draw = self.rng.standard_normal(shape, dtype=np.float32)
        if node.op_type in _WEIGHTED and slot == 1:
            transposed = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
            fan_in = prod(shape[1:]) if transposed else shape[0]
            draw *= np.float32(np.sqrt(2 / fan_in))
            return draw
        if node.op_type in _WEIGHTED:
            return np.zeros(shape, np.float32)  # a bias; fitted after the product is known
        if (node.op_type, slot) in {("Mul", 1), ("BatchNormalization", 1)}:
            return np.asarray(np.clip(1 + 0.2 * draw, 0.4, 1.6), np.float32)
        if (node.op_type, slot) == ("BatchNormalization", 4):
            return np.asarray(np.exp(0.1 * draw), np.float32)  # a factor of the measured variance
        if (node.op_type, slot) in {("Add", 1), ("BatchNormalization", 2), ("BatchNormalization", 3)}:
            return 0.2 * draw
        raise ValueError(f"no rule for weight {node.input[slot]!r}: input {slot} of {node.op_type}")

    def _fit_batchnorm(self, node: onnx.NodeProto) -> None:
        mean, variance = self._channel_statistics(self.flow[node.input[0]])
        variance = np.maximum(variance, 0.05 * variance.mean())
        mean_name, variance_name = node.input[3], node.input[4]
        self.constants[mean_name] = (_coarse(mean) + 0.5 * self.constants[mean_name] * _coarse(np.sqrt(variance))).astype(np.float32)
        self.constants[variance_name] = (_coarse(variance) * self.constants[variance_name]).astype(np.float32)

    def _fit_weighted(self, node: onnx.NodeProto, y: list[Floats]) -> None:
        """Scale the weight to unit variance within channels, set the bias to centre them nearly, and bring `y` up to date."""
        mean, variance = self._channel_statistics(y)
        scale = 1 / _coarse(np.sqrt(variance.mean()))
        self._scale_constant(node.input[1], float(scale))
        shift = 0.2 * self.rng.standard_normal(mean.shape) - _coarse(mean) * scale
        if len(node.input) < 3:
            shift = np.zeros_like(shift)
        else:
            self.constants[node.input[2]] = shift.astype(np.float32)
        for i, old in enumerate(y):
            y[i] = (old * np.float32(scale) + shift.astype(np.float32).reshape(-1, *(1,) * (old.ndim - 2))).astype(np.float32)

    def _fit_logits(self, logits: list[Floats]) -> None:
        """Scale the last layer; between it and the softmax there are only positively homogeneous ops."""
        assert self.last_weighted is not None
        factor = float(_coarse(LOGITS_STD / np.stack(logits).astype(np.float64).std(keepdims=True)).item())
        for name in self.last_weighted.input[1:]:
            self._scale_constant(name, factor)

    def _scale_constant(self, name: str, factor: float) -> None:
        for alias in {name, self.roots.get(name, name)}:
            self.constants[alias] = (self.constants[alias] * np.float32(factor)).astype(np.float32)

    @staticmethod
    def _channel_statistics(y: list[Floats]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance per channel (axis 1) over images and positions."""
        stacked = np.concatenate(y).astype(np.float64)
        axes = (0, *range(2, stacked.ndim))
        return stacked.mean(axes), stacked.var(axes)

    def _build(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        derived = {output for node in nodes for output in node.output}
        used = {name for node in nodes for name in node.input} - derived - {self.image.name}
        weights = [numpy_helper.from_array(np.ascontiguousarray(self.constants[name]), name) for name in sorted(used)]
        graph = helper.make_graph(nodes, self.graph.name, [self.image], list(self.graph.output), weights)
        model = helper.make_model(graph, producer_name="graphc tests", ir_version=8)
        del model.opset_import[:]
        model.opset_import.extend(self.source.opset_import)
        return model


def _check(names: Iterable[str]) -> None:
    """Print what each model gives for two images, and how far ONNX Runtime is from itself without its graph optimisations."""
    print(f"{'model':14}{'nodes':>6}{'Mweights':>9}{'std':>9}{'min':>9}{'max':>9}   outputs for two images differ by   rounding")
    for name in names:
        model = light_model(name)
        weights = sum(prod(t.dims) for t in model.graph.initializer)
        plain = onnxruntime.SessionOptions()
        plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        path, feed = light_path(name), model.graph.input[0].name
        results = []
        for options in (None, plain):
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            results.append([session.run(None, {feed: light_input(seed)})[0].astype(np.float64) for seed in (1, 2)])
        (a, b), (c, _) = results
        difference, rounding = np.abs(a - b).max() / np.abs(a).max(), np.abs(a - c).max() / np.abs(a).max()
        print(
            f"{name:14}{len(model.graph.node):6}{weights / 1e6:9.1f}{a.std():9.2g}{a.min():9.2g}{a.max():9.2g}   "
            f"{difference:.2g} of the largest, argmax {a.argmax()} and {b.argmax()}   {rounding:.1g}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the light models and show that their outputs mean something.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all by default")
    parser.add_argument("--check", action="store_true", help="run each in ONNX Runtime and print statistics of the outputs")
    arguments = parser.parse_args()
    names = arguments.names or list(NAMES)
    if arguments.check:
        _check(names)
        return
    for name in names:
        print(light_path(name))


if __name__ == "__main__":
    main()
