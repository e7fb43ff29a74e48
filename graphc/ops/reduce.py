"""Reductions over axes, the index of an extreme, and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graphc.errors import AttributeValueError, ShapeError, TypeMismatchError
from graphc.ir.op import Array, Cost, Lowering, Op, register
from graphc.kernel.access import Access
from graphc.kernel.evaluate import convert, neutral_number
from graphc.kernel.expr import Expr, call, cast, const, equal, reduce, select
from graphc.ops.express import Arithmetic
from graphc.ops.movement import Pad, Slice
from graphc.ops.precision import accurate, read, wide
from graphc.ops.shapes import check_axes
from graphc.types.dtype import DType, bool_, dtype, f64, i64
from graphc.types.shape import DimLike, product, static
from graphc.types.tensor import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Node, Value

Body = Callable[..., Expr]  # (reduced index, ...) -> element
_LONG, _BLOCK = 128, 16  # elements along an axis whose running sums are made in blocks; of a block
_LOGARITHMIC = ("l2", "log_sum", "log_sum_exp")


def _np_mean(x: Array, axes: tuple[int, ...]) -> Array:
    count = math.prod(x.shape[axis] for axis in axes)
    if x.dtype.kind == "f":
        return np.asarray(np.sum(x, axis=axes, keepdims=True, dtype=x.dtype) / x.dtype.type(count))
    total = np.sum(x, axis=axes, keepdims=True, dtype=x.dtype)
    quotient = np.abs(total) // max(count, 1)  # toward zero
    return np.asarray(np.where(total < 0, -quotient, quotient) if count else np.zeros_like(total))


def _np_log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    peak = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    peak = np.where(np.isinf(peak), 0, peak)
    return np.asarray(np.log(np.sum(np.exp(x - peak), axis=axes, keepdims=True)) + peak)


_NUMPY: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "sum": lambda x, axes: np.sum(x, axis=axes, keepdims=True, dtype=x.dtype),
    "mean": _np_mean,
    "max": lambda x, axes: np.max(x, axis=axes, keepdims=True, initial=neutral_number("max", dtype(x.dtype))),
    "min": lambda x, axes: np.min(x, axis=axes, keepdims=True, initial=neutral_number("min", dtype(x.dtype))),
    "prod": lambda x, axes: np.prod(x, axis=axes, keepdims=True, dtype=x.dtype),
    "l1": lambda x, axes: np.sum(np.abs(x), axis=axes, keepdims=True, dtype=x.dtype),
    "l2": lambda x, axes: np.sqrt(np.sum(x * x, axis=axes, keepdims=True)),
    "sum_square": lambda x, axes: np.sum(x * x, axis=axes, keepdims=True, dtype=x.dtype),
    "log_sum": lambda x, axes: np.log(np.sum(x, axis=axes, keepdims=True)),
    "log_sum_exp": _np_log_sum_exp,
    "any": lambda x, axes: np.any(x, axis=axes, keepdims=True),
    "all": lambda x, axes: np.all(x, axis=axes, keepdims=True),
}


def _mean(extents: tuple[int, ...], x: Body, d: DType) -> Expr:
    total, count = reduce("sum", extents, x), math.prod(extents)
    return call("idiv", total, count) if d.is_int else total / float(count)


def _extreme(fn: str) -> Callable[[tuple[int, ...], Body, DType], Expr]:
    on_bool = "any" if fn == "max" else "all"
    return lambda extents, x, d: reduce(on_bool if d == bool_ else fn, extents, x)


def _log_sum_exp(extents: tuple[int, ...], x: Body, d: DType) -> Expr:
    peak = reduce("max", extents, x)
    shift = select(call("isinf", peak), 0, peak)
    return call("log", reduce("sum", extents, lambda *r: call("exp", x(*r) - shift))) + shift


def _magnitude(value: Expr) -> Expr:
    return value if value.dtype.kind == "u" else abs(value)


def _square(value: Expr) -> Expr:
    return value * value


_LOWER: dict[str, Callable[[tuple[int, ...], Body, DType], Expr]] = {
    "sum": lambda extents, x, d: reduce("sum", extents, x),
    "mean": _mean,
    "max": _extreme("max"),
    "min": _extreme("min"),
    "prod": lambda extents, x, d: reduce("prod", extents, x),
    "l1": lambda extents, x, d: reduce("sum", extents, lambda *r: _magnitude(x(*r))),
    "l2": lambda extents, x, d: call("sqrt", reduce("sum", extents, lambda *r: _square(x(*r)))),
    "sum_square": lambda extents, x, d: reduce("sum", extents, lambda *r: _square(x(*r))),
    "log_sum": lambda extents, x, d: call("log", reduce("sum", extents, x)),
    "log_sum_exp": _log_sum_exp,
    "any": lambda extents, x, d: reduce("any", extents, x),
    "all": lambda extents, x, d: reduce("all", extents, x),
}


Gradient = Callable[[Arithmetic, "Value", "Value", "Value", tuple[int, ...]], "Value"]  # (a, x, y, grad of y, axes) -> grad of x


def _grad_mean(a: Arithmetic, x: Value, y: Value, grad: Value, axes: tuple[int, ...]) -> Value:
    count = product(x.type.shape[axis] for axis in axes).__index__()
    return a("mul", grad, 1.0 / count) if count else grad


def _grad_extreme(a: Arithmetic, x: Value, y: Value, grad: Value, axes: tuple[int, ...]) -> Value:
    """An equal share for each element that is the extreme."""
    chosen = a("where", a("equal", x, y), a.ones(x), 0.0)
    return a("mul", chosen, a("div", grad, a.reduce("sum", chosen, axes)))


def _grad_prod(a: Arithmetic, x: Value, y: Value, grad: Value, axes: tuple[int, ...]) -> Value:
    """The product of the others: y / x, or where x is the only zero, the product of what is not zero."""
    zero = a("equal", x, 0.0)
    zeros = a.reduce("sum", a("where", zero, a.ones(x), 0.0), axes)
    others = a.reduce("prod", a("where", zero, 1.0, x), axes)
    lonely = a("where", a("equal", zeros, 1.0), others, 0.0)
    return a("mul", grad, a("where", zero, lonely, a("div", y, a("where", zero, 1.0, x))))


def _grad_l2(a: Arithmetic, x: Value, y: Value, grad: Value, axes: tuple[int, ...]) -> Value:
    zero = a("equal", y, 0.0)
    return a("mul", x, a("where", zero, 0.0, a("div", grad, a("where", zero, 1.0, y))))


_GRADIENT: dict[str, Gradient] = {
    "sum": lambda a, x, y, grad, axes: grad,
    "mean": _grad_mean,
    "max": _grad_extreme,
    "min": _grad_extreme,
    "prod": _grad_prod,
    "l1": lambda a, x, y, grad, axes: a("mul", grad, a("sign", x)),
    "l2": _grad_l2,
    "sum_square": lambda a, x, y, grad, axes: a("mul", a("mul", x, 2.0), grad),
    "log_sum": lambda a, x, y, grad, axes: a("mul", grad, a("exp", a("neg", y))),
    "log_sum_exp": lambda a, x, y, grad, axes: a("mul", grad, a("exp", a("sub", x, y))),
}


@register
@dataclass(frozen=True)
class Reduce(Op):
    """x reduced over `axes` (normalised, distinct) to one element each; the axes stay as 1 where `keepdims`, else vanish.

    fn: sum, mean, max, min, prod, l1 (sum |x|), l2 (sqrt sum x^2), sum_square, log_sum (log sum x), log_sum_exp; any, all on bool.
    Any numeric dtype, max and min on bool too; the result has the dtype of x. No axes: `fn` of each element alone. Integers: sums
    wrap, mean truncates, l2 and the logarithms are computed in float64 and truncated. float16 accumulates in float32; the numpy
    reference sums in the dtype of x, pairwise. Empty reductions give sum 0, prod 1, max -inf (or the lowest integer), min inf (or the
    highest), mean NaN (integers: 0), log_sum -inf. NaN wins in max and min. log_sum_exp subtracts the maximum first.
    ONNX ReduceSum, ReduceMean, ..., GlobalAveragePool, GlobalMaxPool (the opset 20 rules). keeps_layout where only spatial axes of
    (N, C, *spatial) are reduced and kept.
    """

    fn: str
    axes: tuple[int, ...]
    keepdims: bool = True
    name: ClassVar[str] = "reduce"
    onnx: ClassVar[str] = "ReduceSum"
    family: ClassVar[str] = "reduce"

    def __post_init__(self) -> None:
        if self.fn not in _NUMPY:
            raise AttributeValueError(f"reduce: {self.fn!r} is not one of {', '.join(_NUMPY)}")
        object.__setattr__(self, "axes", tuple(sorted(self.axes)))
        object.__setattr__(self, "keeps_layout", self.keepdims and bool(self.axes) and min(self.axes) >= 2)

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        check_axes(f"reduce {self.fn}", self.axes, x.rank)
        if (self.fn in ("any", "all")) != (x.dtype == bool_) and not (x.dtype == bool_ and self.fn in ("max", "min")):
            raise TypeMismatchError(f"reduce {self.fn} does not take {x.dtype}", hint="insert a cast")
        return x.with_shape(self._shape(x.shape))

    def _shape(self, shape: tuple[DimLike, ...]) -> tuple[DimLike, ...]:
        kept = (1 if axis in self.axes else dim for axis, dim in enumerate(shape))
        return tuple(kept) if self.keepdims else tuple(dim for axis, dim in enumerate(shape) if axis not in self.axes)

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        in_double = x.dtype.kind in "iu" and self.fn in _LOGARITHMIC
        values = x.astype(np.float64) if in_double else accurate(x)
        result = _NUMPY[self.fn](values, self.axes)
        if x.dtype != object:  # an object array holds symbolic dims
            result = convert(result, dtype(x.dtype))
        return result.reshape(tuple(int(dim) for dim in self._shape(x.shape)))

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """Ties of max and min share the gradient evenly; l2 of zeros has gradient 0 (as PyTorch amax, amin and norm)."""
        (x,) = node.inputs
        if not x.type.dtype.is_float:
            return [None]
        a = Arithmetic(builder)
        kept = tuple(1 if axis in self.axes else dim for axis, dim in enumerate(x.type.shape))
        y, grad = (a.reshape(value, kept) for value in (node.output, grads[0]))
        return [a.expand(_GRADIENT[self.fn](a, x, y, grad, self.axes), x.type.shape)]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """One operation per element read, two where a function is applied first."""
        steps = 1 if self.fn in ("sum", "mean", "max", "min", "prod", "any", "all", "log_sum") else 2
        return Cost(steps * int(types[0].size), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        computed = f64 if x.dtype.is_int and self.fn in _LOGARITHMIC else wide(x.dtype)
        element = read(x, computed)
        extents = tuple(x.shape[axis] for axis in self.axes)

        def value(*index: Expr) -> Expr:
            full = list(index) if self.keepdims else _insert(index, self.axes)
            return cast(_LOWER[self.fn](extents, lambda *r: element(*_replace(full, self.axes, r)), computed), output.dtype)

        return Lowering(value)


def _insert(index: Sequence[Expr], axes: tuple[int, ...]) -> list[Expr]:
    """The index with a place for each reduced axis."""
    full = list(index)
    for axis in axes:
        full.insert(axis, const(0, i64))
    return full


def _replace(full: Sequence[Expr], axes: tuple[int, ...], reduced: Sequence[Expr]) -> tuple[Expr, ...]:
    at = dict(zip(axes, reduced, strict=True))
    return tuple(at.get(axis, i) for axis, i in enumerate(full))


@register
@dataclass(frozen=True)
class ArgReduce(Op):
    """The index (i64) of the extreme element along `axis`; fn is max or min; the axis stays as 1 where `keepdims`.

    Of equal elements the first, or the last where `select_last`. NaN counts as the extreme (numpy). Any dtype but bool; an axis of no
    element is a ShapeError. ONNX ArgMax, ArgMin. Lowered to two reductions: the extreme, then the least (greatest) index that has it.
    """

    fn: str
    axis: int
    keepdims: bool = True
    select_last: bool = False
    name: ClassVar[str] = "arg_reduce"
    onnx: ClassVar[str] = "ArgMax"
    family: ClassVar[str] = "reduce"
    not_differentiable: ClassVar[str] = "the result is an index"

    def __post_init__(self) -> None:
        if self.fn not in ("max", "min"):
            raise AttributeValueError(f"arg_reduce: fn must be max or min, got {self.fn!r}")

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        check_axes(self.name, (self.axis,), x.rank)
        if x.dtype == bool_:
            raise TypeMismatchError("arg_reduce does not take bool", hint="insert a cast")
        if x.shape[self.axis] == 0:
            raise ShapeError(f"arg_reduce: axis {self.axis} has no element", hint="give it at least one")
        kept = (1,) if self.keepdims else ()
        return TensorType(i64, (*x.shape[: self.axis], *kept, *x.shape[self.axis + 1 :]))

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        find = np.argmax if self.fn == "max" else np.argmin
        if self.select_last:
            return np.asarray(x.shape[self.axis] - 1 - find(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims), dtype=np.int64)
        return np.asarray(find(x, axis=self.axis, keepdims=self.keepdims), dtype=np.int64)

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """Two comparisons per element."""
        return Cost(2 * int(types[0].size), types[0].nbytes + outputs[0].nbytes)

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        element, extents = read(x), (x.shape[self.axis],)

        def value(*index: Expr) -> Expr:
            full = list(index) if self.keepdims else _insert(index, (self.axis,))

            def along(r: Expr) -> Expr:
                return element(*_replace(full, (self.axis,), (r,)))

            extreme = reduce(self.fn, extents, along)

            def candidate(r: Expr) -> Expr:
                found = equal(along(r), extreme)
                if x.dtype.is_float:
                    found = found | call("isnan", along(r))
                return select(found, r, -1 if self.select_last else extents[0])

            return reduce("max" if self.select_last else "min", extents, candidate)

        return Lowering(value)


@register
@dataclass(frozen=True)
class CumSum(Op):
    """y[..., i, ...] = sum of x[..., j, ...] over j <= i along `axis`; j < i where `exclusive`; j >= i (j > i) where `reverse`.

    Any numeric dtype; float16 accumulates in float32. ONNX CumSum. The lowering sums every prefix anew, so a long axis decomposes into
    blocks: the sum of an element is that of its block up to it, and that of the blocks before, which is a running sum itself.
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False
    name: ClassVar[str] = "cumsum"
    onnx: ClassVar[str] = "CumSum"
    family: ClassVar[str] = "reduce"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        check_axes(self.name, (self.axis,), x.rank)
        if x.dtype == bool_:
            raise TypeMismatchError("cumsum does not take bool", hint="insert a cast")
        return x

    def reference(self, *arrays: Array) -> Array:
        (x,) = arrays
        values = np.flip(accurate(x), self.axis) if self.reverse else accurate(x)
        sums = np.cumsum(values, axis=self.axis, dtype=values.dtype)
        if self.exclusive:
            head = np.zeros_like(values.take(range(min(1, values.shape[self.axis])), axis=self.axis))
            sums = np.concatenate([head, sums.take(range(values.shape[self.axis] - 1), axis=self.axis)], axis=self.axis)
        return np.asarray(np.flip(sums, self.axis) if self.reverse else sums, dtype=x.dtype)

    def gradient(self, builder: Builder, node: Node, grads: Sequence[Value]) -> Sequence[Value | None]:
        """The sum from the other end."""
        is_float = node.inputs[0].type.dtype.is_float
        return [builder.add(CumSum(self.axis, self.exclusive, not self.reverse), grads[0]) if is_float else None]

    def cost(self, types: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        """What the sum needs: one addition per element."""
        return Cost(int(types[0].size), types[0].nbytes + outputs[0].nbytes)

    def decompose(self, builder: Builder, *inputs: Value) -> Value | None:
        size = inputs[0].type.shape[self.axis]
        return self.over(builder, *inputs) if isinstance(size, int) and size > _LONG else None

    def over(self, builder: Builder, x: Value) -> Value:
        """Of x, in nodes that are not decomposed any further."""
        a, axis, shape = Arithmetic(builder), self.axis, x.type.shape
        (size,) = static(shape[axis : axis + 1])
        if size <= _LONG:
            return builder.add(self, x)
        count = -(-size // _BLOCK)
        rest = [0] * len(shape)
        rest[axis] = count * _BLOCK - size
        whole = builder.add(Pad((0,) * len(shape), tuple(rest)), x) if rest[axis] else x
        blocks = a.reshape(whole, (*shape[:axis], count, _BLOCK, *shape[axis + 1 :]))
        before = replace(self, exclusive=True).over(builder, a.reduce("sum", blocks, (axis + 1,), keepdims=False))
        inside = builder.add(replace(self, axis=axis + 1), blocks)
        sums = a("add", inside, a.reshape(before, (*shape[:axis], count, 1, *shape[axis + 1 :])))
        padded = a.reshape(sums, whole.type.shape)
        return builder.add(Slice((0,) * len(shape), (1,) * len(shape), shape), padded) if rest[axis] else padded

    def lower(self, inputs: Sequence[Access], output: TensorType) -> Lowering:
        (x,) = inputs
        element, extents = read(x), (x.shape[self.axis],)

        def value(*index: Expr) -> Expr:
            at = index[self.axis]

            def term(r: Expr) -> Expr:
                before, after = (at, r) if self.reverse else (r, at)
                counts = before < after if self.exclusive else before <= after
                return select(counts, element(*_replace(index, (self.axis,), (r,))), 0)

            return cast(reduce("sum", extents, term), output.dtype)

        return Lowering(value)
