"""The scalar expression language: what one element of a kernel's result is.

An `Expr` is an interned tree (equal trees are the same object, so `is` compares and a tree is a DAG):

    const   attr = the Python number          index   attr = (name, extent): a loop variable in [0, extent), i64
    arg     attr = name: a scalar argument    load    attr = operand slot, args = (offset in elements,)
    reduce  attr = combiner, args = (body, index, ...): body combined over all values of the indices
    cast    to the node's dtype               anything else: a primitive of `PRIMITIVES`, args in order

A row of the pointwise table, an op's lowering, an index computation and an epilogue are all written with these. Python operators
build nodes, a Python number takes the dtype of the other side, and constants fold. Comparison is by function (`lt`, `equal`, ...),
because `==` is identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from threading import RLock
from typing import Any, Union
from weakref import WeakValueDictionary

import numpy as np

from graphc.types.dtype import DType, bool_, i64

Number = Union[int, float, bool]
ExprLike = Union["Expr", Number]

# name -> number of arguments. The result has the dtype of the last argument, except for the comparisons, which give bool.
PRIMITIVES: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "fma": 3, "neg": 1, "abs": 1, "sign": 1,
    "idiv": 2,  # integers, truncated toward zero; x / 0 is 0 (never a trap)
    "floordiv": 2, "mod": 2,  # rounded toward minus infinity, sign of the divisor (Python)
    "fmod": 2,  # sign of the dividend (C)
    "min": 2, "max": 2,  # NaN wins
    "sqrt": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "pow": 2, "tanh": 1, "erf": 1, "sin": 1, "cos": 1, "tan": 1,
    "asin": 1, "acos": 1, "atan": 1, "sinh": 1, "cosh": 1, "asinh": 1, "acosh": 1, "atanh": 1,
    "floor": 1, "ceil": 1, "round": 1, "trunc": 1,  # round: half to even
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "isnan": 1, "isinf": 1,
    "and": 2, "or": 2, "xor": 2, "not": 1, "shl": 2, "shr": 2,  # logical on bool, bitwise on integers;
    # a shift by less than 0, or by the width or more, gives 0
    "select": 3,  # select(condition, if true, if false); both sides are evaluated
}  # fmt: skip
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf"})
COMBINERS = ("sum", "max", "min", "prod", "any", "all")

_interned: WeakValueDictionary[tuple[object, ...], Expr] = WeakValueDictionary()
_interning = RLock()
_fresh = count()
_KEPT = 256  # nodes of a tree that keeps its order


class Expr:
    """One node. Never constructed directly: see the functions below."""

    __slots__ = ("__weakref__", "args", "attr", "below", "dtype", "fn")
    fn: str
    dtype: DType
    args: tuple[Expr, ...]
    attr: Any
    below: tuple[Expr, ...] | None  # see `walk`

    def __new__(cls, fn: str, dtype: DType, args: tuple[Expr, ...] = (), attr: Any = None) -> Expr:
        key = (fn, dtype.name, args, repr(attr))
        found = _interned.get(key)
        if found is None:
            with _interning:  # kernels are emitted on several threads, and two nodes of one key would not be identical
                found = _interned.get(key)
                if found is None:
                    found = super().__new__(cls)
                    found.fn, found.dtype, found.args, found.attr, found.below = fn, dtype, args, attr, None
                    _interned[key] = found
        return found

    def __repr__(self) -> str:
        return to_text(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Expr, (self.fn, self.dtype, self.args, self.attr))

    def __copy__(self) -> Expr:
        return self

    def __deepcopy__(self, memo: object) -> Expr:
        return self

    def __add__(self, other: ExprLike) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return call("div", other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return call("floordiv", self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return call("floordiv", other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return call("mod", self, other)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __abs__(self) -> Expr:
        return call("abs", self)

    def __and__(self, other: ExprLike) -> Expr:
        return call("and", self, other)

    def __or__(self, other: ExprLike) -> Expr:
        return call("or", self, other)

    def __invert__(self) -> Expr:
        return call("not", self)

    def __lt__(self, other: ExprLike) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return call("ge", self, other)

    @property
    def is_const(self) -> bool:
        return self.fn == "const"

    @property
    def extent(self) -> int:
        """Of an index."""
        extent: int = self.attr[1]
        return extent


def const(value: Number, dtype: DType) -> Expr:
    """A number; integers wrap to the dtype's range. Floats are kept as written (0.1) and round to the dtype where they are used."""
    if dtype.kind == "f":
        return Expr("const", dtype, attr=float(value))
    if dtype.kind == "b":
        return Expr("const", dtype, attr=bool(value))
    lowest = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    return Expr("const", dtype, attr=(int(value) - lowest) % (1 << dtype.bits) + lowest)


