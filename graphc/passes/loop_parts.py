"""A loop taken apart, changed and put together again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.control import Loop


@dataclass(eq=False)
class State:
    """`initial` and `result` outside, `old` and `new` inside."""

    initial: Value
    old: Value
    new: Value
    result: Value


@dataclass(eq=False)
class Scanned:
    """An x: `outer` along axis 0, from the end where `reverse`; `inner`: an element."""

    outer: Value
    inner: Value
    reverse: bool


@dataclass(eq=False)
class Stacked:
    """A y. `result`: what it replaces outside, None where that is `made` anew when the loop is put together."""

    inner: Value
    reverse: bool
    result: Value | None = None
    made: Value | None = None


class LoopParts:
    """Of a loop over first axes whose number of iterations is known. `captured`: inside -> outside."""

    def __init__(self, patch: Patch, node: Node) -> None:
        op = node.op
        assert isinstance(op, Loop)
        self.patch, self.node, self.trips = patch, node, op.trips
        self.body: Graph = op.body
        self.number, *inputs = op.body.inputs
        outer, results = node.inputs, op.body.outputs
        self.states = [State(*parts) for parts in zip(outer, inputs[: op.states], results, node.outputs, strict=False)]
        elements = zip(outer[op.states :], inputs[op.states : op.first_captured], op.x_reverse, strict=False)
        self.xs = [Scanned(x, inner, back) for x, inner, back in elements]
        stacked = zip(results[op.states :], op.y_reverse, node.outputs[op.states :], strict=False)
        self.ys = [Stacked(inner, back, result) for inner, back, result in stacked]
        self.captured = dict(zip(inputs[op.first_captured :], outer[op.first_captured :], strict=True))

    @staticmethod
    def fits(node: Node) -> bool:
        op = node.op
        return isinstance(op, Loop) and not op.is_dynamic and not any((*op.x_axes, *op.y_axes))

    def element(self, outer: Value, name: str, reverse: bool) -> Value:
        """A further scanned value; what stands for its elements in the body."""
        type = outer.type.with_shape(outer.type.shape[1:])
        inner = self.body.add_value(self.body.fresh_name(name), type, Kind.INPUT)
        self.xs.append(Scanned(outer, inner, reverse))
        return inner

    def finish(self) -> None:
        """The loop again, in place of the node; what it made anew is known then."""
        body, ys = self.body, self.ys
        body.outputs = [*(state.new for state in self.states), *(y.inner for y in ys)]
        body.output_names = [f"out{i}" for i in range(len(body.outputs))]
        Patch(body, self.patch.pass_name).commit()
        self.xs = [x for x in self.xs if _is_read(x.inner, body)]
        self.captured = {inner: outer for inner, outer in self.captured.items() if _is_read(inner, body)}
        kept = [self.number, *(s.old for s in self.states), *(x.inner for x in self.xs), *self.captured]
        for value in body.inputs:
            if value not in kept:
                del body.values[value.name]
        body.inputs = kept
        op = Loop(
            body, len(self.states), (0,) * len(self.xs), tuple(x.reverse for x in self.xs), (0,) * len(ys), tuple(y.reverse for y in ys),
            self.trips,
        )  # fmt: skip
        given = [*(s.initial for s in self.states), *(x.outer for x in self.xs), *self.captured.values()]
        builder, node = self.patch.builder, self.node
        with builder.at(node.source, node.origins):
            made = builder.add_many(op, *given, name=node.name)
        for state, value in zip(self.states, made, strict=False):
            self.patch.replace(state.result, value)
        for y, value in zip(ys, made[len(self.states) :], strict=False):
            y.made = value
            if y.result is not None:
                self.patch.replace(y.result, value)
        self.patch.replace(node.outputs[-1], made[-1])


def _is_read(value: Value, graph: Graph) -> bool:
    return bool(value.users) or value in graph.outputs


def behind(values: Iterable[Value]) -> set[Value]:
    """Everything that the values are computed from, and they themselves."""
    seen: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack += value.producer.inputs if value.producer is not None else []
    return seen
