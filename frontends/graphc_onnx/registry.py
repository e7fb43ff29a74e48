"""The table of operator handlers: (domain, operator, opset) -> the function that builds it from graphc ops.

A handler is registered by `@onnx_op("Conv")`, with `since=` and `until=` (both inclusive) where its meaning changed between opsets.
It receives the importer's `Context` and the `OnnxNode`, and returns the node's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, Union

from graphc.ir.graph import Value
from graphc.types.dtype import DType

if TYPE_CHECKING:
    from graphc_onnx.context import Context
    from graphc_onnx.node import OnnxNode

Item = Union[Value, "TensorList", "Absent", None]  # what an ONNX name stands for while importing
Result = Union[Item, Sequence[Item]]
Handler = Callable[["Context", "OnnxNode"], Result]
H = TypeVar("H", bound=Callable[..., Result])
NEWEST = 1 << 30


@dataclass(frozen=True)
class TensorList:
    """An ONNX sequence, of tensors of one dtype. Its length is known while importing: it exists at compile time only."""

    items: tuple[Value, ...]
    dtype: DType


@dataclass(frozen=True)
class Absent:
    """An ONNX optional without an element. One that has an element is that element: a tensor or a sequence."""


@dataclass(frozen=True)
class Entry:
    since: int
    until: int
    handler: Handler


_table: dict[tuple[str, str], list[Entry]] = {}


def onnx_op(*names: str, since: int = 1, until: int = NEWEST, domain: str = "") -> Callable[[H], H]:
    """Register a handler for operators of `domain` in opsets `since` to `until`."""

    def decorate(function: H) -> H:
        for name in names:
            entries = _table.setdefault((domain, name), [])
            if any(entry.since <= until and since <= entry.until for entry in entries):
                raise ValueError(f"two handlers for {domain}:{name} in opsets {since} to {until}")
            entries.append(Entry(since, until, function))
        return function

    return decorate


def find(domain: str, name: str, opset: int) -> Handler | None:
    """The handler of an operator at an opset, or None."""
    import graphc_onnx.handlers  # the table is filled by importing the handlers

    assert graphc_onnx.handlers.__name__
    for entry in _table.get((domain, name), ()):
        if entry.since <= opset <= entry.until:
            return entry.handler
    return None


def supported() -> Iterator[tuple[str, str]]:
    """(domain, operator) of every handler, sorted."""
    import graphc_onnx.handlers

    assert graphc_onnx.handlers.__name__
    return iter(sorted(_table))
