"""Weight gradient of a depthwise convolution: vectors over channels, all kernel positions of a block of channels in registers.

Items are (part of the batch, block of channels). A few pixels of a row are taken together, so that an element of x is loaded once for all
kernel positions that meet it there. Kernels of more positions than registers allow are done in several passes over the maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Union

from graphc.kernel.spec import WeightGradientSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.kernels.items import for_items, kernel_function, operand_pointers, start_of, width_of
from graphc_cpu.micro.shape import Split, split
from graphc_cpu.micro.tile import even_unroll, multiply_add

UNROLL = 4
"""Pixels taken together where there are registers for what they share."""
Dim = tuple[Union[int, Value], int, int]  # count, elements from one to the next in x and in grad


def emit_weight_gradient_depthwise(spec: WeightGradientSpec, target: Target, name: str) -> Function:
    """The kernel of a checked spec with as many groups as channels."""
    return _Depthwise(spec, target, name).emit()


class _Depthwise:
    def __init__(self, spec: WeightGradientSpec, target: Target, name: str) -> None:
        self.spec, self.f, self.dtype = spec, kernel_function(name), spec.x.dtype
        self.lanes, self.element = target.lanes(self.dtype), scalar_type(self.dtype)
        self.vector = vector_type(self.element, self.lanes)
        steps = [d * step for d, step in zip(spec.dilation, spec.x.strides[2:], strict=False)]
        self.taps = [sum(i * step for i, step in zip(tap, steps, strict=True)) for tap in product(*map(range, spec.kernel))]
        self.passes = split(len(self.taps), max(1, target.registers // 2 - 4))
        self.unroll = UNROLL if target.registers >= 32 else 1
        self.images = Split(spec.grad.shape[0], spec.parts)

    def emit(self) -> Function:
        self.x, self.g, self.sums = operand_pointers(self.f, len(self.spec.operands))
        for_items(self.f, {"part": self.spec.parts, "block": -(-self.spec.grad.shape[1] // self.lanes)}, self._item)
        return self.f

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, spec, block = self.f, self.spec, digits["block"]
        first, count = start_of(f, digits["part"], self.images), width_of(f, digits["part"], self.images)
        origin = spec.x.origin - sum(p * step for p, step in zip(spec.pad, spec.x.strides[2:], strict=False))
        at_x = f.add(f.mul(first, spec.x.strides[0]), f.mul(block, spec.x.strides[1]))
        at_g = f.add(f.mul(first, spec.grad.strides[0]), f.mul(block, spec.grad.strides[1]))
        x = f.pointer(self.x, f.add(at_x, origin), self.element)
        g = f.pointer(self.g, f.add(at_g, spec.grad.origin), self.element)
        at_sums = f.add(f.mul(digits["part"], spec.sums.strides[0]), f.mul(block, spec.sums.strides[2]))
        sums = f.pointer(self.sums, at_sums, self.element)
        rows = zip(spec.grad.shape[2:], spec.stride, spec.x.strides[2:], spec.grad.strides[2:], strict=False)
        dims: list[Dim] = [(count, spec.x.strides[0], spec.grad.strides[0])]
        dims += [(size, s * x_step, g_step) for size, s, x_step, g_step in rows]
        zero, start = Value("zeroinitializer", self.vector), 0
        for begin, end, width in self.passes.ranges:
            for _ in range(end - begin):
                taps = self.taps[start : start + width]
                for tap, value in enumerate(self._sweep(x, g, [zero] * width, dims, taps), start):
                    f.store(value, self._at(sums, tap * self.lanes), self.dtype.itemsize)
                start += width

    def _sweep(self, x: Value, g: Value, acc: Sequence[Value], dims: Sequence[Dim], taps: Sequence[int]) -> Sequence[Value]:
        """The sums with all pixels added, in order."""
        (count, x_step, g_step), *inner = dims
        if not inner:
            assert isinstance(count, int)
            return self._row(x, g, acc, count, x_step, g_step, taps)

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            at_x, at_g, *sums = carried
            return (self._at(at_x, x_step), self._at(at_g, g_step), *self._sweep(at_x, at_g, sums, inner, taps))

        return self.f.loop(0, count, 1, turn, (x, g, *acc), hint="row", guarded=False)[2:]

    def _row(
        self, x: Value, g: Value, acc: Sequence[Value], count: int, x_step: int, g_step: int, taps: Sequence[int]
    ) -> Sequence[Value]:
        unroll = even_unroll(count, self.unroll)
        turns, rest = divmod(count, unroll)

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            at_x, at_g, *sums = carried
            made = self._pixels(at_x, at_g, sums, unroll, x_step, g_step, taps)
            return (self._at(at_x, unroll * x_step), self._at(at_g, unroll * g_step), *made)

        x, g, *acc = self.f.loop(0, turns, 1, turn, (x, g, *acc), hint="pixel", guarded=False)
        return self._pixels(x, g, acc, rest, x_step, g_step, taps) if rest else acc

    def _pixels(
        self, x: Value, g: Value, acc: Sequence[Value], count: int, x_step: int, g_step: int, taps: Sequence[int]
    ) -> list[Value]:
        made, loaded = list(acc), dict[int, Value]()
        for pixel in range(count):
            grad = self._load(g, pixel * g_step)
            for i, tap in enumerate(taps):
                offset = pixel * x_step + tap
                if offset not in loaded:
                    loaded[offset] = self._load(x, offset)
                made[i] = multiply_add(self.f, self.dtype, loaded[offset], grad, made[i])
        return made

    def _load(self, pointer: Value, offset: int) -> Value:
        return self.f.load(self.vector, self._at(pointer, offset), self.dtype.itemsize)

    def _at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, self.element)
