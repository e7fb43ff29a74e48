"""canonicalize: one way to write each thing. Nodes that do nothing go; chains of reshapes, transposes and casts become one node, and so
does a transpose that only moves dims of size 1: it is a reshape."""

from __future__ import annotations

from collections.abc import Callable

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.movement import Concat, Expand, Pad, Reshape, Slice, Tile, Transpose
from graphc.ops.pointwise import Cast
from graphc.passes.base import Context

Rule = Callable[[Patch, Node], Value | None]


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "canonicalize")
    for node in list(graph.nodes):
        rule = _RULES.get(node.op.name)
        new = rule(patch, node) if rule else None
        if new is not None:
            patch.replace(node.output, new)
    return patch.commit()


def _same_type(patch: Patch, node: Node) -> Value | None:
    """Reshape, expand or cast to what the input already is."""
    return node.inputs[0] if node.output.type == node.inputs[0].type else None


def _identity(patch: Patch, node: Node) -> Value | None:
    return node.inputs[0]


def _reshape(patch: Patch, node: Node) -> Value | None:
    if (same := _same_type(patch, node)) is not None:
        return same
    before = node.inputs[0].producer
    if before is not None and isinstance(before.op, Reshape):
        x = before.inputs[0]
        return x if x.type == node.output.type else patch.add(node.op, x, like=node)
    return None


def _transpose(patch: Patch, node: Node) -> Value | None:
    assert isinstance(node.op, Transpose)
    if node.op.perm == tuple(range(len(node.op.perm))):
        return node.inputs[0]
    before = node.inputs[0].producer
    if before is not None and isinstance(before.op, Transpose):
        perm = tuple(before.op.perm[i] for i in node.op.perm)
        x = before.inputs[0]
        return x if perm == tuple(range(len(perm))) else patch.add(Transpose(perm), x, like=node)
    shape = node.inputs[0].type.shape
    moved = [axis for axis in node.op.perm if shape[axis] != 1]
    if moved == sorted(moved):  # nothing moves in memory
        return patch.add(Reshape(node.output.type.shape), node.inputs[0], like=node)
    return None


def _cast(patch: Patch, node: Node) -> Value | None:
    assert isinstance(node.op, Cast)
    return _same_type(patch, node)


def _slice(patch: Patch, node: Node) -> Value | None:
    assert isinstance(node.op, Slice)
    whole = all(start == 0 for start in node.op.starts) and all(step == 1 for step in node.op.steps)
    return _same_type(patch, node) if whole else None


def _pad(patch: Patch, node: Node) -> Value | None:
    assert isinstance(node.op, Pad)
    nothing = all(size == 0 for size in (*node.op.before, *node.op.after))
    return node.inputs[0] if nothing else None


def _concat(patch: Patch, node: Node) -> Value | None:
    assert isinstance(node.op, Concat)
    axis = node.op.axis
    kept = [value for value in node.inputs if value.type.shape[axis] != 0] or node.inputs[:1]
    if len(kept) == 1:
        return kept[0] if kept[0].type == node.output.type else None
    return patch.add(node.op, *kept, like=node) if len(kept) < len(node.inputs) else None


_RULES: dict[str, Rule] = {
    "identity": _identity,
    Reshape.name: _reshape,
    Transpose.name: _transpose,
    Cast.name: _cast,
    Slice.name: _slice,
    Pad.name: _pad,
    Concat.name: _concat,
    Expand.name: _same_type,
    Tile.name: _same_type,
}
