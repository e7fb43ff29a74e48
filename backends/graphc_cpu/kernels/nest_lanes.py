"""The loop over the axis whose values are lanes: blocks of several vectors, then what is left."""

from __future__ import annotations

from collections.abc import Callable

from graphc.kernel.expr import Expr
from graphc_cpu.emit.ir import Value, i64
from graphc_cpu.kernels.nest_emit import Emitter

Body = Callable[[], None]


class LaneLoop:
    """`axis` in blocks of `parts` vectors of `lanes`."""

    def __init__(self, emitter: Emitter, axis: Expr, lanes: int, parts: int) -> None:
        self._e, self._f, self._axis, self._lanes = emitter, emitter.f, axis, lanes
        self._parts = min(parts, max(1, axis.extent // lanes))
        self._block = lanes * self._parts
        self._whole = axis.extent // self._block  # blocks that are full

    def whole(self, body: Body) -> None:
        """The body for all lanes."""
        if self._whole == 1:
            self._turn(i64(0), (self._lanes,) * self._parts, body)
        elif self._whole:
            self._blocks(0, self._whole * self._block, body, guarded=False)
        self._rest(body)

    def chunks(self, size: int) -> int:
        """How many chunks of `size` blocks there are."""
        return -(-self._axis.extent // (self._block * size))

    def chunk(self, number: Value, size: int, body: Body) -> None:
        """The body for the lanes of one chunk; the last one has what is left."""
        f, end = self._f, self._whole * self._block
        start = f.mul(number, size * self._block)
        stop = f.add(start, size * self._block)
        beyond = f.op(f"icmp sgt i64 {stop.name}, {end}", "i1")
        stop = f.op(f"select {beyond}, i64 {end}, {stop}", "i64")
        self._blocks(start, stop, body)
        if self._axis.extent > end:
            last = f.op(f"icmp eq i64 {number.name}, {self.chunks(size) - 1}", "i1")
            f.branch(last, lambda: self._rest(body), hint="rest")

    def _blocks(self, start: Value | int, stop: Value | int, body: Body, guarded: bool = True) -> None:
        self._loop(start, stop, self._block, (self._lanes,) * self._parts, body, guarded)

    def _loop(self, start: Value | int, stop: Value | int, step: int, valid: tuple[int, ...], body: Body, guarded: bool) -> None:
        def turn(base: Value, _: tuple[Value, ...]) -> tuple[Value, ...]:
            self._turn(base, valid, body, self._lanes if step > 1 else 1)
            return ()

        self._f.loop(start, stop, step, turn, guarded=guarded)

    def _rest(self, body: Body) -> None:
        end, extent = self._whole * self._block, self._axis.extent
        full, tail = divmod(extent - end, self._lanes)
        masked = (tail,) if tail and self._e.masks else ()
        if full or masked:
            self._turn(i64(end), (self._lanes,) * full + masked, body)
        if tail and not masked:
            self._loop(extent - tail, extent, 1, (1,), body, guarded=False)

    def _turn(self, base: Value, valid: tuple[int, ...], body: Body, lanes: int = 0) -> None:
        with self._e.lanes_scope(self._axis, lanes or self._lanes, base, valid):
            body()
