"""Control flow, decided while importing: the branch of If that is taken, Loop and Scan unrolled.

Conditions and trip counts must be known (constants, shapes, or graph inputs bound by `values`); GRAPHC_MAX_NODES limits what a loop may
become.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.movement import Concat
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.node import OnnxNode
from graphc_onnx.registry import Item, onnx_op
from graphc_onnx.tensors import check_size, dtype_of


@onnx_op("If")
def if_(context: Context, node: OnnxNode) -> list[Item]:
    chosen = _decided(context, node.input(0), "the condition of If")
    taken, other = ("then_branch", "else_branch") if chosen else ("else_branch", "then_branch")
    node.graph(other)
    return context.inline(node.graph(taken), {})


def _decided(context: Context, value: Value, what: str) -> bool:
    array = context.array(value, what)
    if array.size != 1:
        raise ModelError(f"{what} must be one element, got {value.type}")
    return bool(array.reshape(-1)[0])


@onnx_op("Loop")
def loop(context: Context, node: OnnxNode) -> list[Item]:
    """Iterations until the trip count is reached or the condition is false; scan outputs are stacked along a new first axis."""
    body = node.graph("body")
    count, condition = node.optional(0), node.optional(1)
    trips = int(context.array(count, "the trip count of Loop").reshape(-1)[0]) if count is not None else None
    going = _decided(context, condition, "the condition of Loop") if condition is not None else True
    carried = list(node.items[2:])
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise ModelError("the body of Loop does not fit the carried values")
    stacks: list[list[Value]] = [[] for _ in body.output[1 + len(carried) :]]
    step, yes = 0, context.constant(np.asarray(True))
    while going and (trips is None or step < trips):
        number = context.constant(np.asarray(step, np.int64), name=f"{node.name}/{step}")
        given = [number, yes, *carried]
        made = context.inline(body, dict(zip((info.name for info in body.input), given, strict=True)), f"{step}/")
        for stack, item in zip(stacks, made[1 + len(carried) :], strict=True):
            stack.append(_tensor(item))
        carried = made[1 : 1 + len(carried)]
        going = _decided(context, _tensor(made[0]), "the condition inside Loop")
        step += 1
    infos = body.output[1 + len(carried) :]
    return [*carried, *(_stacked(context, stack, 0, info) for stack, info in zip(stacks, infos, strict=True))]


@onnx_op("Scan", since=9)
def scan(context: Context, node: OnnxNode) -> list[Item]:
    """One iteration per element of the scanned axes."""
    scanned = node.integer("num_scan_inputs")
    states = len(node.items) - scanned
    body, outputs = _scan_body(node, len(node.items), states)
    axes, back = node.ints("scan_input_axes", [0] * scanned), node.ints("scan_input_directions", [0] * scanned)
    axes_out, back_out = node.ints("scan_output_axes", [0] * outputs), node.ints("scan_output_directions", [0] * outputs)
    if not len(axes) == len(back) == scanned or not len(axes_out) == len(back_out) == outputs:
        raise ModelError("axes and directions of Scan do not fit its inputs and outputs")
    sources = [_Source(x, normal_axis(axis, x.type.rank), bool(b)) for x, axis, b in zip(node.inputs[states:], axes, back, strict=True)]
    carried, stacks = _scanned(context, body, list(node.inputs[:states]), sources)
    rows = zip(stacks, axes_out, back_out, body.output[states:], strict=True)
    return [*carried, *(_stacked(context, stack[::-1] if back else stack, axis, info) for stack, axis, back, info in rows)]


@onnx_op("Scan", until=8)
def scan_8(context: Context, node: OnnxNode) -> list[Item]:
    """Axis 0 of everything is the batch, axis 1 is scanned; each element of the batch on its own."""
    if node.optional(0) is not None:
        raise node.unsupported("Scan-8 with sequence_lens", hint="export with opset 9 or newer")
    inputs = [node.input(i) for i in range(1, len(node.items))]
    scanned = node.integer("num_scan_inputs")
    states = len(inputs) - scanned
    body, _ = _scan_body(node, len(inputs), states)
    back = node.ints("directions", [0] * scanned)
    if len(back) != scanned:
        raise ModelError("the directions of Scan do not fit its inputs")
    results: list[list[Value]] = [[] for _ in body.output]
    for n in range(inputs[0].type.shape[0].__index__() if inputs else 0):
        rows = [_element(context, value, 0, n) for value in inputs]
        sources = [_Source(x, 0, bool(b)) for x, b in zip(rows[states:], back, strict=True)]
        carried, stacks = _scanned(context, body, list(rows[:states]), sources, f"{n}/")
        stacked = [_stacked(context, stack, 0, info) for stack, info in zip(stacks, body.output[states:], strict=True)]
        for result, item in zip(results, [*map(_tensor, carried), *stacked], strict=True):
            result.append(item)
    return [_stacked(context, result, 0, info) for result, info in zip(results, body.output, strict=True)]


@dataclass(frozen=True)
class _Source:
    """A scanned input: along `axis`, from the end where `back`."""

    value: Value
    axis: int
    back: bool


def _scan_body(node: OnnxNode, inputs: int, states: int) -> tuple[onnx.GraphProto, int]:
    """The body and its number of scan outputs."""
    body = node.graph("body")
    if not 0 <= states < inputs or len(body.input) != inputs or len(body.output) < states:
        raise ModelError("the body of Scan does not fit its inputs")
    return body, len(body.output) - states


def _scanned(
    context: Context, body: onnx.GraphProto, carried: list[Item], sources: list[_Source], label: str = ""
) -> tuple[list[Item], list[list[Value]]]:
    """The final state and, for each scan output, its elements in order of the iterations."""
    lengths = {source.value.type.shape[source.axis] for source in sources}
    if len(lengths) != 1:
        raise ShapeError(f"the scanned axes have different sizes {sorted(map(str, lengths))}")
    length, states = lengths.pop().__index__(), len(carried)
    stacks: list[list[Value]] = [[] for _ in body.output[states:]]
    for step in range(length):
        elements = [_element(context, s.value, s.axis, length - 1 - step if s.back else step) for s in sources]
        made = context.inline(body, dict(zip((info.name for info in body.input), [*carried, *elements], strict=True)), f"{label}{step}/")
        carried = made[:states]
        for stack, item in zip(stacks, made[states:], strict=True):
            stack.append(_tensor(item))
    return carried, stacks


def _tensor(item: Item) -> Value:
    if not isinstance(item, Value):
        raise ModelError("the body of a loop must give tensors here")
    return item


def _element(context: Context, value: Value, axis: int, at: int) -> Value:
    return context.squeeze(context.slice_axis(value, axis, at, 1), [axis])


def _stacked(context: Context, parts: list[Value], axis: int, info: onnx.ValueInfoProto) -> Value:
    """The parts along a new axis. No part at all: an empty tensor of the declared type."""
    if parts:
        at = normal_axis(axis, parts[0].type.rank + 1)
        rows = [context.unsqueeze(part, [at]) for part in parts]
        return context.add(Concat(at), *rows)
    tensor = info.type.tensor_type
    found = dtype_of(tensor.elem_type, f"output {info.name!r}")
    shape = [dim.dim_value for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise ShapeError(f"{info.name!r} of a loop without iterations has no declared shape")
    shape.insert(normal_axis(axis, len(shape) + 1), 0)
    check_size(tuple(shape), found, info.name)
    return context.constant(np.zeros(shape, found.numpy))
