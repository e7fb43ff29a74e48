"""What ONNX's own cases leave out: every cell x direction x lengths x layout x initial states, compiled, against plain loops and ONNX
Runtime; and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import graphc
from graphc.errors import GraphcError
from graphc_onnx import load
from recurrent.onnx_layers import LENGTHS, B, H, Layer, T

LAYERS = [
    Layer(op, direction, lengths, layout, initial, linear, holes)
    for op, direction, lengths, layout, initial in product(
        ("RNN", "LSTM", "GRU"), ("forward", "reverse", "bidirectional"), LENGTHS, (0, 1), (False, True)
    )
    for linear, holes in {"RNN": [(0, False)], "LSTM": [(0, False), (0, True)], "GRU": [(0, False), (1, False)]}[op]
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_cross_product(layer: Layer) -> None:
    graph = load(layer.model())
    found = [list(graphc.compile(graph, threads=threads).run(layer.feeds).values()) for threads in (1, 2, 4)]
    for want, one, *others in zip(layer.expected(), *found, strict=True):
        assert all(one.tobytes() == other.tobytes() for other in others), "threads change bits"
        np.testing.assert_allclose(one, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if not layer.layout], ids=str)
def test_onnxruntime(layer: Layer) -> None:
    """It has no layout 1, and leaves zeros in y_h and y_c of a row of length 0, where we keep the initial state."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(layer.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = np.flatnonzero(np.asarray(LENGTHS[layer.lengths] or [T] * B))
    for want, got in zip(session.run(None, layer.feeds), graphc.compile(load(layer.model())).run(layer.feeds).values(), strict=True):
        np.testing.assert_allclose(got[..., rows, :], want[..., rows, :], rtol=1e-4, atol=1e-5)


def _changed(**tensors: Any) -> onnx.ModelProto:
    """An LSTM with lengths and states that are constants, or some tensors replaced."""
    layer = Layer("LSTM", "forward", "ragged", initial=True)
    model = layer.model()
    for name, value in {"lengths": layer.tensors["lengths"], **tensors}.items():
        for field in (model.graph.input, model.graph.initializer):
            for entry in [entry for entry in field if entry.name == name]:
                field.remove(entry)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def _zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "length above the steps": (_changed(lengths=np.array([6, 1, 1, 1], np.int32)), r"sequence_lens \[6, 1, 1, 1\] of sequences of 5 steps"),
    "negative length": (_changed(lengths=np.array([1, -1, 1, 1], np.int32)), "sequence_lens"),
    "too few lengths": (_changed(lengths=np.array([1, 1], np.int32)), "lengths is"),
    "h0 of another batch": (_changed(h0=_zeros(1, B + 1, H)), "h0 is"),
    "c0 of another rank": (_changed(c0=_zeros(B, H)), "c0 is"),
    "R of another size": (_changed(r=_zeros(1, 4 * H, H + 1)), "R is|hidden_size"),
    "W of another direction": (_changed(w=_zeros(2, 4 * H, 3)), "W is"),
    "B of another size": (_changed(b=_zeros(1, 4 * H)), "B is"),
    "x of another width": (_changed(x=_zeros(T, B, 4)), "matmul"),
    "unknown activation": (Layer("LSTM", "forward").model(activations=["Sigmoid", "Wave", "Tanh"]), "unknown activation 'Wave'"),
    "too few activations": (Layer("LSTM", "bidirectional").model(activations=["Sigmoid", "Tanh", "Tanh"]), "6 are needed"),
    "negative clip": (Layer("GRU", "forward").model(clip=-1.0), "clip"),
    "clip to nothing": (Layer("LSTM", "forward").model(clip=0.0), "clip"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_layers_are_refused(name: str) -> None:
    model, message = BAD[name]
    with pytest.raises(GraphcError, match=message) as caught:
        load(model)
    assert caught.value.where


def test_lengths_of_run_time_outside_of_the_sequence_count_as_the_nearest() -> None:
    layer = Layer("LSTM", "reverse", "ragged", initial=True)
    program = graphc.compile(load(layer.model()))
    wild, near = (program.run(layer.feeds | {"lengths": np.array(n, np.int32)}) for n in ([9, -3, 5, 2], [5, 0, 5, 2]))
    for name, value in near.items():
        np.testing.assert_array_equal(wild[name], value)


def test_activations_of_two_directions_may_differ() -> None:
    layer = Layer("GRU", "bidirectional", "ragged", 1, True)
    numbers = {"activation_alpha": [0.3, 0.7], "activation_beta": [0.4, 0.1]}
    first, second = ["Sigmoid", "Relu"], ["HardSigmoid", "Affine"]
    both = graphc.compile(load(layer.model(activations=[*first, *second], **numbers))).run(layer.feeds)
    twice = {key: value * 2 for key, value in numbers.items()}
    for d, same in enumerate((layer.model(activations=first * 2), layer.model(activations=second * 2, **twice))):
        for got, want, axis in zip(both.values(), graphc.compile(load(same)).run(layer.feeds).values(), (2, 1), strict=True):
            np.testing.assert_array_equal(np.take(got, d, axis), np.take(want, d, axis))


@pytest.mark.parametrize("op", ["RNN", "GRU"])
def test_clip_is_that_of_onnxruntime(op: str) -> None:
    """Not so for an LSTM: ONNX clips the input of every activation, ONNX Runtime all but that of h(c). Samples have that case."""
    ort = pytest.importorskip("onnxruntime")
    layer = Layer(op, "forward", initial=True)
    model = layer.model(clip=0.2)
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, layer.feeds)
    for a, b in zip(graphc.compile(load(model)).run(layer.feeds).values(), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_no_steps_give_the_initial_states() -> None:
    layer = Layer("LSTM", "forward", initial=True)
    model = layer.model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", 1, (0, B, 3)))
    feeds = layer.feeds | {"x": np.zeros((0, B, 3), np.float32)}
    y, y_h, y_c = graphc.compile(load(model)).run(feeds).values()
    assert y.shape == (0, 1, B, H)
    np.testing.assert_array_equal(y_h, feeds["h0"])
    np.testing.assert_array_equal(y_c, feeds["c0"])
