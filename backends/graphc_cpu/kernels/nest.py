"""The generic kernel generator: any nest of loops around scalar expressions as vector code for one machine level.

Elementwise work, reductions, normalisation, pooling, gathering and movement all come here: an op only says what one element is.
`emit_nest` rewrites a nest (nest_prepare), chooses its loops (nest_plan), splits addresses (nest_lower) and emits it (nest_emit,
nest_reduce, nest_memory).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import VerifyError
from graphc.kernel.expr import Expr, walk
from graphc.kernel.spec import Nest, NestSpec, StoreAt
from graphc.target import Target
from graphc.types.dtype import f32
from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.kernels.nest_emit import Emitter
from graphc_cpu.kernels.nest_items import emit_items
from graphc_cpu.kernels.nest_lanes import LaneLoop
from graphc_cpu.kernels.nest_lower import Frees, Lowering, Store
from graphc_cpu.kernels.nest_plan import SMALL_WORK, Plan, make_plan
from graphc_cpu.kernels.nest_prepare import cut_axis, prepare
from graphc_cpu.kernels.nest_tile import TileLoops
from graphc_cpu.kernels.nest_unroll import unroll

PARAMETERS = (("ptr", "args"), ("i64", "thread"), ("i64", "threads"))
_MOST_CUTS, _CUT_FROM = 6, 6


def emit_nest(spec: NestSpec, target: Target, name: str) -> Function:
    """The kernel `void name(ptr args, i64 thread, i64 threads)` of a spec; `args` points to the addresses of `spec.operands`.

    The result has the same bits for any number of threads. Raises UnsupportedError for what a dtype cannot do (see emit_primitive), and
    VerifyError for a spec that makes no sense.
    """
    _check(spec)
    f = Function(name, PARAMETERS)
    nests = [part for nest in spec.nests for part in prepare(nest, target.lanes(f32))]
    used = sorted({slot for nest in nests for slot in _slots(nest)})
    pointers = {slot: f.load("ptr", f.pointer(f.parameters[0], slot, "ptr"), 8) for slot in used}
    plans = [make_plan(nest, target) for nest in nests]
    small = sum(plan.work for plan in plans) < SMALL_WORK
    for plan in plans:
        emitter = Emitter(f, target, pointers, [operand.dtype for operand in spec.operands], Frees(), plan.masks)
        if plan.tile is not None:
            _tile_loops(emitter, plan, small).emit()
        else:
            _NestLoops(emitter, plan, small).emit()
    return f


def _check(spec: NestSpec) -> None:
    operands = spec.operands
    for store in (store for nest in spec.nests for store in nest.stores):
        if store.value.dtype != operands[store.slot].dtype:
            raise VerifyError(f"a value of {store.value.dtype} is stored to operand {store.slot} of {operands[store.slot].dtype}")
        for node in walk(store.offset, store.value):
            if node.fn == "arg":
                raise VerifyError(f"a nest has no scalar argument {node.attr!r}", hint="load it from an operand")
            if node.fn == "load" and node.dtype != operands[node.attr].dtype:
                raise VerifyError(f"{node.dtype} is loaded from operand {node.attr} of {operands[node.attr].dtype}")


def _tile_loops(emitter: Emitter, plan: Plan, small: bool) -> TileLoops:
    assert plan.tile is not None
    assert plan.vector is not None
    others = tuple(axis for axis in plan.order if axis not in (plan.tile, plan.vector))
    lanes = plan.lanes(plan.vector)
    tiled, plain = (
        tuple(map(Lowering((*others, plan.tile, plan.vector), {plan.vector: lanes}, emitter.frees, tile).store, plan.stores))
        for tile in ((plan.tile, lanes), None)
    )
    emitter.expect([root for store in (*tiled, *plain) for root in store.roots], {plan.vector: lanes})
    if plan.masks:
        plain = ()
    return TileLoops(emitter, others, plan.tile, plan.vector, lanes, tiled, plain, small)


def _slots(nest: Nest) -> set[int]:
    loads = {node.attr for store in nest.stores for node in walk(store.offset, store.value) if node.fn == "load"}
    return loads | {store.slot for store in nest.stores}


@dataclass(frozen=True)
class _Region:
    """A part of the last loop's range, with its own variable, and the stores there."""

    axis: Expr | None
    stores: tuple[Store, ...]

    @property
    def roots(self) -> list[Expr]:
        return [root for store in self.stores for root in store.roots]


