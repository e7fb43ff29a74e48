"""Loops unrolled while importing: each iteration is imported in its turn, with what the one before has given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from graphc.errors import ModelError, ShapeError
from graphc.ir.graph import Value
from graphc.ops.movement import Concat
from graphc_onnx.context import Context, normal_axis
from graphc_onnx.read import subgraphs
from graphc_onnx.registry import Item
from graphc_onnx.structure import flat
from graphc_onnx.tensors import check_size, dtype_of

_STRUCTURAL = ("Shape", "Size", "SequenceLength", "OptionalHasElement")  # what they give follows from types


class Undecided(Exception):
    """A condition inside a loop is known at run time only, or the loop has become longer than it may."""


@dataclass(frozen=True)
class Source:
    """A scanned input: along `axis`, from the end where `back`."""

    value: Value
    axis: int
    back: bool


def may_decide(context: Context, body: onnx.GraphProto, carried: Sequence[Item]) -> bool:
    """Whether the condition inside a Loop may be known in each iteration: it follows from shapes, constants and known values alone."""
    makers = {name: proto for proto in body.node for name in proto.output if name}
    constants = {tensor.name for tensor in body.initializer} | {sparse.values.name for sparse in body.sparse_initializer}
    states = {info.name: number for number, info in enumerate(body.input[2:])}
    waiting, seen = [body.output[0].name], {info.name for info in body.input[:2]} | constants
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in makers:
            waiting += [] if makers[name].op_type in _STRUCTURAL else _reads(makers[name])
        elif name in states:
            item = carried[states[name]] if states[name] < len(carried) else None
            if item is None or any(context.known(value) is None for value in flat([item])):
                return False
            waiting.append(body.output[1 + states[name]].name)
        elif not context.is_known(name):
            return False
    return True


def _reads(proto: onnx.NodeProto) -> list[str]:
    """The values that a node reads, also in its sub-graphs, of the graph that it is in or around that."""
    found = [name for name in proto.input if name]
    for graph in subgraphs(proto):
        inside = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
        inside |= {name for inner in graph.node for name in inner.output}
        found += [name for inner in graph.node for name in _reads(inner) if name not in inside]
        found += [info.name for info in graph.output if info.name not in inside]
    return found


def unroll(
    context: Context, name: str, body: onnx.GraphProto, carried: Sequence[Item], trips: int | None, going: bool, budget: int | None
) -> list[Item]:
    """The last values of what a Loop carries, and its stacked outputs. `budget`: most nodes; None: as many as it takes.

    Raises Undecided where a condition is not known, or the budget is spent.
    """
    states = list(carried)
    stacks: list[list[Value]] = [[] for _ in body.output[1 + len(states) :]]
    step, yes = 0, context.constant(np.asarray(True))
    while going and (trips is None or step < trips):
        if budget is not None and (step + 1) * len(body.node) > budget:
            raise Undecided
        number = context.constant(np.asarray(step, np.int64), name=f"{name}/{step}")
        made = context.inline(body, dict(zip((info.name for info in body.input), [number, yes, *states], strict=True)), f"{step}/")
        for stack, item in zip(stacks, made[1 + len(states) :], strict=True):
            stack.append(tensor(item))
        states = made[1 : 1 + len(states)]
        flag = context.known(tensor(made[0]))
        if flag is None or flag.dtype == object or flag.size != 1:
            raise Undecided
        going = bool(flag.reshape(-1)[0])
        step += 1
    infos = body.output[1 + len(states) :]
    return [*states, *(stacked(context, stack, 0, info) for stack, info in zip(stacks, infos, strict=True))]


def unroll_scan(
    context: Context, body: onnx.GraphProto, carried: list[Item], sources: list[Source], label: str = ""
) -> tuple[list[Item], list[list[Value]]]:
    """The final state and, for each scan output, its elements in order of the iterations."""
    lengths = {source.value.type.shape[source.axis] for source in sources}
    if len(lengths) != 1:
        raise ShapeError(f"the scanned axes have different sizes {sorted(map(str, lengths))}")
    length, states = lengths.pop().__index__(), len(carried)
    stacks: list[list[Value]] = [[] for _ in body.output[states:]]
    for step in range(length):
        elements = [element(context, s.value, s.axis, length - 1 - step if s.back else step) for s in sources]
        made = context.inline(body, dict(zip((info.name for info in body.input), [*carried, *elements], strict=True)), f"{label}{step}/")
        carried = made[:states]
        for stack, item in zip(stacks, made[states:], strict=True):
            stack.append(tensor(item))
    return carried, stacks


def tensor(item: Item) -> Value:
    """What must be a tensor."""
    if not isinstance(item, Value):
        raise ModelError("the body of a loop must give tensors here")
    return item


def element(context: Context, value: Value, axis: int, at: int) -> Value:
    """One element of an axis, without the axis."""
    return context.squeeze(context.slice_axis(value, axis, at, 1), [axis])


def stacked(context: Context, parts: list[Value], axis: int, info: onnx.ValueInfoProto) -> Value:
    """The parts along a new axis. No part at all: an empty tensor of the declared type."""
    if parts:
        at = normal_axis(axis, parts[0].type.rank + 1)
        rows = [context.unsqueeze(part, [at]) for part in parts]
        return context.add(Concat(at), *rows)
    declared = info.type.tensor_type
    found = dtype_of(declared.elem_type, f"output {info.name!r}")
    shape = [dim.dim_value for dim in declared.shape.dim]
    if not declared.HasField("shape") or not all(dim.HasField("dim_value") for dim in declared.shape.dim):
        raise ShapeError(f"{info.name!r} of a loop without iterations has no declared shape")
    shape.insert(normal_axis(axis, len(shape) + 1), 0)
    check_size(tuple(shape), found, info.name)
    return context.constant(np.zeros(shape, found.numpy))
