"""A recurrent layer: all steps in one call, on the register tile of the matrix product.

A thread keeps its items (direction, rows, units) through all steps. In each phase of a step it makes the sums of an item, which stay in
its first-level cache, and then applies the cell to them. The state h lies twice in shared memory, before and after a step, so threads
meet once per phase; where whole states belong to one thread each, they never meet. Every second step takes the items the other way
round, so that the weights used last are found in the cache.
Each sum goes over the units of the state in order, so results do not depend on threads or tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import UnsupportedError
from graphc.kernel.expr import arg
from graphc.kernel.recurrent import Phase, RecurrentSpec
from graphc.target import Target
from graphc_cpu.emit.expression import Expressions
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.kernels.items import Piece, digits_of, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.memory import load_lanes, store_lanes
from graphc_cpu.micro.shape import Split, split
from graphc_cpu.micro.tile import Reduction, RegisterTile

_PEEPHOLES = ("pi", "po", "pf")


@dataclass(frozen=True)
class _Rows:
    """Rows of the batch: the first, and how many."""

    start: Value
    count: int


@dataclass(frozen=True)
class _Place:
    """A vector of units of one row in one step: `row` of the batch, `inner` of the item; `block` of all units, `of_item` of the item's."""

    d: Value
    t: Value
    row: Value
    inner: Value
    units: Value
    block: Value
    of_item: Value
    valid: int


def emit_recurrent(spec: RecurrentSpec, target: Target, name: str) -> Function:
    """Raises UnsupportedError for dtypes that have no product."""
    if spec.dtype.name not in ("float32", "float64"):
        raise UnsupportedError(f"recurrent layer of {spec.dtype}", hint="cast to f32 before it")
    return _Recurrent(spec, target, name).emit()


