"""Control flow as regions of the plan: the kernels of a body stand among the others, once, and a run passes through them repeatedly.

* A state lives in the memory of the loop's result: it is copied there before the loop, and each iteration leaves its new value there, by
  the kernel that makes it where that may write over what it reads, else by a copy at the end of the iteration.
* Elements of scanned and stacked values are read and written in place: the arguments that point to them move with each iteration.
* What is captured is read where it lies. Weights that a convolution packs at run time are packed once, before the region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import UnsupportedError
from graphc.ir.graph import Value
from graphc.kernel.expr import const, index
from graphc.kernel.index import simplify
from graphc.kernel.spec import Nest, NestSpec, Operand, StoreAt
from graphc.limits import check_iterations
from graphc.ops.control import If, Loop
from graphc.schedule.entries import Argument, Call, Entry, Mark, Region, touches
from graphc.schedule.in_place import reads_at_own_place
from graphc.schedule.lower import copy_spec
from graphc.schedule.memory import Temporary
from graphc.schedule.partition import Kernel
from graphc.schedule.plan import AGAIN, ENTER, LEAVE
from graphc.types.dtype import i64

if TYPE_CHECKING:
    from graphc.schedule.planner import Planner

_COUNTER = Operand(i64, ())


def control_entries(planner: Planner, kernel: Kernel) -> list[Entry]:
    """The entries of a loop or a choice."""
    op = kernel.anchor.op
    if isinstance(op, Loop):
        return _Loop(planner, kernel, op).entries()
    if isinstance(op, If):
        return _choice(planner, kernel, op)
    raise UnsupportedError(f"{op.name} has no native lowering", where=kernel.anchor.where)


class _Loop:
    """`node`: the loop; `inside`: the planner of its body."""

    def __init__(self, planner: Planner, kernel: Kernel, op: Loop) -> None:
        self.planner, self.kernel, self.op, self.node = planner, kernel, op, kernel.anchor
        self.inside = planner.inside(op.body)
        number, *rest = op.body.inputs
        results = op.body.outputs[op.conditional :]
        self.states, self.elements, captured = _cut(rest, op.states, len(op.x_axes))
        self.new_states, self.new_elements, _ = _cut(results, op.states, len(op.y_axes))
        self.before: list[Entry] = []
        count = self._flag(self.node.inputs[0]) if op.counted else None
        trips = op.trips.__index__()
        if not op.is_dynamic:
            check_iterations(trips, self.node.where)
        self.region = Region(self.node.name, True, trips, count, op.limit if op.is_dynamic else 0)
        self.inside.bind(number, self.region.counter)
        for inner, outer in zip(captured, self.node.inputs[op.first_captured :], strict=True):
            self.inside.capture(inner, outer)
        self._bind_elements()

    def _bind_elements(self) -> None:
        """Element t of an x or y lies t, or trips - 1 - t, elements behind its first."""
        op, node = self.op, self.node
        xs = zip(self.elements, node.inputs[op.first_x :], op.x_reverse, strict=False)
        ys = zip(self.new_elements, node.outputs[op.states :], op.y_reverse, strict=False)
        for inner, outer, back in (*xs, *ys):
            step = inner.type.nbytes
            start = (self.region.trips - 1) * step if back else 0
            self.inside.bind(inner, outer, max(start, 0), self.region, -step if back else step)

    def entries(self) -> list[Entry]:
        op, node, planner = self.op, self.node, self.planner
        condition = self._flag(node.inputs[op.counted]) if op.conditional else None
        states = node.outputs[: op.states]
        for initial, state in zip(node.inputs[op.first_state :], states, strict=False):
            self._copy(self.before, initial, state, ":init", apart=state is not states[-1])
        if op.is_dynamic:
            for y in node.outputs[op.states : -1]:
                self.before.append(Call(planner, _zeros_spec(planner.placement.operand(y)), [y], self.kernel, part=":clear"))
        for inner, state in zip(self.states, states, strict=True):
            self.inside.bind(inner, state)
        body = self.inside.lower_all()
        body += self._keep_states(body)
        again: Argument | None = op.body.outputs[0] if op.conditional else None
        if not body:
            body.append(Call(planner, copy_spec(_COUNTER), [self.region.counter, Temporary(8)], self.kernel, part=":count"))
        after: list[Entry] = []
        if node.outputs[-1].users or node.outputs[-1] in planner.graph.roots:
            after.append(Call(planner, copy_spec(_COUNTER), [self.region.counter, node.outputs[-1]], self.kernel, part=":iterations"))
        enter, leave = Mark(planner, self.region, ENTER, condition), Mark(self.inside, self.region, AGAIN, again)
        return [*self.before, enter, *body, leave, *after]

    def _flag(self, value: Value) -> Argument:
        """A count or condition where the run can read it from the arena."""
        copied = Temporary(8)
        spec = copy_spec(Operand(value.type.dtype, ()))
        self.before.append(Call(self.planner, spec, [self.planner.argument(value), copied], self.kernel, part=":test"))
        return copied

    def _keep_states(self, body: Sequence[Entry]) -> list[Entry]:
        """Binds what is written into a state's memory directly; the copies of the others."""
        copies: list[tuple[Value, Value]] = []
        for old, new in zip(self.states, self.new_states, strict=True):
            if self._may_replace(body, old, new):
                self.inside.bind(new, self.inside.bound(old))
            else:
                copies.append((old, new))
        entries: list[Entry] = []
        for old, new in copies:
            spec = copy_spec(self.inside.placement.operand(new))
            last = (old, new) == copies[-1]
            entries.append(Call(self.inside, spec, [new, old], self.kernel, not last, part=f":{old.name}"))
        return entries

    def _may_replace(self, body: Sequence[Entry], old: Value, new: Value) -> bool:
        """Whether the kernel that makes the new state is the last to touch the old one, and reads of it what it writes over."""
        memory = self.inside.locate(old).buffer
        if new.producer is None or new.producer.op.bodies():
            return False
        maker = next(i for i, entry in enumerate(body) if isinstance(entry, Call) and entry.scope is self.inside and entry.stores(new))
        call = body[maker]
        if not isinstance(call, Call) or call.kernel is None or call.arguments[-1] is not new or len(call.kernel.outputs) != 1:
            return False
        if any(touches(entry, memory) for entry in body[maker + 1 :]):
            return False
        slots = [i for i, a in enumerate(call.arguments) if isinstance(a, Value) and self.inside.locate(a).buffer is memory]
        return reads_at_own_place(call.spec, slots)

    def _copy(self, entries: list[Entry], source: Value, target: Value, part: str, apart: bool) -> None:
        spec = copy_spec(self.planner.placement.operand(target))
        entries.append(Call(self.planner, spec, [self.planner.argument(source), target], self.kernel, apart, part))


