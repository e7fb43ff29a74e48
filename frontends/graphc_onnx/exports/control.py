"""Control flow: Loop where the number of iterations is used or depends on data, or nothing is scanned; else Scan. If.

What a body captures is visible to a sub-graph of ONNX by its name. ONNX has no limit of iterations: it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from graphc.errors import UnsupportedError
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.patch import topological
from graphc.ops.control import FLAG, SCALAR, If, Loop
from graphc.types.tensor import TensorType
from graphc_onnx.emitter import Emitter, exports, info, write_nodes

Named = tuple[str, TensorType]


@exports("loop")
def export_loop(emitter: Emitter, node: Node, op: Loop) -> None:
    graph = emitter.graph
    counts = bool(node.outputs[-1].users) or node.outputs[-1] in graph.outputs or bool(op.body.inputs[0].users)
    public = {value for name, value in graph.public_outputs.items() if name in graph.trims}
    if op.is_dynamic and not all(y in public and not y.users for y in node.outputs[op.states : -1]):
        hint = "a known number of iterations, or results that are carried"
        raise UnsupportedError("the stacked results of an ONNX Loop are as long as it runs, not padded", hint=hint)
    if op.is_dynamic or counts or not op.x_axes:
        _Loop(emitter, node, op).write()
    else:
        _write_scan(emitter, node, op)


@exports("if")
def export_if(emitter: Emitter, node: Node, op: If) -> None:
    names = iter(emitter.inputs(node)[1:])
    parts = []
    for body in op.bodies():
        inner = emitter.inside()
        outputs = _write_body(inner, body, [next(names) for _ in body.inputs])
        parts.append(_graph(inner, body, [], outputs))
    results = [emitter.names[value] for value in node.outputs]
    emitter.write("If", emitter.inputs(node)[:1], results, then_branch=parts[0], else_branch=parts[1])


def _write_scan(emitter: Emitter, node: Node, op: Loop) -> None:
    names = emitter.inputs(node)
    inner = emitter.inside()
    takes = [(inner.fresh(value.name), value.type) for value in op.body.inputs[1 : 1 + op.first_captured]]
    outputs = _write_body(inner, op.body, ["", *(name for name, _ in takes), *names[op.first_captured :]])
    emitter.write(
        "Scan", names[: op.first_captured], [emitter.names[value] for value in node.outputs[:-1]],
        body=_graph(inner, op.body, takes, outputs), num_scan_inputs=len(op.x_axes), scan_input_axes=list(op.x_axes),
        scan_input_directions=[int(back) for back in op.x_reverse], scan_output_axes=list(op.y_axes) or None,
        scan_output_directions=[int(back) for back in op.y_reverse] or None,
    )  # fmt: skip


class _Loop:
    """Scanned values are read by the number of the iteration; results stacked otherwise than along axis 0 are turned afterwards."""

    def __init__(self, emitter: Emitter, node: Node, op: Loop) -> None:
        self.emitter, self.node, self.op = emitter, node, op
        self.names = emitter.inputs(node)
        self.trips = emitter.dims([op.trips]) if op.trips != -1 else ""

    def write(self) -> None:
        emitter, op = self.emitter, self.op
        inner = emitter.inside()
        number, going, counter = (inner.fresh(f"{self.node.name}/{name}") for name in ("iteration", "going", "counted"))
        states = [(inner.fresh(value.name), value.type) for value in op.body.inputs[1 : 1 + op.states]]
        elements = [self._element(inner, i, number) for i in range(len(op.x_axes))]
        given = [number, *(name for name, _ in states), *elements, *self.names[op.first_captured :]]
        outputs = _write_body(inner, op.body, given)
        if not op.conditional:
            outputs.insert(0, (inner.temp("Identity", going), FLAG))
        outputs.insert(1 + op.states, (inner.temp("Add", counter, inner.constant(np.asarray(1, np.int64))), SCALAR))
        takes = [(number, SCALAR), (going, FLAG), *states, (counter, SCALAR)]
        inputs = [self._count(), self.names[op.counted] if op.conditional else ""]
        inputs += [*self.names[op.first_state : op.first_x], emitter.constant(np.asarray(0, np.int64))]
        *last, iterations = [emitter.names[value] for value in self.node.outputs]
        ys = last[op.states :]
        stacked = [emitter.fresh(f"{name}/stacked") if self._turns(i) else name for i, name in enumerate(ys)]
        emitter.write("Loop", inputs, [*last[: op.states], iterations, *stacked], body=_graph(inner, op.body, takes, outputs))
        for i, (name, found) in enumerate(zip(ys, stacked, strict=True)):
            if self._turns(i):
                self._turn(i, found, name)

    def _count(self) -> str:
        if not self.op.counted:
            return self.trips
        if not self.trips:
            return self.names[0]
        return self.emitter.temp("Min", self.names[0], self.emitter.temp("Squeeze", self.trips))

    def _element(self, inner: Emitter, i: int, number: str) -> str:
        """x at the iteration's place."""
        at = number
        if self.op.x_reverse[i]:
            last = inner.temp("Sub", inner.temp("Squeeze", self.trips), inner.constant(np.asarray(1, np.int64)))
            at = inner.temp("Sub", last, number)
        return inner.temp("Gather", self.names[self.op.first_x + i], at, axis=self.op.x_axes[i])

    def _turns(self, i: int) -> bool:
        return self.op.y_axes[i] != 0 or self.op.y_reverse[i]

    def _turn(self, i: int, found: str, name: str) -> None:
        """From the order of iterations along axis 0 to the direction and axis of a result."""
        emitter, axis, rank = self.emitter, self.op.y_axes[i], self.node.outputs[self.op.states + i].type.rank
        if self.op.y_reverse[i]:
            ends = (emitter.ints([-1]), emitter.ints([np.iinfo(np.int64).min]), emitter.ints([0]), emitter.ints([-1]))
            found = emitter.temp("Slice", found, *ends)
        emitter.write("Transpose", [found], [name], perm=[*range(1, axis + 1), 0, *range(axis + 1, rank)])


def _write_body(inner: Emitter, body: Graph, inputs: Sequence[str]) -> list[Named]:
    """The nodes of a sub-graph, for names of its inputs; its outputs, each of which a node of its own gives."""
    inner.names.update(zip(body.inputs, inputs, strict=True))
    nodes = topological(body)
    for value in body.values.values():
        if value.data is not None:
            inner.names[value] = inner.constant(value.data)
    for value in (value for node in nodes for value in node.outputs):
        inner.names[value] = inner.fresh(value.name)
    write_nodes(inner, body, nodes)
    return [(_own(inner, value), value.type) for value in body.outputs]


def _own(inner: Emitter, value: Value) -> str:
    name = inner.fresh(f"{inner.names[value]}/result")
    inner.write("Identity", [inner.names[value]], [name])
    return name


def _graph(inner: Emitter, body: Graph, takes: Sequence[Named], outputs: Sequence[Named]) -> onnx.GraphProto:
    given, made = ([info(name, type) for name, type in values] for values in (takes, outputs))
    return helper.make_graph(inner.nodes, body.name or "body", given, made, initializer=inner.initializers)
