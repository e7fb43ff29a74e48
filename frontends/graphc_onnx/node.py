"""OnnxNode: one node as a handler sees it: resolved inputs, typed attributes, and errors that name the node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx

from graphc.errors import ModelError, UnsupportedError
from graphc.ir.graph import Value
from graphc_onnx.registry import Absent, Item, TensorList
from graphc_onnx.structure import describe
from graphc_onnx.tensors import Array, Storage, dense, to_array

_A = onnx.AttributeProto


class OnnxNode:
    """`inputs` has None for what is left out; trailing omitted inputs may be missing altogether (use `optional`)."""

    def __init__(self, proto: onnx.NodeProto, name: str, inputs: Sequence[Item], opset: int, storage: Storage) -> None:
        self.proto = proto
        self.name = name
        self.op = proto.op_type
        self.domain = proto.domain
        self.items = tuple(inputs)
        self.opset = opset
        self.storage = storage
        self.outputs = tuple(proto.output)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}
        self._read: set[str] = set()
        if len(self._attributes) != len(proto.attribute):
            raise ModelError("an attribute is given twice")

    # inputs -----------------------------------------------------------------------------------------------------------------

    def item(self, i: int) -> Item:
        """Input i, whatever it is; None where it is left out."""
        return self.items[i] if i < len(self.items) else None

    def optional(self, i: int) -> Value | None:
        """Input i as a tensor, or None where it is left out."""
        item = self.item(i)
        if isinstance(item, (TensorList, Absent)):
            raise ModelError(f"input {i} is {describe(item)}, and a tensor is needed here")
        return item

    def input(self, i: int) -> Value:
        """Input i as a tensor; a ModelError where it is left out."""
        value = self.optional(i)
        if value is None:
            raise ModelError(f"input {i} is missing", hint="export the model again")
        return value

    def sequence(self, i: int) -> TensorList:
        item = self.item(i)
        if not isinstance(item, TensorList):
            raise ModelError(f"input {i} must be a sequence, and is {describe(item)}")
        return item

    @property
    def inputs(self) -> tuple[Value, ...]:
        """All inputs, none left out."""
        return tuple(self.input(i) for i in range(len(self.items)))

    def wants(self, i: int) -> bool:
        """Whether output i is used."""
        return i < len(self.outputs) and self.outputs[i] != ""

    # attributes -------------------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return name in self._attributes

    def integer(self, name: str, default: int | None = None) -> int:
        found = self._get(name, _A.INT, default)
        return int(found.i) if found is not None else _required(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.integer(name, default))

    def number(self, name: str, default: float | None = None) -> float:
        found = self._get(name, _A.FLOAT, default)
        return float(found.f) if found is not None else _required(name, default)

    def string(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        found = self._get(name, _A.STRING, default)
        text: str = found.s.decode("utf-8", "replace") if found is not None else _required(name, default)
        if choices and text not in choices:
            raise ModelError(f"attribute {name}={text!r} is not one of {', '.join(choices)}")
        return text

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...]:
        found = self._get(name, _A.INTS, default)
        return tuple(found.ints) if found is not None else tuple(_required(name, default))

    def floats(self, name: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
        found = self._get(name, _A.FLOATS, default)
        return tuple(found.floats) if found is not None else tuple(_required(name, default))

    def strings(self, name: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        found = self._get(name, _A.STRINGS, default)
        return tuple(s.decode("utf-8", "replace") for s in found.strings) if found is not None else tuple(_required(name, default))

    def tensor(self, name: str, default: Array | None = None) -> Array:
        found = self._get(name, _A.TENSOR, default)
        return to_array(found.t, self.storage, f"attribute {name}") if found is not None else _required(name, default)

    def sparse_tensor(self, name: str) -> Array:
        found = self._get(name, _A.SPARSE_TENSOR, None)
        return dense(found.sparse_tensor, self.storage) if found is not None else _required(name, None)

    def graph(self, name: str) -> onnx.GraphProto:
        found = self._get(name, _A.GRAPH, None)
        made: onnx.GraphProto = found.g if found is not None else _required(name, None)
        return made

    def _get(self, name: str, kind: int, default: object) -> Any:
        self._read.add(name)
        found = self._attributes.get(name)
        if found is None:
            return None
        if found.type != kind and not (found.type == _A.UNDEFINED and self.opset < 7):
            wrong = _A.AttributeType.Name(found.type).lower()
            raise ModelError(f"attribute {name} has the wrong type {wrong}", hint="export the model again")
        return found

    def check_attributes(self) -> None:
        """A ModelError for an attribute that neither the handler nor the operator's schema knows."""
        for name in self._attributes:
            if name not in self._read and name not in known_attributes(self.op, self.opset, self.domain):
                raise ModelError(f"unknown attribute {name!r}", hint="export the model again, or remove the attribute")

    def unsupported(self, reason: str, hint: str = "see `graphc ops` for what is supported") -> UnsupportedError:
        return UnsupportedError(reason, hint=hint)


def _required(name: str, default: Any) -> Any:
    if default is None:
        raise ModelError(f"attribute {name} is missing", hint="export the model again")
    return default


@cache
def known_attributes(op: str, opset: int, domain: str) -> frozenset[str]:
    """The attribute names in the operator's schema; none for an operator that the onnx package does not know."""
    try:
        return frozenset(onnx.defs.get_schema(op, opset, domain).attributes)
    except onnx.defs.SchemaError:
        return frozenset()
