"""plan: the whole program as data: kernels, steps, arena, weights. The same plan serves every back end, JIT and ahead of time.

`graphc.schedule.planner` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphc.errors import UnsupportedError
from graphc.ir.graph import Array
from graphc.kernel.cost import Cost
from graphc.kernel.saved import SavedKernel
from graphc.target import Target
from graphc.types.tensor import TensorType

if TYPE_CHECKING:  # running a plan that was kept on disk needs no specs
    from collections.abc import Mapping

    from graphc.kernel.spec import KernelSpec


@dataclass(frozen=True)
class Ref:
    """Where an operand's pointer points: space is arena, weight, state, input, output, scratch (memory of each thread, one after the
    other, of the kernel's own size), or pool (what the threads of a kernel wait for each other with, the back end's own); `index` counts
    weights, states, inputs or outputs."""

    space: str
    index: int
    offset: int = 0  # bytes

    def __str__(self) -> str:
        name = self.space if self.space in ("arena", "scratch", "pool") else f"{self.space}{self.index}"
        return f"{name}+{self.offset}" if self.offset or self.space == "arena" else name


@dataclass(frozen=True, eq=False)
class Weight:
    """Constant data; where `spec` is given the back end packs it for that kernel."""

    name: str
    data: Array
    spec: KernelSpec | None


@dataclass(frozen=True, eq=False)
class State:
    """An array that the program owns and updates: `data` is the memory itself, aligned and with slack (`graphc.ir.state`)."""

    name: str
    data: Array


@dataclass(frozen=True)
class Step:
    """One call of a kernel. `overlaps`: the next step may start before this one has ended."""

    kernel: int
    args: tuple[Ref, ...]
    label: str
    origins: tuple[str, ...]
    nodes: tuple[str, ...]
    cost: Cost
    overlaps: bool = False


@dataclass(frozen=True)
class Control:
    """Where a run goes on before step `at`: ENTER a region or pass over it, go AGAIN through it or leave it, or its mere end (LEAVE).

    `partner`: number of the control at the region's other end. A run enters where `trips` (-1: no bound) is above 0, the i64 `count` is,
    and the bool `condition` holds, or does not where `negate` says so; it goes again by the same rule, with the number of iterations run
    so far, which `counter` holds (i64). More than `limit` iterations end the run with an error (0: no limit). `moves`: (step, argument,
    bytes) of what points elsewhere in each iteration.
    """

    at: int
    kind: str
    partner: int
    label: str
    counter: Ref
    trips: int = 1
    count: Ref | None = None
    condition: Ref | None = None
    negate: bool = False
    limit: int = 0
    moves: tuple[tuple[int, int, int], ...] = ()

    def __str__(self) -> str:
        if self.kind == LEAVE:
            return f"end {self.label}"
        tests = [f"{self.counter} < {end}" for end in (self.trips if self.trips >= 0 else None, self.count) if end is not None]
        tests += [f"{'not ' * self.negate}{self.condition}"] if self.condition is not None else []
        limit = f", at most {self.limit} times" if self.limit else ""
        moved = "".join(f", step {step} argument {slot} by {nbytes}" for step, slot, nbytes in self.moves)
        return f"{self.kind} {self.label} while {' and '.join(tests)}{limit}{moved}"


ENTER, AGAIN, LEAVE = "enter", "again", "leave"


@dataclass
class Plan:
    """A program for one target and fixed sizes."""

    name: str
    target: Target
    inputs: list[tuple[str, TensorType]]
    outputs: list[tuple[str, TensorType]]
    kernels: list[KernelSpec | SavedKernel] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)  # in the order in which a run meets them
    weights: list[Weight] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    arena_bytes: int = 0
    scratch_bytes: int = 0  # per thread
    groups: int = 1  # of samples of a batch; the first `groups * repeated` steps are `repeated` steps once for each
    repeated: int = 0

    @property
    def specs(self) -> list[KernelSpec]:
        """The kernels. Raises UnsupportedError for a plan that was kept on disk: it has their families and texts alone."""
        if any(isinstance(spec, SavedKernel) for spec in self.kernels):
            raise UnsupportedError("a plan from the cache has no kernel specs", hint="graphc.driver.lower, or GRAPHC_CACHE=0")
        return [spec for spec in self.kernels if not isinstance(spec, SavedKernel)]

    @property
    def flops(self) -> int:
        """Of a run; loops whose number of iterations is not known count once."""
        return sum(step.cost.flops * times for step, times in zip(self.steps, self.times(), strict=True))

    def times(self, iterations: Mapping[int, int] | None = None) -> list[int]:
        """How often each step runs. `iterations`: of a run, by number of the control that enters; default: what is known of any run."""
        found, running = [], [1]
        controls = list(enumerate(self.controls))
        for number in range(len(self.steps)):
            while controls and controls[0][1].at <= number:
                which, control = controls.pop(0)
                if control.kind != ENTER:
                    running.pop()
                else:
                    own = max(control.trips, 1) if iterations is None else iterations.get(which, 1)
                    running.append(running[-1] * own)
            found.append(running[-1])
        return found

    def __str__(self) -> str:
        size = f"{len(self.steps)} steps, {len(self.kernels)} kernels, arena {self.arena_bytes} bytes"
        lines = [f"plan {self.name} for {self.target.name}: {size}"]
        waiting, depth = list(self.controls), 0
        for number, step in enumerate(self.steps):
            while waiting and waiting[0].at <= number:
                depth = _show(waiting.pop(0), depth, lines)
            spec = self.kernels[step.kernel]
            args = ", ".join(str(ref) for ref in step.args)
            barrier = "  (no barrier)" if step.overlaps else ""
            pad = "  " * depth
            lines.append(f"  {pad}{number:4d} k{step.kernel:<3d} {spec.family:<9} {step.label}({args}) {step.cost.flops} flops{barrier}")
        for control in waiting:
            depth = _show(control, depth, lines)
        return "\n".join(lines)


def _show(control: Control, depth: int, lines: list[str]) -> int:
    """Adds its line; returns how deep what follows lies."""
    inner = depth if control.kind == ENTER else depth - 1
    lines.append(f"  {'  ' * inner}{control}")
    return inner + (control.kind == ENTER)
