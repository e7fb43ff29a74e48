"""Recurrent layers. The input product that a layer's node takes becomes part of the ONNX node where it is a product of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from graphc.errors import UnsupportedError
from graphc.ir.graph import Graph, Node, Value
from graphc.ops.matmul import MatMul
from graphc.ops.recurrent import Recurrent
from graphc.ops.recurrent_cell import ACTIVATIONS, defaults, parameters
from graphc.ops.recurrent_mask import WithinLengths
from graphc_onnx.emitter import Emitter, absorbs, exports

_NAMES = {
    "relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "affine": "Affine", "leaky_relu": "LeakyRelu", "scaled_tanh": "ScaledTanh",
    "thresholded_relu": "ThresholdedRelu", "hard_sigmoid": "HardSigmoid", "elu": "Elu", "softsign": "Softsign", "softplus": "Softplus",
}  # fmt: skip


@dataclass(frozen=True)
class _Product:
    """How a layer's x is made: of `source` by `weights` (D*G*H, in) and `bias` (D*G*H); None where it is x itself. `nodes` do that."""

    source: Value
    weights: Value | None = None
    bias: Value | None = None
    nodes: tuple[Node, ...] = ()


@absorbs("recurrent")
def inside(graph: Graph, node: Node) -> Sequence[Node]:
    """The nodes that a recurrent layer's ONNX node stands for beside itself."""
    return _product(graph, node).nodes


def _product(graph: Graph, node: Node) -> _Product:
    x = node.inputs[0]
    maker, bias, nodes = _alone(graph, x), None, []
    if maker is not None and maker.op.name == "add":
        total, bias = maker.inputs
        if bias.type.rank != 1 or bias.type.shape[0] != x.type.shape[2]:
            return _Product(x)
        nodes.append(maker)
        maker = _alone(graph, total)
    if maker is None or maker.op != MatMul(trans_b=True) or maker.inputs[0].type.rank != 3 or maker.inputs[1].type.rank != 2:
        return _Product(x)
    nodes.append(maker)
    source = maker.inputs[0]
    mask, op = _alone(graph, source), node.op
    assert isinstance(op, Recurrent)
    if mask is not None and mask.op == WithinLengths(op.batch_first) and mask.inputs[1] in node.inputs:  # as the layer does itself
        nodes.append(mask)
        source = mask.inputs[0]
    return _Product(source, maker.inputs[1], bias, tuple(nodes))


def _alone(graph: Graph, value: Value) -> Node | None:
    """What makes a value that only one node uses, and once."""
    return value.producer if value not in graph.roots and list(value.users.values()) == [1] else None


@exports("recurrent")
def recurrent(emitter: Emitter, node: Node, op: Any) -> None:
    if any(value.users or value in emitter.graph.roots for value in _inner(node, op)):
        raise UnsupportedError("the inner results of a recurrent layer", hint="export the graph without its backward part")
    made = _product(emitter.graph, node)
    named = dict(zip(op.input_names, (emitter.name(value) for value in node.inputs), strict=True))
    d, rows, hidden = node.inputs[1].type.static_shape
    x = emitter.name(made.source)
    inputs = [emitter.temp("Transpose", x, perm=[1, 0, 2]) if op.batch_first else x, _weights(emitter, made, d, rows), named["weights"]]
    inputs += [_biases(emitter, made, named.get("bias"), node, rows, hidden), named.get("lengths", "")]
    for key in ("h0", "c0") if op.cell == "lstm" else ("h0",):
        turned = key in named and op.batch_first
        inputs.append(emitter.temp("Transpose", named[key], perm=[1, 0, 2]) if turned else named.get(key, ""))
    inputs += [named.get("peepholes", "")] if op.cell == "lstm" else []
    while not inputs[-1]:
        inputs.pop()
    _write(emitter, node, op, inputs, _attributes(op, hidden))


def _inner(node: Node, op: Any) -> list[Value]:
    return [value for value, name in zip(node.outputs, op.output_names, strict=True) if name in ("cells", "sums")]


