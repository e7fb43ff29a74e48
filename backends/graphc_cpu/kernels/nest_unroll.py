"""Neighbouring elements computed together, where they share work: windows that overlap (pooling, filters).

The windows of w and w + 1 have columns in common. A loop over w is turned into one over groups of w, with one store for each member, so
that equal loads and equal partial results are the same node and are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.kernel.expr import Expr, index, substitute, walk
from graphc.kernel.index import Simplifier
from graphc.kernel.spec import StoreAt
from graphc.types.dtype import i64

Region = tuple[Expr, tuple[StoreAt, ...]]
GROUP = 4
_GAIN = 0.87  # at most so much of the work must be left
_MOST_NODES = 400  # of a group: longer bodies spill


def unroll(axis: Expr, stores: Sequence[StoreAt]) -> list[Region]:
    """The same stores over groups of the axis and, where groups leave a rest, over that; the axis as it is where that saves little."""
    whole = axis.extent // GROUP
    if not whole or not _may_share(axis, stores):
        return [(axis, tuple(stores))]
    group = index(f"{axis.attr[0]}*{GROUP}", whole)
    grouped = tuple(store for k in range(GROUP) for store in _moved(stores, axis, group * GROUP + k))
    work = _data(grouped)
    if work > _GAIN * GROUP * _data(stores) or work > _MOST_NODES:
        return [(axis, tuple(stores))]
    rest = axis.extent - whole * GROUP
    if not rest:
        return [(group, grouped)]
    last = index(f"{axis.attr[0]}@{whole * GROUP}", rest)
    return [(group, grouped), (last, _moved(stores, axis, last + whole * GROUP))]


def _may_share(axis: Expr, stores: Sequence[StoreAt]) -> bool:
    """A quick test: some store has two loads of one operand, and none has a loop inside."""
    nodes = [list(walk(store.value)) for store in stores]
    if any(node.fn == "reduce" for below in nodes for node in below):
        return False
    slots = [[node.attr for node in below if node.fn == "load" and axis in set(walk(node))] for below in nodes]
    return any(len(used) > len(set(used)) for used in slots)


def _moved(stores: Sequence[StoreAt], axis: Expr, to: Expr) -> tuple[StoreAt, ...]:
    fresh = Simplifier()
    made = (StoreAt(s.slot, substitute(s.offset, {axis: to}), substitute(s.value, {axis: to})) for s in stores)
    return tuple(StoreAt(s.slot, fresh.simplify(s.offset), fresh.simplify(s.value)) for s in made)


def _data(stores: Sequence[StoreAt]) -> int:
    """Nodes that compute or load data: addresses and conditions are computed outside or by the way."""
    return sum(node.dtype != i64 and node.dtype.kind != "b" and not node.is_const for node in walk(*(s.value for s in stores)))
