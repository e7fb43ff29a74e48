"""TensorProto to numpy: dtypes, inline and external data, and limits checked before anything is allocated.

External data stays inside the model's folder: absolute paths, `..` and links that lead out are rejected before a file is opened. It is
memory-mapped, so models beyond 2 GB load without being read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx

from graphc.errors import GraphcError, ModelError, ResourceError, UnsupportedError
from graphc.limits import check_bytes
from graphc.passes.fold_constants import LIMIT as FOLD_LIMIT
from graphc.types import dtype as dt
from graphc.types.dtype import DType

Array = np.ndarray[Any, np.dtype[Any]]

_T = onnx.TensorProto
# element type -> (our dtype, field that holds it when it is not raw, dtype of that field's bits)
_TYPES: dict[int, tuple[DType, str, str]] = {
    _T.FLOAT: (dt.f32, "float_data", "float32"),
    _T.DOUBLE: (dt.f64, "double_data", "float64"),
    _T.FLOAT16: (dt.f16, "int32_data", "uint16"),
    _T.INT8: (dt.i8, "int32_data", "int8"),
    _T.INT16: (dt.i16, "int32_data", "int16"),
    _T.INT32: (dt.i32, "int32_data", "int32"),
    _T.INT64: (dt.i64, "int64_data", "int64"),
    _T.UINT8: (dt.u8, "int32_data", "uint8"),
    _T.UINT16: (dt.u16, "int32_data", "uint16"),
    _T.UINT32: (dt.u32, "uint64_data", "uint32"),
    _T.UINT64: (dt.u64, "uint64_data", "uint64"),
    _T.BOOL: (dt.bool_, "int32_data", "uint8"),
}
ELEM_TYPES: dict[str, int] = {found.name: elem for elem, (found, _, _) in _TYPES.items()}


@dataclass(frozen=True)
class Storage:
    """Where external data may lie: the model's folder, or None for a model that was not loaded from a file. `used`: what was read there."""

    folder: Path | None = None
    used: set[str] = field(default_factory=set, compare=False)


def dtype_of(elem_type: int, what: str) -> DType:
    """The dtype of an ONNX element type; an UnsupportedError names `what`."""
    found = _TYPES.get(elem_type)
    if found is None:
        known = elem_type in _T.DataType.values()
        name = _T.DataType.Name(elem_type).lower() if known else str(elem_type)
        if not known or elem_type == _T.UNDEFINED:
            raise ModelError(f"{what} has no valid element type ({name})", hint="export the model again")
        raise UnsupportedError(f"{what} has element type {name}", hint="convert it to float32 (or float16), an integer or a bool")
    return found[0]


def check_size(shape: tuple[Any, ...], dtype: DType, what: str) -> int:
    """Bytes of a static shape; a ResourceError where they exceed GRAPHC_MAX_BYTES."""
    return check_bytes([int(dim) for dim in shape], dtype.itemsize, what)


def check_computed(shape: tuple[Any, ...], dtype: DType, what: str) -> None:
    """A ResourceError for a constant that importing would compute, above the limit of constant folding."""
    size = check_size(shape, dtype, what)
    if size > FOLD_LIMIT.get():
        raise ResourceError(f"{what} is a constant of {size} bytes", hint=f"set {FOLD_LIMIT.name} higher if that is meant")


def to_array(tensor: onnx.TensorProto, storage: Storage, what: str = "") -> Array:
    """The tensor's data, read-only and without a copy where possible. Raises ModelError, UnsupportedError or ResourceError."""
    what = what or f"tensor {tensor.name!r}"
    found = dtype_of(tensor.data_type, what)
    shape = tuple(tensor.dims)
    if any(dim < 0 for dim in shape):
        raise ModelError(f"{what} has the negative size {list(shape)}", hint="export the model again")
    size = check_size(shape, found, what)
    if tensor.data_location == _T.EXTERNAL:
        flat = _external(tensor, storage, found, size, what)
    elif tensor.HasField("raw_data"):
        flat = _raw(tensor.raw_data, found, size, what)
    else:
        flat = _typed(tensor, found, what)
    if flat.size != prod(shape):
        raise ModelError(f"{what} of shape {list(shape)} holds {flat.size} elements", hint="the file is damaged: export it again")
    return flat.reshape(shape)


