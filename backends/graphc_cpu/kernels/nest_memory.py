"""Loads and stores of vectors whose lanes are a given number of elements apart, or anywhere.

bool is i8 in memory and i1 in registers. Lanes beyond the end of an axis (`valid` < lanes) are never read or written: contiguous
accesses are masked, the others repeat the last valid lane.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.target import Target
from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, memory_type, vector_type
from graphc_cpu.emit.lanes import intrinsic_suffix

MOST_RUNS = 2  # loads that a fixed pattern of lanes is shuffled from; otherwise it is gathered


class Memory:
    """Emits accesses into one function."""

    def __init__(self, f: Function, target: Target) -> None:
        self._f = f
        self._target = target

    def load(self, pointer: Value, dtype: DType, lanes: int, valid: int, stride: int) -> Value:
        """Element l from pointer + stride * l elements, for each lane l."""
        element = memory_type(dtype)
        if lanes == 1:
            return self._to_register(self._f.load(element, pointer, dtype.itemsize), dtype, 1)
        if stride == 1 and valid < lanes:
            return self._to_register(self._masked_load(pointer, dtype, lanes, valid), dtype, lanes)
        if stride == 1:
            value = self._f.load(vector_type(element, lanes), pointer, dtype.itemsize)
        elif stride == -1 and valid == lanes:
            first = self._f.pointer(pointer, 1 - lanes, element)
            forward = self._f.load(vector_type(element, lanes), first, dtype.itemsize)
            value = self.shuffle(forward, forward, range(lanes - 1, -1, -1))
        elif stride == 2 and valid == lanes:
            value = self._every_second(pointer, dtype, lanes)
        else:
            places = ", ".join(f"i32 {min(lane, valid - 1) * stride}" for lane in range(lanes))
            return self.gather(pointer, Value(f"<{places}>", vector_type("i32", lanes)), dtype, lanes)
        return self._to_register(value, dtype, lanes)

    def gather(self, pointer: Value, offsets: Value, dtype: DType, lanes: int) -> Value:
        """Lane l from pointer + offsets[l] elements."""
        element = memory_type(dtype)
        if lanes == 1:
            return self.load(self._at(pointer, offsets, element), dtype, 1, 1, 0)
        type = vector_type(element, lanes)
        if self._target.vector_bytes == 64 and dtype.itemsize >= 4:
            addresses = self._f.op(f"getelementptr inbounds {element}, ptr {pointer.name}, {offsets}", vector_type("ptr", lanes))
            suffix = f"{intrinsic_suffix(element, lanes)}.v{lanes}p0"
            everywhere = _mask(lanes, lanes)
            self._f.declare(f"declare {type} @llvm.masked.gather.{suffix}({addresses.type}, i32, {everywhere.type}, {type})")
            text = f"call {type} @llvm.masked.gather.{suffix}({addresses}, i32 {dtype.itemsize}, {everywhere}, {type} poison)"
            return self._to_register(self._f.op(text, type), dtype, lanes)
        value = Value("poison", type)
        for lane in range(lanes):
            one = self._f.load(element, self._at(pointer, self.lane(offsets, lane), element), dtype.itemsize)
            value = self._f.op(f"insertelement {value}, {one}, i64 {lane}", type)
        return self._to_register(value, dtype, lanes)

    def load_places(self, pointer: Value, offsets: Sequence[int], dtype: DType, lanes: int, masks: bool) -> Value:
        """Lane l from pointer + offsets[l] elements; the last one repeats. One or two runs of neighbours are loaded and shuffled."""
        places = [*offsets, *([offsets[-1]] * (lanes - len(offsets)))]
        runs = runs_of(places, lanes)
        spans = [max(place for place in places if first <= place < first + lanes) - first + 1 for first in runs]
        if len(runs) > MOST_RUNS or dtype.kind == "b" or not (masks or all(span == lanes for span in spans)):
            steps = ", ".join(f"i32 {place}" for place in places)
            return self.gather(pointer, Value(f"<{steps}>", vector_type("i32", lanes)), dtype, lanes)
        element = memory_type(dtype)
        loaded = [
            self.load(self._f.pointer(pointer, first, element), dtype, lanes, span, 1) for first, span in zip(runs, spans, strict=True)
        ]
        picks: list[int] = []
        for place in places:
            run = max(k for k, first in enumerate(runs) if first <= place)
            picks.append(run * lanes + place - runs[run])
        return self.shuffle(loaded[0], loaded[-1], picks)

    def store(self, value: Value, pointer: Value, dtype: DType, lanes: int, valid: int, stride: int) -> None:
        """Lane l to pointer + stride * l elements, for the first `valid` lanes."""
        if lanes > 1 and stride != 1:
            places = [Value(str(lane * stride), "i64") for lane in range(valid)]
            self._scatter(value, pointer, places, dtype, lanes)
            return
        value = self._to_memory(value, dtype, lanes)
        if valid == lanes:
            self._f.store(value, pointer, dtype.itemsize)
            return
        suffix = f"{intrinsic_suffix(memory_type(dtype), lanes)}.p0"
        mask = _mask(lanes, valid)
        self._f.declare(f"declare void @llvm.masked.store.{suffix}({value.type}, ptr, i32, {mask.type})")
        self._f.do(f"call void @llvm.masked.store.{suffix}({value}, {pointer}, i32 {dtype.itemsize}, {mask})")

    def scatter(self, value: Value, pointer: Value, offsets: Value, dtype: DType, lanes: int, valid: int) -> None:
        """Lane l to pointer + offsets[l] elements, for the first `valid` lanes."""
        self._scatter(value, pointer, [self.lane(offsets, lane) for lane in range(valid)] if lanes > 1 else [offsets], dtype, lanes)

    def _scatter(self, value: Value, pointer: Value, offsets: Sequence[Value], dtype: DType, lanes: int) -> None:
        element = memory_type(dtype)
        value = self._to_memory(value, dtype, lanes)
        for lane, offset in enumerate(offsets):
            one = value if lanes == 1 else self._f.op(f"extractelement {value}, i64 {lane}", element)
            self._f.store(one, self._at(pointer, offset, element), dtype.itemsize)

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """The lanes of a followed by those of b, picked by number."""
        element = a.type[a.type.index("x") + 2 : -1]
        picks = ", ".join(f"i32 {lane}" for lane in lanes)
        type = vector_type(element, len(lanes))
        return self._f.op(f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{picks}>", type)

    def _every_second(self, pointer: Value, dtype: DType, lanes: int) -> Value:
        """Two loads that overlap in one element, so that nothing behind the last element is read."""
        element = memory_type(dtype)
        type = vector_type(element, lanes)
        low = self._f.load(type, pointer, dtype.itemsize)
        high = self._f.load(type, self._f.pointer(pointer, lanes - 1, element), dtype.itemsize)
        half = lanes // 2
        return self.shuffle(low, high, [*range(0, lanes, 2), *(lanes + 2 * k + 1 for k in range(half))])

    def _masked_load(self, pointer: Value, dtype: DType, lanes: int, valid: int) -> Value:
        element = memory_type(dtype)
        type, suffix, mask = vector_type(element, lanes), f"{intrinsic_suffix(element, lanes)}.p0", _mask(lanes, valid)
        self._f.declare(f"declare {type} @llvm.masked.load.{suffix}(ptr, i32, {mask.type}, {type})")
        text = f"call {type} @llvm.masked.load.{suffix}({pointer}, i32 {dtype.itemsize}, {mask}, {type} zeroinitializer)"
        return self._f.op(text, type)

    def lane(self, vector: Value, lane: int) -> Value:
        """One lane as a scalar."""
        element = vector.type[vector.type.index("x") + 2 : -1]
        return self._f.op(f"extractelement {vector}, i64 {lane}", element)

    def _at(self, pointer: Value, offset: Value, element: str) -> Value:
        return self._f.op(f"getelementptr inbounds {element}, {pointer}, {offset}", "ptr")

    def _to_register(self, value: Value, dtype: DType, lanes: int) -> Value:
        if dtype.kind != "b":
            return value
        return self._f.op(f"icmp ne {value}, {'zeroinitializer' if lanes > 1 else '0'}", vector_type("i1", lanes))

    def _to_memory(self, value: Value, dtype: DType, lanes: int) -> Value:
        if dtype.kind != "b":
            return value
        return self._f.op(f"zext {value} to {vector_type('i8', lanes)}", vector_type("i8", lanes))


def runs_of(places: Sequence[int], lanes: int) -> list[int]:
    """First elements of stretches of `lanes` that cover all places."""
    runs: list[int] = []
    for place in sorted(set(places)):
        if not runs or place >= runs[-1] + lanes:
            runs.append(place)
    return runs


def _mask(lanes: int, valid: int) -> Value:
    """The first `valid` of the lanes."""
    if valid == lanes:
        return Value("splat (i1 true)", vector_type("i1", lanes))
    bits = ", ".join(f"i1 {'true' if lane < valid else 'false'}" for lane in range(lanes))
    return Value(f"<{bits}>", vector_type("i1", lanes))
