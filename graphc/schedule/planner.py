"""The planner: the machine form of a graph to a plan: steps in order, memory assigned, weights collected.

The first kernels of a batch may run on a few samples at a time (`graphc.schedule.samples`): their steps are repeated for each group, and
what they leave to later kernels lies in buffers for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir.graph import Graph, Kind, Value
from graphc.ir.op import Cost
from graphc.kernel.choose import ALGORITHMS
from graphc.kernel.choose_chain import banded
from graphc.kernel.choose_panels import with_panels
from graphc.kernel.chooser import Chooser, Predicted
from graphc.kernel.recurrent import RecurrentGradSpec, RecurrentSpec
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
    WinogradInput,
    WinogradOutput,
    WinogradProduct,
)
from graphc.limits import max_bytes, too_large
from graphc.ops.movement import Concat
from graphc.passes.anchors import anchor_family
from graphc.passes.fuse import INLINE
from graphc.schedule.in_place import reads_at_own_place
from graphc.schedule.lower import Lowered, copy_spec, halo_spec, lower, lower_pack, zeroes_whole
from graphc.schedule.memory import Buffer, Lifetime, Placement, Temporary, assign
from graphc.schedule.partition import Kernel, partition
from graphc.schedule.plan import Plan, Ref, State, Step, Weight
from graphc.schedule.recurrent import lower_recurrent, pack_spec
from graphc.schedule.samples import Sampled, Split, Traffic, best_split, for_samples, traffic_of
from graphc.schedule.weight_gradient import sum_spec, winograd_gradient
from graphc.schedule.winograd import shape_of, winograd_spec
from graphc.target import Target
from graphc.types.tensor import TensorType


def make_plan(graph: Graph, target: Target, chooser: Chooser | None = None) -> Plan:
    """From the machine form with static shapes. `chooser`: of the forms of convolutions; default: predictions from the target."""
    return _Planner(graph, target, chooser or Predicted(target)).plan


@dataclass(frozen=True)
class _Call:
    """A step before memory is assigned, its output last. `part`: what its label says after the kernel's name, or instead of it.

    `samples`: of a step for a group of samples, the bytes from one sample to the next in each argument that has them; None: a step for
    the whole batch.
    """

    spec: KernelSpec
    arguments: list[Value | Ref | Temporary]
    kernel: Kernel | None
    overlaps: bool = False
    part: str = ""
    samples: Mapping[Value, int] | None = None

    def stores(self, value: Value) -> bool:
        return self.arguments[-1] is value or (self.kernel is not None and value in self.kernel.outputs and value in self.arguments)


class _Planner:
    def __init__(self, graph: Graph, target: Target, chooser: Chooser) -> None:
        self.graph, self.chooser = graph, chooser
        self.kernels = partition(graph)
        self.placement = Placement(graph, self.kernels)
        self.plan = Plan(graph.name, target, _signature(graph.inputs), [])
        self.plan.outputs = [(name, value.type) for name, value in zip(graph.output_names, graph.outputs, strict=True)]
        self._numbers: dict[KernelSpec, int] = {}
        self._weights: dict[tuple[int, KernelSpec | None], int] = {}
        self._pending: list[_Call] = []
        self._makers = {kernel.output: kernel for kernel in self.kernels if self._feeds_packing(kernel)}
        self._packed: dict[tuple[Value, KernelSpec], Temporary] = {}
        self._lower_all()
        self._states = {value: i for i, value in enumerate(graph.states.values())}
        self.plan.states = [State(value.name, value.data) for value in self._states if value.data is not None]
        self._written = self._update_states()
        self._assign_memory()

    def _lower_all(self) -> None:
        haloed: set[Value] = set()
        found = list(self._lowered())
        self._batch = next((value.type.static_shape[0] for value in self.graph.inputs if value.type.rank), 1)
        self._split = self._choose_split(found)
        for number, (kernel, lowered) in enumerate(found):
            group = self._split.group if self._split is not None and number < self._split.kernels else 0
            root = self.placement.place(kernel.output).root
            if root.layout.has_halo and root not in haloed:
                haloed.add(root)
                self._pending.append(self._halo(root, group))
            if lowered is not None and group:
                self._pending += self._group_calls(lowered, kernel, group)
            elif lowered is not None:
                self._pending += self._calls(lowered, kernel)

    def _lowered(self) -> Iterator[tuple[Kernel, Lowered | None]]:
        """The kernels that are steps of their own; without a spec where nothing is left to do but zeros around a map."""
        for kernel in self.kernels:
            if self.placement.is_alias(kernel.output) or kernel.output in self._makers:
                continue
            placed = self._placed_pieces(kernel)
            done = isinstance(kernel.anchor.op, Concat) and len(placed) == len(kernel.anchor.inputs)
            if anchor_family(kernel.anchor) == "recurrent":
                yield kernel, lower_recurrent(kernel, self.placement.operand, self.plan.target)
            else:
                yield kernel, None if done else lower(kernel, self.placement.operand, placed)

    # samples ------------------------------------------------------------------------------------------------------------------

    def _choose_split(self, found: Sequence[tuple[Kernel, Lowered | None]]) -> Split | None:
        """How many of the first kernels run on groups of samples."""
        if self._batch < 2 or self.graph.states:
            return None
        written: set[Value] = set()
        traffic: list[Traffic] = []
        count = 0
        for kernel, lowered in found:
            sampled = for_samples(lowered.spec, self._batch, 1) if lowered is not None else None
            weights = self._weight_bytes(lowered, kernel) if lowered is not None else 0
            if lowered is None or (sampled is not None and self._may_split(lowered, sampled, written)):
                written.add(self.placement.place(kernel.output).root)
                count += count == len(traffic)
            traffic.append(traffic_of(sampled, weights) if sampled is not None else Traffic(0, weights))
        return best_split(traffic, count, self._batch, self.plan.target)

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

    def _halo(self, root: Value, group: int) -> _Call:
        operand = self.placement.operand(root)
        spec, overlaps = halo_spec(operand), not zeroes_whole(operand)
        if not group:
            return _Call(spec, [root], None, overlaps)
        sampled = for_samples(spec, self._batch, group)
        assert sampled is not None
        return _Call(sampled.spec, [root], None, overlaps, samples={root: sampled.steps[0] * root.type.dtype.itemsize})

    def _group_calls(self, lowered: Lowered, kernel: Kernel, group: int) -> list[_Call]:
        """The steps of a kernel for one group."""
        sampled = for_samples(lowered.spec, self._batch, group)
        assert sampled is not None
        values = (*lowered.inputs, kernel.output)
        apart = {value: step * value.type.dtype.itemsize for value, step in zip(values, sampled.steps, strict=True) if step}
        return [replace(call, samples=apart) for call in self._calls(replace(lowered, spec=sampled.spec), kernel)]

    # steps --------------------------------------------------------------------------------------------------------------------

    def _placed_pieces(self, kernel: Kernel) -> frozenset[int]:
        if not isinstance(kernel.anchor.op, Concat) or len(kernel.nodes) > 1:
            return frozenset()
        return frozenset(i for i, v in enumerate(kernel.anchor.inputs) if self.placement.is_placed(v, kernel.output))

    def _calls(self, lowered: Lowered, kernel: Kernel) -> list[_Call]:
        """The steps of a kernel: one, but for Winograd convolutions with large weights, and for sums in parts."""
        spec, algorithm = lowered.spec, kernel.anchor.algorithm
        if isinstance(spec, WeightGradientSpec):
            return self._gradient_calls(lowered, spec, kernel)
        if isinstance(spec, ConvChain):
            return [self._chain_call(spec, lowered, kernel)]
        if isinstance(spec, (RecurrentSpec, RecurrentGradSpec)):
            return [self._recurrent(spec, lowered, kernel)]
        if isinstance(spec, MatmulSpec):
            return [self._matmul_call(spec, lowered, kernel)]
        if not isinstance(spec, ConvSpec) or not ALGORITHMS.get(algorithm):
            return [_Call(spec, self._arguments(lowered, kernel, spec), kernel)]
        made = winograd_spec(spec, self.chooser.form(shape_of(spec), algorithm))
        if isinstance(made, WinogradConv):
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            return [_Call(made, [*self._arguments(lowered, kernel, made), Ref("scratch", 0)], kernel)]
        first, second, last = made
        x, weights, *rest = self._arguments(lowered, kernel, second)
        transformed, product = Temporary(second.transformed.nbytes), Temporary(second.product.nbytes)
        return [
            _Call(first, [x, transformed], kernel),
            _Call(second, [transformed, weights, product], kernel, part=":product"),
            _Call(last, [product, *rest], kernel, part=":output"),
        ]

    def _gradient_calls(self, lowered: Lowered, spec: WeightGradientSpec, kernel: Kernel) -> list[_Call]:
        """The sums of a weight gradient, and where they are made in parts a step that adds those."""
        sums = Temporary(spec.sums.nbytes) if spec.parts > 1 else kernel.output
        arguments = [*self._operands(lowered, spec), sums]
        products = _Call(spec, arguments, kernel)
        if ALGORITHMS.get(kernel.anchor.algorithm):
            made = winograd_gradient(spec)
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            products = _Call(made, [*arguments, Ref("scratch", 0)], kernel)
        return [products, _Call(sum_spec(spec), [sums, kernel.output], kernel, part=":sum")] if spec.parts > 1 else [products]

    def _chain_call(self, spec: ConvChain, lowered: Lowered, kernel: Kernel) -> _Call:
        made = banded(spec, self.plan.target)
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
        arguments = [*self._arguments(lowered, kernel, made), Ref("scratch", 0)]
        return _Call(made, arguments, kernel, part=f"+{kernel.chain[1].anchor.name}")

    def _matmul_call(self, spec: MatmulSpec, lowered: Lowered, kernel: Kernel) -> _Call:
        made, arguments = with_panels(spec, self.plan.target), self._arguments(lowered, kernel, spec)
        if isinstance(made, MatmulPanels):
            self.plan.scratch_bytes = max(self.plan.scratch_bytes, made.scratch.nbytes)
            arguments.append(Ref("scratch", 0))
        return _Call(made, arguments, kernel)

    def _recurrent(self, spec: RecurrentSpec | RecurrentGradSpec, lowered: Lowered, kernel: Kernel) -> _Call:
        self.plan.scratch_bytes = max(self.plan.scratch_bytes, spec.scratch.nbytes)
        memory = Temporary(spec.memory.nbytes)
        return _Call(spec, [*self._operands(lowered, spec), *kernel.outputs, memory, Ref("scratch", 0), Ref("pool", 0)], kernel)

    def _arguments(self, lowered: Lowered, kernel: Kernel, spec: KernelSpec) -> list[Value | Ref | Temporary]:
        """Of the operands, with weights packed for `spec`."""
        return [*self._operands(lowered, spec), kernel.output]

    def _operands(self, lowered: Lowered, spec: KernelSpec) -> list[Value | Ref | Temporary]:
        arguments: list[Value | Ref | Temporary] = []
        for slot, value in enumerate(lowered.inputs):
            if value.is_constant:
                arguments.append(Ref("weight", self._weight(value, _packed_for(spec, slot) if slot in lowered.packed else None)))
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
        """Adds the step that packs run-time weights, unless some convolution of the same order has done so."""
        made = lower_pack(conv, weight, self._makers.get(weight), self.placement.operand, self.plan.target.lanes(weight.type.dtype))
        assert isinstance(made.spec, PackSpec)
        key = (weight, made.spec)
        if key not in self._packed:
            self._packed[key] = Temporary(made.spec.packed.nbytes)
            arguments = [*self._operands(made, made.spec), self._packed[key]]
            self._pending.append(_Call(made.spec, arguments, self._makers.get(weight), part=":pack"))
        return self._packed[key]

    def _pack_recurrent(self, spec: RecurrentSpec | RecurrentGradSpec, weights: Value) -> Temporary:
        packing = pack_spec(spec)
        key = (weights, packing)
        if key not in self._packed:
            self._packed[key] = Temporary(packing.outputs[0].nbytes)
            self._pending.append(_Call(packing, [weights, self._packed[key]], None, part=f"{weights.name}:pack"))
        return self._packed[key]

    def _update_states(self) -> dict[Value, Value]:
        """New value -> the state that it may be written into directly; the others are copied when all else is done."""
        direct: dict[Value, Value] = {}
        copies = []
        for state, value in self.graph.updates.items():
            touching = [number for number, call in enumerate(self._pending) if state in call.arguments]
            number = next(number for number, call in enumerate(self._pending) if call.stores(value))
            call = self._pending[number]
            slots = [slot for slot, argument in enumerate(call.arguments) if argument is state]
            if max(touching, default=-1) <= number and reads_at_own_place(call.spec, slots) and value not in self.graph.outputs:
                direct[value] = state
            else:
                copies.append(_Call(copy_spec(self.placement.operand(value)), [value, state], None, part=f"{state.name}:store"))
        self._pending += copies
        return direct

    def _weight(self, value: Value, spec: KernelSpec | None) -> int:
        assert value.data is not None
        key = (id(value.data), spec)
        if key not in self._weights:
            self._weights[key] = len(self.plan.weights)
            self.plan.weights.append(Weight(value.name, value.data, spec))
        return self._weights[key]

    def _assign_memory(self) -> None:
        outputs = {value: i for i, value in reversed(list(enumerate(self.graph.outputs))) if value.kind is Kind.RESULT}
        inputs = {value: i for i, value in enumerate(self.graph.inputs)}
        spans: dict[Buffer, tuple[int, int]] = {}
        for number, call in enumerate(self._pending):
            for argument in call.arguments:
                if not isinstance(argument, Ref):
                    root = self._root(argument)
                    first, _ = spans.get(root, (number, number))
                    spans[root] = (first, number)
        repeated = sum(call.samples is not None for call in self._pending)  # the first steps
        lifetimes = {
            root: self._lifetime(root, first, last, repeated)
            for root, (first, last) in spans.items()
            if root not in outputs and root not in inputs and root not in self._states and root not in self._written
        }
        inside = {root for root, life in lifetimes.items() if life.last < repeated}
        offsets, size = assign(lifetimes)
        returned = sum(type.nbytes for _, type in self.plan.outputs)
        if size + returned > max_bytes():
            raise too_large(f"the arena would need {size} bytes and the outputs {returned}", hint="use a smaller batch")
        self.plan.arena_bytes = size
        if repeated and self._split is not None:
            self.plan.groups, self.plan.repeated = self._batch // self._split.group, repeated
        for call, first_sample in self._in_order(repeated):
            refs = []
            for argument in call.arguments:
                if isinstance(argument, Ref):
                    refs.append(argument)
                    continue
                root = self._root(argument)
                offset = self.placement.place(argument).offset if isinstance(argument, Value) else 0
                if call.samples and isinstance(argument, Value) and root not in inside:
                    offset += first_sample * call.samples.get(argument, 0)
                if root in outputs:
                    refs.append(Ref("output", outputs[root], offset))
                elif root in inputs:
                    refs.append(Ref("input", inputs[root], offset))
                elif root in self._states or root in self._written:
                    refs.append(Ref("state", self._states[self._written.get(root, root)], offset))
                else:
                    refs.append(Ref("arena", 0, offsets[root] + offset))
            self.plan.steps.append(self._step(call, tuple(refs)))

    def _lifetime(self, root: Buffer, first: int, last: int, repeated: int) -> Lifetime:
        """Of a buffer; what outlives the steps for groups of samples holds the whole batch, and no group may write over it."""
        if isinstance(root, Temporary):
            return Lifetime(root.nbytes, first, last)
        nbytes = self.placement.operand(root).nbytes
        if last < repeated:
            assert self._split is not None
            return Lifetime(nbytes // self._batch * self._split.group, first, last)
        return Lifetime(nbytes, 0 if first < repeated else first, last)

    def _in_order(self, repeated: int) -> Iterator[tuple[_Call, int]]:
        """The steps as they run, each with the number of the first sample that it takes."""
        for number in range(self.plan.groups):
            for call in self._pending[:repeated]:
                yield call, number * self._batch // self.plan.groups
        for call in self._pending[repeated:]:
            yield call, 0

    def _root(self, argument: Value | Temporary) -> Buffer:
        return self.placement.place(argument).root if isinstance(argument, Value) else argument

    def _step(self, call: _Call, refs: tuple[Ref, ...]) -> Step:
        kernel, spec = call.kernel, call.spec
        number = self._numbers.setdefault(spec, len(self._numbers))
        if number == len(self.plan.kernels):
            self.plan.kernels.append(spec)
        if kernel is None:
            return Step(number, refs, call.part or "halo", (), (), Cost(0, 0), call.overlaps)
        names = tuple(node.name for node in kernel.nodes)
        groups = self.plan.groups if call.samples is not None else 1
        return Step(number, refs, f"{kernel.anchor.name}{call.part}", kernel.origins, names, _cost(call, kernel, groups), call.overlaps)


def _packed_for(spec: KernelSpec, slot: int) -> KernelSpec:
    """The spec that says in which order the weights of that slot are read."""
    return spec.chain.second if isinstance(spec, ChainBands) and slot != spec.chain.weights[0] else spec


def _cost(call: _Call, kernel: Kernel, groups: int) -> Cost:
    """Operations and bytes of the model's nodes for one of the groups of samples; of a convolution in three steps the operations are
    those of the second."""
    if isinstance(call.spec, (WinogradInput, WinogradOutput, PackSpec)) or call.part == ":sum":
        return Cost(0, sum(operand.nbytes for operand in call.spec.operands))
    flops = sum(node.op.cost([v.type for v in node.inputs], [v.type for v in node.outputs]).flops for node in kernel.nodes)
    return Cost(flops // groups, sum(value.type.nbytes for value in (*kernel.inputs, *kernel.outputs)) // groups)


def _signature(values: list[Value]) -> list[tuple[str, TensorType]]:
    return [(value.name, value.type) for value in values]


