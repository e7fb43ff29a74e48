"""A recurrent layer backward through time, in one call: per step the derivatives of the cell, then the product with the weights.

A thread keeps its items (direction, rows, units) through all steps, and with them the gradients of their states. The gradients of the
sums lie twice in shared memory, for this step and the one before, so threads meet once per phase, between cell and product. Every sum
goes over gates and units in order, so results do not depend on threads or tiles. Gradients of weights are left to a product over all
steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.kernel.expr import Expr, walk
from graphc.kernel.recurrent import Phase, RecurrentGradSpec
from graphc.target import Target
from graphc_cpu.emit.expression import Expressions
from graphc_cpu.emit.ir import Function, Value
from graphc_cpu.kernels.recurrent_fetch import Stream
from graphc_cpu.kernels.recurrent_items import PEEPHOLES, Place, Product, RecurrentItems, Rows


def emit_recurrent_grad(spec: RecurrentGradSpec, target: Target, name: str) -> Function:
    """Raises UnsupportedError for dtypes that have no product."""
    return _RecurrentGrad(spec, target, name).emit()


class _RecurrentGrad(RecurrentItems):
    def __init__(self, spec: RecurrentGradSpec, target: Target, name: str) -> None:
        super().__init__(spec, target, name)
        self.spec = spec
        self.dc, self.dgated, self.sums, _ = spec.shared
        slopes = (*spec.cell.dx, *spec.cell.ds, *spec.cell.holes)
        names = {node.attr for node in walk(*slopes) if node.fn == "arg"}
        self._gates_of_x = [gate for gate in range(spec.gates) if f"x{gate}" in names]
        self.adds = spec.cell.direct is not None or "lengths" in spec.inputs

    @property
    def _states(self) -> dict[str, int]:
        """Gradients of states -> where they begin in the shared memory."""
        return {"h": 0} | ({"c": self.dc} if self.spec.cell.dc is not None else {})

    def start(self, d: Value, rows: Rows, units: Value) -> None:
        def element(row: Value, block: Value, valid: int) -> None:
            place = self.f.add(self.outer(d, row, self.spec.hidden), self.f.mul(block, self.tile.lanes))
            for name, start in self._states.items():
                value = self.load(self.at(self.operand(f"dy_{name}"), place), valid)
                self.store(value, self.state(start, d, row, block), self.tile.lanes)

        self.each_row(rows, lambda row, _: self.each_block(units, lambda block, _, valid: element(row, block, valid)))

    def finish(self, d: Value, rows: Rows, units: Value) -> None:
        wanted = {name: start for name, start in self._states.items() if f"d{name}0" in self.spec.outputs}

        def element(row: Value, block: Value, valid: int) -> None:
            place = self.f.add(self.outer(d, row, self.spec.hidden), self.f.mul(block, self.tile.lanes))
            for name, start in wanted.items():
                value = self.load(self.state(start, d, row, block), self.tile.lanes)
                self.store(value, self.at(self.operand(f"d{name}0"), place), valid)

        if wanted:
            self.each_row(rows, lambda row, _: self.each_block(units, lambda block, _, valid: element(row, block, valid)))

    # a step ---------------------------------------------------------------------------------------------------------------------

    def step(self, step: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        f, spec = self.f, self.spec
        parity = f.op(f"and i64 {step.name}, 1", "i64")
        turned = f.op(f"icmp ne i64 {parity.name}, 0", "i1")
        self.of_sums = f.add(f.mul(parity, spec.rows * spec.gates_pitch), self.sums)
        start = 0
        for phase in spec.cell.phases:
            last = phase is spec.cell.phases[-1]

            def cell(d: Value, rows: Rows, units: Value, phase: Phase = phase, last: bool = last) -> None:
                t = self.time(step, d, backward=True)
                self.each_row(rows, lambda row, inner: self.each_block(units, lambda block, of_item, valid:
                    self._cell(Place(d, t, row, inner, units, block, of_item, valid), phase, last)))  # fmt: skip

            def product(d: Value, rows: Rows, units: Value, phase: Phase = phase, start: int = start, last: bool = last) -> None:
                self._product(phase, start, d, rows, units, f.add(step, 1) if last else None)

            self.each_item(cell, turned)
            self.meet()
            self.each_item(product, turned)
            start += phase.gates * spec.hidden * self.tile.units * self.tile.lanes
        return ()

    def _product(self, phase: Phase, start: int, d: Value, rows: Rows, units: Value, following: Value | None) -> None:
        """The gradient of what the phase multiplied, for the item's units. `following`: the step whose cells come next."""
        f, spec, tile = self.f, self.spec, self.tile
        depth = phase.gates * spec.hidden
        item = f.add(f.mul(d, spec.unit_groups), units)
        panel = self.at(self.weights, f.add(f.mul(item, spec.gates * spec.hidden * tile.units * tile.lanes), start))
        number = f.add(f.mul(d, spec.batch), rows.start)
        of_rows = self.at(self.at(self.memory, self.of_sums), f.add(f.mul(number, spec.gates_pitch), phase.first * spec.hidden))
        result = self.state(self.dgated if phase.of_gated else 0, d, rows.start, f.mul(units, tile.units))
        shape = Product(depth, spec.gates_pitch, spec.pitch, adds=self.adds and not phase.of_gated)
        for chunk in range(tile.units // tile.vectors):
            weights = self.at(panel, chunk * depth * tile.vectors * tile.lanes)
            places = [(chunk * tile.vectors + vector) * tile.lanes for vector in range(tile.vectors)]
            blocks = [f.add(f.mul(units, tile.units), chunk * tile.vectors + vector) for vector in range(tile.vectors)]
            streams = [stream for block in blocks if following is not None for stream in self._streams(d, following, rows.start, block)]
            self.tiles(shape, of_rows, weights, result, places, rows.count, streams)

    def _streams(self, d: Value, step: Value, row: Value, block: Value) -> Iterator[Stream]:
        """What the cell reads and writes for a vector of units."""
        f, spec = self.f, self.spec
        unit = f.mul(block, self.tile.lanes)
        t, before = self.time(step, d, backward=True), self.time(f.add(step, 1), d, backward=True)
        every, every_step = self._number(d, t, row), spec.steps if spec.batch_first else 1
        named = {"y": (before, spec.batch_first, False), "cells": (before, False, False), "sums": (t, False, False),
                 "dy": (t, spec.batch_first, False), "dx": (t, spec.batch_first, True)}  # fmt: skip
        vectors = {"sums": spec.gates, "dx": spec.gates, "ds": spec.gates, "holes": 3}
        for name in ("x", *spec.inputs, *spec.outputs):
            parts = vectors.get(name, 1) if name != "x" else spec.gates
            width = parts * spec.hidden
            if name == "x" or name in named:
                when, first, last = named.get(name, (t, spec.batch_first, True))
                start, step_of_row = self.in_time(d, when, row, width, first, last), self.row_step(width, first, last)
            elif name in ("ds", "before", "gated", "holes"):
                start, step_of_row = f.mul(every, width), width * every_step
            else:
                continue
            base = self.x if name == "x" else self.operand(name)
            for part in range(parts) if name != "x" else self._gates_of_x:
                yield Stream(self.at(base, f.add(f.add(start, unit), part * spec.hidden)), step_of_row)

    # the cell -------------------------------------------------------------------------------------------------------------------

    def _cell(self, place: Place, phase: Phase, last: bool) -> None:
        """One vector of units of one row: the gradients of the phase's gates; in the last phase all else."""
        f, spec, cell, lanes = self.f, self.spec, self.spec.cell, self.tile.lanes
        leaf = _Leaves(self, place)
        expressions = Expressions(f, self.target, lanes, leaf)
        live = self.live(place)

        def shown(value: Expr) -> Value:
            found = expressions.value(value)
            return found if live is None else f.op(f"select {live}, {found}, {self.zero}", found.type)

        every = self._number(place.d, place.t, place.row)
        at = f.mul(place.block, lanes)
        for gate in range(phase.first, phase.first + phase.gates):
            ds = shown(cell.ds[gate])
            number = f.add(f.mul(place.d, spec.batch), place.row)
            shared = f.add(f.add(f.mul(number, spec.gates_pitch), gate * spec.hidden), at)
            self.store(ds, self.at(self.at(self.memory, self.of_sums), shared), place.valid)
            self._put("ds", ds, f.add(f.add(f.mul(every, spec.gates * spec.hidden), gate * spec.hidden), at), place)
            x = self.in_time(place.d, place.t, place.row, spec.gates * spec.hidden, spec.batch_first, True)
            self._put("dx", shown(cell.dx[gate]), f.add(f.add(x, gate * spec.hidden), at), place)
        if not last:
            return
        for hole, slope in enumerate(cell.holes):
            self._put("holes", shown(slope), f.add(f.add(f.mul(every, 3 * spec.hidden), hole * spec.hidden), at), place)
        row = f.add(f.mul(every, spec.hidden), at)
        if "before" in spec.outputs:
            self._put("before", leaf.value("h"), row, place)
        if cell.gated is not None and "gated" in spec.outputs:
            self._put("gated", shown(cell.gated), row, place)
        states: list[tuple[int, Expr | None]] = [(self.dc, cell.dc)] if cell.dc is not None else []
        if self.adds:
            states.append((0, cell.direct))
        made = [(start, self.zero if slope is None else expressions.value(slope)) for start, slope in states]
        for start, value in made:
            pointer = self.state(start, place.d, place.row, place.block)
            if live is not None:
                value = f.op(f"select {live}, {value}, {self.load(pointer, lanes)}", value.type)
            self.store(value, pointer, lanes)

    def _number(self, d: Value, t: Value, row: Value) -> Value:
        """Of a row of (D, T, B, ...), or of (D, B, T, ...) where batch_first."""
        f, spec = self.f, self.spec
        if spec.batch_first:
            return f.add(f.mul(f.add(f.mul(d, spec.batch), row), spec.steps), t)
        return f.add(f.mul(f.add(f.mul(d, spec.steps), t), spec.batch), row)

    def _put(self, name: str, value: Value, offset: Value, place: Place) -> None:
        """Store to an output, where somebody reads it."""
        if name in self.spec.outputs:
            self.store(value, self.at(self.operand(name), offset), place.valid)


class _Leaves:
    """The args of a backward cell at one place, each loaded once."""

    def __init__(self, kernel: _RecurrentGrad, place: Place) -> None:
        self._k, self._place = kernel, place
        self._made: dict[str, Value] = {}
        self._before: tuple[Value, Value] | None = None

    def __call__(self, name: str) -> Value:
        return self.value(name)

    def value(self, name: str) -> Value:
        if name not in self._made:
            self._made[name] = self._load(name)
        return self._made[name]

    def _load(self, name: str) -> Value:
        k, place = self._k, self._place
        f, spec, lanes = k.f, k.spec, k.tile.lanes
        at = f.mul(place.block, lanes)
        width = spec.gates * spec.hidden
        if name in ("h", "c"):
            return self._state_before(name)
        if name == "dh":
            own = k.load(k.state(0, place.d, place.row, place.block), lanes)
            offset = k.in_time(place.d, place.t, place.row, spec.hidden, spec.batch_first, False)
            seed = k.load(k.at(k.operand("dy"), f.add(offset, at)), place.valid)
            return f.op(f"fadd {own}, {seed.name}", own.type)
        if name in ("dc", "dgated"):
            return k.load(k.state(k.dc if name == "dc" else k.dgated, place.d, place.row, place.block), lanes)
        if name == "b":
            return k.load(k.at(k.operand("bias"), f.add(f.mul(place.d, spec.hidden), at)), place.valid)
        if name in PEEPHOLES:
            start = f.add(f.mul(place.d, 3 * spec.hidden), PEEPHOLES.index(name) * spec.hidden)
            return k.load(k.at(k.operand("peepholes"), f.add(start, at)), place.valid)
        base, first, last = (k.operand("sums"), False, False) if name[0] == "s" else (k.x, spec.batch_first, True)
        offset = f.add(k.in_time(place.d, place.t, place.row, width, first, last), int(name[1:]) * spec.hidden)
        return k.load(k.at(base, f.add(offset, at)), place.valid)

    def _state_before(self, name: str) -> Value:
        """The state h or c before the step: of the step before it, or the initial one."""
        k, place = self._k, self._place
        f, spec = k.f, k.spec
        if self._before is None:
            self._before = self._step_before()
        inside, other = self._before
        at = f.mul(place.block, k.tile.lanes)
        offset = k.in_time(place.d, other, place.row, spec.hidden, spec.batch_first and name == "h", False)
        value = k.load(k.at(k.operand("y" if name == "h" else "cells"), f.add(offset, at)), place.valid)
        start = k.zero
        if f"{name}0" in spec.inputs:
            start = k.load(k.at(k.operand(f"{name}0"), f.add(k.outer(place.d, place.row, spec.hidden), at)), place.valid)
        return f.op(f"select {inside}, {value}, {start}", value.type)

    def _step_before(self) -> tuple[Value, Value]:
        """Whether the row took part in a step before this one, and which (else this one)."""
        k, place = self._k, self._place
        f, spec = k.f, k.spec
        after = f.add(place.t, 1)
        ends = f.op(f"icmp slt i64 {after.name}, {spec.steps}", "i1")
        if "lengths" in spec.inputs:
            length = f.load("i32", f.pointer(k.operand("lengths"), place.row, "i32"), 4)
            wide = f.op(f"sext {length} to i64", "i64")
            short = f.op(f"icmp slt i64 {after.name}, {wide.name}", "i1")
            ends = f.op(f"and i1 {ends.name}, {short.name}", "i1")
        begins = f.op(f"icmp sgt i64 {place.t.name}, 0", "i1")
        choices = [(ends, after) if reverse else (begins, f.sub(place.t, 1)) for reverse in spec.reverse]
        inside, other = choices[0]
        if len(choices) > 1:
            second = f.op(f"icmp ne i64 {place.d.name}, 0", "i1")
            inside = f.op(f"select {second}, {choices[1][0]}, {inside}", "i1")
            other = f.op(f"select {second}, {choices[1][1]}, {other}", "i64")
        return inside, f.op(f"select {inside}, {other}, {place.t}", "i64")
