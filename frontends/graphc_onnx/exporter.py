"""graphc to ONNX: `to_onnx` makes a ModelProto, `save` writes a file.

Parameters become initialisers under their own names, float constants Constant nodes (so that importing the file again does not turn
them into parameters), integer constants initialisers. ONNX keeps nothing between runs: a state `h` becomes an input `h`, behind the
others, and an output `h.next`, to be given to the next run (`graphc.compile(path, state={"h": "h.next"})` keeps them again); its initial
value is not in the file. State that nothing updates becomes an initialiser. An input or output that is a list of tensors becomes a
sequence (`graphc_onnx.boundary`); an optional that is there is its tensor. Ops without one ONNX operator are composed of several
(`graphc_onnx.exports`). The result is opset 21.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import helper

from graphc.errors import InputError, ResourceError, UnsupportedError
from graphc.files import write_atomic
from graphc.ir.body import graphs
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.patch import topological
from graphc.types.shape import symbol
from graphc.types.tensor import TensorType
from graphc_onnx.boundary import declarations, lists, write_elements, write_sequences
from graphc_onnx.emitter import IR_VERSION, OPSET, Emitter, Store, export_of, write_nodes

INLINE_LIMIT = (1 << 31) - (1 << 24)  # a protobuf message holds less than 2 GB
NEXT = ".next"  # behind the name of a state: its value after a run
_ALIGN = 64


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """The model with all data inside. Raises UnsupportedError listing every op without an exporter, ResourceError above 2 GB."""
    size = data_bytes(graph)
    if size > INLINE_LIMIT:
        raise ResourceError(f"{size} bytes of data do not fit into one ONNX file", hint="graphc.save_onnx writes them to a second file")
    return build(graph, _inline)


def save(model: Any, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Write a Graph, or anything with a graph (a model, a training step), to `path`; the file appears whole or not at all.

    external: put the data into `<name>.data` beside the file; None: only where it exceeds 2 GB. Raises ResourceError where the file
    cannot be written, UnsupportedError listing every op without an exporter.
    """
    from graphc.driver import as_graph

    graph = as_graph(model)
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"cannot write to a {type(path).__name__}", hint="a path")
    target = Path(path)
    if external is None:
        external = data_bytes(graph) > INLINE_LIMIT
    if not external:
        made = to_onnx(graph).SerializeToString()
        write_atomic(target, lambda file: file.write(made))
        return
    data = target.with_name(target.name + ".data")

    def fill(file: BinaryIO) -> None:
        made = build(graph, _ExternalStore(file, data.name)).SerializeToString()
        write_atomic(target, lambda model_file: model_file.write(made))  # inside: where it fails, the data do not stay behind

    write_atomic(data, fill)


def build(graph: Graph, store: Store) -> onnx.ModelProto:
    """The model; `store(tensor, array)` decides where the data of an initialiser goes."""
    graph = _without_state(graph)
    nodes = topological(graph)
    _check_exportable(nodes)
    emitter = Emitter(graph, store)
    _name_values(emitter, graph, nodes)
    _write_leaves(emitter, graph, nodes)
    write_elements(emitter, graph)
    write_nodes(emitter, graph, nodes)
    for name, value in graph.public_outputs.items():
        if emitter.names[value] != name:
            emitter.write("Identity", [emitter.names[value]], [name])
    write_sequences(emitter, graph)
    return _model(emitter, graph)


def _without_state(graph: Graph) -> Graph:
    """A graph whose state comes from outside: what runs update is an input and an output. Raises UnsupportedError for a taken name."""
    if not graph.updates:
        return graph
    made = graph.copy()
    outputs = dict(zip(made.output_names, made.outputs, strict=True))
    for state, value in made.updates.items():
        name = f"{state.name}{NEXT}"
        if name in outputs or name in made.values:
            raise UnsupportedError(f"the name {name!r} is taken, and the state {state.name!r} needs it", hint="rename the state")
        state.kind, state.data = Kind.INPUT, None
        made.inputs.append(state)
        outputs[name] = value
    made.updates = {}
    made.set_outputs(outputs)
    return made


