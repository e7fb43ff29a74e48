"""The candidates for the first k of a row: all elements up to a threshold that at least k reach.

The row is dealt to classes like cards, and the best code of each class found, a vector of classes at a time. The threshold is the k-th
best of these, or a little beyond it: k classes reach it, so k elements do. A second pass over the row keeps what comes before the
threshold, and of those equal to it the first k. Four classes for each of k let about k * 1.15 of n random elements through; any other
order of elements is as right, and sorting what is left takes linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.kernel.sort import SortSpec
from graphc_cpu.emit.ir import Function, Value, i64
from graphc_cpu.emit.lanes import intrinsic_suffix
from graphc_cpu.kernels.sort_codes import Codes
from graphc_cpu.kernels.sort_records import Records
from graphc_cpu.micro.memory import broadcast

_CLASSES = 4  # for each of k
_GROUP = 4  # vectors that are looked at together


class Selection:
    """Of the row at `x`."""

    def __init__(self, f: Function, spec: SortSpec, codes: Codes, records: Records) -> None:
        self.f, self.spec, self.codes, self.records = f, spec, codes, records
        self.unit = _GROUP * codes.lanes
        self.classes = -(-_CLASSES * spec.k // self.unit) * self.unit
        if 2 * self.classes > spec.n:  # each element a class of its own
            self.classes = -(-spec.n // self.unit) * self.unit

    def candidates(self, x: Value) -> Value:
        """Puts them into the first list, in order; returns how many."""
        self._find_best(x)
        return self._keep(x, self._threshold())

    # the best of each class -----------------------------------------------------------------------------------------------------

    def _find_best(self, x: Value) -> None:
        f, spec, lanes = self.f, self.spec, self.codes.lanes
        first = min(self.classes, spec.n)
        self._each(first, lambda at, valid: self._put(at, self._code(x, at, valid)))
        for at in range(-(-first // lanes) * lanes, self.classes, lanes):
            self._put(i64(at), self.codes.vectors.const(-1))
        turns = spec.n // self.classes

        def better(start: Value, at: Value, valid: int) -> None:
            best = f.load(self.codes.type, self._best(at), self.codes.bits // 8)
            self._put(at, self.codes.vectors.intrinsic("umin", best, self._code(x, f.add(start, at), valid)))

        def turn(start: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            self._each(self.classes, lambda at, valid: better(start, at, valid))
            return ()

        if turns > 1:
            f.loop(self.classes, turns * self.classes, self.classes, turn, hint="deal", guarded=False)
        if turns:
            self._each(spec.n - turns * self.classes, lambda at, valid: better(i64(turns * self.classes), at, valid))

    def _each(self, count: int, body: Callable[[Value, int], None]) -> None:
        """`body(place, valid lanes)` of each vector of `count` elements."""
        lanes = self.codes.lanes

        def group(at: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            for u in range(_GROUP):
                body(self.f.add(at, u * lanes), lanes)
            return ()

        whole = count // self.unit * self.unit
        if whole:
            self.f.loop(0, whole, self.unit, group, hint="group", guarded=False)
        for at in range(whole, count, lanes):
            body(i64(at), min(lanes, count - at))

    def _code(self, x: Value, at: Value, valid: int) -> Value:
        return self.codes.load(self.f.pointer(x, at, f"i{self.spec.x.dtype.bits}"), valid)

    def _best(self, at: Value) -> Value:
        return self.f.pointer(self.records.row, at, self.codes.element)

    def _put(self, at: Value, code: Value) -> None:
        self.f.store(code, self._best(at), self.codes.bits // 8)

    # the threshold --------------------------------------------------------------------------------------------------------------

    def _threshold(self) -> Value:
        """A code that at least k classes reach, found bit by bit from the first; not many more than k, unless their codes are equal."""
        f, element, k = self.f, self.codes.element, self.spec.k
        enough = k + k // 4 + 2

        def bit(carried: tuple[Value, ...]) -> tuple[Value, Sequence[Value]]:
            code, bit = carried
            trial = f.op(f"xor {code}, {bit.name}", element)
            reach = self._reaching(trial)
            fits = f.op(f"icmp uge {reach}, {k}", "i1")
            few = f.op(f"icmp ule {reach}, {enough}", "i1")
            found = f.op(f"and {fits}, {few.name}", "i1")
            following = f.op(f"lshr {bit}, 1", element)
            more = f.op(f"icmp ne {following}, 0", "i1")
            again = f.op(f"and i1 {more.name}, {f.op(f'xor {found}, true', 'i1').name}", "i1")
            return again, (f.op(f"select {fits}, {trial}, {code}", element), following)

        bits = self.spec.x.dtype.bits
        last, first = (1 << bits) - 1, 1 << (bits - 1)
        code, _ = f.repeat(bit, (Value(str(last), element), Value(str(first), element)), hint="bit")
        return code

    def _reaching(self, code: Value) -> Value:
        f, n, lanes = self.f, self.codes.vectors, self.codes.lanes
        limit = broadcast(f, code, lanes)

        def group(at: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            (total,) = carried
            for u in range(_GROUP):
                best = f.load(n.type, self._best(f.add(at, u * lanes)), self.codes.bits // 8)
                total = n.op("sub", total, f.op(f"sext {n.compare('le', best, limit)} to {n.type}", n.type))
            return (total,)

        (total,) = f.loop(0, self.classes, self.unit, group, (n.const(0),), hint="reach", guarded=False)
        return f.call(f"llvm.vector.reduce.add.{intrinsic_suffix(n.element, lanes)}", n.element, total)

    # what reaches it ------------------------------------------------------------------------------------------------------------

    def _keep(self, x: Value, threshold: Value) -> Value:
        f, element = self.f, self.codes.element
        before = f.call(f"llvm.usub.sat.{element}", element, threshold, Value("1", element))

        def group(at: Value, carried: tuple[Value, ...], valid: int = self.unit) -> Sequence[Value]:
            count, equals = carried
            open_ = f.op(f"icmp sgt {equals}, 0", "i1")
            bits = self._mask(x, at, f.op(f"select {open_}, {threshold}, {before}", element), valid)
            some = f.call("llvm.ctpop.i64", "i64", bits)
            return f.loop(0, some, 1, lambda _, state: self._take(at, threshold, state), (bits, count, equals), hint="take")[1:]

        whole = self.spec.n // self.unit * self.unit
        state: Sequence[Value] = (i64(0), i64(self.spec.k))
        if whole:
            state = f.loop(0, whole, self.unit, group, state, hint="keep", guarded=False)
        if whole < self.spec.n:
            state = group(i64(whole), tuple(state), self.spec.n - whole)
        return state[0]

    def _mask(self, x: Value, start: Value, limit: Value, valid: int) -> Value:
        """A bit for each of a group's elements up to the limit; their codes are kept."""
        f, n, lanes = self.f, self.codes.vectors, self.codes.lanes
        most, bits = broadcast(f, limit, lanes), i64(0)
        for first in range(0, valid, lanes):
            code = self._code(x, f.add(start, first), min(lanes, valid - first))
            f.store(code, f.pointer(self.records.ranks, first, self.codes.element), self.codes.bits // 8)
            mask = f.op(f"bitcast {n.compare('le', code, most)} to i{lanes}", f"i{lanes}")
            wide = f.op(f"zext {mask} to i64", "i64")
            shifted = f.op(f"shl i64 {wide.name}, {first}", "i64") if first else wide
            bits = f.op(f"or i64 {bits.name}, {shifted.name}", "i64")
        return bits if valid % lanes == 0 else f.op(f"and i64 {bits.name}, {(1 << valid) - 1}", "i64")

    def _take(self, start: Value, threshold: Value, state: tuple[Value, ...]) -> Sequence[Value]:
        """The element of the lowest bit, unless enough are equal to the threshold."""
        f, (bits, count, equals) = self.f, state
        f.declare("declare i64 @llvm.cttz.i64(i64, i1)")
        place = f.op(f"call i64 @llvm.cttz.i64(i64 {bits.name}, i1 true)", "i64")
        rest = f.op(f"and i64 {bits.name}, {f.sub(bits, 1).name}", "i64")
        code = f.load(self.codes.element, f.pointer(self.records.ranks, place, self.codes.element), self.codes.bits // 8)
        self.records.store(self.records.first, count, code, f.add(start, place))
        equal = f.op(f"icmp eq {code}, {threshold.name}", "i1")
        less = f.op(f"icmp ult {code}, {threshold.name}", "i1")
        spare = f.op(f"and i1 {equal.name}, {f.op(f'icmp sgt {equals}, 0', 'i1').name}", "i1")
        kept = f.op(f"zext i1 {f.op(f'or {less}, {spare.name}', 'i1').name} to i64", "i64")
        return rest, f.add(count, kept), f.sub(equals, f.op(f"zext {equal} to i64", "i64"))
