"""Matrix product on the register tile of convolution: rows of a as pixels, vector blocks of columns of b as output channels.

b is packed in panels, read in place with contiguous rows, or read in place with contiguous columns (squares of it are transposed in
registers); other strides are read lane by lane, which is slow. Work is split by output only, and each element is one sum over k in
order: the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.errors import UnsupportedError
from graphc.kernel.expr import Expr, const
from graphc.kernel.spec import MatmulSpec
from graphc.target import Target
from graphc.types.dtype import f32
from graphc.types.dtype import i64 as i64_dtype
from graphc_cpu.emit.ir import Function, Value, i64, scalar_type
from graphc_cpu.kernels.items import Piece, for_items, for_kinds, kernel_function, operand_pointers, pieces, start_of
from graphc_cpu.micro.affine import merges
from graphc_cpu.micro.compressed import ITEMSIZE, element, itemsize, scales_offset, to_bf16, to_int8, with_scales
from graphc_cpu.micro.epilogue import Axis, Destination, TileEpilogue, check_epilogue
from graphc_cpu.micro.memory import load_lanes
from graphc_cpu.micro.shape import Split, max_pixels, split, tile_cost
from graphc_cpu.micro.tile import Reduction, RegisterTile

PREFETCH_BYTES = 4096
_PAGE = 4096  # addresses this far apart share one set of the first-level cache
_ROWS_PER_SET = 6  # rows of a that may share one set without pushing each other out


@dataclass(frozen=True)
class MatmulPlan:
    """`rows`: output rows (with the batch dims, where `merged`) in tiles; `columns`: vector blocks of output columns in chunks."""

    lanes: int
    merged: bool
    batch: tuple[int, ...]
    rows: Split
    columns: Split
    columns_outer: bool


def check_matmul(spec: MatmulSpec) -> None:
    """Raises UnsupportedError with the reason where a product cannot be generated."""
    if spec.dtype.name not in ("float32", "float64", "int32", "int64"):
        raise UnsupportedError(f"matrix product of {spec.dtype}", hint="cast to f32 (integers: i32) before it")
    if spec.packed and any(spec.b_strides[:-2]):
        raise UnsupportedError("a packed matrix with batch dims", hint="read it in place")
    if spec.storage and (spec.dtype.name != "float32" or not spec.packed or spec.storage not in ITEMSIZE):
        raise UnsupportedError(f"{spec.dtype} weights as {spec.storage!r}", hint="constant float32 weights, as bf16 or int8")


def flops(spec: MatmulSpec) -> int:
    """Useful operations: two per multiply-add."""
    return 2 * prod(spec.batch) * spec.m * spec.n * spec.k


@lru_cache(maxsize=1024)
def matmul_plan(spec: MatmulSpec, target: Target, copied: str = "") -> MatmulPlan:
    """The plan; a function of these alone, so code and packed weights always agree. `copied`: operands out of "ab" that are read from
    panels (see `matmul_panels`)."""
    check_matmul(spec)
    lanes = target.lanes(spec.dtype)
    merged = _merges_batch(spec)
    rows = prod(spec.batch) * spec.m if merged else spec.m

    def cost(choice: tuple[Split, Split]) -> float:
        total = sum(
            (r1 - r0) * (c1 - c0) * tile_cost(r, c, spec.k)
            for r0, r1, r in choice[0].ranges for c0, c1, c in choice[1].ranges
        )  # fmt: skip
        return total * (1 + 0.01 * len(choice[0].ranges) * len(choice[1].ranges))

    best_rows, columns = min(_tiles(spec, target, rows, -(-spec.n // lanes), copied), key=cost)
    return MatmulPlan(
        lanes, merged, () if merged else spec.batch, best_rows, columns,
        columns_outer=columns.total * lanes * spec.k * itemsize(spec.storage, spec.dtype) > 0.6 * target.l2,
    )  # fmt: skip


def _tiles(spec: MatmulSpec, target: Target, rows: int, blocks: int, copied: str) -> Iterator[tuple[Split, Split]]:
    """Candidates. Rows of a that are a multiple of 4 KB apart share one cache set, so few of them make a tile."""
    pitch = 0 if "a" in copied else spec.a_strides[-2] * spec.dtype.itemsize
    sharing = _ROWS_PER_SET * (_PAGE // gcd(_PAGE, pitch)) if pitch else rows
    if not spec.packed and "b" not in copied and spec.b_strides[-2] == 1 != spec.b_strides[-1]:
        squares = target.lanes(spec.dtype)
        yield split(rows, min(max(target.registers - squares - 2, 4), sharing)), split(blocks, 1)
        return
    for per_tile in range(1, min(blocks, 8) + 1):
        most = min(28, max_pixels(target, per_tile), sharing)
        if per_tile <= 4 or most >= rows:
            yield split(rows, most), split(blocks, per_tile)


def _merges_batch(spec: MatmulSpec) -> bool:
    """Whether all batch dims are just more rows: b has none, and they are contiguous in a, the output and the epilogue's operands."""
    if not spec.batch or any(spec.b_strides[:-2]):
        return False
    a_step, c_step = spec.a_strides[-2] * spec.m, spec.c_strides[-2] * spec.m
    for size, a, c in zip(spec.batch[::-1], spec.a_strides[-3::-1], spec.c_strides[-3::-1], strict=True):
        if size > 1 and (a != a_step or c != c_step):
            return False
        a_step, c_step = a_step * size, c_step * size
    return merges(spec.epilogue.value, spec.epilogue.index[:-1])


