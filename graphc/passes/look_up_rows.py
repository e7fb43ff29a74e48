"""look-up-rows: a product with one-hot rows multiplies with zeros; it reads, or adds up, rows instead.

    one_hot(i) w    = w[i]                              rows of w, zeros where i is out of range
    one_hot(i)' g   = for each k: s[i[k]] += g[k]       from zeros, in order (the gradient of the weight)

In a product an infinite or NaN weight spreads to all results of its column, here it does not; sums are made in another order. So not where
the accuracy is "exact".
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.compose import expand, reshape, transpose
from graphc.ops.express import Arithmetic
from graphc.ops.gather import Gather, OneHot
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Reshape, zeros
from graphc.ops.pointwise import Cast
from graphc.ops.scatter import ScatterElements
from graphc.passes.base import Context
from graphc.types.dtype import i64
from graphc.types.shape import Shape


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "look-up-rows")
    if context.accuracy == "exact":
        return 0
    for node in list(graph.nodes):
        if isinstance(node.op, MatMul):
            patch.builder.source, patch.builder.origins = node.source, node.origins
            made = _made(patch.builder, node, node.op, *node.inputs)
            if made is not None:
                patch.replace(node.output, made)
    return patch.commit()


def _made(builder: Builder, node: Node, op: MatMul, a: Value, b: Value) -> Value | None:
    """What replaces the product `node`; None where no operand is one-hot rows."""
    if b.type.rank != 2 or a.type.rank < 2:
        return None
    hot = _rows(a, node.name)
    if hot is not None and not op.trans_a:
        return hot.look_up(builder, transpose(builder, b, (1, 0)) if op.trans_b else b)
    if hot is not None and a.type.rank == 2:
        return hot.sums(builder, transpose(builder, b, (1, 0)) if op.trans_b else b)
    hot = _rows(b, node.name)
    if hot is not None and a.type.rank == 2 and not op.trans_b:
        return transpose(builder, hot.sums(builder, a if op.trans_a else transpose(builder, a, (1, 0))), (1, 0))
    return None


@dataclass(frozen=True)
class _Rows:
    """One-hot rows of `depth`, of indices with that shape. `name`: of the product."""

    name: str
    indices: Value
    shape: Shape
    depth: int

    def look_up(self, builder: Builder, table: Value) -> Value:
        rows = builder.add(Gather(0), table, self._at(builder, self.shape), name=self.name)
        return self._within(builder, rows)

    def sums(self, builder: Builder, grad: Value) -> Value:
        """(K, M) -> (depth, M)."""
        start = zeros(builder, grad, (self.depth, grad.type.shape[1]))
        at = expand(builder, self._at(builder, (*self.shape, 1)), grad.type.shape)
        return builder.add(ScatterElements(0, "add"), start, at, self._within(builder, grad), name=self.name)

    def _at(self, builder: Builder, shape: Shape) -> Value:
        number = self.indices if self.indices.type.dtype == i64 else builder.add(Cast(i64), self.indices)
        return reshape(builder, number, shape)

    def _within(self, builder: Builder, rows: Value) -> Value:
        """The rows, zeros where the index is out of range."""
        a, at = Arithmetic(builder), self._at(builder, (*self.shape, 1))
        inside = a("and", a("greater_equal", at, -self.depth), a("less", at, self.depth))
        return a("where", inside, rows, 0.0)


def _rows(value: Value, name: str) -> _Rows | None:
    """Of 0 and 1 along the last axis, perhaps in another shape."""
    depth = value.type.shape[-1]
    node: Node | None = value.producer
    while node is not None and isinstance(node.op, Reshape) and node.inputs[0].type.shape[-1:] == (depth,):
        node = node.inputs[0].producer
    if node is None or not isinstance(node.op, OneHot) or node.op.axis != node.output.type.rank - 1 or node.op.depth < 1:
        return None
    indices, values = node.inputs
    if not indices.type.dtype.is_int or values.data is None or not values.is_constant or list(values.data) != [0, 1]:
        return None
    return _Rows(name, indices, value.type.shape[:-1], node.op.depth)
