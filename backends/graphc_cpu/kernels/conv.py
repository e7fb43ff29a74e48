"""Direct convolution: register tiles of output pixels x output-channel blocks, the whole reduction in registers, epilogue included.

Work is split by output only: items are (batch, outer positions, row tile, column tile, chunk of output channels), with the chunks
innermost where all weights stay in the second-level cache and are smaller than the map, outermost otherwise (the chunk's weights stay,
the map is streamed, and the next chunk's weights are fetched into the second-level cache bit by bit).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphc.kernel.spec import ConvSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type
from graphc_cpu.kernels.conv_plan import ConvPlan, conv_plan, is_depthwise, reduction
from graphc_cpu.kernels.conv_rows import emit_conv_rows, is_rowwise
from graphc_cpu.kernels.conv_store import Corner, conv_epilogue
from graphc_cpu.kernels.depthwise import emit_depthwise
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.epilogue import check_epilogue
from graphc_cpu.micro.tile import RegisterTile

PREFETCH_BYTES = 8192


def emit_conv(spec: ConvSpec, target: Target, name: str) -> Function:
    """The kernel of a convolution. Raises UnsupportedError or ShapeError, with the reason, for a spec that cannot be generated."""
    check_epilogue(spec.epilogue, spec.operands)
    if not prod(spec.output.shape):
        return kernel_function(name)
    if is_depthwise(spec):
        return emit_depthwise(spec, target, name)
    if is_rowwise(spec, target):
        return emit_conv_rows(spec, target, name)
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
        chunks = {"chunk": self.plan.chunks.parts}
        return {**chunks, **self._pixels()} if self.plan.weights_outer else {**self._pixels(), **chunks}

    def _pixels(self) -> dict[str, int]:
        """Tiles of pixels: of one chunk of output channels."""
        outer = {f"outer{d}": size for d, size in enumerate(self.plan.outer)}
        return {"n": self.spec.output.shape[0], **outer, "row": self.plan.rows.parts, "column": self.plan.columns.parts}

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
        x = self._input(digits["n"], position)
        weights = f.pointer(self.pointers[1], f.mul(first_block, plan.lanes * sums.steps), self.element)
        ahead = self._ahead(weights, digits, chunk.width * plan.lanes * sums.steps) if plan.weights_outer else None
        corner = Corner(digits["n"], tuple(position), first_block)
        epilogue = conv_epilogue(f, self.target, spec, self.pointers, corner, (rows, columns), chunk.width)
        valid, share = [plan.lanes] * (chunk.width - 1) + [chunk.valid], prod(self._pixels().values())
        start = epilogue.initial(valid)
        tile = RegisterTile(f, spec.x.dtype, plan.lanes, pixels, chunk.width, sums, ahead=ahead, ahead_share=share, initial=start)
        acc = tile.emit(x, weights) if spec.groups == 1 else tile.emit_window(x, weights, *self._window(first_block, chunk))
        for p in range(len(pixels)):
            for b in range(chunk.width):
                epilogue.store(acc[p][b], p, b, valid[b])

    def _ahead(self, weights: Value, digits: Mapping[str, Value], size: int) -> Value:
        """Where this tile's share of the next chunk's weights begins. `size`: of a chunk's weights, in elements."""
        f, number, sizes = self.f, i64(0), self._pixels()
        for name, extent in sizes.items():
            number = f.add(f.mul(number, extent), digits[name])
        return f.pointer(weights, f.add(i64(size), f.mul(number, size // prod(sizes.values()))), self.element)

    def _input(self, n: Value, position: list[Value]) -> Value:
        """Address of what the tile's first pixel reads of channel 0 at kernel position 0."""
        f, spec = self.f, self.spec
        offset = f.add(f.mul(n, spec.x.strides[0]), self.plan.origin)
        for digit, step in zip(position, self.plan.steps, strict=True):
            offset = f.add(offset, f.mul(digit, step))
        return f.pointer(self.pointers[0], offset, self.element)

    def _window(self, first_block: Value, chunk: Piece) -> tuple[Value, Value]:
        """The input channels of the chunk's groups (`conv_plan.windows` at run time): first, last + 1."""
        f, spec, lanes = self.f, self.spec, self.plan.lanes
        first = f.mul(first_block, lanes)
        last = f.add(first, (chunk.width - 1) * lanes + chunk.valid - 1)
        per_group = spec.weight_shape[0] // spec.groups
        groups = [f.op(f"udiv i64 {channel.name}, {per_group}", "i64") for channel in (first, last)]
        return f.mul(groups[0], spec.weight_shape[1]), f.mul(f.add(groups[1], 1), spec.weight_shape[1])
