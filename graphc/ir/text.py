"""The text form of a graph: readable, and exact. `parse_graph(print_graph(g), data)` is g again.

Grammar (one statement per line; `#` after a space starts a comment; names that are not plain are quoted as JSON strings):

    graph      = "graph" name { line }
    line       = "metadata" string string
               | "input" value ":" type
               | ("param" | "const" | "state") value ":" type "=" (literal | "@" digest)
               | value { "," value } "=" op "(" [ value { "," value } ] ")" [ "{" attribute { "," attribute } "}" ] ":" type { "," type } { note }
               | "output" name "=" value      | "update" value "=" value      | "eliminated" string string
    note       = "node" name | "kernel" int | "layout" layout { "," layout } | "from" strings | "at" strings
    value      = "%" name
    type       = dtype "[" [ dim { "," dim } ] "]"               e.g. f32[N,64,(H-1)//2,7]
    attribute  = ident "=" literal
    literal    = int | float | "nan" | "inf" | "-inf" | "true" | "false" | string | dtype | "<" dim ">" | "(" { literal "," } ")"
               | "[" ... "]" (nested lists, of const data)

Data of more than 16 elements is not in the text: it is named by a digest of its bytes and given to the parser as `data[name]`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import GraphcError, ModelError
from graphc.ir.graph import Array, Graph, Kind, Node, Value
from graphc.ir.op import op_class
from graphc.source import UNKNOWN, Source
from graphc.types.dtype import ALL, DType, dtype
from graphc.types.layout import PLAIN, Layout
from graphc.types.shape import Dim, parse_dim
from graphc.types.tensor import TensorType

INLINE_ELEMENTS = 16
_PLAIN_NAME = re.compile(r"[A-Za-z_0-9][\w.:/-]*")
_DTYPES = {d.short: d for d in ALL}
_LEAVES = {"input": Kind.INPUT, "param": Kind.PARAMETER, "const": Kind.CONSTANT, "state": Kind.STATE}


def print_graph(graph: Graph, *, machine: bool = True) -> str:
    """The text of a graph; `machine=False` leaves out kernels and layouts."""
    return "\n".join(_lines(graph, machine)) + "\n"


def graph_data(graph: Graph) -> dict[str, Array]:
    """What the text leaves out: the data of large leaves by name."""
    return {v.name: v.data for v in graph.values.values() if v.data is not None and v.data.size > INLINE_ELEMENTS}


def parse_graph(text: str, data: Mapping[str, Array] | None = None) -> Graph:
    """The inverse of `print_graph`. Raises ModelError with the line for text that is not a graph."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and not line.strip().startswith("#")]
    if not lines:
        raise ModelError("the text of a graph starts with: graph NAME", where="line 1")
    graph = Graph()
    for index, (number, line) in enumerate(lines):
        try:
            parser = _Parser(line)
            if index == 0:
                parser.expect("graph")
                graph.name = parser.name()
            else:
                _statement(graph, parser, data or {})
            parser.end()
        except GraphcError as error:
            raise error.at(f"line {number}") from error.__cause__
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise ModelError(f"not understood: {line.strip()[:120]!r} ({error})", where=f"line {number}") from error
    return graph


# printing -------------------------------------------------------------------------------------------------------------------


def _lines(graph: Graph, machine: bool) -> Iterator[str]:
    yield f"graph {_name(graph.name)}"
    for key, text in graph.metadata.items():
        yield f"metadata {json.dumps(key)} {json.dumps(text)}"
    for value in graph.inputs:
        yield f"input {_value(value)} : {value.type}"
    for value in graph.values.values():
        if value.producer is None and value.kind is not Kind.INPUT:
            yield f"{value.kind.value} {_value(value)} : {value.type} = {_data(value)}"
    for node in graph.nodes:
        yield _node(node, machine)
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        yield f"output {_name(name)} = {_value(value)}"
    for state, value in graph.updates.items():
        yield f"update {_value(state)} = {_value(value)}"
    for origin, reason in graph.eliminated.items():
        yield f"eliminated {json.dumps(origin)} {json.dumps(reason)}"


