"""Inputs and outputs of an exported model: a list of tensors becomes a sequence again.

SequenceAt takes its elements out of an input, SequenceConstruct makes an output. The model does not say how many elements an input has:
importing it again needs `shapes={name: count}`, as the model did from which the graph came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from graphc.errors import UnsupportedError
from graphc.ir.graph import Graph
from graphc.ir.parts import Parts, complete
from graphc.types.tensor import TensorType
from graphc_onnx.emitter import Emitter, info
from graphc_onnx.tensors import ELEM_TYPES


def lists(parts: Mapping[str, Parts]) -> dict[str, tuple[str, ...]]:
    """The inputs or outputs that are sequences. Raises UnsupportedError for one without elements, and for an optional that is absent."""
    for name, part in parts.items():
        if not part:
            reason = f"{name!r} is {'an optional that is absent' if part is None else 'an empty sequence'}: a graph does not hold its type"
            raise UnsupportedError(reason, hint="import the model with an element in it")
    return {name: part for name, part in parts.items() if isinstance(part, tuple)}


def write_elements(emitter: Emitter, graph: Graph) -> None:
    """The nodes that take the elements out of the inputs that are sequences."""
    values = {value.name: value for value in graph.inputs}
    for name, part in lists(graph.takes).items():
        for at, element in enumerate(part):
            emitter.write("SequenceAt", [name, emitter.constant(np.asarray(at, np.int64))], [emitter.names[values[element]]])


def write_sequences(emitter: Emitter, graph: Graph) -> None:
    """The nodes that make the outputs that are sequences."""
    for name, part in lists(graph.gives).items():
        emitter.write("SequenceConstruct", part, [name])


def declarations(parts: Mapping[str, Parts], types: Mapping[str, TensorType], label: Callable[[str], str]) -> list[onnx.ValueInfoProto]:
    """What the model declares of its inputs or outputs; `label`: how a tensor is called in it."""
    made = []
    for name, part in complete(parts, types).items():
        if isinstance(part, tuple):
            made.append(_sequence_info(name, [types[element] for element in part]))
        elif part is not None:
            made.append(info(label(part), types[part]))
    return made


def _sequence_info(name: str, types: Sequence[TensorType]) -> onnx.ValueInfoProto:
    """With the sizes that all elements share."""
    shape: list[int | str | None] | None = None
    if len({type.rank for type in types}) == 1:
        sizes = [set(axis) for axis in zip(*(type.shape for type in types), strict=True)]
        shape = [next(iter(axis)) if len(axis) == 1 else None for axis in sizes]
        shape = [size if isinstance(size, int) or size is None else str(size) for size in shape]
    made: onnx.ValueInfoProto = helper.make_tensor_sequence_value_info(name, ELEM_TYPES[types[0].dtype.name], shape)
    return made
