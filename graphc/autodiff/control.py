"""Gradients of control flow: the gradient of a loop is a loop, from the last iteration to the first; of a choice, a choice.

The forward loop saves the states before each iteration, and the results of products and convolutions, as far as they are needed; the
backward body computes the rest of its iteration again, then the vector-Jacobian product of the body. Gradients of the states are carried;
those of captured values are summed up as states; those of scanned values are stacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from graphc.autodiff.reverse import differentiate
from graphc.errors import UnsupportedError
from graphc.ir.body import inline
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Kind, Node, Value
from graphc.ir.patch import Patch
from graphc.ops.control import If, Loop
from graphc.ops.movement import Expand
from graphc.ops.pointwise import op
from graphc.types.dtype import i64
from graphc.types.tensor import TensorType


def loop_gradient(builder: Builder, node: Node, grads: Sequence[Value]) -> list[Value | None]:
    """Of each input. Raises UnsupportedError for a loop whose number of iterations is not known before it runs."""
    forward = node.op
    assert isinstance(forward, Loop)
    if forward.is_dynamic:
        reason = "how often the loop runs is known only when it has run, and nothing is kept of so many iterations"
        raise UnsupportedError(f"loop has no gradient: {reason}", where=node.where, hint="a known number of iterations, graphc.scan")
    return _Backward(builder, node, forward, grads).build()


class _Backward:
    """The backward body under construction; `inputs`: what the backward loop takes for each of the body's inputs, by role."""

    def __init__(self, builder: Builder, node: Node, forward: Loop, grads: Sequence[Value]) -> None:
        self.outer, self.node, self.forward, self.grads = builder, node, forward, grads
        self.body = Builder(Graph(f"{forward.body.name}:grad"))
        self.body.source, self.body.origins = node.source, node.origins
        inside = forward.body.inputs[1:]
        self.states, self.elements = inside[: forward.states], inside[forward.states : forward.states + len(forward.x_axes)]
        self.captured = inside[forward.states + len(forward.x_axes) :]
        self.outer_captured = node.inputs[forward.first_captured :]
        self.products: list[tuple[Value, Value]] = []  # inner, value of the forward body that it is in the same iteration

    def build(self) -> list[Value | None]:
        forward, body = self.forward, self.body
        number = self._input("iteration", TensorType(i64, ()))
        carried = [self._like(state, "d") if state.type.dtype.is_float else None for state in self.states]
        sums = [self._like(value, "sum") if value.type.dtype.is_float else None for value in self.captured]
        saved, elements = [self._like(state) for state in self.states], [self._like(element) for element in self.elements]
        results = forward.body.outputs[forward.states :]
        d_ys = [self._like(y, "d") if y.type.dtype.is_float else None for y in results]
        captured, run = [self._like(value) for value in self.captured], self._input("iterations", TensorType(i64, ()))
        last = body.add(op("sub"), run, body.constant(1, i64, "one"))
        forward_number = body.add(op("sub"), last, number)
        products = _products(forward.body)
        both = inline(body, forward.body, [forward_number, *saved, *elements, *captured], products)
        made, again = both[: len(forward.body.outputs)], both[len(forward.body.outputs) :]
        seeds = _seeds(body, made, [*carried, *d_ys])
        floats = [value for value in (*saved, *elements, *captured) if value.type.dtype.is_float]
        found = differentiate(body.graph, seeds, floats)
        d_states = [found[value] or _zeros(body, value) if value in found else None for value in saved]
        d_elements = [found.get(value) for value in elements]
        added = [body.add(op("add"), total, g) if total and (g := found.get(v)) else None for total, v in zip(sums, captured, strict=True)]
        outputs = [value for value in (*d_states, *added, *d_elements) if value is not None]
        body.graph.output_names, body.graph.outputs = [f"d{i}" for i in range(len(outputs))], outputs
        Patch(body.graph, "differentiate").commit()
        self._instead_of(products, again)
        for total, new in zip(sums, added, strict=True):
            if total is not None and new is None:
                self._drop(total)
        return self._loop(carried, sums, saved, elements, d_ys, captured, run, d_elements)

    def _instead_of(self, products: Sequence[Value], again: Sequence[Value]) -> None:
        """What the backward body would compute again of the products, and needs, it takes from the forward loop."""
        patch = Patch(self.body.graph, "differentiate")
        for value, made in zip(products, again, strict=True):
            if self.body.graph.values.get(made.name) is made and made.users:
                self.products.append((self._like(value), value))
                patch.replace(made, self.products[-1][0])
        patch.commit()

    def _loop(
        self, carried: Sequence[Value | None], sums: Sequence[Value | None], saved: Sequence[Value], elements: Sequence[Value],
        d_ys: Sequence[Value | None], captured: Sequence[Value], run: Value, d_elements: Sequence[Value | None],
    ) -> list[Value | None]:  # fmt: skip
        """The backward loop, over what its body turned out to need; the gradient of each of the forward loop's inputs."""
        forward, node, outer = self.forward, self.node, self.outer
        kept = [total for total in sums if total in self.body.graph.inputs]
        inits = [grad for grad, d in zip(self.grads, carried, strict=False) if d is not None]
        inits += [_zeros(outer, value) for value in kept if value is not None]
        rows: list[tuple[Value, Value, int, bool]] = []  # inner, outer, axis, from the end
        for state, inner in zip(self.states, saved, strict=True):
            if self._is_read(inner):
                rows.append((inner, self._saved(state), 0, True))
        rows += [(inner, self._saved(value), 0, True) for inner, value in self.products if self._is_read(inner)]
        xs = zip(elements, node.inputs[forward.first_x :], forward.x_axes, forward.x_reverse, strict=False)
        rows += [(inner, x, axis, not back) for inner, x, axis, back in xs if self._is_read(inner)]
        ys = zip(d_ys, self.grads[forward.states :], forward.y_axes, forward.y_reverse, strict=False)
        rows += [(inner, grad, axis, not back) for inner, grad, axis, back in ys if inner is not None and self._is_read(inner)]
        others = [(inner, value) for inner, value in zip(captured, self.outer_captured, strict=True) if self._is_read(inner)]
        others += [(run, node.outputs[-1])] if self._is_read(run) else []
        body = self.body.graph
        number, first = body.inputs[0], [value for value in carried if value is not None]
        body.inputs = [number, *first, *(v for v in kept if v is not None), *(row[0] for row in rows), *(inner for inner, _ in others)]
        body.values = {**{v.name: v for v in body.inputs}, **{n: v for n, v in body.values.items() if v.kind is not Kind.INPUT}}
        given = [d is not None for d in d_elements]
        axes = tuple(axis for axis, some in zip(forward.x_axes, given, strict=True) if some)
        back = tuple(not b for b, some in zip(forward.x_reverse, given, strict=True) if some)
        made = outer.add_many(
            Loop(
                body, len(inits), tuple(row[2] for row in rows), tuple(row[3] for row in rows), axes, back, forward.trips
            ), *inits, *(row[1] for row in rows), *(value for _, value in others),
        )  # fmt: skip
        results = iter(made)
        d_states = [next(results) if d is not None else None for d in carried]
        d_captured = [next(results) if total in kept and total is not None else None for total in sums]
        return [*d_states, *(next(results) if d is not None else None for d in d_elements), *d_captured]

    def _saved(self, inside: Value) -> Value:
        """A further result of the forward loop: a value of its body in each iteration; a state: before it."""
        forward, graph = self.node.op, self.outer.graph
        assert isinstance(forward, Loop)
        forward.body.outputs.append(inside)
        forward.body.output_names.append(f"{inside.name}:saved{len(forward.body.outputs)}")
        self.node.op = replace(forward, y_axes=(*forward.y_axes, 0), y_reverse=(*forward.y_reverse, False))
        name = graph.fresh_name(f"{self.node.name}:{inside.name}")
        value = graph.add_value(name, inside.type.with_shape((forward.trips, *inside.type.shape)), Kind.RESULT)
        value.producer = self.node
        self.node.outputs.insert(len(self.node.outputs) - 1, value)
        return value

    def _is_read(self, value: Value) -> bool:
        return bool(value.users) or value in self.body.graph.outputs

    def _like(self, value: Value, prefix: str = "") -> Value:
        return self._input(f"{prefix}.{value.name}" if prefix else value.name, value.type)

    def _input(self, name: str, type: TensorType) -> Value:
        return self.body.input(self.body.graph.fresh_name(name), type.dtype, type.shape)

    def _drop(self, value: Value) -> None:
        self.body.graph.inputs.remove(value)
        del self.body.graph.values[value.name]