def pack_matmul_weight(spec: MatmulSpec, target: Target, b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """b (K, N) -> the flat array that the kernel takes: [chunk of columns][k][block][lane], zero in the padding lanes."""
    plan = matmul_plan(spec, target)
    wide = np.zeros((spec.k, plan.columns.total * plan.lanes), spec.dtype.numpy)
    wide[:, : spec.n] = b
    if spec.storage == "int8":
        numbers, scale = to_int8(wide)
        return with_scales(_in_chunks(spec, plan, numbers), scale, spec.k)
    return _in_chunks(spec, plan, to_bf16(wide) if spec.storage else wide)


def _in_chunks(spec: MatmulSpec, plan: MatmulPlan, wide: npt.NDArray[Any]) -> npt.NDArray[Any]:
    blocks = wide.reshape(spec.k, plan.columns.total, plan.lanes)
    starts = [part * plan.columns.width - max(0, part - plan.columns.wide) for part in range(plan.columns.parts)]
    ends = [*starts[1:], plan.columns.total]
    return np.concatenate([blocks[:, start:end].ravel() for start, end in zip(starts, ends, strict=True)])


def emit_matmul(spec: MatmulSpec, target: Target, name: str) -> Function:
    """The kernel of a matrix product. Raises UnsupportedError, with the reason, for a spec that cannot be generated."""
    check_epilogue(spec.epilogue, spec.operands)
    if not prod((*spec.batch, spec.m, spec.n)):
        return kernel_function(name)
    return Matmul(spec, matmul_plan(spec, target), target, name).emit()


class Matmul:
    """The kernel under construction."""

    def __init__(self, spec: MatmulSpec, plan: MatmulPlan, target: Target, name: str) -> None:
        self.spec, self.plan, self.target = spec, plan, target
        self.f = kernel_function(name)
        self.element = scalar_type(spec.dtype)

    def emit(self) -> Function:
        self.pointers = operand_pointers(self.f, len(self.spec.operands))
        for_items(self.f, self._sizes(), self._item)
        return self.f

    def _sizes(self) -> dict[str, int]:
        plan = self.plan
        batch = {f"batch{d}": size for d, size in enumerate(plan.batch)}
        rows, columns = {"row": plan.rows.parts}, {"column": plan.columns.parts}
        return {**batch, **columns, **rows} if plan.columns_outer else {**batch, **rows, **columns}

    def _item(self, digits: Mapping[str, Value]) -> None:
        tail = self.spec.n % self.plan.lanes or self.plan.lanes
        kinds = pieces(self.plan.columns, self.plan.lanes, tail)
        for_kinds(self.f, digits["row"], pieces(self.plan.rows), lambda rows:
            for_kinds(self.f, digits["column"], kinds, lambda columns:
                self._tile(digits, rows.width, columns)))  # fmt: skip

    def _tile(self, digits: Mapping[str, Value], rows: int, columns: Piece) -> None:
        f, spec, plan = self.f, self.spec, self.plan
        batch = [digits[f"batch{d}"] for d in range(len(plan.batch))]
        row = start_of(f, digits["row"], plan.rows)
        block = start_of(f, digits["column"], plan.columns)
        column = f.mul(block, plan.lanes)
        pixels = [r * spec.a_strides[-2] for r in range(rows)]
        weight_step, lane_step, valid = spec.b_strides[-2], spec.b_strides[-1], columns.valid
        if spec.packed:
            weight_step, lane_step, valid = columns.width * plan.lanes, 1, plan.lanes
        prefetch = PREFETCH_BYTES if spec.packed and plan.columns_outer else 0
        sums = Reduction(spec.k, max(spec.k, 1), 0, spec.a_strides[-1], (), weight_step, lane_step, prefetch)
        tile = RegisterTile(f, spec.dtype, plan.lanes, pixels, columns.width, sums, valid, spec.storage)
        a = self.pointer(0, [*batch, row], spec.a_strides[:-1])
        if spec.packed:
            b = f.pointer(self.pointers[1], f.mul(column, spec.k), element(spec.storage, spec.dtype))
        else:
            b = self.pointer(1, [*batch, column], (*spec.b_strides[:-2], spec.b_strides[-1]))
        acc = tile.emit(a, b)
        if spec.storage == "int8":
            acc = self._scaled(acc, column)
        epilogue = self.epilogue(batch, row, column, rows, columns.width)
        for p in range(rows):
            for i in range(columns.width):
                epilogue.store(acc[p][i], p, i, columns.valid if i == columns.width - 1 else plan.lanes)

    def _scaled(self, acc: list[list[Value]], column: Value) -> list[list[Value]]:
        """The sums times the scales of their columns."""
        f, plan = self.f, self.plan
        start = f.pointer(self.pointers[1], scales_offset(plan.columns.total * plan.lanes, self.spec.k), "i8")
        first = f.pointer(start, column, "float")
        scales = [load_lanes(f, f.pointer(first, i * plan.lanes, "float"), f32, plan.lanes, 1, plan.lanes) for i in range(len(acc[0]))]
        return [[f.op(f"fmul {value}, {scale.name}", value.type) for value, scale in zip(row, scales, strict=True)] for row in acc]

    def pointer(self, slot: int, digits: list[Value], strides: tuple[int, ...]) -> Value:
        f = self.f
        offset: Value = i64(0)
        for digit, stride in zip(digits, strides if not self.plan.merged else strides[-1:], strict=True):
            offset = f.add(offset, f.mul(digit, stride))
        return f.pointer(self.pointers[slot], offset, self.element)

    def epilogue(self, batch: list[Value], row: Value, column: Value, rows: int, blocks: int) -> TileEpilogue:
        spec, plan = self.spec, self.plan
        index = spec.epilogue.index
        axes: dict[Expr, Axis] = {variable: Axis(i64(0)) for variable in index}
        axes.update({variable: Axis(digit) for variable, digit in zip(index, batch, strict=False)})
        axes[index[-2]] = Axis(row, by_pixel=tuple(range(rows)))
        axes[index[-1]] = Axis(column, by_block=tuple(b * plan.lanes for b in range(blocks)), vector=True)
        offset = const(0, i64_dtype)
        for variable, stride in zip(index, spec.c_strides, strict=True):
            offset = offset + variable * stride
        place = Destination(len(spec.operands) - 1, offset, spec.output, fill=False)
        return TileEpilogue(self.f, self.target, plan.lanes, self.pointers, spec.epilogue, axes, place)
