"""The type of a value in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphc.errors import ShapeError
from graphc.types.dtype import DType
from graphc.types.shape import DimLike, Shape, product, static, substitute


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape; dims may be symbolic."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> DimLike:
        """Number of elements."""
        return product(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        return static(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size.__index__() * self.dtype.itemsize

    def bind(self, sizes: Mapping[str, DimLike]) -> TensorType:
        """With symbols replaced. Raises ShapeError where a size becomes negative."""
        if not sizes:
            return self
        made = replace(self, shape=tuple(substitute(dim, sizes) for dim in self.shape))
        if any(isinstance(dim, int) and dim < 0 for dim in made.shape):
            given = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ShapeError(f"{self} becomes {made} where {given}: a negative size", hint="larger inputs")
        return made

    def with_shape(self, shape: Shape) -> TensorType:
        return replace(self, shape=tuple(shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(dim) for dim in self.shape)}]"
