"""The text form of a graph: readable, and exact. `parse_graph(print_graph(g), graph_data(g))` is g again.

Grammar (one statement per line; `#` outside of a string starts a comment; names that are not plain are quoted as JSON strings):

    graph      = "graph" name { line }
    line       = "metadata" string string
               | "body" label name { line } "end"             a sub-graph, before the node that it belongs to
               | "input" value ":" type
               | ("param" | "const" | "state") value ":" type "=" (literal | "@" digest)
               | value { "," value } "=" op "(" [ value { "," value } ] ")" [ attributes ] ":" type { "," type } { note }
               | "output" name "=" value      | "trim" name int name        (output, axis, output that says how many count)
               | ("takes" | "gives") name [ "=" ( "none" | "(" [ name { "," name } ] ")" ) ]   (made of tensors: see graphc.ir.parts)
               | "update" value "=" value      | "eliminated" string string
    note       = "node" name | "kernel" int | "algorithm" name | "layout" layout { "," layout } | "from" string { "," string }
               | "at" string "," int "," string "," string          (the source: file, line, node, operator)
    value      = "%" name
    type       = dtype "[" [ dim { "," dim } ] "]"               e.g. f32[N,64,(H-1)//2,7]
    layout     = ("plain" | "c" int) [ "+" int ":" int { "," int ":" int } ]      e.g. c16+1:1,1:1
    attributes = "{" ident "=" literal { "," ident "=" literal } "}"
    literal    = int | float | "nan" | "inf" | "-inf" | "true" | "false" | string | dtype | "<" dim ">" | "(" { literal "," } ")"
               | "[" ... "]" (nested lists, of const data) | "&" label (of a body)

Data of more than 16 elements, and NaNs with a payload, are not in the text: a digest of the bytes names them, and the parser is given
the arrays as `data[name]`, in a body as `data["label/name"]`. Labels are distinct in all of the text. A graph that was parsed holds the
invariants that `verify` checks.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ModelError
from graphc.ir.cursor import PLAIN_NAME, Cursor
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import Op, op_class
from graphc.ir.parts import Parts
from graphc.ir.verify import verify
from graphc.source import UNKNOWN, Source
from graphc.types.dtype import DType
from graphc.types.layout import PLAIN
from graphc.types.shape import Dim
from graphc.types.tensor import TensorType

INLINE_ELEMENTS = 16
_LEAVES = {"input": Kind.INPUT, "param": Kind.PARAMETER, "const": Kind.CONSTANT, "state": Kind.STATE}
_BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # what ops raise on nonsense


def print_graph(graph: Graph, *, machine: bool = True) -> str:
    """The text of a graph; `machine=False` leaves out kernels, algorithms and layouts."""
    return "\n".join(_lines(graph, machine)) + "\n"


def graph_data(graph: Graph) -> dict[str, Array]:
    """What the text leaves out: the data of large leaves by name."""
    return dict(_all_data(graph, "", ""))


def _all_data(graph: Graph, place: str, prefix: str) -> Iterator[tuple[str, Array]]:
    for value in graph.values.values():
        if value.data is not None and not _is_inline(value.data):
            yield f"{place}{value.name}", value.data
    for body, label in _labels(graph, prefix).items():
        yield from _all_data(body, f"{label}/", f"{label}.")


def _labels(graph: Graph, prefix: str) -> dict[Graph, str]:
    """The bodies of a graph's nodes -> how the text calls them."""
    bodies = [body for node in graph.nodes for body in node.op.bodies()]
    return {body: f"{prefix}b{number}" for number, body in enumerate(bodies)}


def parse_graph(text: str, data: Mapping[str, Array] | None = None) -> Graph:
    """The inverse of `print_graph`. Raises a GraphcError (ModelError, mostly) that names the line for text that is not a graph."""
    reader = _Reader(data or {})
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.read(Cursor(line, reader.bodies))
        except GraphcError as error:
            if not error.where.startswith("line "):
                error.where = f"line {number}: {error.where}" if error.where else f"line {number}"
            raise
        except _BROKEN as error:
            raise ModelError(f"not understood: {line.strip()[:120]!r} ({error})", where=f"line {number}") from error
    graph = reader.graph()
    verify(graph)
    return graph