class _Recurrent:
    def __init__(self, spec: RecurrentSpec, target: Target, name: str) -> None:
        self.spec, self.target, self.tile = spec, target, spec.tile
        self.f = kernel_function(name)
        self.element = scalar_type(spec.dtype)
        self.vector = vector_type(self.element, self.tile.lanes)
        self.groups = Split(spec.batch, spec.row_groups) if spec.batch else Split(0, 1)
        self.digits = {"d": spec.directions, "group": spec.row_groups, "units": spec.unit_groups}

    def emit(self) -> Function:
        f, spec = self.f, self.spec
        if not spec.batch or not spec.hidden:
            return f
        _, thread, threads = f.parameters
        count = len(spec.operands)
        self.x, self.weights, *self.named, self.memory, scratch = operand_pointers(f, count)
        self.meeting = f.load("ptr", f.pointer(f.parameters[0], count, "ptr"), 8)
        self.scratch = f.pointer(scratch, f.mul(thread, spec.scratch.elements), self.element)
        self.first, self.last = f.share(spec.directions * spec.row_groups * spec.unit_groups, thread, threads)
        rest = f.op(f"urem i64 {spec.directions * spec.row_groups}, {threads.name}", "i64")
        self.meets = f.op(f"icmp ne i64 {rest.name}, 0", "i1")
        self._each_item(lambda d, rows, units: self._start(d, rows, units))
        if spec.steps:
            self._meet()
            f.loop(0, spec.steps, 1, self._step, hint="step", guarded=False)
        self._each_item(lambda d, rows, units: self._finish(d, rows, units))
        return f

    # loops ----------------------------------------------------------------------------------------------------------------------

    def _each_item(self, body: Callable[[Value, _Rows, Value], None], turned: Value | None = None) -> None:
        """`body(direction, rows, unit group)` for this thread's items; from the last to the first where `turned` is 1."""
        f = self.f

        def turn(number: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            item = number
            if turned is not None:
                mirrored = f.sub(f.sub(f.add(self.first, self.last), 1), number)
                item = f.op(f"select i1 {turned.name}, i64 {mirrored.name}, i64 {number.name}", "i64")
            digits = digits_of(f, item, self.digits)
            for_kinds(f, digits["group"], pieces(self.groups), lambda kind:
                body(digits["d"], _Rows(start_of(f, digits["group"], self.groups), kind.width), digits["units"]))  # fmt: skip
            return ()

        f.loop(self.first, self.last, 1, turn, hint="item")

    def _meet(self) -> None:
        def wait() -> None:
            function = self.f.load("ptr", self.meeting, 8)
            state = self.f.load("ptr", self.f.pointer(self.meeting, 1, "ptr"), 8)
            self.f.do(f"call void {function.name}(ptr {state.name})")

        self.f.branch(self.meets, wait, hint="meet")

    def _each_row(self, rows: _Rows, body: Callable[[Value, Value], None]) -> None:
        """`body(row of the batch, row of the item)`."""

        def turn(row: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(self.f.add(rows.start, row), row)
            return ()

        self.f.loop(0, rows.count, 1, turn, hint="row", guarded=False)

    def _each_block(self, units: Value, body: Callable[[Value, Value, int], None]) -> None:
        """`body(vector of units, the same within the item, valid lanes)`."""
        f, spec, tile = self.f, self.spec, self.tile
        base = f.mul(units, tile.units)
        left = f.sub(i64(spec.blocks), base)
        few = f.op(f"icmp slt i64 {left.name}, {tile.units}", "i1")
        count = f.op(f"select i1 {few.name}, i64 {left.name}, i64 {tile.units}", "i64") if spec.blocks % tile.units else i64(tile.units)
        tail = spec.hidden % tile.lanes
        kinds = [Piece(0, spec.blocks, 1, tile.lanes)]
        if tail:
            kinds = [Piece(spec.blocks - 1, spec.blocks, 1, tail)]
            if spec.blocks > 1:
                kinds.insert(0, Piece(0, spec.blocks - 1, 1, tile.lanes))

        def turn(inner: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            block = f.add(base, inner)
            for_kinds(f, block, kinds, lambda kind: body(block, inner, kind.valid))
            return ()

        f.loop(0, count, 1, turn, hint="unit", guarded=False)

    # addresses ------------------------------------------------------------------------------------------------------------------

    def _at(self, pointer: Value, offset: Value | int) -> Value:
        return self.f.pointer(pointer, offset, self.element)

    def _operand(self, name: str) -> Value:
        return self.named[(*self.spec.inputs, *self.spec.outputs).index(name)]

    def _state(self, start: int | Value, d: Value, row: Value, block: Value | None = None) -> Value:
        """Of a row of a state that begins `start` elements into the shared memory."""
        f, spec = self.f, self.spec
        number = f.add(f.mul(d, spec.batch), row)
        offset = f.mul(number, spec.pitch)
        if block is not None:
            offset = f.add(offset, f.mul(block, self.tile.lanes))
        return self._at(self._at(self.memory, start), offset)

    def _outer(self, d: Value, row: Value, width: int) -> Value:
        """Offset of a row of h0, c0, y_h, y_c."""
        f, spec = self.f, self.spec
        number = f.add(f.mul(row, spec.directions), d) if spec.batch_first else f.add(f.mul(d, spec.batch), row)
        return f.mul(number, width)

    def _in_time(self, d: Value, t: Value, row: Value, width: int, batch_first: bool, directions_last: bool) -> Value:
        """Offset of a row of (T, B, D, width) or (T, D, B, width), or with the batch first."""
        f, spec = self.f, self.spec
        if batch_first:
            number = f.add(f.mul(f.add(f.mul(row, spec.steps), t), spec.directions), d)
        elif directions_last:
            number = f.add(f.mul(f.add(f.mul(t, spec.batch), row), spec.directions), d)
        else:
            number = f.add(f.mul(f.add(f.mul(t, spec.directions), d), spec.batch), row)
        return f.mul(number, width)

    def _load(self, pointer: Value, valid: int) -> Value:
        return load_lanes(self.f, pointer, self.spec.dtype, self.tile.lanes, 1, valid)

    def _store(self, value: Value, pointer: Value, valid: int) -> None:
        store_lanes(self.f, value, pointer, self.spec.dtype, self.tile.lanes, 1, valid)

    # before the first step and after the last -----------------------------------------------------------------------------------

    def _start(self, d: Value, rows: _Rows, units: Value) -> None:
        spec = self.spec
        starts = {"h0": 0} | ({"c0": spec.shared[0]} if spec.cell.c is not None else {})

        def element(row: Value, block: Value, valid: int) -> None:
            for name, start in starts.items():
                value = Value("zeroinitializer" if self.tile.lanes > 1 else "0.0", self.vector)
                if name in spec.inputs:
                    place = self.f.add(self._outer(d, row, spec.hidden), self.f.mul(block, self.tile.lanes))
                    value = self._load(self._at(self._operand(name), place), valid)
                self._store(value, self._state(start, d, row, block), self.tile.lanes)

        self._each_row(rows, lambda row, _: self._each_block(units, lambda block, _, valid: element(row, block, valid)))

    def _finish(self, d: Value, rows: _Rows, units: Value) -> None:
        spec = self.spec
        last = spec.steps % 2 * spec.shared[4]
        starts = {name: start for name, start in (("y_h", last), ("y_c", spec.shared[0])) if name in spec.outputs}
        if not starts:
            return

        def element(row: Value, block: Value, valid: int) -> None:
            for name, start in starts.items():
                value = self._load(self._state(start, d, row, block), self.tile.lanes)
                place = self.f.add(self._outer(d, row, spec.hidden), self.f.mul(block, self.tile.lanes))
                self._store(value, self._at(self._operand(name), place), valid)

        self._each_row(rows, lambda row, _: self._each_block(units, lambda block, _, valid: element(row, block, valid)))

    # a step ---------------------------------------------------------------------------------------------------------------------

    def _step(self, step: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        f, spec = self.f, self.spec
        parity = f.op(f"and i64 {step.name}, 1", "i64")
        self.turned = f.op(f"icmp ne i64 {parity.name}, 0", "i1")
        self.before = f.mul(parity, spec.shared[4])
        self.after = f.sub(i64(spec.shared[4]), self.before)
        start = 0
        for number, phase in enumerate(spec.cell.phases):
            last = number == len(spec.cell.phases) - 1

            def item(d: Value, rows: _Rows, units: Value, phase: Phase = phase, start: int = start, last: bool = last) -> None:
                self._sums(phase, start, d, rows, units)
                t = self._time(step, d)
                self._each_row(rows, lambda row, inner: self._each_block(units, lambda block, of_item, valid:
                    self._cell(_Place(d, t, row, inner, units, block, of_item, valid), last)))  # fmt: skip

            self._each_item(item, self.turned)
            self._meet()
            start += spec.hidden * self.tile.units * phase.gates * self.tile.lanes
        return ()

    def _time(self, step: Value, d: Value) -> Value:
        """The step of the sequence that a direction takes."""
        f, reverse = self.f, self.spec.reverse
        mirrored = f.sub(i64(self.spec.steps - 1), step)
        if len(reverse) == 1:
            return mirrored if reverse[0] else step
        second = f.op(f"icmp ne i64 {d.name}, 0", "i1")
        return f.op(f"select i1 {second.name}, i64 {mirrored.name}, i64 {step.name}", "i64")

    def _sums(self, phase: Phase, start: int, d: Value, rows: _Rows, units: Value) -> None:
        """The products of one phase of an item, into its sums."""
        f, spec, tile = self.f, self.spec, self.tile
        item = f.add(f.mul(d, spec.unit_groups), units)
        panel = self._at(self.weights, f.add(f.mul(item, spec.hidden * spec.item_vectors * tile.lanes), start))
        of_rows = self._state(spec.shared[1] if phase.of_gated else self.before, d, rows.start)
        sums = self._item_sums(d, rows, units)
        for chunk in range(tile.units * phase.gates // tile.vectors):
            weights = self._at(panel, chunk * spec.hidden * tile.vectors * tile.lanes)
            numbers = range(chunk * tile.vectors, (chunk + 1) * tile.vectors)
            places = [(n // phase.gates * spec.cell.gates + phase.first + n % phase.gates) * tile.lanes for n in numbers]
            self._tiles(of_rows, weights, sums, places, rows.count)

    def _tiles(self, of_rows: Value, weights: Value, sums: Value, places: Sequence[int], count: int) -> None:
        """The register tiles of all rows with one panel of weights; `places` of its vectors in a row of the sums."""
        f, spec, tile = self.f, self.spec, self.tile
        done = 0
        for first, last, width in split(count, tile.rows).ranges:

            def turn(number: Value, _: tuple[Value, ...], first: int = first, width: int = width, done: int = done) -> Sequence[Value]:
                row = f.add(f.mul(f.sub(number, first), width), done)
                sums_of = Reduction(spec.hidden, spec.hidden, 0, 1, (), tile.vectors * tile.lanes)
                pixels = [r * spec.pitch for r in range(width)]
                register = RegisterTile(f, spec.dtype, tile.lanes, pixels, tile.vectors, sums_of)
                acc = register.emit(self._at(of_rows, f.mul(row, spec.pitch)), weights)
                base = self._at(sums, f.mul(row, self._sums_pitch))
                for r in range(width):
                    for place, value in zip(places, acc[r], strict=True):
                        self._store(value, self._at(base, r * self._sums_pitch + place), tile.lanes)
                return ()

            if last - first == 1:
                turn(i64(first), ())
            else:
                f.loop(first, last, 1, turn, hint="tile", guarded=False)
            done += (last - first) * width

    @property
    def _sums_pitch(self) -> int:
        """Elements between the sums of two rows."""
        spec = self.spec
        return spec.item_vectors * self.tile.lanes * (spec.unit_groups if spec.shares_sums else 1)

    def _item_sums(self, d: Value, rows: _Rows, units: Value) -> Value:
        """The sums of the first row of an item."""
        f, spec = self.f, self.spec
        if not spec.shares_sums:
            return self.scratch
        row = f.add(f.mul(d, spec.batch), rows.start)
        offset = f.add(f.mul(row, self._sums_pitch), f.mul(units, spec.item_vectors * self.tile.lanes))
        return self._at(self._at(self.memory, spec.shared[2]), offset)

    # the cell -------------------------------------------------------------------------------------------------------------------

    def _cell(self, place: _Place, last: bool) -> None:
        """One vector of units of one row: the gated state after a first phase, the new states after the last."""
        spec, lanes = self.spec, self.tile.lanes
        expressions = Expressions(self.f, self.target, lanes, self._leaves(place))
        if not last:
            assert spec.cell.gated is not None
            gated = self._state(spec.shared[1], place.d, place.row, place.block)
            self._store(expressions.value(spec.cell.gated), gated, lanes)
            return
        live = self._live(place)
        h, y = self._kept(expressions.value(spec.cell.h), self._state(self.before, place.d, place.row, place.block), live)
        self._store(h, self._state(self.after, place.d, place.row, place.block), lanes)
        at = self.f.mul(place.block, lanes)
        if "y" in spec.outputs:
            offset = self._in_time(place.d, place.t, place.row, spec.hidden, spec.batch_first, False)
            self._store(y, self._at(self._operand("y"), self.f.add(offset, at)), place.valid)
        every = self._in_time(place.d, place.t, place.row, spec.hidden, False, False)
        if spec.cell.c is not None:
            state = self._state(spec.shared[0], place.d, place.row, place.block)
            c, _ = self._kept(expressions.value(spec.cell.c), state, live)
            self._store(c, state, lanes)
            if "cells" in spec.outputs:
                self._store(c, self._at(self._operand("cells"), self.f.add(every, at)), place.valid)
        if "sums" in spec.outputs:
            for gate in range(spec.cell.gates):
                offset = self.f.add(self.f.add(self.f.mul(every, spec.cell.gates), gate * spec.hidden), at)
                self._store(expressions.value(arg(f"s{gate}", spec.dtype)), self._at(self._operand("sums"), offset), place.valid)

    def _leaves(self, place: _Place) -> Callable[[str], Value]:
        f, spec, lanes = self.f, self.spec, self.tile.lanes
        row_of_item = _Rows(f.sub(place.row, place.inner), 0)
        sums = f.add(f.mul(place.inner, self._sums_pitch), f.mul(place.of_item, spec.cell.gates * lanes))
        sums = self._at(self._item_sums(place.d, row_of_item, place.units), sums)
        gates = spec.cell.gates * spec.hidden
        at = f.mul(place.block, lanes)
        x = f.add(self._in_time(place.d, place.t, place.row, gates, spec.batch_first, True), at)

        def leaf(name: str) -> Value:
            if name in ("h", "c"):
                start = self.before if name == "h" else spec.shared[0]
                return self._load(self._state(start, place.d, place.row, place.block), lanes)
            if name == "b":
                return self._load(self._at(self._operand("bias"), f.add(f.mul(place.d, spec.hidden), at)), place.valid)
            if name in _PEEPHOLES:
                start = f.add(f.mul(place.d, 3 * spec.hidden), _PEEPHOLES.index(name) * spec.hidden)
                return self._load(self._at(self._operand("peepholes"), f.add(start, at)), place.valid)
            gate = int(name[1:])
            if name[0] == "s":
                return self._load(self._at(sums, gate * lanes), lanes)
            return self._load(self._at(self.x, f.add(x, gate * spec.hidden)), place.valid)

        return leaf

    def _live(self, place: _Place) -> Value | None:
        """Whether the row takes part in the step; None where every row does in every step."""
        if "lengths" not in self.spec.inputs:
            return None
        length = self.f.load("i32", self.f.pointer(self._operand("lengths"), place.row, "i32"), 4)
        wide = self.f.op(f"sext {length} to i64", "i64")
        return self.f.op(f"icmp slt i64 {place.t.name}, {wide.name}", "i1")

    def _kept(self, value: Value, old: Value, live: Value | None) -> tuple[Value, Value]:
        """(the state after the step, what y shows of it)."""
        if live is None:
            return value, value
        zero = "zeroinitializer" if self.tile.lanes > 1 else "0.0"
        before = self._load(old, self.tile.lanes)
        state = self.f.op(f"select {live}, {value}, {before}", value.type)
        return state, self.f.op(f"select {live}, {value}, {value.type} {zero}", value.type)
