"""Recurrent layers to ONNX: one node of the operator's own, that ONNX Runtime runs and that comes back the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import graphc
from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ops.recurrent import Recurrent
from graphc.ops.recurrent_mask import WithinLengths
from graphc.types.shape import symbol
from graphc_onnx import load, to_onnx
from recurrent.onnx_layers import Layer

ort: Any = pytest.importorskip("onnxruntime")
LAYERS = [
    Layer(op, direction, "ragged", layout, True, linear, holes)
    for op, linear, holes in (("RNN", 0, False), ("LSTM", 0, True), ("GRU", 0, False), ("GRU", 1, False))
    for direction in ("forward", "bidirectional") for layout in (0, 1)
]  # fmt: skip


def _run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    made: list[Any] = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    return made


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_imported_layers(layer: Layer) -> None:
    """The input product is inside the node again, and layout 1, which ONNX Runtime has not, becomes transposes."""
    graph = load(layer.model())
    proto = to_onnx(graph)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count(layer.op) == 1
    assert "MatMul" not in kinds
    assert {t.name for t in proto.graph.initializer} >= {"w", "r", "b"}
    again = graphc.compile(load(proto)).run(layer.feeds)
    for want, there, back in zip(layer.expected(), _run(proto, layer.feeds), again.values(), strict=True):
        np.testing.assert_allclose(there, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(back, want, rtol=1e-5, atol=2e-6)


def test_activations_and_limits() -> None:
    model = Layer("LSTM", "reverse").model(activations=["HardSigmoid", "Softsign", "Tanh"], activation_alpha=[0.3], activation_beta=[0.4],
                                           input_forget=1)  # fmt: skip
    feeds = Layer("LSTM", "reverse").feeds
    for a, b in zip(_run(model, feeds), _run(to_onnx(load(model)), feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_lies_within_the_lengths(batch_first: bool) -> None:
    """Alone; before a layer it is part of that layer's node."""
    builder = Builder()
    first = symbol("S")  # steps or rows
    x, lengths = builder.input("x", graphc.f32, (first, 3, 2)), builder.input("lengths", graphc.i32, (first if batch_first else 3,))
    proto = to_onnx(builder.finish(y=builder.add(WithinLengths(batch_first), x, lengths)))
    feeds = {"x": np.full((5, 3, 2), np.nan, np.float32), "lengths": np.array([0, 2, 3, 1, 9][: 5 if batch_first else 3], np.int32)}
    feeds["x"][:, :2] = 1.0
    (made,) = _run(proto, feeds)
    np.testing.assert_array_equal(made, WithinLengths(batch_first).evaluate(feeds["x"], feeds["lengths"])[0])


def test_dsl_layers() -> None:
    @graphc.model
    def net(x: graphc.f32[2, 5, 3]):  # type: ignore[valid-type,no-untyped-def]
        y, h, c = graphc.lstm(x, 4, 2, bidirectional=True, peepholes=True, name="l")
        z, _ = graphc.gru(y, 3, reset_after=False, reverse=True, name="g")
        return z, h, c

    x = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    for want, got in zip(graphc.compile(net)(x), _run(to_onnx(net.graph()), {"x": x}), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_layer_on_any_tensor_and_one_whose_inner_results_are_used() -> None:
    rng = np.random.default_rng(2)
    builder = Builder()
    x = builder.input("x", "f32", (3, 2, 8))
    weights = builder.parameter("r", rng.uniform(-0.5, 0.5, (1, 8, 2)).astype(np.float32))
    y, _, _, cells, _ = builder.add_many(Recurrent("lstm"), x, weights)
    graph = builder.finish(y=y)
    feeds = {"x": rng.standard_normal((3, 2, 8)).astype(np.float32)}
    np.testing.assert_allclose(_run(to_onnx(graph), feeds)[0], graphc.compile(graph).run(feeds)["y"], rtol=1e-5, atol=1e-6)
    with pytest.raises(UnsupportedError, match="inner results"):
        to_onnx(builder.finish(y=y, cells=cells))
