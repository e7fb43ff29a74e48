"""The family recurrent: a whole recurrent layer, all its steps, as one kernel.

The input product of all time steps is made before, by the contract family. The kernel adds to it, step by step, the product of the
state with the recurrent weights, and applies the cell: a handful of scalar expressions. Weights are packed in the order in which the
register tile reads them. Work items are (direction, group of rows, group of units); a thread keeps its items through all steps, so its
weights stay in its own cache, and waits for the others once per phase of a step only where they share a state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

from graphc.kernel.expr import Expr
from graphc.kernel.operand import Operand
from graphc.target import Target
from graphc.types.dtype import DType, i32

_LATENCY = 8  # accumulators that hide the latency of a multiply-add on two ports
_MAX_GROUP = 32  # rows that share one pass over the weights
_HALF_GROUP = 8  # rows that are worth a pass of their own, where the weights are near
_LINE = 64
_L2_RATE = 24.0  # bytes per cycle
_L2_WAIT = 0.1  # of the time that weights from L2 take is not hidden behind multiply-adds
_L2_SHARE = 0.4  # of the second-level cache: weights per core that are found there step after step


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

    `h`, `c` are the states after the step (`c` is None where there is none); `gated`: what the second phase multiplies, or None. `sums`: of
    each gate what a gradient needs of both products: x<g> + s<g> where the cell sees but their sum, else s<g>.
    """

    gates: int
    phases: tuple[Phase, ...]
    sums: tuple[Expr, ...]
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
class GradCell:
    """The backward step of a unit, over the args of its `Cell` and `dh`, `dc`, the gradients of the states after the step, and `dgated`;
    `s<g>` is what the cell's `sums` say, and `x<g>` is left only of gates that need it beside.

    `dx`, `ds`: gradients of each gate's parts of the input product and the recurrent product; `direct`: of h before the step, but for
    what comes through the products, None for 0; `dc`: of c before it; `holes`: of pi, po, pf; `gated` as in the cell. Each phase makes
    the gradients of its gates, and then the product of these with their weights: the gradient of what they were made from, which is the
    gated rows (then `dgated` for the phases that follow) or h.
    """

    gates: int
    phases: tuple[Phase, ...]
    dx: tuple[Expr, ...]
    ds: tuple[Expr, ...]
    direct: Expr | None
    dc: Expr | None
    holes: tuple[Expr, ...] = ()
    gated: Expr | None = None


