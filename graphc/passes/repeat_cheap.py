"""repeat-cheap: a cheap elementwise result that several kernels would read from memory is computed in each of them instead.

Such a node reads one map of its own size, which is in memory for others too, and small operands (x - mean in batch normalisation): each
reader then reads that map instead of the result, and the result is neither written nor kept, in training often from the forward to the
backward pass.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.movement import Concat
from graphc.ops.pointwise import Pointwise
from graphc.passes.anchors import anchor_family
from graphc.passes.base import Context
from graphc.passes.fuse import work

MOST_WORK = 2  # primitives per element
SMALL = 8  # times smaller than the result are operands that come for free


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "repeat-cheap")
    roots = set(graph.roots)
    for node in list(graph.nodes):
        if _repeats(node, roots):
            for user in list(node.output.users)[1:]:
                again = patch.add(node.op, *node.inputs, like=node)
                patch.set_inputs(user, [again if value is node.output else value for value in user.inputs])
                patch.count += 1
    return patch.commit()


def _repeats(node: Node, roots: set[Value]) -> bool:
    if not isinstance(node.op, Pointwise) or node.output in roots or len(node.output.users) < 2 or work(node) > MOST_WORK:
        return False
    if not all(_may_inline(user, node.output) for user in node.output.users):
        return False
    size = int(node.output.type.size)
    whole = [value for value in node.inputs if int(value.type.size) * SMALL > size]
    return len(whole) == 1 and (whole[0].producer is None or whole[0] in roots or len(whole[0].users) > 1)


def _may_inline(user: Node, value: Value) -> bool:
    """Whether loops of the user can compute the value as they go, once for each element."""
    if anchor_family(user) or isinstance(user.op, Concat) or len(user.outputs) != 1:
        return False
    return user.op.family == "reduce" or (user.op.elementwise and user.output.type.shape == value.type.shape)