def index(name: str, extent: int) -> Expr:
    """A loop variable that runs over 0 .. extent-1."""
    return Expr("index", i64, attr=(name, int(extent)))


def fresh_index(extent: int, hint: str = "r") -> Expr:
    return index(f"{hint}.{next(_fresh)}", extent)


def arg(name: str, dtype: DType) -> Expr:
    return Expr("arg", dtype, attr=name)


def load(slot: int, offset: Expr, dtype: DType) -> Expr:
    return Expr("load", dtype, (offset,), slot)


def cast(value: Expr, dtype: DType) -> Expr:
    """As numpy astype; float to integer truncates, and saturates outside the range (never undefined)."""
    if value.dtype is dtype or value.dtype == dtype:
        return value
    if value.is_const and not (isinstance(value.attr, float) and not math.isfinite(value.attr) and dtype.kind != "f"):
        if not (dtype.is_int and value.dtype.is_float):
            return const(_rounded(value), dtype)
    return Expr("cast", dtype, (value,))


def _rounded(value: Expr) -> Number:
    """A constant's number as its dtype holds it: 0.1 in float32 is 0.10000000149011612."""
    number: Number = value.attr
    if not value.dtype.is_float or not math.isfinite(number):
        return number
    with np.errstate(over="ignore"):
        return float(value.dtype.numpy.type(number))


def call(fn: str, *operands: ExprLike) -> Expr:
    """A primitive applied to expressions and numbers, folded where that is exact for sure (integer index arithmetic, x+0, x*1)."""
    if PRIMITIVES[fn] != len(operands):
        raise TypeError(f"{fn} takes {PRIMITIVES[fn]} arguments, got {len(operands)}")
    args = _coerce(fn, operands)
    folded = _fold(fn, args)
    if folded is not None:
        return folded
    dtype = bool_ if fn in COMPARISONS else args[-1].dtype
    return Expr(fn, dtype, args)


