"""Reading tensors inside index lambdas: an op lowers to a function from indices to the `Expr` of one element.

An `Access` is a tensor as such a function: either memory (an operand slot: a load) or a producer that is inlined (fusion is
substitution). Loads must stay in bounds for every value of the loop variables, because `select` evaluates both sides: use `padded`
where an index may lie outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Union

from graphc.kernel.expr import Expr, ExprLike, const, load, maximum, minimum, select
from graphc.kernel.index import bounds, simplify
from graphc.kernel.spec import Operand
from graphc.types.dtype import DType, bool_, i64

IndexLike = Union[Expr, int]


class Access:
    """A tensor of `shape` and `dtype`; `x[i, j]` or `x(i, j)` is its element as an expression. Indices are i64 or ints."""

    __slots__ = ("_element", "dtype", "shape")

    def __init__(self, shape: Sequence[int], dtype: DType, element: Callable[[tuple[Expr, ...]], Expr]) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self._element = element

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: IndexLike | tuple[IndexLike, ...]) -> Expr:
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) != self.rank:
            raise IndexError(f"{len(indices)} indices for a tensor of rank {self.rank}")
        return self._element(tuple(_expr(i) for i in indices))

    def __call__(self, *index: IndexLike) -> Expr:
        return self[tuple(index)]


def from_operand(slot: int, operand: Operand) -> Access:
    """The tensor in an operand's memory, by logical index, whatever its layout."""
    return Access(operand.shape, operand.dtype, lambda index: load(slot, simplify(operand.offset(index)), operand.dtype))


def from_function(shape: Sequence[int], dtype: DType, element: Callable[..., Expr]) -> Access:
    """A producer that is inlined: `element(i, j, ...)` is its value."""
    return Access(shape, dtype, lambda index: element(*index))


def padded(x: Access, index: Sequence[IndexLike], default: ExprLike) -> Expr:
    """x[index], or `default` where an index lies outside. The load itself is clamped, so it is always in bounds."""
    fill = default if isinstance(default, Expr) else const(default, x.dtype)
    inside: Expr = const(True, bool_)
    clamped: list[Expr] = []
    for i, extent in zip(index, x.shape, strict=True):
        position = simplify(_expr(i))
        low, high = bounds(position)
        if extent == 0 or high < 0 or low >= extent:
            return fill
        safe = position
        if low < 0:
            inside, safe = inside & (position >= 0), maximum(safe, 0)
        if high >= extent:
            inside, safe = inside & (position < extent), minimum(safe, extent - 1)
        clamped.append(safe)
    return select(inside, x[tuple(clamped)], fill)


def broadcast(x: Access, index: Sequence[IndexLike], out_shape: Sequence[int]) -> Expr:
    """The element of x that numpy broadcasting aligns with `index` of a result of `out_shape` (trailing dims align, 1 stretches)."""
    missing = len(out_shape) - x.rank
    if missing < 0 or any(size not in (1, out) for size, out in zip(x.shape, out_shape[missing:], strict=True)):
        raise IndexError(f"shape {x.shape} does not broadcast to {tuple(out_shape)}")
    return x[tuple(0 if size == 1 else i for i, size in zip(index[missing:], x.shape, strict=True))]


def flat_index(index: Sequence[IndexLike], shape: Sequence[int]) -> Expr:
    """Row-major position of an index within a shape."""
    total: Expr = const(0, i64)
    for i, size in zip(index, shape, strict=True):
        total = total * size + _expr(i)
    return simplify(total)


def unflatten(flat: IndexLike, shape: Sequence[int]) -> tuple[Expr, ...]:
    """The inverse of `flat_index` for 0 <= flat < product(shape)."""
    rest = _expr(flat)
    reverse: list[Expr] = []
    for axis, size in reversed(tuple(enumerate(shape))):
        reverse.append(rest if axis == 0 else simplify(rest % size) if size else const(0, i64))
        rest = simplify(rest // size) if size else rest
    return tuple(reversed(reverse))


def _expr(i: IndexLike) -> Expr:
    return i if isinstance(i, Expr) else const(int(i), i64)
