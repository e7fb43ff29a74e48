"""hoist-products: products of each step of a loop that do not wait for the step before become one product of all steps.

* x[t] w with w the same in all steps: x w before the loop, whose rows are scanned instead of x.
* y[t] = g w, which nothing else reads: g is stacked, and y = g w after the loop.
* s = s + a' g, which nothing else reads (the gradient of a weight): a and g are stacked, and s = s + a' g over all rows of all steps after
  the loop; the same for s = s + the sum of the rows of g (the gradient of a bias). This adds in another order: not where the accuracy is
  "exact".

Each step's own product has a few rows, and reads, or reads and writes, a whole matrix for them. Where a step's product must stay, a matrix
that it reads by columns, and that is no constant to be packed, is turned once before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.compose import reshape, transpose
from graphc.ops.express import is_zero
from graphc.ops.matmul import MatMul
from graphc.ops.movement import Reshape
from graphc.ops.pointwise import op
from graphc.ops.reduce import Reduce
from graphc.passes.base import Context
from graphc.passes.loop_parts import LoopParts, Scanned, Stacked, State
from graphc.types.dtype import f32, f64

Rest = Callable[[Builder], None]  # what is built behind the loop


def run(graph: Graph, context: Context) -> int:
    patch = Patch(graph, "hoist-products")
    count, constants = 0, dict[int, Value]()
    for node in [node for node in reversed(graph.nodes) if LoopParts.fits(node)]:
        count += _Hoist(patch, node, constants, context.accuracy != "exact").run()
        patch.commit()
    return count


class _Hoist:
    """`constants`: those outside that stand for constants of bodies, by the ids of their data."""

    def __init__(self, patch: Patch, node: Node, constants: dict[int, Value], reorder: bool) -> None:
        self.patch, self.constants, self.reorder = patch, constants, reorder
        self.parts = LoopParts(patch, node)
        self.inner = Patch(self.parts.body, patch.pass_name)
        self.scanned = {x.inner: x for x in self.parts.xs}
        self.made: dict[Value, Scanned] = {}  # of them, what has come before the loop
        self.turned: dict[Value, Value] = {}  # captured matrix -> the same turned, inside
        self.rest: list[Rest] = []

    def run(self) -> int:
        """The number of products that left the loop, or whose matrix is turned before it."""
        parts = self.parts
        with self.patch.builder.at(parts.node.source, parts.node.origins):
            count = sum(self._before(node) for node in list(parts.body.nodes))
            count += sum(self._stacked_behind(y) for y in list(parts.ys))
            count += sum(self._turned(node) for node in list(parts.body.nodes))
            count += sum(self._summed_behind(state) for state in list(parts.states)) if self.reorder else 0
            if count:
                parts.finish()
                for build in self.rest:
                    build(self.patch.builder)
        return count

    # before the loop ------------------------------------------------------------------------------------------------------------

    def _before(self, node: Node) -> bool:
        """A product of an element and what is the same in all steps; then a bias that is added to it."""
        builder = self.patch.builder
        if _is_product(node) and node.inputs[0] in self.scanned and not node.op.attributes()["trans_a"]:
            x, weight = self.scanned[node.inputs[0]], self._outside(node.inputs[1])
            if weight is not None:
                with builder.at(node.source, node.origins):
                    self._replace(node, _for_all_steps(builder, node, x.outer, weight), x.reverse)
                return True
        elif node.op.name == "add":
            found = next((self.made[value] for value in node.inputs if value in self.made and self._is_only(value, 1)), None)
            bias = None if found is None else self._outside(node.inputs[node.inputs[0] is found.inner])
            if found is not None and bias is not None and node.output.type == found.inner.type:
                with builder.at(node.source, node.origins):
                    self._replace(node, builder.add(op("add"), found.outer, bias, name=node.name), found.reverse)
        return False

    def _replace(self, node: Node, outer: Value, reverse: bool) -> None:
        """The node's result is scanned."""
        element = self.parts.element(outer, f"{node.output.name}:all", reverse)
        self.scanned[element] = self.made[element] = self.parts.xs[-1]
        self._renew(node.output, element)

    def _renew(self, old: Value, new: Value) -> None:
        """Every use of a value of the body."""
        self.inner.replace(old, new)
        for state in self.parts.states:
            state.new = new if state.new is old else state.new
        for y in self.parts.ys:
            y.inner = new if y.inner is old else y.inner

    def _outside(self, value: Value) -> Value | None:
        """What is the same in all steps, outside of the loop."""
        if value in self.parts.captured:
            return self.parts.captured[value]
        if not value.is_constant or value.data is None:
            return None
        if id(value.data) not in self.constants:
            self.constants[id(value.data)] = self.patch.builder.constant(value.data, name=value.name)
        return self.constants[id(value.data)]

    def _turned(self, node: Node) -> bool:
        weight = node.inputs[1] if _is_product(node) and node.op.attributes()["trans_b"] and node.output.users else None
        if weight not in self.parts.captured or weight is None:
            return False
        if weight not in self.turned:
            outer = transpose(self.patch.builder, self.parts.captured[weight], (1, 0))
            inner = self.parts.body.add_value(self.parts.body.fresh_name(f"{weight.name}:turned"), outer.type, Kind.INPUT)
            self.parts.captured[inner], self.turned[weight] = outer, inner
        product = self.inner.add(MatMul(bool(node.op.attributes()["trans_a"])), node.inputs[0], self.turned[weight], like=node)
        self._renew(node.output, product)
        return True

    # behind the loop ------------------------------------------------------------------------------------------------------------

    def _stacked_behind(self, y: Stacked) -> bool:
        node = y.inner.producer
        if node is None or not _is_product(node) or node.op.attributes()["trans_a"] or not self._is_only(y.inner, 0):
            return False
        weight = self._outside(node.inputs[1])
        result = y.result
        if weight is None or result is None:
            return False
        rows = self._rows(node.inputs[0], y.reverse)
        self.parts.ys.remove(y)
        self.rest.append(_of(node, lambda builder: self.patch.replace(result, _for_all_steps(builder, node, rows(), weight))))
        return True

    def _summed_behind(self, state: State) -> bool:
        """A state that is only added to."""
        added = state.new.producer
        if added is None or added.op.name != "add" or state.old not in added.inputs or not self._is_only(state.new, 0):
            return False
        term = added.inputs[1] if added.inputs[0] is state.old else added.inputs[0]
        if term is state.old or not self._is_only(state.old, 1) or not self._is_only(term, 1):
            return False
        found = self._product_of_rows(term) or self._sum_of_rows(term)
        if found is None:
            return False
        self.parts.states.remove(state)
        self.rest.append(_of(added, partial(self._add_up, state, found)))
        return True

    def _add_up(self, state: State, total: Callable[[Builder], Value], builder: Builder) -> None:
        found = total(builder)
        self.patch.replace(state.result, found if is_zero(state.initial) else builder.add(op("add"), state.initial, found))

    def _product_of_rows(self, term: Value) -> Callable[[Builder], Value] | None:
        node = term.producer
        if node is None or not _is_product(node) or node.op != MatMul(trans_a=True) or node.inputs[0] is node.inputs[1]:
            return None
        a, b = (self._rows(value, self._direction(node.inputs)) for value in node.inputs)
        return lambda builder: builder.add(MatMul(trans_a=True), _flat(builder, a()), _flat(builder, b()), name=node.name)

    def _sum_of_rows(self, term: Value) -> Callable[[Builder], Value] | None:
        node = term.producer
        if node is not None and isinstance(node.op, Reshape) and self._is_only(node.inputs[0], 1):
            node = node.inputs[0].producer
        if node is None or not isinstance(node.op, Reduce) or node.op.fn != "sum" or node.op.axes != (0,):
            return None
        source, shape = node.inputs[0], term.type.shape
        if source.type.rank != 2 or source.type.shape[1:] != shape[-1:] or term.type.size != shape[-1]:
            return None
        rows = self._rows(source, self._direction([source]))
        return lambda builder: reshape(builder, builder.add(Reduce("sum", (0, 1), False), rows()), shape)

    def _direction(self, values: Iterable[Value]) -> bool:
        """In which one of the values lies anyway: from the end or not."""
        parts: list[Scanned | Stacked] = [*self.parts.xs, *self.parts.ys]
        return next((part.reverse for value in values for part in parts if part.inner is value), False)

    def _rows(self, value: Value, reverse: bool) -> Callable[[], Value]:
        """All steps of a value of the body: what it scans, or one more stacked value, known when the loop is put together."""
        if value in self.scanned and self.scanned[value].reverse == reverse:
            outer = self.scanned[value].outer
            return lambda: outer
        found = next((y for y in self.parts.ys if y.inner is value and y.reverse == reverse), None)
        y = found or Stacked(value, reverse)
        if found is None:
            self.parts.ys.append(y)

        def made() -> Value:
            assert y.made is not None
            return y.made

        return made

    def _is_only(self, value: Value, uses: int) -> bool:
        """Whether a value of the body has so many uses there, and beside them at most the one result that is looked at."""
        results: Iterable[Value] = [*(state.new for state in self.parts.states), *(y.inner for y in self.parts.ys)]
        return sum(value.users.values()) == uses and sum(result is value for result in results) == 1 - uses


def _of(node: Node, build: Rest) -> Rest:
    """What is built stands for the nodes that the node of the body stood for."""

    def built(builder: Builder) -> None:
        with builder.at(node.source, node.origins):
            build(builder)

    return built


def _is_product(node: Node) -> bool:
    """Of two matrices."""
    return isinstance(node.op, MatMul) and all(v.type.rank == 2 and v.type.dtype in (f32, f64) for v in node.inputs)


def _for_all_steps(builder: Builder, node: Node, rows: Value, weight: Value) -> Value:
    """The product of `node`, of (T, N, K) by a matrix: (T, N, M)."""
    flat = builder.add(node.op, _flat(builder, rows), weight, name=node.name)
    return reshape(builder, flat, (*rows.type.shape[:2], flat.type.shape[1]))


def _flat(builder: Builder, rows: Value) -> Value:
    """(T, N, K) as (T * N, K)."""
    steps, count, width = rows.type.shape
    return reshape(builder, rows, (steps * count, width))
