"""Cursor: reads names, types, layouts and literals from one line of the text form (grammar: `graphc.ir.text`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from graphc.errors import ModelError
from graphc.ir.graph import Graph
from graphc.types.dtype import ALL
from graphc.types.layout import Layout
from graphc.types.shape import DimLike, parse_dim
from graphc.types.tensor import TensorType

PLAIN_NAME = re.compile(r"[A-Za-z_0-9][\w.:/-]*")
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<dim><[^<>]*>)|(?P<number>-?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|inf|nan)(?![\w.:/-]))'
    r"|(?P<word>[A-Za-z_0-9][\w.:/-]*)|(?P<mark>[%=(){}\[\],:@&])"
)
_BLANK = re.compile(r"\s*(?:#.*)?")  # a comment ends the line
_LAYOUT = re.compile(r"(?P<base>plain|c[1-9][0-9]*)(?:\+(?P<halo>[0-9]+:[0-9]+(?:,[0-9]+:[0-9]+)*))?(?![\w:+])")
_DTYPES = {d.short: d for d in ALL}


class Cursor:
    """A position in a line. Whatever does not fit raises ModelError. `bodies`: the sub-graphs that have been read, by label."""

    def __init__(self, text: str, bodies: Mapping[str, Graph] | None = None) -> None:
        self.text = text
        self._bodies = bodies or {}
        self._at = 0
        self._skip()

    def _skip(self) -> None:
        blank = _BLANK.match(self.text, self._at)
        assert blank is not None
        self._at = blank.end()

    def _match(self) -> re.Match[str]:
        found = _TOKEN.match(self.text, self._at)
        if found is None:
            raise ModelError(f"unexpected {self.text[self._at : self._at + 20]!r}" if self.more() else "the line ends too early")
        return found

    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self.text)

    def peek(self) -> str:
        """The next token, "" at the end of the line."""
        return self._match().group() if self.more() else ""

    def take(self) -> str:
        token = self._match().group()
        self._at += len(token)
        self._skip()
        return token

    def expect(self, token: str) -> None:
        taken = self.take() if self.more() else "the end of the line"
        if taken != token:
            raise ModelError(f"expected {token!r}, got {taken!r}")

    def accept(self, token: str) -> bool:
        """Take the token if it is the next."""
        if self.peek() != token:
            return False
        self.take()
        return True

    def end(self) -> None:
        if self.more():
            raise ModelError(f"unexpected {self.text[self._at : self._at + 40]!r} at the end")

    def name(self) -> str:
        token = self.take()
        if token.startswith('"'):
            return str(json.loads(token))
        if not PLAIN_NAME.fullmatch(token):
            raise ModelError(f"expected a name, got {token!r}")
        return token

    def value_name(self) -> str:
        self.expect("%")
        return self.name()

    def string(self) -> str:
        token = self.take()
        if not token.startswith('"'):
            raise ModelError(f"expected a quoted string, got {token!r}")
        return str(json.loads(token))

    def integer(self) -> int:
        """An int of at least 0."""
        token = self.take()
        if not re.fullmatch(r"[0-9]+", token):
            raise ModelError(f"expected a number, got {token!r}")
        return int(token)

    def list_of(self, item: Callable[[], Any]) -> list[Any]:
        """One or more items with commas between them."""
        found = [item()]
        while self.accept(","):
            found.append(item())
        return found

    def items(self, close: str, item: Callable[[], Any]) -> list[Any]:
        """Items with commas between them (one more may follow the last) up to the closing mark."""
        found = []
        while not self.accept(close):
            found.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return found

    def type(self) -> TensorType:
        token = self.take()
        if token not in _DTYPES:
            raise ModelError(f"expected a dtype, got {token!r}")
        if self.peek() != "[":
            raise ModelError(f"expected the shape of a type in [], got {self.peek()!r}")
        close = self.text.find("]", self._at)
        if close < 0:
            raise ModelError("a type lacks its ]")
        inside = self.text[self._at + 1 : close].strip()
        self._at = close + 1
        self._skip()
        return TensorType(_DTYPES[token], tuple(_size(part) for part in _split(inside)) if inside else ())

    def layout(self) -> Layout:
        found = _LAYOUT.match(self.text, self._at)
        if found is None:
            raise ModelError(f"expected a layout, got {self.text[self._at : self._at + 20]!r}")
        self._at = found.end()
        self._skip()
        pairs = (pair.split(":") for pair in (found["halo"] or "").split(",") if pair)
        halo = tuple((int(before), int(after)) for before, after in pairs)
        return Layout(0 if found["base"] == "plain" else int(found["base"][1:]), halo)

    def literal(self) -> Any:
        found = self._match()
        token = self.take()
        if found["number"]:
            return int(token) if re.fullmatch(r"-?[0-9]+", token) else float(token)
        if found["string"]:
            return json.loads(token)
        if found["dim"]:
            return parse_dim(token[1:-1])
        if token == "(":
            return tuple(self.items(")", self.literal))
        if token == "[":
            return self.items("]", self.literal)
        if token == "&":
            label = self.name()
            if label not in self._bodies:
                raise ModelError(f"the body {label!r} is used before it is defined")
            return self._bodies[label]
        if token in ("true", "false"):
            return token == "true"
        if token in _DTYPES:
            return _DTYPES[token]
        raise ModelError(f"expected a value, got {token!r}")


def _size(text: str) -> DimLike:
    dim = parse_dim(text)
    if isinstance(dim, int) and dim < 0:
        raise ModelError(f"a size of {dim}")
    return dim


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]
