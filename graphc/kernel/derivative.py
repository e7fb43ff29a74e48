"""Symbolic derivatives of scalar expressions, with PyTorch's conventions where a function has a corner.

abs and sign have derivative 0 at 0. min and max split a tie evenly, except against a constant, where the constant takes it: relu,
`max(x, 0)`, has derivative 0 at 0. Comparisons, roundings and integers are constant. A select passes the derivative of the side that
is chosen, 0 times the other one never appears (so a NaN or inf of the other side stays out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.errors import UnsupportedError
from graphc.kernel.expr import COMPARISONS, PRIMITIVES, Expr, call, cast, const, equal, free_indices, rebuild, select, walk


def derivative(expr: Expr, wrt: Expr) -> Expr:
    """d expr / d wrt, an expression of the dtype of `expr`; `wrt` is any node of a float dtype: an arg, a load.

    Raises UnsupportedError for a reduction other than a sum whose body depends on `wrt`, and for dtypes that are not floats.
    """
    if not (expr.dtype.is_float and wrt.dtype.is_float):
        raise UnsupportedError(f"derivative of {expr.dtype} by {wrt.dtype}", hint="only floats have derivatives")
    slopes: dict[Expr, Expr | None] = {}  # None: does not depend on wrt
    for node in walk(expr):
        if node is wrt:
            slopes[node] = const(1.0, node.dtype)
        elif node.dtype.is_float:
            exponent = _logistic_exponent(node)
            inner = slopes[exponent] if exponent is not None else None
            outer = [slopes.get(child) for child in node.args]
            slopes[node] = _slope(node, outer) if inner is None else node * (node - 1.0) * inner
    return slopes[expr] or const(0.0, expr.dtype)


def partials(fn: str, args: Sequence[Expr]) -> tuple[Expr | None, ...]:
    """d fn(args) / d args[i] for each i; None where it is 0 everywhere (by convention at corners)."""
    rule = _RULES.get(fn)
    if rule is None:
        raise UnsupportedError(f"{fn} has no derivative", hint="write it with differentiable primitives")
    return rule(call(fn, *args), *args)


def _slope(node: Expr, slopes: Sequence[Expr | None]) -> Expr | None:
    if all(slope is None for slope in slopes):
        return None
    if node.fn == "select":
        zero = const(0.0, node.dtype)
        return select(node.args[0], slopes[1] or zero, slopes[2] or zero)
    if node.fn == "cast":
        assert slopes[0] is not None
        return cast(slopes[0], node.dtype)
    if node.fn == "reduce":
        return _reduced(node, slopes[0])
    if node.fn not in PRIMITIVES:
        raise UnsupportedError(f"derivative of {node.fn}", hint="differentiate by a load itself, not by its offset")
    total: Expr | None = None
    for slope, partial in zip(slopes, partials(node.fn, node.args), strict=True):
        if slope is not None and partial is not None:
            term = partial * slope
            total = term if total is None else total + term
    return total


def _logistic_exponent(node: Expr) -> Expr | None:
    """u of y = 1 / (1 + exp(u)): there dy/du = y * (y - 1), where the quotient rule would multiply 0 with the overflowed exp(u)."""
    if node.fn != "div" or node.args[1].fn != "add" or not _is_one(node.args[0]):
        return None
    a, b = node.args[1].args
    power = b if _is_one(a) else a if _is_one(b) else None
    return power.args[0] if power is not None and power.fn == "exp" else None


def _is_one(node: Expr) -> bool:
    return node.is_const and node.attr == 1.0


def _reduced(node: Expr, slope: Expr | None) -> Expr | None:
    if slope is None:
        return None
    if node.attr != "sum":
        raise UnsupportedError(f"derivative of a {node.attr} reduction inside an expression", hint="make the reduction a node of its own")
    if not free_indices(slope) & set(node.args[1:]):
        return slope * math.prod(axis.extent for axis in node.args[1:])
    return rebuild(node, (slope, *node.args[1:]))


# rules: (result, *args) -> partial derivatives ----------------------------------------------------------------------------------------

Partials = tuple["Expr | None", ...]


def _unary(rule: Callable[[Expr, Expr], Expr]) -> Callable[..., Partials]:
    return lambda y, x: (rule(y, x),)


def _fma(_: Expr, a: Expr, b: Expr, c: Expr) -> Partials:
    return (b, a, const(1.0, c.dtype))


def _div(y: Expr, a: Expr, b: Expr) -> Partials:
    return (1.0 / b, -(y / b))


def _pow(y: Expr, a: Expr, b: Expr) -> Partials:
    """b * a**(b-1), 0 for b = 0; a**b * log(a), 0 for a = 0 and b >= 0 (as PyTorch)."""
    if b.is_const:
        return (_constant_power(a, float(b.attr)), None)
    by_base = select(equal(b, 0.0), 0.0, b * call("pow", a, b - 1.0))
    flat = call("and", equal(a, 0.0), b >= 0.0)
    return (by_base, select(flat, 0.0, y * call("log", a)))


def _constant_power(a: Expr, exponent: float) -> Expr | None:
    if exponent == 0.0:
        return None
    if exponent == 1.0:
        return const(1.0, a.dtype)
    return a * 2.0 if exponent == 2.0 else exponent * call("pow", a, exponent - 1.0)


def _extremum(wins: str) -> Callable[..., Partials]:
    def rule(_: Expr, a: Expr, b: Expr) -> Partials:
        return tuple(_share(wins, this, other) for this, other in ((a, b), (b, a)))

    return rule


def _share(wins: str, this: Expr, other: Expr) -> Expr:
    """1 where `this` is the result, 1/2 at a tie with an expression, 0 at a tie with a constant."""
    tie = const(0.0, this.dtype) if other.is_const else select(equal(this, other), 0.5, const(0.0, this.dtype))
    return select(call(wins, this, other), const(1.0, this.dtype), tie)


def _mod(_: Expr, a: Expr, b: Expr) -> Partials:
    return (const(1.0, a.dtype), -call("floor", a / b))


def _fmod(_: Expr, a: Expr, b: Expr) -> Partials:
    return (const(1.0, a.dtype), -call("trunc", a / b))


def _flat(y: Expr, *args: Expr) -> Partials:
    return tuple(None for _ in args)


def _one_minus_square(x: Expr) -> Expr:
    """(1 - x) * (1 + x): no cancellation near 1."""
    return (1.0 - x) * (1.0 + x)


_RULES: dict[str, Callable[..., Partials]] = {
    "add": lambda y, a, b: (const(1.0, a.dtype), const(1.0, a.dtype)),
    "sub": lambda y, a, b: (const(1.0, a.dtype), const(-1.0, a.dtype)),
    "mul": lambda y, a, b: (b, a),
    "div": _div, "fma": _fma, "pow": _pow, "min": _extremum("lt"), "max": _extremum("gt"), "mod": _mod, "fmod": _fmod,
    "neg": _unary(lambda y, x: const(-1.0, x.dtype)),
    "abs": _unary(lambda y, x: call("sign", x)),
    "sqrt": _unary(lambda y, x: 0.5 / y),
    "exp": _unary(lambda y, x: y),
    "expm1": _unary(lambda y, x: y + 1.0),
    "log": _unary(lambda y, x: 1.0 / x),
    "log1p": _unary(lambda y, x: 1.0 / (x + 1.0)),
    "tanh": _unary(lambda y, x: _one_minus_square(y)),
    "erf": _unary(lambda y, x: (2.0 / math.sqrt(math.pi)) * call("exp", -(x * x))),
    "sin": _unary(lambda y, x: call("cos", x)),
    "cos": _unary(lambda y, x: -call("sin", x)),
    "tan": _unary(lambda y, x: y * y + 1.0),
    "asin": _unary(lambda y, x: 1.0 / call("sqrt", _one_minus_square(x))),
    "acos": _unary(lambda y, x: -1.0 / call("sqrt", _one_minus_square(x))),
    "atan": _unary(lambda y, x: 1.0 / (x * x + 1.0)),
    "sinh": _unary(lambda y, x: call("cosh", x)),
    "cosh": _unary(lambda y, x: call("sinh", x)),
    "asinh": _unary(lambda y, x: 1.0 / call("sqrt", x * x + 1.0)),
    "acosh": _unary(lambda y, x: 1.0 / (call("sqrt", x - 1.0) * call("sqrt", x + 1.0))),
    "atanh": _unary(lambda y, x: 1.0 / _one_minus_square(x)),
    **dict.fromkeys(("sign", "floor", "ceil", "round", "trunc", "floordiv", *COMPARISONS), _flat),
}  # fmt: skip
