"""Expressions to instructions, each in the outermost loop that binds its indices.

A value is a tuple: one scalar where the node does not vary over the lanes of the current context, else one vector (`lanes` wide) for
each of the context's parts. Scopes mirror the loops that are open; a node is looked up from the innermost scope outwards and emitted
in the scope that is innermost when all its indices are bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from graphc.kernel.expr import PRIMITIVES, Expr, walk
from graphc.kernel.index import Simplifier
from graphc.target import Target
from graphc.types.dtype import DType, f32
from graphc_cpu.emit.ir import Function, Value, i64, memory_type
from graphc_cpu.emit.lanes import Lanes, splat_literal
from graphc_cpu.emit.math_logistic import has_logistic, logistic, logistic_parts
from graphc_cpu.emit.math_root import has_rsqrt, rsqrt
from graphc_cpu.emit.scalar import emit_cast, emit_const, emit_primitive, splat
from graphc_cpu.kernels.nest_lower import Frees, Store
from graphc_cpu.kernels.nest_memory import Memory
from graphc_cpu.kernels.nest_reduce import Reductions

Parts = tuple[Value, ...]


@dataclass(frozen=True)
class Context:
    """What runs over lanes: part p, lane l is the value of `axis` at base + p * lanes + l, for l < valid[p]."""

    axis: Expr | None
    lanes: int
    base: Value
    valid: tuple[int, ...]

    @property
    def parts(self) -> int:
        return len(self.valid)


SCALAR = Context(None, 1, i64(0), (1,))


class Emitter:
    """Emits the nodes of one nest into a function."""

    def __init__(
        self, f: Function, target: Target, pointers: Mapping[int, Value], dtypes: Sequence[DType], frees: Frees, masks: bool
    ) -> None:  # fmt: skip
        self.f = f
        self.target = target
        self.frees = frees
        self.masks = masks
        self.lanes_of: dict[Expr, int] = {}
        self.context = SCALAR
        self.memory = Memory(f, target)
        self._pointers = pointers
        self._dtypes = dtypes
        self._scopes: list[dict[object, Parts]] = [{}]
        self._bound: set[Expr] = set()
        self._wanted_splats: dict[Expr, set[int]] = {}
        self._simplifier = Simplifier()
        self._reductions = Reductions(self)

    # scopes -------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, binding: Mapping[Expr, Value], context: Context | None = None) -> Iterator[None]:
        """Loop variables bound to scalars, and the lanes' context, for what is emitted inside."""
        before = self.context
        self._scopes.append({axis: (value,) for axis, value in binding.items()})
        added = set(binding) - self._bound
        if context is not None:
            self.context = context
            if context.axis is not None:
                added |= {context.axis} - self._bound
        self._bound |= added
        yield
        self._bound -= added
        self._scopes.pop()
        self.context = before

    @contextmanager
    def lanes_scope(self, axis: Expr, lanes: int, base: Value, valid: tuple[int, ...]) -> Iterator[None]:
        """A scope in which `axis` runs over lanes (see Context)."""
        with self.scope({}, Context(axis, lanes, base, valid)):
            yield

    def has(self, node: Expr) -> bool:
        return self._find(node) is not None

    def _find(self, key: object) -> Parts | None:
        for scope in reversed(self._scopes):
            found = scope.get(key)
            if found is not None:
                return found
        return None

    def _keep(self, key: object, parts: Parts) -> Parts:
        self._scopes[-1][key] = parts
        return parts

    def varies(self, node: Expr) -> bool:
        """Whether the node differs between lanes here."""
        return self.context.axis is not None and self.context.axis in self.frees(node)

    # values -------------------------------------------------------------------------------------------------------------------

    def expect(self, roots: Sequence[Expr], lanes_of: Mapping[Expr, int]) -> None:
        """Note the axes that run over lanes, and which scalars they need in all lanes, to be spread outside their loops."""
        self.lanes_of.update(lanes_of)
        for node in walk(*roots):
            if node.fn not in PRIMITIVES and node.fn != "cast":
                continue
            free = self.frees(node)
            for axis, lanes in lanes_of.items():
                if axis in free:
                    for arg in node.args:
                        if axis not in self.frees(arg) and arg.fn != "const":
                            self._wanted_splats.setdefault(arg, set()).add(lanes)

    def hoist(self, roots: Iterable[Expr]) -> None:
        """Emit everything below the roots whose indices are all bound."""
        ready = self._ready(roots)
        for position, node in enumerate(ready):
            if self._find(node) is not None:
                continue
            if node.fn == "reduce":
                self._reductions.emit_group(node, ready[position + 1 :])
            else:
                self.emit(node)

    def emit(self, node: Expr) -> None:
        """Emit one node whose operands are there; keeps its value in the current scope."""
        self._keep(node, self._node(node))
        self.spread(node)

    def keep(self, node: Expr, parts: Parts) -> None:
        self._keep(node, parts)
        self.spread(node)

    def spread(self, node: Expr) -> None:
        if not self.varies(node):
            for lanes in self._wanted_splats.get(node, ()):
                self._splat(node, lanes)

    def _ready(self, roots: Iterable[Expr]) -> list[Expr]:
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(root, False) for root in reversed(list(roots))]
        while stack:
            node, done = stack.pop()
            if done:
                if self.frees(node) <= self._bound:
                    order.append(node)
            elif node not in seen and node.args and self._find(node) is None:
                seen.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(node.args))
        return order

    def value(self, node: Expr) -> Parts:
        """The value as it is: one scalar, or the context's parts."""
        if node.is_const:
            return (self._const(node, 1),)
        if node.fn == "index" and node is self.context.axis:
            return self._positions()
        found = self._find(node)
        assert found is not None, f"{node} was not emitted"
        return found

    def spread_value(self, node: Expr) -> Parts:
        """The value in every lane of every part."""
        if self.varies(node):
            return self.value(node)
        if node.is_const:
            return (self._const(node, self.context.lanes),) * self.context.parts
        return (self._splat(node, self.context.lanes),) * self.context.parts

    def _splat(self, node: Expr, lanes: int) -> Value:
        (scalar,) = self.value(node)
        if lanes == 1:
            return scalar
        found = self._find((node, lanes))
        return found[0] if found is not None else self._keep((node, lanes), (splat(self.f, scalar, lanes),))[0]

    def _const(self, node: Expr, lanes: int) -> Value:
        if node.dtype.name == "float16":  # only moved and selected, so its bits are all that matters
            return splat_literal(half_literal(node.attr), "half", lanes)
        return emit_const(node, lanes)

    def _positions(self) -> Parts:
        """The lanes' values of the axis; lanes beyond its end repeat the last one."""
        context = self.context
        found = self._find("positions")
        if found is not None:
            return found
        if context.lanes == 1:
            return self._keep("positions", tuple(self.f.add(context.base, part) for part in range(context.parts)))
        base = splat(self.f, context.base, context.lanes)
        return self._keep("positions", tuple(self._position(base, part, valid) for part, valid in enumerate(context.valid)))

    def _position(self, base: Value, part: int, valid: int) -> Value:
        lanes = self.context.lanes
        steps = ", ".join(f"i64 {part * lanes + min(lane, valid - 1)}" for lane in range(lanes))
        return self.f.op(f"add {base}, <{steps}>", base.type)

    # nodes --------------------------------------------------------------------------------------------------------------------

    def _node(self, node: Expr) -> Parts:
        varies = self.varies(node)
        match node.fn:
            case "sload":
                return (self._load_scalar(node),)
            case "vload":
                return self._load_vector(node)
            case "gload":
                return self._gather(node)
            case "xload":
                return self._load_fixed(node)
            case "cast" if varies and node.args[0] is self.context.axis and self.context.lanes > 1 and node.dtype.name == "int32":
                return self._positions32()
        lanes = self.context.lanes if varies else 1
        if varies and is_rsqrt(node) and has_rsqrt(v := Lanes(self.f, 32, lanes, self.target)):
            return tuple(rsqrt(v, square) for square in self.spread_value(node.args[1].args[0]))
        quotient = logistic_parts(node) if has_logistic(v := Lanes(self.f, 32, lanes, self.target)) else None
        operands = [self.spread_value(arg) if varies else self.value(arg) for arg in quotient or node.args]
        if quotient:
            return tuple(logistic(v, a, u) for a, u in zip(*operands, strict=True))
        return tuple(self._apply(node, lanes, args) for args in zip(*operands, strict=True))

    def _positions32(self) -> Parts:
        lanes, f = self.context.lanes, self.f
        narrow = Value(self.context.base.name, "i32")
        if narrow.name.startswith("%"):
            narrow = f.op(f"trunc {self.context.base} to i32", "i32")
        base = splat(f, narrow, lanes)
        out: list[Value] = []
        for part, valid in enumerate(self.context.valid):
            steps = ", ".join(f"i32 {part * lanes + min(lane, valid - 1)}" for lane in range(lanes))
            out.append(f.op(f"add {base}, <{steps}>", base.type))
        return tuple(out)

    def _apply(self, node: Expr, lanes: int, args: Sequence[Value]) -> Value:
        if node.fn == "cast":
            return emit_cast(self.f, args[0], node.args[0].dtype, node.dtype, lanes)
        if node.fn in ("floordiv", "mod") and node.args[1].is_const and node.args[1].attr > 0 and node.dtype.kind == "i":
            low, _ = self._simplifier.bounds(node.args[0])
            if low >= 0:
                return self.f.op(f"{'udiv' if node.fn == 'floordiv' else 'urem'} {args[0]}, {args[1].name}", args[0].type)
        dtype = node.args[0].dtype if node.fn != "select" else node.dtype
        return emit_primitive(self.f, node.fn, dtype, node.dtype, lanes, args, self.target)

    # memory -------------------------------------------------------------------------------------------------------------------

    def _address(self, slot: int, rest: Expr, constant: int, coefficient: int) -> Value:
        """Pointer to slot[rest + constant + coefficient * base]."""
        key = ("address", slot, rest, coefficient, self.context.base.name if coefficient else "")
        found = self._find(key)
        element = memory_type(self._dtypes[slot])
        if found is None:
            (offset,) = self.value(rest)
            if coefficient:
                offset = self.f.add(offset, self.f.mul(self.context.base, coefficient))
            start = self.f.pointer(self._pointers[slot], int(offset.name) if _is_literal(offset) else offset, element)
            found = self._keep(key, (start,))
        return self.f.pointer(found[0], constant, element)

    def _load_scalar(self, node: Expr) -> Value:
        slot, constant = node.attr
        return self.memory.load(self._address(slot, node.args[0], constant, 0), node.dtype, 1, 1, 0)

    def _load_vector(self, node: Expr) -> Parts:
        slot, constant, stride = node.attr
        start = self._address(slot, node.args[0], constant, stride)
        return tuple(
            self.memory.load(self._step(start, part, stride, slot), node.dtype, self.context.lanes, valid, stride)
            for part, valid in enumerate(self.context.valid)
        )

    def _step(self, start: Value, part: int, stride: int, slot: int) -> Value:
        return self.f.pointer(start, part * stride * self.context.lanes, memory_type(self._dtypes[slot]))

    def _gather(self, node: Expr) -> Parts:
        slot, constant = node.attr
        start = self._address(slot, node.args[0], constant, 0)
        return tuple(self.memory.gather(start, offsets, node.dtype, self.context.lanes) for offsets in self.value(node.args[1]))

    def _load_fixed(self, node: Expr) -> Parts:
        slot, offsets = node.attr
        start = self._address(slot, node.args[0], 0, 0)
        return (self.memory.load_places(start, offsets, node.dtype, self.context.lanes, self.masks),)

    def tile_rows(self, node: Expr, q: Value, valid: int, count: int) -> list[Value]:
        """A row of `count` elements along q for each of the `valid` lanes of a tile load; the last row stands in for missing ones."""
        *_, coefficient, offsets = node.attr
        element, lanes, start = memory_type(node.dtype), self.context.lanes, self._tile_start(node, q)
        places = [offsets[lane] if offsets else lane * coefficient for lane in range(valid)]
        loaded = {
            place: self.memory.load(self.f.pointer(start, place, element), node.dtype, lanes, count, 1) for place in dict.fromkeys(places)
        }  # fmt: skip
        rows = [loaded[place] for place in places]
        return rows + [rows[-1]] * (lanes - valid)

    def tile_row(self, node: Expr, q: Value, count: int) -> list[Value]:
        """The `count` elements along q of a tile load's first row, each in all lanes."""
        element, offsets = memory_type(node.dtype), node.attr[-1]
        start = self.f.pointer(self._tile_start(node, q), offsets[0] if offsets else 0, element)
        scalars = [self.memory.load(self.f.pointer(start, j, element), node.dtype, 1, 1, 0) for j in range(count)]
        return [splat(self.f, scalar, self.context.lanes) for scalar in scalars]

    def _tile_start(self, node: Expr, q: Value) -> Value:
        slot, constant, coefficient, _ = node.attr
        return self.f.pointer(self._address(slot, node.args[0], constant, coefficient), q, memory_type(node.dtype))

    def store(self, store: Store, combine: str = "") -> None:
        """Store the value at the place, combined with what is there by a primitive; everything below is emitted already."""
        dtype, lanes = self._dtypes[store.slot], self.context.lanes
        values = self.spread_value(store.value)
        start = self._address(store.slot, store.rest, store.constant, store.coefficient)
        if store.offset is not None:
            for value, offsets, valid in zip(values, self.value(store.offset), self.context.valid, strict=True):
                if combine:
                    value = self._combined(combine, self.memory.gather(start, offsets, dtype, lanes), value, dtype)
                self.memory.scatter(value, start, offsets, dtype, lanes, valid)
            return
        for part, (value, valid) in enumerate(zip(values, self.context.valid, strict=True)):
            place = self._step(start, part, store.coefficient, store.slot)
            if combine:
                value = self._combined(combine, self.memory.load(place, dtype, lanes, valid, store.coefficient), value, dtype)
            self.memory.store(value, place, dtype, lanes, valid, store.coefficient)

    def _combined(self, combine: str, old: Value, value: Value, dtype: DType) -> Value:
        return emit_primitive(self.f, combine, dtype, dtype, self.context.lanes, [old, value], self.target)


def is_rsqrt(node: Expr) -> bool:
    """1 / sqrt(x) in float32: where the machine has an estimate, division and root are not needed."""
    one, root = node.args if node.fn == "div" else (node, node)
    return one.is_const and one.attr == 1.0 and root.fn == "sqrt" and node.dtype == f32


def _is_literal(value: Value) -> bool:
    return value.name.lstrip("-").isdigit()


def half_literal(number: float) -> str:
    """An LLVM half constant: the bits of the nearest float16."""
    with np.errstate(over="ignore"):
        return f"0xH{int(np.float16(number).view(np.uint16)):04X}"

