"""What happens to a register tile before it is stored: the spec's epilogue expression, element by element, in registers.

Each loop variable of the output is an `Axis`: a value known at the tile's corner plus a constant per pixel and per block (plus the
lane, for the vector axis). Offsets are affine in them, so each operand's address is computed once per tile and each element adds a
constant to it; what depends on fewer axes than the element (a bias: the block only) is computed once and shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.errors import UnsupportedError
from graphc.kernel.expr import Expr, walk
from graphc.kernel.spec import Epilogue, Operand
from graphc.target import Target
from graphc_cpu.emit.ir import Function, Value, i64, memory_type, scalar_type, vector_type
from graphc_cpu.emit.lanes import Lanes
from graphc_cpu.emit.math_logistic import has_logistic, logistic, logistic_parts
from graphc_cpu.emit.scalar import emit_cast, emit_const, emit_primitive
from graphc_cpu.micro.affine import Affine, affine
from graphc_cpu.micro.memory import broadcast, load_lanes, load_scalar, store_lanes, zero_tail


@dataclass(frozen=True)
class Axis:
    """A loop variable inside a tile: `base` + by_pixel[pixel] + by_block[block], + the lane where `vector`."""

    base: Value
    by_pixel: tuple[int, ...] = ()
    by_block: tuple[int, ...] = ()
    vector: bool = False

    def delta(self, pixel: int, block: int) -> int:
        return (self.by_pixel[pixel] if self.by_pixel else 0) + (self.by_block[block] if self.by_block else 0)


@dataclass(frozen=True)
class Destination:
    """Where results go. `fill`: lanes that are not valid are written as zeros (a blocked layout) instead of left alone."""

    slot: int
    offset: Expr
    operand: Operand
    fill: bool


class TileEpilogue:
    """Stores the elements of one tile. `pointers` are those of the spec's operands."""

    def __init__(
        self, f: Function, target: Target, lanes: int, pointers: Sequence[Value], epilogue: Epilogue,
        axes: Mapping[Expr, Axis], destination: Destination,
    ) -> None:  # fmt: skip
        self.f, self.target, self.lanes, self.pointers = f, target, lanes, pointers
        self.epilogue, self.axes, self.destination = epilogue, axes, destination
        self._bases: dict[tuple[int, tuple[tuple[Expr, int], ...]], Value] = {}
        self._values: dict[tuple[object, ...], Value] = {}
        self._places: dict[Expr, Affine | None] = {}
        self._free = _dependences(epilogue.value, epilogue.acc)
        self._sum = epilogue.acc

    def initial(self, valid: Sequence[int]) -> list[Value] | None:
        """What the caller lets the accumulators of each block start from in place of zero: a bias that is added before all else; None
        where there is none. `valid`: lanes of the blocks that are elements of the output.

        A single lane starts from zero: LLVM would treat its accumulators as scalars, for which there are 16 registers, and spill.
        """
        self._sum = self._first_sum()
        if self._sum is self.epilogue.acc:
            return None
        a, b = self._sum.args
        addend = b if a is self.epilogue.acc else a
        zero = Value("zeroinitializer", vector_type(scalar_type(self._sum.dtype), self.lanes))
        return [zero if self._is_single(lanes) else self._vector(addend, 0, block, lanes) for block, lanes in enumerate(valid)]

    def _is_single(self, valid: int) -> bool:
        return valid == 1 < self.lanes

    def _first_sum(self) -> Expr:
        """The node that the accumulator holds at the end: its sum with what is the same for all pixels, or itself."""
        acc = self.epilogue.acc
        users = [node for node in walk(self.epilogue.value) if acc in node.args]
        if len(users) != 1 or users[0].fn != "add" or users[0].args[0] is users[0].args[1]:
            return acc
        (other,) = (arg for arg in users[0].args if arg is not acc)
        alone = acc not in self._free[other] and not any(self.axes[i].by_pixel for i in self._free[other])
        return users[0] if alone else acc

    def store(self, acc: Value, pixel: int, block: int, valid: int) -> None:
        """The epilogue of one accumulator vector that started from `initial`; its first `valid` lanes are elements of the output."""
        self._values[self.epilogue.acc if self._is_single(valid) else self._sum, pixel, block] = acc
        value = self._vector(self.epilogue.value, pixel, block, valid)
        place = self._place(self.destination.offset)
        if place is None:
            raise UnsupportedError("the output's offset is not affine in the loop variables")
        dtype = self.destination.operand.dtype
        pointer = self._pointer(self.destination.slot, memory_type(dtype), place, pixel, block)
        stride = sum(c for i, c in place.terms if self.axes[i].vector)
        if self.destination.fill:
            store_lanes(self.f, zero_tail(self.f, value, self.lanes, valid), pointer, dtype, self.lanes, stride, self.lanes)
        else:
            store_lanes(self.f, value, pointer, dtype, self.lanes, stride, valid)

    def _vector(self, node: Expr, pixel: int, block: int, valid: int) -> Value:
        """The node in all lanes, whether or not it depends on the lane."""
        if node.fn == "const":
            return emit_const(node, self.lanes)  # a literal: min and max take one instruction where they see that it is no NaN
        value = self._value(node, pixel, block, valid)
        return value if self._varies(node) else broadcast(self.f, value, self.lanes)

    def _varies(self, node: Expr) -> bool:
        """Whether the value differs between lanes; others are computed as scalars."""
        return any(i is self.epilogue.acc or self.axes[i].vector for i in self._free[node])

    def _value(self, node: Expr, pixel: int, block: int, valid: int) -> Value:
        key = self._key(node, pixel, block)
        if key not in self._values:
            self._values[key] = self._compute(node, pixel, block, valid)
        return self._values[key]

    def _key(self, node: Expr, pixel: int, block: int) -> tuple[object, ...]:
        free = self._free[node]
        if self.epilogue.acc in free:
            return (node, pixel, block)
        return (node, tuple((i, self.axes[i].delta(pixel, block)) for i in free))

    def _compute(self, node: Expr, pixel: int, block: int, valid: int) -> Value:
        lanes = self.lanes if self._varies(node) else 1
        match node.fn:
            case "const":
                return emit_const(node, lanes)
            case "index":
                return self._index(self.axes[node], pixel, block)
            case "load":
                return self._load(node, pixel, block, valid)
            case "arg" | "reduce":
                raise UnsupportedError(f"{node.fn} inside an epilogue")
        quotient = logistic_parts(node) if has_logistic(v := Lanes(self.f, 32, lanes, self.target)) else None
        operands = quotient or node.args
        args = [self._vector(a, pixel, block, valid) if lanes > 1 else self._value(a, pixel, block, valid) for a in operands]
        if quotient:
            return logistic(v, *args)
        if node.fn == "cast":
            return emit_cast(self.f, args[0], node.args[0].dtype, node.dtype, lanes, self.target)
        return emit_primitive(self.f, node.fn, node.args[-1].dtype, node.dtype, lanes, args, self.target)

    def _index(self, axis: Axis, pixel: int, block: int) -> Value:
        scalar = self.f.add(axis.base, axis.delta(pixel, block))
        if not axis.vector or self.lanes == 1:
            return scalar
        vector = f"<{self.lanes} x i64>"
        iota = ", ".join(f"i64 {lane}" for lane in range(self.lanes))
        return self.f.op(f"add {vector} {broadcast(self.f, scalar, self.lanes).name}, <{iota}>", vector)

    def _load(self, node: Expr, pixel: int, block: int, valid: int) -> Value:
        place = self._place(node.args[0])
        element = memory_type(node.dtype)
        if place is None:
            return self._gather(node, pixel, block, valid)
        pointer = self._pointer(node.attr, element, place, pixel, block)
        stride = sum(c for i, c in place.terms if self.axes[i].vector)
        lanes = self.lanes if self._varies(node) else 1
        return load_lanes(self.f, pointer, node.dtype, lanes, stride, valid)

    def _gather(self, node: Expr, pixel: int, block: int, valid: int) -> Value:
        """A load at an offset that is not affine: lane by lane."""
        offsets = self._value(node.args[0], pixel, block, valid)
        element = memory_type(node.dtype)
        base = self.pointers[node.attr]
        if not self._varies(node):
            return load_scalar(self.f, self.f.pointer(base, offsets, element), node.dtype)
        value = Value("zeroinitializer", vector_type(scalar_type(node.dtype), self.lanes))
        for lane in range(valid):
            offset = self.f.op(f"extractelement {offsets}, i64 {lane}", "i64")
            scalar = load_scalar(self.f, self.f.pointer(base, offset, element), node.dtype)
            value = self.f.op(f"insertelement {value}, {scalar}, i64 {lane}", value.type)
        return value

    def _place(self, offset: Expr) -> Affine | None:
        if offset not in self._places:
            self._places[offset] = affine(offset)
        return self._places[offset]

    def _pointer(self, slot: int, element: str, place: Affine, pixel: int, block: int) -> Value:
        """Address of lane 0: the shared base of the tile plus this element's constant."""
        key = (slot, place.terms)
        if key not in self._bases:
            offset: Value = i64(0)
            for index, coefficient in place.terms:
                offset = self.f.add(offset, self.f.mul(self.axes[index].base, coefficient))
            self._bases[key] = self.f.pointer(self.pointers[slot], offset, element)
        delta = place.constant + sum(c * self.axes[i].delta(pixel, block) for i, c in place.terms)
        return self.f.pointer(self._bases[key], delta, element)


