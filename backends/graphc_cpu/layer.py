"""One convolution alone: every way to compute it, timed on this machine.

Two times: `hot`, the same weights again and again; `cold`, other weights at each call, together more than the last cache holds, as in a
network whose weights do not fit. Input and output stay where the call before left them.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.kernel.canonical import spec_text
from graphc.kernel.choose import ALGORITHMS, Candidate, ConvShape
from graphc.kernel.expr import arg, const, index, load, maximum
from graphc.kernel.spec import ConvSpec, Epilogue, KernelSpec, Operand, WinogradConv
from graphc.schedule.winograd import winograd_spec
from graphc.target import Target
from graphc.types.dtype import f32, i64
from graphc.types.layout import Layout
from graphc_cpu import cache, jit
from graphc_cpu.jit import Library
from graphc_cpu.kernel_code import compile_specs
from graphc_cpu.kernels.pack import pack_conv_weight
from graphc_cpu.runtime.pool import Pool
from graphc_cpu.runtime.state import Step, step_table

SECONDS = 0.02  # of timing one candidate, cold and hot each
_LEAST_ROUNDS = 3
_ALIGN = 64
Call = tuple[KernelSpec, tuple[str, ...]]  # a kernel, and the names of its operands


@dataclass(frozen=True)
class Timing:
    """Best seconds of one convolution."""

    cold: float
    hot: float


def convolution(shape: ConvShape, target: Target) -> ConvSpec:
    """A 3x3 convolution of that shape with bias and Relu: what stands for all of that shape when times are compared."""
    lanes = target.lanes(f32)
    size = (shape.height, shape.width)
    x = Operand(f32, (shape.batch, shape.inputs, *size), Layout(lanes, ((1, 1), (1, 1))))
    out = Operand(f32, (shape.batch, shape.outputs, *size), Layout(lanes))
    blocks = -(-shape.outputs // lanes)
    cb, lane = index("cb", blocks), index("lane", lanes)
    acc = arg("acc", f32)
    value = maximum(acc + load(2, cb * const(lanes, i64) + lane, f32), const(0.0, f32))
    epilogue = Epilogue((index("n", shape.batch), cb, index("s0", size[0]), index("s1", size[1]), lane), acc, value)
    return ConvSpec(
        x, (shape.outputs, shape.inputs, 3, 3), (Operand(f32, (blocks * lanes,)),), out, (1, 1), (1, 1), (1, 1), 1, epilogue
    )  # fmt: skip


def haloed(conv: ConvSpec) -> ConvSpec:
    """The convolution with a halo that lets whole tiles of every algorithm be read."""
    halo = []
    for d, (before, after) in enumerate(conv.x.layout.halo or ((0, 0), (0, 0))):
        reach = max(-(-conv.output.shape[2 + d] // m) * m for m in ALGORITHMS.values() if m)
        halo.append((before, max(after, reach + 2 - conv.pad[d] - conv.x.shape[2 + d])))
    return replace(conv, x=replace(conv.x, layout=Layout(conv.x.layout.block, tuple(halo))))


def has_choice(conv: ConvSpec) -> bool:
    """Whether Winograd computes this convolution too (see the pass `choose-algorithm`)."""
    blocked = conv.x.layout.block == conv.output.layout.block > 1
    plain = conv.groups == 1 and {*conv.stride, *conv.dilation} == {1} and conv.weight_shape[2:] == (3, 3)
    return plain and blocked and conv.x.dtype is f32 and 0 not in conv.output.shape


def calls(conv: ConvSpec, candidate: Candidate) -> list[Call]:
    """The kernels of a candidate in order."""
    extras = tuple(f"extra{i}" for i in range(len(conv.extras)))
    if not candidate.m:
        return [(conv, ("x", "weights", *extras, "output"))]
    made = winograd_spec(haloed(conv), candidate)
    if isinstance(made, WinogradConv):
        return [(made, ("x", "weights", *extras, "output", "scratch"))]
    first, second, last = made
    return [
        (first, ("x", "transformed")), (second, ("transformed", "weights", "product")), (last, ("product", *extras, "output")),
    ]  # fmt: skip


def time_candidates(
    conv: ConvSpec, candidates: Sequence[Candidate], target: Target, pool: Pool, *, seconds: float | None = None
) -> dict[Candidate, Timing]:  # fmt: skip
    """Compile all (through the cache), then time each, in turns, so that a slow moment of the machine hits no candidate alone.

    `seconds`: for each candidate, cold and hot (default: SECONDS).
    """
    plans = {candidate: calls(conv, candidate) for candidate in candidates}
    objects = compile_specs({spec for plan in plans.values() for spec, _ in plan}, target)
    memory = _Memory([call for plan in plans.values() for call in plan], target, pool.threads)
    with jit.load(objects) as library:
        subjects = {candidate: _Subject(plan, target, memory, pool, library) for candidate, plan in plans.items()}
        return _in_turns(subjects, seconds or SECONDS)


def _in_turns(subjects: dict[Candidate, _Subject], seconds: float) -> dict[Candidate, Timing]:
    best = {candidate: [float("inf"), float("inf")] for candidate in subjects}
    end = time.perf_counter() + 2 * seconds * len(subjects)
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        for candidate, subject in subjects.items():
            for kind, call in enumerate((subject.cold, subject.hot)):
                best[candidate][kind] = min(best[candidate][kind], call())
        rounds += 1
    return {candidate: Timing(cold, hot) for candidate, (cold, hot) in best.items()}


class _Memory:
    """What all candidates of a layer share: a buffer for each name, and weights enough to find them cold, taken from one end to the
    other and round again."""

    def __init__(self, calls: Sequence[Call], target: Target, threads: int) -> None:
        self._keep: list[Any] = []
        sizes: dict[str, int] = {}
        for spec, names in calls:
            for name, operand in zip(names, spec.operands, strict=True):
                nbytes = _weight_bytes(spec, target) if name == "weights" else operand.nbytes * (threads if name == "scratch" else 1)
                sizes[name] = max(sizes.get(name, 0), nbytes)
        self.weights = max(2 * sizes["weights"], target.l3 * 3 // 2)
        self.addresses = {name: self._allocate(self.weights if name == "weights" else size) for name, size in sizes.items()}
        self._cursor = 0

    def next_set(self, size: int) -> int:
        """The number of the next set of weights of that size."""
        number = -(-self._cursor // size)
        if (number + 1) * size > self.weights:
            number = 0
        self._cursor = (number + 1) * size
        return number

    def _allocate(self, nbytes: int) -> int:
        memory = np.resize(np.random.default_rng(0).standard_normal(4099, np.float32), nbytes // 4 + 2 * _ALIGN)
        self._keep.append(memory)
        return int(memory.ctypes.data) + -int(memory.ctypes.data) % _ALIGN


class _Subject:
    """A candidate ready to run: a step table over all sets of weights."""

    def __init__(self, plan: Sequence[Call], target: Target, memory: _Memory, pool: Pool, library: Library) -> None:
        self._pool, self._memory, self._count = pool, memory, len(plan)
        self._size = max(_weight_bytes(spec, target) for spec, names in plan if "weights" in names)
        self._keep: list[Any] = []
        addresses = [library[cache.symbol(spec_text(spec))] for spec, _ in plan]
        steps = []
        for number in range(memory.weights // self._size):
            here = {**memory.addresses, "weights": memory.addresses["weights"] + number * self._size}
            for (_, names), address in zip(plan, addresses, strict=True):
                args = (ctypes.c_void_p * len(names))(*(here[name] for name in names))
                self._keep.append(args)
                steps.append(Step(address, ctypes.addressof(args)))
        self._table = step_table(steps)

    def cold(self) -> float:
        """Seconds with weights that were not used for the longest time."""
        self._last = self._memory.next_set(self._size)
        return self._run()

    def hot(self) -> float:
        """Seconds with the weights of the run before."""
        return self._run()

    def _run(self) -> float:
        address = int(self._table.ctypes.data) + self._last * self._count * self._table.itemsize
        start = time.perf_counter()
        self._pool.run(address, self._count)
        return time.perf_counter() - start


def _weight_bytes(spec: KernelSpec, target: Target) -> int:
    """Of one set, packed, in whole cache lines."""
    if isinstance(spec, ConvSpec):
        nbytes = pack_conv_weight(spec, target, np.zeros(spec.weight_shape, spec.x.dtype.numpy)).nbytes
    else:
        conv_shape = spec.conv.weight_shape if isinstance(spec, WinogradConv) else spec.weight_shape  # type: ignore[union-attr]
        lanes = target.lanes(f32)
        nbytes = spec.grid.positions * conv_shape[1] * -(-conv_shape[0] // lanes) * lanes * 4  # type: ignore[union-attr]
    return -(-nbytes // _ALIGN) * _ALIGN