def _node(node: Node, machine: bool) -> str:
    outputs = ", ".join(_value(value) for value in node.outputs)
    inputs = ", ".join(_value(value) for value in node.inputs)
    attributes = ", ".join(f"{key}={_literal(value)}" for key, value in node.op.attributes().items())
    text = f"{outputs} = {node.op.name}({inputs})" + (f" {{{attributes}}}" if attributes else "")
    text += " : " + ", ".join(str(value.type) for value in node.outputs)
    if node.name != node.outputs[0].name:
        text += f" node {_name(node.name)}"
    if machine and node.kernel is not None:
        text += f" kernel {node.kernel}"
    if machine and any(value.layout != PLAIN for value in node.outputs):
        text += " layout " + ", ".join(str(value.layout) for value in node.outputs)
    if node.origins:
        text += " from " + ", ".join(map(json.dumps, node.origins))
    if node.source != UNKNOWN:
        s = node.source
        text += f" at {json.dumps(s.file)}, {s.line}, {json.dumps(s.node)}, {json.dumps(s.op)}"
    return text


def _name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)


def _value(value: Value) -> str:
    return "%" + _name(value.name)


def _data(value: Value) -> str:
    data = value.data
    assert data is not None
    if data.size > INLINE_ELEMENTS:
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

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<dim><[^<>]*>)|(?P<number>-?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|inf|nan)(?![\w.:/-]))'
    r"|(?P<word>[A-Za-z_0-9][\w.:/-]*)|(?P<mark>[%=(){}\[\],:@+*]))"
)
_LAYOUT = re.compile(r"\s*(?P<base>plain|c\d+)(?:\+(?P<halo>\d+:\d+(?:,\d+:\d+)*))?")


