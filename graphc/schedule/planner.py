"""The planner: the machine form of a graph to a plan: steps in order, memory assigned, weights collected.

The first kernels of a batch may run on a few samples at a time (`graphc.schedule.samples`): their steps are repeated for each group, and
what they leave to later kernels lies in buffers for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.graph import Graph, Value
from graphc.kernel.choose import ALGORITHMS
from graphc.kernel.choose_chain import banded
from graphc.kernel.choose_panels import with_panels
from graphc.kernel.chooser import Chooser, Predicted
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
from graphc.kernel.sort import SortSpec
from graphc.kernel.spec import (
    ChainBands,
    ConvChain,
    ConvSpec,
    KernelSpec,
    MatmulPanels,
    MatmulSpec,
    PackSpec,
    WeightGradientSpec,
    WinogradConv,
    WinogradProduct,
)
from graphc.ops.movement import Concat
from graphc.passes.anchors import anchor_family
from graphc.passes.fuse import INLINE
from graphc.schedule.addresses import assign_memory
from graphc.schedule.entries import Argument, Call, Entry, Location, Region, locations
from graphc.schedule.in_place import reads_at_own_place
from graphc.schedule.lower import Lowered, copy_spec, halo_spec, lower, lower_pack, zeroes_whole
from graphc.schedule.memory import Placement, Temporary
from graphc.schedule.partition import Kernel, partition
from graphc.schedule.plan import Plan, Ref, Weight
from graphc.schedule.recurrent import lower_recurrent, pack_spec
from graphc.schedule.regions import control_entries
from graphc.schedule.samples import Sampled, Split, Traffic, best_split, for_samples, traffic_of
from graphc.schedule.sort import lower_sort
from graphc.schedule.weight_gradient import sum_spec, winograd_gradient
from graphc.schedule.winograd import shape_of, winograd_spec
from graphc.target import Target
from graphc.types.tensor import TensorType

NOTHING, CONTROL = "nothing", "control"


def make_plan(graph: Graph, target: Target, chooser: Chooser | None = None) -> Plan:
    """From the machine form with static shapes. `chooser`: of the forms of convolutions; default: predictions from the target."""
    plan = Plan(graph.name, target, _signature(graph.inputs), [])
    plan.outputs = [(name, value.type) for name, value in zip(graph.output_names, graph.outputs, strict=True)]
    planner = Planner(graph, _Shared(plan, chooser or Predicted(target)))
    entries = planner.lower_all()
    written = planner.update_states()
    groups = planner.batch // planner.split.group if planner.split is not None else 1
    assign_memory(graph, plan, entries, written, groups, lambda value: planner.weight(value, None))
    return plan


@dataclass
class _Shared:
    """What the planners of a graph and of its sub-graphs fill together."""

    plan: Plan
    chooser: Chooser
    weights: dict[tuple[int, KernelSpec | None], int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Bound:
    """A value of a sub-graph that lies in memory of the graph around it: `start` bytes behind `outer`, `step` more in each iteration.
    `captured`: it is `outer`, which no iteration changes."""

    outer: Value | Temporary
    start: int = 0
    region: Region | None = None
    step: int = 0
    captured: bool = False


class Planner:
    """One graph's kernels as entries; `around`: the planner of the graph that this one is a sub-graph of."""

    def __init__(self, graph: Graph, shared: _Shared, around: Planner | None = None) -> None:
        self.graph, self.around, self._shared = graph, around, shared
        self.plan, self.chooser = shared.plan, shared.chooser
        self.kernels = partition(graph)
        self.placement = Placement(graph, self.kernels, around is None)
        self._entries: list[Entry] = []
        self._bound: dict[Value, _Bound] = {}
        self._makers = {kernel.output: kernel for kernel in self.kernels if self._feeds_packing(kernel)}
        self._packed: dict[tuple[Value, KernelSpec], Temporary] = {}
        self.split: Split | None = None
        self.batch = 1

    # memory -------------------------------------------------------------------------------------------------------------------

    def bind(self, value: Value, outer: Value | Temporary, start: int = 0, region: Region | None = None, step: int = 0) -> None:
        """An input or output of a sub-graph has its place in the graph around it."""
        self._bound[value] = _Bound(outer, start, region, step)

    def capture(self, value: Value, outer: Value) -> None:
        """An input of a sub-graph is a value of the graph around it."""
        self._bound[value] = _Bound(outer, captured=True)

    def bound(self, value: Value) -> Value | Temporary:
        """The memory that a value has been given by `bind`."""
        return self._bound[value].outer

    def locate(self, argument: Value | Temporary) -> Location:
        """Where a value is, in memory of this graph or of one around it."""
        if isinstance(argument, Temporary):
            return Location(argument, argument.nbytes)
        place = self.placement.place(argument)
        if place.root not in self._bound:
            return Location(place.root, self.placement.operand(place.root).nbytes, place.offset)
        bound = self._bound[place.root]
        assert self.around is not None
        found = self.around.locate(bound.outer)
        moves = ((bound.region, bound.step),) if bound.region is not None and bound.step else ()
        return replace(found, offset=found.offset + bound.start + place.offset, moves=(*found.moves, *moves))

    def argument(self, value: Value) -> Argument:
        """What a call takes for a value that is read as it lies."""
        return Ref("weight", self.weight(value, None)) if value.is_constant else value

    def inside(self, body: Graph) -> Planner:
        """The planner of a sub-graph."""
        return Planner(body, self._shared, self)

    # kernels ------------------------------------------------------------------------------------------------------------------

    def lower_all(self) -> list[Entry]:
        """Every kernel, in order."""
        haloed: set[Value] = set()
        found = list(self._lowered())
        self.batch = next((value.type.static_shape[0] for value in self.graph.inputs if value.type.rank), 1)
        self.split = self._choose_split(found) if self.around is None else None
        for number, (kernel, lowered) in enumerate(found):
            group = self.split.group if self.split is not None and number < self.split.kernels else 0
            root = self.placement.place(kernel.output).root
            if root.layout.has_halo and root not in haloed:
                haloed.add(root)
                self._entries.append(self._halo(root, group))
            if isinstance(lowered, Lowered) and group:
                self._entries += self._group_calls(lowered, kernel, group)
            elif isinstance(lowered, Lowered):
                self._entries += self._calls(lowered, kernel)
                if lowered.then is not None:
                    arguments = self._arguments(lowered.then, kernel, lowered.then.spec)
                    self._entries.append(Call(self, lowered.then.spec, arguments, kernel, part=":updates"))
            elif lowered == CONTROL:
                self._entries += control_entries(self, kernel)
        return self._entries

    def _lowered(self) -> Iterator[tuple[Kernel, Lowered | str]]:
        """The kernels that are steps of their own; NOTHING where only zeros around a map are left to do, CONTROL where they are many."""
        for kernel in self.kernels:
            if self.placement.is_alias(kernel.output) or kernel.output in self._makers:
                continue
            placed = self._placed_pieces(kernel)
            done = isinstance(kernel.anchor.op, Concat) and len(placed) == len(kernel.anchor.inputs)
            family = anchor_family(kernel.anchor)
            if family == "control":
                yield kernel, CONTROL
            elif family == "recurrent":
                yield kernel, lower_recurrent(kernel, self.placement.operand, self.plan.target)
            elif family == "sort":
                yield kernel, lower_sort(kernel, self.placement.operand)
            else:
                yield kernel, NOTHING if done else lower(kernel, self.placement.operand, placed)

    # samples ------------------------------------------------------------------------------------------------------------------

    def _choose_split(self, found: Sequence[tuple[Kernel, Lowered | str]]) -> Split | None:
        """How many of the first kernels run on groups of samples."""
        if self.batch < 2 or self.graph.states:
            return None
        written: set[Value] = set()
        traffic: list[Traffic] = []
        count = 0
        for kernel, lowered in found:
            whole = isinstance(lowered, Lowered) and lowered.then is not None  # its updates may reach any sample
            sampled = for_samples(lowered.spec, self.batch, 1) if isinstance(lowered, Lowered) and not whole else None
            weights = self._weight_bytes(lowered, kernel) if isinstance(lowered, Lowered) else 0
            fits = isinstance(lowered, Lowered) and sampled is not None and self._may_split(lowered, sampled, written)
            if lowered == NOTHING or fits:
                written.add(self.placement.place(kernel.output).root)
                count += count == len(traffic)
            traffic.append(traffic_of(sampled, weights) if sampled is not None else Traffic(0, weights))
        return best_split(traffic, count, self.batch, self.plan.target)

    def _may_split(self, lowered: Lowered, sampled: Sampled, written: set[Value]) -> bool:
        """Whether each group of samples reads its own part of what the kernels before it have written for that group."""
        pairs = zip(lowered.inputs, sampled.steps, strict=False)
        shared = {self.placement.place(value).root for value, step in pairs if not step and not value.is_constant}
        packs = any(not lowered.inputs[slot].is_constant for slot in lowered.packed)
        return not packs and not shared & written

    def _weight_bytes(self, lowered: Lowered, kernel: Kernel) -> float:
        """Of the packed weights, about."""
        tile = ALGORITHMS.get(kernel.anchor.algorithm, 0)
        return sum(lowered.inputs[slot].type.nbytes for slot in lowered.packed) * ((tile + 2) ** 2 / 9 if tile else 1)

    def _halo(self, root: Value, group: int) -> Call:
        operand = self.placement.operand(root)
        spec, overlaps = halo_spec(operand), not zeroes_whole(operand)
        if not group:
            return Call(self, spec, [root], None, overlaps)
        sampled = for_samples(spec, self.batch, group)
        assert sampled is not None
        return Call(self, sampled.spec, [root], None, overlaps, samples={root: sampled.steps[0] * root.type.dtype.itemsize})

    def _group_calls(self, lowered: Lowered, kernel: Kernel, group: int) -> list[Call]:
        """The steps of a kernel for one group."""
        sampled = for_samples(lowered.spec, self.batch, group)
        assert sampled is not None
        values = (*lowered.inputs, kernel.output)
        apart = {value: step * value.type.dtype.itemsize for value, step in zip(values, sampled.steps, strict=True) if step}
        return [replace(call, samples=apart) for call in self._calls(replace(lowered, spec=sampled.spec), kernel)]

    # steps --------------------------------------------------------------------------------------------------------------------

    def _placed_pieces(self, kernel: Kernel) -> frozenset[int]:
        if not isinstance(kernel.anchor.op, Concat) or len(kernel.nodes) > 1:
            return frozenset()
        return frozenset(i for i, v in enumerate(kernel.anchor.inputs) if self.placement.is_placed(v, kernel.output))

    def _calls(self, lowered: Lowered, kernel: Kernel) -> list[Call]:
        """The steps of a kernel: one, but for Winograd convolutions with large weights, and for sums in parts."""
        spec, algorithm = lowered.spec, kernel.anchor.algorithm
        if isinstance(spec, WeightGradientSpec):
            return self._gradient_calls(lowered, spec, kernel)
        if isinstance(spec, ConvChain):
            return [self._chain_call(spec, lowered, kernel)]
        if isinstance(spec, (RecurrentSpec, RecurrentGradSpec)):
            return [self._recurrent(spec, lowered, kernel)]
        if isinstance(spec, SortSpec):
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, spec.scratch.nbytes)
            return [Call(self, spec, [*self._operands(lowered, spec), *kernel.outputs, Ref("scratch", 0)], kernel)]
        if isinstance(spec, MatmulSpec):
            return [self._matmul_call(spec, lowered, kernel)]
        if not isinstance(spec, ConvSpec) or not ALGORITHMS.get(algorithm):
            return [Call(self, spec, self._arguments(lowered, kernel, spec), kernel)]
        made = winograd_spec(spec, self.chooser.form(shape_of(spec), algorithm))
        if isinstance(made, WinogradConv):
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            return [Call(self, made, [*self._arguments(lowered, kernel, made), Ref("scratch", 0)], kernel)]
        first, second, last = made
        x, weights, *rest = self._arguments(lowered, kernel, second)
        transformed, product = Temporary(second.transformed.nbytes), Temporary(second.product.nbytes)
        return [
            Call(self, first, [x, transformed], kernel),
            Call(self, second, [transformed, weights, product], kernel, part=":product"),
            Call(self, last, [product, *rest], kernel, part=":output"),
        ]

    def _gradient_calls(self, lowered: Lowered, spec: WeightGradientSpec, kernel: Kernel) -> list[Call]:
        """The sums of a weight gradient, and where they are made in parts a step that adds those."""
        sums = Temporary(spec.sums.nbytes) if spec.parts > 1 else kernel.output
        arguments = [*self._operands(lowered, spec), sums]
        products = Call(self, spec, arguments, kernel)
        if ALGORITHMS.get(kernel.anchor.algorithm):
            made = winograd_gradient(spec)
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            products = Call(self, made, [*arguments, Ref("scratch", 0)], kernel)
        return [products, Call(self, sum_spec(spec), [sums, kernel.output], kernel, part=":sum")] if spec.parts > 1 else [products]

    def _chain_call(self, spec: ConvChain, lowered: Lowered, kernel: Kernel) -> Call:
        made = banded(spec, self.plan.target)
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
        arguments = [*self._arguments(lowered, kernel, made), Ref("scratch", 0)]
        return Call(self, made, arguments, kernel, part=f"+{kernel.chain[1].anchor.name}")

    def _matmul_call(self, spec: MatmulSpec, lowered: Lowered, kernel: Kernel) -> Call:
        made, arguments = with_panels(spec, self.plan.target), self._arguments(lowered, kernel, spec)
        if isinstance(made, MatmulPanels):
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            arguments.append(Ref("scratch", 0))
        return Call(self, made, arguments, kernel)

    def _recurrent(self, spec: RecurrentSpec | RecurrentGradSpec, lowered: Lowered, kernel: Kernel) -> Call:
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, spec.scratch.nbytes)
        memory = Temporary(spec.memory.nbytes)
        return Call(self, spec, [*self._operands(lowered, spec), *kernel.outputs, memory, Ref("scratch", 0), Ref("pool", 0)], kernel)

    def _arguments(self, lowered: Lowered, kernel: Kernel, spec: KernelSpec) -> list[Argument]:
        """Of the operands, with weights packed for `spec`."""
        return [*self._operands(lowered, spec), kernel.output]

    def _operands(self, lowered: Lowered, spec: KernelSpec) -> list[Argument]:
        arguments: list[Argument] = []
        for slot, value in enumerate(lowered.inputs):
            if value.is_constant:
                arguments.append(Ref("weight", self.weight(value, _packed_for(spec, slot) if slot in lowered.packed else None)))
            elif slot in lowered.packed and isinstance(spec, (ConvSpec, WinogradConv, WinogradProduct)):
                arguments.append(self._pack(spec, value))
            elif slot in lowered.packed and isinstance(spec, (RecurrentSpec, RecurrentGradSpec)):
                arguments.append(self._pack_recurrent(spec, value))
            else:
                arguments.append(value)
        return arguments

    def _feeds_packing(self, kernel: Kernel) -> bool:
        """Whether all that the kernel computes are weights of convolutions, which the packing can compute as it goes."""
        value = kernel.output
        if value in self.graph.roots or not all(node.op.family in INLINE and not isinstance(node.op, Concat) for node in kernel.nodes):
            return False
        alone = all(anchor_family(user) == "conv" and user.inputs.count(value) == 1 and user.inputs[1] is value for user in value.users)
        return alone and bool(value.users) and not self.placement.is_alias(value)

    def _pack(self, conv: ConvSpec | WinogradConv | WinogradProduct, weight: Value) -> Temporary:
        """Adds the step that packs run-time weights, unless some convolution of the same order has done so; outside of a loop that captures
        them."""
        bound = self._bound.get(weight)
        if bound is not None and bound.captured and isinstance(bound.outer, Value) and self.around is not None:
            return self.around._pack(conv, bound.outer)
        made = lower_pack(conv, weight, self._makers.get(weight), self.placement.operand, self.plan.target.lanes(weight.type.dtype))
        assert isinstance(made.spec, PackSpec)
        key = (weight, made.spec)
        if key not in self._packed:
            self._packed[key] = Temporary(made.spec.packed.nbytes)
            arguments = [*self._operands(made, made.spec), self._packed[key]]
            self._entries.append(Call(self, made.spec, arguments, self._makers.get(weight), part=":pack"))
        return self._packed[key]

    def _pack_recurrent(self, spec: RecurrentSpec | RecurrentGradSpec, weights: Value) -> Temporary:
        packing = pack_spec(spec)
        key = (weights, packing)
        if key not in self._packed:
            self._packed[key] = Temporary(packing.outputs[0].nbytes)
            self._entries.append(Call(self, packing, [weights, self._packed[key]], None, part=f"{weights.name}:pack"))
        return self._packed[key]

    def update_states(self) -> dict[Value, Value]:
        """New value -> the state that it may be written into directly; the others are copied when all else is done."""
        direct: dict[Value, Value] = {}
        copies: list[Entry] = []
        last = {location.buffer: number for number, entry in enumerate(self._entries) for location in locations(entry)}
        for state, value in self.graph.updates.items():
            if self._may_replace(state, value, last.get(state, -1)):
                direct[value] = state
            else:
                copies.append(Call(self, copy_spec(self.placement.operand(value)), [value, state], None, part=f"{state.name}:store"))
        self._entries += copies
        return direct

    def _may_replace(self, state: Value, value: Value, last: int) -> bool:
        """Whether the kernel that makes the new value is the last that touches the state, and reads of it what it writes over. `last`: the
        number of the last entry that touches it."""
        if value in self.graph.outputs or (value.producer is not None and value.producer.op.bodies()):
            return False
        number, call = next((i, call) for i, call in enumerate(self._entries) if isinstance(call, Call) and call.stores(value))
        slots = [slot for slot, argument in enumerate(call.arguments) if argument is state]
        return last <= number and reads_at_own_place(call.spec, slots)

    def weight(self, value: Value, spec: KernelSpec | None) -> int:
        """The number of a constant, packed for a kernel, among the plan's weights."""
        assert value.data is not None
        key = (id(value.data), spec)
        if key not in self._shared.weights:
            self._shared.weights[key] = len(self.plan.weights)
            self.plan.weights.append(Weight(value.name, value.data, spec))
        return self._shared.weights[key]


def _packed_for(spec: KernelSpec, slot: int) -> KernelSpec:
    """The spec that says in which order the weights of that slot are read."""
    return spec.chain.second if isinstance(spec, ChainBands) and slot != spec.chain.weights[0] else spec


def _signature(values: list[Value]) -> list[tuple[str, TensorType]]:
    return [(value.name, value.type) for value in values]


