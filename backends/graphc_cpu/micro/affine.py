"""Offsets as affine forms of loop variables: constant + sum of coefficient * variable."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.kernel.expr import Expr, walk


@dataclass(frozen=True)
class Affine:
    """`constant + sum(coefficient * index)`; no coefficient is zero."""

    constant: int
    terms: tuple[tuple[Expr, int], ...]

    def coefficient(self, index: Expr) -> int:
        return next((c for i, c in self.terms if i is index), 0)

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """self + factor * other."""
        total = dict(self.terms)
        for index, coefficient in other.terms:
            total[index] = total.get(index, 0) + factor * coefficient
        return Affine(self.constant + factor * other.constant, tuple((i, c) for i, c in total.items() if c))

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value over the extents of the indices."""
        low = high = self.constant
        for index, coefficient in self.terms:
            reach = coefficient * (index.extent - 1)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high


def affine(expr: Expr) -> Affine | None:
    """The affine form of an integer expression; None where it is not affine (a quotient, a remainder, a loaded index)."""
    if expr.fn == "const":
        return Affine(int(expr.attr), ())
    if expr.fn == "index":
        return Affine(0, ((expr, 1),))
    if expr.fn not in ("add", "sub", "mul", "neg"):
        return None
    parts = [affine(child) for child in expr.args]
    a, b = parts[0], parts[-1]
    if a is None or b is None:
        return None
    match expr.fn:
        case "neg":
            return Affine(0, ()).plus(a, -1)
        case "add":
            return a.plus(b)
        case "sub":
            return a.plus(b, -1)
    if not a.terms:
        a, b = b, a
    return Affine(0, ()).plus(a, b.constant) if not b.terms else None


def merges(value: Expr, indices: tuple[Expr, ...]) -> bool:
    """Whether neighbouring loop variables (outermost first) may become one, which runs in place of the last: they occur in offsets of
    loads only, and every offset steps through them as through one contiguous dim."""
    loads = [node for node in walk(value) if node.fn == "load"]
    return all(_is_contiguous(node.args[0], indices) for node in loads) and not _used_as_value(value, indices)


def _is_contiguous(offset: Expr, indices: tuple[Expr, ...]) -> bool:
    place = affine(offset)
    if place is None:
        return not any(node in indices for node in walk(offset))
    step = place.coefficient(indices[-1])
    for index, inner in zip(indices[-2::-1], indices[:0:-1], strict=True):
        step *= inner.extent
        if place.coefficient(index) != step and index.extent > 1:
            return False
    return True


def _used_as_value(root: Expr, indices: tuple[Expr, ...]) -> bool:
    """Whether an index occurs outside the offsets of loads."""
    stack, seen = [root], set[Expr]()
    while stack:
        node = stack.pop()
        if node in indices:
            return True
        if node not in seen and node.fn != "load":
            seen.add(node)
            stack.extend(node.args)
    return False