def dense(sparse: onnx.SparseTensorProto, storage: Storage) -> Array:
    """A sparse tensor (COO, linear or per-axis indices) as a dense array."""
    what = f"sparse tensor {sparse.values.name!r}"
    shape = tuple(sparse.dims)
    values = to_array(sparse.values, storage, what)
    if any(dim < 0 for dim in shape):
        raise ModelError(f"{what} has the negative size {list(shape)}")
    check_size(shape, dt.dtype(values.dtype), what)
    indices = to_array(sparse.indices, storage, f"indices of {what}")
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        columns = tuple(indices.T)
        if any(((column < 0) | (column >= dim)).any() for column, dim in zip(columns, shape, strict=True)):
            raise ModelError(f"{what} has an index outside {list(shape)}")
        linear = np.ravel_multi_index(columns, shape) if len(values) else np.zeros(0, np.int64)
    else:
        linear = indices.reshape(-1)
    result = np.zeros(prod(shape), values.dtype)
    if linear.size != values.size or (linear.size and (linear.min() < 0 or linear.max() >= result.size)):
        raise ModelError(f"{what} has indices that do not fit its values or shape {list(shape)}")
    result[linear] = values.reshape(-1)
    return result.reshape(shape)


def _raw(data: bytes, found: DType, size: int, what: str) -> Array:
    if len(data) != size:
        raise ModelError(f"{what} needs {size} bytes of data and has {len(data)}", hint="the file is damaged: export it again")
    return _normal(np.frombuffer(data, found.numpy.newbyteorder("<")), found)


def _typed(tensor: onnx.TensorProto, found: DType, what: str) -> Array:
    _, field, bits = _TYPES[tensor.data_type]
    stored = np.asarray(getattr(tensor, field), {"int32_data": "int32", "uint64_data": "uint64"}.get(field, found.name))
    if tensor.data_type == _T.FLOAT16:
        return stored.astype(bits).view(np.float16)
    if tensor.data_type == _T.BOOL:
        return np.asarray(stored != 0)
    result = stored.astype(bits)
    if not np.array_equal(result, stored, equal_nan=found.is_float):
        raise ModelError(f"{what} has values outside {found}", hint="the file is damaged: export it again")
    return result


def _normal(array: Array, found: DType) -> Array:
    """Native byte order; bools are 0 or 1 whatever the file says."""
    if found.kind == "b":
        return np.asarray(array.view(np.uint8) != 0)
    return array.astype(found.numpy, copy=False)


def _external(tensor: onnx.TensorProto, storage: Storage, found: DType, size: int, what: str) -> Array:
    info = {entry.key: entry.value for entry in tensor.external_data}
    path = _external_path(info.get("location", ""), storage, what)
    try:
        offset, length = int(info.get("offset") or 0), int(info.get("length") or size)
    except ValueError as error:
        raise ModelError(f"{what} has a broken offset or length of external data") from error
    if length != size:
        raise ModelError(f"{what} needs {size} bytes of data and points at {length}", hint="export the model again")
    try:
        available = path.stat().st_size
        if offset < 0 or offset + size > available:
            raise ModelError(f"{what} lies outside {path.name!r} ({available} bytes)", hint="the data file is truncated: copy it again")
        if size == 0:
            return np.zeros(0, found.numpy)
        mapped = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(size,))
    except GraphcError:
        raise
    except OSError as error:
        reason = f"external data {path.name!r} of {what} cannot be read: {error.strerror}"
        raise ModelError(reason, hint="keep it beside the model") from error
    flat = _normal(np.asarray(mapped).view(found.numpy.newbyteorder("<")), found)
    return flat if flat.flags.aligned else flat.copy()


def _external_path(location: str, storage: Storage, what: str) -> Path:
    if storage.folder is None:
        raise ModelError(f"{what} lies in the external file {location!r}", hint="load the model by its path")
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or "\0" in location or absolute or ".." in parts:
        raise ModelError(f"{what} points at {location!r}, which is not a path inside the model's folder", hint="do not trust this file")
    path = storage.folder / location
    if not path.exists():
        raise ModelError(f"external data {location!r} of {what} is missing", hint=f"put it into {storage.folder}")
    if not path.is_file() or not path.resolve().is_relative_to(storage.folder.resolve()):
        raise ModelError(f"{what} points at {location!r}, which is not a file inside the model's folder", hint="do not trust this file")
    storage.used.add(location)
    return path
