"""What the kernels of a recurrent layer share, forward and backward: items, addresses, register tiles.

Work items are (direction, group of rows, group of units); each thread keeps its own through all steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.errors import UnsupportedError
from graphc.kernel.recurrent import LayerSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type, vector_type
from graphc_cpu.kernels.items import Piece, digits_of, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.kernels.recurrent_fetch import Fetcher, Stream
from graphc_cpu.micro.memory import load_lanes, store_lanes
from graphc_cpu.micro.shape import Split, split
from graphc_cpu.micro.tile import Reduction, RegisterTile

PEEPHOLES = ("pi", "po", "pf")


@dataclass(frozen=True)
class Rows:
    """Rows of the batch: the first, and how many."""

    start: Value
    count: int


@dataclass(frozen=True)
class Place:
    """A vector of units of one row in one step: `row` of the batch, `inner` of the item; `block` of all units, `of_item` of the item's."""

    d: Value
    t: Value
    row: Value
    inner: Value
    units: Value
    block: Value
    of_item: Value
    valid: int


@dataclass(frozen=True)
class Product:
    """Rows of `depth` elements, `pitch` apart, times weights; the sums of two rows are `sums_pitch` apart, and added to what is there."""

    depth: int
    pitch: int
    sums_pitch: int
    adds: bool = False


