"""What a compiled model takes: names, types and the sizes of symbolic dims, checked for every back end in the same way.

A caller gives an array for each input; for an input that is made of several tensors a list of arrays, and None (or nothing) for an
optional one that is absent. How many there are is part of the compiled model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InputError, ShapeError
from graphc.ir.graph import Array, Graph
from graphc.ir.parts import Parts, put_together, text
from graphc.types.shape import Dim, substitute
from graphc.types.tensor import TensorType


class Signature:
    """The inputs of a model in order. `tensors`: name -> type (dims may be symbolic); `inputs`: the same as a caller gives them: the type
    of a tensor, a list of types, or None where `takes` (see `graphc.ir.parts`) says so."""

    def __init__(self, tensors: Mapping[str, TensorType], takes: Mapping[str, Parts] | None = None) -> None:
        self.tensors = dict(tensors)
        self.takes = dict(takes or {})
        self.inputs: dict[str, Any] = put_together(self.takes, self.tensors)
        lists = {name: part for name, part in self.takes.items() if isinstance(part, tuple)}
        elements = {element: f"{name}[{at}]" for name, part in lists.items() for at, element in enumerate(part)}
        self._labels = {name: elements.get(name, name) for name in self.tensors}  # for messages

    def by_name(self, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Positional and named arguments as one mapping. Raises InputError for too many, or one given twice."""
        if len(args) > len(self.inputs):
            raise InputError(f"{len(args)} inputs given, the model takes {len(self.inputs)}: {self}")
        feeds = dict(zip(self.inputs, args, strict=False))
        twice = feeds.keys() & named.keys()
        if twice:
            raise InputError(f"input {min(twice)!r} is given twice")
        return {**feeds, **named}

    def check(self, feeds: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, int]]:
        """C-contiguous arrays by tensor, in order, and the size of each symbol. Raises InputError for what does not fit."""
        arrays = self.arrays(feeds)
        return arrays, self.sizes(arrays)

    def arrays(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """C-contiguous arrays of the right dtypes and ranks by tensor, in order. Raises InputError for what does not fit."""
        if not isinstance(feeds, Mapping):
            raise InputError(f"inputs by name are a mapping, not a {type(feeds).__name__}", hint=f"{{name: array}} for {self}")
        unknown = feeds.keys() - self.inputs.keys()
        if unknown:
            raise InputError(f"the model has no input {min(unknown, key=str)!r}: {self}")
        if self.takes:
            feeds = self._taken_apart(feeds)
        arrays: dict[str, Array] = {}
        for name, wanted in self.tensors.items():
            if name not in feeds:
                raise self._missing(name)
            arrays[name] = _array(self._labels[name], wanted, feeds[name])
        return arrays

    def _taken_apart(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """By tensor. Raises InputError for what is no list of the right length, or is there and should be absent."""
        found: dict[str, Any] = {}
        for name, given in feeds.items():
            part = self.takes.get(name, name)
            if part is None:
                _check_absent(name, given)
            elif isinstance(part, str):
                found[name] = given
            else:
                found.update(zip(part, self._elements(name, part, given), strict=True))
        for name, part in self.takes.items():
            if isinstance(part, tuple) and name not in feeds:
                raise self._missing(name)
        return found

    def _missing(self, name: str) -> InputError:
        return InputError(f"input {name!r} ({text(self.inputs[name])}) is missing", hint=f"the model takes {self}")

    def _elements(self, name: str, part: Sequence[str], given: Any) -> Sequence[Any]:
        wanted = f"the model takes {text(self.inputs[name])}"
        if given is None or not isinstance(given, (list, tuple)):
            shown = "None" if given is None else f"a {type(given).__name__}"
            raise InputError(f"input {name!r} is {shown}, and {wanted}", hint=f"a list of {len(part)} arrays")
        if len(given) != len(part):
            hint = f"the number is settled when the model is loaded: load_onnx(..., shapes={{{name!r}: {len(given)}}})"
            raise InputError(f"input {name!r} has {len(given)} elements, and {wanted}: {len(part)}", hint=hint)
        return given

    def sizes(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """The size of each symbol: plain symbols take the sizes of their axes; every axis must agree with its dim (else InputError)."""
        axes = [
            (name, axis, dim, size)
            for name, wanted in self.tensors.items()
            for axis, (dim, size) in enumerate(zip(wanted.shape, arrays[name].shape, strict=True))
        ]
        sizes: dict[str, int] = {}
        for name, axis, dim, size in axes:
            if _is_plain(dim) and sizes.setdefault(str(dim), size) != size:
                label = self._labels[name]
                raise InputError(f"input {label!r} has {dim}={size} (axis {axis}), but {dim}={sizes[str(dim)]} in another place")
        for name, axis, dim, size in axes:
            expected = substitute(dim, sizes)
            if not isinstance(expected, int):
                reason = f"input {self._labels[name]!r} has a dimension {dim} whose symbols no input gives"
                raise ShapeError(reason, hint="fix them with dims={...}")
            if size != expected:
                found = f"input {self._labels[name]!r} has shape {arrays[name].shape}, the model takes {self.tensors[name]}"
                raise InputError(f"{found}: axis {axis} is {size}, not {expected}")
        return sizes

    def __str__(self) -> str:
        return ", ".join(f"{name}: {text(wanted)}" for name, wanted in self.inputs.items())


def signature_of(graph: Graph) -> Signature:
    """The signature of a graph, as a caller sees it."""
    return Signature({value.name: value.type for value in graph.inputs}, graph.takes)


def outputs_of(graph: Graph) -> dict[str, Any]:
    """The outputs as a caller gets them: the type of a tensor, a list of types, or None."""
    return put_together(graph.gives, {name: value.type for name, value in graph.public_outputs.items()})


def _check_absent(name: str, given: Any) -> None:
    if given is not None:
        reason = f"input {name!r} is a {type(given).__name__}, and the model was loaded for its absence (None)"
        raise InputError(reason, hint=f"load_onnx(..., shapes={{{name!r}: ...}}) with a shape, or a number of elements")


def _is_plain(dim: object) -> bool:
    """A symbol by itself, such as N, and no expression such as 2*N."""
    return isinstance(dim, Dim) and dim.symbols == {str(dim)}


def _array(name: str, wanted: TensorType, given: Any) -> Array:
    if given is None:
        raise InputError(f"input {name!r} is None, the model takes {wanted}", hint="an array")
    try:
        array = np.asarray(given)
    except Exception as error:  # ragged lists, or whatever an object's __array__ raises
        raise InputError(f"input {name!r} is no array: {error}", hint=f"a numpy array of {wanted}") from error
    if array.dtype != wanted.dtype.numpy:
        raise InputError(f"input {name!r} has dtype {array.dtype}, the model takes {wanted}", hint=f"x.astype(np.{wanted.dtype.name})")
    if array.ndim != wanted.rank:
        raise InputError(f"input {name!r} has shape {array.shape}, the model takes {wanted}")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
