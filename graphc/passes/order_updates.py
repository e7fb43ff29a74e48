"""order-updates: in a graph that updates state, a kernel runs as soon as it frees at least the memory that it takes.

A training step is built as forward, backward, updates. In that order all that any gradient is made from is alive at the end of the
backward part, and copies keep the old parameters that a later kernel still reads. Here a kernel that writes a state waits for those that
read it, and then comes at once. All other kernels keep their order.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    """The number of nodes that stand in another place than before."""
    if not graph.updates:
        return 0
    before = list(graph.nodes)
    graph.nodes = _Order(graph).nodes()
    return sum(old is not new for old, new in zip(before, graph.nodes, strict=True))


class _Order:
    """Kernels by number, in the order in which their last nodes stand in the graph."""

    def __init__(self, graph: Graph) -> None:
        groups: dict[object, list[Node]] = {}
        position = {node: i for i, node in enumerate(graph.nodes)}
        for node in graph.nodes:
            groups.setdefault(node if node.kernel is None else node.kernel, []).append(node)
        self._kernels = sorted(groups.values(), key=lambda nodes: position[nodes[-1]])
        self._number = {node: number for number, kernel in enumerate(self._kernels) for node in kernel}
        self._roots = set(graph.roots)
        self._reads = [self._inputs(number) for number in range(len(self._kernels))]
        self._users: dict[Value, list[int]] = {}
        for number, values in enumerate(self._reads):
            for value in values:
                self._users.setdefault(value, []).append(number)
        self._waiting = {value: len(users) for value, users in self._users.items()}  # users that have not run
        self._takes = [sum(value.type.nbytes for value in self._stored(number)) for number in range(len(self._kernels))]
        updates = ((state, value.producer) for state, value in graph.updates.items())
        self._state = {self._number[maker]: state for state, maker in updates if maker is not None}  # kernel -> what it replaces
        self._writer = {state: number for number, state in self._state.items()}
        self._done: set[int] = set()
        self._ordered: list[Node] = []

    def nodes(self) -> list[Node]:
        waiting: list[int] = []
        for number in range(len(self._kernels)):
            if number in self._done:
                continue
            if self._overwrites_read(number):
                waiting.append(number)
            else:
                self._run(number)
        for number in waiting:
            self._run(number)
        return self._ordered

    def _run(self, number: int) -> None:
        """Also all that it needs and that waits, and afterwards all that has become free by it."""
        pending = [number]
        while pending:
            top = pending[-1]
            missing = self._missing(top)
            if missing and top not in self._done:
                pending += missing
                continue
            pending.pop()
            if top not in self._done:
                self._done.add(top)
                self._ordered += self._kernels[top]
                for value in self._reads[top]:
                    self._waiting[value] -= 1
                gains = {other: self._gain(other) for other in sorted(self._touched(top), reverse=True)}
                pending += sorted((other for other in gains if gains[other] >= 0), key=gains.__getitem__)

    def _missing(self, number: int) -> list[int]:
        """The kernels that it needs and that have not run."""
        makers = (self._number[value.producer] for value in self._reads[number] if value.producer is not None)
        return [maker for maker in makers if maker not in self._done]

    def _touched(self, number: int) -> set[int]:
        """The kernels that may have become free by this one: what reads its values or the same as it, or replaces states that it reads."""
        values = [*self._reads[number], *(value for node in self._kernels[number] for value in node.outputs)]
        found = {user for value in values for user in self._users.get(value, ())}
        return found | {self._writer[value] for value in self._reads[number] if value in self._writer}

    def _gain(self, number: int) -> int:
        """The bytes that are free afterwards and were not before, below 0 where it takes more; -1 where it cannot run yet."""
        if number in self._done or self._overwrites_read(number) or self._missing(number):
            return -1
        last = (value for value in self._reads[number] if self._waiting[value] == 1)  # this one has not run
        freed = sum(value.type.nbytes for value in last if value.producer is not None and value not in self._roots)
        return freed - self._takes[number]

    def _overwrites_read(self, number: int) -> bool:
        """Whether it replaces a state that others have yet to read."""
        state = self._state.get(number)
        return state is not None and self._waiting.get(state, 0) > (state in self._reads[number])

    def _inputs(self, number: int) -> list[Value]:
        read = dict.fromkeys(value for node in self._kernels[number] for value in node.inputs)
        return [value for value in read if value.producer is None or self._number[value.producer] != number]

    def _stored(self, number: int) -> list[Value]:
        """In the arena, when it has run."""
        made = (value for node in self._kernels[number] for value in node.outputs)
        return [value for value in made if value in self._users and value not in self._roots]
