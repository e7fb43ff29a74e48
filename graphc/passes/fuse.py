"""fuse-epilogue and fuse-pointwise: which nodes become one kernel.

Fusion is an annotation: nodes of one kernel share `node.kernel`; the graph and its meaning stay as they are, so any stage can be run
and compared. A kernel has one output, so a node joins its consumers' kernel only where all its uses are in there.

* fuse-epilogue: elementwise consumers join the convolution or product that makes their operand, and run on its registers; where there
  are several, as in x * sigmoid(x), together up to where one value is left.
* fuse-pointwise: producers are inlined into the loops of their consumer where that repeats no expensive work: elementwise chains,
  movement (transposes, slices, pads are index arithmetic), and whole reductions under an elementwise consumer of the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.kernel.expr import walk
from graphc.knobs import knob
from graphc.ops.movement import Concat
from graphc.ops.pointwise import Pointwise
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context

INLINE = frozenset({"map", "copy"})
MAX_NODES = knob("GRAPHC_FUSE_NODES", int, 32, "largest number of nodes in one kernel")
_SIMPLE = ("add", "sub", "mul", "neg", "abs", "max", "min", "select", "and", "or", "not", "cast", "const", "arg")
CHEAP = frozenset((*_SIMPLE, "eq", "ne", "lt", "le", "gt", "ge"))
REGION_NODES = 16  # that are looked at for where the uses of one value meet again
EPILOGUE_NODES = 64  # primitives that are worth repeating for each register of a tile; more run as loops of their own


def fuse_epilogue(graph: Graph, context: Context) -> int:
    groups = _Groups(graph)
    roots = set(graph.roots)
    position = {node: i for i, node in enumerate(graph.nodes)}
    count = 0
    for node in graph.nodes:
        if anchor_family(node) not in ("conv", "contract"):
            continue
        budget = EPILOGUE_NODES
        value = node.output
        while region := _region(value, roots, position, groups):
            budget -= sum(work(user) for user in region)
            if budget < 0:
                break
            for user in region:
                groups.merge(node, user)
            count += len(region)
            value = region[-1].output
    return count


def _region(value: Value, roots: set[Value], position: Mapping[Node, int], groups: _Groups) -> list[Node]:
    """The first nodes that between them use up `value` and each other's results but the last one's; none where there are no such nodes."""
    inside: dict[Node, None] = {}
    needed = [value]  # made by the region so far and used outside
    while len(inside) < REGION_NODES:
        users = {user for made in needed for user in made.users if user not in inside}
        user = min(users, key=position.__getitem__, default=None)
        if user is None or not _joins_epilogue(user, value, groups):
            return []
        inside[user] = None
        needed = [made for made in (*needed, user.output) if made in roots or any(other not in inside for other in made.users)]
        if needed == [user.output]:
            return list(inside)
    return []


def fuse_pointwise(graph: Graph, context: Context) -> int:
    groups = _Groups(graph)
    roots = set(graph.roots)
    limit = MAX_NODES.get()
    count = 0
    for node in reversed(graph.nodes):
        if len(node.outputs) != 1 or groups.anchored(node) or node.op.ends_kernel:
            continue
        users = [] if node.output in roots else list(node.output.users)
        if not users or any(len(user.outputs) != 1 or groups.anchored(user) or isinstance(user.op, Concat) for user in users):
            continue
        if _inlines_all(node, users, groups) and groups.size(node) + groups.size(users[0]) <= limit:
            groups.merge(users[0], node)
            count += 1
    return count


def _inlines_all(node: Node, users: Sequence[Node], groups: _Groups) -> bool:
    """Several users must be of one kernel and read the same element, so that it is computed once."""
    if len(users) > 1 and (users[0].kernel is None or len({user.kernel for user in users}) > 1):
        return False
    alone = len(users) == 1
    return all((alone or _same_element(node, user)) and _inlines(node, user, groups) for user in users)


def _same_element(node: Node, user: Node) -> bool:
    return user.op.elementwise and node.output.type.shape == user.output.type.shape


def _joins_epilogue(user: Node, value: Value, groups: _Groups) -> bool:
    same_shape = len(user.outputs) == 1 and user.output.type.shape == value.type.shape
    return user.op.elementwise and same_shape and user.kernel is None and not groups.anchored(user)


def _inlines(node: Node, user: Node, groups: _Groups) -> bool:
    same_shape = node.output.type.shape == user.output.type.shape
    if groups.reduces(node) or node.op.family not in INLINE:
        return user.op.elementwise and same_shape
    if user.op.family == "window":
        return False  # each element is read by several windows
    if user.op.elementwise or user.op.family in ("reduce", "copy"):
        grows = not same_shape and user.op.elementwise and _smaller(node.output, user.output)
        return _is_cheap(node, groups) if grows else True
    return _is_cheap(node, groups)


def _smaller(inner: Value, outer: Value) -> bool:
    return int(inner.type.size) < int(outer.type.size)


def work(node: Node) -> int:
    """Primitives per element."""
    if isinstance(node.op, Pointwise):
        traced = node.op.expression(tuple(value.type.dtype for value in node.inputs))
        return sum(1 for e in walk(traced) if e.fn not in ("const", "arg")) + sum(8 for e in walk(traced) if _is_expensive(e.fn))
    return 1


def _is_expensive(fn: str) -> bool:
    return fn not in CHEAP and fn not in ("div", "sqrt", "floor", "ceil", "round", "trunc", "fma", "sign")


def _is_cheap(node: Node, groups: _Groups) -> bool:
    """May be computed more than once: the whole group of the node."""
    return sum(work(member) for member in groups.members(node)) <= 6


class _Groups:
    """Fusion groups over `node.kernel`."""

    def __init__(self, graph: Graph) -> None:
        self._members: dict[int, list[Node]] = {}
        for node in graph.nodes:
            if node.kernel is not None:
                self._members.setdefault(node.kernel, []).append(node)
        self._next = max(self._members, default=-1) + 1

    def members(self, node: Node) -> list[Node]:
        return [node] if node.kernel is None else self._members[node.kernel]

    def size(self, node: Node) -> int:
        return len(self.members(node))

    def anchored(self, node: Node) -> bool:
        return any(anchor_family(member) for member in self.members(node))

    def reduces(self, node: Node) -> bool:
        return any(member.op.family not in INLINE for member in self.members(node))

    def merge(self, into: Node, node: Node) -> None:
        if into.kernel is None:
            into.kernel = self._next
            self._members[self._next] = [into]
            self._next += 1
        moved = self.members(node)
        for member in moved:
            member.kernel = into.kernel
        if moved is not self._members[into.kernel]:
            self._members[into.kernel].extend(moved)
