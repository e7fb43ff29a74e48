"""Executable: a compiled model, called with numpy arrays.

A model with symbolic dims is compiled once per combination of sizes, at the first call that needs it.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphc.backend import Memory, Program, StepTime
from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.graph import Array, Graph
from graphc.ir.parts import text
from graphc.ir.state import States
from graphc.limits import MemoryFor
from graphc.schedule.plan import Plan
from graphc.signature import outputs_of, signature_of
from graphc.types.shape import check_sizes

ALIAS = ""
Sizes = tuple[tuple[str, int], ...]  # of the symbolic dims, sorted by name
Shapes = tuple[tuple[int, ...], ...]  # of the inputs
MAX_PROGRAMS = 16  # sizes kept compiled per executable; the oldest goes first


@dataclass(frozen=True)
class LedgerEntry:
    """Where one node of the user's model ended: `kernel` (step label) of `family`, or the pass that removed it."""

    node: str
    kernel: str
    family: str
    reason: str


@dataclass
class Compiled:
    """What one combination of sizes compiles to. `apart`: node of the model without a kernel -> the pass that removed it, or ALIAS."""

    plan: Plan
    program: Program
    apart: Mapping[str, str]
    make_graph: Callable[[], Graph] = field(repr=False)

    @cached_property
    def graph(self) -> Graph:
        """The machine form; of a program from the cache it is made again."""
        return self.make_graph()

    @property
    def ledger(self) -> list[LedgerEntry]:
        return _entries(self.plan, self.apart)


class Executable:
    """A compiled model: call it with arrays in input order or by name (lists of arrays for sequences). Thread-safe.

    `inputs`, `outputs`: name -> TensorType (dims may be symbolic; what a loop of an unknown number of iterations stacks has at most its
    declared size); a list of types for a sequence, None for an optional that is absent. `state`: what the runs of a model with state keep,
    by name: reading copies, assigning checks dtype and shape and writes. Runs that update state go one after the other, each from what the
    one before left. All sizes of symbolic dims share the state.
    """

    def __init__(self, graph: Graph, compile_for: Callable[[Mapping[str, int]], Compiled]) -> None:
        self._graph = graph
        self._compile_for = compile_for
        self._compiled: dict[Sizes, Compiled] = {}
        self._by_shapes: dict[Shapes, Sizes] = {}  # the short way of a call; keys, so that it keeps no program alive
        self._lock = threading.Lock()
        self.state = States(graph)
        self._signature = signature_of(graph)
        self.inputs = self._signature.inputs
        self.outputs = outputs_of(graph)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """One output, or a tuple in output order."""
        compiled, results = self._run(self._signature.by_name(args, named))
        found = list(self._delivered(compiled, results).values()) if self._graph.trims or self._graph.gives else results
        return found[0] if len(found) == 1 else tuple(found)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name: arrays, lists of arrays for sequences, None for an optional one that is absent."""
        compiled, results = self._run(feeds)
        return self._delivered(compiled, results)

    def _delivered(self, compiled: Compiled, results: Sequence[Array]) -> dict[str, Any]:
        return self._graph.delivered(dict(zip((name for name, _ in compiled.plan.outputs), results, strict=True)))

    def reset_state(self) -> None:
        """All state has its initial value again."""
        self.state.reset()

    def save_state(self, path: str | os.PathLike[str]) -> None:
        """Write the state (safetensors), whole or not at all. Raises ResourceError where the file cannot be written."""
        self.state.save(path)

    def load_state(self, path: str | os.PathLike[str]) -> None:
        """Go on from a saved state. Raises InputError, before anything is changed, for names, shapes or dtypes that are not the model's."""
        self.state.load(path)

    def compiled(self, sizes: Mapping[str, int] | None = None) -> Compiled:
        """The plan and program for given sizes of the symbolic dims (default: there are none)."""
        sizes = check_sizes(sizes or {}, self._graph.symbols)
        missing = self._graph.symbols - sizes.keys()
        if missing:
            names = ", ".join(sorted(missing))
            raise ShapeError(f"the size of {names} is not known yet", hint="compile(..., dims={'N': 1}), or call it once")
        key = _key(sizes)
        with self._lock:
            if key not in self._compiled:
                if len(self._compiled) >= MAX_PROGRAMS:
                    del self._compiled[next(iter(self._compiled))]
                    self._by_shapes.clear()
                with MemoryFor("to compile"), _without_collections():
                    self._compiled[key] = self._compile_for(sizes)
            return self._compiled[key]

    @property
    def memory(self) -> Memory:
        """Bytes of the program compiled last."""
        return self._last().program.memory

    @property
    def plan(self) -> Plan:
        """Of the program compiled last."""
        return self._last().plan

    @property
    def ledger(self) -> list[LedgerEntry]:
        """One entry for each node of the model, in the order of execution, then what was removed."""
        return self._last().ledger

    def profile(self, *args: Any, runs: int = 10, **named: Any) -> list[StepTime]:
        """Seconds of each kernel, best of `runs`, on the given inputs; steps for groups of samples together. State is left as it is."""
        if runs < 1:
            raise AttributeValueError(f"runs={runs}", hint="at least 1")
        arrays, sizes = self._signature.check(self._signature.by_name(args, named))
        compiled = self.compiled(sizes)
        with self._turn(compiled.plan):
            before = [state.data.copy() for state in compiled.plan.states]
            try:
                return together(compiled.plan, compiled.program.profile(list(arrays.values()), runs))
            finally:
                for state, array in zip(compiled.plan.states, before, strict=True):
                    state.data[...] = array

    def _turn(self, plan: Plan) -> AbstractContextManager[Any]:
        """Runs that update state go one after the other."""
        return self.state.lock if plan.states else nullcontext()

    def _last(self) -> Compiled:
        if not self._compiled:
            return self.compiled()
        return next(reversed(self._compiled.values()))

    def _run(self, feeds: Mapping[str, Any]) -> tuple[Compiled, list[Array]]:
        arrays = self._signature.arrays(feeds)
        shapes = tuple([array.shape for array in arrays.values()])
        key = self._by_shapes.get(shapes)
        compiled = self._compiled.get(key) if key is not None else None
        if compiled is None:
            sizes = self._signature.sizes(arrays)
            compiled = self.compiled(sizes)
            self._by_shapes[shapes] = _key(sizes)
        with MemoryFor("to run"), self._turn(compiled.plan):
            return compiled, compiled.program.run(list(arrays.values()))

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {text(wanted)}" for name, wanted in self.outputs.items())
        return f"<graphc.Executable {self._graph.name!r}: ({self._signature}) -> ({outputs})>"


