"""Types of graph inputs: dtypes, and shapes with symbolic dims bound by `dims`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from graphc.errors import DynamicShapeError, InputError, UnsupportedError
from graphc.types.dtype import dtype
from graphc.types.shape import DimLike, check_sizes, symbol
from graphc.types.tensor import TensorType
from graphc_onnx.tensors import Array, check_size, dtype_of


class InputTypes:
    """Symbols: a `dim_param` becomes a symbol of a legal name (letters, digits, _), an unknown dim `unk_0`, `unk_1`, ..."""

    def __init__(self, infos: Sequence[onnx.ValueInfoProto], dims: Mapping[str, int]) -> None:
        self.dims = check_sizes(dims)
        self.used: set[str] = set()
        self._symbols: dict[str, str] = {}  # dim_param -> legal name
        self._unknown = 0
        self._params = {dim.dim_param for info in infos for dim in info.type.tensor_type.shape.dim if dim.dim_param}

    def of(self, info: onnx.ValueInfoProto) -> TensorType:
        """The type of an input. A DynamicShapeError where the file does not even give its rank."""
        kind = info.type.WhichOneof("value")
        what = f"input {info.name!r}"
        if kind != "tensor_type":
            shown = (kind or "value without a type").replace("_type", "")
            raise UnsupportedError(f"{what} is a {shown}", hint="only tensors are supported")
        tensor = info.type.tensor_type
        found = dtype_of(tensor.elem_type, what)
        if not tensor.HasField("shape"):
            raise DynamicShapeError(
                f"{what} has no shape", inputs=(info.name,), hint=f"give it a shape, or load_onnx(..., values={{{info.name!r}: array}})"
            )
        shape = tuple(self._dim(dim) for dim in tensor.shape.dim)
        if all(isinstance(dim, int) for dim in shape):
            check_size(shape, found, what)
        return TensorType(found, shape)

    def check_value(self, info: onnx.ValueInfoProto, value: object) -> Array:
        """The array for an input that becomes a constant; an InputError where dtype or shape do not fit the declaration."""
        array = np.asarray(value)
        tensor = info.type.tensor_type
        found = dtype_of(tensor.elem_type, f"input {info.name!r}")
        if array.dtype != found.numpy:
            raise InputError(f"values: {info.name!r} must be {found}, got {array.dtype}", hint=f"convert it with .astype({found.name!r})")
        if tensor.HasField("shape"):
            declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
            if len(declared) != array.ndim or any(d is not None and 0 <= d != n for d, n in zip(declared, array.shape, strict=False)):
                raise InputError(f"values: {info.name!r} has shape {list(array.shape)}", hint=f"the model declares {declared}")
        return array

    def of_array(self, array: Array) -> TensorType:
        return TensorType(dtype(array.dtype), tuple(array.shape))

    def check_dims_used(self) -> None:
        """An InputError for a name in `dims` that no input has."""
        for name in self.dims:
            if name not in self.used and name not in self._params:
                known = ", ".join(map(repr, sorted(set(self._symbols.values()) | self.used))) or "none"
                raise InputError(f"dims: there is no symbolic dimension {name!r}", hint=f"the symbolic dimensions are: {known}")

    def _dim(self, dim: onnx.TensorShapeProto.Dimension) -> DimLike:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        if dim.dim_param:
            return self._named(dim.dim_param)
        name = f"unk_{self._unknown}"  # exporters also write -1 for an unknown dim
        self._unknown += 1
        return self._bound(name, name)

    def _named(self, param: str) -> DimLike:
        if param not in self._symbols:
            legal = re.sub(r"\W", "_", param, flags=re.ASCII)
            legal = legal if re.match(r"[A-Za-z_]", legal) else f"_{legal}"
            while legal in self._symbols.values():
                legal += "_"
            self._symbols[param] = legal
        return self._bound(self._symbols[param], param)

    def _bound(self, name: str, param: str) -> DimLike:
        for key in (param, name):
            if key in self.dims:
                self.used.add(key)
                return int(self.dims[key])
        self.used.add(name)
        return symbol(name)
