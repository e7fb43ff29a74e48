"""Direct convolution: register tiles of output pixels x output-channel blocks, the whole reduction in registers, epilogue included.

Work is split by output only: items are (batch, outer positions, row tile, column tile, chunk of output channels), with the chunks
innermost where all weights stay in the second-level cache, outermost otherwise (the chunk's weights stay, the map is streamed).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, scalar_type
from graphc_cpu.kernels.conv_plan import ConvPlan, conv_plan, is_depthwise, reduction
from graphc_cpu.kernels.conv_store import Corner, conv_epilogue
from graphc_cpu.kernels.depthwise import emit_depthwise
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.epilogue import check_epilogue
from graphc_cpu.micro.tile import RegisterTile

PREFETCH_BYTES = 4096


def emit_conv(spec: ConvSpec, target: Target, name: str) -> Function:
    """The kernel of a convolution. Raises UnsupportedError or ShapeError, with the reason, for a spec that cannot be generated."""
    check_epilogue(spec.epilogue, spec.operands)
    if not prod(spec.output.shape):
        return kernel_function(name)
    if is_depthwise(spec):
        return emit_depthwise(spec, target, name)
    return _DirectConv(spec, conv_plan(spec, target), target, name).emit()


def flops(spec: ConvSpec) -> int:
    """Useful floating point operations: two per multiply-add."""
    return 2 * prod(spec.output.shape) * prod(spec.weight_shape[1:])


class _DirectConv:
    def __init__(self, spec: ConvSpec, plan: ConvPlan, target: Target, name: str) -> None:
        self.spec, self.plan, self.target = spec, plan, target
        self.f = kernel_function(name)
        self.element = scalar_type(spec.x.dtype)
        tail = spec.weight_shape[0] % plan.lanes or plan.lanes
        self.chunk_kinds = pieces(plan.chunks, plan.lanes, tail)

    def emit(self) -> Function:
        self.pointers = operand_pointers(self.f, len(self.spec.operands))
        for_items(self.f, self._sizes(), self._item)
        return self.f

    def _sizes(self) -> dict[str, int]:
        plan = self.plan
        chunks = {"chunk": plan.chunks.parts}
        outer = {f"outer{d}": size for d, size in enumerate(plan.outer)}
        pixels = {"n": self.spec.output.shape[0], **outer, "row": plan.rows.parts, "column": plan.columns.parts}
        return {**chunks, **pixels} if plan.weights_outer else {**pixels, **chunks}

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, plan = self.f, self.plan
        for_kinds(f, digits["row"], pieces(plan.rows), lambda row:
            for_kinds(f, digits["column"], pieces(plan.columns), lambda column:
                for_kinds(f, digits["chunk"], self.chunk_kinds, lambda chunk:
                    self._tile(digits, row.width, column.width, chunk))))  # fmt: skip

    def _tile(self, digits: Mapping[str, Value], rows: int, columns: int, chunk: Piece) -> None:
        f, spec, plan = self.f, self.spec, self.plan
        position = [digits[f"outer{d}"] for d in range(len(plan.outer))]
        position += [start_of(f, digits["row"], plan.rows), start_of(f, digits["column"], plan.columns)]
        first_block = start_of(f, digits["chunk"], plan.chunks)
        pixels = [r * plan.steps[-2] + c * plan.steps[-1] for r in range(rows) for c in range(columns)]
        sums = reduction(spec, plan, chunk.width, PREFETCH_BYTES if plan.weights_outer else 0)
        tile = RegisterTile(f, spec.x.dtype, plan.lanes, pixels, chunk.width, sums)
        x = self._input(digits["n"], position, first_block)
        weights = f.pointer(self.pointers[1], f.mul(first_block, plan.lanes * sums.steps), self.element)
        acc = tile.emit(x, weights)
        corner = Corner(digits["n"], tuple(position), first_block)
        epilogue = conv_epilogue(f, self.target, spec, self.pointers, corner, (rows, columns), chunk.width)
        for p in range(len(pixels)):
            for b in range(chunk.width):
                epilogue.store(acc[p][b], p, b, chunk.valid if b == chunk.width - 1 else plan.lanes)

    def _input(self, n: Value, position: list[Value], first_block: Value) -> Value:
        f, spec = self.f, self.spec
        offset = f.add(f.mul(n, spec.x.strides[0]), self.plan.origin)
        for digit, step in zip(position, self.plan.steps, strict=True):
            offset = f.add(offset, f.mul(digit, step))
        if spec.groups > 1:
            offset = f.add(offset, self._window_offset(first_block))
        return f.pointer(self.pointers[0], offset, self.element)

    def _window_offset(self, first_block: Value) -> Value:
        """x elements to the first input channel of the chunk's groups: `conv_plan.window_start` at run time."""
        f, spec, plan = self.f, self.spec, self.plan
        group = self._quotient(f.mul(first_block, plan.lanes), spec.weight_shape[0] // spec.groups)
        start, total = f.mul(group, spec.weight_shape[1]), spec.x.shape[1]
        unit, step = 1, spec.x.strides[1]
        if spec.x.layout.is_blocked:
            start, total, unit = self._quotient(start, plan.lanes), -(-total // plan.lanes), plan.lanes
        last = total - plan.window // unit
        fits = f.op(f"icmp slt i64 {start.name}, {last}", "i1")
        start = f.op(f"select i1 {fits.name}, i64 {start.name}, i64 {last}", "i64")
        return f.mul(start, step)

    def _quotient(self, value: Value, divisor: int) -> Value:
        return value if divisor == 1 else self.f.op(f"udiv i64 {value.name}, {divisor}", "i64")
