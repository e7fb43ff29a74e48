"""A compiled plan in memory: one native call per run, safe for concurrent callers (each has an arena of its own)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from ctypes import addressof, c_char
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from graphc.backend import Memory, StepTime
from graphc.ir.graph import Array
from graphc.kernel.saved import SavedKernel
from graphc.schedule.plan import Plan, Ref, State
from graphc_cpu import cache, library
from graphc_cpu.link import Image, link
from graphc_cpu.runtime.pool import Pool, pool
from graphc_cpu.runtime.state import Step
from graphc_cpu.table import Table
from graphc_cpu.weights import ALIGN, WeightBuffer

if TYPE_CHECKING:
    from graphc.kernel.spec import KernelSpec


class CpuProgram:
    """See `graphc.backend.Program`. `texts`: of the kernels; `image`: their code, None where it cannot be linked ahead."""

    def __init__(self, plan: Plan, code: Mapping[str, bytes] | Image, weights: WeightBuffer, threads: int | None) -> None:
        """`code`: objects by spec text, or linked; `threads`: None means one per usable core."""
        self._plan = plan
        self._outputs = [(type.static_shape, type.dtype.numpy) for _, type in plan.outputs]
        self.weights = weights
        self.texts = [spec.text if isinstance(spec, SavedKernel) else _spec_text(spec) for spec in plan.kernels]
        self.image = code if isinstance(code, Image) else link(code.values())
        if self.image is not None:
            self._library, size = library.load_image(self.image), len(self.image.code)
        else:
            assert not isinstance(code, Image)
            self._library, size = library.load(code), sum(map(len, code.values()))
        self._addresses = [self._library.address(cache.symbol(text)) for text in self.texts]
        self._pool = pool(threads or plan.target.cores)
        self._idle: list[_Context] = []
        self._lock = threading.Lock()
        self.memory = Memory(plan.arena_bytes + plan.scratch_bytes * self._pool.threads, weights.nbytes, size)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        context = self._take()
        try:
            context.bind(inputs, outputs)
            self._pool.run(context.table.address, context.table.count)
        finally:
            self._give_back(context)
        context.table.check_ended()
        return outputs

    def profile(self, inputs: Sequence[Array], runs: int) -> list[StepTime]:
        """Steps in a loop as often as they ran in one run of the whole; of a choice, both sides."""
        outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        best = [float("inf")] * len(self._plan.steps)
        context = self._take()
        table = context.table
        try:
            context.bind(inputs, outputs)
            if self._plan.controls:
                self._pool.run(table.address, table.count)
                table.check_ended()
            times = self._plan.times(table.iterations())
            for _ in range(runs):
                for number in range(len(self._plan.steps)):
                    start = time.perf_counter()
                    self._pool.run(table.step_address(number), 1)
                    best[number] = min(best[number], time.perf_counter() - start)
        finally:
            self._give_back(context)
        rows = zip(self._plan.steps, best, times, strict=True)
        return [
            StepTime(
                step.label, self._plan.kernels[step.kernel].family, seconds * n, step.cost.flops * n, step.cost.bytes * n, step.origins
            )
            for step, seconds, n in rows
        ]  # fmt: skip

    def _take(self) -> _Context:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Context(self._plan, self._addresses, self.weights, self._pool)

    def _give_back(self, context: _Context) -> None:
        """For another run, unless its last one was broken off: what moves in it is anywhere then."""
        if context.table.broken:
            return
        with self._lock:
            self._idle.append(context)


class _Patch(NamedTuple):
    """Entry `slot` of the pointer table is `offset` bytes into input or output number `which` of each run."""

    slot: int
    which: int
    offset: int


def _address(array: Array) -> int:
    """Of the first element; a quarter of the time of `array.ctypes.data` for what is writable and not empty."""
    try:
        return addressof(c_char.from_buffer(array.data))
    except (TypeError, ValueError):
        return array.ctypes.data


def _spec_text(spec: KernelSpec) -> str:
    from graphc.kernel.canonical import spec_text  # late: kept plans bring their texts

    return spec_text(spec)


class _Context:
    """What one run at a time uses: an arena and scratch behind it, the pointers of all steps, and the step table."""

    def __init__(self, plan: Plan, addresses: Sequence[int], weights: WeightBuffer, pool: Pool) -> None:
        self._meeting = pool.meeting
        self._scratch = -(-plan.arena_bytes // ALIGN) * ALIGN
        self._arena = np.zeros(self._scratch + plan.scratch_bytes * pool.threads + ALIGN, np.uint8)
        base = int(self._arena.ctypes.data) + -int(self._arena.ctypes.data) % ALIGN
        self._pointers = np.zeros(sum(len(step.args) for step in plan.steps) + 1, np.uint64)
        self._slots = self._pointers.data  # writes to it take half the time
        self._inputs: list[_Patch] = []
        self._outputs: list[_Patch] = []
        steps: list[Step] = []
        slot = 0
        for step in plan.steps:
            address = int(self._pointers.ctypes.data) + slot * 8
            steps.append(Step(addresses[step.kernel], address, barrier=not step.overlaps))
            for ref in step.args:
                self._point(slot, ref, base, weights, plan.states)
                slot += 1
        self.table = Table(plan, steps, base, pool.alone)

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Point to the arrays of this run; the caller keeps them alive."""
        for patches, arrays in ((self._inputs, inputs), (self._outputs, outputs)):
            addresses = [_address(array) for array in arrays]
            for slot, which, offset in patches:
                self._slots[slot] = addresses[which] + offset

    def _point(self, slot: int, ref: Ref, base: int, weights: WeightBuffer, states: Sequence[State]) -> None:
        if ref.space == "arena":
            self._pointers[slot] = base + ref.offset
        elif ref.space == "scratch":
            self._pointers[slot] = base + self._scratch
        elif ref.space == "pool":
            self._pointers[slot] = self._meeting
        elif ref.space == "weight":
            self._pointers[slot] = weights.address(ref.index) + ref.offset
        elif ref.space == "state":
            self._pointers[slot] = states[ref.index].data.ctypes.data + ref.offset
        else:
            (self._inputs if ref.space == "input" else self._outputs).append(_Patch(slot, ref.index, ref.offset))
