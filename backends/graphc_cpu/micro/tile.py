"""The register tile: the one micro-kernel of direct convolution and matrix product.

    acc[p][b][lane] = sum over (channel block, kernel position, channel) of x[pixel p, ...] * w[step][b][lane]

Accumulators live in registers for the whole reduction (SSA phis of nested loops). Each step loads `blocks` weight vectors and
broadcasts one input per pixel. The order of the sum is fixed by the reduction alone, so tile shape and threads never change a bit.
Basic blocks stay below about 450 multiply-adds: larger ones make LLVM's register allocator spill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.types.dtype import DType
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.emit.lanes import intrinsic_suffix
from graphc_cpu.micro.compressed import element, itemsize, load_weights
from graphc_cpu.micro.memory import broadcast, load_lanes, load_transposed

BODY_FMAS = 256
"""Multiply-adds that one basic block holds at most (where one step has fewer)."""


@dataclass(frozen=True)
class Reduction:
    """What is summed: `channels` in blocks of `block`, inside a block every kernel position, inside a position every channel.

    Steps are in elements of x. `weight_step`: weight elements from one reduction step to the next (they follow each other in exactly
    this order); `lane_step`: from one lane to the next, 1 but for a matrix that is read across its rows. `prefetch`: bytes that weights
    are prefetched ahead of their use, 0 for none.
    """

    channels: int
    block: int
    block_step: int
    channel_step: int
    kernel: tuple[tuple[int, int], ...]  # (extent, step) per dim, outermost first
    weight_step: int
    lane_step: int = 1
    prefetch: int = 0

    @property
    def is_transposed(self) -> bool:
        """Weights lie with the reduction contiguous: squares of them are transposed in registers."""
        return self.weight_step == 1 and self.lane_step != 1

    @property
    def steps(self) -> int:
        total = self.channels
        for extent, _ in self.kernel:
            total *= extent
        return total


class RegisterTile:
    """Emits the reduction of one tile: `pixels` are x offsets (elements) of the tile's pixels, `blocks` the weight vectors per step.

    `valid`: lanes of the last block's weights that may be read (the others count as zero). `storage`: how they are stored, see compressed.
    `ahead`: an address from which on as many bytes as one of `ahead_share` tiles needs are fetched into the second-level cache meanwhile.
    `initial`: the vector of each block that its accumulators start from; None: zero. `meanwhile`: done at the beginning of each of the
    `turns` of the loop over channels, whose number it is given.
    """

    def __init__(
        self, f: Function, dtype: DType, lanes: int, pixels: Sequence[int], blocks: int, reduction: Reduction, valid: int = 0,
        storage: str = "", ahead: Value | None = None, ahead_share: int = 1, initial: Sequence[Value] | None = None,
    ) -> None:  # fmt: skip
        self.meanwhile: Callable[[Value], None] | None = None
        self.valid, self.storage = valid or lanes, storage
        self.ahead, self.ahead_share, self.initial = ahead, ahead_share, initial
        self.f, self.dtype, self.lanes = f, dtype, lanes
        self.pixels, self.blocks, self.reduction = tuple(pixels), blocks, reduction
        self.element = scalar_type(dtype)
        self.vector = vector_type(self.element, lanes)
        most = 16 if lanes * dtype.itemsize > 16 else 4  # longer bodies of 16-byte vectors spill: their broadcasts need registers
        self.unroll = lanes if reduction.is_transposed else max(1, min(most, BODY_FMAS // (len(self.pixels) * blocks)))

    @property
    def turns(self) -> int:
        """Of the loop over the channels of a block."""
        block = min(self.reduction.block, self.reduction.channels)
        return block // (self.unroll if self.reduction.is_transposed else even_unroll(block, self.unroll)) if block else 0

    def emit(self, x: Value, weights: Value) -> list[list[Value]]:
        """Accumulators [pixel][block] after the whole reduction that starts at pointers x and weights."""
        r, state = self.reduction, self._start(weights)
        full, rest = divmod(r.channels, r.block)
        x, state = self._loop(x, state, full, r.block_step, lambda p, s: self._kernel(p, s, r.kernel, r.block), "block")
        if rest:
            state = self._kernel(x, state, r.kernel, rest)
        return self._by_pixel(state)

    def emit_window(self, x: Value, weights: Value, first: Value, last: Value) -> list[list[Value]]:
        """The same over channels first .. last-1, both multiples of the reduction's `block`, which divides a block of lanes.

        x points at channel 0, weights at those of channel `first`. `block_step` is that of a block of lanes.
        """
        f, r = self.f, self.reduction

        def turn(channel: Value, state: tuple[Value, ...]) -> Sequence[Value]:
            whole = f.op(f"lshr i64 {channel.name}, {self.lanes.bit_length() - 1}", "i64")
            lane = f.op(f"and i64 {channel.name}, {self.lanes - 1}", "i64")
            offset = f.add(f.mul(whole, r.block_step), f.mul(lane, r.channel_step))
            return self._kernel(f.pointer(x, offset, self.element), state, r.kernel, r.block)

        return self._by_pixel(f.loop(first, last, r.block, turn, self._start(weights), hint="window", guarded=False))

    def _start(self, weights: Value) -> tuple[Value, ...]:
        """What the loops carry: the weights' address and the accumulators."""
        zero = Value("zeroinitializer" if self.lanes > 1 else ("0.0" if self.dtype.is_float else "0"), self.vector)
        return (weights, *([self.ahead] if self.ahead else []), *list(self.initial or [zero] * self.blocks) * len(self.pixels))

    def _by_pixel(self, state: tuple[Value, ...]) -> list[list[Value]]:
        acc = state[2 if self.ahead else 1 :]
        return [list(acc[i : i + self.blocks]) for i in range(0, len(acc), self.blocks)]

    def _loop(
        self, x: Value, state: tuple[Value, ...], turns: int, step: int,
        body: Callable[[Value, tuple[Value, ...]], tuple[Value, ...]], hint: str,
    ) -> tuple[Value, tuple[Value, ...]]:  # fmt: skip
        """`turns` times the body, x advancing by `step`; returns x and the state after the last turn."""
        if turns == 0:
            return x, state
        if turns == 1:
            return self._at(x, step), body(x, state)

        def turn(number: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            if self.meanwhile is not None and hint == "c":
                self.meanwhile(number)
            return (self._at(carried[0], step), *body(carried[0], carried[1:]))

        after = self.f.loop(0, turns, 1, turn, (x, *state), hint=hint, guarded=False)
        return after[0], after[1:]

    def _kernel(
        self, x: Value, state: tuple[Value, ...], dims: tuple[tuple[int, int], ...], channels: int
    ) -> tuple[Value, ...]:
        if not dims:
            return self._channels(x, state, channels)
        (extent, step), *inner = dims
        return self._loop(x, state, extent, step, lambda p, s: self._kernel(p, s, tuple(inner), channels), "k")[1]

    def _channels(self, x: Value, state: tuple[Value, ...], channels: int) -> tuple[Value, ...]:
        state = self._fetch_ahead(state, channels)
        unroll = self.unroll if self.reduction.is_transposed else even_unroll(channels, self.unroll)
        turns, rest = divmod(channels, unroll)
        step = unroll * self.reduction.channel_step
        x, state = self._loop(x, state, turns, step, lambda p, s: self._body(p, s, unroll), "c")
        return self._body(x, state, rest) if rest else state

    def _body(self, x: Value, state: tuple[Value, ...], count: int) -> tuple[Value, ...]:
        """`count` channels, unrolled."""
        weights, *ahead = state[: 2 if self.ahead else 1]
        acc = list(state[1 + len(ahead) :])
        squares = self._squares(weights) if self.reduction.is_transposed and count == self.lanes else []
        for channel in range(count):
            row = [square[channel] for square in squares] or [self._weights(weights, channel, block) for block in range(self.blocks)]
            for p, pixel in enumerate(self.pixels):
                value = self._broadcast(x, pixel + channel * self.reduction.channel_step)
                for block in range(self.blocks):
                    i = p * self.blocks + block
                    acc[i] = multiply_add(self.f, self.dtype, value, row[block], acc[i])
        self._prefetch(weights, count)
        return (self._weight_at(weights, count * self.reduction.weight_step), *ahead, *acc)

    def _weights(self, weights: Value, channel: int, block: int) -> Value:
        r = self.reduction
        offset = channel * r.weight_step + block * self.lanes * r.lane_step
        if self.storage:
            return load_weights(self.f, self._weight_at(weights, offset), self.storage, self.lanes)
        valid = self.valid if block == self.blocks - 1 else self.lanes
        return load_lanes(self.f, self._at(weights, offset), self.dtype, self.lanes, r.lane_step, valid)

    def _prefetch(self, weights: Value, count: int) -> None:
        """All prefetches of a body at once: one between multiply-adds would hold back LLVM's scheduler, which then spills."""
        r = self.reduction
        if r.prefetch:
            size = itemsize(self.storage, self.dtype)
            for offset in range(r.prefetch // size, r.prefetch // size + count * r.weight_step, 64 // size):
                prefetch(self.f, self._weight_at(weights, offset))

    def _fetch_ahead(self, state: tuple[Value, ...], channels: int) -> tuple[Value, ...]:
        """The share of some channels in what is fetched into the second-level cache: before their loop, for the reason of `_prefetch`."""
        if not self.ahead:
            return state
        weights, place, *acc = state
        nbytes = channels * self.reduction.weight_step * itemsize(self.storage, self.dtype)
        lines = -(-nbytes // (64 * self.ahead_share))
        for line in range(lines):
            prefetch(self.f, self.f.pointer(place, 64 * line, "i8"), 2)
        return (weights, self.f.pointer(place, 64 * lines, "i8"), *acc)

    def _squares(self, weights: Value) -> list[list[Value]]:
        """Per block, the weight vectors of the next `lanes` steps."""
        step = self.reduction.lane_step
        valid = [self.lanes] * (self.blocks - 1) + [self.valid]
        places = [self._at(weights, block * self.lanes * step) for block in range(self.blocks)]
        return [load_transposed(self.f, p, self.dtype, self.lanes, step, v) for p, v in zip(places, valid, strict=True)]

    def _broadcast(self, x: Value, offset: int) -> Value:
        scalar = self.f.load(self.element, self._at(x, offset), self.dtype.itemsize)
        return broadcast(self.f, scalar, self.lanes)

    def _at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, self.element)

    def _weight_at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, element(self.storage, self.dtype))


def even_unroll(count: int, most: int) -> int:
    """At most `most`, and a divisor of `count` where one is not much smaller, so that no rest has to be emitted."""
    best = max(d for d in range(1, min(count, most) + 1) if count % d == 0)
    return best if 2 * best > min(count, most) else min(count, most)


def multiply_add(f: Function, dtype: DType, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, fused where the machine has FMA (integers: wrapping)."""
    if not dtype.is_float:
        product = f.op(f"mul {a.type} {a.name}, {b.name}", a.type)
        return f.op(f"add {a.type} {product.name}, {c.name}", a.type)
    lanes, _, element = a.type[1:-1].partition(" x ") if a.type.startswith("<") else ("1", "", a.type)
    return f.call(f"llvm.fmuladd.{intrinsic_suffix(element, int(lanes))}", a.type, a, b, c)


def prefetch(f: Function, pointer: Value, locality: int = 3) -> None:
    """Hint that the cache line at `pointer` is read soon (locality 3: into L1, 2: into L2). Never faults."""
    f.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
    f.do(f"call void @llvm.prefetch.p0(ptr {pointer.name}, i32 0, i32 {locality}, i32 1)")


def model(
    x: npt.NDArray[Any], weights: npt.NDArray[Any], pixels: Sequence[int], blocks: int, lanes: int, r: Reduction
) -> npt.NDArray[Any]:
    """The same tile in numpy: flat x and weights (element 0 at the pointers); result (pixels, blocks, lanes)."""
    acc = np.zeros((len(pixels), blocks, lanes), x.dtype)
    step = 0
    for start in range(0, r.channels, r.block):
        for position in np.ndindex(*(extent for extent, _ in r.kernel)):
            base = start // r.block * r.block_step + sum(i * s for i, (_, s) in zip(position, r.kernel, strict=True))
            for channel in range(min(r.block, r.channels - start)):
                row = weights[step * r.weight_step + np.arange(blocks * lanes) * r.lane_step].reshape(blocks, lanes)
                values = x[[pixel + base + channel * r.channel_step for pixel in pixels]]
                acc += values[:, None, None] * row
                step += 1
    return acc
