"""Whole expressions as code on vectors: each distinct node once, in the order of its first use."""

from __future__ import annotations

from collections.abc import Callable

from graphc.errors import UnsupportedError
from graphc.kernel.expr import Expr
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_logistic import has_logistic, logistic, logistic_parts
from graphc_cpu.emit.scalar import emit_cast, emit_const, emit_primitive


class Expressions:
    """Values of expressions over `arg` leaves, in `lanes` lanes; `leaf(name)` gives an arg's value and is asked once for each."""

    def __init__(self, f: Function, target: Target, lanes: int, leaf: Callable[[str], Value]) -> None:
        self._f, self._target, self._lanes, self._leaf = f, target, lanes, leaf
        self._values: dict[Expr, Value] = {}

    def value(self, node: Expr) -> Value:
        if node not in self._values:
            self._values[node] = self._compute(node)
        return self._values[node]

    def _compute(self, node: Expr) -> Value:
        if node.fn == "arg":
            return self._leaf(node.attr)
        if node.is_const:
            return emit_const(node, self._lanes)
        if node.fn in ("index", "load", "reduce"):
            raise UnsupportedError(f"{node.fn} in an expression over args")
        v = Lanes(self._f, 32, self._lanes, self._target)
        quotient = logistic_parts(node) if has_logistic(v) else None
        args = [self.value(child) for child in quotient or node.args]
        if quotient:
            return logistic(v, *args)
        if node.fn == "cast":
            return emit_cast(self._f, args[0], node.args[0].dtype, node.dtype, self._lanes, self._target)
        return emit_primitive(self._f, node.fn, node.args[-1].dtype, node.dtype, self._lanes, args, self._target)
