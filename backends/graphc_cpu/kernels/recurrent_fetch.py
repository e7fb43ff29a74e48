"""Cache lines that a recurrent cell needs, fetched while a register tile makes its sums: a few in each turn of the tile's loop.

A cell reads and writes one line here and there in each of its operands: too few together for the machine to foresee, too many at once
to wait for. The lines of a tile are streams: one line in each of its rows. Their addresses lie in a table on the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.micro.tile import prefetch

_PER_VECTOR = 24  # streams of one vector of a tile: four operands with a line for each of four gates, and eight others


@dataclass(frozen=True)
class Stream:
    """The line of the first row, and elements from a row to the next."""

    start: Value
    step: int


class Fetcher:
    """`vectors`: the most of a tile. The table holds pairs of an address and the bytes to the next row."""

    def __init__(self, f: Function, element: str, itemsize: int, vectors: int) -> None:
        self.f, self.element, self.itemsize = f, element, itemsize
        self.most = 2 * _PER_VECTOR * vectors  # some turns take a stream again
        self.table = f.op(f"alloca [{2 * self.most} x i64], align 64", "ptr")

    def begin(self, streams: Sequence[Stream], first: Value, rows: int, turns: int) -> Callable[[Value], None] | None:
        """Of a tile of `rows` rows from row `first` of the streams on, whose loop takes `turns` turns: what each turn has to do."""
        f = self.f
        if not streams or turns < 2:
            return None
        each = min(-(-len(streams) * rows // turns), len(streams))
        groups = -(-len(streams) // each)
        assert groups * each <= self.most
        for place in range(groups * each):
            stream = streams[min(place, len(streams) - 1)]
            start = f.pointer(stream.start, f.mul(first, stream.step), self.element)
            f.store(f.op(f"ptrtoint ptr {start.name} to i64", "i64"), self._entry(i64(2 * place)), 8)
            f.store(i64(stream.step * self.itemsize), self._entry(i64(2 * place + 1)), 8)

        def turn(number: Value) -> None:
            row = f.op(f"udiv i64 {number.name}, {groups}", "i64")
            group = f.sub(number, f.mul(row, groups))
            beyond = f.op(f"icmp sgt i64 {row.name}, {rows - 1}", "i1")
            row = f.op(f"select i1 {beyond.name}, i64 {rows - 1}, {row}", "i64")
            first_entry = f.mul(group, 2 * each)
            for k in range(each):
                start = f.load("i64", self._entry(f.add(first_entry, 2 * k)), 8)
                step = f.load("i64", self._entry(f.add(first_entry, 2 * k + 1)), 8)
                place = f.add(start, f.op(f"mul i64 {row.name}, {step.name}", "i64"))
                prefetch(f, f.op(f"inttoptr i64 {place.name} to ptr", "ptr"), 2)

        return turn

    def _entry(self, number: Value) -> Value:
        return self.f.pointer(self.table, number, "i64")
