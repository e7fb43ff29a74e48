"""Types of graph inputs: dtypes, and shapes with symbolic dims bound by `dims`; how many elements a sequence has, by `shapes`.

`shapes`, by input: of a tensor its shape (n for (n,)); of a sequence the number of its elements, or a list of their shapes; None for an
optional that is absent. A dim of a shape is a size, a name, or None for what the file says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import onnx

from graphc.errors import DynamicShapeError, InputError, UnsupportedError
from graphc.ir.graph import Value
from graphc.types.dtype import DType, dtype
from graphc.types.shape import DimLike, check_sizes, is_size, symbol
from graphc.types.tensor import TensorType
from graphc_onnx.registry import Absent, Item, TensorList
from graphc_onnx.tensors import Array, check_size, dtype_of

Typed = Union[TensorType, list[TensorType], None]  # what an input consists of
Given = Union[Sequence[Any], None]  # the shape of a tensor as the user gives it, if at all


@dataclass(frozen=True)
class Declared:
    """What the file says of an input: the type of a tensor, or of the elements of a `sequence`; whether it is `optional`."""

    tensor: onnx.TypeProto.Tensor
    sequence: bool
    optional: bool

    @classmethod
    def of(cls, info: onnx.ValueInfoProto) -> Declared:
        type, optional, sequence = info.type, info.type.HasField("optional_type"), False
        type = type.optional_type.elem_type if optional else type
        sequence = type.HasField("sequence_type")
        type = type.sequence_type.elem_type if sequence else type
        kind = type.WhichOneof("value")
        if kind != "tensor_type":
            shown = (kind or "value without a type").replace("_type", "")
            whole = f"a sequence of: {shown}" if sequence else f"a {shown}"
            raise UnsupportedError(f"input {info.name!r} is {whole}", hint="tensors, sequences of tensors and optional ones are supported")
        return cls(type.tensor_type, sequence, optional)

    @property
    def is_open(self) -> bool:
        """Whether the file leaves more open than sizes."""
        return self.sequence or self.optional or not self.tensor.HasField("shape")

    def dtype(self, what: str) -> DType:
        return dtype_of(self.tensor.elem_type, what)


class InputTypes:
    """Symbols: a `dim_param` becomes a symbol of a legal name (letters, digits, _), an unknown dim `unk_0`, `unk_1`, ... Elements of
    a sequence may differ, so each has symbols of its own: N of the element seq[1] becomes seq_1__N; N in `dims` binds all of them."""

    def __init__(
        self, infos: Sequence[onnx.ValueInfoProto], dims: Mapping[str, int], shapes: Mapping[str, Any], known: Collection[str] = ()
    ) -> None:  # fmt: skip
        """`known`: inputs whose values are given. Raises DynamicShapeError naming all others of which the structure is not known."""
        self.dims = check_sizes(dims)
        self.shapes = shapes
        self.declared = {info.name: Declared.of(info) for info in infos}
        self.used: set[str] = set()
        self._symbols: dict[str, str] = {}  # dim_param -> legal name
        self._legal: set[str] = set()
        self._unknown = 0
        self._params = {dim.dim_param for found in self.declared.values() for dim in found.tensor.shape.dim if dim.dim_param}
        self._check_shapes(known)
        self._check_structure(known)

    def of(self, name: str) -> Typed:
        """The type of an input, of each element of a sequence, or None for an optional that is absent."""
        found, given = self.declared[name], self.shapes.get(name)
        if found.optional and given is None:
            return None
        made = [self._type(found, label, shape) for label, shape in _labelled(name, found, given)]
        return made if found.sequence else made[0]

    def item(self, name: str, given: Typed | Array | list[Array], made: Sequence[Value]) -> Item:
        """The input `given`, of whose tensors these are made."""
        if isinstance(given, list):
            return TensorList(tuple(made), self.declared[name].dtype(f"input {name!r}"))
        return made[0] if made else Absent()

    def check_value(self, name: str, value: object) -> Array | list[Array] | None:
        """The array, or the arrays of a sequence, for an input that becomes a constant; None for an optional that is absent. An InputError
        where something does not fit the declaration."""
        found = self.declared[name]
        if value is None and found.optional:
            return None
        if not found.sequence:
            return _check_array(found, name, value)
        if not isinstance(value, (list, tuple)):
            raise InputError(f"values: {name!r} is a sequence, got a {type(value).__name__}", hint="a list of arrays")
        return [_check_array(found, f"{name}[{i}]", item) for i, item in enumerate(value)]

    def check_dims_used(self) -> None:
        """An InputError for a name in `dims` that no input has."""
        for name in self.dims:
            if name not in self.used and name not in self._params:
                known = ", ".join(map(repr, sorted(set(self._symbols.values()) | self.used))) or "none"
                raise InputError(f"dims: there is no symbolic dimension {name!r}", hint=f"the symbolic dimensions are: {known}")

    # what the user says -----------------------------------------------------------------------------------------------------

    def _check_shapes(self, known: Collection[str]) -> None:
        if not isinstance(self.shapes, Mapping):
            raise InputError(f"shapes is a {type(self.shapes).__name__}", hint='a mapping by input: shapes={"seq": 3, "x": (2, 3)}')
        for name, given in self.shapes.items():
            found = self.declared.get(name)
            if found is None:
                known_names = ", ".join(map(repr, self.declared)) or "none"
                raise InputError(f"shapes: there is no input {name!r}", hint=f"the inputs are {known_names}")
            if name in known:
                raise InputError(f"shapes: the value of {name!r} is given too", hint="one of the two")
            if given is None and not found.optional:
                raise InputError(f"shapes: {name!r} is None, and it is not optional", hint=f"shapes={{{name!r}: {_example(found)}}}")
            fits = is_size(given) or (_is_list(given) and all(map(_is_shape, given)) if found.sequence else _is_shape(given))
            if given is not None and not fits:
                what = "a sequence: the number of its elements, or a list of their shapes" if found.sequence else "a tensor: its shape"
                raise InputError(f"shapes: {name!r} is {what}; got {given!r}", hint=f"shapes={{{name!r}: {_example(found)}}}")
            if found.tensor.HasField("shape") and given is not None:
                for label, shape in _labelled(name, found, given):
                    _check_agrees(label, found.tensor.shape.dim, shape)

    def _check_structure(self, known: Collection[str]) -> None:
        missing = {name: self._missing(name, found) for name, found in self.declared.items() if name not in known}
        names = tuple(name for name, what in missing.items() if what)
        if names:
            example = ", ".join(f"{name!r}: {_example(self.declared[name])}" for name in names)
            hint = f"load_onnx(..., shapes={{{example}}}), compile(..., shapes=...), --shape on the command line; or values={{name: value}}"
            raise DynamicShapeError("; ".join(missing[name] for name in names), inputs=names, hint=hint, wants="shapes")

    def _missing(self, name: str, found: Declared) -> str:
        """What neither the file nor the user says of an input."""
        given = self.shapes.get(name)
        if found.optional and name not in self.shapes:
            return f"whether the optional input {name!r} is there is not known"
        if found.optional and given is None:
            return ""
        if found.sequence and given is None:
            return f"the number of elements of the input {name!r}, a sequence, is not known"
        unknown = not found.tensor.HasField("shape") and any(shape is None for _, shape in _labelled(name, found, given))
        return f"input {name!r} has {'elements without a shape' if found.sequence else 'no shape'}" if unknown else ""

    # shapes -----------------------------------------------------------------------------------------------------------------

    def _type(self, found: Declared, label: str, given: Given) -> TensorType:
        what = f"input {label!r}"
        element, dims = found.dtype(what), list(found.tensor.shape.dim)
        prefix = f"{label}." if found.sequence else ""
        if given is None:
            shape = tuple(self._dim(dim, prefix) for dim in dims)
        else:
            declared = dims or [onnx.TensorShapeProto.Dimension()] * len(given)
            shape = tuple(self._given(size, dim, prefix) for size, dim in zip(given, declared, strict=True))
        if all(isinstance(dim, int) for dim in shape):
            check_size(shape, element, what)
        return TensorType(element, shape)

    def _given(self, size: Any, dim: onnx.TensorShapeProto.Dimension, prefix: str) -> DimLike:
        if size is None:
            return self._dim(dim, prefix)
        return self._named(size, size) if isinstance(size, str) else int(size.__index__())

    def _dim(self, dim: onnx.TensorShapeProto.Dimension, prefix: str) -> DimLike:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        if dim.dim_param:
            return self._named(prefix + dim.dim_param, dim.dim_param)
        name = f"unk_{self._unknown}"  # exporters also write -1 for an unknown dim
        self._unknown += 1
        return self._bound(name, name)

    def _named(self, param: str, declared: str) -> DimLike:
        if param not in self._symbols:
            legal = re.sub(r"\W", "_", param, flags=re.ASCII)
            legal = legal if re.match(r"[A-Za-z_]", legal) else f"_{legal}"
            while legal in self._legal:
                legal += "_"
            self._symbols[param] = legal
            self._legal.add(legal)
        return self._bound(self._symbols[param], declared)

    def _bound(self, name: str, param: str) -> DimLike:
        for key in (name, param):
            if key in self.dims:
                self.used.add(key)
                return int(self.dims[key])
        self.used.add(name)
        return symbol(name)


def type_of(array: Array) -> TensorType:
    return TensorType(dtype(array.dtype), tuple(array.shape))


def _check_array(found: Declared, label: str, value: object) -> Array:
    array = np.asarray(value)
    wanted = found.dtype(f"input {label!r}")
    if array.dtype != wanted.numpy:
        raise InputError(f"values: {label!r} must be {wanted}, got {array.dtype}", hint=f"convert it with .astype({wanted.name!r})")
    if found.tensor.HasField("shape"):
        declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor.shape.dim]
        if len(declared) != array.ndim or any(d is not None and 0 <= d != n for d, n in zip(declared, array.shape, strict=False)):
            raise InputError(f"values: {label!r} has shape {list(array.shape)}", hint=f"the model declares {declared}")
    return array


def _check_agrees(label: str, dims: Sequence[onnx.TensorShapeProto.Dimension], given: Given) -> None:
    """An InputError where a shape is not one that the file allows."""
    if given is None:
        return
    declared = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in dims]
    pairs = zip(declared, given, strict=False)
    if len(declared) != len(given) or any(wanted is not None and size is not None and size != wanted for wanted, size in pairs):
        raise InputError(f"shapes: {label!r} is given as {tuple(given)}", hint=f"the model declares {declared}")


def _labelled(name: str, found: Declared, given: Any) -> list[tuple[str, Given]]:
    """Names, for messages and symbols, and shapes of the tensors of an input, as far as they are given."""
    if not found.sequence:
        return [(name, (given,) if is_size(given) else given)]
    shapes = [None] * given.__index__() if is_size(given) else given
    return [(f"{name}[{at}]", shape) for at, shape in enumerate(shapes)]


def _is_list(given: object) -> bool:
    return isinstance(given, (list, tuple))


def _is_shape(given: Any) -> bool:
    return _is_list(given) and all(size is None or is_size(size) or (isinstance(size, str) and size != "") for size in given)


def _example(found: Declared) -> str:
    """How the shape of such an input may be given."""
    ranked = found.tensor.HasField("shape")
    if found.sequence:
        example = "3" if ranked else "[(2, 3), (4,)]"
    else:
        example = str((2,) * len(found.tensor.shape.dim) if ranked else (2, 3))
    return f"None or {example}" if found.optional else example