def _products(body: Graph) -> list[Value]:
    """The results of products and convolutions, with what is added to them."""
    found: dict[Value, None] = {}
    for node in body.nodes:
        if node.op.family in ("contract", "conv") and node.output.type.dtype.is_float:
            value = node.output
            while value not in body.outputs and (after := _sum_of(value)) is not None:
                value = after
            found[value] = None
    return list(found)


def _sum_of(value: Value) -> Value | None:
    """The sum of its size that is the only one to read the value."""
    user = next(iter(value.users), None)
    alone = user is not None and len(value.users) == 1 and user.op.name in ("add", "sub")
    return user.output if user is not None and alone and user.output.type == value.type else None


def choice_gradient(builder: Builder, node: Node, grads: Sequence[Value]) -> list[Value | None]:
    """Of each input: each branch gives the gradients of what it captures, and zeros for what the other one does."""
    forward = node.op
    assert isinstance(forward, If)
    captured = iter(node.inputs[1:])
    outer = [[next(captured) for _ in body.inputs] for body in forward.bodies()]
    wanted = [value for values in outer for value in values if value.type.dtype.is_float]
    d_outputs = [grad for grad, value in zip(grads, node.outputs, strict=True) if value.type.dtype.is_float]
    made = []
    for number, (body, values) in enumerate(zip(forward.bodies(), outer, strict=True)):
        before = sum(value.type.dtype.is_float for earlier in outer[:number] for value in earlier)
        made.append(_branch(node, body, [value.type for value in values], wanted, before))
    found = iter(builder.add_many(If(made[0], made[1]), node.inputs[0], *outer[0], *d_outputs, *outer[1], *d_outputs))
    return [None, *(next(found) if value.type.dtype.is_float else None for values in outer for value in values)]