# printing -------------------------------------------------------------------------------------------------------------------


def _lines(graph: Graph, machine: bool, prefix: str = "") -> Iterator[str]:
    labels = _labels(graph, prefix)
    if not prefix:
        yield f"graph {_name(graph.name)}"
    for key, text in graph.metadata.items():
        yield f"metadata {json.dumps(key)} {json.dumps(text)}"
    for value in graph.inputs:
        yield f"input {_value(value)} : {value.type}"
    for value in graph.values.values():
        if value.producer is None and value.kind is not Kind.INPUT:
            yield f"{value.kind.value} {_value(value)} : {value.type} = {_data(value)}"
    for node in graph.nodes:
        for body in node.op.bodies():
            yield f"body {labels[body]} {_name(body.name)}"
            yield from (f"  {line}" for line in _lines(body, machine, f"{labels[body]}."))
            yield "end"
        yield _node(node, machine, labels)
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        yield f"output {_name(name)} = {_value(value)}"
    for name, (axis, length) in graph.trims.items():
        yield f"trim {_name(name)} {axis} {_name(length)}"
    for verb, parts in (("takes", graph.takes), ("gives", graph.gives)):
        for name, part in parts.items():
            yield f"{verb} {_name(name)}{_part(part)}"
    for state, value in graph.updates.items():
        yield f"update {_value(state)} = {_value(value)}"
    for origin, reason in graph.eliminated.items():
        yield f"eliminated {json.dumps(origin)} {json.dumps(reason)}"


def _part(part: Parts) -> str:
    if isinstance(part, str):
        return ""
    return " = none" if part is None else f" = ({', '.join(map(_name, part))})"


def _node(node: Node, machine: bool, labels: Mapping[Graph, str]) -> str:
    outputs = ", ".join(_value(value) for value in node.outputs)
    inputs = ", ".join(_value(value) for value in node.inputs)
    given = node.op.attributes().items()
    attributes = ", ".join(f"{key}={f'&{labels[value]}' if isinstance(value, Graph) else _literal(value)}" for key, value in given)
    text = f"{outputs} = {node.op.name}({inputs})" + (f" {{{attributes}}}" if attributes else "")
    text += " : " + ", ".join(str(value.type) for value in node.outputs)
    if node.name != node.outputs[0].name:
        text += f" node {_name(node.name)}"
    if machine and node.kernel is not None:
        text += f" kernel {node.kernel}"
    if machine and node.algorithm:
        text += f" algorithm {_name(node.algorithm)}"
    if machine and any(value.layout != PLAIN for value in node.outputs):
        text += " layout " + ", ".join(str(value.layout) for value in node.outputs)
    if node.origins:
        text += " from " + ", ".join(map(json.dumps, node.origins))
    if node.source != UNKNOWN:
        s = node.source
        text += f" at {json.dumps(s.file)}, {s.line}, {json.dumps(s.node)}, {json.dumps(s.op)}"
    return text


def _name(name: str) -> str:
    return name if PLAIN_NAME.fullmatch(name) else json.dumps(name)


def _value(value: Value) -> str:
    return "%" + _name(value.name)


def _is_inline(data: Array) -> bool:
    """Small, and every NaN is the one that "nan" stands for."""
    if data.size > INLINE_ELEMENTS:
        return False
    if data.dtype.kind != "f":
        return True
    odd = np.isnan(data)
    return data[odd].tobytes() == np.full(int(odd.sum()), np.nan, data.dtype).tobytes()


def _data(value: Value) -> str:
    data = value.data
    assert data is not None
    if not _is_inline(data):
        return "@" + digest(data)
    if data.dtype.itemsize < 8 and data.dtype.kind == "f":  # the shortest digits that give the same number back
        data = np.array([float(str(item)) for item in data.reshape(-1)]).reshape(data.shape)
    return _literal(data.tolist())


