"""Updates in order at places that are data: what a scatter does to the copy of its operand.

The axes that all updates have in common are shared out over threads, the last of them in chunks of whole vectors; each work item goes
through all updates in order. So every element is combined in the same order by whichever thread it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from graphc.kernel.expr import Expr, const, substitute
from graphc.kernel.index import Simplifier
from graphc.kernel.spec import StoreAt, UpdateSpec
from graphc.target import Target
from graphc.types.dtype import i64
from graphc_cpu.emit.ir import Function, Value
from graphc_cpu.kernels.items import kernel_function, operand_pointers
from graphc_cpu.kernels.nest_emit import Emitter
from graphc_cpu.kernels.nest_items import emit_items
from graphc_cpu.kernels.nest_lanes import LaneLoop
from graphc_cpu.kernels.nest_lower import Frees, Lowering
from graphc_cpu.kernels.nest_plan import SMALL_WORK, has_masks, lanes_for, max_lanes
from graphc_cpu.kernels.nest_prepare import merged

_PARTS = 4  # vectors of one update in flight
_ITEMS, _LEAST = 8, 64  # work items that are enough for all threads; elements of a row that one item takes at least


def emit_update(spec: UpdateSpec, target: Target, name: str) -> Function:
    """The kernel `void name(ptr args, i64 thread, i64 threads)` of a spec; the same bits for any number of threads."""
    f = kernel_function(name)
    if all(axis.extent for axis in (*spec.axes, spec.step)):
        _Updates(f, spec, target).emit()
    return f


class _Updates:
    """One kernel. `vector`: the axis along which the rows of the output lie, or None where there are no rows."""

    def __init__(self, f: Function, spec: UpdateSpec, target: Target) -> None:
        self.f, self.spec = f, spec
        store, axes = _simplified(spec)
        self.vector = _innermost(store.offset, axes)
        self.outer = [axis for axis in axes if axis is not self.vector]
        masks = has_masks([store], target)
        self.lanes = 1 if self.vector is None else lanes_for(self.vector.extent, max_lanes([store], target), masks)
        pointers = dict(enumerate(operand_pointers(f, len(spec.operands))))
        self.e = Emitter(f, target, pointers, [operand.dtype for operand in spec.operands], Frees(), masks)
        lanes = {} if self.vector is None else {self.vector: self.lanes}
        order = [*self.outer, spec.step, *lanes]
        self.store = Lowering(order, lanes, self.e.frees).store(store)
        self.e.expect([*self.store.roots, self.store.value], lanes)

    def emit(self) -> None:
        loop = None if self.vector is None else LaneLoop(self.e, self.vector, self.lanes, _PARTS)
        size = self._chunk()
        outer = [axis.extent for axis in self.outer]
        chunks = [loop.chunks(size)] if loop is not None and size else []

        def body(digits: tuple[Value, ...]) -> None:
            with self.e.scope(dict(zip(self.outer, digits, strict=False))):
                self.e.hoist(self.store.roots)
                self._in_order(loop, digits[-1] if chunks else None, size)

        small = prod((*outer, self.spec.step.extent, self.vector.extent if self.vector is not None else 1)) < SMALL_WORK
        emit_items(self.f, [*outer, *chunks], small, lambda: self.e.hoist(self.store.roots), body)

    def _chunk(self) -> int:
        """Blocks of vectors in a work item; 0: a whole row."""
        wanted = -(-_ITEMS // prod(axis.extent for axis in self.outer))
        if self.vector is None or wanted == 1 or self.vector.extent < 2 * _LEAST:
            return 0
        return max(1, max(_LEAST, self.vector.extent // wanted) // (self.lanes * _PARTS))

    def _in_order(self, loop: LaneLoop | None, chunk: Value | None, size: int) -> None:
        def update(number: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            with self.e.scope({self.spec.step: number}):
                if loop is None:
                    self._store()
                else:
                    self.e.hoist(self.store.roots)
                    loop.whole(self._store) if chunk is None else loop.chunk(chunk, size, self._store)
            return ()

        self.f.loop(0, self.spec.step.extent, 1, update, hint="update", guarded=False)

    def _store(self) -> None:
        self.e.hoist(self.store.roots)
        self.e.store(self.store, self.spec.combine)


def _simplified(spec: UpdateSpec) -> tuple[StoreAt, list[Expr]]:
    """Without loops of one turn; axes that lie behind each other are one."""
    simplifier = Simplifier()
    units: dict[Expr, Expr] = {axis: const(0, i64) for axis in spec.axes if axis.extent == 1}
    roots = [simplifier.simplify(substitute(root, units)) for root in (spec.store.offset, spec.store.value)]
    (offset, value), axes = merged(roots, [axis for axis in spec.axes if axis.extent > 1], simplifier)
    return StoreAt(spec.store.slot, offset, value), axes


def _innermost(offset: Expr, axes: Sequence[Expr]) -> Expr | None:
    terms = Simplifier().affine(offset).terms
    return min((axis for axis in axes if axis in terms), key=lambda axis: abs(terms[axis]), default=None)