def data_bytes(graph: Graph) -> int:
    return sum(value.data.nbytes for inner in graphs(graph) for value in inner.values.values() if value.data is not None)


def _check_exportable(nodes: Sequence[Node]) -> None:
    inside = [node for outer in nodes for body in outer.op.bodies() for inner in graphs(body) for node in topological(inner)]
    missing = Counter(node.op.name for node in (*nodes, *inside) if export_of(node.op.name) is None)
    if missing:
        text = ", ".join(f"{name} ({count})" for name, count in sorted(missing.items()))
        raise UnsupportedError(f"no ONNX form for {text}", hint="export the graph before it is lowered, without its backward part")


def _name_values(emitter: Emitter, graph: Graph, nodes: Sequence[Node]) -> None:
    """Inputs and leaves keep their names; a computed output takes its public name, and others give way to it."""
    public: dict[Value, str] = {}
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        if value.producer is not None:
            public.setdefault(value, name)
    outward = {*graph.output_names, *lists(graph.gives)}
    taken = outward & lists(graph.takes).keys()
    if taken:
        raise UnsupportedError(f"an input and an output of {graph.name!r} are called {min(taken)!r}", hint="rename the output")
    reserved = outward | lists(graph.takes).keys()
    elements = {element: f"{name}/{at}" for name, part in lists(graph.takes).items() for at, element in enumerate(part)}
    for value in graph.values.values():
        if value.kind is Kind.INPUT and value.name in elements:
            emitter.names[value] = emitter.fresh(elements[value.name])
        elif value.producer is None:
            if value.name in reserved and (value.kind is Kind.INPUT or value not in graph.outputs):
                _check_free(value, graph)
            emitter.names[value] = value.name if value.name not in reserved else emitter.fresh(value.name)
    for node in nodes:
        for value in node.outputs:
            name = public.get(value, value.name)
            emitter.names[value] = name if name not in reserved or value in public else emitter.fresh(name)


def _check_free(value: Value, graph: Graph) -> None:
    """An input or parameter whose name is that of another output cannot keep it."""
    raise UnsupportedError(f"the {value.kind.value} {value.name!r} has the name of an output of {graph.name!r}", hint="rename the output")


def _write_leaves(emitter: Emitter, graph: Graph, nodes: Sequence[Node]) -> None:
    used = {value for node in nodes for value in node.inputs} | set(graph.outputs)
    for value in graph.values.values():
        if value.data is None or (value not in used and value.kind is not Kind.PARAMETER):
            continue
        if value.kind is Kind.CONSTANT and value.type.dtype.is_float:
            emitter.constant(value.data, emitter.names[value])
        else:
            emitter.initializer(emitter.names[value], value.data)


def _model(emitter: Emitter, graph: Graph) -> onnx.ModelProto:
    made = helper.make_graph(
        emitter.nodes,
        graph.name or "graph",
        declarations(graph.takes, {value.name: value.type for value in graph.inputs}, lambda name: emitter.names[graph.values[name]]),
        declarations(graph.gives, {name: _declared(graph, name, value) for name, value in graph.public_outputs.items()}, str),
        initializer=emitter.initializers,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="graphc")
    helper.set_model_props(model, graph.metadata)
    return model


def _declared(graph: Graph, name: str, value: Value) -> TensorType:
    """The type of an output; a name for a size that only a run knows."""
    if name not in graph.trims:
        return value.type
    axis, _ = graph.trims[name]
    return value.type.with_shape((*value.type.shape[:axis], symbol("length"), *value.type.shape[axis + 1 :]))


# files ------------------------------------------------------------------------------------------------------------------------------


def _inline(tensor: onnx.TensorProto, data: Array) -> None:
    tensor.raw_data = _bytes(data)


def _bytes(data: Array) -> bytes:
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()


class _ExternalStore:
    """Appends the data to a file, aligned, so that it can be mapped."""

    def __init__(self, file: Any, location: str) -> None:
        self.file = file
        self.location = location

    def __call__(self, tensor: onnx.TensorProto, data: Array) -> None:
        self.file.write(b"\0" * (-self.file.tell() % _ALIGN))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", self.file.tell()), ("length", data.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(np.ascontiguousarray(data, data.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
