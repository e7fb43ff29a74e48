"""What a compiled model takes: names, types and the sizes of symbolic dims, checked for every back end in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import InputError, ShapeError
from graphc.ir.graph import Array
from graphc.types.shape import Dim, substitute
from graphc.types.tensor import TensorType


class Signature:
    """The inputs of a model in order: name -> type (dims may be symbolic)."""

    def __init__(self, inputs: Mapping[str, TensorType]) -> None:
        self.inputs = dict(inputs)

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
        """C-contiguous arrays in input order, and the size of each symbol. Raises InputError for what does not fit."""
        arrays = self.arrays(feeds)
        return arrays, self.sizes(arrays)

    def arrays(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """C-contiguous arrays of the right dtypes and ranks in input order. Raises InputError for what does not fit."""
        if not isinstance(feeds, Mapping):
            raise InputError(f"inputs by name are a mapping, not a {type(feeds).__name__}", hint=f"{{name: array}} for {self}")
        unknown = feeds.keys() - self.inputs.keys()
        if unknown:
            raise InputError(f"the model has no input {min(unknown, key=str)!r}: {self}")
        arrays: dict[str, Array] = {}
        for name, wanted in self.inputs.items():
            if name not in feeds:
                raise InputError(f"input {name!r} ({wanted}) is missing", hint=f"the model takes {self}")
            arrays[name] = _array(name, wanted, feeds[name])
        return arrays

    def sizes(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """The size of each symbol: plain symbols take the sizes of their axes; every axis must agree with its dim (else InputError)."""
        axes = [
            (name, axis, dim, size)
            for name, wanted in self.inputs.items()
            for axis, (dim, size) in enumerate(zip(wanted.shape, arrays[name].shape, strict=True))
        ]
        sizes: dict[str, int] = {}
        for name, axis, dim, size in axes:
            if _is_plain(dim) and sizes.setdefault(str(dim), size) != size:
                raise InputError(f"input {name!r} has {dim}={size} (axis {axis}), but {dim}={sizes[str(dim)]} in another place")
        for name, axis, dim, size in axes:
            expected = substitute(dim, sizes)
            if not isinstance(expected, int):
                raise ShapeError(f"input {name!r} has a dimension {dim} whose symbols no input gives", hint="fix them with dims={...}")
            if size != expected:
                shape, wanted = arrays[name].shape, self.inputs[name]
                raise InputError(f"input {name!r} has shape {shape}, the model takes {wanted}: axis {axis} is {size}, not {expected}")
        return sizes

    def __str__(self) -> str:
        return ", ".join(f"{name}: {wanted}" for name, wanted in self.inputs.items())


def _is_plain(dim: object) -> bool:
    """A symbol by itself, such as N, and no expression such as 2*N."""
    return isinstance(dim, Dim) and dim.symbols == {str(dim)}


def _array(name: str, wanted: TensorType, given: Any) -> Array:
    try:
        array = np.asarray(given)
    except Exception as error:  # ragged lists, or whatever an object's __array__ raises
        raise InputError(f"input {name!r} is no array: {error}", hint=f"a numpy array of {wanted}") from error
    if array.dtype != wanted.dtype.numpy:
        raise InputError(f"input {name!r} has dtype {array.dtype}, the model takes {wanted}", hint=f"x.astype(np.{wanted.dtype.name})")
    if array.ndim != wanted.rank:
        raise InputError(f"input {name!r} has shape {array.shape}, the model takes {wanted}")
    return np.ascontiguousarray(array).reshape(array.shape)
