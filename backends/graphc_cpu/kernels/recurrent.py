"""A recurrent layer: all steps in one call, on the register tile of the matrix product.

A thread keeps its items (direction, rows, units) through all steps. In each phase of a step it makes the sums of an item, which stay in
its first-level cache, and then applies the cell to them. The state h lies twice in shared memory, before and after a step, so threads
meet once per phase, before its products; where whole states belong to one thread each, they never meet. Every second step takes the
items the other way round, so that the weights used last are found in the cache.
Each sum goes over the units of the state in order, so results do not depend on threads or tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphc.kernel.recurrent import Phase, RecurrentSpec
from graphc.target import Target
from graphc_cpu.emit.expression import Expressions
from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.kernels.recurrent_fetch import Stream
from graphc_cpu.kernels.recurrent_items import PEEPHOLES, Place, Product, RecurrentItems, Rows


def emit_recurrent(spec: RecurrentSpec, target: Target, name: str) -> Function:
    """Raises UnsupportedError for dtypes that have no product."""
    return _Recurrent(spec, target, name).emit()


class _Recurrent(RecurrentItems):
    def __init__(self, spec: RecurrentSpec, target: Target, name: str) -> None:
        super().__init__(spec, target, name)
        self.spec = spec

    # before the first step and after the last -----------------------------------------------------------------------------------

    def start(self, d: Value, rows: Rows, units: Value) -> None:
        spec = self.spec
        starts = {"h0": 0} | ({"c0": spec.shared[0]} if spec.cell.c is not None else {})

        def element(row: Value, block: Value, valid: int) -> None:
            for name, start in starts.items():
                value = self.zero
                if name in spec.inputs:
                    place = self.f.add(self.outer(d, row, spec.hidden), self.f.mul(block, self.tile.lanes))
                    value = self.load(self.at(self.operand(name), place), valid)
                self.store(value, self.state(start, d, row, block), self.tile.lanes)

        self.each_row(rows, lambda row, _: self.each_block(units, lambda block, _, valid: element(row, block, valid)))

    def finish(self, d: Value, rows: Rows, units: Value) -> None:
        spec = self.spec
        last = spec.steps % 2 * spec.shared[4]
        starts = {name: start for name, start in (("y_h", last), ("y_c", spec.shared[0])) if name in spec.outputs}
        if not starts:
            return

        def element(row: Value, block: Value, valid: int) -> None:
            for name, start in starts.items():
                value = self.load(self.state(start, d, row, block), self.tile.lanes)
                place = self.f.add(self.outer(d, row, spec.hidden), self.f.mul(block, self.tile.lanes))
                self.store(value, self.at(self.operand(name), place), valid)

        self.each_row(rows, lambda row, _: self.each_block(units, lambda block, _, valid: element(row, block, valid)))

    # a step ---------------------------------------------------------------------------------------------------------------------

    def step(self, step: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        f, spec = self.f, self.spec
        parity = f.op(f"and i64 {step.name}, 1", "i64")
        self.turned = f.op(f"icmp ne i64 {parity.name}, 0", "i1")
        self.before = f.mul(parity, spec.shared[4])
        self.after = f.sub(i64(spec.shared[4]), self.before)
        start = 0
        for number, phase in enumerate(spec.cell.phases):
            last = number == len(spec.cell.phases) - 1

            def item(d: Value, rows: Rows, units: Value, phase: Phase = phase, start: int = start, last: bool = last) -> None:
                t = self.time(step, d)
                self._sums(phase, start, d, t, rows, units)
                self.each_row(rows, lambda row, inner: self.each_block(units, lambda block, of_item, valid:
                    self._cell(Place(d, t, row, inner, units, block, of_item, valid), last)))  # fmt: skip

            self.meet()
            self.each_item(item, self.turned)
            start += spec.hidden * self.tile.units * phase.gates * self.tile.lanes
        return ()

    def _sums(self, phase: Phase, start: int, d: Value, t: Value, rows: Rows, units: Value) -> None:
        """The products of one phase of an item, into its sums."""
        f, spec, tile = self.f, self.spec, self.tile
        item = f.add(f.mul(d, spec.unit_groups), units)
        panel = self.at(self.weights, f.add(f.mul(item, spec.hidden * spec.item_vectors * tile.lanes), start))
        of_rows = self.state(spec.shared[1] if phase.of_gated else self.before, d, rows.start)
        sums = self._item_sums(d, rows, units)
        product = Product(spec.hidden, spec.pitch, self._sums_pitch)
        for chunk in range(tile.units * phase.gates // tile.vectors):
            weights = self.at(panel, chunk * spec.hidden * tile.vectors * tile.lanes)
            numbers = range(chunk * tile.vectors, (chunk + 1) * tile.vectors)
            places = [(n // phase.gates * spec.gates + phase.first + n % phase.gates) * tile.lanes for n in numbers]
            vectors = [(f.add(f.mul(units, tile.units), n // phase.gates), phase.first + n % phase.gates) for n in numbers]
            streams = [stream for block, gate in vectors for stream in self._streams(d, t, rows.start, block, gate)]
            self.tiles(product, of_rows, weights, sums, places, rows.count, streams)

    def _streams(self, d: Value, t: Value, row: Value, block: Value, gate: int) -> Iterator[Stream]:
        """What the cell reads and writes for a gate of a vector of units."""
        f, spec = self.f, self.spec
        width, hidden, unit = spec.gates * spec.hidden, spec.hidden, f.mul(block, self.tile.lanes)
        inside = f.add(unit, gate * hidden)

        def stream(base: Value, width: int, place: Value, batch_first: bool, directions_last: bool) -> Stream:
            start = f.add(self.in_time(d, t, row, width, batch_first, directions_last), place)
            return Stream(self.at(base, start), self.row_step(width, batch_first, directions_last))

        yield stream(self.x, width, inside, spec.batch_first, True)
        if "sums" in spec.outputs:
            yield stream(self.operand("sums"), width, inside, False, False)
        if "y" in spec.outputs and gate == 0:
            yield stream(self.operand("y"), hidden, unit, spec.batch_first, False)
        if "cells" in spec.outputs and gate == spec.gates - 1:
            yield stream(self.operand("cells"), hidden, unit, False, False)

    @property
    def _sums_pitch(self) -> int:
        """Elements between the sums of two rows."""
        spec = self.spec
        return spec.item_vectors * self.tile.lanes * (spec.unit_groups if spec.shares_sums else 1)

    def _item_sums(self, d: Value, rows: Rows, units: Value) -> Value:
        """The sums of the first row of an item."""
        f, spec = self.f, self.spec
        if not spec.shares_sums:
            return self.scratch
        row = f.add(f.mul(d, spec.batch), rows.start)
        offset = f.add(f.mul(row, self._sums_pitch), f.mul(units, spec.item_vectors * self.tile.lanes))
        return self.at(self.at(self.memory, spec.shared[2]), offset)

    # the cell -------------------------------------------------------------------------------------------------------------------

    def _cell(self, place: Place, last: bool) -> None:
        """One vector of units of one row: the gated state after a first phase, the new states after the last."""
        spec, lanes = self.spec, self.tile.lanes
        expressions = Expressions(self.f, self.target, lanes, self._leaves(place))
        if not last:
            assert spec.cell.gated is not None
            gated = self.state(spec.shared[1], place.d, place.row, place.block)
            self.store(expressions.value(spec.cell.gated), gated, lanes)
            return
        live = self.live(place)
        h, y = self._kept(expressions.value(spec.cell.h), self.state(self.before, place.d, place.row, place.block), live)
        self.store(h, self.state(self.after, place.d, place.row, place.block), lanes)
        at = self.f.mul(place.block, lanes)
        if "y" in spec.outputs:
            offset = self.in_time(place.d, place.t, place.row, spec.hidden, spec.batch_first, False)
            self.store(y, self.at(self.operand("y"), self.f.add(offset, at)), place.valid)
        every = self.in_time(place.d, place.t, place.row, spec.hidden, False, False)
        if spec.cell.c is not None:
            state = self.state(spec.shared[0], place.d, place.row, place.block)
            c, _ = self._kept(expressions.value(spec.cell.c), state, live)
            self.store(c, state, lanes)
            if "cells" in spec.outputs:
                self.store(c, self.at(self.operand("cells"), self.f.add(every, at)), place.valid)
        if "sums" in spec.outputs:
            for gate in range(spec.gates):
                offset = self.f.add(self.f.add(self.f.mul(every, spec.gates), gate * spec.hidden), at)
                self.store(expressions.value(spec.cell.sums[gate]), self.at(self.operand("sums"), offset), place.valid)

    def _leaves(self, place: Place) -> Callable[[str], Value]:
        f, spec, lanes = self.f, self.spec, self.tile.lanes
        row_of_item = Rows(f.sub(place.row, place.inner), 0)
        sums = f.add(f.mul(place.inner, self._sums_pitch), f.mul(place.of_item, spec.gates * lanes))
        sums = self.at(self._item_sums(place.d, row_of_item, place.units), sums)
        gates = spec.gates * spec.hidden
        at = f.mul(place.block, lanes)
        x = f.add(self.in_time(place.d, place.t, place.row, gates, spec.batch_first, True), at)

        def leaf(name: str) -> Value:
            if name in ("h", "c"):
                start = self.before if name == "h" else spec.shared[0]
                return self.load(self.state(start, place.d, place.row, place.block), lanes)
            if name == "b":
                return self.load(self.at(self.operand("bias"), f.add(f.mul(place.d, spec.hidden), at)), place.valid)
            if name in PEEPHOLES:
                start = f.add(f.mul(place.d, 3 * spec.hidden), PEEPHOLES.index(name) * spec.hidden)
                return self.load(self.at(self.operand("peepholes"), f.add(start, at)), place.valid)
            gate = int(name[1:])
            if name[0] == "s":
                return self.load(self.at(sums, gate * lanes), lanes)
            return self.load(self.at(self.x, f.add(x, gate * spec.hidden)), place.valid)

        return leaf

    def _kept(self, value: Value, old: Value, live: Value | None) -> tuple[Value, Value]:
        """(the state after the step, what y shows of it)."""
        if live is None:
            return value, value
        before = self.load(old, self.tile.lanes)
        state = self.f.op(f"select {live}, {value}, {before}", value.type)
        return state, self.f.op(f"select {live}, {value}, {self.zero}", value.type)
