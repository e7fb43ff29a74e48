"""Reading a model: from a path, bytes or a ModelProto to a checked ModelProto and the place of its external data.

`check_structure` holds the invariants that everything after it relies on: a graph, a known IR version and opset, every value defined once
and before its use (no cycle), in the main graph, in subgraphs and in model-local functions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from graphc.errors import InputError, ModelError, UnsupportedError
from graphc_onnx.tensors import Storage

Source = Union[str, "os.PathLike[str]", bytes, onnx.ModelProto]
DOMAINS = ("", "ai.onnx")


def read(source: Source) -> tuple[onnx.ModelProto, Storage]:
    """The model and where its external data may lie. Raises ModelError for files that are missing, truncated or not ONNX."""
    if isinstance(source, onnx.ModelProto):
        return source, Storage()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _parse(bytes(source), "the given bytes"), Storage()
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"cannot load a {type(source).__name__}", hint="a path, the file's bytes, or an onnx.ModelProto")
    path = Path(source)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError("there is no such file", where=str(path), hint="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise ModelError(reason, where=str(path), hint="check the path and its permissions") from error
    return _parse(data, str(path)), Storage(path.resolve().parent)


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    if not data:
        raise ModelError("the file is empty", where=where, hint="export or download the model again")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError("not an ONNX model, or truncated", where=where, hint="export or download the model again") from error
    if not model.HasField("graph"):
        raise ModelError("not an ONNX model: it holds no graph", where=where, hint="pass the .onnx file itself")
    return model


def is_standard(domain: str) -> bool:
    return domain in DOMAINS


def opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain -> version; the default domain is ""."""
    return {"" if is_standard(entry.domain) else entry.domain: entry.version for entry in imports}


def check_versions(model: onnx.ModelProto) -> dict[str, int]:
    """The model's opsets. A model of IR version below 3 may leave them out: opset 1."""
    newest = onnx.defs.onnx_opset_version()
    if model.ir_version <= 0:
        raise ModelError("not an ONNX model: it has no IR version", hint="export it again")
    if model.ir_version > onnx.IR_VERSION:
        raise UnsupportedError(f"IR version {model.ir_version} is newer than {onnx.IR_VERSION}", hint="install a newer onnx package")
    found = opsets(model.opset_import)
    if not found and model.ir_version < 3:
        found = {"": 1}
    version = found.get("")
    if version is None and any(is_standard(node.domain) for node in model.graph.node):
        raise ModelError("the model does not say which opset it uses", hint="export it again")
    if version is not None and not 1 <= version <= newest:
        reason = f"opset {version} is not within 1 to {newest}"
        raise UnsupportedError(reason, hint="export with an older opset, or install a newer onnx package")
    return found


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_structure(model: onnx.ModelProto) -> None:
    """Every value is defined once, and before its use. Raises ModelError naming the value and the node."""
    _check_graph(model.graph, frozenset())
    for function in model.functions:
        _check_nodes(function.node, set(function.input), function.output, f"function {function.name!r}", frozenset())


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    where = f"graph {graph.name!r}"
    defined: set[str] = set()
    for value in graph.input:
        _define(value.name, defined, where)
    leaves = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
    seen: set[str] = set()
    for name in leaves:
        _define(name, seen, where)
    defined |= seen
    _check_nodes(graph.node, defined, [value.name for value in graph.output], where, outer)


def _define(name: str, defined: set[str], where: str) -> None:
    if not name or not isinstance(name, str):  # protobuf gives bytes for what is not UTF-8
        raise ModelError(f"a value has no valid name ({name!r})", where=where, hint="export the model again")
    if name in defined:
        raise ModelError(f"the value {name!r} is defined twice", where=where, hint="give every value a name of its own")
    defined.add(name)


def _check_nodes(nodes: Iterable[onnx.NodeProto], defined: set[str], outputs: Iterable[str], where: str, outer: frozenset[str]) -> None:
    nodes = list(nodes)
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    for i, node in enumerate(nodes):
        label = f"{node.op_type} {node.name or i!r}"
        if not node.op_type or not all(isinstance(text, str) for text in (node.op_type, node.domain, node.name, node.overload)):
            raise ModelError(f"node {node.name or i!r} has no operator type, or a name that is not text", where=where)
        for name in node.input:
            if name and name not in defined and name not in outer:
                raise _undefined(name, i, nodes, producer, label)
        for graph in subgraphs(node):
            _check_graph(graph, outer | defined)
        for name in node.output:
            if name:
                _define(name, defined, label)
    for name in outputs:
        if name not in defined and name not in outer:
            raise ModelError(f"the output {name!r} is not computed by any node", where=where, hint="export the model again")


def _undefined(name: str, user: int, nodes: list[onnx.NodeProto], producer: dict[str, int], label: str) -> ModelError:
    if name not in producer:
        return ModelError(f"the input {name!r} is not defined", where=label, hint="export the model again")
    stack, seen = [producer[name]], set[int]()
    while stack:  # does what makes the value need the node that uses it?
        current = stack.pop()
        if current == user:
            return ModelError(f"the value {name!r} depends on itself (a cycle)", where=label, hint="export the model again")
        if current not in seen:
            seen.add(current)
            stack.extend(producer[i] for i in nodes[current].input if i in producer)
    return ModelError(f"the value {name!r} is used before it is defined", where=label, hint="sort the nodes topologically")
