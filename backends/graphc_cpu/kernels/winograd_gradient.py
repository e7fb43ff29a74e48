"""Weight gradient of a 3x3 convolution in Winograd's domain: 16 products per tile of 2x2 pixels, where the direct sum has 36.

Items are (part of the batch, panel of output channels, panel of input channels). An item goes through its tiles in bands: it transforms
the tiles of both maps into scratch, then adds the products of each position to sums in scratch; at the end the sums of a panel are
transformed to the 9 weights. All of that stays in a thread's second-level cache. Per element the tiles are added in the order of their
numbers, whatever the band or the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphc.errors import ShapeError, UnsupportedError
from graphc.kernel.spec import WinogradGradient
from graphc.kernel.winograd import transform_gradient, transform_sums
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type
from graphc_cpu.kernels.items import digits_of, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of, width_of
from graphc_cpu.kernels.weight_gradient import check_weight_gradient
from graphc_cpu.kernels.winograd_tiles import InputTiles, Registers, TilePlace, edges, place_of
from graphc_cpu.micro.outer import OuterTile, Pixels
from graphc_cpu.micro.shape import Split, max_pixels, split

UNROLL = 4  # tiles; more gain nothing and cost LLVM's time
Pair = tuple[Value, Value]  # first, count


def emit_winograd_gradient(spec: WinogradGradient, target: Target, name: str) -> Function:
    """The kernel. Raises UnsupportedError or ShapeError, with the reason, for a spec that cannot be generated."""
    check_winograd_gradient(spec, target)
    return _Gradient(spec, target, name).emit()


def check_winograd_gradient(spec: WinogradGradient, target: Target) -> None:
    sums, grid = spec.gradient, spec.grid
    check_weight_gradient(sums, target)
    plain = sums.kernel == (3, 3) and {*sums.stride, *sums.dilation} == {1} and grid.m == 2
    if not plain or sums.x.dtype.name != "float32" or not sums.x.layout.is_blocked:
        raise UnsupportedError(f"Winograd F({grid.m}, 3) of a weight gradient {sums.kernel} stride {sums.stride} of {sums.x.layout}")
    for d, (count, (before, after)) in enumerate(zip((grid.rows, grid.columns), sums.x.layout.halo or ((0, 0),) * 2, strict=True)):
        if sums.pad[d] > before or count * 2 + 1 - sums.pad[d] >= sums.x.shape[2 + d] + after:
            raise ShapeError(f"tiles of F(2, 3) read beyond the halo {before}:{after} of the input in spatial dim {d}")


class _Gradient:
    def __init__(self, spec: WinogradGradient, target: Target, name: str) -> None:
        self.spec, self.grid, self.sums = spec, spec.grid, spec.gradient
        f = self.f = kernel_function(name)
        self.lanes, dtype = spec.lanes, self.sums.x.dtype
        self.element, self.size = scalar_type(dtype), dtype.itemsize
        self.registers = Registers(f, dtype, self.lanes)
        self.vector = self.registers.vector
        in_blocks, out_blocks = -(-self.sums.x.shape[1] // self.lanes), -(-self.sums.grad.shape[1] // self.lanes)
        self.panel_c, self.panel_m = split(in_blocks, spec.inputs), split(out_blocks, spec.outputs)
        self.out_blocks = out_blocks
        self.rows = max(1, self.lanes // 2)
        self.blocks = max(count for count in range(1, 5) if count == 1 or max_pixels(target, count) >= self.rows)
        self.input = InputTiles(f, self.sums.x, self.sums.pad, spec.grid, spec.transformed, spec.tiles)
        self.images = Split(spec.grid.batch, self.sums.parts)

    def emit(self) -> Function:
        f, spec = self.f, self.spec
        self.x, self.g, self.out, scratch = operand_pointers(f, 4)
        own = f.pointer(scratch, f.mul(f.parameters[1], spec.scratch.elements), self.element)
        self.v = own
        self.u = f.pointer(own, spec.transformed.elements, self.element)
        self.p = f.pointer(self.u, spec.gradients.elements, self.element)
        for_items(f, {"part": self.sums.parts, "panel_m": self.panel_m.parts, "panel_c": self.panel_c.parts}, self._item)
        return f

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, spec, per_image = self.f, self.spec, self.grid.rows * self.grid.columns
        outputs = start_of(f, digits["panel_m"], self.panel_m), width_of(f, digits["panel_m"], self.panel_m)
        inputs = start_of(f, digits["panel_c"], self.panel_c), width_of(f, digits["panel_c"], self.panel_c)
        first = f.mul(start_of(f, digits["part"], self.images), per_image)
        end = f.add(first, f.mul(width_of(f, digits["part"], self.images), per_image))
        zero = Value("zeroinitializer", self.vector)
        self._for(i64(spec.sums.elements // self.lanes), lambda i: self._store(zero, self.p, f.mul(i, self.lanes)))

        def band(start: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            left = f.sub(end, start)
            few = f.op(f"icmp slt i64 {left.name}, {spec.tiles}", "i1")
            count = f.op(f"select i1 {few.name}, i64 {left.name}, i64 {spec.tiles}", "i64")
            self._transform(start, count, inputs, outputs)
            self._products(count, inputs[1], digits["panel_m"])
            return ()

        f.loop(first, end, spec.tiles, band, hint="band", guarded=False)
        self._back(digits["part"], inputs, outputs, digits["panel_m"])

    def _transform(self, start: Value, count: Value, inputs: Pair, outputs: Pair) -> None:
        """The tiles of a band, of both maps."""
        f, sums = self.f, self.sums
        x = f.pointer(self.x, f.mul(inputs[0], sums.x.strides[1]), self.element)
        g = f.pointer(self.g, f.mul(outputs[0], sums.grad.strides[1]), self.element)
        self._for(inputs[1], lambda block:
            self._for(count, lambda slot: self.input.emit(x, self.v, block, place_of(f, self.grid, start, slot))))  # fmt: skip
        self._for(outputs[1], lambda block:
            self._for(count, lambda slot: self._gradient_tile(g, block, place_of(f, self.grid, start, slot))))  # fmt: skip

    def _gradient_tile(self, g: Value, block: Value, place: TilePlace) -> None:
        f, grad = self.f, self.sums.grad
        offset = f.add(f.mul(place.n, grad.strides[0]), f.mul(block, grad.strides[1]))
        offset = f.add(offset, f.add(f.mul(place.row, 2 * grad.strides[2]), f.mul(place.column, 2 * grad.strides[3])))
        source = f.pointer(g, f.add(offset, grad.origin), self.element)
        slot = f.add(f.mul(block, self.spec.tiles * self.lanes), f.mul(place.slot, self.lanes))
        out = f.pointer(self.u, slot, self.element)

        def store(rows: int, columns: int) -> None:
            def pixel(r: int, c: int) -> Value:
                if r >= rows or c >= columns:
                    return Value("zeroinitializer", self.vector)
                return self._load(source, r * grad.strides[2] + c * grad.strides[3])

            half = [transform_gradient(2, [pixel(r, c) for r in range(2)], self.registers) for c in range(2)]
            for r, row in enumerate(zip(*half, strict=True)):
                for c, value in enumerate(transform_gradient(2, row, self.registers)):
                    self._store(value, out, i64((r * 4 + c) * self.spec.gradients.strides[0]))

        for_kinds(f, place.row, edges(self.grid.rows, 2, grad.shape[2]), lambda rows:
            for_kinds(f, place.column, edges(self.grid.columns, 2, grad.shape[3]), lambda columns:
                store(rows.width, columns.width)))  # fmt: skip

    def _products(self, count: Value, inputs: Value, panel: Value) -> None:
        """For each position and register tile the products of a band's tiles, added to the sums."""
        f, spec, tiles = self.f, self.spec, self.spec.tiles * self.lanes
        groups = f.mul(inputs, self.lanes // self.rows)

        def position(number: Value) -> None:
            v = f.pointer(self.v, f.mul(number, spec.transformed.strides[0]), self.element)
            u = f.pointer(self.u, f.mul(number, spec.gradients.strides[0]), self.element)
            p = f.pointer(self.p, f.mul(number, spec.sums.strides[0]), self.element)

            def chunks(width: int) -> None:
                made = split(width, self.blocks)

                def chunk(c: Value) -> None:
                    first = start_of(f, c, made)
                    for_kinds(f, c, pieces(made), lambda piece: self._for(groups, lambda g: tile(g, first, piece.width)))

                self._for(i64(made.parts), chunk)

            def tile(group: Value, first: Value, blocks: int) -> None:
                block, lane = self._block_of(group)
                at_v = f.pointer(v, f.add(f.mul(block, tiles), lane), self.element)
                at_u = f.pointer(u, f.mul(first, tiles), self.element)
                at_p = f.pointer(p, f.add(f.mul(group, self.rows * spec.outputs * self.lanes), f.mul(first, self.lanes)), self.element)
                offsets = [(r * spec.outputs + b) * self.lanes for r in range(self.rows) for b in range(blocks)]
                vectors, pixels = [b * tiles for b in range(blocks)], [Pixels(count, self.lanes, self.lanes)]
                made = OuterTile(f, self.sums.x.dtype, self.lanes, range(self.rows), vectors, pixels, UNROLL)
                made.emit(at_v, at_u, [f.pointer(at_p, offset, self.element) for offset in offsets])

            for_kinds(f, panel, pieces(self.panel_m), lambda piece: chunks(piece.width))

        self._for(i64(self.grid.positions), position)

    def _block_of(self, group: Value) -> Pair:
        """The channel block of a group of rows, and the first lane in it."""
        f, per_block = self.f, self.lanes // self.rows
        if per_block == 1:
            return group, i64(0)
        digits = digits_of(f, group, {"block": 2, "row": per_block})
        return digits["block"], f.mul(digits["row"], self.rows)

    def _back(self, part: Value, inputs: Pair, outputs: Pair, panel: Value) -> None:
        """The weights of a panel from its sums; rows beyond the last input channel are left out."""
        f, spec, channels = self.f, self.spec, self.sums.x.shape[1]
        first = f.mul(inputs[0], self.lanes)
        room = f.sub(i64(channels), first)
        wanted = f.mul(inputs[1], self.lanes)
        few = f.op(f"icmp slt i64 {room.name}, {wanted.name}", "i1")
        count = f.op(f"select i1 {few.name}, i64 {room.name}, i64 {wanted.name}", "i64")
        out = f.pointer(self.out, f.mul(part, self.sums.sums.strides[0]), self.element)

        def cell(c: Value, block: Value) -> None:
            source = f.pointer(self.p, f.mul(f.add(f.mul(c, spec.outputs), block), self.lanes), self.element)
            index = f.add(f.mul(f.add(first, c), self.out_blocks), f.add(outputs[0], block))
            target = f.pointer(out, f.mul(index, 9 * self.lanes), self.element)
            columns = [[self._load(source, (r * 4 + k) * spec.sums.strides[0]) for r in range(4)] for k in range(4)]
            half = [transform_sums(2, column, self.registers) for column in columns]
            for r, row in enumerate(zip(*half, strict=True)):
                for k, value in enumerate(transform_sums(2, row, self.registers)):
                    self._store(value, target, i64((r * 3 + k) * self.lanes))

        self._for(count, lambda c: self._for(outputs[1], lambda block: cell(c, block)))

    def _for(self, count: Value, body: Callable[[Value], None]) -> None:
        """body(i) for i below count, which is at least 1."""

        def turn(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            body(i)
            return ()

        self.f.loop(0, count, 1, turn, guarded=False)

    def _load(self, pointer: Value, offset: int) -> Value:
        return self.f.load(self.vector, self.f.pointer(pointer, offset, self.element), self.size)

    def _store(self, value: Value, pointer: Value, offset: Value) -> None:
        self.f.store(value, self.f.pointer(pointer, offset, self.element), self.size)

