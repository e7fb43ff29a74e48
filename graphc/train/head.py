"""Transfer learning: the classifier at the end of a graph, and another one in its place.

The head is the last product or convolution with a weight of its own: Gemm, MatMul and Add, or a convolution over which the rest of the
graph takes the mean (SqueezeNet). Behind it may come what keeps the classes on axis 1: a bias, activations, pooling over the spatial axes,
reshapes, softmax.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from glob import escape
from typing import Any

import numpy as np

from graphc.driver import as_graph
from graphc.errors import AttributeValueError, ModelError, ShapeError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op
from graphc.ir.patch import Patch
from graphc.ops.conv import Conv
from graphc.ops.express import Arithmetic
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Expand, Reshape, Transpose
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.source import UNKNOWN
from graphc.train.retype import resized, retyped

NAME = "replace-head"
WEIGHT, BIAS = "head.weight", "head.bias"
OF_HEAD = ("labels", "accuracy")  # entries of a model's metadata
_PASSED = ("softmax", "log_softmax", "dropout", "identity", "avg_pool", "max_pool")  # each element or class map by itself
_CLASSES = 1  # axis
_SHOWN = 5


@dataclass(frozen=True)
class Head:
    """`node`: the product or convolution. `weight`, `biases`: parameters, and the axis of each that counts the classes."""

    node: Node
    weight: tuple[Value, int]
    biases: tuple[tuple[Value, int], ...]
    classes: int
    shaped: dict[Node, int] = field(default_factory=dict)  # reshapes of parameters and results -> the axis of the classes

    @property
    def parameters(self) -> tuple[str, ...]:
        return (self.weight[0].name, *(value.name for value, _ in self.biases))


def replace_head(model: Any, classes: int, at: str | None = None, seed: int = 0) -> Graph:
    """The model with a classifier of `classes` outputs in place of its own, freshly initialised; everything else keeps names and data.

    model: what `graphc.compile` takes; it is not changed. at: None replaces weight and bias of the head (`find_head`), under their names;
    else a linear layer with the parameters `head.weight` (classes, features) and `head.bias` (classes,) reads this value, or the last
    output of this node, (N, features) or (N, channels, *spatial), of which the mean over the spatial axes is taken. It becomes the only
    output, under the name of the first, and gives logits: a softmax behind the old head is gone. The metadata entries `labels` and
    `accuracy`, which were of the old head, are gone too.

    Weights are uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), a function of `seed`; biases 0. Raises ModelError where
    no head is found, with the nodes that could be one, and for an unknown `at`.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise AttributeValueError(f"classes={classes!r}", hint="a whole number, at least 2")
    graph = as_graph(model)
    rng = np.random.Generator(np.random.Philox(seed))
    made = _swapped(graph, find_head(graph), classes, rng) if at is None else _cut(graph, _value(graph, at), classes, rng)
    for entry in OF_HEAD:
        made.metadata.pop(entry, None)
    return made


def backbone(model: Any) -> tuple[str, ...]:
    """Patterns of all parameters that are not of the head, for `freeze`; model: what `graphc.compile` takes. Raises ModelError where no
    head is found."""
    graph = as_graph(model)
    own = find_head(graph).parameters
    return tuple(escape(name) for name in graph.parameters if name not in own)


def find_head(graph: Graph) -> Head:
    """The classifier that makes the first output. Raises ModelError where there is none, with the nodes that could be one."""
    if not graph.outputs:
        raise ModelError("the model has no output", where=graph.name, hint="a classifier has one")
    biases: list[tuple[Value, int]] = []
    shaped: dict[Node, int] = {}
    value = graph.outputs[0]
    classes = _class_count(graph, value)
    while True:
        node = value.producer
        if node is None:
            raise _none(graph, f"the output is the {value.kind.value} {value.name!r}")
        if value.type.rank < 2 or value.type.shape[_CLASSES] != classes:
            raise _none(graph, f"{node.where} makes {value.type}, the output has {classes} classes on axis {_CLASSES}")
        if isinstance(node.op, (MatMul, Conv)):
            return _head(graph, node, classes, biases, shaped)
        value = _before(graph, node, classes, biases, shaped)


# looking --------------------------------------------------------------------------------------------------------------------


