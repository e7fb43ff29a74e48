"""What a back end is, and how one is found by name: the built-in table first, then the entry points "graphc.backends"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from graphc.errors import BackendError
from graphc.ir.graph import Array, Graph
from graphc.schedule.plan import Plan
from graphc.target import Target

if TYPE_CHECKING:
    from graphc.kernel.chooser import Chooser

BUILT_IN: Mapping[str, str] = {"cpu": "graphc_cpu.backend", "reference": "graphc_reference.backend"}
GROUP = "graphc.backends"


@dataclass(frozen=True)
class StepTime:
    """Best seconds of one step of a program over the runs of a profile."""

    label: str
    family: str
    seconds: float
    flops: int
    bytes: int
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes that a program holds: activations, weights (packed), machine code."""

    arena: int
    weights: int
    code: int

    @property
    def total(self) -> int:
        return self.arena + self.weights + self.code


class Program(Protocol):
    """A plan that can run. Safe to call from several threads."""

    memory: Memory

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Inputs are C-contiguous and of the plan's dtypes and shapes; returns new arrays."""
        ...

    def profile(self, inputs: Sequence[Array], runs: int) -> list[StepTime]:
        """Run step by step, `runs` times."""
        ...


class KeptPrograms(Protocol):
    """Programs of one model file that earlier processes compiled for the same target and options."""

    def signature(self) -> Graph | None:
        """A graph with the model's inputs and outputs and no nodes; None where nothing is kept of it."""
        ...

    def load(self, sizes: Mapping[str, int], threads: int | None) -> tuple[Plan, Program, Mapping[str, str]] | None:
        """For given sizes of the symbolic dims: the plan, its program, and what the ledger says of nodes without a kernel."""
        ...

    def keep_signature(self, graph: Graph) -> None:
        """Of the imported model."""
        ...

    def keep(self, sizes: Mapping[str, int], plan: Plan, program: Program, apart: Mapping[str, str]) -> None:
        """Keep what `load` gives."""
        ...

    def check_unchanged(self) -> None:
        """Raises ModelError where the model file is another than the one that was asked for."""
        ...


class Backend(Protocol):
    """Turns plans into programs. A method `kept(model: Path, target: Target, options: str) -> KeptPrograms | None` is optional."""

    name: str

    def target(self, target: str | Target) -> Target:
        """The Target for "host", a level name, or a Target as it is."""
        ...

    def chooser(self, target: Target, tune: bool) -> Chooser:
        """How convolutions are computed on a target; with `tune`, by measured times. Raises BackendError where it cannot measure."""
        ...

    def compile(self, graph: Graph, plan: Plan, threads: int | None) -> Program:
        """`graph`: the machine form that `plan` was made from. `threads`: None means one per usable core."""
        ...


def find(name: str) -> Backend:
    """The back end of that name. Raises BackendError for an unknown one, or one that this machine cannot load."""
    if not isinstance(name, str):
        raise BackendError(f"a back end is given by its name, not by {type(name).__name__}", hint=f"one of {', '.join(BUILT_IN)}")
    try:
        if name in BUILT_IN:
            backend: Backend = import_module(BUILT_IN[name]).backend
            return backend
        from importlib import metadata  # late: it takes 15 ms to import

        for entry in metadata.entry_points(group=GROUP):
            if entry.name == name:
                found: Backend = entry.load()
                return found
    except ImportError as error:
        raise BackendError(f"back end {name!r} cannot be loaded: {error}", hint="install what it needs") from error
    known = sorted({*BUILT_IN, *(entry.name for entry in metadata.entry_points(group=GROUP))})
    raise BackendError(f"unknown back end {name!r}", hint=f"one of {', '.join(known)}")
