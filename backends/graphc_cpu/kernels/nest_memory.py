"""Loads and stores of vectors whose lanes are a given number of elements apart, or anywhere.

bool is i8 in memory and i1 in registers. Lanes beyond the end of an axis (`valid` < lanes) are never read or written: contiguous
accesses are masked, the others repeat the last valid lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.target import Target
from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, memory_type, vector_type
from graphc_cpu.emit.lanes import intrinsic_suffix

MOST_PIECES = 8  # loads that a fixed pattern of lanes is shuffled from; otherwise it is gathered


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
        """Lane l from pointer + offsets[l] elements; the last one repeats. Neighbours are loaded together and shuffled."""
        if lanes == 1:
            return self.load(self._f.pointer(pointer, offsets[0], memory_type(dtype)), dtype, 1, 1, 0)
        places = [*offsets, *([offsets[-1]] * (lanes - len(offsets)))]
        pieces = pieces_of(places, lanes)
        exact = all(piece.width == piece.span for piece in pieces)
        if len(pieces) > MOST_PIECES or dtype.kind == "b" or not (masks or exact):
            steps = ", ".join(f"i32 {place}" for place in places)
            return self.gather(pointer, Value(f"<{steps}>", vector_type("i32", lanes)), dtype, lanes)
        element = memory_type(dtype)
        loaded = [
            self.load(self._f.pointer(pointer, piece.first, element), dtype, piece.width, piece.span, 1) for piece in pieces
        ]  # fmt: skip
        if len({piece.width for piece in pieces}) == 1 and len(pieces) * pieces[0].width <= lanes:
            return self._from_row(loaded, pieces, places)
        return self._from_pairs(loaded, pieces, places)

    def _from_row(self, loaded: Sequence[Value], pieces: Sequence[Piece], places: Sequence[int]) -> Value:
        """Pieces side by side in one register, then one shuffle."""
        width, row = pieces[0].width, list(loaded)
        if width == 1:
            return self._inserted(row, [_piece_of(pieces, place) for place in places])
        picks = [_piece_of(pieces, place) * width + place - pieces[_piece_of(pieces, place)].first for place in places]
        while len(row) > 1:
            row += [row[-1]] * (len(row) % 2)
            row = [self.shuffle(a, b, range(2 * width)) for a, b in zip(row[::2], row[1::2], strict=True)]
            width *= 2
        return row[0] if picks == list(range(width)) else self.shuffle(row[0], row[0], picks)

    def _inserted(self, scalars: Sequence[Value], picks: Sequence[int]) -> Value:
        value = Value("poison", vector_type(scalars[0].type, len(picks)))
        for lane, pick in enumerate(picks):
            value = self._f.op(f"insertelement {value}, {scalars[pick]}, i64 {lane}", value.type)
        return value

    def _from_pairs(self, loaded: Sequence[Value], pieces: Sequence[Piece], places: Sequence[int]) -> Value:
        """The lanes of all pieces, each in its place, merged two by two."""
        lanes = len(places)
        spread = [self._widened(value, lanes) for value in loaded]
        sources = [{lane for lane, place in enumerate(places) if _piece_of(pieces, place) == k} for k in range(len(pieces))]
        at = [[place - piece.first for place in places] for piece in pieces]
        while len(spread) > 1:
            merged: list[Value] = []
            for k in range(0, len(spread) - 1, 2):
                picks = [at[k][lane] if lane in sources[k] else lanes + at[k + 1][lane] for lane in range(lanes)]
                wanted = sources[k] | sources[k + 1]
                merged.append(self.shuffle(spread[k], spread[k + 1], [pick if lane in wanted else lane for lane, pick in enumerate(picks)]))
            odd = len(spread) % 2
            sources = [a | b for a, b in zip(sources[::2], sources[1::2], strict=False)] + sources[len(sources) - odd :]
            at = [list(range(lanes)) for _ in merged] + at[len(at) - odd :]
            spread = merged + spread[len(spread) - odd :]
        return spread[0] if at[0] == list(range(lanes)) else self.shuffle(spread[0], spread[0], at[0])

    def _widened(self, value: Value, lanes: int) -> Value:
        """A piece in the first lanes of a whole register; the others are anything."""
        if not value.type.startswith("<"):
            return self._f.op(f"insertelement {vector_type(value.type, lanes)} poison, {value}, i64 0", vector_type(value.type, lanes))
        width = int(value.type[1 : value.type.index(" ")])
        return value if width == lanes else self.shuffle(value, value, [min(lane, width - 1) for lane in range(lanes)])

    def store(self, value: Value, pointer: Value, dtype: DType, lanes: int, valid: int, stride: int) -> None:
        """Lane l to pointer + stride * l elements, for the first `valid` lanes (a single one without a mask, see `store_lanes`)."""
        if lanes > 1 and (stride != 1 or valid == 1):
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


@dataclass(frozen=True)
class Piece:
    """Neighbouring elements: `span` of them from `first`, loaded as a vector of `width` lanes."""

    first: int
    span: int
    width: int


def pieces_of(places: Sequence[int], lanes: int) -> list[Piece]:
    """Pieces of at most `lanes` elements that cover all places: one piece as long as what follows is near, so that few are needed."""
    runs: list[list[int]] = []
    for place in sorted(set(places)):
        if not runs or place >= runs[-1][0] + lanes:
            runs.append([])
        runs[-1].append(place)
    return [Piece(run[0], run[-1] - run[0] + 1, 1 << (run[-1] - run[0]).bit_length()) for run in runs]


def _piece_of(pieces: Sequence[Piece], place: int) -> int:
    return max(k for k, piece in enumerate(pieces) if piece.first <= place)


def _mask(lanes: int, valid: int) -> Value:
    """The first `valid` of the lanes."""
    if valid == lanes:
        return Value("splat (i1 true)", vector_type("i1", lanes))
    bits = ", ".join(f"i1 {'true' if lane < valid else 'false'}" for lane in range(lanes))
    return Value(f"<{bits}>", vector_type("i1", lanes))
