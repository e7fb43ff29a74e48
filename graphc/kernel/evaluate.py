"""The numpy meaning of expressions: obvious and slow, what every back end is held against.

Arrays broadcast. Integer values may also be object arrays of `Dim`, so that the same expression folds symbolic shapes; those are
exact integers and do not wrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.expr import COMPARISONS, Expr, Number, free_indices
from graphc.types.dtype import DType

Array = np.ndarray[Any, Any]
Load = Callable[[int, Array], Array]


def evaluate(expr: Expr, env: Mapping[Expr, Array], load: Load | None = None) -> Array:
    """The value of an expression for arrays of its `arg` and `index` nodes, broadcast against each other.

    `load(slot, offset)` gives the elements of an operand at an i64 array of offsets. A reduction goes over its indices one by one, in
    order, and accumulates in its dtype. Raises KeyError for an arg or index that `env` has not, UnsupportedError for a primitive that
    the dtype does not have.
    """
    with np.errstate(all="ignore"):
        return _evaluate(expr, {node: _typed(value, node.dtype) for node, value in env.items()}, load)


def _typed(value: Any, dtype: DType) -> Array:
    array = np.asarray(value)
    return array if array.dtype == object else array.astype(dtype.numpy, copy=False)


def _evaluate(root: Expr, known: Mapping[Expr, Array], load: Load | None) -> Array:
    values = dict(known)
    for node in _outside_reductions(root, values):
        values[node] = _value(node, values, load)
    return values[root]


def _outside_reductions(root: Expr, known: Mapping[Expr, Array]) -> list[Expr]:
    """The unknown nodes that the root needs, operands first, without the bodies of its reductions."""
    order: list[Expr] = []
    seen = set(known)
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node.fn != "reduce":
                stack.extend((child, False) for child in node.args)
    return order


def _value(node: Expr, values: Mapping[Expr, Array], load: Load | None) -> Array:
    match node.fn:
        case "const":
            return constant(node.attr, node.dtype)
        case "arg" | "index":
            raise KeyError(f"no value for {node}")
        case "load":
            if load is None:
                raise KeyError(f"no load function for {node}")
            return np.asarray(load(node.attr, values[node.args[0]]))
        case "reduce":
            return _reduce(node, values, load)
        case "cast":
            return convert(values[node.args[0]], node.dtype)
        case _:
            return apply(node.fn, node.dtype, *(values[child] for child in node.args))


def _reduce(node: Expr, values: Mapping[Expr, Array], load: Load | None) -> Array:
    body, *axes = node.args
    inner = set(axes)
    fixed = {key: value for key, value in values.items() if not free_indices(key) & inner}
    total = neutral(node.attr, node.dtype)
    for position in product(*(range(axis.extent) for axis in axes)):
        here = fixed | {axis: np.asarray(i, np.int64) for axis, i in zip(axes, position, strict=True)}
        total = combine(node.attr, node.dtype, total, _evaluate(body, here, load))
    return total


_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def combine(combiner: str, dtype: DType, a: Array, b: Array) -> Array:
    """One step of a reduction."""
    return apply(_COMBINE[combiner], dtype, a, b)


def neutral(combiner: str, dtype: DType) -> Array:
    """The result of a reduction over nothing."""
    return constant(neutral_number(combiner, dtype), dtype)


def neutral_number(combiner: str, dtype: DType) -> Number:
    """What a reduction starts from: 0, 1, the lowest or highest value of the dtype, False, True."""
    if combiner in ("sum", "any"):
        return False if dtype.kind == "b" else 0
    if combiner in ("prod", "all"):
        return True if dtype.kind == "b" else 1
    if dtype.is_float:
        return -math.inf if combiner == "max" else math.inf
    if dtype.kind == "b":
        return combiner == "min"
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if combiner == "max" else limits.max)


def constant(value: Number, dtype: DType) -> Array:
    """A 0-d array; integers wrap."""
    if not dtype.is_int:
        return np.asarray(value, dtype.numpy)
    wrapped = int(value) & ((1 << dtype.bits) - 1)
    return np.asarray(wrapped - (1 << dtype.bits) if dtype.kind == "i" and wrapped >> (dtype.bits - 1) else wrapped, dtype.numpy)


def convert(value: Array, dtype: DType) -> Array:
    """As astype; float to integer truncates and saturates, NaN gives 0. Symbolic integers stay symbolic as integers."""
    if value.dtype == object and dtype.is_int:
        return value
    if value.dtype.kind != "f" or not dtype.is_int:
        return np.asarray(value != 0) if dtype.kind == "b" and value.dtype != object else value.astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    wide = np.trunc(value.astype(np.float64))
    low, high = wide <= float(limits.min), wide >= float(limits.max)
    inside = np.where(low | high | np.isnan(wide), 0.0, wide).astype(dtype.numpy)
    return np.where(low, dtype.numpy.type(limits.min), np.where(high, dtype.numpy.type(limits.max), inside))


def apply(fn: str, dtype: DType, *args: Array) -> Array:
    """A primitive on arrays; `dtype` is the result's."""
    if any(arg.dtype == object for arg in args):
        return _apply_symbolic(fn, args)
    kind = "b" if args[-1].dtype.kind == "b" else "f" if args[-1].dtype.kind == "f" else "i"
    meaning = _ANY.get(fn) or _BY_KIND[kind].get(fn)
    if meaning is None:
        raise UnsupportedError(f"{fn} has no meaning on {args[-1].dtype}", hint="cast the operands first")
    return np.asarray(meaning(*args)).astype(np.bool_ if fn in COMPARISONS else dtype.numpy, copy=False)