@dataclass(frozen=True)
class LayerSpec(ABC):
    """What the kernels of a layer, forward and backward, have in common."""

    dtype: DType
    steps: int
    batch: int
    hidden: int
    gates: int
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
        """Elements from one row of a state to the next."""
        return self.odd_lines(self.unit_groups * self.tile.units * self.tile.lanes)

    @property
    def rows(self) -> int:
        """Of a state: of all directions."""
        return self.directions * self.batch

    def odd_lines(self, elements: int) -> int:
        """At least so many elements: an odd number of cache lines, so that rows fall into different sets of a cache."""
        line = _LINE // self.dtype.itemsize
        return (-(-elements // line) | 1) * line

    def operand(self, name: str) -> Operand:
        """One of `inputs` or `outputs`, or x or weights."""
        d, b, h, t, g = self.directions, self.batch, self.hidden, self.steps, self.gates * self.hidden
        by_time, by_direction = (t, d, b), (d, b, t) if self.batch_first else (d, t, b)
        x = (b, t, d * g) if self.batch_first else (t, b, d * g)
        y = (b, t, d, h) if self.batch_first else (*by_time, h)
        shapes = {
            "x": x, "dx": x, "weights": (d, g, h), "bias": (d, h), "peepholes": (d, 3 * h), "lengths": (b,), "y": y, "dy": y,
            "cells": (*by_time, h), "sums": (*by_time, g), "ds": (*by_direction, g), "before": (*by_direction, h),
            "gated": (*by_direction, h), "holes": (*by_direction, 3 * h),
        }  # fmt: skip
        return Operand(i32 if name == "lengths" else self.dtype, shapes.get(name, (b, d, h) if self.batch_first else (d, b, h)))

    @property
    @abstractmethod
    def memory(self) -> Operand:
        """That all threads share."""

    @property
    @abstractmethod
    def scratch(self) -> Operand:
        """Of each thread."""

    @property
    def operands(self) -> tuple[Operand, ...]:
        named = (self.operand(name) for name in ("x", "weights", *self.inputs, *self.outputs))
        return (*named, self.memory, self.scratch)


@dataclass(frozen=True)
class RecurrentSpec(LayerSpec):
    """T steps of a cell for B rows and H units in D directions.

    Operands, in order: `x` (T, B, D*G*H), or (B, T, D*G*H) where `batch_first`, the gates of each direction one after the other;
    `weights` (D, G*H, H), packed; those of `inputs`: `bias` (D, H), `peepholes` (D, 3*H: pi, po, pf), `lengths` (B) i32, `h0` and `c0`
    (D, B, H); those of `outputs`: `y` (T, D, B, H), `y_h` and `y_c` (D, B, H), `cells` (T, D, B, H), the state c after each step,
    `sums` (T, D, B, G*H), see `Cell`; then memory that all threads share, and memory of each thread. batch_first:
    h0, c0, y_h, y_c are (B, D, H), y is (B, T, D, H); cells and sums are as ever.
    One more argument follows the operands: how threads wait for each other (`graphc.schedule.plan.Ref`, space "pool").

    A row takes part in steps 0 .. its length-1 (all of them without `lengths`); in the others its states stay and its y is 0.
    """

    cell: Cell = field(kw_only=True)

    @property
    def item_vectors(self) -> int:
        """Of the sums of one row of an item."""
        return self.tile.units * self.gates

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
        """The sums of one item."""
        return Operand(self.dtype, (0 if self.shares_sums else self.tile.group * self.item_vectors * self.tile.lanes,))

    @property
    def memory(self) -> Operand:
        return Operand(self.dtype, (self.shared[3],))


@dataclass(frozen=True)
class RecurrentGradSpec(LayerSpec):
    """The steps of a layer backward through time.

    Operands: `x` and `weights` (packed for this kernel), those of `inputs`: the optional inputs of the layer, its results `y`, `cells`,
    `sums`, and the gradients `dy`, `dy_h`, `dy_c`; those of `outputs`: `dx`, `ds` (D, T, B, G*H), `before` (D, T, B, H), the states h
    before the steps, `dh0`, `dc0`, `gated`, `holes` (D, T, B, 3*H), those of (D, T, ...) as (D, B, T, ...) where batch_first; then memory
    as in RecurrentSpec. Where a row takes no part in a step,
    its dx, ds and holes are 0, and the gradients of its states stay.
    """

    cell: GradCell = field(kw_only=True)

    @property
    def packed_elements(self) -> int:
        """Of the weights: [direction][unit group][phase][vectors of a tile][k over the phase's gates][vector][lane]."""
        return self.directions * self.unit_groups * self.tile.units * self.tile.lanes * self.gates * self.hidden

    @property
    def gates_pitch(self) -> int:
        """Elements from one row of the gradients of sums to the next."""
        return self.odd_lines(self.gates * self.hidden)

    @property
    def shared(self) -> tuple[int, int, int, int]:
        """Where in the shared memory dc, dgated and the gradients of sums (twice) begin, and its end. dh comes first."""
        state = self.rows * self.pitch
        dgated = state + (state if self.cell.dc is not None else 0)
        sums = dgated + (state if self.cell.gated is not None else 0)
        return state, dgated, sums, sums + 2 * self.rows * self.gates_pitch

    @property
    def scratch(self) -> Operand:
        return Operand(self.dtype, (0,))

    @property
    def memory(self) -> Operand:
        return Operand(self.dtype, (self.shared[3],))


def choose_tile(phases: tuple[int, ...], depth: int, hidden: int, batch: int, directions: int, dtype: DType, target: Target) -> Tile:
    """The tile of least predicted time, for products of `phases` vectors for each vector of units, each a sum of `depth` elements. It
    decides no bit of a result: every sum is made in order."""
    lanes = target.lanes(dtype)
    blocks = max(-(-hidden // lanes), 1)
    group = _group(batch, directions, blocks, target)
    weights = directions * sum(phases) * depth * blocks * lanes * dtype.itemsize / target.cores
    half = -(-group // 2)
    groups = (group, half) if half >= _HALF_GROUP and weights <= _L2_SHARE * target.l2 else (group,)
    tiles = (tile for some in groups for tile in _tiles(phases, blocks, lanes, some, target))
    return min(tiles, key=lambda tile: _cost(tile, sum(phases), depth, blocks, batch, directions, dtype, target))


def _group(batch: int, directions: int, blocks: int, target: Target) -> int:
    """Rows of an item: many, so that weights are read for many rows, but items for all cores."""
    groups = ceil(batch / _MAX_GROUP)
    while directions * groups * blocks < target.cores and groups < batch:
        groups += 1
    return max(ceil(batch / max(groups, 1)), 1)


def _tiles(phases: tuple[int, ...], blocks: int, lanes: int, group: int, target: Target) -> Iterator[Tile]:
    units = 1
    while units < 2 * blocks and units <= 16:
        for vectors in range(1, 25):
            most = _most_rows(vectors, target)
            if most and all(units * gates % vectors == 0 and units * gates <= 4 * vectors for gates in phases):
                yield Tile(lanes, units, vectors, ceil(group / ceil(group / most)), group)
        units *= 2


def _most_rows(vectors: int, target: Target) -> int:
    """Rows of a register tile, 0 where not one fits."""
    if target.vector_bytes == 16:
        return min(7, target.registers // 2 // vectors)
    return (target.registers - 2) // vectors if vectors > 4 else (target.registers - vectors - 1) // vectors


def _cost(
    tile: Tile, gates: int, depth: int, blocks: int, batch: int, directions: int, dtype: DType, target: Target
) -> float:  # fmt: skip
    """Relative time of a step on the busiest core, in cycles per unit of the state: the multiply-adds, loads or latency of the tiles, or
    reading the weights from L2, which only the first tile of rows does where a panel stays in L1 beside the rows. Of equals the one whose
    cells come soonest behind their sums."""
    items = directions * ceil(batch / tile.group) * ceil(blocks / tile.units)
    tiles = ceil(tile.group / tile.rows)
    sums = tile.rows * tile.vectors
    step = max(sums, tile.rows + tile.vectors, _LATENCY) / 2 + 0.03 * tile.rows
    reading = tile.vectors * target.vector_bytes / _L2_RATE
    far = max(step, reading) + _L2_WAIT * reading + 0.1 * _LATENCY / sums
    stays = depth * (tile.vectors * tile.lanes + tile.group) * dtype.itemsize <= target.l1
    panel = far + (tiles - 1) * (step if stays else far)
    item = tile.units * gates / tile.vectors * (panel + 0.02 * tile.vectors * tiles) + 0.0001
    return ceil(items / target.cores) * item + 0.001 * (tile.vectors + tile.units)
