"""Weight gradient of convolutions with few output channels: vectors lie along rows of plain maps, and are summed across at the end.

A tile has a few kernel positions of one input channel and a few output channels in registers; per vector of pixels each element of x and
of grad is loaded once for all of them. Items are (part of the batch, input channel); lanes beyond a row's end are zero in both maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from graphc.kernel.spec import WeightGradientSpec
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, scalar_type, vector_type
from graphc_cpu.kernels.items import for_items, kernel_function, operand_pointers, start_of, width_of
from graphc_cpu.micro.memory import load_lanes
from graphc_cpu.micro.shape import Split, split
from graphc_cpu.micro.tile import multiply_add

MOST_OUTPUTS = 3
"""Output channels per tile: each takes a register for its pixels."""


def emit_weight_gradient_rows(spec: WeightGradientSpec, target: Target, name: str) -> Function:
    """The kernel of a checked spec with plain maps."""
    return _Rows(spec, target, name).emit()


class _Rows:
    def __init__(self, spec: WeightGradientSpec, target: Target, name: str) -> None:
        self.spec, self.f, self.dtype = spec, kernel_function(name), spec.x.dtype
        self.lanes, self.element = target.lanes(self.dtype), scalar_type(self.dtype)
        self.vector = vector_type(self.element, self.lanes)
        outputs = spec.grad.shape[1]
        self.outputs = split(outputs, min(outputs, MOST_OUTPUTS))
        most = max(1, (target.registers - self.outputs.width - 3) // self.outputs.width)
        steps = [d * step for d, step in zip(spec.dilation, spec.x.strides[2:], strict=True)]
        self.taps = [sum(i * step for i, step in zip(tap, steps, strict=True)) for tap in product(*map(range, spec.kernel))]
        self.tiles = split(len(self.taps), most)
        self.images = Split(spec.grad.shape[0], spec.parts)

    def emit(self) -> Function:
        self.x, self.g, self.sums = operand_pointers(self.f, len(self.spec.operands))
        for_items(self.f, {"part": self.spec.parts, "channel": self.spec.x.shape[1]}, self._item)
        return self.f

    def _item(self, digits: Mapping[str, Value]) -> None:
        f, spec = self.f, self.spec
        images = start_of(f, digits["part"], self.images), width_of(f, digits["part"], self.images)
        origin = spec.x.origin - sum(p * step for p, step in zip(spec.pad, spec.x.strides[2:], strict=True))
        at = f.add(f.mul(images[0], spec.x.strides[0]), f.mul(digits["channel"], spec.x.strides[1]))
        x = f.pointer(self.x, f.add(at, origin), self.element)
        g = f.pointer(self.g, f.add(f.mul(images[0], spec.grad.strides[0]), spec.grad.origin), self.element)
        offset = f.add(f.mul(digits["part"], spec.sums.strides[0]), f.mul(digits["channel"], spec.sums.strides[1]))
        sums = f.pointer(self.sums, offset, self.element)
        for outputs in _ranges(self.outputs):
            for taps in _ranges(self.tiles):
                self._tile(x, g, sums, images[1], outputs, taps)

    def _tile(self, x: Value, g: Value, sums: Value, images: Value, outputs: range, taps: range) -> None:
        f, spec = self.f, self.spec
        zero = Value("zeroinitializer", self.vector)
        dims: list[tuple[Value | int, int, int]] = [(images, spec.x.strides[0], spec.grad.strides[0])]
        rows = zip(spec.grad.shape[2:], spec.stride, spec.x.strides[2:], spec.grad.strides[2:], strict=True)
        dims += [(count, s * x_step, g_step) for count, s, x_step, g_step in list(rows)[:-1]]
        acc = self._sweep(x, g, [zero] * (len(outputs) * len(taps)), dims, outputs, taps)
        for i, (output, tap) in enumerate(product(outputs, taps)):
            place = f.pointer(sums, output * len(self.taps) + tap, self.element)
            f.store(self._across(acc[i]), place, self.dtype.itemsize)

    def _sweep(
        self, x: Value, g: Value, acc: Sequence[Value], dims: Sequence[tuple[Value | int, int, int]], outputs: range, taps: range
    ) -> Sequence[Value]:
        if not dims:
            return self._row(x, g, acc, outputs, taps)
        (count, x_step, g_step), *inner = dims

        def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
            at_x, at_g, *sums = carried
            return (self._at(at_x, x_step), self._at(at_g, g_step), *self._sweep(at_x, at_g, sums, inner, outputs, taps))

        return self.f.loop(0, count, 1, turn, (x, g, *acc), hint="row", guarded=False)[2:]

    def _row(self, x: Value, g: Value, acc: Sequence[Value], outputs: range, taps: range) -> Sequence[Value]:
        """One row: whole vectors, then the rest with zeros behind it."""
        turns, rest = divmod(self.spec.grad.shape[-1], self.lanes)
        if turns == 1:
            acc = self._body(x, g, acc, outputs, taps, self.lanes)
            x, g = self._at(x, self.lanes), self._at(g, self.lanes)
        elif turns:

            def turn(_: Value, carried: tuple[Value, ...]) -> Sequence[Value]:
                at_x, at_g, *sums = carried
                made = self._body(at_x, at_g, sums, outputs, taps, self.lanes)
                return (self._at(at_x, self.lanes), self._at(at_g, self.lanes), *made)

            x, g, *acc = self.f.loop(0, turns, 1, turn, (x, g, *acc), hint="vector", guarded=False)
        return self._body(x, g, acc, outputs, taps, rest) if rest else acc

    def _body(self, x: Value, g: Value, acc: Sequence[Value], outputs: range, taps: range, valid: int) -> list[Value]:
        f, made = self.f, list(acc)
        grads = [load_lanes(f, self._at(g, m * self.spec.grad.strides[1]), self.dtype, self.lanes, 1, valid) for m in outputs]
        for t, tap in enumerate(taps):
            value = load_lanes(f, self._at(x, self.taps[tap]), self.dtype, self.lanes, 1, valid)
            for m, grad in enumerate(grads):
                i = m * len(taps) + t
                made[i] = multiply_add(f, self.dtype, value, grad, made[i])
        return made

    def _across(self, value: Value) -> Value:
        """The sum of all lanes, halves onto each other."""
        f, width = self.f, self.lanes
        while width > 1:
            width //= 2
            mask = ", ".join(f"i32 {width + lane if lane < width else lane}" for lane in range(self.lanes))
            moved = f.op(f"shufflevector {value}, {self.vector} poison, <{self.lanes} x i32> <{mask}>", self.vector)
            value = f.op(f"fadd {value}, {moved.name}", self.vector)
        return f.op(f"extractelement {value}, i64 0", self.element)

    def _at(self, pointer: Value, offset: int) -> Value:
        return self.f.pointer(pointer, offset, self.element)


def _ranges(parts: Split) -> list[range]:
    found, start = [], 0
    for first, last, width in parts.ranges:
        for _ in range(last - first):
            found.append(range(start, start + width))
            start += width
    return found
