"""The cells of recurrent layers as scalar expressions, and their activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.errors import AttributeValueError
from graphc.kernel.derivative import derivative
from graphc.kernel.expr import Expr, arg, const, maximum, minimum, substitute
from graphc.kernel.recurrent import Cell, GradCell, Phase
from graphc.ops.activations import tanh
from graphc.ops.pointwise import rows
from graphc.types.dtype import DType

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
ACTIVATIONS = {"rnn": ("tanh",), "lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}
"""The functions of a cell where none are given. lstm: of the gates, of what enters the cell, of the cell; gru: of the gates, of what
enters the state."""

_OWN: dict[str, tuple[Callable[[Expr, float, float], Expr], float, float]] = {
    "affine": (lambda x, alpha, beta: x * alpha + beta, 1.0, 0.0),
    "scaled_tanh": (lambda x, alpha, beta: tanh(x * beta) * alpha, 1.0, 1.0),
}


def parameters(name: str) -> tuple[str, ...]:
    """Which of alpha and beta an activation takes. Raises AttributeValueError for what is none."""
    if name in _OWN:
        return ("alpha", "beta")
    found = rows().get(name)
    if found is None or found.inputs != (1, 1) or not set(found.row.params) <= {"alpha", "beta"}:
        raise AttributeValueError(f"no activation of a recurrent cell is called {name!r}", hint=f"such as {', '.join(_common())}")
    return tuple(found.row.params)


def defaults(name: str) -> tuple[float, float]:
    """alpha and beta of an activation where they are not given; 0 for what it does not take."""
    if name in _OWN:
        return _OWN[name][1:]
    given = rows()[name].row.params if parameters(name) else {}
    return float(given.get("alpha", 0.0)), float(given.get("beta", 0.0))


def activate(name: str, x: Expr, alpha: float, beta: float) -> Expr:
    """The activation of an expression."""
    if name in _OWN:
        return _OWN[name][0](x, alpha, beta)
    given = {"alpha": alpha, "beta": beta}
    return rows()[name].row.fn(x, **{key: given[key] for key in parameters(name)})


def _common() -> tuple[str, ...]:
    return ("sigmoid", "tanh", "relu", "hard_sigmoid", "leaky_relu", "elu", "softsign", "affine", "scaled_tanh")


Activate = Callable[[Expr], Expr]


def make_cell(
    kind: str, functions: tuple[tuple[str, float, float], ...], dtype: DType, *, clip: float = math.inf, peepholes: bool = False,
    bias: bool = False, linear_before_reset: bool = False, input_forget: bool = False,
) -> Cell:  # fmt: skip
    """`functions`: name, alpha and beta of each activation. See `graphc.ops.recurrent.Recurrent` for the formulas."""

    def function(number: int) -> Activate:
        name, alpha, beta = functions[number]
        return lambda x: activate(name, _bounded(x, clip), alpha, beta)

    if kind == "rnn":
        return Cell(1, (Phase(0, 1),), (_gate(0, dtype),), function(0)(_gate(0, dtype)))
    if kind == "gru":
        return _gru(function(0), function(1), dtype, bias, linear_before_reset)
    return _lstm((function(0), function(1), function(2)), dtype, peepholes, input_forget)


def _gate(number: int, dtype: DType) -> Expr:
    return arg(f"x{number}", dtype) + arg(f"s{number}", dtype)


def _bounded(x: Expr, clip: float) -> Expr:
    return x if clip == math.inf else minimum(maximum(x, -clip), clip)


def _lstm(functions: tuple[Activate, Activate, Activate], dtype: DType, peepholes: bool, input_forget: bool) -> Cell:
    f, g, h = functions
    c = arg("c", dtype)

    def gate(number: int, peephole: str, cell: Expr) -> Expr:
        total = _gate(number, dtype)
        return f(total + arg(peephole, dtype) * cell if peepholes else total)

    enter = gate(0, "pi", c)
    keep = 1.0 - enter if input_forget else gate(2, "pf", c)
    new = keep * c + enter * g(_gate(3, dtype))
    return Cell(4, (Phase(0, 4),), tuple(_gate(number, dtype) for number in range(4)), gate(1, "po", new) * h(new), c=new)


def _gru(f: Activate, g: Activate, dtype: DType, bias: bool, linear_before_reset: bool) -> Cell:
    h = arg("h", dtype)
    update, reset = f(_gate(0, dtype)), f(_gate(1, dtype))
    inner = arg("s2", dtype) + arg("b", dtype) if bias else arg("s2", dtype)
    if linear_before_reset:
        fresh = g(arg("x2", dtype) + reset * inner)
        sums = (_gate(0, dtype), _gate(1, dtype), arg("s2", dtype))
        return Cell(3, (Phase(0, 3),), sums, (1.0 - update) * fresh + update * h)
    fresh = g(arg("x2", dtype) + inner)
    sums = (_gate(0, dtype), _gate(1, dtype), _gate(2, dtype))
    return Cell(3, (Phase(0, 2), Phase(2, 1, of_gated=True)), sums, (1.0 - update) * fresh + update * h, gated=reset * h)


# backward -----------------------------------------------------------------------------------------------------------------------------


def grad_cell(cell: Cell, dtype: DType, peepholes: bool) -> GradCell:
    """The backward step of a cell, from the derivatives of its expressions."""
    slope = _Slope(cell, dtype)
    names = [[f"{part}{gate}" for gate in range(cell.gates)] for part in "xs"]
    dx, ds = (tuple(slope.by(name) or _zero(dtype) for name in column) for column in names)
    dc = slope.by("c") if cell.c is not None else None
    holes = tuple(slope.by(name) or _zero(dtype) for name in ("pi", "po", "pf")) if peepholes else ()
    phases = tuple(reversed(cell.phases))
    direct, dc = slope.by("h"), dc if cell.c is None else dc or _zero(dtype)
    kept = {value: arg(f"s{gate}", dtype) for gate, value in enumerate(cell.sums) if value.fn != "arg"}

    def known(values: Sequence[Expr]) -> tuple[Expr, ...]:
        return tuple(substitute(value, kept) for value in values)

    direct, dc, gated = (None if value is None else substitute(value, kept) for value in (direct, dc, cell.gated))
    return GradCell(cell.gates, phases, known(dx), known(ds), direct, dc, known(holes), gated)


class _Slope:
    """Derivatives of dh * h + dc * c + dgated * gated by the args of a cell. h is seen as a function of c, so that what reaches c is
    summed once."""

    def __init__(self, cell: Cell, dtype: DType) -> None:
        self._cell, self._dtype = cell, dtype
        self._dh, self._state = arg("dh", dtype), arg("state", dtype)
        self._h = cell.h if cell.c is None else substitute(cell.h, {cell.c: self._state})

    def by(self, name: str) -> Expr | None:
        """None where it is 0 everywhere."""
        cell, leaf = self._cell, arg(name, self._dtype)
        parts = [(self._dh, derivative(self._h, leaf))]
        if cell.c is not None:
            reach = arg("dc", self._dtype) + self._dh * derivative(self._h, self._state)
            parts.append((reach, derivative(cell.c, leaf)))
        if cell.gated is not None and name not in ("x2", "s2"):
            parts.append((arg("dgated", self._dtype), derivative(cell.gated, leaf)))
        terms = [factor * slope for factor, slope in parts if not (slope.is_const and slope.attr == 0)]
        if not terms:
            return None
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total if cell.c is None else substitute(total, {self._state: cell.c})


def _zero(dtype: DType) -> Expr:
    return const(0.0, dtype)