def _choice(planner: Planner, kernel: Kernel, op: If) -> list[Entry]:
    """Two regions that run at most once: the one where the condition holds, the other where it does not."""
    node, flag = kernel.anchor, Temporary(8)
    condition = node.inputs[0]
    spec = copy_spec(Operand(condition.type.dtype, ()))
    entries: list[Entry] = [Call(planner, spec, [planner.argument(condition), flag], kernel, part=":test")]
    captured = node.inputs[1:]
    for body, name in ((op.then_body, "then"), (op.else_body, "else")):
        inside, region = planner.inside(body), Region(f"{node.name}:{name}", False)
        for inner, outer in zip(body.inputs, captured, strict=False):
            inside.capture(inner, outer)
        captured = captured[len(body.inputs) :]
        for inner, outer in zip(body.outputs, node.outputs, strict=True):
            inside.bind(inner, outer)
        steps = inside.lower_all()
        entries += [Mark(planner, region, ENTER, flag, name == "else"), *steps, Mark(planner, region, LEAVE)]
    return entries


def _cut(values: Sequence[Value], first: int, second: int) -> tuple[list[Value], list[Value], list[Value]]:
    return list(values[:first]), list(values[first : first + second]), list(values[first + second :])


def _zeros_spec(out: Operand) -> NestSpec:
    """All of a plain tensor is zero."""
    element = index("i", out.elements)
    return NestSpec("copy", (), (out,), (Nest((element,), (StoreAt(0, simplify(element), const(0, out.dtype)),)),))

