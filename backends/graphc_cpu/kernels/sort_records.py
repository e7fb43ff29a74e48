"""Lists of records, an element's code and its position, in the scratch of a thread, and two ways to sort them.

A record of 32 bits or less is one word, the code above the position; of 64 bits two words, which lie in arrays of their own. A list to
be sorted is in the order of positions, which both ways keep where codes are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphc.kernel.sort import DIGIT, SortSpec
from graphc.target import Target
from graphc_cpu.emit.integer import Integers
from graphc_cpu.emit.ir import Function, Value, vector_type
from graphc_cpu.kernels.sort_codes import Codes
from graphc_cpu.micro.memory import broadcast
from graphc_cpu.micro.shape import split

_BUCKETS = 1 << DIGIT
_UNROLL = 4


def few(target: Target) -> int:
    """Records that are sorted by counting, at most: n * n / lanes steps against some n, and more for each digit."""
    return 2 * target.vector_bytes


class Records:
    """`first` and `second`: the two lists; `counters`, `ranks`: where these lie."""

    def __init__(self, f: Function, spec: SortSpec, codes: Codes, scratch: Value) -> None:
        self.f, self.spec, self.codes = f, spec, codes
        records, row, counters, _ = spec.regions
        self.first = scratch
        self.second = f.pointer(scratch, records, "i64")
        self.row = f.pointer(self.second, records, "i64")
        self.counters = f.pointer(self.row, row, "i64")
        self.ranks = f.pointer(self.counters, counters, "i64")
        self.lanes = codes.target.vector_bytes // 8
        self.words = Integers(f, 64, False, self.lanes)

    # records --------------------------------------------------------------------------------------------------------------------

    def word(self, records: Value, at: Value | int, number: int = 0) -> Value:
        """The address of a word of record `at`."""
        array = self.f.pointer(records, number * self.spec.capacity, "i64")
        return self.f.pointer(array, at, "i64")

    def store(self, records: Value, at: Value, code: Value, position: Value) -> None:
        """`code` and `position`: of one element, or of as many as a vector of codes has."""
        f = self.f
        if self.spec.words == 1:
            wide = f.op(f"zext {code} to {position.type}", position.type)
            by = Value("32", "i64") if position.type == "i64" else Integers(f, 64, False, self.codes.lanes).const(32)
            high = f.op(f"shl {wide}, {by.name}", position.type)
            f.store(f.op(f"or {high}, {position.name}", position.type), self.word(records, at), 8)
            return
        f.store(code, self.word(records, at), 8)
        f.store(position, self.word(records, at, 1), 8)

    def position(self, records: Value, at: Value) -> Value:
        last = self.f.load("i64", self.word(records, at, self.spec.words - 1), 8)
        return last if self.spec.words == 2 else self.f.op(f"and i64 {last.name}, {0xFFFFFFFF}", "i64")

    def _copy(self, source: Value, at: Value, to: Value, place: Value) -> None:
        for number in range(self.spec.words):
            self.f.store(self.f.load("i64", self.word(source, at, number), 8), self.word(to, place, number), 8)

    # by counting ----------------------------------------------------------------------------------------------------------------

    def sort_few(self, source: Value, to: Value, count: Value, most: int) -> None:
        """`count` records, at least one and at most `most`: each goes where as many lie before it as come before it."""
        f, lanes = self.f, self.lanes
        unroll = split(-(-most // lanes), 6 if self.codes.target.registers > 16 else 4).width

        def ranks(start: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            places = [f.add(start, u * lanes) for u in range(unroll)]
            mine = [f.load(self.words.type, self.word(source, place), 8) for place in places]
            here = [self.counting(place) for place in places]

            def other(i: Value, found: tuple[Value, ...]) -> Sequence[Value]:
                one = broadcast(f, f.load("i64", self.word(source, i), 8), lanes)
                at = broadcast(f, i, lanes)
                before = [self._before(one, at, own, place) for own, place in zip(mine, here, strict=True)]
                return [self.words.op("sub", total, self._ones(mask)) for total, mask in zip(found, before, strict=True)]

            found = f.loop(0, count, 1, other, [self.words.const(0)] * unroll, hint="other", guarded=False)
            for place, total in zip(places, found, strict=True):
                f.store(total, f.pointer(self.ranks, place, "i64"), 8)
            return ()

        def move(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            self._copy(source, i, to, f.load("i64", f.pointer(self.ranks, i, "i64"), 8))
            return ()

        f.loop(0, count, unroll * lanes, ranks, hint="rank", guarded=False)
        f.loop(0, count, 1, move, hint="move", guarded=False)

    def counting(self, start: Value, lanes: int = 0) -> Value:
        """start, start + 1, ..."""
        lanes = lanes or self.lanes
        steps = ", ".join(f"i64 {lane}" for lane in range(lanes))
        return self.f.op(f"add {broadcast(self.f, start, lanes)}, <{steps}>", vector_type("i64", lanes))

    def _before(self, one: Value, at: Value, other: Value, place: Value) -> Value:
        """Where the first record comes before the second."""
        n = self.words
        less = n.compare("lt", one, other)
        if self.spec.words == 1:
            return less
        return n.masks("or", less, n.masks("and", n.compare("eq", one, other), n.compare("lt", at, place)))

    def _ones(self, mask: Value) -> Value:
        """-1 where the mask is set."""
        return self.f.op(f"sext {mask} to {self.words.type}", self.words.type)

    # by digits ------------------------------------------------------------------------------------------------------------------

    def sort_many(self, source: Value, other: Value, count: Value) -> Value:
        """Radix sort from the last digit to the first; returns the list that has the result. A digit that all share is passed over."""
        self._clear_counters()
        self._count_digits(source, count)
        for digit in range(self.spec.digits):
            moves = self._starts(digit, count)
            self.f.branch(moves, partial(self._scatter, digit, source, other, count), hint="digit")
            source, other = self._either(moves, other, source), self._either(moves, source, other)
        return source

    def _either(self, condition: Value, yes: Value, no: Value) -> Value:
        return self.f.op(f"select {condition}, {yes}, {no}", "ptr")

    def _counter(self, digit: int, bucket: Value) -> Value:
        return self.f.pointer(self.f.pointer(self.counters, digit * _BUCKETS, "i32"), bucket, "i32")

    def _bucket(self, word: Value, digit: int) -> Value:
        shift = digit * DIGIT + (32 if self.spec.words == 1 else 0)
        low = self.f.op(f"lshr i64 {word.name}, {shift}", "i64") if shift else word
        return self.f.op(f"and i64 {low.name}, {_BUCKETS - 1}", "i64")

    def _clear_counters(self) -> None:
        f, step = self.f, self.codes.target.vector_bytes // 4
        zero = Value("zeroinitializer", vector_type("i32", step))

        def clear(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            f.store(zero, f.pointer(self.counters, i, "i32"), 4)
            return ()

        f.loop(0, self.spec.digits * _BUCKETS, step, clear, hint="clear", guarded=False)

    def _count_digits(self, source: Value, count: Value) -> None:
        f = self.f

        def one(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            word = f.load("i64", self.word(source, i), 8)
            for digit in range(self.spec.digits):
                counter = self._counter(digit, self._bucket(word, digit))
                f.store(f.op(f"add i32 {f.load('i32', counter, 4).name}, 1", "i32"), counter, 4)
            return ()

        f.loop(0, count, 1, one, hint="count", guarded=False)

    def _starts(self, digit: int, count: Value) -> Value:
        """Turns the counters of a digit into where its buckets begin; whether more than one bucket has records."""
        f = self.f
        whole = f.op(f"trunc {count} to i32", "i32")

        def some(first: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            start, one = carried
            for step in range(_UNROLL):
                counter = self._counter(digit, f.add(first, step))
                own = f.load("i32", counter, 4)
                f.store(start, counter, 4)
                start = f.op(f"add {start}, {own.name}", "i32")
                one = f.op(f"or {one}, {f.op(f'icmp eq {own}, {whole.name}', 'i1').name}", "i1")
            return start, one

        carried = (Value("0", "i32"), Value("false", "i1"))
        _, one = f.loop(0, _BUCKETS, _UNROLL, some, carried, hint="start", guarded=False)
        return f.op(f"xor {one}, true", "i1")

    def _scatter(self, digit: int, source: Value, to: Value, count: Value) -> None:
        f = self.f

        def one(i: Value, _: tuple[Value, ...]) -> Sequence[Value]:
            word = f.load("i64", self.word(source, i), 8)
            counter = self._counter(digit, self._bucket(word, digit))
            place = f.load("i32", counter, 4)
            f.store(f.op(f"add {place}, 1", "i32"), counter, 4)
            self._copy(source, i, to, f.op(f"zext {place} to i64", "i64"))
            return ()

        f.loop(0, count, 1, one, hint="scatter", guarded=False)