def _class_count(graph: Graph, value: Value) -> int:
    shape = value.type.shape
    if len(shape) < 2 or not isinstance(shape[1], int) or any(size != 1 for size in shape[2:]):
        raise _none(graph, f"the output {value.name!r} is {value.type}, not one row of classes (N, C) for each sample")
    return shape[1]


def _before(graph: Graph, node: Node, classes: int, biases: list[tuple[Value, int]], shaped: dict[Node, int]) -> Value:
    """The operand through which the classes come."""
    kind, first = node.op, node.inputs[0]
    if kind.elementwise and len(node.inputs) <= 2:
        return _through_pointwise(graph, node, classes, biases)
    if kind.name in _PASSED and getattr(kind, "axis", _CLASSES) == _CLASSES:
        return first
    if isinstance(kind, Reduce) and kind.fn in ("mean", "max") and all(axis > _CLASSES for axis in kind.axes):
        return first
    if isinstance(kind, Reshape) and first.type.shape[: _CLASSES + 1] == kind.shape[: _CLASSES + 1]:
        shaped[node] = _CLASSES
        return first
    raise _none(graph, f"{node.where} comes after the last product or convolution")


def _through_pointwise(graph: Graph, node: Node, classes: int, biases: list[tuple[Value, int]]) -> Value:
    computed = [value for value in node.inputs if not value.is_constant]
    if len(computed) != 1:
        raise _none(graph, f"{node.where} joins two branches")
    for other in node.inputs:
        if other is computed[0] or other.type.size == 1:
            continue
        axis = other.type.rank - (node.output.type.rank - _CLASSES)
        plain = axis >= 0 and other.type.shape[axis] == classes and other.type.size == classes
        if node.op.name != "add" or other.kind is not Kind.PARAMETER or not plain:
            raise _none(graph, f"{node.where} combines the classes with {other.name!r} ({other.type})")
        biases.append((other, axis))
    return computed[0]


def _head(graph: Graph, node: Node, classes: int, biases: list[tuple[Value, int]], shaped: dict[Node, int]) -> Head:
    if isinstance(node.op, MatMul):
        if node.output.type.rank != 2:
            raise _none(graph, f"{node.where} makes {node.output.type}, not one row for each sample")
        weight = _parameter(graph, node.inputs[1], 0 if node.op.trans_b else 1, shaped)
    else:
        assert isinstance(node.op, Conv)
        if node.op.groups != 1:
            raise _none(graph, f"{node.where} has {node.op.groups} groups")
        weight = _parameter(graph, node.inputs[1], 0, shaped)
        biases += [_parameter(graph, value, 0, shaped) for value in node.inputs[2:]]
    for value, axis in (weight, *biases):
        if len(value.users) != 1 or sum(value.users.values()) != 1:
            raise _none(graph, f"the parameter {value.name!r} serves other nodes too")
        if value.type.shape[axis] != classes:
            raise _none(graph, f"the parameter {value.name!r} ({value.type}) does not have the {classes} classes on axis {axis}")
    return Head(node, weight, tuple(biases), classes, shaped)


def _parameter(graph: Graph, value: Value, axis: int, shaped: dict[Node, int]) -> tuple[Value, int]:
    """The parameter of which an operand is a reshape or transposition, and the axis of it that is the operand's `axis`."""
    while (node := value.producer) is not None:
        before = node.inputs[0]
        if isinstance(node.op, Transpose):
            axis = node.op.perm[axis]
        elif isinstance(node.op, Reshape):
            mapped = axis - value.type.rank + before.type.rank if axis else 0
            at_end = axis == 0 or axis == value.type.rank - 1
            if not at_end or before.type.shape[mapped] != value.type.shape[axis]:
                raise _none(graph, f"{node.where} makes the weight of its parameter in a way that mixes the classes")
            shaped[node] = axis
            axis = mapped
        elif node.op.name != "identity":
            raise _none(graph, f"the weight is computed by {node.where}")
        value = before
    if value.kind is not Kind.PARAMETER:
        raise _none(graph, f"the weight is the {value.kind.value} {value.name!r}, no parameter")
    return value, axis


def _none(graph: Graph, reason: str) -> ModelError:
    """With the last nodes that a new layer could read."""
    found = [f"{value.name!r} ({value.type})" for value in _cuttable(graph)]
    hint = f"a value to put the new layer on (replace_head(at=...), --head-at): {', '.join(found[-_SHOWN:])}" if found else "a classifier"
    return ModelError(f"no classifier found at the end: {reason}", where=graph.name, hint=hint)