@contextmanager
def _without_collections() -> Iterator[None]:
    """Compiling makes many objects that stay: in a process with many others, looking for garbage among them takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _key(sizes: Mapping[str, int]) -> Sizes:
    return tuple(sorted(sizes.items()))


def together(plan: Plan, times: Sequence[StepTime]) -> list[StepTime]:
    """The times of the steps of a plan, those that are repeated for each group of samples added up."""
    rest = times[plan.groups * plan.repeated :]
    return [*(_sum(times[first : plan.groups * plan.repeated : plan.repeated]) for first in range(plan.repeated)), *rest]


def _sum(times: Sequence[StepTime]) -> StepTime:
    totals = (sum(time.flops for time in times), sum(time.bytes for time in times))
    return replace(times[0], seconds=sum(time.seconds for time in times), flops=totals[0], bytes=totals[1])


def ledger_of(graph: Graph, plan: Plan) -> list[LedgerEntry]:
    """One entry for each node of the user's model: of the machine form and its plan."""
    return _entries(plan, apart_of(graph, plan))


def apart_of(graph: Graph, plan: Plan) -> dict[str, str]:
    """Node of the user's model, also of a sub-graph, that no kernel computes -> ALIAS, or the pass that removed it and why."""
    from graphc.ir.body import graphs  # late: to start a kept program nothing of it is needed

    computed = {origin for step in plan.steps for origin in step.origins}
    found = {origin: ALIAS for inner in graphs(graph) for node in inner.nodes for origin in node.origins if origin not in computed}
    for origin, why in (pair for inner in graphs(graph) for pair in inner.eliminated.items()):
        if origin not in computed:
            found.setdefault(origin, why)
    return found


def _entries(plan: Plan, apart: Mapping[str, str]) -> list[LedgerEntry]:
    entries: dict[str, LedgerEntry] = {}
    for step in plan.steps:
        how = "kernel" if len(step.nodes) == 1 else f"fused: {' + '.join(step.nodes)}"
        for origin in step.origins:
            entries.setdefault(origin, LedgerEntry(origin, step.label, plan.kernels[step.kernel].family, how))
    for origin, why in apart.items():
        alias = why == ALIAS
        entries[origin] = LedgerEntry(origin, "", "alias" if alias else "removed", "shares memory, no kernel" if alias else f"by {why}")
    return list(entries.values())