# floats -------------------------------------------------------------------------------------------------------------------------------


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _float_erf(x: Array) -> Array:
    return np.asarray(_erf(x) if x.size else x)


_FLOAT: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "fma": lambda a, b, c: a * b + c,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "floordiv": np.floor_divide, "mod": np.mod, "fmod": np.fmod,
    "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "pow": np.power, "tanh": np.tanh,
    "erf": _float_erf, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "trunc": np.trunc, "isnan": np.isnan, "isinf": np.isinf,
}  # fmt: skip


# integers -----------------------------------------------------------------------------------------------------------------------------


def _nonzero(b: Array) -> Array:
    return np.where(b == 0, np.ones_like(b), b)


def _floordiv(a: Array, b: Array) -> Array:
    return np.where(b == 0, np.zeros_like(a), np.floor_divide(a, _nonzero(b)))


def _mod(a: Array, b: Array) -> Array:
    return np.where(b == 0, np.zeros_like(a), np.mod(a, _nonzero(b)))


def _idiv(a: Array, b: Array) -> Array:
    crosses = (_mod(a, b) != 0) & ((a < 0) != (b < 0))
    return np.asarray(_floordiv(a, b) + crosses.astype(a.dtype))


def _fmod(a: Array, b: Array) -> Array:
    return np.where(b == 0, np.zeros_like(a), np.fmod(a, _nonzero(b)))


def _shift(shift: Callable[..., Array]) -> Callable[[Array, Array], Array]:
    def shifted(a: Array, b: Array) -> Array:
        fits = (b >= 0) & (b < a.dtype.itemsize * 8)
        return np.where(fits, shift(a, np.where(fits, b, np.zeros_like(b))), np.zeros_like(a))

    return shifted


def _pow(a: Array, b: Array) -> Array:
    """Wraps; a negative exponent gives 1 / a**-b truncated, and 0 for a = 0."""
    bits = a.dtype.itemsize * 8

    def power(base: int, exponent: int) -> int:
        if exponent < 0:
            return 0 if base not in (1, -1) else base if exponent % 2 else 1
        value: int = pow(base, exponent, 1 << bits)
        return value - (1 << bits) if a.dtype.kind == "i" and value >> (bits - 1) else value

    return np.asarray(np.frompyfunc(power, 2, 1)(a.astype(object), b.astype(object))).astype(a.dtype)


def _same(a: Array) -> Array:
    return a


def _never(a: Array) -> Array:
    return np.zeros_like(a, np.bool_)


_INTEGER: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "fma": lambda a, b, c: a * b + c, "neg": np.negative, "abs": np.abs,
    "sign": np.sign, "idiv": _idiv, "floordiv": _floordiv, "mod": _mod, "fmod": _fmod, "pow": _pow, "isnan": _never, "isinf": _never,
    "floor": _same, "ceil": _same, "round": _same, "trunc": _same, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "not": np.invert, "shl": _shift(np.left_shift), "shr": _shift(np.right_shift),
}  # fmt: skip
_BOOL: dict[str, Callable[..., Any]] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not}
_ANY: dict[str, Callable[..., Any]] = {
    "min": np.minimum, "max": np.maximum, "select": np.where,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_BY_KIND = {"f": _FLOAT, "i": _INTEGER, "b": _BOOL}


# symbolic integers --------------------------------------------------------------------------------------------------------------------


def _truncated(a: Any, b: Any) -> Any:
    """a / b toward zero, of ints or of dims whose sign is known."""
    if b == 0:
        return 0
    negative = (a < 0) != (b < 0)
    quotient = _size(a) // _size(b)
    return -quotient if negative else quotient


def _smaller(a: Any, b: Any) -> Any:
    """Of min(N, 1) only `1 <= N` is certain, of min(1, N) also only that."""
    try:
        return a if a <= b else b
    except ShapeError:
        return b if b <= a else a


def _size(a: Any) -> Any:
    return -a if a < 0 else a


_SYMBOLIC: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "fma": lambda a, b, c: a * b + c,
    "neg": lambda a: -a, "abs": _size, "sign": lambda a: (a > 0) - (a < 0),
    "floordiv": lambda a, b: 0 if b == 0 else a // b, "mod": lambda a, b: 0 if b == 0 else a % b,
    "idiv": _truncated, "fmod": lambda a, b: 0 if b == 0 else a - _truncated(a, b) * b,
    "min": _smaller, "max": lambda a, b: -_smaller(-a, -b),
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "select": lambda c, a, b: a if c else b,
    "floor": lambda a: a, "ceil": lambda a: a, "round": lambda a: a, "trunc": lambda a: a,
}  # fmt: skip


def _apply_symbolic(fn: str, args: tuple[Array, ...]) -> Array:
    if fn not in _SYMBOLIC:
        raise UnsupportedError(f"{fn} of symbolic sizes", hint="fix them, e.g. dims={'N': 1}")
    result = np.asarray(np.frompyfunc(_SYMBOLIC[fn], len(args), 1)(*(arg.astype(object) for arg in args)), object)
    return result.astype(np.bool_) if fn in COMPARISONS else result
