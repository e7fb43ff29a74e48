"""From expressions over indices to nodes that are one step from instructions.

Offsets are split into what an instruction needs, with the vector axis v of the place (a loop of the nest, or of a reduction):

    sload   args (rest,), attr (slot, constant)                       no v: a scalar
    vload   args (rest, v), attr (slot, constant, coefficient)        rest + coefficient * v
    xload   args (rest, v), attr (slot, offsets)                      rest + offsets[v], for an axis v that fits into the lanes
    gload   args (rest, offset), attr (slot, constant)                rest is scalar, offset any function of v
    tload   args (rest, v, q), attr (slot, constant, coefficient, offsets)      rest + q + (coefficient * v, or offsets[v])

`rest` is a chain of sums in the order in which loops bind their terms, so that each part is computed outside the loops that do not
change it. Integer work on v is narrowed to i32 where the ranges allow: vectors of i64 divide and multiply slowly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.kernel.evaluate import evaluate
from graphc.kernel.expr import COMPARISONS, PRIMITIVES, Expr, call, cast, const, rebuild, substitute, walk
from graphc.kernel.index import Affine, Simplifier
from graphc.kernel.spec import StoreAt
from graphc.types.dtype import i32, i64

_NARROW = frozenset({"add", "sub", "mul", "neg", "min", "max", "floordiv", "mod", "select"})
_I32 = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Store:
    """slot[rest + constant + coefficient * v] = value, or with `offset`, any function of v, in place of coefficient * v."""

    slot: int
    rest: Expr
    constant: int
    coefficient: int
    offset: Expr | None
    value: Expr

    @property
    def roots(self) -> tuple[Expr, ...]:
        return (self.rest, self.value) if self.offset is None else (self.rest, self.offset, self.value)


@dataclass(frozen=True)
class TileForm:
    """An offset as terms + constant + q + (coefficient * v, or offsets[v] where they are given)."""

    terms: dict[Expr, int]
    constant: int
    coefficient: int
    offsets: tuple[int, ...]


def tile_form(offset: Expr, v: Expr, q: Expr, lanes: int, simplifier: Simplifier, frees: Frees) -> TileForm | None:
    """The offset as a row along q for each value of v, where it is contiguous along q and not along v; otherwise None."""
    form = simplifier.affine(offset)
    if form.terms.get(q) != 1 or v not in frees(offset):
        return None
    rest = {atom: c for atom, c in form.terms.items() if atom is not q}
    if any(q in frees(atom) for atom in rest):
        return None
    coefficient = rest.pop(v, 0)
    if not any(v in frees(atom) for atom in rest):
        return TileForm(rest, form.constant, coefficient, ()) if coefficient not in (0, 1) else None
    if v.extent > lanes:
        return None
    each = each_lane(Affine({**rest, v: coefficient} if coefficient else rest, form.constant), v, simplifier, frees)
    return None if each is None else TileForm(each[0], 0, 0, each[1])


def each_lane(form: Affine, v: Expr, simplifier: Simplifier, frees: Frees) -> tuple[dict[Expr, int], tuple[int, ...]] | None:
    """(terms, constants) with the form = terms + constants[v], where the terms are the same for every value of v."""
    varying = [atom for atom in form.terms if v in frees(atom)]
    terms = {atom: c for atom, c in form.terms.items() if v not in frees(atom)}
    lanes = [_atom_lanes(atom, v, simplifier, frees) for atom in varying]
    constants: list[int] = []
    first: dict[Expr, int] | None = None
    for lane in range(v.extent):
        total = Affine(terms, form.constant)
        for atom, values in zip(varying, lanes, strict=True):
            total = total.add(values[lane], form.terms[atom])
        if first is not None and total.terms != first:
            return None
        first = total.terms
        constants.append(total.constant)
    return (dict(first), tuple(constants)) if first is not None else None


def _atom_lanes(atom: Expr, v: Expr, simplifier: Simplifier, frees: Frees) -> list[Affine]:
    """The atom for each value of v."""
    if frees(atom) == {v} and all(node.fn in PRIMITIVES or node.fn in ("const", "index") for node in walk(atom)):
        return [Affine(constant=int(value)) for value in evaluate(atom, {v: np.arange(v.extent)})]
    return [simplifier.affine(simplifier.simplify(substitute(atom, {v: const(lane, i64)}))) for lane in range(v.extent)]


class Frees:
    """Free indices of nodes, remembered."""

    def __init__(self) -> None:
        self._known: dict[Expr, frozenset[Expr]] = {}

    def __call__(self, root: Expr) -> frozenset[Expr]:
        found = self._known.get(root)
        if found is None:
            for node in walk(root):
                if node not in self._known:
                    self._known[node] = self._below(node)
            found = self._known[root]
        return found

    def _below(self, node: Expr) -> frozenset[Expr]:
        if node.fn == "index":
            return frozenset({node})
        below = frozenset[Expr]().union(*(self._known[child] for child in node.args))
        return below - set(node.args[1:]) if node.fn == "reduce" else below


class Lowering:
    """Lowers the stores of one nest.

    `order`: loop variables, outermost first; `lanes`: of those whose values are lanes; `tile`: the axis of tile loads and their
    lanes (see nest_tile).
    """

    def __init__(self, order: Sequence[Expr], lanes: Mapping[Expr, int], frees: Frees, tile: tuple[Expr, int] | None = None) -> None:
        self._lanes = lanes
        self._tile = tile
        self._depth = {axis: k for k, axis in enumerate(order)}
        self._vectors = frozenset(lanes)
        self._frees = frees
        self._simplifier = Simplifier()
        self._new: dict[Expr, Expr] = {}
        self._narrow: dict[Expr, Expr] = {}

    def store(self, store: StoreAt) -> Store:
        self._place_reductions(store.value)
        value = self.value(store.value)
        rest, constant, axis, coefficient, offset = self._split(store.offset)
        return Store(store.slot, rest, constant, coefficient if axis is not None else 0, offset, value)

    def value(self, root: Expr) -> Expr:
        for node in walk(root):
            if node not in self._new:
                self._new[node] = self._node(node)
        return self._new[root]

    def _place_reductions(self, root: Expr) -> None:
        """Axes of reductions come after the nest's, those of outer reductions first."""
        for node in reversed(list(walk(root))):
            if node.fn == "reduce":
                for axis in node.args[1:]:
                    self._depth.setdefault(axis, len(self._depth))

    def _is_vector(self, node: Expr) -> bool:
        return not self._vectors.isdisjoint(self._frees(node))

    def _node(self, node: Expr) -> Expr:
        if node.fn == "load":
            return self._load(node)
        narrow = self._narrowed(node)
        if narrow is not None:
            self._narrow[node] = narrow
            return cast(narrow, i64)
        if not node.args:
            return node
        if node.args[0].dtype == i64 and (node.fn in COMPARISONS or node.fn == "cast") and self._is_vector(node):
            args = self._narrow_args(node.args)
            if args is not None:
                return cast(args[0], node.dtype) if node.fn == "cast" else call(node.fn, *args)
        return self._rebuild(node)

    def _rebuild(self, node: Expr) -> Expr:
        if node.fn == "reduce":
            return rebuild(node, (self._new[node.args[0]], *node.args[1:]))
        args = tuple(self._new[child] for child in node.args)
        return node if all(a is b for a, b in zip(args, node.args, strict=True)) else rebuild(node, args)

    # offsets ------------------------------------------------------------------------------------------------------------------

    def _load(self, node: Expr) -> Expr:
        if self._tile is not None:
            (v,) = self._vectors
            form = tile_form(node.args[0], v, *self._tile, self._simplifier, self._frees)
            if form is not None:
                attr = (node.attr, form.constant, form.coefficient, form.offsets)
                return Expr("tload", node.dtype, (self._chain(form.terms), v, self._tile[0]), attr)
        fixed = self._fixed_lanes(node.args[0])
        if fixed is not None:
            v, terms, offsets = fixed
            return Expr("xload", node.dtype, (self._chain(terms), v), (node.attr, offsets))
        rest, constant, axis, coefficient, offset = self._split(node.args[0])
        if offset is not None:
            return Expr("gload", node.dtype, (rest, offset), (node.attr, constant))
        if axis is not None:
            return Expr("vload", node.dtype, (rest, axis), (node.attr, constant, coefficient))
        return Expr("sload", node.dtype, (rest,), (node.attr, constant))

    def _fixed_lanes(self, offset: Expr) -> tuple[Expr, dict[Expr, int], tuple[int, ...]] | None:
        """(v, terms, offsets) of an xload, where the offset is no affine function of v and v needs no loop."""
        found = self._frees(offset) & self._vectors
        if len(found) != 1:
            return None
        (v,) = found
        form = self._simplifier.affine(offset)
        if v.extent > self._lanes.get(v, 0) or not any(v in self._frees(atom) for atom in form.terms if atom is not v):
            return None
        each = each_lane(form, v, self._simplifier, self._frees)
        return None if each is None else (v, *each)

    def _split(self, offset: Expr) -> tuple[Expr, int, Expr | None, int, Expr | None]:
        """rest, constant, vector axis and its coefficient (None, 0: no such term), offset that is another function of it (or None)."""
        form = self._simplifier.affine(offset)
        scalar = {atom: c for atom, c in form.terms.items() if not self._is_vector(atom)}
        vector = {atom: c for atom, c in form.terms.items() if atom not in scalar}
        rest = self._chain(scalar)
        if not vector:
            return rest, form.constant, None, 0, None
        if len(vector) == 1:
            ((atom, coefficient),) = vector.items()
            if atom in self._vectors:
                return rest, form.constant, atom, coefficient, None
        whole = Affine(vector).expr()
        self.value(whole)
        return rest, form.constant, None, 0, self._narrow.get(whole, self._new[whole])

    def _chain(self, terms: Mapping[Expr, int]) -> Expr:
        """((terms of the outermost loop) + terms of the next) + ..., over lowered atoms."""
        total: Expr = const(0, i64)
        for atom in sorted(terms, key=self._order_of):
            self.value(atom)
            total = total + call("mul", self._new[atom], terms[atom])
        return total

    def _order_of(self, atom: Expr) -> tuple[int, int, str]:
        free = self._frees(atom)
        deepest = max((self._depth.get(axis, -1) for axis in free), default=-1)
        return deepest, len(free), repr(atom) if atom.fn != "index" else ""

    # narrowing ----------------------------------------------------------------------------------------------------------------

    def _fits(self, node: Expr) -> bool:
        low, high = self._simplifier.bounds(node)
        return _I32[0] <= low and high <= _I32[1]

    def _narrowed(self, node: Expr) -> Expr | None:
        """An i32 expression for an i64 one that varies over lanes."""
        if node.dtype != i64 or not self._fits(node):
            return None
        if node.fn == "reduce" and node.attr in ("min", "max"):
            body = self._narrow.get(node.args[0])
            return None if body is None else Expr("reduce", i32, (body, *node.args[1:]), node.attr)
        if not self._is_vector(node):
            return None
        if node.fn == "index":
            return Expr("cast", i32, (node,))
        if node.fn == "cast" and node.args[0].dtype.kind in "biu":
            return cast(self._new[node.args[0]], i32)
        if node.fn not in _NARROW:
            return None
        if node.fn == "select":
            sides = self._narrow_args(node.args[1:])
            return None if sides is None else call("select", self._new[node.args[0]], *sides)
        args = self._narrow_args(node.args)
        return None if args is None else call(node.fn, *args)

    def _narrow_args(self, args: Sequence[Expr]) -> tuple[Expr, ...] | None:
        out: list[Expr] = []
        for arg in args:
            narrow = self._narrow.get(arg)
            if narrow is None:
                if not self._fits(arg) or self._is_vector(arg):
                    return None
                narrow = const(arg.attr, i32) if arg.is_const else cast(self._new[arg], i32)
            out.append(narrow)
        return tuple(out)