def select(condition: Expr, yes: ExprLike, no: ExprLike) -> Expr:
    return call("select", condition, yes, no)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    return call("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    return call("max", a, b)


def equal(a: ExprLike, b: ExprLike) -> Expr:
    return call("eq", a, b)


def reduce(combiner: str, extents: Iterable[int], body: Callable[..., Expr]) -> Expr:
    """`body(i, j, ...)` combined over 0 <= i < extents[0], ...; the result of no element is the combiner's neutral element.

    combiner: sum, prod (0, 1), max, min (-inf, inf; for integers the lowest and highest), any, all (bool).
    """
    if combiner not in COMBINERS:
        raise ValueError(f"{combiner!r} is not one of {COMBINERS}")
    axes = tuple(fresh_index(extent) for extent in extents)
    value = body(*axes)
    return Expr("reduce", value.dtype, (value, *axes), combiner) if axes else value


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node below the roots, operands first."""
    if len(roots) == 1:
        (root,) = roots
        return chain(root.below if root.below is not None else _below(root), (root,))
    return _walk_all(roots)


def _below(root: Expr) -> tuple[Expr, ...]:
    """What `walk` gives before the root itself; small trees keep it, because they are walked again and again."""
    below = tuple(_walk_all((root,)))[:-1]
    if len(below) <= _KEPT:
        root.below = below
    return below


def _walk_all(roots: Sequence[Expr]) -> Iterator[Expr]:
    seen: set[Expr] = set()
    stack: list[Expr | None] = list(reversed(roots))
    above: list[Expr] = []  # nodes whose operands are on the stack, above a None
    while stack:
        node = stack.pop()
        if node is None:
            yield above.pop()
        elif node not in seen:
            seen.add(node)
            if node.args:
                above.append(node)
                stack.append(None)
                stack.extend(node.args[::-1])
            else:
                yield node


def substitute(root: Expr, replacements: Mapping[Expr, Expr]) -> Expr:
    """The tree with nodes replaced; constants fold again on the way."""
    if not replacements:
        return root
    new: dict[Expr, Expr] = {}
    for node in walk(root):
        if node in replacements:
            new[node] = replacements[node]
        elif any(new[child] is not child for child in node.args):
            new[node] = rebuild(node, tuple(new[child] for child in node.args))
        else:
            new[node] = node
    return new[root]


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same operation on other arguments."""
    if node.fn in PRIMITIVES:
        return call(node.fn, *args)
    if node.fn == "cast":
        return cast(args[0], node.dtype)
    return Expr(node.fn, node.dtype, args, node.attr)


def free_indices(root: Expr) -> frozenset[Expr]:
    """The loop variables that the value depends on: all below it but those that a reduce inside it binds."""
    free: dict[Expr, frozenset[Expr]] = {}
    for node in walk(root):
        below = frozenset({node}) if node.fn == "index" else frozenset[Expr]().union(*(free[child] for child in node.args))
        free[node] = below - set(node.args[1:]) if node.fn == "reduce" else below
    return free[root]


def to_text(root: Expr) -> str:
    """Readable and unambiguous; used as a cache key after canonical naming."""
    names: dict[Expr, str] = {}
    uses: dict[Expr, int] = {}
    for node in walk(root):
        for child in node.args:
            uses[child] = uses.get(child, 0) + 1
    lines: list[str] = []
    for node in walk(root):
        text = _node_text(node, names)
        if node.args and uses.get(node, 0) > 1:
            names[node] = f"t{len(lines)}"
            lines.append(f"{names[node]}={text}")
        else:
            names[node] = text
    return "; ".join([*lines, names[root]])


def _node_text(node: Expr, names: Mapping[Expr, str]) -> str:
    args = ", ".join(names[child] for child in node.args)
    match node.fn:
        case "const":
            return f"{node.attr!r}:{node.dtype}"
        case "index":
            return f"{node.attr[0]}<{node.attr[1]}"
        case "arg":
            return f"{node.attr}:{node.dtype}"
        case "load":
            return f"load.{node.dtype}[{node.attr}]({args})"
        case "reduce":
            return f"{node.attr}({args})"
        case "cast":
            return f"{node.dtype}({args})"
        case _:
            return f"{node.fn}({args})"


def _coerce(fn: str, operands: Sequence[ExprLike]) -> tuple[Expr, ...]:
    first = 1 if fn == "select" else 0
    dtype = next((operand.dtype for operand in operands[first:] if isinstance(operand, Expr)), None)
    if dtype is None:
        raise TypeError(f"{fn}: at least one operand must be an expression, to know the dtype")
    args = tuple([operand if isinstance(operand, Expr) else const(operand, dtype) for operand in operands])
    for a in args[first:]:
        if a.dtype is not dtype and a.dtype != dtype:
            raise TypeError(f"{fn}: dtypes differ: {[str(a.dtype) for a in args[first:]]}")
    return args


def _fold(fn: str, args: tuple[Expr, ...]) -> Expr | None:
    if fn == "select":
        if args[0].is_const:
            return args[1] if args[0].attr else args[2]
        return args[1] if args[1] is args[2] else None
    if args[0].dtype == i64:
        return _fold_int(fn, args)
    if args[0].dtype == bool_ and fn in ("and", "or"):
        for this, other in ((args[0], args[1]), (args[1], args[0])):
            if this.is_const:
                return other if this.attr == (fn == "and") else this
    if fn == "mul" and args[0].dtype.is_float:
        for this, other in ((args[0], args[1]), (args[1], args[0])):
            if this.is_const and this.attr == 1.0:
                return other
    return None


_INT_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "min": min, "max": max,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
}  # fmt: skip


def _fold_int(fn: str, args: tuple[Expr, ...]) -> Expr | None:
    if len(args) != 2 or fn not in _INT_FOLDS:
        return None
    a, b = args
    if a.is_const and b.is_const:
        value = _INT_FOLDS[fn](a.attr, b.attr)
        if fn in COMPARISONS:
            return const(value, bool_)
        return const((value + (1 << 63)) % (1 << 64) - (1 << 63), i64)
    if b.is_const:
        if (fn in ("add", "sub") and b.attr == 0) or (fn in ("mul", "floordiv") and b.attr == 1):
            return a
        if (fn == "mul" and b.attr == 0) or (fn == "mod" and b.attr == 1):
            return const(0, i64)
    if a.is_const and ((fn == "add" and a.attr == 0) or (fn == "mul" and a.attr == 1)):
        return b
    if a.is_const and fn == "mul" and a.attr == 0:
        return a
    return const(0, i64) if fn == "sub" and a is b else None