class _Parser:
    """A cursor over one line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def _match(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise ModelError(f"unexpected {self.text[self.at : self.at + 20]!r}")
        return found

    def peek(self) -> str:
        if not self.text[self.at :].strip():
            return ""
        return self._match().group().strip()

    def take(self) -> str:
        found = self._match()
        self.at = found.end()
        return found.group().strip()

    def expect(self, token: str) -> None:
        taken = self.take() if self.peek() else "the end of the line"
        if taken != token:
            raise ModelError(f"expected {token!r}, got {taken!r}")

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.take()
            return True
        return False

    def end(self) -> None:
        if self.peek():
            raise ModelError(f"unexpected {self.text[self.at :].strip()[:40]!r} at the end")

    def name(self) -> str:
        token = self.take()
        if token.startswith('"'):
            text: str = json.loads(token)
            return text
        if not _PLAIN_NAME.fullmatch(token):
            raise ModelError(f"expected a name, got {token!r}")
        return token

    def string(self) -> str:
        text = json.loads(self.take())
        if not isinstance(text, str):
            raise ModelError(f"expected a string, got {text!r}")
        return text

    def value_name(self) -> str:
        self.expect("%")
        return self.name()

    def items(self, close: str, item: Callable[[], Any]) -> list[Any]:
        found = []
        while not self.accept(close):
            found.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return found

    def type(self) -> TensorType:
        kind = dtype(self.take())
        self.expect("[")
        close = self._closing_bracket()
        inside = self.text[self.at : close].strip()
        self.at = close + 1
        return TensorType(kind, tuple(parse_dim(part) for part in _split(inside)) if inside else ())

    def _closing_bracket(self) -> int:
        close = self.text.find("]", self.at)
        if close < 0:
            raise ModelError("a type lacks its ]")
        return close

    def layout(self) -> Layout:
        found = _LAYOUT.match(self.text, self.at)
        if found is None:
            raise ModelError(f"expected a layout, got {self.text[self.at : self.at + 20]!r}")
        self.at = found.end()
        pairs = (pair.split(":") for pair in (found["halo"] or "").split(",") if pair)
        halo = tuple((int(before), int(after)) for before, after in pairs)
        return Layout(0 if found["base"] == "plain" else int(found["base"][1:]), halo)

    def literal(self) -> Any:
        token = self.take()
        if token == "(":
            return tuple(self.items(")", self.literal))
        if token == "[":
            return self.items("]", self.literal)
        if token.startswith('"'):
            return json.loads(token)
        if token.startswith("<"):
            return parse_dim(token[1:-1])
        if token in ("true", "false"):
            return token == "true"
        if token in _DTYPES:
            return _DTYPES[token]
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        return float(token)


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _statement(graph: Graph, parser: _Parser, data: Mapping[str, Array]) -> None:
    word = parser.peek()
    if word == "%":
        _parse_node(graph, parser)
        return
    parser.take()
    if word in ("metadata", "eliminated"):
        target = graph.metadata if word == "metadata" else graph.eliminated
        key = parser.string()
        target[key] = parser.string()
    elif word == "output":
        graph.output_names.append(parser.name())
        parser.expect("=")
        graph.outputs.append(_use(graph, parser))
    elif word == "update":
        state = _use(graph, parser)
        parser.expect("=")
        graph.updates[state] = _use(graph, parser)
    elif word in _LEAVES:
        name = parser.value_name()
        parser.expect(":")
        type = parser.type()
        graph.add_value(name, type, _LEAVES[word], None if word == "input" else _parse_data(name, type, parser, data))
    else:
        raise ModelError(f"unknown statement {word!r}", hint="see the grammar in graphc.ir.text")


def _use(graph: Graph, parser: _Parser) -> Value:
    name = parser.value_name()
    if name not in graph.values:
        raise ModelError(f"the value {name!r} is used before it is defined")
    return graph.values[name]


def _parse_data(name: str, type: TensorType, parser: _Parser, data: Mapping[str, Array]) -> Array:
    parser.expect("=")
    shape = type.static_shape
    if not parser.accept("@"):
        return np.array(parser.literal(), dtype=type.dtype.numpy).reshape(shape)
    wanted = parser.take()
    if name not in data:
        raise ModelError(f"the data of {name!r} is not given", hint="pass it as data[name]")
    array = np.asarray(data[name])
    if array.shape != shape or array.dtype != type.dtype.numpy or digest(array) != wanted:
        raise ModelError(f"the data given for {name!r} is not the data of this text ({type}, digest {wanted})")
    return array


def _parse_node(graph: Graph, parser: _Parser) -> None:
    names = [parser.value_name()]
    while parser.accept(","):
        names.append(parser.value_name())
    parser.expect("=")
    kind = op_class(parser.take())
    parser.expect("(")
    inputs = parser.items(")", lambda: _use(graph, parser))
    attributes = dict(parser.items("}", lambda: _attribute(parser))) if parser.accept("{") else {}
    parser.expect(":")
    types = [parser.type()]
    while parser.accept(","):
        types.append(parser.type())
    if len(types) != len(names):
        raise ModelError(f"{len(names)} values, but {len(types)} types")
    node = Node(names[0], kind.build(attributes), inputs, UNKNOWN, ())
    for name, type in zip(names, types, strict=True):
        value = graph.add_value(name, type, Kind.RESULT)
        value.producer = node
        node.outputs.append(value)
    while parser.peek():
        _note(node, parser)
    graph.nodes.append(node)


def _attribute(parser: _Parser) -> tuple[str, Any]:
    key = parser.take()
    parser.expect("=")
    return key, parser.literal()


def _note(node: Node, parser: _Parser) -> None:
    word = parser.take()
    if word == "node":
        node.name = parser.name()
    elif word == "kernel":
        node.kernel = int(parser.take())
    elif word == "layout":
        for i, value in enumerate(node.outputs):
            if i:
                parser.expect(",")
            value.layout = parser.layout()
    elif word == "from":
        node.origins = tuple(_strings(parser))
    elif word == "at":
        file = parser.string()
        parser.expect(",")
        line = int(parser.take())
        parser.expect(",")
        name, op = _strings(parser)
        node.source = Source(file, line, name, op)
    else:
        raise ModelError(f"unknown note {word!r}", hint="node, kernel, layout, from or at")


def _strings(parser: _Parser) -> Sequence[str]:
    found = [parser.string()]
    while parser.accept(","):
        found.append(parser.string())
    return found