def _weights(emitter: Emitter, made: _Product, d: int, rows: int) -> str:
    """W (D, G*H, in); where x is given as it is, ones that pick each direction's part of it."""
    if made.weights is None:
        return emitter.constant(np.eye(d * rows, dtype=made.source.type.dtype.numpy).reshape(d, rows, d * rows))
    return emitter.temp("Reshape", emitter.name(made.weights), emitter.ints([d, rows, int(made.weights.type.shape[1])]))


def _biases(emitter: Emitter, made: _Product, inside: str | None, node: Node, rows: int, hidden: int) -> str:
    """B (D, 2*G*H): the bias of the input product, and that inside the recurrent product of a gru's last gate."""
    if made.bias is None and inside is None:
        return ""
    d, dtype = int(node.inputs[1].type.shape[0]), node.inputs[0].type.dtype.numpy

    def zeros(width: int) -> str:
        return emitter.constant(np.zeros((d, width), dtype))

    outer = zeros(rows) if made.bias is None else emitter.temp("Reshape", emitter.name(made.bias), emitter.ints([d, rows]))
    inner = [zeros(rows)] if inside is None else [zeros(rows - hidden), inside]
    return emitter.temp("Concat", outer, *inner, axis=1)


def _attributes(op: Any, hidden: int) -> dict[str, Any]:
    unknown = [name for name in op.activations if name not in _NAMES]
    if unknown:
        raise UnsupportedError(f"activation {unknown[0]!r} of a recurrent layer", hint=f"one of {', '.join(_NAMES)}")
    d = len(op.reverse)
    numbers = {}
    for key in ("alpha", "beta"):
        rows = [(name, number) for name, number in zip(op.activations, getattr(op, key), strict=True) if key in parameters(name)]
        numbers[f"activation_{key}"] = [number for _, number in rows] * d or None
    usual = op.activations == ACTIVATIONS[op.cell] and all(defaults(name) == (0.0, 0.0) for name in op.activations)
    return {
        "hidden_size": hidden, "direction": op.direction, **numbers,
        "activations": None if usual else [_NAMES[name] for name in op.activations] * d,
        "clip": op.clip if np.isfinite(op.clip) else None, "input_forget": 1 if op.input_forget else None,
        "linear_before_reset": 1 if op.linear_before_reset else None,
    }  # fmt: skip


def _write(emitter: Emitter, node: Node, op: Any, inputs: list[str], attributes: dict[str, Any]) -> None:
    """The node; engines know time first only, so results are turned where the layer has the batch first."""
    kept = [value for value in node.outputs if value not in _inner(node, op)]
    names = [emitter.name(value) for value in kept]
    turned = [emitter.fresh(f"{name}/{op.cell}") for name in names] if op.batch_first else names
    emitter.write(op.cell.upper(), inputs, turned, **attributes)
    if op.batch_first:
        for name, before, perm in zip(names, turned, ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2]), strict=False):
            emitter.write("Transpose", [before], [name], perm=perm)


@exports("within_lengths")
def within_lengths(emitter: Emitter, node: Node, op: Any) -> None:
    """Where it does not feed the product of a layer of the same lengths."""
    x, lengths = emitter.inputs(node)
    scalar = emitter.temp("Squeeze", emitter.dims([node.inputs[0].type.shape[1 if op.batch_first else 0]]))
    zero, one = (emitter.constant(np.asarray(number, np.int64)) for number in (0, 1))
    steps = emitter.temp("Range", zero, scalar, one)
    of_steps, of_rows = ([0, 2], [1, 2]) if op.batch_first else ([1, 2], [0, 2])
    ends = emitter.temp("Unsqueeze", emitter.temp("Cast", lengths, to=onnx.TensorProto.INT64), emitter.ints(of_rows))
    live = emitter.temp("Less", emitter.temp("Unsqueeze", steps, emitter.ints(of_steps)), ends)
    emitter.result("Where", live, x, emitter.like(0, node.output))