def digest(data: Array) -> str:
    """16 hex digits of the SHA-256 of the bytes in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()[:16]


def _literal(value: Any) -> str:
    if isinstance(value, DType):
        return value.short
    if isinstance(value, Dim):
        return f"<{value}>"
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    raise ModelError(f"an attribute of type {type(value).__name__} has no text form")


# parsing --------------------------------------------------------------------------------------------------------------------


class _Reader:
    """The graphs that are open, the innermost last, with their labels; `bodies`: those that are closed, by label."""

    def __init__(self, data: Mapping[str, Array]) -> None:
        self.bodies: dict[str, Graph] = {}
        self._data = data
        self._open: list[tuple[str, Graph]] = []

    def read(self, cursor: Cursor) -> None:
        """One line."""
        if not self._open and cursor.more():
            cursor.expect("graph")
            self._open.append(("", Graph(cursor.name())))
        elif cursor.accept("body"):
            label = cursor.name()
            _once(label in self.bodies or any(label == known for known, _ in self._open), f"the body {label!r}")
            self._open.append((label, Graph(cursor.name())))
        elif cursor.accept("end"):
            label, body = self._open.pop()
            if not label:
                raise ModelError("an end without a body")
            self.bodies[label] = body
        elif cursor.more():
            label, graph = self._open[-1]
            _statement(graph, cursor, self._data, f"{label}/" if label else "")
        cursor.end()

    def graph(self) -> Graph:
        if not self._open:
            raise ModelError("the text of a graph starts with: graph NAME", where="line 1")
        if len(self._open) > 1:
            raise ModelError(f"the body {self._open[-1][0]!r} lacks its end")
        return self._open[0][1]


def _statement(graph: Graph, cursor: Cursor, data: Mapping[str, Array], place: str) -> None:
    word = cursor.peek()
    if word == "%":
        _parse_node(graph, cursor)
        return
    cursor.take()
    if word in ("metadata", "eliminated"):
        target = graph.metadata if word == "metadata" else graph.eliminated
        key = cursor.string()
        _once(key in target, f"{word} {key!r}")
        target[key] = cursor.string()
    elif word == "output":
        name = cursor.name()
        _once(name in graph.output_names, f"the output {name!r}")
        cursor.expect("=")
        graph.outputs.append(_use(graph, cursor))
        graph.output_names.append(name)
    elif word == "trim":
        name = cursor.name()
        _once(name in graph.trims, f"the trim of {name!r}")
        graph.trims[name] = (cursor.integer(), cursor.name())
    elif word in ("takes", "gives"):
        _parse_parts(graph.takes if word == "takes" else graph.gives, cursor, word)
    elif word == "update":
        state = _use(graph, cursor)
        _once(state in graph.updates, f"the update of {state.name!r}")
        cursor.expect("=")
        graph.updates[state] = _use(graph, cursor)
    elif word in _LEAVES:
        name = cursor.value_name()
        cursor.expect(":")
        type = cursor.type()
        graph.add_value(name, type, _LEAVES[word], None if word == "input" else _parse_data(place + name, type, cursor, data))
    else:
        raise ModelError(f"unknown statement {word!r}", hint="see the grammar in graphc.ir.text")


def _parse_parts(parts: dict[str, Parts], cursor: Cursor, word: str) -> None:
    name = cursor.name()
    _once(name in parts, f"{word} {name!r}")
    parts[name] = name
    if cursor.accept("="):
        parts[name] = None if cursor.accept("none") else _parse_list(cursor)


def _parse_list(cursor: Cursor) -> tuple[str, ...]:
    cursor.expect("(")
    return tuple(cursor.items(")", cursor.name))


def _once(twice: bool, what: str) -> None:
    if twice:
        raise ModelError(f"{what} is given twice")


def _use(graph: Graph, cursor: Cursor) -> Value:
    name = cursor.value_name()
    if name not in graph.values:
        raise ModelError(f"the value {name!r} is used before it is defined")
    return graph.values[name]


def _parse_data(name: str, type: TensorType, cursor: Cursor, data: Mapping[str, Array]) -> Array:
    cursor.expect("=")
    shape = type.static_shape
    if not cursor.accept("@"):
        with np.errstate(over="raise"):  # a number that the dtype has not is no infinity
            return np.array(_typed(cursor.literal(), type.dtype), dtype=type.dtype.numpy).reshape(shape)
    wanted = cursor.take()
    if name not in data:
        raise ModelError(f"the data of {name!r} is not given", hint="pass it as data[name]")
    array = np.asarray(data[name])
    if array.shape != shape or array.dtype != type.dtype.numpy or digest(array) != wanted:
        raise ModelError(f"the data given for {name!r} is not the data of this text ({type}, digest {wanted})")
    return array


def _typed(literal: Any, dtype: DType) -> Any:
    """Nested lists of numbers of one kind, as they are."""
    if isinstance(literal, list):
        return [_typed(item, dtype) for item in literal]
    if type(literal) is not {"b": bool, "f": float}.get(dtype.kind, int):
        raise ModelError(f"{_literal(literal)} is no number of {dtype}")
    return literal


def _parse_node(graph: Graph, cursor: Cursor) -> None:
    names = cursor.list_of(cursor.value_name)
    cursor.expect("=")
    kind = op_class(cursor.take())
    cursor.expect("(")
    inputs = cursor.items(")", lambda: _use(graph, cursor))
    attributes = _attributes(kind, cursor) if cursor.accept("{") else {}
    cursor.expect(":")
    types = tuple(cursor.list_of(cursor.type))
    op = kind.build(attributes)
    inferred = op.output_types(*(value.type for value in inputs))
    if len(names) != len(types) or types != inferred:
        raise ModelError(f"{op.name} gives {', '.join(map(str, inferred))}, not {', '.join(map(str, types))} for {len(names)} values")
    node = Node(names[0], op, inputs, UNKNOWN, ())
    for name, type in zip(names, types, strict=True):
        value = graph.add_value(name, type, Kind.RESULT)
        value.producer = node
        node.outputs.append(value)
    while cursor.more():
        _note(node, cursor)
    graph.nodes.append(node)


def _attributes(kind: type[Op], cursor: Cursor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    types = _field_types(kind.name)

    def attribute() -> None:
        key = cursor.take()
        if key not in types:
            raise ModelError(f"{kind.name} has no attribute {key!r}", hint=f"it has {', '.join(types) or 'none'}")
        _once(key in found, f"the attribute {key!r}")
        cursor.expect("=")
        value = cursor.literal()
        if not _fits(value, types[key]):
            raise ModelError(f"the attribute {key} of {kind.name} cannot be {_literal(value)}")
        found[key] = value

    cursor.items("}", attribute)
    return found


@cache
def _field_types(name: str) -> dict[str, Any]:
    """Attribute -> declared type, of an op."""
    kind = op_class(name)
    hints = typing.get_type_hints(kind, localns={"Dim": Dim})
    return {f.name: hints[f.name] for f in fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a literal is of an attribute's declared type; an int may stand for a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        return any(_fits(value, choice) for choice in arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is not None:
        raise TypeError(f"attributes of type {hint} have no text form")
    return type(value) is hint or (hint is float and type(value) is int)


def _note(node: Node, cursor: Cursor) -> None:
    word = cursor.take()
    if word == "node":
        node.name = cursor.name()
    elif word == "kernel":
        node.kernel = cursor.integer()
    elif word == "algorithm":
        node.algorithm = cursor.name()
    elif word == "layout":
        layouts = cursor.list_of(cursor.layout)
        for value, layout in zip(node.outputs, layouts, strict=True):
            value.layout = layout
    elif word == "from":
        node.origins = tuple(cursor.list_of(cursor.string))
    elif word == "at":
        file = cursor.string()
        cursor.expect(",")
        line = cursor.integer()
        cursor.expect(",")
        name, op = cursor.list_of(cursor.string)
        node.source = Source(file, line, name, op)
    else:
        raise ModelError(f"unknown note {word!r}", hint="node, kernel, algorithm, layout, from or at")
