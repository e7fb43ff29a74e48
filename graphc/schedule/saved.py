"""Plans and signatures as JSON data, to be kept between processes: all that running, the ledger and the plan's text need.

Left out are what a back end keeps in its own way: data of weights, and kernels beyond their family and text. Reading raises ValueError,
KeyError or TypeError for what was not written by this version (`VERSION`); refs and numbers are checked to lie inside the plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Kind
from graphc.ir.parts import Parts, names_in
from graphc.kernel.cost import Cost
from graphc.kernel.saved import SavedKernel
from graphc.schedule.plan import AGAIN, ENTER, LEAVE, Control, Plan, Ref, Step, Weight
from graphc.target import Target
from graphc.types.dtype import dtype
from graphc.types.shape import parse_dim
from graphc.types.tensor import TensorType

VERSION = 4
_SPACES = ("arena", "weight", "input", "output", "scratch", "pool")
_NUMBERS = tuple(field.name for field in fields(Plan) if field.type == "int")
_NO_DATA = np.zeros(0, np.uint8)


def signature_data(graph: Graph) -> dict[str, Any]:
    """Name, inputs and outputs, and what a caller makes of them."""
    outputs = zip(graph.output_names, graph.outputs, strict=True)
    return {
        "version": VERSION, "name": graph.name, "inputs": [_value(value.name, value.type) for value in graph.inputs],
        "outputs": [_value(name, value.type) for name, value in outputs], "trims": graph.trims,
        "takes": graph.takes, "gives": graph.gives,
    }  # fmt: skip


def signature_graph(data: dict[str, Any]) -> Graph:
    """A graph of inputs and outputs without nodes."""
    _check_version(data)
    graph = Graph(_text(data["name"]))
    for name, type in map(_named_type, data["inputs"]):
        graph.add_value(name, type, Kind.INPUT)
    outputs = map(_named_type, data["outputs"])
    graph.set_outputs({name: graph.add_value(graph.fresh_name(name), type, Kind.RESULT) for name, type in outputs})
    graph.trims = {_text(name): (_size(axis), _text(length)) for name, (axis, length) in data["trims"].items()}
    if any(name not in graph.output_names or length not in graph.output_names for name, (_, length) in graph.trims.items()):
        raise ValueError("trims")
    graph.takes, graph.gives = _parts(data["takes"], graph.values), _parts(data["gives"], graph.output_names)
    return graph


def _parts(rows: dict[str, Any], tensors: Iterable[str]) -> dict[str, Parts]:
    found = {_text(name): tuple(map(_text, part)) if isinstance(part, list) else _text_or_none(part) for name, part in rows.items()}
    if not set(tensors).issuperset(names_in(found)):
        raise ValueError("parts")
    return found


def plan_data(plan: Plan, texts: list[str]) -> dict[str, Any]:
    """`texts`: of the kernels. Plans with state are not for keeping: they belong to the arrays of one process."""
    if plan.states:
        raise ValueError("a plan with state")
    return {
        "version": VERSION, "name": plan.name, "inputs": [_value(*pair) for pair in plan.inputs],
        "outputs": [_value(*pair) for pair in plan.outputs], "numbers": {name: getattr(plan, name) for name in _NUMBERS},
        "kernels": [[spec.family, text] for spec, text in zip(plan.kernels, texts, strict=True)],
        "weights": [weight.name for weight in plan.weights], "steps": [_step_row(step) for step in plan.steps],
        "controls": [_control_row(control) for control in plan.controls],
    }  # fmt: skip


def plan_of(data: dict[str, Any], target: Target) -> Plan:
    """The plan for the target that it was made for. Its weights have no data, its kernels are SavedKernels."""
    _check_version(data)
    plan = Plan(_text(data["name"]), target, list(map(_named_type, data["inputs"])), list(map(_named_type, data["outputs"])))
    plan.kernels = [SavedKernel(_text(family), _text(text)) for family, text in data["kernels"]]
    plan.weights = [Weight(_text(name), _NO_DATA, None) for name in data["weights"]]
    for name in _NUMBERS:
        setattr(plan, name, _size(data["numbers"][name]))
    limits = (plan.arena_bytes + 1, len(plan.weights), len(plan.inputs), len(plan.outputs), 1, 1)
    plan.steps = [_step(row, dict(zip(_SPACES, limits, strict=True)), len(plan.kernels)) for row in data["steps"]]
    plan.controls = [_control(row, plan) for row in data["controls"]]
    _check_regions(plan)
    if plan.groups < 1 or plan.groups * plan.repeated > len(plan.steps):
        raise ValueError("more repeated steps than there are")
    return plan


def _step_row(step: Step) -> list[Any]:
    args = [_ref_row(ref) for ref in step.args]
    return [step.kernel, args, step.label, step.origins, step.nodes, step.cost.flops, step.cost.bytes, step.overlaps]


def _ref_row(ref: Ref) -> list[int]:
    return [_SPACES.index(ref.space), ref.index, ref.offset]


def _step(row: list[Any], limits: dict[str, int], kernels: int) -> Step:
    kernel, args, label, origins, nodes, flops, nbytes, overlaps = row
    if not 0 <= kernel < kernels:
        raise ValueError("kernel")
    refs = tuple(_ref(_SPACES[space], index, offset, limits) for space, index, offset in args)
    return Step(kernel, refs, _text(label), tuple(origins), tuple(nodes), Cost(flops, nbytes), bool(overlaps))


def _control_row(control: Control) -> list[Any]:
    refs = [None if ref is None else _ref_row(ref) for ref in (control.counter, control.count, control.condition)]
    numbers = [control.trips, int(control.negate), control.limit]
    return [control.at, control.kind, control.partner, control.label, refs, numbers, control.moves]


def _control(row: list[Any], plan: Plan) -> Control:
    at, kind, partner, label, refs, (trips, negate, limit), moves = row
    limits = {"arena": plan.arena_bytes, "weight": len(plan.weights)}
    counter, count, condition = (None if ref is None else _ref(_SPACES[ref[0]], ref[1], ref[2], limits) for ref in refs)
    if kind not in (ENTER, AGAIN, LEAVE) or counter is None or not isinstance(trips, int) or _size(at) > len(plan.steps):
        raise ValueError("control")
    for step, slot, nbytes in moves:
        if not 0 <= slot < len(plan.steps[_size(step)].args) or not isinstance(nbytes, int):
            raise ValueError("move")
    moved = tuple((step, slot, nbytes) for step, slot, nbytes in moves)
    return Control(at, kind, _size(partner), _text(label), counter, trips, count, condition, bool(negate), _size(limit), moved)


def _check_regions(plan: Plan) -> None:
    """Regions are closed in the order in which they are open, by their partners."""
    entered: list[int] = []
    at = 0
    for number, control in enumerate(plan.controls):
        if control.at < at:
            raise ValueError("order")
        at = control.at
        if control.kind == ENTER:
            entered.append(number)
        elif control.partner != entered.pop() or plan.controls[control.partner].partner != number:
            raise ValueError("region")
    if entered:
        raise ValueError("region")


def _ref(space: str, index: int, offset: int, limits: dict[str, int]) -> Ref:
    inside = offset < limits[space] if space == "arena" else index < limits[space]
    if not inside or index < 0 or offset < 0:
        raise ValueError("ref")
    return Ref(space, index, offset)


def _value(name: str, type: TensorType) -> list[Any]:
    return [name, type.dtype.name, [dim if isinstance(dim, int) else str(dim) for dim in type.shape]]


def _named_type(row: list[Any]) -> tuple[str, TensorType]:
    name, element, dims = row
    return _text(name), TensorType(dtype(_text(element)), tuple(parse_dim(dim) if isinstance(dim, str) else _size(dim) for dim in dims))


def _check_version(data: dict[str, Any]) -> None:
    if data["version"] != VERSION:
        raise ValueError("version")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _size(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("size")
    return value
