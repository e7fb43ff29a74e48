"""Dimensions: ints, or symbolic expressions over names such as `N`.

A symbolic `Dim` is a polynomial with integer coefficients over atoms; an atom is a name or a floor division or remainder of two
dims that did not divide out. Every symbol stands for an integer of at least 1. Arithmetic with ints and dims (+ - * // %) gives an
int where the symbols cancel. Dims work inside numpy object arrays, so that the numpy meaning of integer ops folds symbolic shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Union

from graphc.errors import InputError, ShapeError

Atom = Union[str, tuple[str, "Dim", "Dim"]]  # a name, or ("//" | "%", numerator, denominator)
Monomial = tuple[Atom, ...]
DimLike = Union[int, "Dim"]
Shape = tuple[DimLike, ...]
MAX_SIZE = (1 << 63) - 1  # of one dim
MAX_TERMS = 4096  # of a symbolic dim; products of sums grow exponentially


class Dim:
    """An immutable symbolic integer. Make names with `symbol("N")`."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Iterable[tuple[Monomial, int]]) -> None:
        self.terms: tuple[tuple[Monomial, int], ...] = tuple(sorted(terms, key=lambda term: (-len(term[0]), str(term[0]))))
        self._hash = hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __add__(self, other: DimLike) -> DimLike:
        return _make([*self.terms, *_terms(other)]) if _is_dim(other) else NotImplemented

    __radd__ = __add__

    def __neg__(self) -> DimLike:
        return _make((monomial, -c) for monomial, c in self.terms)

    def __sub__(self, other: DimLike) -> DimLike:
        return self + -other if _is_dim(other) else NotImplemented

    def __rsub__(self, other: DimLike) -> DimLike:
        return -self + other if _is_dim(other) else NotImplemented

    def __mul__(self, other: DimLike) -> DimLike:
        if not _is_dim(other):
            return NotImplemented
        if len(self.terms) * len(_terms(other)) > MAX_TERMS:
            raise ShapeError(f"a symbolic size of more than {MAX_TERMS} terms", hint="fix some of its dims, e.g. dims={'N': 1}")
        return _make((_product(m1, m2), c1 * c2) for m1, c1 in self.terms for m2, c2 in _terms(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: DimLike) -> DimLike:
        return _divide(self, other) if _is_dim(other) else NotImplemented

    def __rfloordiv__(self, other: DimLike) -> DimLike:
        return _divide(other, self) if _is_dim(other) else NotImplemented

    def __mod__(self, other: DimLike) -> DimLike:
        return self - (self // other) * other if _is_dim(other) else NotImplemented

    def __rmod__(self, other: DimLike) -> DimLike:
        return other - (other // self) * self if _is_dim(other) else NotImplemented

    def __gt__(self, other: DimLike) -> bool:
        return _is_positive(self - other, f"{self} > {other}")

    def __lt__(self, other: DimLike) -> bool:
        return _is_positive(other - self, f"{self} < {other}")

    def __le__(self, other: DimLike) -> bool:
        return not self > other

    def __ge__(self, other: DimLike) -> bool:
        return not self < other

    def __index__(self) -> int:
        raise ShapeError(f"the size {self} is symbolic, and a number is needed here", hint="fix it, e.g. dims={'N': 1}")

    __int__ = __index__

    @property
    def symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom in monomial:
                found |= {atom} if isinstance(atom, str) else symbols_of(atom[1:])
        return frozenset(found)

    def substitute(self, sizes: Mapping[str, DimLike]) -> DimLike:
        total: DimLike = 0
        for monomial, coefficient in self.terms:
            product: DimLike = coefficient
            for atom in monomial:
                product = product * _substitute_atom(atom, sizes)
            total = total + product
        return total

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, c in self.terms:
            factors = [_atom_text(atom) for atom in monomial]
            text = "*".join(([str(abs(c))] if abs(c) != 1 or not factors else []) + factors)
            parts.append(("-" if c < 0 else "+" if parts else "") + text)
        return "".join(parts)

    __repr__ = __str__


def _is_positive(difference: DimLike, question: str) -> bool:
    """Whether a dim is above 0, where that is so, or not so, for all symbols >= 1; an error where it depends on them.

    Quotients count as at least 1 too: they stand for sizes.
    """
    if isinstance(difference, int):
        return difference > 0
    coefficients = [c for monomial, c in difference.terms if monomial]
    at_one = sum(c for _, c in difference.terms)
    if all(c > 0 for c in coefficients) and at_one > 0:
        return True
    if all(c < 0 for c in coefficients) and at_one <= 0:
        return False
    raise ShapeError(f"cannot decide whether {question} for every size", hint="fix the symbolic dims, e.g. dims={'N': 1}")


def symbol(name: str) -> Dim:
    """The dim of that name: letters, digits and _, not beginning with a digit. Raises ShapeError for other names."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ShapeError(f"a symbolic dimension cannot be called {name!r}", hint="use letters, digits and _")
    return Dim([((name,), 1)])


def substitute(dim: DimLike, sizes: Mapping[str, DimLike]) -> DimLike:
    return dim.substitute(sizes) if isinstance(dim, Dim) else dim


def as_dim(given: Any) -> DimLike:
    """A dim as users write it: an int of at least 0, a Dim, or text such as "N". Raises ShapeError for anything else."""
    if isinstance(given, str):
        return parse_dim(given)
    if isinstance(given, Dim):
        return given
    if is_size(given):
        return int(given.__index__())
    raise ShapeError(f"{given!r} is not a dimension", hint='a whole number, or a name such as "N"')


def is_size(given: Any) -> bool:
    """Whether it is a whole number that can be the size of an axis."""
    return not isinstance(given, (bool, Dim)) and hasattr(given, "__index__") and 0 <= given.__index__() <= MAX_SIZE


def check_sizes(dims: object, known: Iterable[str] | None = None) -> dict[str, int]:
    """Sizes by name of a symbol, as a user gives them. Raises InputError for what is no size, or a name that is not among `known`."""
    example = "e.g. dims={'N': 8}"
    if not isinstance(dims, Mapping):
        raise InputError(f"dims is a {type(dims).__name__}, not a mapping from names to sizes", hint=example)
    names = None if known is None else sorted(known)
    for name, size in dims.items():
        if not is_size(size):
            raise InputError(f"dims: {name!r} is {size!r}, not a size", hint=f"give a whole number, {example}")
        if names is not None and name not in names:
            hint = f"its symbolic dims: {', '.join(names)}" if names else "it has none: leave dims out"
            raise InputError(f"the model has no symbolic dim {name!r}", hint=hint)
    return {name: size.__index__() for name, size in dims.items()}


def symbols_of(dims: Iterable[object]) -> set[str]:
    return {name for dim in dims if isinstance(dim, Dim) for name in dim.symbols}


def product(dims: Iterable[DimLike]) -> DimLike:
    total: DimLike = 1
    for dim in dims:
        total = total * dim
    return total


def static(shape: Shape) -> tuple[int, ...]:
    """The shape as ints; a ShapeError names the first symbolic dim."""
    return tuple(dim.__index__() for dim in shape)


def is_static(shape: Shape) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def parse_dim(text: str) -> DimLike:
    """The inverse of str: ints, names, + - * // % and parentheses. Raises ShapeError for anything else."""
    tokens = _DIM_TOKEN.findall(text)[::-1]
    try:
        if "".join(tokens[::-1]) != re.sub(r"\s+", "", text):
            raise ValueError("a character that has no meaning")
        value = _parse_sum(tokens)
        if tokens:
            raise ValueError("more than one expression")
    except (IndexError, ValueError, RecursionError) as error:
        raise ShapeError(f"{text[:80]!r} is not a dimension") from error
    return value


_DIM_TOKEN = re.compile(r"//|[A-Za-z_]\w*|[0-9]+|[-+*%()]")
_DIM_MARKS = frozenset(("+", "*", "%", ")", "//"))


def _parse_sum(tokens: list[str]) -> DimLike:
    """Tokens are taken from the end of the list."""
    value = _parse_product(tokens)
    while tokens and tokens[-1] in "+-":
        value = value + _parse_product(tokens) if tokens.pop() == "+" else value - _parse_product(tokens)
    return value


def _parse_product(tokens: list[str]) -> DimLike:
    value = _parse_factor(tokens)
    while tokens and tokens[-1] in ("*", "//", "%"):
        mark = tokens.pop()
        factor = _parse_factor(tokens)
        if mark != "*" and factor == 0:
            raise ValueError("division by zero")
        value = value * factor if mark == "*" else value // factor if mark == "//" else value % factor
    return value


def _parse_factor(tokens: list[str]) -> DimLike:
    token = tokens.pop()
    if token == "-":
        return -_parse_factor(tokens)
    if token == "(":
        value = _parse_sum(tokens)
        if tokens.pop() != ")":
            raise ValueError("a parenthesis is not closed")
        return value
    if token in _DIM_MARKS:
        raise ValueError(f"unexpected {token}")
    return int(token) if token.isdigit() else symbol(token)


def _is_dim(value: object) -> bool:
    return isinstance(value, (int, Dim)) and not isinstance(value, bool)


def _terms(dim: DimLike) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Dim) else (((), int(dim)),)


def _product(left: Monomial, right: Monomial) -> Monomial:
    return tuple(sorted((*left, *right), key=str))


def _make(terms: Iterable[tuple[Monomial, int]]) -> DimLike:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = {monomial: c for monomial, c in total.items() if c}
    if not kept:
        return 0
    if kept.keys() == {()}:
        return kept[()]
    return Dim(kept.items())


def _divide(numerator: DimLike, denominator: DimLike) -> DimLike:
    if denominator == 0:
        raise ShapeError(f"division of the size {numerator} by zero")
    if denominator == 1:
        return numerator
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    divisor = _terms(denominator)
    if len(divisor) == 1:  # take out the terms that divide; what is left stays inside one floor division
        monomial, coefficient = divisor[0]
        exact: list[tuple[Monomial, int]] = []
        rest: list[tuple[Monomial, int]] = []
        for term, c in _terms(numerator):
            quotient = _quotient(term, monomial)
            if quotient is not None and c % coefficient == 0:
                exact.append((quotient, c // coefficient))
            else:
                rest.append((term, c))
        remainder = _make(rest)
        if remainder == 0:
            return _make(exact)
        if isinstance(remainder, int) and isinstance(denominator, int):
            exact.append(((), remainder // denominator))
            return _make(exact)
        if exact:
            return _make(exact) + _divide(remainder, denominator)
    if numerator == denominator:
        return 1
    return Dim([((("//", _as_dim(numerator), _as_dim(denominator)),), 1)])


def _as_dim(dim: DimLike) -> Dim:
    return dim if isinstance(dim, Dim) else Dim([((), dim)])


def _quotient(term: Monomial, divisor: Monomial) -> Monomial | None:
    left = list(term)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _substitute_atom(atom: Atom, sizes: Mapping[str, DimLike]) -> DimLike:
    if isinstance(atom, str):
        return sizes.get(atom, symbol(atom))
    _, numerator, denominator = atom
    return _divide(numerator.substitute(sizes), denominator.substitute(sizes))


def _atom_text(atom: Atom) -> str:
    if isinstance(atom, str):
        return atom
    return f"(({atom[1]})//({atom[2]}))"