class RecurrentItems(ABC):
    """A kernel under construction: `start` and `finish` take one item, and see nothing of the items of other threads."""

    def __init__(self, layer: LayerSpec, target: Target, name: str) -> None:
        if layer.dtype.name not in ("float32", "float64"):
            raise UnsupportedError(f"recurrent layer of {layer.dtype}", hint="cast to f32 before it")
        self.layer, self.target, self.tile = layer, target, layer.tile
        self.f = kernel_function(name)
        self.element = scalar_type(layer.dtype)
        self.vector = vector_type(self.element, self.tile.lanes)
        self.zero = Value("zeroinitializer" if self.tile.lanes > 1 else "0.0", self.vector)
        self.groups = Split(layer.batch, layer.row_groups) if layer.batch else Split(0, 1)
        self.digits = {"d": layer.directions, "group": layer.row_groups, "units": layer.unit_groups}

    @abstractmethod
    def start(self, d: Value, rows: Rows, units: Value) -> None:
        """Before the first step."""

    @abstractmethod
    def step(self, step: Value, _: tuple[Value, ...]) -> Sequence[Value]:
        """The body of the loop over steps; the threads `meet` in it."""

    @abstractmethod
    def finish(self, d: Value, rows: Rows, units: Value) -> None:
        """After the last step."""

    def emit(self) -> Function:
        f, layer = self.f, self.layer
        if not layer.batch or not layer.hidden:
            return f
        self._begin()
        self.each_item(self.start)
        if layer.steps:
            f.loop(0, layer.steps, 1, self.step, hint="step", guarded=False)
        self.each_item(self.finish)
        return f

    def _begin(self) -> None:
        """Operands and this thread's items."""
        f, layer = self.f, self.layer
        _, thread, threads = f.parameters
        count = len(layer.operands)
        self.x, self.weights, *self.named, self.memory, scratch = operand_pointers(f, count)
        self.meeting = f.load("ptr", f.pointer(f.parameters[0], count, "ptr"), 8)
        self.fetcher = Fetcher(f, self.element, layer.dtype.itemsize, self.tile.vectors)
        self.scratch = f.pointer(scratch, f.mul(thread, layer.scratch.elements), self.element)
        self.first, self.last = f.share(layer.directions * layer.row_groups * layer.unit_groups, thread, threads)
        rest = f.op(f"urem i64 {layer.directions * layer.row_groups}, {threads.name}", "i64")
        self.meets = f.op(f"icmp ne i64 {rest.name}, 0", "i1")  # else whole states belong to one thread each

    # loops ----------------------------------------------------------------------------------------------------------------------

    def each_item(self, body: Callable[[Value, Rows, Value], None], turned: Value | None = None) -> None:
        """`body(direction, rows, unit group)` for this thread's items; from the last to the first where `turned` is 1."""
        f = self.f

        def turn(number: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            item = number
            if turned is not None:
                mirrored = f.sub(f.sub(f.add(self.first, self.last), 1), number)
                item = f.op(f"select i1 {turned.name}, i64 {mirrored.name}, i64 {number.name}", "i64")
            digits = digits_of(f, item, self.digits)
            for_kinds(f, digits["group"], pieces(self.groups), lambda kind:
                body(digits["d"], Rows(start_of(f, digits["group"], self.groups), kind.width), digits["units"]))  # fmt: skip
            return ()

        f.loop(self.first, self.last, 1, turn, hint="item")

    def meet(self) -> None:
        def wait() -> None:
            function = self.f.load("ptr", self.meeting, 8)
            state = self.f.load("ptr", self.f.pointer(self.meeting, 1, "ptr"), 8)
            self.f.do(f"call void {function.name}(ptr {state.name})")

        self.f.branch(self.meets, wait, hint="meet")

    def each_row(self, rows: Rows, body: Callable[[Value, Value], None]) -> None:
        """`body(row of the batch, row of the item)`."""

        def turn(row: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(self.f.add(rows.start, row), row)
            return ()

        self.f.loop(0, rows.count, 1, turn, hint="row", guarded=False)

    def each_block(self, units: Value, body: Callable[[Value, Value, int], None]) -> None:
        """`body(vector of units, the same within the item, valid lanes)`."""
        f, spec, tile = self.f, self.layer, self.tile
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

    def at(self, pointer: Value, offset: Value | int) -> Value:
        return self.f.pointer(pointer, offset, self.element)

    def operand(self, name: str) -> Value:
        return self.named[(*self.layer.inputs, *self.layer.outputs).index(name)]

    def state(self, start: int | Value, d: Value, row: Value, block: Value | None = None) -> Value:
        """Of a row of a state that begins `start` elements into the shared memory."""
        f, spec = self.f, self.layer
        number = f.add(f.mul(d, spec.batch), row)
        offset = f.mul(number, spec.pitch)
        if block is not None:
            offset = f.add(offset, f.mul(block, self.tile.lanes))
        return self.at(self.at(self.memory, start), offset)

    def outer(self, d: Value, row: Value, width: int) -> Value:
        """Offset of a row of h0, c0, y_h, y_c."""
        f, spec = self.f, self.layer
        number = f.add(f.mul(row, spec.directions), d) if spec.batch_first else f.add(f.mul(d, spec.batch), row)
        return f.mul(number, width)

    def in_time(self, d: Value, t: Value, row: Value, width: int, batch_first: bool, directions_last: bool) -> Value:
        """Offset of a row of (T, B, D, width) or (T, D, B, width), or with the batch first."""
        f, spec = self.f, self.layer
        if batch_first:
            number = f.add(f.mul(f.add(f.mul(row, spec.steps), t), spec.directions), d)
        elif directions_last:
            number = f.add(f.mul(f.add(f.mul(t, spec.batch), row), spec.directions), d)
        else:
            number = f.add(f.mul(f.add(f.mul(t, spec.directions), d), spec.batch), row)
        return f.mul(number, width)

    def row_step(self, width: int, batch_first: bool, directions_last: bool) -> int:
        """Elements from one row to the next of what `in_time` is the offset of."""
        spec = self.layer
        return width * (spec.steps * spec.directions if batch_first else spec.directions if directions_last else 1)

    def load(self, pointer: Value, valid: int) -> Value:
        return load_lanes(self.f, pointer, self.layer.dtype, self.tile.lanes, 1, valid)

    def store(self, value: Value, pointer: Value, valid: int) -> None:
        store_lanes(self.f, value, pointer, self.layer.dtype, self.tile.lanes, 1, valid)

    # steps ----------------------------------------------------------------------------------------------------------------------

    def time(self, step: Value, d: Value, backward: bool = False) -> Value:
        """The step of the sequence that a direction takes; `backward`: its directions run the other way."""
        f, reverse = self.f, self.layer.reverse
        mirrored = f.sub(i64(self.layer.steps - 1), step)
        if len(reverse) == 1:
            return mirrored if reverse[0] != backward else step
        if backward:
            mirrored, step = step, mirrored
        second = f.op(f"icmp ne i64 {d.name}, 0", "i1")
        return f.op(f"select i1 {second.name}, i64 {mirrored.name}, i64 {step.name}", "i64")

    def live(self, place: Place) -> Value | None:
        """Whether the row takes part in the step; None where every row does in every step."""
        if "lengths" not in self.layer.inputs:
            return None
        length = self.f.load("i32", self.f.pointer(self.operand("lengths"), place.row, "i32"), 4)
        wide = self.f.op(f"sext {length} to i64", "i64")
        return self.f.op(f"icmp slt i64 {place.t.name}, {wide.name}", "i1")

    # products -------------------------------------------------------------------------------------------------------------------

    def tiles(
        self, product: Product, of_rows: Value, weights: Value, sums: Value, places: Sequence[int], count: int, streams: Sequence[Stream],
    ) -> None:  # fmt: skip
        """The register tiles of `count` rows with one panel of weights; `places` of its vectors in a row of the sums. `streams`, from the
        first row on: what is fetched meanwhile."""
        f, spec, tile = self.f, self.layer, self.tile
        done = 0
        for first, last, width in split(count, tile.rows).ranges:

            def turn(number: Value, _: tuple[Value, ...], first: int = first, width: int = width, done: int = done) -> Sequence[Value]:
                row = f.add(f.mul(f.sub(number, first), width), done)
                sums_of = Reduction(product.depth, product.depth, 0, 1, (), tile.vectors * tile.lanes)
                pixels = [r * product.pitch for r in range(width)]
                register = RegisterTile(f, spec.dtype, tile.lanes, pixels, tile.vectors, sums_of)
                register.meanwhile = self.fetcher.begin(streams, row, width, register.turns)
                acc = register.emit(self.at(of_rows, f.mul(row, product.pitch)), weights)
                base = self.at(sums, f.mul(row, product.sums_pitch))
                for r in range(width):
                    for place, value in zip(places, acc[r], strict=True):
                        pointer = self.at(base, r * product.sums_pitch + place)
                        if product.adds:
                            value = f.op(f"fadd {self.vector} {self.load(pointer, tile.lanes).name}, {value.name}", self.vector)
                        self.store(value, pointer, tile.lanes)
                return ()

            if last - first == 1:
                turn(i64(first), ())
            else:
                f.loop(first, last, 1, turn, hint="tile", guarded=False)
            done += (last - first) * width
