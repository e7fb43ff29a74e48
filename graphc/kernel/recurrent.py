"""The family recurrent: a whole recurrent layer, all its steps, as one kernel.

The input product of all time steps is made before, by the contract family. The kernel adds to it, step by step, the product of the
state with the recurrent weights, and applies the cell: a handful of scalar expressions. Weights are packed in the order in which the
register tile reads them. Work items are (direction, group of rows, group of units); a thread keeps its items through all steps, so its
weights stay in its own cache, and waits for the others once per phase of a step only where they share a state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

from graphc.kernel.expr import Expr
from graphc.kernel.operand import Operand
from graphc.target import Target
from graphc.types.dtype import DType, i32

_LATENCY = 8  # accumulators that hide the latency of a multiply-add on two ports
_MAX_GROUP = 32  # rows that share one pass over the weights
_LINE = 64
_L2_RATE = 40.0  # bytes per cycle
_L2_SHARE = 0.4
_L1_SHARE = 0.7  # of the first-level cache, for a panel of weights


@dataclass(frozen=True)
class Phase:
    """One product of a step: the gates first .. first+gates-1, of rows of the state, or of `gated` rows that the phase before made."""

    first: int
    gates: int
    of_gated: bool = False


@dataclass(frozen=True)
class Cell:
    """What one unit does in one step, as expressions over these args: for each gate g `x<g>`, its part of the input product with all
    biases, and `s<g>`, its part of the recurrent product; the states `h` and `c` before the step; `pi`, `po`, `pf` (peepholes); `b` (a
    bias inside the recurrent product).

    `h`, `c` are the states after the step (`c` is None where there is none); `gated`: what the second phase multiplies, or None.
    """

    gates: int
    phases: tuple[Phase, ...]
    h: Expr
    c: Expr | None = None
    gated: Expr | None = None


@dataclass(frozen=True)
class Tile:
    """Vectors of `lanes` units; `units` of them are one item, all gates of each; a register tile is `rows` rows by `vectors` vectors of
    weights; `group`: rows of an item."""

    lanes: int
    units: int
    vectors: int
    rows: int
    group: int


@dataclass(frozen=True)
class RecurrentSpec:
    """T steps of a cell for B rows and H units in D directions.

    Operands, in order: `x` (T, B, D*G*H), or (B, T, D*G*H) where `batch_first`, the gates of each direction one after the other;
    `weights` (D, G*H, H), packed; those of `inputs`: `bias` (D, H), `peepholes` (D, 3*H: pi, po, pf), `lengths` (B) i32, `h0` and `c0`
    (D, B, H); those of `outputs`: `y` (T, D, B, H), `y_h` and `y_c` (D, B, H), `cells` (T, D, B, H), the state c after each step,
    `sums` (T, D, B, G*H), the recurrent products; then memory that all threads share, and memory of each thread. batch_first:
    h0, c0, y_h, y_c are (B, D, H), y is (B, T, D, H); cells and sums are as ever.
    One more argument follows the operands: how threads wait for each other (`graphc.schedule.plan.Ref`, space "pool").

    A row takes part in steps 0 .. its length-1 (all of them without `lengths`); in the others its states stay and its y is 0.
    """

    cell: Cell
    dtype: DType
    steps: int
    batch: int
    hidden: int
    reverse: tuple[bool, ...]
    batch_first: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tile: Tile
    family: str = field(default="recurrent", init=False)

    @property
    def directions(self) -> int:
        return len(self.reverse)

    @property
    def blocks(self) -> int:
        """Vectors of units."""
        return -(-self.hidden // self.tile.lanes)

    @property
    def unit_groups(self) -> int:
        return -(-self.blocks // self.tile.units)

    @property
    def row_groups(self) -> int:
        return -(-self.batch // self.tile.group)

    @property
    def pitch(self) -> int:
        """Elements from one row of a state to the next: an odd number of cache lines, so that rows fall into different sets of a cache."""
        line = _LINE // self.dtype.itemsize
        return (-(-self.unit_groups * self.tile.units * self.tile.lanes // line) | 1) * line

    @property
    def rows(self) -> int:
        """Of a state: of all directions."""
        return self.directions * self.batch

    @property
    def item_vectors(self) -> int:
        """Of the sums of one row of an item."""
        return self.tile.units * self.cell.gates

    @property
    def shares_sums(self) -> bool:
        """Whether sums outlive a phase."""
        return len(self.cell.phases) > 1

    @property
    def packed_elements(self) -> int:
        """Of the weights: [direction][unit group][phase][vectors of a tile][k][vector][lane]."""
        return self.directions * self.unit_groups * self.hidden * self.item_vectors * self.tile.lanes

    @property
    def shared(self) -> tuple[int, int, int, int, int]:
        """Where in the shared memory the state c, the gated rows, the sums begin; its end; elements of one state. h comes first, twice."""
        state = self.rows * self.pitch
        c = 2 * state
        gated = c + (state if self.cell.c is not None else 0)
        sums = gated + (state if self.cell.gated is not None else 0)
        kept = self.rows * self.unit_groups * self.item_vectors * self.tile.lanes if self.shares_sums else 0
        return c, gated, sums, sums + kept, state

    @property
    def scratch(self) -> Operand:
        """Of each thread: the sums of one item."""
        return Operand(self.dtype, (0 if self.shares_sums else self.tile.group * self.item_vectors * self.tile.lanes,))

    @property
    def memory(self) -> Operand:
        return Operand(self.dtype, (self.shared[3],))

    @property
    def operands(self) -> tuple[Operand, ...]:
        gates = self.cell.gates * self.hidden
        first = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        x = Operand(self.dtype, (*first, self.directions * gates))
        weights = Operand(self.dtype, (self.directions, gates, self.hidden))
        named = (self.operand(name) for name in (*self.inputs, *self.outputs))
        return (x, weights, *named, self.memory, self.scratch)

    def operand(self, name: str) -> Operand:
        """One of `inputs` or `outputs`."""
        d, b, h, t = self.directions, self.batch, self.hidden, self.steps
        if name == "lengths":
            return Operand(i32, (b,))
        every = (t, d, b)
        shapes = {
            "bias": (d, h), "peepholes": (d, 3 * h), "y": (b, t, d, h) if self.batch_first else (*every, h), "cells": (*every, h),
            "sums": (*every, self.cell.gates * h),
        }  # fmt: skip
        return Operand(self.dtype, shapes.get(name, (b, d, h) if self.batch_first else (d, b, h)))

    def slot(self, name: str) -> int:
        """The number of a named operand."""
        return 2 + (*self.inputs, *self.outputs).index(name)


def choose_tile(cell: Cell, hidden: int, batch: int, directions: int, dtype: DType, target: Target) -> Tile:
    """The tile of least predicted time. It decides no bit of a result: each sum goes over the units of the state in order."""
    lanes = target.lanes(dtype)
    blocks = max(-(-hidden // lanes), 1)
    group = _group(batch, directions, blocks, target)
    tiles = _tiles(cell, blocks, lanes, group, target)
    return min(tiles, key=lambda tile: _cost(tile, cell, hidden, blocks, batch, directions, dtype, target))


def _group(batch: int, directions: int, blocks: int, target: Target) -> int:
    """Rows of an item: many, so that weights are read for many rows, but items for all cores."""
    groups = ceil(batch / _MAX_GROUP)
    while directions * groups * blocks < target.cores and groups < batch:
        groups += 1
    return max(ceil(batch / max(groups, 1)), 1)


def _tiles(cell: Cell, blocks: int, lanes: int, group: int, target: Target) -> Iterator[Tile]:
    units = 1
    while units < 2 * blocks and units <= 16:
        for vectors in range(1, 25):
            most = _most_rows(vectors, target)
            if most and all(units * phase.gates % vectors == 0 and units * phase.gates <= 4 * vectors for phase in cell.phases):
                yield Tile(lanes, units, vectors, ceil(group / ceil(group / most)), group)
        units *= 2


def _most_rows(vectors: int, target: Target) -> int:
    """Rows of a register tile, 0 where not one fits."""
    if target.vector_bytes == 16:
        return min(7, target.registers // 2 // vectors)
    return (target.registers - 2) // vectors if vectors > 4 else (target.registers - vectors - 1) // vectors


def _cost(
    tile: Tile, cell: Cell, hidden: int, blocks: int, batch: int, directions: int, dtype: DType, target: Target
) -> float:  # fmt: skip
    """Relative time of a step on the busiest core, in cycles per unit of the state: the multiply-adds, loads or latency of the tiles, or
    reading the weights from L2, which only the first tile of rows does where a panel stays in L1."""
    items = directions * ceil(batch / tile.group) * ceil(blocks / tile.units)
    tiles = ceil(tile.group / tile.rows)
    step = max(tile.rows * tile.vectors, tile.rows + tile.vectors, _LATENCY) / 2 + 0.03 * tile.rows
    far = max(step, tile.vectors * target.vector_bytes / _L2_RATE)
    stays = hidden * tile.vectors * tile.lanes * dtype.itemsize <= _L1_SHARE * target.l1
    panel = far + (tiles - 1) * (step if stays else far)
    item = tile.units * cell.gates / tile.vectors * (panel + 0.02 * tile.vectors * tiles) + 0.01
    weights = directions * cell.gates * hidden * blocks * tile.lanes * dtype.itemsize / target.cores
    fine = 0.001 if weights > _L2_SHARE * target.l2 else -0.001  # small items: more of them are still in L2 when the order turns
    return ceil(items / target.cores) * item + fine * (tile.vectors + tile.units)
