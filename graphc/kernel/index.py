"""Index arithmetic: ranges, affine normal form and simplification of i64 expressions, and the canonical form of a kernel spec.

Everything rests on one normal form, `constant + sum of coefficient * atom`, where an atom is a loop variable or any node that is not
a sum (a division, a clamp, a load). Rewrites that are wrong under wrap-around (division, comparison) are made only where the range
analysis proves that nothing overflows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import gcd

from graphc.kernel.expr import COMPARISONS, Expr, call, const, rebuild, to_text, walk
from graphc.types.dtype import DType, bool_, i64

Range = tuple[int, int]
_I64: Range = (-(1 << 63), (1 << 63) - 1)


class Affine:
    """constant + sum of coefficient * atom; no coefficient is 0."""

    __slots__ = ("constant", "terms")

    def __init__(self, terms: dict[Expr, int] | None = None, constant: int = 0) -> None:
        self.terms = terms if terms is not None else {}
        self.constant = constant

    def add(self, other: Affine, factor: int = 1) -> Affine:
        """self + factor * other."""
        terms = dict(self.terms)
        for atom, coefficient in other.terms.items():
            total = terms.get(atom, 0) + factor * coefficient
            if total:
                terms[atom] = total
            else:
                terms.pop(atom, None)
        return Affine(terms, self.constant + factor * other.constant)

    def scale(self, factor: int) -> Affine:
        return Affine({atom: c * factor for atom, c in self.terms.items()} if factor else {}, self.constant * factor)

    def expr(self) -> Expr:
        """Back to a tree: large coefficients first (outer dims), the constant last."""
        total: Expr | None = None
        for atom, coefficient in sorted(self.terms.items(), key=lambda term: (-abs(term[1]), *_natural(term[0]))):
            if coefficient < 0 and total is not None:
                total = total - atom * -coefficient
            else:
                part = atom * coefficient
                total = part if total is None else total + part
        if total is None:
            return const(self.constant, i64)
        return total + self.constant if self.constant >= 0 else total - -self.constant


@lru_cache(maxsize=8192)
def _natural(atom: Expr) -> tuple[tuple[int, int, str], ...]:
    """Orders i2 before i10, and loop variables before other atoms, whatever else their text is."""
    text = atom.attr[0] if atom.fn == "index" else to_text(atom)
    parts = re.split(r"(\d+)", text)
    head = (0 if atom.fn == "index" else 1, 0, "")
    return (head, *((int(p), 0, "") if k % 2 else (0, 1, p) for k, p in enumerate(parts)))


class _Memory:
    """What simplifiers have found: of a node alone, so it holds for every expression that contains it."""

    MOST = 1 << 15  # nodes; then it starts afresh

    def __init__(self) -> None:
        self.done: dict[Expr, Expr] = {}
        self.affine: dict[Expr, Affine] = {}
        self.bounds: dict[Expr, Range] = {}

    @property
    def is_full(self) -> bool:
        return len(self.done) + len(self.affine) + len(self.bounds) >= self.MOST


_memory = _Memory()


class Simplifier:
    """Simplification with a memory of what was done, which all simplifiers of the process share: layers of a network resemble each other.

    Threads may use it at once: what two of them find out about a node is the same.
    """

    def __init__(self) -> None:
        global _memory
        if _memory.is_full:
            _memory = _Memory()
        self._done, self._affine, self._bounds = _memory.done, _memory.affine, _memory.bounds

    def simplify(self, root: Expr) -> Expr:
        if root not in self._done:
            for node in walk(root):
                if node not in self._done:
                    self._done[node] = self._node(node)
        return self._done[root]

    def _node(self, node: Expr) -> Expr:
        if not node.args:
            return node
        args = tuple(self._done[child] for child in node.args)
        if args[0].dtype == i64 and (node.fn in COMPARISONS):
            return self._compare(node.fn, args)
        if node.dtype == i64 and node.fn in ("add", "sub", "neg", "mul", "floordiv", "mod", "min", "max"):
            return self._integer(node.fn, args)
        if node.fn == "not" and args[0].is_const and node.dtype == bool_:
            return const(not args[0].attr, bool_)
        if all(new is old for new, old in zip(args, node.args, strict=True)):
            return node
        return rebuild(node, args)

    # affine form --------------------------------------------------------------------------------------------------------------

    def affine(self, node: Expr) -> Affine:
        """The normal form of an i64 expression."""
        found = self._affine.get(node)
        if found is None:
            found = self._affine[node] = self._form(node)
        return found

    def _form(self, node: Expr) -> Affine:
        if node.is_const:
            return Affine(constant=node.attr)
        if node.fn in ("add", "sub"):
            return self.affine(node.args[0]).add(self.affine(node.args[1]), 1 if node.fn == "add" else -1)
        if node.fn == "neg":
            return self.affine(node.args[0]).scale(-1)
        if node.fn == "mul":
            left, right = (self.affine(a) for a in node.args)
            if not right.terms:
                return left.scale(right.constant)
            if not left.terms:
                return right.scale(left.constant)
        return Affine({node: 1})

    def _integer(self, fn: str, args: tuple[Expr, ...]) -> Expr:
        if fn in ("add", "sub", "neg"):
            return self._join(self._form_of(fn, args)).expr()
        if fn == "mul":
            left, right = self.affine(args[0]), self.affine(args[1])
            if not left.terms or not right.terms:
                return (left.scale(right.constant) if not right.terms else right.scale(left.constant)).expr()
            return call("mul", left.expr(), right.expr())
        if fn in ("min", "max"):
            return self._extreme(fn, args)
        divisor = args[1]
        if not divisor.is_const or divisor.attr <= 0 or not self._fits(args[0]):
            return call(fn, *args)
        value = self.affine(args[0])
        return (self._floordiv(value, divisor.attr) if fn == "floordiv" else self._mod(value, divisor.attr)).expr()

    def _form_of(self, fn: str, args: tuple[Expr, ...]) -> Affine:
        if fn == "neg":
            return self.affine(args[0]).scale(-1)
        return self.affine(args[0]).add(self.affine(args[1]), 1 if fn == "add" else -1)

    def _join(self, value: Affine) -> Affine:
        """c * (x // c) + x % c is x, for each such pair of atoms."""
        for atom, coefficient in list(value.terms.items()):
            if atom.fn != "mod" or not atom.args[1].is_const or value.terms.get(atom) != coefficient:
                continue
            divisor = atom.args[1].attr
            whole = self._floordiv(self.affine(atom.args[0]), divisor)
            if all(value.terms.get(a) == c * coefficient * divisor for a, c in whole.terms.items()) and whole.terms:
                joined = value.add(whole, -coefficient * divisor).add(Affine({atom: 1}), -coefficient)
                return self._join(joined.add(self.affine(atom.args[0]), coefficient))
        return value

    def _floordiv(self, value: Affine, divisor: int) -> Affine:
        """floor(value / divisor), divisor > 0."""
        if divisor == 1:
            return value
        whole = Affine({a: c // divisor for a, c in value.terms.items() if c % divisor == 0}, value.constant // divisor)
        rest = Affine({a: c for a, c in value.terms.items() if c % divisor}, value.constant % divisor)
        low, high = self._range(rest)
        if low // divisor == high // divisor:
            return whole.add(Affine(constant=low // divisor))
        rest, step = self._coarsen(rest, divisor)
        if step > 1:
            return whole.add(self._floordiv(rest, divisor // step))
        if len(rest.terms) == 1 and not rest.constant:
            ((atom, coefficient),) = rest.terms.items()
            if coefficient == 1 and atom.fn == "floordiv" and atom.args[1].is_const and atom.args[1].attr > 0:
                return whole.add(self._floordiv(self.affine(atom.args[0]), atom.args[1].attr * divisor))
        return whole.add(Affine({call("floordiv", rest.expr(), divisor): 1}))

    def _coarsen(self, value: Affine, divisor: int) -> tuple[Affine, int]:
        """(y, m) with m | divisor and value = m*y + s, 0 <= s < m: then floor(value/divisor) = floor(y / (divisor/m)). m = 1: none."""
        ordered = sorted(value.terms.items(), key=lambda term: -abs(term[1]))
        step = divisor
        best: tuple[Affine, int] = (value, 1)
        for count in range(1, len(ordered) + 1):
            step = gcd(step, ordered[count - 1][1])
            if step == 1:
                break
            small = Affine(dict(ordered[count:]), value.constant % step)
            low, high = self._range(small)
            if low >= 0 and high < step:
                return Affine({a: c // step for a, c in ordered[:count]}, value.constant // step), step
        return best

    def _mod(self, value: Affine, divisor: int) -> Affine:
        """value mod divisor, divisor > 0."""
        if divisor == 1:
            return Affine()
        rest = Affine({a: c % divisor for a, c in value.terms.items() if c % divisor}, value.constant % divisor)
        for candidate in (rest, Affine({a: c for a, c in value.terms.items() if c % divisor}, value.constant)):
            low, high = self._range(candidate)
            if low // divisor == high // divisor:
                return candidate.add(Affine(constant=-(low // divisor) * divisor))
        rest = Affine({a: c for a, c in value.terms.items() if c % divisor}, value.constant % divisor)
        coarse, step = self._coarsen(rest, divisor)
        if step > 1:
            small = rest.add(coarse, -step)
            return self._mod(coarse, divisor // step).scale(step).add(small)
        if len(rest.terms) == 1 and not rest.constant:
            ((atom, coefficient),) = rest.terms.items()
            if coefficient == 1 and atom.fn == "mod" and atom.args[1].is_const and atom.args[1].attr % divisor == 0 and atom.args[1].attr:
                return self._mod(self.affine(atom.args[0]), divisor)
        return Affine({call("mod", rest.expr(), divisor): 1})

    def _extreme(self, fn: str, args: tuple[Expr, ...]) -> Expr:
        a, b = args
        if self._fits(a) and self._fits(b):
            low, high = self._range(self.affine(a).add(self.affine(b), -1))
            if high <= 0:
                return a if fn == "min" else b
            if low >= 0:
                return b if fn == "min" else a
        return call(fn, a, b)

    def _compare(self, fn: str, args: tuple[Expr, ...]) -> Expr:
        if len(args) == 2 and self._fits(args[0]) and self._fits(args[1]):
            low, high = self._range(self.affine(args[0]).add(self.affine(args[1]), -1))
            decided = _decide(fn, low, high)
            if decided is not None:
                return const(decided, bool_)
        return call(fn, *args)

    # ranges -------------------------------------------------------------------------------------------------------------------

    def _fits(self, node: Expr) -> bool:
        low, high = self._range(self.affine(node))
        return _I64[0] <= low and high <= _I64[1]

    def _range(self, value: Affine) -> Range:
        low = high = value.constant
        for atom, coefficient in value.terms.items():
            a, b = self.bounds(atom)
            low += min(a * coefficient, b * coefficient)
            high += max(a * coefficient, b * coefficient)
        return low, high

    def bounds(self, node: Expr) -> Range:
        """Inclusive range of an integer or bool expression."""
        found = self._bounds.get(node)
        if found is None:
            found = self._bounds[node] = self._node_bounds(node)
        return found

    def _node_bounds(self, node: Expr) -> Range:
        if node.is_const:
            return int(node.attr), int(node.attr)
        if node.fn == "index":
            return 0, max(node.extent - 1, 0)
        if node.dtype == i64:
            form = self.affine(node)
            if set(form.terms) != {node}:
                return _within(self._range(form), i64)
        limits = type_range(node.dtype)
        match node.fn:
            case "min" | "max":
                (a, b), (c, d) = (self.bounds(x) for x in node.args)
                return (min(a, c), min(b, d)) if node.fn == "min" else (max(a, c), max(b, d))
            case "select":
                (a, b), (c, d) = (self.bounds(x) for x in node.args[1:])
                return min(a, c), max(b, d)
            case "floordiv" | "mod" if node.args[1].is_const and node.args[1].attr > 0:
                (low, high), divisor = self.bounds(node.args[0]), node.args[1].attr
                if node.fn == "floordiv":
                    return low // divisor, high // divisor
                return (low, high) if low >= 0 and high < divisor else (0, divisor - 1)
            case "add" | "sub" if node.dtype.is_int:
                (a, b), (c, d) = (self.bounds(x) for x in node.args)
                return _within((a + c, b + d) if node.fn == "add" else (a - d, b - c), node.dtype)
            case "mul" if node.dtype.is_int:
                (a, b), (c, d) = (self.bounds(x) for x in node.args)
                corners = (a * c, a * d, b * c, b * d)
                return _within((min(corners), max(corners)), node.dtype)
            case "cast" if node.args[0].dtype.kind in "biu":
                return _within(self.bounds(node.args[0]), node.dtype)
            case "reduce" if node.attr in ("min", "max") and all(axis.extent > 0 for axis in node.args[1:]):
                return self.bounds(node.args[0])
        return limits


def type_range(dtype: DType) -> Range:
    """Lowest and highest value of an integer type or bool; of a float, the i64 range (nothing is known)."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "u":
        return 0, (1 << dtype.bits) - 1
    return (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1) if dtype.kind == "i" else _I64


def _within(found: Range, dtype: DType) -> Range:
    """The range, or the type's whole range where the value may wrap."""
    low, high = type_range(dtype)
    return found if low <= found[0] and found[1] <= high else (low, high)


def _decide(fn: str, low: int, high: int) -> bool | None:
    """The comparison of a difference in [low, high] with 0, where it is the same for all."""
    if fn in ("eq", "ne"):
        if low == high == 0:
            return fn == "eq"
        return fn == "ne" if low > 0 or high < 0 else None
    if fn in ("gt", "ge"):
        fn, low, high = {"gt": "lt", "ge": "le"}[fn], -high, -low
    if fn == "lt":
        return True if high < 0 else False if low >= 0 else None
    return True if high <= 0 else False if low > 0 else None


def simplify(expr: Expr) -> Expr:
    """The expression with all its i64 arithmetic and comparisons in normal form; everything else is left as it is."""
    return Simplifier().simplify(expr)


def simplify_all(exprs: Iterable[Expr]) -> list[Expr]:
    simplifier = Simplifier()
    return [simplifier.simplify(expr) for expr in exprs]


def bounds(expr: Expr) -> Range:
    """(lowest, highest) value of an integer or bool expression, loop variables running over their extents."""
    return Simplifier().bounds(expr)


def affine(expr: Expr, variable: Expr) -> tuple[int, Expr] | None:
    """(coefficient, rest) with expr = coefficient * variable + rest and rest free of the variable; None where there is none."""
    form = Simplifier().affine(expr)
    coefficient = form.terms.get(variable, 0)
    rest = Affine({atom: c for atom, c in form.terms.items() if atom is not variable}, form.constant)
    return None if depends(rest.terms, variable) else (coefficient, rest.expr())


def depends(roots: Iterable[Expr], variable: Expr) -> bool:
    """Whether the variable occurs in one of the trees."""
    nodes: Sequence[Expr] = tuple(roots)
    return any(node is variable for node in walk(*nodes))