def _dependences(root: Expr, acc: Expr) -> dict[Expr, tuple[Expr, ...]]:
    """For each node the loop variables (and the accumulator) below it."""
    below: dict[Expr, tuple[Expr, ...]] = {}
    for node in walk(root):
        own = (node,) if node.fn == "index" or node is acc else ()
        below[node] = tuple(dict.fromkeys([*own, *(i for child in node.args for i in below[child])]))
    return below


def check_epilogue(epilogue: Epilogue, operands: Sequence[Operand]) -> None:
    """Raises UnsupportedError for what an epilogue cannot hold."""
    if epilogue.value.dtype != operands[-1].dtype:
        raise UnsupportedError(f"epilogue of {epilogue.value.dtype} for an output of {operands[-1].dtype}", hint="cast it")
    if any(node.fn == "reduce" for node in walk(epilogue.value)):
        raise UnsupportedError("a reduction inside an epilogue", hint="a kernel of its own before this one")
    for node in walk(epilogue.value):
        if node.fn == "load" and operands[node.attr].dtype != node.dtype:
            raise UnsupportedError(f"epilogue loads {node.dtype} from an operand of {operands[node.attr].dtype}")
        if node.fn == "index" and node not in epilogue.index:
            raise UnsupportedError(f"epilogue uses {node}, which is not a loop variable of the output")