class _NestLoops:
    """The loops of one planned nest."""

    def __init__(self, emitter: Emitter, plan: Plan, small: bool) -> None:
        self._e, self._f, self._plan, self._small = emitter, emitter.f, plan, small
        self._vector = plan.vector
        self._fixed = plan.fixed
        self._regions = self._make_regions()
        self._roots = [root for region in self._regions for root in region.roots]

    # regions --------------------------------------------------------------------------------------------------------------------

    def _make_regions(self) -> list[_Region]:
        order, plan = self._plan.order, self._plan
        if not order:
            return [self._region(None, plan.stores)]
        parts = cut_axis(plan.stores, order[-1], _MOST_CUTS) if self._may_cut() else [(order[-1], plan.stores)]
        if self._may_cut() and order[-1] is not self._vector:
            parts = [piece for axis, stores in parts for piece in unroll(axis, stores)]
        return [self._region(axis, stores) for axis, stores in parts]

    def _may_cut(self) -> bool:
        plan, last = self._plan, self._plan.order[-1]
        if plan.chunk or plan.parallel + self._fixed >= len(plan.order) or last.extent < _CUT_FROM:
            return False
        if last is self._vector:
            return last.extent > 2 * plan.lanes(last)
        return self._vector is None or self._fixed

    def _region(self, axis: Expr | None, stores: Sequence[StoreAt]) -> _Region:
        plan = self._plan
        order = [*plan.order[:-1], axis] if axis is not None else []
        vectors = set(plan.reduced)
        if self._vector is not None:
            vectors.add(axis if axis is not None and plan.order[-1] is self._vector else self._vector)
        lanes = {v: plan.lanes(v) for v in vectors}
        lowering = Lowering(order, lanes, self._e.frees)
        lowered = tuple(lowering.store(store) for store in stores)
        region = _Region(axis, lowered)
        self._e.expect([*region.roots, *(store.value for store in lowered)], lanes)
        return region

    # loops ----------------------------------------------------------------------------------------------------------------------

    def emit(self) -> None:
        """The whole nest: this thread's share of the work items."""
        if not self._fixed:
            self._shared()
            return
        axis = self._plan.order[0]
        with self._e.lanes_scope(axis, self._plan.lanes(axis), i64(0), (axis.extent,)):
            self._shared()

    def _shared(self) -> None:
        plan, e = self._plan, self._e
        outer = plan.order[int(self._fixed) : int(self._fixed) + plan.parallel]
        extents = [axis.extent for axis in outer] + ([self._chunks()] if plan.chunk else [])

        def body(digits: tuple[Value, ...]) -> None:
            with e.scope(dict(zip(outer, digits, strict=False))):
                if digits:
                    e.hoist(self._roots)
                self._level(int(self._fixed) + len(outer), digits[-1] if plan.chunk else None)

        emit_items(self._f, extents, self._small, lambda: e.hoist(self._roots), body)

    def _chunks(self) -> int:
        axis = self._plan.order[int(self._fixed) + self._plan.parallel]
        return LaneLoop(self._e, axis, self._plan.lanes(axis), self._plan.parts).chunks(self._plan.chunk)

    def _level(self, depth: int, chunk: Value | None = None) -> None:
        order = self._plan.order
        if depth == len(order):
            for region in self._regions:
                self._leaf(region)
        elif depth + 1 == len(order):
            for region in self._regions:
                assert region.axis is not None
                self._loop(region.axis, region.roots, lambda region=region: self._leaf(region), chunk)  # type: ignore[misc]
        else:
            self._loop(order[depth], self._roots, lambda: self._level(depth + 1), chunk)

    def _leaf(self, region: _Region) -> None:
        for store in region.stores:
            self._e.store(store)

    def _loop(self, axis: Expr, roots: Sequence[Expr], body: Callable[[], None], chunk: Value | None) -> None:
        if axis in self._e.lanes_of:
            self._over_lanes(axis, roots, body, chunk)
            return

        def turn(counter: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
            with self._e.scope({axis: counter}):
                self._e.hoist(roots)
                body()
            return ()

        self._f.loop(0, axis.extent, 1, turn, guarded=False)

    def _over_lanes(self, axis: Expr, roots: Sequence[Expr], body: Callable[[], None], chunk: Value | None) -> None:
        loop = LaneLoop(self._e, axis, self._plan.lanes(axis), self._plan.parts)

        def turn() -> None:
            self._e.hoist(roots)
            body()

        if chunk is None:
            loop.whole(turn)
        else:
            loop.chunk(chunk, self._plan.chunk, turn)
