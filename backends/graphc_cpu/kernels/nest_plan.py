"""Choices for one nest: the order of its loops, the axis that becomes lanes (of the nest, or of each reduction), what threads share.

The choice is by a small cost model: every node counts as often as its free indices take values (that is where it will be computed),
divided by the lanes it is computed in; memory that is not contiguous along the lanes counts per element.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import permutations

from graphc.kernel.expr import Expr, index, rebuild, substitute, walk
from graphc.kernel.index import Simplifier
from graphc.kernel.spec import Nest, StoreAt
from graphc.target import Target
from graphc.types.dtype import i64
from graphc_cpu.kernels.nest_lower import Frees, each_lane, tile_form
from graphc_cpu.kernels.nest_memory import MOST_PIECES, pieces_of

SMALL_WORK = 16384  # scalar operations below which a second thread does not pay
SMALL_ITEM = 2048  # scalar operations that make a work item worth its overhead
_MANY_ITEMS, _SOME_ITEMS = 64, 12
_TILE_NODES = 12
_HEAVY = {"div": 2.0, "sqrt": 2.0, "idiv": 4.0, "floordiv": 4.0, "mod": 4.0, "fmod": 6.0, "pow": 24.0}
_MATH = frozenset({
    "exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
})  # fmt: skip
_GATHER, _SCATTER, _STRIDED, _REVERSED, _FIXED = 1.2, 1.6, 2.0, 1.3, 3.0


@dataclass(frozen=True)
class Plan:
    """`order`: all loops, outermost first. `vector`: the one whose values are lanes (None: each reduction has its own, see `reduced`).
    `fixed`: it is the first and fits into one vector, so it has no loop.

    `parts`: vectors of `vector` that are computed together. `parallel`: how many outer loops make the work items. `chunk`: blocks of
    parts * lanes elements in one work item, where the vector loop itself is shared out (0: it is not). `tile`: the axis along which
    loads are contiguous that are not along `vector`; see nest_tile.
    """

    order: tuple[Expr, ...]
    stores: tuple[StoreAt, ...]
    vector: Expr | None
    reduced: frozenset[Expr]
    tile: Expr | None
    fixed: bool
    parts: int
    parallel: int
    chunk: int
    work: float
    max_lanes: int
    masks: bool

    def lanes(self, axis: Expr) -> int:
        return lanes_for(axis.extent, self.max_lanes, self.masks)


def lanes_for(extent: int, most: int, masks: bool) -> int:
    """Lanes for an axis: no wider than it (where masks are cheap: the next power of two)."""
    power = 1 << (extent.bit_length() - 1)
    if masks and power < extent:
        power *= 2
    return max(1, min(most, power))


def max_lanes(stores: Sequence[StoreAt], target: Target) -> int:
    """Lanes of a register for the kernel's elements: of float32, unless all memory is wider or all values are narrower."""
    nodes = list(walk(*(store.value for store in stores)))
    memory = [node.dtype.itemsize for node in nodes if node.fn == "load"] + [store.value.dtype.itemsize for store in stores]
    values = [node.dtype.itemsize for node in nodes if node.dtype != i64 and node.fn != "const"]
    if min(memory) == 8:
        return target.vector_bytes // 8
    if values and max(values) < 4 and max(memory) < 4:
        return target.vector_bytes // max(max(values), max(memory))
    return target.vector_bytes // 4


def has_masks(stores: Sequence[StoreAt], target: Target) -> bool:
    """Whether masked loads and stores of all the nest's element sizes are single instructions."""
    if target.vector_bytes == 64:
        return True
    sizes = {node.dtype.itemsize for store in stores for node in walk(store.value) if node.fn == "load"}
    return target.vector_bytes == 32 and (sizes | {store.value.dtype.itemsize for store in stores}) <= {4, 8}


def make_plan(nest: Nest, target: Target) -> Plan:
    """Plan a prepared nest."""
    model = _Model(nest, target)
    candidates: list[tuple[Expr | None, Expr | None]] = [(axis, None) for axis in (None, *reversed(nest.axes))]
    candidates += [(v, q) for v, q in permutations(nest.axes, 2) if model.can_tile(v, q)]
    costs = {pair: model.cost(*pair) for pair in candidates}
    vector, tile = min(candidates, key=lambda pair: costs[pair])
    stores, reduced = model.reductions(vector)
    order, limit = model.order(vector)
    parts = model.parts(vector, len(order) > 0 and order[-1] is vector)
    fixed = bool(order) and order[0] is vector and vector.extent <= model.lanes(vector)
    block = parts * (model.lanes(vector) if vector is not None else 1)
    parallel, chunk = _sharing(order, vector, fixed, limit, block, costs[None, None])
    return Plan(
        tuple(order), stores, vector, frozenset(reduced), tile, fixed, parts, parallel, chunk, costs[None, None], model.most, model.masks,
    )  # fmt: skip


