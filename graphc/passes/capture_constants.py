"""capture-constants: what a sub-graph captures of constants becomes constants of its own, and what it does not read is captured no more.

A loop whose trip count or condition is constant by now is one whose number of iterations is known.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.control import Loop
from graphc.passes.base import Context


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "capture-constants")
    for node in graph.nodes:
        if isinstance(node.op, Loop) and node.op.is_dynamic:
            patch.count += _settle(patch, node)
        if node.op.bodies():
            patch.count += _capture(patch, node)
    return patch.commit()


def _settle(patch: Patch, node: Node) -> int:
    """A count that is constant, then a condition that is always true; the number of those that went."""
    op = node.op
    assert isinstance(op, Loop)
    count, condition = node.inputs[0], node.inputs[op.counted]
    if op.counted and count.is_constant and count.data is not None:
        times = max(int(count.data), 0)
        if op.trips == -1 or (isinstance(op.trips, int) and times >= op.trips):
            node.op = replace(op, counted=False, trips=times if op.trips == -1 else op.trips)
            patch.set_inputs(node, node.inputs[1:])
            return 1 + (_settle(patch, node) if op.conditional else 0)
    bounded = op.counted or op.trips != -1
    if op.conditional and bounded and _is_true(condition) and _is_true(op.body.outputs[0]):
        node.op = replace(op, conditional=False)
        patch.set_inputs(node, [*node.inputs[: op.counted], *node.inputs[op.counted + 1 :]])
        del op.body.outputs[0], op.body.output_names[0]
        return 1
    return 0


def _is_true(value: Value) -> bool:
    return value.is_constant and value.data is not None and bool(value.data.all())


def _capture(patch: Patch, node: Node) -> int:
    bodies = node.op.bodies()
    fixed = 1 if not isinstance(node.op, Loop) else node.op.first_captured
    first = 0 if not isinstance(node.op, Loop) else 1 + fixed - node.op.first_state
    kept, inputs = list(node.inputs[:fixed]), node.inputs[fixed:]
    for body in bodies:
        own = list(zip(body.inputs[first:], inputs, strict=False))
        inputs = inputs[len(own) :]
        for inner, outer in own:
            if outer.is_constant:
                inner.kind, inner.data = Kind.CONSTANT, outer.data
            elif inner.users or inner in body.outputs:
                kept.append(outer)
                continue
            else:
                del body.values[inner.name]
            body.inputs.remove(inner)
    count = len(node.inputs) - len(kept)
    patch.set_inputs(node, kept)
    return count
