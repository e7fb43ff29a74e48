"""The first k of each row in order. A work item is a row; how its elements are sorted follows from n and k.

Few elements are sorted by counting. Where k is at most half of n, candidates are selected first, and only these sorted; else all
elements go through a radix sort. All of it takes time linear in n, whatever the elements are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.kernel.sort import SortSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.kernels.items import for_items, kernel_function, operand_pointers
from graphc_cpu.kernels.sort_codes import Codes
from graphc_cpu.kernels.sort_records import Records, few
from graphc_cpu.kernels.sort_select import Selection


def emit_sort(spec: SortSpec, target: Target, name: str) -> Function:
    """Any dtype of numbers, any machine level."""
    f = kernel_function(name)
    if spec.rows and spec.k:
        _Sort(f, spec, target).emit()
    return f


class _Sort:
    def __init__(self, f: Function, spec: SortSpec, target: Target) -> None:
        self.f, self.spec, self.few = f, spec, few(target)
        self.codes = Codes(f, spec.x.dtype, spec.largest, target)
        self.element = f"i{spec.x.dtype.bits}"

    def emit(self) -> None:
        f, spec = self.f, self.spec
        self.x, *self.outputs, scratch = operand_pointers(f, len(spec.operands))
        self.records = Records(f, spec, self.codes, f.pointer(scratch, f.mul(f.parameters[1], spec.scratch.elements), "i64"))
        self.selection = Selection(f, spec, self.codes, self.records)
        for_items(f, {"row": spec.rows}, self._row)

    def _row(self, digits: Mapping[str, Value]) -> None:
        f, spec = self.f, self.spec
        row = digits["row"]
        x = f.pointer(self.x, f.mul(row, spec.n), self.element)
        selects = 2 * spec.k <= spec.n and 2 * spec.n > self.few
        if not selects:
            self._all(x)
            sort = self._sort_few if spec.n <= self.few else self._sort_many
            sort(x, row, i64(spec.n))
        else:
            count = self.selection.candidates(x)
            is_few = f.op(f"icmp sle {count}, {self.few}", "i1")
            f.branch(is_few, lambda: self._sort_few(x, row, count), hint="few")
            f.branch(f.op(f"xor {is_few}, true", "i1"), lambda: self._sort_many(x, row, count), hint="many")

    def _sort_few(self, x: Value, row: Value, count: Value) -> None:
        self.records.sort_few(self.records.first, self.records.second, count, min(self.few, self.spec.n))
        self._store(x, row, self.records.second)

    def _sort_many(self, x: Value, row: Value, count: Value) -> None:
        self._store(x, row, self.records.sort_many(self.records.first, self.records.second, count))

    def _all(self, x: Value) -> None:
        """A record of each element."""
        f, codes, n = self.f, self.codes, self.spec.n

        def some(at: Value, valid: int = codes.lanes) -> None:
            code = codes.load(f.pointer(x, at, self.element), valid)
            self.records.store(self.records.first, at, code, self.records.counting(at, codes.lanes))

        def turn(at: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            some(at)
            return ()

        whole = n // codes.lanes * codes.lanes
        if whole:
            f.loop(0, whole, codes.lanes, turn, hint="all", guarded=False)
        if whole < n:
            some(i64(whole), n - whole)

    def _store(self, x: Value, row: Value, records: Value) -> None:
        """The results of a row."""
        f, spec = self.f, self.spec
        start = f.mul(row, spec.k)

        def one(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            at, position = f.add(start, i), self.records.position(records, i)
            for name, pointer in zip(spec.outputs, self.outputs, strict=True):
                if name == "positions":
                    f.store(position, f.pointer(pointer, at, "i64"), 8)
                else:
                    value = f.load(self.element, f.pointer(x, position, self.element), spec.x.dtype.itemsize)
                    f.store(value, f.pointer(pointer, at, self.element), spec.x.dtype.itemsize)
            return ()

        f.loop(0, spec.k, 1, one, hint="result", guarded=False)