def _sharing(
    order: Sequence[Expr], vector: Expr | None, without_loop: bool, limit: int, block: int, work: float
) -> tuple[int, int]:  # fmt: skip
    """(parallel, chunk) of Plan. Outer loops are taken until there are enough items, but not beyond the place of a reduction, and not so
    many that the items become too small."""
    items, count, fixed = 1, 0, int(without_loop)
    for axis in order[fixed:]:
        if axis is vector or items >= _MANY_ITEMS or (count + fixed >= limit > fixed and items > 1):
            break
        if items >= _SOME_ITEMS and work < SMALL_ITEM * items * axis.extent / 4:
            break
        items *= axis.extent
        count += 1
    following = order[fixed + count :]
    if items >= _MANY_ITEMS or not following or following[0] is not vector or (0 < limit <= fixed + count and items > 1):
        return count, 0
    blocks = -(-vector.extent // block)
    wanted = -(-_MANY_ITEMS // items)
    chunk = max(1, -(-blocks // wanted), int(SMALL_ITEM * items * blocks / max(work, 1.0)))
    return count, chunk if chunk < blocks else 0


class _Model:
    """Costs of one nest."""

    def __init__(self, nest: Nest, target: Target) -> None:
        self._nest = nest
        self._frees = Frees()
        self._simplifier = Simplifier()
        self._patterns: dict[tuple[Expr, Expr], int] = {}
        self.most = max_lanes(nest.stores, target)
        self.masks = has_masks(nest.stores, target)
        self._nodes = [node for node in walk(*(store.value for store in nest.stores)) if node.fn not in ("const", "index", "arg")]
        self._offsets = self._offset_nodes()
        self._reduces = [node for node in self._nodes if node.fn == "reduce"]
        self._heavy = [node for node in self._reduces if not self._frees(node) >= set(nest.axes)]

    def _offset_nodes(self) -> set[Expr]:
        """Nodes that only serve to compute addresses."""
        values = {store.value for store in self._nest.stores}
        for node in reversed(self._nodes):
            if node in values and node.fn != "load":
                values.update(node.args)
        return set(self._nodes) - values

    def lanes(self, axis: Expr) -> int:
        return lanes_for(axis.extent, self.most, self.masks)

    def _effective(self, axis: Expr) -> float:
        """Elements per vector instruction, tails counted."""
        lanes = self.lanes(axis)
        full, rest = divmod(axis.extent, lanes)
        return axis.extent / (full + (min(rest, 1) if self.masks else rest))

    # cost ---------------------------------------------------------------------------------------------------------------------

    def can_tile(self, v: Expr, q: Expr) -> bool:
        """Whether square tiles of v and q make sense: stores contiguous along v, a load along q, little else to do."""
        if self._reduces or self.lanes(v) < 4 or self.lanes(v) > 16 or q.extent < self.lanes(v) // 2:
            return False
        if any(self._simplifier.affine(store.offset).terms.get(v) != 1 for store in self._nest.stores):
            return False
        loads = [node for node in self._nodes if node.fn == "load" and node.dtype.kind != "b"]
        if len(self._nodes) - len(self._offsets) > _TILE_NODES:
            return False
        return any(tile_form(node.args[0], v, q, self.lanes(v), self._simplifier, self._frees) is not None for node in loads)

    def _tile_cost(self, offset: Expr, v: Expr, q: Expr) -> float | None:
        """Per element: a load for each row, and a shuffle for each row and step."""
        if tile_form(offset, v, q, self.lanes(v), self._simplifier, self._frees) is None:
            return None
        lanes = self.lanes(v)
        rows = min(lanes, v.extent)
        return (1 + math.log2(lanes)) / self._effective(v) * (lanes / rows if rows < lanes else 1.0)

    def cost(self, vector: Expr | None, tile: Expr | None = None) -> float:
        active = {vector} if vector is not None else set[Expr]()
        active |= set(self._chosen(vector).values())
        total = sum(self._node(node, active) for node in self._nodes)
        if vector is not None and tile is not None:
            for node in self._nodes:
                tiled = self._tile_cost(node.args[0], vector, tile) if node.fn == "load" else None
                if tiled is not None:
                    total += self._trips(self._frees(node)) * tiled - self._node(node, active)
        return total + sum(self._store(store, vector) for store in self._nest.stores)

    def _trips(self, free: Collection[Expr]) -> float:
        return float(math.prod(axis.extent for axis in free))

    def _node(self, node: Expr, active: Collection[Expr]) -> float:
        free = self._frees(node)
        lanes = next((axis for axis in active if axis in free), None)
        trips = self._trips(free)
        if node.fn == "load":
            return trips * self._memory(node.args[0], lanes, _GATHER)
        if node in self._offsets and lanes is None:
            return 0.0
        unit = 8.0 if node.fn in _MATH else _HEAVY.get(node.fn, 0.3)
        return trips * unit / (self._effective(lanes) if lanes is not None else 1.0)

    def _store(self, store: StoreAt, vector: Expr | None) -> float:
        return self._trips(self._nest.axes) * self._memory(store.offset, vector, _SCATTER)

    def _memory(self, offset: Expr, axis: Expr | None, scattered: float) -> float:
        if axis is None:
            return 1.0
        form = self._simplifier.affine(offset)
        if any(atom is not axis and axis in self._frees(atom) for atom in form.terms):
            pieces = self._pieces(offset, axis)
            return (_FIXED + pieces - 2) / self._effective(axis) if 0 < pieces <= MOST_PIECES else scattered + 0.5
        stride = form.terms.get(axis, 0)
        if stride in (0, 1):
            return 1.0 / self._effective(axis)
        if stride == -1 or (stride == 2 and scattered == _GATHER):
            return (_REVERSED if stride == -1 else _STRIDED) / self._effective(axis)
        return scattered

    def _pieces(self, offset: Expr, axis: Expr) -> int:
        """How many loads an xload of a single vector needs (see nest_lower); 0 where its lanes do not lie at fixed places."""
        found = self._patterns.get((offset, axis))
        if found is None:
            lanes = self.lanes(axis)
            form = self._simplifier.affine(offset)
            each = each_lane(form, axis, self._simplifier, self._frees) if axis.extent <= lanes else None
            found = len(pieces_of(each[1], lanes)) if each is not None else 0
            self._patterns[offset, axis] = found
        return found

    # reductions ---------------------------------------------------------------------------------------------------------------

    def _chosen(self, vector: Expr | None) -> dict[Expr, Expr]:
        """The axis along which each reduction is vectorised; those that vary over lanes already have none."""
        chosen: dict[Expr, Expr] = {}
        for node in reversed(self._reduces):
            free = self._frees(node)
            if (vector is not None and vector in free) or not free.isdisjoint(chosen.values()):
                continue
            axis = self._best_axis(node)
            if axis is not None:
                chosen[node] = axis
        return chosen

    def _best_axis(self, node: Expr) -> Expr | None:
        inside = [n for n in walk(node.args[0]) if n.fn not in ("const", "index") and not self._frees(n).isdisjoint(node.args[1:])]
        best: Expr | None = None
        lowest = sum(self._node(n, ()) for n in inside)
        for axis in reversed(node.args[1:]):
            cost = sum(self._node(n, (axis,)) for n in inside)
            if cost < lowest and axis.extent >= 4:
                best, lowest = axis, cost
        return best

    def reductions(self, vector: Expr | None) -> tuple[tuple[StoreAt, ...], set[Expr]]:
        """The stores with the vectorised axis of each reduction made last and given a name of its own, and those axes."""
        chosen = self._chosen(vector)
        new: dict[Expr, Expr] = {}
        marked: set[Expr] = set()
        for node in walk(*(store.value for store in self._nest.stores)):
            args = tuple(new[child] for child in node.args)
            made = node if all(a is b for a, b in zip(args, node.args, strict=True)) else rebuild(node, args)
            axis = chosen.get(node)
            if axis is not None:
                lanes = index(f"{axis.attr[0]}|", axis.extent)
                others = tuple(a for a in made.args[1:] if a is not axis)
                made = substitute(Expr("reduce", made.dtype, (made.args[0], *others, axis), made.attr), {axis: lanes})
                marked.add(lanes)
            new[node] = made
        return tuple(StoreAt(s.slot, s.offset, new[s.value]) for s in self._nest.stores), marked

    # order --------------------------------------------------------------------------------------------------------------------

    def order(self, vector: Expr | None) -> tuple[list[Expr], int]:
        """Loops, outermost first, and how many of them are outside the innermost reduction (0: none is).

        Axes that reductions depend on come first, so that these are computed once; then by the stride of the store.
        """
        strides = self._simplifier.affine(self._nest.stores[0].offset).terms
        uses = {axis: sum(axis in self._frees(node) for node in self._heavy) for axis in self._nest.axes}
        ordered = sorted(self._nest.axes, key=lambda axis: (-uses[axis], axis is vector, -abs(strides.get(axis, 0))))
        limit = sum(uses[axis] > 0 for axis in ordered)
        if vector is not None and vector.extent <= self.lanes(vector):
            ordered.remove(vector)
            ordered.insert(0, vector)
            limit = limit if uses[vector] else limit + 1 if limit else 0
        return ordered, limit

    def parts(self, vector: Expr | None, innermost: bool) -> int:
        """Vectors in flight: more for short bodies."""
        if vector is None:
            return 1
        weight = 0.0
        for node in self._nodes:
            if vector in self._frees(node):
                weight += 10 if node.fn in _MATH else _HEAVY.get(node.fn, 1.0)
        wanted = 4 if weight <= 10 else 2 if weight <= 30 else 1
        while wanted > 1 and wanted * self.lanes(vector) > vector.extent:
            wanted //= 2
        return wanted
