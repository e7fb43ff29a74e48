"""Reductions: loops with accumulators in registers, in an order of terms that depends on the shape alone.

A reduction whose value is one scalar runs its marked axis (see nest_plan) over lanes: up to four vectors of partial results, combined
at the end by a fixed tree. A reduction that varies over lanes has one accumulator for each part, and four for each where there is a
single part, to hide the latency of the combining instruction. Reductions over the same axes run in one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.kernel.expr import Expr, walk
from graphc_cpu.emit.ir import Value, i64
from graphc_cpu.emit.scalar import emit_const, emit_primitive
from graphc_cpu.kernels.nest_prepare import COMBINE, neutral

if TYPE_CHECKING:
    from graphc_cpu.kernels.nest_emit import Emitter

_SHORT_BODY = 24


class Reductions:
    """Emits the reductions of one nest."""

    def __init__(self, emitter: Emitter) -> None:
        self._e = emitter

    def emit_group(self, node: Expr, later: Sequence[Expr]) -> None:
        """Emit the reduction and those of `later` (ready nodes in order) that can share its loop."""
        group = [node]
        below = {node}
        for position, other in enumerate(later):
            if other.fn != "reduce" or other.args[1:] != node.args[1:] or self._e.varies(other) != self._e.varies(node):
                continue
            inside = set(walk(other.args[0]))
            needed = [n for n in later[:position] if n in inside and not self._e.has(n)]
            if any(n.fn == "reduce" for n in needed) or not below.isdisjoint(inside):
                continue
            for n in needed:
                self._e.emit(n)
            group.append(other)
            below.add(other)
        results = _Loops(self._e, group).emit()
        for one, parts in zip(group, results, strict=True):
            self._e.keep(one, parts)


class _Loops:
    """The loops of one group of reductions over the same axes."""

    def __init__(self, emitter: Emitter, group: Sequence[Expr]) -> None:
        self._e, self._group = emitter, group
        self._axes = group[0].args[1:]
        self._bodies = [node.args[0] for node in group]
        self._varies = emitter.varies(group[0])
        last = self._axes[-1]
        self._over_lanes = not self._varies and emitter.lanes_of.get(last, 0) > 0

    def emit(self) -> list[tuple[Value, ...]]:
        return self._vectorised() if self._over_lanes else self._plain()

    # lanes are the nest's, or there are none -----------------------------------------------------------------------------------

    def _plain(self) -> list[tuple[Value, ...]]:
        parts = self._e.context.parts if self._varies else 1
        lanes = self._e.context.lanes if self._varies else 1
        ways = self._ways(parts)
        start = [value for node in self._group for value in [self._start(node, lanes)] * (ways * parts)]
        done = self._nest(0, tuple(start), ways, parts, lanes)
        out: list[tuple[Value, ...]] = []
        for k, node in enumerate(self._group):
            own = done[k * ways * parts : (k + 1) * ways * parts]
            out.append(tuple(self._tree(node, [own[w * parts + p] for w in range(ways)], lanes) for p in range(parts)))
        return out

    def _ways(self, parts: int) -> int:
        size = sum(1 for node in walk(*self._bodies) if not node.is_const)
        if parts * len(self._group) >= 4 or size > _SHORT_BODY:
            return 1
        return 4 if self._axes[-1].extent >= 8 else 1

    def _nest(self, depth: int, carried: tuple[Value, ...], ways: int, parts: int, lanes: int) -> tuple[Value, ...]:
        axis = self._axes[depth]
        if depth + 1 < len(self._axes):

            def outer(counter: Value, inner: tuple[Value, ...]) -> tuple[Value, ...]:
                with self._e.scope({axis: counter}):
                    self._e.hoist(self._bodies)
                    return self._nest(depth + 1, inner, ways, parts, lanes)

            return self._e.f.loop(0, axis.extent, 1, outer, carried, hint="r", guarded=False)

        def innermost(counter: Value, inner: tuple[Value, ...]) -> tuple[Value, ...]:
            return self._turns(axis, counter, inner, ways, ways, parts, lanes)

        whole = axis.extent - axis.extent % ways
        carried = self._e.f.loop(0, whole, ways, innermost, carried, hint="r", guarded=False)
        return self._turns(axis, i64(whole), carried, axis.extent % ways, ways, parts, lanes)

    def _turns(
        self, axis: Expr, counter: Value, carried: tuple[Value, ...], turns: int, ways: int, parts: int, lanes: int
    ) -> tuple[Value, ...]:  # fmt: skip
        """`turns` successive values of the axis, each into accumulators of its own."""
        accumulators = list(carried)
        for way in range(turns):
            with self._e.scope({axis: self._e.f.add(counter, way)}):
                self._e.hoist(self._bodies)
                for k, (node, body) in enumerate(zip(self._group, self._bodies, strict=True)):
                    terms = self._e.spread_value(body) if self._varies else self._e.value(body)
                    for p in range(parts):
                        place = (k * ways + way) * parts + p
                        accumulators[place] = self._combine(node, accumulators[place], terms[p], lanes)
        return tuple(accumulators)

    # lanes are the last axis of the reduction ------------------------------------------------------------------------------------

    def _vectorised(self) -> list[tuple[Value, ...]]:
        axis = self._axes[-1]
        lanes = self._e.lanes_of[axis]
        ways = self._vector_ways(axis.extent, lanes)
        tail = 0 if self._e.masks else axis.extent % lanes
        width = ways + (1 if tail else 0)  # accumulators of one reduction: vectors, then the scalar of the tail
        start: list[Value] = []
        for node in self._group:
            start += [self._start(node, lanes)] * ways + ([self._start(node, 1)] if tail else [])
        done = self._outer(0, tuple(start), ways, lanes, tail)
        out: list[tuple[Value, ...]] = []
        for k, node in enumerate(self._group):
            own = list(done[k * width : (k + 1) * width])
            total = self._across(node, self._tree(node, own[:ways], lanes), lanes)
            out.append((self._combine(node, total, own[ways], 1) if tail else total,))
        return out

    def _vector_ways(self, extent: int, lanes: int) -> int:
        size = sum(1 for node in walk(*self._bodies) if not node.is_const)
        most = 1 if size > 3 * _SHORT_BODY else 2 if size > _SHORT_BODY else 4
        while most > 1 and most * lanes > extent:
            most //= 2
        return most

    def _outer(self, depth: int, carried: tuple[Value, ...], ways: int, lanes: int, tail: int) -> tuple[Value, ...]:
        axis = self._axes[depth]
        if depth + 1 == len(self._axes):
            return self._lanes(axis, carried, ways, lanes, tail)

        def body(counter: Value, inner: tuple[Value, ...]) -> tuple[Value, ...]:
            with self._e.scope({axis: counter}):
                self._e.hoist(self._bodies)
                return self._outer(depth + 1, inner, ways, lanes, tail)

        return self._e.f.loop(0, axis.extent, 1, body, carried, hint="r", guarded=False)

    def _lanes(self, axis: Expr, carried: tuple[Value, ...], ways: int, lanes: int, tail: int) -> tuple[Value, ...]:
        block = ways * lanes
        whole = axis.extent - axis.extent % block
        width = ways + (1 if tail else 0)
        if whole:

            def body(counter: Value, inner: tuple[Value, ...]) -> tuple[Value, ...]:
                return self._block(axis, counter, inner, (lanes,) * ways, lanes, width)

            carried = self._e.f.loop(0, whole, block, body, carried, hint="r", guarded=False)
        rest = axis.extent - whole - tail
        if rest:
            valid = (lanes,) * (rest // lanes) + ((rest % lanes,) if rest % lanes else ())
            carried = self._block(axis, i64(whole), carried, valid, lanes, width)
        return self._tail(axis, carried, ways, tail, width) if tail else carried

    def _block(
        self, axis: Expr, base: Value, carried: tuple[Value, ...], valid: tuple[int, ...], lanes: int, width: int
    ) -> tuple[Value, ...]:  # fmt: skip
        accumulators = list(carried)
        with self._e.lanes_scope(axis, lanes, base, valid):
            self._e.hoist(self._bodies)
            for k, (node, body) in enumerate(zip(self._group, self._bodies, strict=True)):
                for p, term in enumerate(self._e.spread_value(body)):
                    inside = self._masked(node, term, valid[p], lanes)
                    accumulators[k * width + p] = self._combine(node, accumulators[k * width + p], inside, lanes)
        return tuple(accumulators)

    def _tail(self, axis: Expr, carried: tuple[Value, ...], ways: int, tail: int, width: int) -> tuple[Value, ...]:
        """The last elements one by one, where the machine has no masks."""
        scalars = tuple(carried[k * width + ways] for k in range(len(self._group)))

        def body(counter: Value, inner: tuple[Value, ...]) -> tuple[Value, ...]:
            with self._e.lanes_scope(axis, 1, counter, (1,)):
                self._e.hoist(self._bodies)
                terms = [self._e.spread_value(b)[0] for b in self._bodies]
                return tuple(self._combine(n, a, t, 1) for n, a, t in zip(self._group, inner, terms, strict=True))

        done = self._e.f.loop(axis.extent - tail, axis.extent, 1, body, scalars, hint="t", guarded=False)
        out = list(carried)
        for k, value in enumerate(done):
            out[k * width + ways] = value
        return tuple(out)

    # combining ------------------------------------------------------------------------------------------------------------------

    def _start(self, node: Expr, lanes: int) -> Value:
        return emit_const(neutral(node.attr, node.dtype), lanes)

    def _combine(self, node: Expr, a: Value, b: Value, lanes: int) -> Value:
        return emit_primitive(self._e.f, COMBINE[node.attr], node.dtype, node.dtype, lanes, (a, b), self._e.target)

    def _tree(self, node: Expr, values: Sequence[Value], lanes: int) -> Value:
        level = list(values)
        while len(level) > 1:
            pairs = [self._combine(node, a, b, lanes) for a, b in zip(level[::2], level[1::2], strict=False)]
            level = pairs + ([level[-1]] if len(level) % 2 else [])
        return level[0]

    def _masked(self, node: Expr, term: Value, valid: int, lanes: int) -> Value:
        if valid == lanes:
            return term
        bits = ", ".join(f"i1 {'true' if lane < valid else 'false'}" for lane in range(lanes))
        return self._e.f.op(f"select <{lanes} x i1> <{bits}>, {term}, {self._start(node, lanes)}", term.type)

    def _across(self, node: Expr, vector: Value, lanes: int) -> Value:
        """One scalar from the lanes: halves combined until one is left."""
        while lanes > 2:
            lanes //= 2
            low = self._e.memory.shuffle(vector, vector, range(lanes))
            high = self._e.memory.shuffle(vector, vector, range(lanes, 2 * lanes))
            vector = self._combine(node, low, high, lanes)
        if lanes == 1:
            return vector
        low, high = (self._e.memory.lane(vector, lane) for lane in range(2))
        return self._combine(node, low, high, 1)