def _cuttable(graph: Graph) -> Iterator[Value]:
    """What products, convolutions and what follows them read: (N, features) or (N, channels, *spatial)."""
    seen: set[Value] = set()
    for node in graph.nodes:
        value = node.inputs[0] if node.inputs else None
        if isinstance(node.op, (MatMul, Conv, Reduce)) and value is not None and value.producer is not None and value not in seen:
            if value.type.rank >= 2 and value.type.rank != 3 and isinstance(value.type.shape[1], int):
                seen.add(value)
                yield value


# replacing ------------------------------------------------------------------------------------------------------------------


def _swapped(graph: Graph, head: Head, classes: int, rng: np.random.Generator) -> Graph:
    """Other data for the head's parameters; the types of what follows are inferred anew."""
    data: dict[str, Array] = {}
    for value, axis in (head.weight, *head.biases):
        shape = list(value.type.static_shape)
        shape[axis] = classes
        made = np.zeros(shape) if value is not head.weight[0] else _glorot(rng, shape, axis, isinstance(head.node.op, Conv))
        data[value.name] = made.astype(value.type.dtype.numpy)
    types = {name: replace(graph.values[name].type, shape=array.shape) for name, array in data.items()}

    def revise(node: Node, inputs: list[Value]) -> Op:
        axis = head.shaped.get(node)
        if axis is None or not isinstance(node.op, Reshape):
            return resized(node.op, node.inputs[0], inputs[0], _CLASSES, classes) if isinstance(node.op, Expand) else node.op
        return replace(node.op, shape=(*node.op.shape[:axis], classes, *node.op.shape[axis + 1 :]))

    try:
        return retyped(graph, types, data, revise)
    except ShapeError as error:
        raise _none(graph, f"another node needs the {head.classes} classes: {error.where}: {error.reason}") from error


def _cut(graph: Graph, value: Value, classes: int, rng: np.random.Generator) -> Graph:
    features = value.type.shape[1] if value.type.rank in (2, 4, 5) else None
    if not isinstance(features, int) or not value.type.dtype.is_float:
        reason = f"a linear layer cannot read {value.name!r} ({value.type})"
        raise ShapeError(reason, where=graph.name, hint="a value (N, features) or (N, channels, height, width) of known features")
    for name in (WEIGHT, BIAS):
        if name in graph.values:
            raise ModelError(f"the model has a value {name!r} already", where=graph.name, hint="replace_head without `at`, which finds it")
    output = graph.output_names[0] if graph.output_names else "logits"
    patch = Patch(graph, NAME)
    a = Arithmetic(patch.builder)
    x = value if value.type.rank == 2 else a.reduce("mean", value, tuple(range(2, value.type.rank)), keepdims=False)
    kind = value.type.dtype.numpy
    weight = patch.builder.parameter(WEIGHT, _glorot(rng, [classes, features], 0, False).astype(kind))
    bias = patch.builder.parameter(BIAS, np.zeros(classes, kind))
    with patch.builder.at(UNKNOWN, ("head",)):
        product = patch.builder.add(MatMul(trans_b=True), x, weight, name="head.matmul")
        logits = patch.builder.add(op("add"), product, bias, name="head")
    graph.set_outputs({output: logits})
    patch.commit()
    return graph


def _value(graph: Graph, at: str) -> Value:
    if at in graph.values and not graph.values[at].is_constant:
        return graph.values[at]
    named = [node for node in graph.nodes if node.name == at or at in node.origins]
    if not named:
        found = ", ".join(repr(value.name) for value in list(_cuttable(graph))[-_SHOWN:])
        hint = f"one of {found}" if found else "`graphc summary` lists them"
        raise ModelError(f"there is no value or node {at!r}", where=graph.name, hint=hint)
    return named[-1].outputs[0]


def _glorot(rng: np.random.Generator, shape: list[int], axis: int, conv: bool) -> Array:
    """fan_out is the size of `axis`, times the kernel's of a convolution; fan_in all the others together."""
    kernel = math.prod(shape[2:]) if conv else 1
    limit = math.sqrt(6 / (math.prod(shape) / shape[axis] + shape[axis] * kernel))
    return rng.uniform(-limit, limit, shape)
