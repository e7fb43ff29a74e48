"""recompute: in a graph that updates state, cheap values that wait for the backward pass are computed again instead of stored.

What is alive where the step needs most memory is mostly what the forward pass keeps for the backward pass: of a normalised layer its
input, the centred input and the activation. Those that a loop makes from others (elementwise chains, random bits of dropout) are cloned
for the uses behind the peak, where their operands are alive anyway, or where one operand kept takes less than the values that it gives
back. Each round fuses and orders a copy of the graph to see what is stored, and looks at its peak; rounds end where the peak does not
fall, or where what is moved in addition would exceed LIMIT percent of the bytes that all kernels move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.kernel.expr import walk
from graphc.knobs import knob
from graphc.ops.pointwise import Pointwise
from graphc.passes import fuse, order_updates
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context

LIMIT = knob("GRAPHC_RECOMPUTE", int, 10, "percent of a training step's memory traffic that recomputing may add to save memory; 0: off")
ROUNDS = 8
GAIN = 0.98  # the peak of a round is at most this part of the one before
SMALL = 16  # operands of a sixteenth of a value's bytes are kept without counting them
INLINE_WORK = 6  # operations per element that are worth repeating in each loop that uses them


def run(graph: Graph, context: Context) -> int:
    """The number of values that are computed again."""
    if not graph.updates or not LIMIT.get():
        return 0
    count, spent = 0, 0
    stored = _Stored(graph)
    for _ in range(ROUNDS):
        chosen, spent = _affordable(stored.candidates(), spent, stored.traffic * LIMIT.get() // 100)
        if not chosen:
            break
        trial = graph.copy()
        _apply(trial, chosen)
        after = _Stored(trial)
        if after.peak > stored.peak * GAIN:
            break
        _apply(graph, chosen)
        count += len(chosen)
        stored = after
    return count


@dataclass(frozen=True)
class _Clone:
    """A value to compute again, by name: the nodes that make it, and those of its users that take the clone (by their outputs)."""

    value: str
    makers: tuple[str, ...]
    users: tuple[str, ...]
    apart: bool  # a clone for each user
    nbytes: int
    moved: int  # bytes that computing it again moves
    reads: frozenset[str]  # operands
    keeps: frozenset[str]  # operands that must be kept for it


class _Stored:
    """What a graph would store: kernels in order, and when each value is alive."""

    def __init__(self, graph: Graph) -> None:
        made = graph.copy()
        none = Context()
        fuse.fuse_epilogue(made, none)
        fuse.fuse_pointwise(made, none)
        order_updates.run(made, none)
        self.kernels = _kernels(made)
        self._roots = set(made.roots)
        self._at = {node: i for i, kernel in enumerate(self.kernels) for node in kernel}
        self.uses: dict[Value, list[int]] = {}
        self.traffic = 0
        for number, kernel in enumerate(self.kernels):
            outside = {v for node in kernel for v in node.inputs if v.producer is None or self._at[v.producer] != number}
            for value in outside:
                self.uses.setdefault(value, []).append(number)
            self.traffic += sum(value.type.nbytes for value in outside)
        self.alive = {v: (self._at[v.producer], uses) for v, uses in self.uses.items() if v.producer and v not in self._roots}
        self.traffic += sum(value.type.nbytes for value in self.alive)
        self.peak, self._peak_at = self._peak()

    def _peak(self) -> tuple[int, int]:
        change = [0] * (len(self.kernels) + 1)
        for value, (first, uses) in self.alive.items():
            change[first] += value.type.nbytes
            change[uses[-1] + 1] -= value.type.nbytes
        best, at, total = 0, 0, 0
        for number, delta in enumerate(change):
            total += delta
            if total > best:
                best, at = total, number
        return best, at

    def candidates(self) -> list[_Clone]:
        """What is alive at the peak, made by a cheap kernel, and not needed there; the largest first."""
        found = []
        for value, (first, uses) in self.alive.items():
            later = [number for number in uses if number > self._peak_at]
            if first < self._peak_at and later and self._peak_at not in uses and self._is_cheap(self.kernels[first], value):
                found.append(self._clone(value, self.kernels[first], set(later)))
        nbytes = {value.name: value.type.nbytes for value in self.alive}
        return _worthwhile(sorted(found, key=lambda clone: (-clone.nbytes, clone.value)), nbytes)

    def _is_cheap(self, kernel: Iterable[Node], value: Value) -> bool:
        """Loops over elements, each of which reads the elements of the same place, or of smaller values."""
        size = int(value.type.size)
        return all(
            len(node.outputs) == 1 and not anchor_family(node) and (
                node.op.family in fuse.INLINE and node.op.name != "concat" and int(node.output.type.size) <= size
            ) for node in kernel
        )  # fmt: skip

    def _clone(self, value: Value, kernel: list[Node], later: set[int]) -> _Clone:
        first = min(later)
        users = [user for user in value.users if self._at[user] in later]
        reads = {v for node in kernel for v in node.inputs if v.producer is None or self._at[v.producer] != self._at[kernel[0]]}
        kept = {v.name for v in reads if v in self.alive and self.alive[v][1][-1] < first and v.type.nbytes * SMALL > value.type.nbytes}
        apart = _is_light(kernel, value) and all(user.op.elementwise or user.op.family == "reduce" for user in users)
        moved = sum(v.type.nbytes for v in reads) * (len(users) if apart else 1) + (0 if apart else value.type.nbytes)
        return _Clone(
            value.name, tuple(node.output.name for node in kernel), tuple(user.outputs[0].name for user in users), apart,
            value.type.nbytes, moved, frozenset(v.name for v in reads), frozenset(kept),
        )  # fmt: skip


def _is_light(kernel: Iterable[Node], value: Value) -> bool:
    """Whether the kernel may run once for each use of its value: few operations, and none that takes long."""
    flops = 0
    for node in kernel:
        types = tuple(v.type for v in node.inputs)
        flops += node.op.cost(types, [node.output.type]).flops
        if isinstance(node.op, Pointwise):
            traced = node.op.expression(tuple(type.dtype for type in types))
            if any(e.fn not in fuse.CHEAP for e in walk(traced)):
                return False
    return flops <= INLINE_WORK * int(value.type.size)


def _kernels(graph: Graph) -> list[list[Node]]:
    groups: dict[object, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(node if node.kernel is None else node.kernel, []).append(node)
    return list(groups.values())


def _worthwhile(clones: list[_Clone], nbytes: Mapping[str, int]) -> list[_Clone]:
    """Those whose operands are alive anyway, and those that together give back more than they keep; none reads another one's value."""
    groups: dict[frozenset[str], int] = {}
    for clone in clones:
        groups[clone.keeps] = groups.get(clone.keeps, 0) + clone.nbytes
    found: list[_Clone] = []
    values: set[str] = set()
    reads: set[str] = set()
    for clone in clones:
        pays = groups[clone.keeps] > sum(nbytes[name] for name in clone.keeps)
        if pays and not clone.reads & values and clone.value not in reads:
            found.append(clone)
            values.add(clone.value)
            reads |= clone.reads
    return found


def _affordable(clones: Iterable[_Clone], spent: int, budget: int) -> tuple[list[_Clone], int]:
    chosen = []
    for clone in clones:
        if spent + clone.moved <= budget:
            chosen.append(clone)
            spent += clone.moved
    return chosen, spent


def _apply(graph: Graph, clones: Iterable[_Clone]) -> None:
    patch = Patch(graph, "recompute")
    for clone in clones:
        makers = [graph.values[name].producer for name in clone.makers]
        value = graph.values[clone.value]
        users = [node for name in clone.users if (node := graph.values[name].producer) is not None]
        shared = None if clone.apart else _cloned(patch, makers, value)
        for user in users:
            new = shared or _cloned(patch, makers, value)
            patch.set_inputs(user, [new if v is value else v for v in user.inputs])
    patch.commit()


def _cloned(patch: Patch, makers: Iterable[Node | None], value: Value) -> Value:
    new: dict[Value, Value] = {}
    for node in makers:
        assert node is not None
        new[node.output] = patch.add(node.op, *(new.get(v, v) for v in node.inputs), like=node)
    return new[value]
