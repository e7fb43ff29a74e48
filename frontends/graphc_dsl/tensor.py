"""Tensor: what a model function works with while it is traced. It has a shape and a dtype, and no values yet.

Operators follow numpy: they broadcast, and a Python number takes the dtype of the tensor. Two tensors must have one dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from graphc.errors import ShapeError, TypeMismatchError, UnsupportedError
from graphc.ir.graph import Value
from graphc.types.dtype import DType
from graphc.types.shape import DimLike, Shape
from graphc.types.tensor import TensorType
from graphc_dsl import matrix, movement, pointwise, reduction
from graphc_dsl.arguments import DTypeLike
from graphc_dsl.index import getitem
from graphc_dsl.trace import TensorLike, Trace, user_line


class Tensor:
    """A value of the graph under construction. `shape` holds ints and symbolic dims; `name` is the layer that computes it."""

    __array_ufunc__ = None  # numpy arrays leave `array + tensor` to this class
    __slots__ = ("trace", "value")

    def __init__(self, trace: Trace, value: Value) -> None:
        self.trace = trace
        self.value = value

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> Shape:
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        return self.value.type.rank

    @property
    def name(self) -> str:
        return self.value.name

    def __repr__(self) -> str:
        return f"<Tensor {self.name}: {self.type}>"

    # arithmetic -------------------------------------------------------------------------------------------------------------

    def __add__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return pointwise.apply("add", other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return pointwise.apply("sub", other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return pointwise.apply("mul", other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return pointwise.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return pointwise.divide(other, self)

    def __floordiv__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("floor_div", self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return pointwise.apply("floor_div", other, self)

    def __mod__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("mod", self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return pointwise.apply("mod", other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return pointwise.apply("pow", self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return pointwise.apply("pow", other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return matrix.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return matrix.matmul(other, self)

    def __neg__(self) -> Tensor:
        return pointwise.apply("neg", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return pointwise.apply("abs", self)

    # comparison and logic: elementwise, as in numpy --------------------------------------------------------------------------

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return pointwise.apply("equal", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return pointwise.apply("not_equal", self, other)

    def __lt__(self, other: Any) -> Tensor:
        return pointwise.apply("less", self, other)

    def __le__(self, other: Any) -> Tensor:
        return pointwise.apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Tensor:
        return pointwise.apply("greater", self, other)

    def __ge__(self, other: Any) -> Tensor:
        return pointwise.apply("greater_equal", self, other)

    __hash__ = object.__hash__

    def __and__(self, other: TensorLike) -> Tensor:
        return pointwise.logical("and", self, other)

    def __rand__(self, other: Any) -> Tensor:
        return pointwise.logical("and", other, self)

    def __or__(self, other: TensorLike) -> Tensor:
        return pointwise.logical("or", self, other)

    def __ror__(self, other: Any) -> Tensor:
        return pointwise.logical("or", other, self)

    def __xor__(self, other: TensorLike) -> Tensor:
        return pointwise.logical("xor", self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return pointwise.logical("xor", other, self)

    def __invert__(self) -> Tensor:
        return pointwise.logical("not", self)

    # indexing ---------------------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        """numpy's basic indexing: ints, slices, None and ...; and one integer Tensor or list, which gathers along its axis."""
        return getitem(self, index)

    def __len__(self) -> int:
        return self._first_dim("len()")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(self._first_dim("a loop over a tensor")))

    def _first_dim(self, what: str) -> int:
        if not self.shape or not isinstance(self.shape[0], int):
            dim = f"its first dim {self.shape[0]} is symbolic" if self.shape else "it is a scalar"
            raise ShapeError(f"{what} of {self!r}: {dim}", where=str(user_line()), hint="x.shape[0] is the dim itself")
        return self.shape[0]

    # methods: the functions of the same name ---------------------------------------------------------------------------------

    def reshape(self, *shape: DimLike | Sequence[DimLike], name: str = "") -> Tensor:
        """See `graphc.reshape`; takes a tuple or single dims."""
        return movement.reshape(self, movement.listed(shape), name=name)

    def flatten(self, axis: int = 1, name: str = "") -> Tensor:
        """See `graphc.flatten`."""
        return movement.flatten(self, axis, name=name)

    def transpose(self, *perm: int | Sequence[int], name: str = "") -> Tensor:
        """See `graphc.transpose`; without arguments the axes are reversed."""
        return movement.transpose(self, movement.listed(perm) or None, name=name)

    @property
    def T(self) -> Tensor:  # noqa: N802  numpy's name
        """The axes reversed."""
        return movement.transpose(self)

    def squeeze(self, axes: int | Sequence[int] | None = None, name: str = "") -> Tensor:
        """See `graphc.squeeze`."""
        return movement.squeeze(self, axes, name=name)

    def unsqueeze(self, axes: int | Sequence[int], name: str = "") -> Tensor:
        """See `graphc.unsqueeze`."""
        return movement.unsqueeze(self, axes, name=name)

    def expand(self, *shape: DimLike | Sequence[DimLike], name: str = "") -> Tensor:
        """See `graphc.expand`."""
        return movement.expand(self, movement.listed(shape), name=name)

    def cast(self, dtype: DTypeLike, name: str = "") -> Tensor:
        """See `graphc.cast`."""
        return pointwise.cast(self, dtype, name=name)

    def sum(self, axes: int | Sequence[int] | None = None, keepdims: bool = False, name: str = "") -> Tensor:
        """See `graphc.sum`."""
        return reduction.sum(self, axes, keepdims, name=name)

    def mean(self, axes: int | Sequence[int] | None = None, keepdims: bool = False, name: str = "") -> Tensor:
        """See `graphc.mean`."""
        return reduction.mean(self, axes, keepdims, name=name)

    def max(self, axes: int | Sequence[int] | None = None, keepdims: bool = False, name: str = "") -> Tensor:
        """See `graphc.max`."""
        return reduction.max(self, axes, keepdims, name=name)

    def min(self, axes: int | Sequence[int] | None = None, keepdims: bool = False, name: str = "") -> Tensor:
        """See `graphc.min`."""
        return reduction.min(self, axes, keepdims, name=name)

    def argmax(self, axis: int, keepdims: bool = False, name: str = "") -> Tensor:
        """See `graphc.argmax`."""
        return reduction.argmax(self, axis, keepdims, name=name)

    # what a tensor without values cannot do ----------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        raise UnsupportedError(
            f"whether {self!r} is true is not known while the model is traced (if, while, and, or, not, in)", where=str(user_line()),
            hint="graphc.where(condition, a, b), and & | ~ for logic; shapes are known: x.shape",
        )  # fmt: skip

    def _no_value(self, *args: object) -> NoReturn:
        raise UnsupportedError(
            f"{self!r} has no value while the model is traced", where=str(user_line()), hint="x.shape and x.dtype are known already"
        )

    __float__ = __int__ = __index__ = __complex__ = __array__ = _no_value

    def __setitem__(self, index: object, value: object) -> None:
        raise UnsupportedError(f"{self!r} cannot be changed in place", where=str(user_line()), hint="graphc.where makes a new tensor")

    def __contains__(self, item: object) -> bool:
        raise TypeMismatchError(f"`in` of {self!r} is not known while tracing", where=str(user_line()), hint="(x == item) is elementwise")
