"""memory: which values share memory, and where each buffer lies in the arena.

* A reshape of row-major memory is the same memory; an output that is one gives its memory to what is reshaped.
* The parts of a concat over channels are written straight into their slices, where layouts allow.
* Buffers whose lifetimes do not overlap share addresses: greedy by size, lowest fitting offset (Pisarchyk & Lee, 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Union

from graphc.ir.graph import Graph, Node, Value
from graphc.kernel.spec import Operand
from graphc.ops.movement import Concat, Reshape
from graphc.passes.anchors import WHOLE, anchor_family, is_dense
from graphc.schedule.lower import slice_of
from graphc.schedule.partition import Kernel
from graphc.types.layout import Layout

ALIGN = 64
SLACK = 64  # bytes behind each buffer that a vector load may touch


@dataclass(frozen=True)
class Place:
    """A value's memory: `offset` bytes into the buffer of `root`, accessed as `operand`."""

    root: Value
    operand: Operand
    offset: int


class Placement:
    """Decides the Place of every value that is in memory. `whole`: the graph is no sub-graph, whose outputs lie where it is told."""

    def __init__(self, graph: Graph, kernels: Iterable[Kernel], whole: bool = True) -> None:
        self._graph, self._whole = graph, whole
        self._roots = set(graph.roots)
        self._rigid: set[Value] = set()  # slices whose halo must not grow, because a product reads the whole
        self._stored = {value: kernel for kernel in kernels for value in kernel.outputs}
        self._parent: dict[Value, tuple[Value, int]] = {}  # value -> (value that holds it, first channel; -1: same memory)
        self._aliases: set[Value] = set()
        self._join_concats()
        for value in self._stored:
            self._join_reshape(value)
        self._places: dict[Value, Place] = {}

    def is_alias(self, value: Value) -> bool:
        """A reshape that needs no kernel."""
        return value in self._aliases

    def is_placed(self, value: Value, holder: Value | None = None) -> bool:
        """Whether the value is written straight into a slice (of `holder`)."""
        found, channel = self._parent.get(value, (value, -1))
        return channel >= 0 and holder in (None, found)

    def place(self, value: Value) -> Place:
        if value not in self._places:
            self._places[value] = self._find(value)
        return self._places[value]

    def operand(self, value: Value) -> Operand:
        return self.place(value).operand

    def _find(self, value: Value) -> Place:
        shape = value.type.static_shape
        if value not in self._parent:
            return Place(value, Operand(value.type.dtype, shape, value.layout), 0)
        holder, channel = self._parent[value]
        place = self.place(holder)
        if channel < 0:
            return Place(place.root, Operand(value.type.dtype, shape), place.offset)
        operand = slice_of(place.operand, shape)
        per_step = operand.strides[1] * value.type.dtype.itemsize
        return Place(place.root, operand, place.offset + channel // max(operand.layout.block, 1) * per_step)

    def _join_reshape(self, value: Value) -> None:
        (node, *others) = self._stored[value].nodes
        if others or not isinstance(node.op, Reshape):
            return
        source = node.inputs[0]
        if source not in self._stored or source in self._roots or self.is_placed(source) or value.layout != Layout():
            return
        if value not in self._roots and _is_row_major(source):
            self._parent[value] = (source, -1)
        elif value in self._roots and self._is_made_for(source, node, value):
            self._parent[source] = (value, -1)
        else:
            return
        self._aliases.add(value)

    def _is_made_for(self, source: Value, node: Node, output: Value) -> bool:
        """Whether nothing but the reshape reads the source, and its kernel may write it where an output lies."""
        free = self._whole and source not in self._parent and source.layout == Layout() and dict(source.users) == {node: 1}
        return free and output not in self._graph.updates.values()

    def _join_concats(self) -> None:
        concats = [k for k in self._stored.values() if len(k.nodes) == 1 and isinstance(k.nodes[0].op, Concat)]
        for kernel in reversed(concats):
            self._join_concat(kernel)
        for _ in concats:  # one halo for a whole family of slices
            if not any(self._spread_halo(value, holder) for value, (holder, _) in self._parent.items()):
                break

    def _join_concat(self, kernel: Kernel) -> None:
        node, out = kernel.nodes[0], kernel.output
        assert isinstance(node.op, Concat)
        if node.op.axis != 1 or out in self._roots or out.type.rank < 2:
            return
        block = out.layout.block
        channel = 0
        rigid = out in self._rigid or _meets_product(out)
        for value in node.inputs:
            fits = value.layout.block == block and (not block or channel % block == 0)
            size = value.type.static_shape[1]
            whole = not block or size % block == 0 or value is node.inputs[-1]
            free = value in self._stored and value not in self._roots and value not in self._parent and node.inputs.count(value) == 1
            dense = _meets_product(value) or (free and is_dense(self._stored[value].anchor))
            grows = rigid and value.layout.has_halo
            if fits and free and whole and size and not dense and not grows:
                self._parent[value] = (out, channel)
                if rigid:
                    self._rigid.add(value)
            channel += size

    @staticmethod
    def _spread_halo(value: Value, holder: Value) -> bool:
        if value.layout == holder.layout:
            return False
        rank = value.type.rank - 2
        pairs = zip(value.layout.halo or ((0, 0),) * rank, holder.layout.halo or ((0, 0),) * rank, strict=True)
        halo = tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in pairs)
        value.layout = holder.layout = Layout(holder.layout.block, halo if any(b or a for b, a in halo) else ())
        return True


def _meets_product(value: Value) -> bool:
    """Matrix products, recurrent layers, sorting and control flow read dense rows."""
    return any(anchor_family(user) in ("contract", *WHOLE) for user in value.users)


def _is_row_major(value: Value) -> bool:
    """Its memory is the row-major array (blocked with one pixel and full blocks is)."""
    layout, shape = value.layout, value.type.static_shape
    if layout.has_halo:
        return False
    if not layout.is_blocked:
        return True
    return all(size == 1 for size in shape[2:]) and (shape[1] % layout.block == 0 or shape[0] == 1)


@dataclass(frozen=True, eq=False)
class Temporary:
    """A buffer between the steps of one kernel."""

    nbytes: int


Buffer = Union[Value, Temporary]


@dataclass(frozen=True)
class Lifetime:
    """Bytes needed from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int


def assign(lifetimes: Mapping[Buffer, Lifetime]) -> tuple[dict[Buffer, int], int]:
    """Offset of each buffer, and the size of the arena."""
    offsets: dict[Buffer, int] = {}
    placed: list[tuple[int, int, Lifetime]] = []  # start, end
    for value, life in sorted(lifetimes.items(), key=lambda item: (-item[1].nbytes, item[1].first)):
        size = -(-(life.nbytes + SLACK) // ALIGN) * ALIGN
        start = 0
        alive = ((low, high) for low, high, other in placed if other.first <= life.last and life.first <= other.last)
        for low, high in sorted(alive):
            if low - start >= size:
                break
            start = max(start, high)
        offsets[value] = start
        placed.append((start, start + size, life))
    return offsets, max((high for _, high, _ in placed), default=0)
