"""Movement between two contiguous axes: square tiles that are transposed in registers (layout packing, permutations).

The store is contiguous along the vector axis v, a load along another axis q. A tile loads one row along q for each lane of v, transposes
the rows with shuffles, and then computes and stores one vector along v for each value of q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.kernel.expr import Expr, walk
from graphc_cpu.emit.ir import Value, i64
from graphc_cpu.kernels.nest_emit import Emitter
from graphc_cpu.kernels.nest_items import emit_items
from graphc_cpu.kernels.nest_lower import Store
from graphc_cpu.kernels.nest_memory import Memory


@dataclass(frozen=True)
class TileLoops:
    """Loops over tiles: `others` and the blocks of q are the work items, v runs inside.

    `tiled`: the stores with tile loads (`tload` nodes); `plain`: the same without, for remainders on machines without masks.
    """

    emitter: Emitter
    others: tuple[Expr, ...]
    q: Expr
    v: Expr
    lanes: int
    tiled: tuple[Store, ...]
    plain: tuple[Store, ...]
    small: bool

    def emit(self) -> None:
        e = self.emitter
        extents = [*(axis.extent for axis in self.others), -(-self.q.extent // self.lanes)]

        def body(digits: tuple[Value, ...]) -> None:
            with e.scope(dict(zip(self.others, digits, strict=False))):
                e.hoist(self._roots)
                self._block_of_q(digits[-1])

        emit_items(e.f, extents, self.small, lambda: e.hoist(self._roots), body)

    @property
    def _roots(self) -> list[Expr]:
        return [root for store in (*self.tiled, *self.plain) for root in store.roots]

    def _block_of_q(self, number: Value) -> None:
        f, lanes = self.emitter.f, self.lanes
        full, tail = divmod(self.q.extent, lanes)
        start = f.mul(number, lanes)
        if not tail:
            self._row_of_tiles(start, lanes)
            return
        if full:
            f.branch(f.op(f"icmp slt {number}, {full}", "i1"), lambda: self._row_of_tiles(start, lanes), hint="full")
        last = i64(full * lanes)
        if self.emitter.masks:
            f.branch(f.op(f"icmp eq {number}, {full}", "i1"), lambda: self._row_of_tiles(last, tail), hint="tail")
        else:
            f.branch(f.op(f"icmp eq {number}, {full}", "i1"), lambda: self._plain_rows(last, tail), hint="tail")

    def _row_of_tiles(self, q: Value, count: int) -> None:
        """All of v for `count` values of q."""
        f, lanes = self.emitter.f, self.lanes
        whole = self.v.extent - self.v.extent % lanes

        def turn(base: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
            self._tile(base, lanes, q, count)
            return ()

        if whole == lanes:
            turn(i64(0), ())
        elif whole:
            f.loop(0, whole, lanes, turn, guarded=False)
        rest = self.v.extent - whole
        if rest and self.emitter.masks:
            self._tile(i64(whole), rest, q, count)
        elif rest:
            f.loop(whole, self.v.extent, 1, lambda i, _: self._column(i, q, count), guarded=False)

    def _tile(self, base: Value, valid: int, q: Value, count: int) -> None:
        e = self.emitter
        with e.lanes_scope(self.v, self.lanes, base, (valid,)):
            roots = [root for store in self.tiled for root in store.roots]
            e.hoist(roots)
            loads = [node for node in walk(*roots) if node.fn == "tload"]
            tiles = {node: self._columns(node, q, valid, count) for node in loads}
            for turn in range(count):
                with e.scope({self.q: e.f.add(q, turn)}):
                    for node, columns in tiles.items():
                        e.keep(node, (columns[turn],))
                    e.hoist(roots)
                    for store in self.tiled:
                        e.store(store)

    def _columns(self, node: Expr, q: Value, valid: int, count: int) -> list[Value]:
        """One row is not transposed: LLVM 22 stores wrong lanes of a vector that is shuffled with itself and converted."""
        e = self.emitter
        return e.tile_row(node, q, count) if valid == 1 else transpose(e.memory, e.tile_rows(node, q, valid, count), node.dtype.itemsize)

    def _column(self, v: Value, q: Value, count: int) -> tuple[Value, ...]:
        """One value of v, without lanes."""
        e = self.emitter
        with e.lanes_scope(self.v, 1, v, (1,)):
            self._plain_turns(q, count)
        return ()

    def _plain_rows(self, q: Value, count: int) -> None:
        f, lanes = self.emitter.f, self.lanes
        whole = self.v.extent - self.v.extent % lanes

        def turn(base: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
            with self.emitter.lanes_scope(self.v, lanes, base, (lanes,)):
                self._plain_turns(q, count)
            return ()

        if whole:
            f.loop(0, whole, lanes, turn, guarded=False)
        if whole < self.v.extent:
            f.loop(whole, self.v.extent, 1, lambda i, _: self._column(i, q, count), guarded=False)

    def _plain_turns(self, q: Value, count: int) -> None:
        e = self.emitter

        def turn(i: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
            with e.scope({self.q: i}):
                e.hoist([root for store in self.plain for root in store.roots])
                for store in self.plain:
                    e.store(store)
            return ()

        e.f.loop(q, e.f.add(q, count), 1, turn, guarded=False)


def transpose(memory: Memory, rows: Sequence[Value], itemsize: int) -> list[Value]:
    """Columns of a square of vectors: inside blocks of 128 bits by unpacking, then whole blocks, as x86 has instructions for it."""
    lanes = len(rows)
    unit = 16 // itemsize if itemsize in (4, 8) else lanes
    if unit > lanes or itemsize < 4:
        return _butterflies(memory, rows)
    columns: list[list[Value]] = []
    for first in range(0, lanes, unit):
        group = rows[first : first + unit]
        columns.append(_unpack4(memory, group, lanes) if unit == 4 else _unpack(memory, group[0], group[1], lanes, 1))
    out: list[Value] = [rows[0]] * lanes
    for j in range(unit):
        for block, vector in enumerate(_blocks(memory, [column[j] for column in columns], lanes, unit)):
            out[block * unit + j] = vector
    return out


def _unpack4(memory: Memory, group: Sequence[Value], lanes: int) -> list[Value]:
    low, high = _unpack(memory, group[0], group[1], lanes, 1, 4), _unpack(memory, group[2], group[3], lanes, 1, 4)
    return [*_unpack(memory, low[0], high[0], lanes, 2, 4), *_unpack(memory, low[1], high[1], lanes, 2, 4)]


def _unpack(memory: Memory, a: Value, b: Value, lanes: int, size: int, block: int = 2) -> list[Value]:
    """Runs of `size` lanes of a and b in turn, from the lower and from the upper half of each block."""
    out: list[Value] = []
    for half in (0, block // 2):
        picks: list[int] = []
        for start in range(0, lanes, block):
            for run in range(start + half, start + half + block // 2, size):
                picks += [*range(run, run + size), *range(lanes + run, lanes + run + size)]
        out.append(memory.shuffle(a, b, picks))
    return out


def _blocks(memory: Memory, vectors: Sequence[Value], lanes: int, unit: int) -> list[Value]:
    """Vector b: block b of each of the vectors (a power of two of them, of as many blocks)."""
    if len(vectors) == 1:
        return list(vectors)
    even, odd = (_blocks(memory, _every_second_block(memory, vectors, lanes, unit, parity), lanes, unit) for parity in (0, 1))
    return [vector for pair in zip(even, odd, strict=True) for vector in pair]


def _every_second_block(memory: Memory, vectors: Sequence[Value], lanes: int, unit: int, parity: int) -> list[Value]:
    picks = [lane for start in range(parity * unit, 2 * lanes, 2 * unit) for lane in range(start, start + unit)]
    return [memory.shuffle(a, b, picks) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]


def _butterflies(memory: Memory, rows: Sequence[Value]) -> list[Value]:
    lanes, out, distance = len(rows), list(rows), 1
    while distance < lanes:
        for i in range(lanes):
            if i & distance:
                continue
            a, b = out[i], out[i + distance]
            out[i] = memory.shuffle(a, b, [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)])
            out[i + distance] = memory.shuffle(a, b, [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)])
        distance *= 2
    return out
