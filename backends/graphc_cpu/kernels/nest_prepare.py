"""Rewrites of a nest before code is made: no empty or one-element loops, short reductions unrolled, contiguous axes merged.

All of them keep the value of every element; only the order of a reduction's terms is decided here and in nest_reduce, by shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from graphc.kernel.canonical import rename_reductions
from graphc.kernel.expr import Expr, call, const, index, rebuild, substitute, walk
from graphc.kernel.index import Affine, Simplifier, type_range
from graphc.kernel.spec import Nest, StoreAt
from graphc.types.dtype import DType, bool_, i64
from graphc_cpu.kernels.nest_split import split_axes

COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}
_UNROLL_TERMS, _UNROLL_NODES, _VECTOR_TERMS = 16, 200, 8
_HEAVY = frozenset({
    "exp", "expm1", "log", "log1p", "pow", "tanh", "erf", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
    "atanh", "fmod", "idiv", "floordiv", "mod",
})  # fmt: skip


def prepare(nest: Nest, lanes: int) -> list[Nest]:
    """The same work as nests in a form that is good for code on a machine of `lanes`; none where an axis is empty."""
    if any(axis.extent == 0 for axis in nest.axes):
        return []
    units: dict[Expr, Expr] = {axis: const(0, i64) for axis in nest.axes if axis.extent == 1}
    axes = tuple(axis for axis in nest.axes if axis.extent > 1)
    simplifier = Simplifier()
    stores = tuple(
        StoreAt(s.slot, simplifier.simplify(substitute(s.offset, units)), _value(substitute(s.value, units), lanes, simplifier))
        for s in nest.stores
    )
    return [merge_axes(part, simplifier) for part in split_axes(Nest(axes, stores), lanes)]


def neutral(combiner: str, dtype: DType) -> Expr:
    """What a reduction starts from."""
    if combiner in ("sum", "prod"):
        return const(0 if combiner == "sum" else 1, dtype)
    if combiner in ("any", "all"):
        return const(combiner == "all", dtype)
    if dtype.is_float:
        return const(-math.inf if combiner == "max" else math.inf, dtype)
    low, high = type_range(dtype)
    return const(low if combiner == "max" else high, dtype)


def _value(value: Expr, lanes: int, simplifier: Simplifier) -> Expr:
    named = rename_reductions(simplifier.simplify(value))
    new: dict[Expr, Expr] = {}
    for node in walk(named):
        args = tuple(new[child] for child in node.args)
        made = node if all(a is b for a, b in zip(args, node.args, strict=True)) else rebuild(node, args)
        new[node] = _reduction(made, lanes, simplifier) if made.fn == "reduce" else made
    return simplifier.simplify(new[named])


def _reduction(node: Expr, lanes: int, simplifier: Simplifier) -> Expr:
    body, *axes = node.args
    if any(axis.extent == 0 for axis in axes):
        return neutral(node.attr, node.dtype)
    body = substitute(body, {axis: const(0, i64) for axis in axes if axis.extent == 1})
    axes = [axis for axis in axes if axis.extent > 1]
    if not axes:
        return simplifier.simplify(body)
    if _unrolls(body, axes, simplifier):
        return _unrolled(node.attr, body, axes, simplifier)
    pieces = split_axes(Nest(tuple(axes), (StoreAt(0, const(0, i64), simplifier.simplify(body)),)), lanes)
    total: Expr | None = None
    for piece in pieces:
        together, kept = merged((piece.stores[0].value,), piece.axes, simplifier)
        part = Expr("reduce", node.dtype, (together[0], *kept), node.attr) if kept else together[0]
        total = part if total is None else call(COMBINE[node.attr], total, part)
    assert total is not None
    return total


def _unrolls(body: Expr, axes: Sequence[Expr], simplifier: Simplifier) -> bool:
    """Short windows are unrolled: their bounds checks become scalar work outside. A short contiguous row is left to a vector."""
    terms = math.prod(axis.extent for axis in axes)
    if terms > _UNROLL_TERMS:
        return False
    nodes = list(walk(body))
    data = sum(node.dtype != i64 and node.dtype != bool_ and not node.is_const for node in nodes)  # the rest is computed outside
    if terms * data > _UNROLL_NODES or any(node.fn == "reduce" or (node.fn in _HEAVY and node.dtype != i64) for node in nodes):
        return False
    if len(axes) > 1 or terms < _VECTOR_TERMS:
        return True
    strides = {simplifier.affine(node.args[0]).terms.get(axes[0]) for node in nodes if node.fn == "load"}
    return strides != {1}


def _unrolled(combiner: str, body: Expr, axes: Sequence[Expr], simplifier: Simplifier) -> Expr:
    """Columns first (all axes but the last), then the columns combined: overlapping windows share columns (see nest_unroll)."""
    *outer, last = axes
    total: Expr | None = None
    for place in range(last.extent):
        column: Expr | None = None
        for values in product(*(range(axis.extent) for axis in outer)):
            here = {axis: const(value, i64) for axis, value in zip(axes, (*values, place), strict=True)}
            term = simplifier.simplify(substitute(body, here))
            column = term if column is None else call(COMBINE[combiner], column, term)
        assert column is not None
        total = column if total is None else call(COMBINE[combiner], total, column)
    assert total is not None
    return total


# merging axes -----------------------------------------------------------------------------------------------------------------------


def merge_axes(nest: Nest, simplifier: Simplifier) -> Nest:
    """Axes that only ever occur as outer * extent(inner) + inner become one loop."""
    roots = [root for store in nest.stores for root in (store.offset, store.value)]
    roots, axes = merged(roots, nest.axes, simplifier)
    stores = tuple(StoreAt(s.slot, roots[2 * k], roots[2 * k + 1]) for k, s in enumerate(nest.stores))
    return Nest(tuple(axes), stores)


class _NotMergeableError(Exception):
    pass


def merged(roots: Sequence[Expr], axes: Sequence[Expr], simplifier: Simplifier) -> tuple[list[Expr], list[Expr]]:
    """The roots and the axes that are left when those of `axes` that only occur together have become one."""
    exprs, left = list(roots), list(axes)
    again = True
    while again:
        again = False
        for outer, inner in _candidates(exprs, left, simplifier):
            both = index(f"{outer.attr[0]}.{inner.attr[0]}", outer.extent * inner.extent)
            try:
                exprs = _Merge(outer, inner, both, simplifier).rewrite(exprs)
            except _NotMergeableError:
                continue
            left[left.index(outer)] = both
            left.remove(inner)
            again = True
            break
    return exprs, left


def _candidates(roots: Sequence[Expr], axes: Sequence[Expr], simplifier: Simplifier) -> list[tuple[Expr, Expr]]:
    """Pairs that the first sum which mentions them allows."""
    for node in _sums(roots):
        terms = simplifier.affine(node).terms
        pairs = [
            (outer, inner)
            for outer in axes
            for inner in axes
            if outer is not inner and inner in terms and terms.get(outer) == terms[inner] * inner.extent
        ]
        if pairs or any(axis in terms for axis in axes):
            return pairs
    return []


def _sums(roots: Sequence[Expr]) -> list[Expr]:
    tops = [root for root in roots if root.dtype == i64]
    return [*tops, *(child for node in walk(*roots) if node.dtype != i64 for child in node.args if child.dtype == i64)]


class _Merge:
    """Replaces outer * extent + inner by one variable everywhere, or raises _NotMergeableError."""

    def __init__(self, outer: Expr, inner: Expr, merged: Expr, simplifier: Simplifier) -> None:
        self._outer, self._inner, self._merged, self._simplifier = outer, inner, merged, simplifier
        self._done: dict[Expr, Expr] = {}

    def rewrite(self, roots: Sequence[Expr]) -> list[Expr]:
        for node in walk(*roots):
            if node.dtype != i64 or node.fn in ("load", "reduce", "cast"):
                self._done[node] = self._other(node)
        return [self._get(root) for root in roots]

    def _get(self, node: Expr) -> Expr:
        found = self._done.get(node)
        if found is None:
            found = self._done[node] = self._sum(node)
        return found

    def _sum(self, node: Expr) -> Expr:
        form = self._simplifier.affine(node)
        outer, inner = form.terms.get(self._outer, 0), form.terms.get(self._inner, 0)
        if outer != inner * self._inner.extent:
            raise _NotMergeableError
        terms: dict[Expr, int] = {}
        for atom, coefficient in form.terms.items():
            if atom is self._outer:
                continue
            new = self._merged if atom is self._inner else atom if atom.fn == "index" else self._atom(atom)
            terms[new] = terms.get(new, 0) + coefficient
        return Affine(terms, form.constant).expr()

    def _atom(self, atom: Expr) -> Expr:
        return self._done[atom] if atom in self._done else self._other(atom)

    def _other(self, node: Expr) -> Expr:
        if not node.args:
            return node
        if node.fn == "reduce":
            return rebuild(node, (self._get(node.args[0]), *node.args[1:]))
        args = tuple(self._get(child) for child in node.args)
        return node if all(a is b for a, b in zip(args, node.args, strict=True)) else rebuild(node, args)


# cutting an axis --------------------------------------------------------------------------------------------------------------------


def cut_axis(stores: Sequence[StoreAt], axis: Expr, limit: int) -> list[tuple[Expr, tuple[StoreAt, ...]]]:
    """The axis cut where clamps and comparisons of it change, so that its inside needs none: [(variable, stores), ...].

    At most `limit` parts; otherwise the axis stays whole.
    """
    simplifier = Simplifier()
    roots = [root for store in stores for root in (store.offset, store.value)]
    cuts = sorted({cut for node in walk(*roots) for cut in _cuts(node, axis, simplifier)})
    if not cuts or len(cuts) >= limit:
        return [(axis, tuple(stores))]
    parts: list[tuple[Expr, tuple[StoreAt, ...]]] = []
    for first, last in zip([0, *cuts], [*cuts, axis.extent], strict=True):
        variable = index(f"{axis.attr[0]}@{first}", last - first)
        here: Mapping[Expr, Expr] = {axis: variable + first}
        fresh = Simplifier()
        moved = (StoreAt(s.slot, substitute(s.offset, here), substitute(s.value, here)) for s in stores)
        parts.append((variable, tuple(StoreAt(s.slot, fresh.simplify(s.offset), fresh.simplify(s.value)) for s in moved)))
    return parts


def _cuts(node: Expr, axis: Expr, simplifier: Simplifier) -> list[int]:
    if node.fn not in ("lt", "le", "gt", "ge", "eq", "ne", "min", "max") or node.args[0].dtype != i64:
        return []
    difference = simplifier.affine(node.args[0]).add(simplifier.affine(node.args[1]), -1)
    if set(difference.terms) != {axis}:
        return []
    slope, constant, fn = difference.terms[axis], difference.constant, node.fn
    if slope < 0:
        slope, constant, fn = -slope, -constant, {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(fn, fn)
    reaches_zero, exceeds_zero = -(constant // slope), (-constant) // slope + 1
    cuts = {"le": {exceeds_zero}, "gt": {exceeds_zero}, "eq": {reaches_zero, exceeds_zero}, "ne": {reaches_zero, exceeds_zero}}
    return [cut for cut in cuts.get(fn, {reaches_zero}) if 0 < cut < axis.extent]
