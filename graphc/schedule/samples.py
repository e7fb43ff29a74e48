"""samples: the first part of a batch's program, run a few samples at a time, so that what lies between kernels stays in a cache.

A kernel may run on a part of a batch where every element is computed from its own sample: `for_samples` proves that from the kernel's
spec (each offset is `sample * size of a sample + something inside it`) and gives the spec for fewer samples, which computes each element
by the same sum: the bits are those of the whole batch. `best_split` says up to which kernel, and how many samples at a time, by a model of
memory traffic: groups keep activations in a nearer cache, and read weights once per group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from graphc.kernel.canonical import canonical
from graphc.kernel.choose import machine_of
from graphc.kernel.expr import Expr, const, index, substitute, walk
from graphc.kernel.index import affine, bounds, depends
from graphc.kernel.spec import ConvChain, ConvSpec, Epilogue, KernelSpec, Nest, NestSpec, Operand, StoreAt
from graphc.knobs import knob
from graphc.target import Target

GROUP = knob("GRAPHC_SAMPLES", int, 0, "samples of a batch that its first kernels take at a time, a divisor of it; 0: by a model, -1: all")
_CACHE_SHARE = 0.5  # of a cache that activations, or weights, may count on
_WORTH = 0.95  # of the memory traffic: less must be left for a split to be made
_EMPTY_STEP = 200.0  # cycles of a step on one core
_SHARED_STEP = 12000.0  # on several: the barrier, and less work that splits less evenly (measured: 2 to 7 us a step)


@dataclass(frozen=True)
class Sampled:
    """A kernel for some samples; `steps`: elements from one sample to the next in each operand, 0 where all samples share it."""

    spec: KernelSpec
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Traffic:
    """Bytes that one kernel moves: of activations for each sample, of weights."""

    activations: float
    weights: float


@dataclass(frozen=True)
class Split:
    """The first `kernels` kernels take `group` samples at a time."""

    kernels: int
    group: int


def for_samples(spec: KernelSpec, batch: int, group: int) -> Sampled | None:
    """The kernel of `spec` for `group` of its `batch` samples; None where samples meet in it, or that cannot be seen."""
    if isinstance(spec, NestSpec):
        return _nests(spec, batch, group)
    if isinstance(spec, ConvSpec):
        return _conv(spec, batch, group)
    if isinstance(spec, ConvChain):
        return _chain(spec, batch, group)
    return None


def best_split(traffic: Sequence[Traffic], kernels: int, batch: int, target: Target) -> Split | None:
    """The best split with at most the first `kernels` kernels in groups; None where the whole batch at once is about as good."""
    wanted = GROUP.get()
    if wanted < 0 or batch < 2 or not kernels:
        return None
    if wanted:
        return Split(kernels, wanted) if wanted < batch and batch % wanted == 0 else None
    model = _Model(traffic, batch, target)
    groups = list(divisors(batch))
    whole = model.cycles(0, batch)
    best = min((Split(count, group) for count in range(1, kernels + 1) for group in groups), key=lambda s: model.cycles(s.kernels, s.group))
    return best if model.cycles(best.kernels, best.group) < _WORTH * whole else None


class _Model:
    """Cycles per batch that memory traffic takes on all cores."""

    def __init__(self, traffic: Sequence[Traffic], batch: int, target: Target) -> None:
        self._traffic, self._batch, self._target = traffic, batch, target
        self._machine = machine_of(target)
        self._step = _SHARED_STEP if target.cores > 1 else _EMPTY_STEP
        self._weights = list(accumulate((kernel.weights for kernel in traffic), initial=0.0))
        self._moved: dict[int, list[float]] = {}

    def cycles(self, kernels: int, group: int) -> float:
        """With the first kernels in groups: the first group finds their weights as the whole batch would, the others where they stayed."""
        groups, weights = self._batch // group, self._weights[kernels]
        whole = self._activations(self._batch)
        moved = self._activations(group)[kernels] * groups + whole[-1] - whole[kernels]
        return moved + self._weights[-1] / self._rate(self._weights[-1]) + (groups - 1) * weights / self._rate(weights)

    def _activations(self, samples: int) -> list[float]:
        """Of the first 0, 1, 2, ... kernels, with their steps."""
        if samples not in self._moved:
            sizes = (kernel.activations * samples for kernel in self._traffic)
            self._moved[samples] = list(accumulate((self._read(size, samples) + self._step for size in sizes), initial=0.0))
        return self._moved[samples]

    def _read(self, size: float, samples: int) -> float:
        """Where each core has samples of its own, it wrote what it reads; else most of that lies in another core's cache."""
        cores = self._target.cores
        foreign = (cores - 1) / cores if samples % cores else 0.0
        rate = self._rate(size)
        return size * ((1 - foreign) / rate + foreign / min(rate, self._machine.l3 * cores))

    def _rate(self, footprint: float) -> float:
        """Bytes per cycle of what lies in a footprint of that many bytes."""
        target, machine = self._target, self._machine
        if footprint <= _CACHE_SHARE * target.l2 * target.cores:
            return machine.l2 * target.cores
        return machine.l3 * target.cores if footprint <= _CACHE_SHARE * target.l3 else machine.memory_all


