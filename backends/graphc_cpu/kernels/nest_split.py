"""Splitting axes, so that offsets become affine: the index maps of blocked layouts, reshapes and tiled broadcasts.

An axis that occurs as a // k and a % k becomes two axes. Where k does not divide its extent, the nest is cut in two before; so is an
axis of channel blocks whose last block is partly padding (block * 16 + lane < channels). An axis that decides from where each lane
of a vector comes (the channel shuffle of blocked channels) is peeled: one store for each of its values, whose lanes come from fixed places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.kernel.expr import Expr, call, const, index, substitute, walk
from graphc.kernel.index import Simplifier
from graphc.kernel.spec import Nest, StoreAt
from graphc.types.dtype import i64

_SMALLEST_FACTOR, _MOST_NESTS = 4, 4
_MOST_PEELED, _PEELED_NODES = 64, 12  # values of an axis that is peeled; nodes of a body that is worth it
_ORDER = ("lt", "le", "gt", "ge", "min", "max")


def split_axes(nest: Nest, lanes: int) -> list[Nest]:
    """The same work as nests whose axes are split where that helps; at most four nests, otherwise an axis stays as it is.

    `lanes` of the machine: an axis that is divided by a small power of two is split into vectors, where the pattern of lanes is fixed.
    """
    done: list[Nest] = []
    left = [_peeled(nest, lanes)]
    while left:
        current = left.pop()
        parts = _split_once(current, lanes, len(done) + len(left) + 2 <= _MOST_NESTS)
        if parts is None:
            done.append(current)
        else:
            left.extend(reversed(parts))
    return done


def _split_once(nest: Nest, lanes: int, may_cut: bool) -> list[Nest] | None:
    roots = [root for store in nest.stores for root in (store.offset, store.value)]
    nodes = [node for node in walk(*roots) if node.args and node.args[0].dtype == i64]
    for axis in nest.axes:
        if _is_one_vector(nest, axis, lanes):
            continue
        factor = _factor(nodes, axis, lanes)
        if factor and axis.extent % factor == 0:
            return [_divided(nest, axis, factor)]
        if factor and may_cut:
            return _cut(nest, axis, axis.extent - axis.extent % factor)
    if may_cut:
        for axis in nest.axes:
            place = _coarse_cut(nodes, axis)
            if place:
                return _cut(nest, axis, place)
    return None


def _is_one_vector(nest: Nest, axis: Expr, lanes: int) -> bool:
    """Whether an axis fills one vector, which is stored as it is: then loads with any pattern of lanes are better than two loops."""
    if axis.extent > lanes or any(node.fn == "reduce" for store in nest.stores for node in walk(store.value)):
        return False
    simplifier = Simplifier()
    return all(simplifier.affine(store.offset).terms.get(axis) == 1 for store in nest.stores)


def _peeled(nest: Nest, lanes: int) -> Nest:
    """The stores once for each value of the axis that decides where lanes come from; the nest itself where there is none."""
    roots = [store.value for store in nest.stores]
    loads = [node for node in walk(*roots) if node.fn == "load"]
    vectors = [axis for axis in nest.axes if _is_one_vector(nest, axis, lanes)]
    if len(vectors) != 1 or sum(node.dtype != i64 for node in walk(*roots)) > _PEELED_NODES:
        return nest
    simplifier = Simplifier()
    atoms = [atom for load in loads for atom in simplifier.affine(load.args[0]).terms if atom.fn != "index"]
    mixed = [set(walk(atom)) for atom in atoms]
    others = {axis for axis in nest.axes for nodes in mixed if axis in nodes and vectors[0] in nodes} - set(vectors)
    if len(others) != 1 or any(node.fn in ("load", "reduce") for nodes in mixed for node in nodes):
        return nest
    (axis,) = others
    if not 1 < axis.extent <= _MOST_PEELED:
        return nest
    axes = tuple(a for a in nest.axes if a is not axis)
    return Nest(axes, tuple(s for value in range(axis.extent) for s in _substituted(nest.stores, {axis: const(value, i64)})))


def _factor(nodes: Sequence[Expr], axis: Expr, lanes: int) -> int:
    """The smallest k of axis // k and axis % k, if it is large enough to be worth a loop of its own."""
    factors = [
        node.args[1].attr for node in nodes if node.fn in ("floordiv", "mod") and node.args[0] is axis and node.args[1].is_const
    ]  # fmt: skip
    smallest: int = min((k for k in factors if 0 < k < axis.extent), default=0)
    if 0 < smallest < _SMALLEST_FACTOR and axis.extent > lanes and lanes % smallest == 0:
        return lanes
    return smallest if smallest >= _SMALLEST_FACTOR else 0


def _divided(nest: Nest, axis: Expr, factor: int) -> Nest:
    outer, inner = index(f"{axis.attr[0]}/{factor}", axis.extent // factor), index(f"{axis.attr[0]}%{factor}", factor)
    place = nest.axes.index(axis)
    axes = (*nest.axes[:place], *(a for a in (outer, inner) if a.extent > 1), *nest.axes[place + 1 :])
    here = outer * factor + inner if outer.extent > 1 else inner
    return Nest(axes, _substituted(nest.stores, {axis: here}))


def _cut(nest: Nest, axis: Expr, place: int) -> list[Nest]:
    """The axis as [0, place) and [place, extent), each with a variable of its own."""
    parts: list[Nest] = []
    for first, last in ((0, place), (place, axis.extent)):
        variable = index(f"{axis.attr[0]}@{first}", last - first)
        stores = _substituted(nest.stores, {axis: variable + first})
        axes = tuple(variable if a is axis else a for a in nest.axes)
        parts.append(without_units(Nest(axes, stores)))
    return parts


def _substituted(stores: Sequence[StoreAt], new: Mapping[Expr, Expr]) -> tuple[StoreAt, ...]:
    fresh = Simplifier()
    return tuple(
        StoreAt(s.slot, fresh.simplify(substitute(s.offset, new)), fresh.simplify(substitute(s.value, new))) for s in stores
    )  # fmt: skip


def without_units(nest: Nest) -> Nest:
    """No axes of extent 1."""
    zeros = {axis: call("mul", axis, 0) for axis in nest.axes if axis.extent == 1}
    if not zeros:
        return nest
    return Nest(tuple(axis for axis in nest.axes if axis.extent > 1), _substituted(nest.stores, zeros))


def _coarse_cut(nodes: Sequence[Expr], axis: Expr) -> int:
    """Where a comparison of slope * axis + small terms stops being decided by the axis alone; 0: nowhere.

    The other terms together span less than one step of the axis: a block and its lanes.
    """
    simplifier = Simplifier()
    for node in nodes:
        if node.fn not in _ORDER:
            continue
        difference = simplifier.affine(node.args[0]).add(simplifier.affine(node.args[1]), -1)
        slope = difference.terms.get(axis, 0)
        others = {a: c for a, c in difference.terms.items() if a is not axis}
        if not slope or not others or any(a.fn != "index" for a in others):
            continue
        low = difference.constant + sum(min(0, c * (a.extent - 1)) for a, c in others.items())
        high = difference.constant + sum(max(0, c * (a.extent - 1)) for a, c in others.items())
        if high - low >= abs(slope):
            continue
        if slope < 0:
            slope, low, high = -slope, -high, -low
        for bound in (high, low):  # first value of the axis at which the difference is no longer negative throughout; not at all
            place = -(bound // slope)
            if 0 < place < axis.extent:
                return place
    return 0
