"""addresses: lifetimes of all buffers to places in one arena, and the entries of a planner to the steps and controls of a plan.

A buffer lives from the first to the last entry that touches it. What is alive at one end of a region that repeats lives through all of it:
the iterations that follow need it as the present one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Kind, Value
from graphc.kernel.cost import Cost
from graphc.kernel.spec import KernelSpec, PackSpec, WinogradInput, WinogradOutput
from graphc.limits import max_bytes, too_large
from graphc.passes.anchors import anchor_family
from graphc.schedule.entries import Argument, Call, Entry, Mark, Region, Scope, locations
from graphc.schedule.memory import Buffer, Lifetime, Temporary, assign
from graphc.schedule.partition import Kernel
from graphc.schedule.plan import AGAIN, ENTER, Control, Plan, Ref, State, Step

Span = tuple[int, int]
Move = tuple[Region, int]


def assign_memory(
    graph: Graph, plan: Plan, entries: Sequence[Entry], written: Mapping[Value, Value], groups: int, weight: Callable[[Value], int]
) -> None:
    """Fill the plan's arena, states, steps and controls. `written`: new value -> state in whose memory it is made; `groups`: of samples,
    through which the first entries run; `weight`: the number of a constant that lies as it is."""
    _Assigner(graph, plan, _with_barriers(entries), written, groups, weight).run()


def _with_barriers(entries: Sequence[Entry]) -> list[Entry]:
    """What a decision reads has been written by then, and what it moves is used by nobody."""
    made = list(entries)
    for number, entry in enumerate(made[1:]):
        before = made[number]
        if isinstance(entry, Mark) and isinstance(before, Call) and before.overlaps:
            made[number] = replace(before, overlaps=False)
    return made


class _Assigner:
    def __init__(
        self, graph: Graph, plan: Plan, entries: Sequence[Entry], written: Mapping[Value, Value], groups: int,
        weight: Callable[[Value], int],
    ) -> None:  # fmt: skip
        self.plan, self.entries, self.groups, self.written, self.weight = plan, entries, groups, written, weight
        self.outputs = {value: i for i, value in reversed(list(enumerate(graph.outputs))) if value.kind is Kind.RESULT}
        self.inputs = {value: i for i, value in enumerate(graph.inputs)}
        self.states = {value: i for i, value in enumerate(graph.states.values())}
        self.repeated = sum(isinstance(entry, Call) and entry.samples is not None for entry in entries)  # the first ones
        self.batch = next((value.type.static_shape[0] for value in graph.inputs if value.type.rank), 1)
        self._numbers: dict[KernelSpec, int] = {}
        self._offsets: dict[Buffer, int] = {}
        self._inside: set[Buffer] = set()
        self._begun: list[int] = []
        self._moves: dict[Region, list[tuple[int, int, int]]] = {}

    def run(self) -> None:
        plan = self.plan
        plan.states = [State(value.name, value.data) for value in self.states if value.data is not None]
        lifetimes = {buffer: self._lifetime(buffer, nbytes, *span) for buffer, nbytes, span in self._spans()}
        self._inside = {buffer for buffer, life in lifetimes.items() if life.last < self.repeated}
        self._offsets, plan.arena_bytes = assign(lifetimes)
        returned = sum(type.nbytes for _, type in plan.outputs)
        if plan.arena_bytes + returned > max_bytes():
            raise too_large(f"the arena would need {plan.arena_bytes} bytes and the outputs {returned}", hint="use a smaller batch")
        if self.repeated:
            plan.groups, plan.repeated = self.groups, self.repeated
        regions: list[Region] = []
        for entry, first_sample in self._in_order():
            if isinstance(entry, Mark):
                plan.controls.append(self._control(entry))
                regions.append(entry.region)
            else:
                plan.steps.append(self._step(entry, tuple(self._refs(entry, first_sample))))
        for number, region in enumerate(regions):
            if plan.controls[number].kind == AGAIN:
                plan.controls[number] = replace(plan.controls[number], moves=tuple(self._moves.get(region, ())))

    # lifetimes ----------------------------------------------------------------------------------------------------------------

    def _spans(self) -> Iterator[tuple[Buffer, int, Span]]:
        """Buffers in the arena, with their bytes and the first and last entry in which they are needed."""
        spans: dict[Buffer, tuple[int, Span]] = {}
        for number, entry in enumerate(self.entries):
            for location in locations(entry):
                nbytes, (first, _) = spans.get(location.buffer, (location.nbytes, (number, number)))
                spans[location.buffer] = (nbytes, (first, number))
        regions = list(self._regions())
        for buffer, (nbytes, span) in spans.items():
            elsewhere = buffer in self.outputs or buffer in self.inputs or buffer in self.states or buffer in self.written
            if not elsewhere and not _is_constant(buffer):
                yield buffer, nbytes, _through(regions, span)

    def _regions(self) -> Iterator[Span]:
        """Those that repeat, inner ones first."""
        begun: list[int] = []
        for number, entry in enumerate(self.entries):
            if isinstance(entry, Mark) and entry.kind == ENTER:
                begun.append(number)
            elif isinstance(entry, Mark):
                first = begun.pop()
                if entry.kind == AGAIN:
                    yield first, number

    def _lifetime(self, buffer: Buffer, nbytes: int, first: int, last: int) -> Lifetime:
        """Of a buffer; what outlives the steps for groups of samples holds the whole batch, and no group may write over it."""
        if isinstance(buffer, Temporary):
            return Lifetime(nbytes, first, last)
        if last < self.repeated:
            return Lifetime(nbytes // self.groups, first, last)
        return Lifetime(nbytes, 0 if first < self.repeated else first, last)

    def _in_order(self) -> Iterator[tuple[Entry, int]]:
        """The entries as they run, each with the number of the first sample that it takes."""
        groups = self.groups if self.repeated else 1
        for number in range(groups):
            for entry in self.entries[: self.repeated]:
                yield entry, number * self.batch // groups
        for entry in self.entries[self.repeated :]:
            yield entry, 0

    # steps --------------------------------------------------------------------------------------------------------------------

    def _refs(self, call: Call, first_sample: int) -> Iterator[Ref]:
        for slot, argument in enumerate(call.arguments):
            offset = 0
            if call.samples and isinstance(argument, Value) and call.scope.locate(argument).buffer not in self._inside:
                offset = first_sample * call.samples.get(argument, 0)
            ref, moves = self._ref(call.scope, argument, offset)
            for region, nbytes in moves:
                self._moves.setdefault(region, []).append((len(self.plan.steps), slot, nbytes))
            yield ref

    def _ref(self, scope: Scope, argument: Argument, more: int = 0) -> tuple[Ref, tuple[Move, ...]]:
        """Where an argument points in the first iteration, and how it moves."""
        if isinstance(argument, Ref):
            return argument, ()
        location = scope.locate(argument)
        buffer, offset = location.buffer, location.offset + more
        if buffer in self.outputs:
            return Ref("output", self.outputs[buffer], offset), location.moves
        if buffer in self.inputs:
            return Ref("input", self.inputs[buffer], offset), location.moves
        if buffer in self.states or buffer in self.written:
            assert isinstance(buffer, Value)
            return Ref("state", self.states[self.written.get(buffer, buffer)], offset), location.moves
        if _is_constant(buffer):
            assert isinstance(buffer, Value)
            return Ref("weight", self.weight(buffer), offset), location.moves
        return Ref("arena", 0, self._offsets[buffer] + offset), location.moves

    def _step(self, call: Call, refs: tuple[Ref, ...]) -> Step:
        kernel, spec = call.kernel, call.spec
        number = self._numbers.setdefault(spec, len(self._numbers))
        if number == len(self.plan.kernels):
            self.plan.kernels.append(spec)
        if kernel is None:
            return Step(number, refs, call.part or "halo", (), (), Cost(0, 0), call.overlaps)
        names = tuple(node.name for node in kernel.nodes)
        groups = self.groups if call.samples is not None else 1
        return Step(number, refs, f"{kernel.anchor.name}{call.part}", kernel.origins, names, _cost(call, kernel, groups), call.overlaps)

    # controls -----------------------------------------------------------------------------------------------------------------

    def _control(self, mark: Mark) -> Control:
        """Without what moves, which is known when all steps are made."""
        region, number, partner = mark.region, len(self.plan.controls), -1
        if mark.kind == ENTER:
            self._begun.append(number)
        else:
            partner = self._begun.pop()
            self.plan.controls[partner] = replace(self.plan.controls[partner], partner=number)
        counter, count, condition = (self._still(mark.scope, a) for a in (region.counter, region.count, mark.condition))
        assert counter is not None
        at = len(self.plan.steps)
        return Control(at, mark.kind, partner, region.label, counter, region.trips, count, condition, mark.negate, region.limit)

    def _still(self, scope: Scope, argument: Argument | None) -> Ref | None:
        """What a decision reads lies in the arena, at one place."""
        if argument is None:
            return None
        ref, moves = self._ref(scope, argument)
        if moves or ref.space != "arena":
            raise VerifyError(f"a decision reads {ref}, which is no fixed place of the arena")
        return ref


def _is_constant(buffer: Buffer) -> bool:
    return isinstance(buffer, Value) and buffer.is_constant


def _through(regions: Sequence[Span], span: Span) -> Span:
    """The span with all of each region that it lies in and out of."""
    first, last = span
    for start, end in regions:
        apart = last < start or end < first
        within = start < first and last < end
        if not apart and not within:
            first, last = min(first, start), max(last, end)
    return first, last


def _cost(call: Call, kernel: Kernel, groups: int) -> Cost:
    """Operations and bytes of the model's nodes for one of the groups of samples; of a convolution in three steps the operations are
    those of the second; of control flow itself, the bytes that are copied."""
    apart = isinstance(call.spec, (WinogradInput, WinogradOutput, PackSpec)) or call.part == ":sum"
    if apart or anchor_family(kernel.anchor) == "control":
        return Cost(0, sum(operand.nbytes for operand in call.spec.operands))
    flops = sum(node.op.cost([v.type for v in node.inputs], [v.type for v in node.outputs]).flops for node in kernel.nodes)
    return Cost(flops // groups, sum(value.type.nbytes for value in (*kernel.inputs, *kernel.outputs)) // groups)