# what a kernel reads of other samples ---------------------------------------------------------------------------------------


class _Steps:
    """Collects, for each operand, how far apart the samples are that the same element reads or writes; fails where that is not one."""

    def __init__(self, operands: Sequence[Operand], batch: int) -> None:
        self._operands, self._batch = operands, batch
        self.found: dict[int, int] = {}

    def add(self, slot: int, offset: Expr, sample: Expr) -> bool:
        """Whether the offset stays inside the sample, or does not depend on it, as all others of that operand do."""
        form = affine(offset, sample)
        if form is None:
            return False
        step, rest = form
        if step:
            operand = self._operands[slot]
            low, high = bounds(rest)
            if not operand.shape or operand.shape[0] != self._batch or step != operand.strides[0] or low < 0 or high >= step:
                return False
        return self.found.setdefault(slot, step) == step

    def add_loads(self, value: Expr, sample: Expr) -> bool:
        """Of an expression that must depend on the sample through its loads alone."""
        loads = [node for node in walk(value) if node.fn == "load"]
        rest = substitute(value, {node: const(0, node.dtype) for node in loads}) if loads else value
        return not depends([rest], sample) and all(self.add(node.attr, node.args[0], sample) for node in loads)

    def of_all(self) -> tuple[int, ...]:
        return tuple(self.found.get(slot, 0) for slot in range(len(self._operands)))


def _nests(spec: NestSpec, batch: int, group: int) -> Sampled | None:
    steps = _Steps(spec.operands, batch)
    for nest in spec.nests:
        if not nest.axes or nest.axes[0].extent != batch:
            return None
        for store in nest.stores:
            if not (steps.add(store.slot, store.offset, nest.axes[0]) and steps.add_loads(store.value, nest.axes[0])):
                return None
            if not steps.found[store.slot]:
                return None
    found = steps.of_all()
    operands = _operands(spec.operands, found, group)
    count = len(spec.inputs)
    made = NestSpec(spec.family, operands[:count], operands[count:], tuple(_nest(nest, group) for nest in spec.nests))
    return Sampled(canonical(made), found)


def _nest(nest: Nest, group: int) -> Nest:
    shorter = _shorter(nest.axes[0], group)
    stores = (StoreAt(s.slot, substitute(s.offset, shorter), substitute(s.value, shorter)) for s in nest.stores)
    return Nest((shorter[nest.axes[0]], *nest.axes[1:]), tuple(stores))


def _conv(spec: ConvSpec, batch: int, group: int) -> Sampled | None:
    sample = spec.epilogue.index[0]
    steps = _Steps(spec.operands, batch)
    if spec.x.shape[0] != batch or spec.output.shape[0] != batch or not steps.add_loads(spec.epilogue.value, sample):
        return None
    last = len(spec.operands) - 1
    steps.found |= {0: spec.x.strides[0], 1: 0, last: spec.output.strides[0]}
    found = steps.of_all()
    x, _, *extras, output = _operands(spec.operands, found, group)
    shorter = _shorter(sample, group)
    epilogue = Epilogue(
        (shorter[sample], *spec.epilogue.index[1:]), spec.epilogue.acc, substitute(spec.epilogue.value, shorter)
    )  # fmt: skip
    return Sampled(canonical(replace(spec, x=x, extras=tuple(extras), output=output, epilogue=epilogue)), found)


def _chain(spec: ConvChain, batch: int, group: int) -> Sampled | None:
    first, second = _conv(spec.first, batch, group), _conv(spec.second, batch, group)
    if first is None or second is None:
        return None
    assert isinstance(first.spec, ConvSpec)
    assert isinstance(second.spec, ConvSpec)
    return Sampled(ConvChain(first.spec, second.spec), (*first.steps[:-1], *second.steps[1:]))


def _shorter(sample: Expr, group: int) -> dict[Expr, Expr]:
    """The loop over samples, for fewer of them. One sample is number 0."""
    return {sample: index(sample.attr[0], group)}


def _operands(operands: Iterable[Operand], steps: Iterable[int], group: int) -> tuple[Operand, ...]:
    return tuple(replace(o, shape=(group, *o.shape[1:])) if step else o for o, step in zip(operands, steps, strict=True))


def traffic_of(sampled: Sampled, weights: float) -> Traffic:
    """`sampled`: for one sample."""
    moved = sum(step * operand.dtype.itemsize for step, operand in zip(sampled.steps, sampled.spec.operands, strict=True))
    return Traffic(moved, weights)


def divisors(batch: int) -> Iterator[int]:
    """Ascending, without the batch itself."""
    return (group for group in range(1, batch) if batch % group == 0)
