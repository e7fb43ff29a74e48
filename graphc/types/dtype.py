"""Element types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graphc.types.tensor import TensorType


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `name` as numpy spells it, `short` as the text form spells it, `kind` in b(ool) i(nt) u(int) f(loat)."""

    name: str
    short: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.name)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        """Signed or unsigned integer; bool is not one."""
        return self.kind in "iu"

    @property
    def bits(self) -> int:
        return self.itemsize * 8

    def __getitem__(self, dims: Any) -> TensorType:
        """The tensor type with this dtype: `f32["N", 3, 224, 224]`; `f32[()]` is a scalar. Strings are symbolic dims.

        Raises ShapeError for what is no size.
        """
        from graphc.types.shape import as_dim  # late: both are built on dtypes
        from graphc.types.tensor import TensorType

        return TensorType(self, tuple(map(as_dim, dims if isinstance(dims, tuple) else (dims,))))

    def __str__(self) -> str:
        return self.short

    def __repr__(self) -> str:
        return self.short


bool_ = DType("bool", "bool", "b", 1)
i8 = DType("int8", "i8", "i", 1)
i16 = DType("int16", "i16", "i", 2)
i32 = DType("int32", "i32", "i", 4)
i64 = DType("int64", "i64", "i", 8)
u8 = DType("uint8", "u8", "u", 1)
u16 = DType("uint16", "u16", "u", 2)
u32 = DType("uint32", "u32", "u", 4)
u64 = DType("uint64", "u64", "u", 8)
f16 = DType("float16", "f16", "f", 2)
f32 = DType("float32", "f32", "f", 4)
f64 = DType("float64", "f64", "f", 8)

ALL: tuple[DType, ...] = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64)
FLOATS: tuple[DType, ...] = (f16, f32, f64)
_BY_NAME = {d.name: d for d in ALL} | {d.short: d for d in ALL}


def dtype(name: Any) -> DType:
    """The DType for a DType, its long or short name, or a numpy dtype. Raises KeyError for a type that graphc has not."""
    if isinstance(name, DType):
        return name
    if isinstance(name, str) and name in _BY_NAME:
        return _BY_NAME[name]
    return _BY_NAME[np.dtype(name).name]