def _branch(node: Node, body: Graph, types: Sequence[TensorType], wanted: Sequence[Value], before: int) -> Graph:
    """Gradients of `wanted`, of which the branch captures its floats from number `before` on."""
    made = Builder(Graph(f"{body.name}:grad"))
    made.source, made.origins = node.source, node.origins
    captured = [made.input(made.graph.fresh_name(value.name), t.dtype, t.shape) for value, t in zip(body.inputs, types, strict=True)]
    floats = [value for value in body.outputs if value.type.dtype.is_float]
    grads = [made.input(made.graph.fresh_name(f"d.{value.name}"), value.type.dtype, value.type.shape) for value in floats]
    results = inline(made, body, captured)
    d_results = iter(grads)
    seeds = _seeds(made, results, [next(d_results) if value.type.dtype.is_float else None for value in body.outputs])
    own = [value for value in captured if value.type.dtype.is_float]
    found = differentiate(made.graph, seeds, own)
    outputs = [
        (found[own[i - before]] if before <= i < before + len(own) else None) or _zeros(made, value) for i, value in enumerate(wanted)
    ]
    made.graph.output_names, made.graph.outputs = [f"d{i}" for i in range(len(outputs))], outputs
    Patch(made.graph, "differentiate").commit()
    return made.graph


def _seeds(builder: Builder, values: Iterable[Value], grads: Iterable[Value | None]) -> Mapping[Value, Value]:
    """The gradient that flows into each value: the sum, where a value is given twice."""
    found: dict[Value, Value] = {}
    for value, grad in zip(values, grads, strict=True):
        if grad is not None:
            found[value] = builder.add(op("add"), found[value], grad) if value in found else grad
    return found


def _zeros(builder: Builder, like: Value) -> Value:
    zero = builder.constant(np.zeros((), like.type.dtype.numpy), name="zero")
    return builder.add(Expand(tuple(like.type.shape)), zero) if like.type.rank else zero
