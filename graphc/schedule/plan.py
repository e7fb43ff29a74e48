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


@dataclass
class Plan:
    """A program for one target and fixed sizes."""

    name: str
    target: Target
    inputs: list[tuple[str, TensorType]]
    outputs: list[tuple[str, TensorType]]
    kernels: list[KernelSpec | SavedKernel] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
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
        return sum(step.cost.flops for step in self.steps)

    def __str__(self) -> str:
        size = f"{len(self.steps)} steps, {len(self.kernels)} kernels, arena {self.arena_bytes} bytes"
        lines = [f"plan {self.name} for {self.target.name}: {size}"]
        for number, step in enumerate(self.steps):
            spec = self.kernels[step.kernel]
            args = ", ".join(str(ref) for ref in step.args)
            barrier = "  (no barrier)" if step.overlaps else ""
            lines.append(f"  {number:4d} k{step.kernel:<3d} {spec.family:<9} {step.label}({args}) {step.cost.flops} flops{barrier}")
        return "\n".join(lines)
