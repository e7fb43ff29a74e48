"""Executable: a compiled model, called with numpy arrays.

A model with symbolic dims is compiled once per combination of sizes, at the first call that needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.backend import Memory, Program, StepTime
from graphc.errors import InputError, ShapeError
from graphc.ir.graph import Array, Graph
from graphc.schedule.plan import Plan
from graphc.types.shape import Dim
from graphc.types.tensor import TensorType

MAX_PROGRAMS = 16  # sizes kept compiled per executable; the oldest goes first


@dataclass(frozen=True)
class LedgerEntry:
    """Where one node of the user's model ended: `kernel` (step label) of `family`, or the pass that removed it."""

    node: str
    kernel: str
    family: str
    reason: str


@dataclass(frozen=True)
class Compiled:
    """What one combination of sizes compiles to."""

    graph: Graph
    plan: Plan
    program: Program


class Executable:
    """A compiled model: call it with arrays in input order or by name. Thread-safe.

    `inputs`, `outputs`: name -> TensorType (dims may be symbolic).
    """

    def __init__(self, graph: Graph, compile_for: Callable[[Mapping[str, int]], Compiled]) -> None:
        self._graph = graph
        self._compile_for = compile_for
        self._compiled: dict[tuple[tuple[str, int], ...], Compiled] = {}
        self._lock = threading.Lock()
        self._stateful = threading.Lock()  # runs that update state go one after the other
        self.inputs: dict[str, TensorType] = {value.name: value.type for value in graph.inputs}
        self.outputs: dict[str, TensorType] = {n: v.type for n, v in zip(graph.output_names, graph.outputs, strict=True)}

    def __call__(self, *args: Any, **named: Any) -> Array | tuple[Array, ...]:
        """One array, or a tuple in output order."""
        if len(args) > len(self.inputs):
            raise InputError(f"{len(args)} inputs given, the model takes {len(self.inputs)}: {self._signature()}")
        feeds = dict(zip(self.inputs, args, strict=False))
        twice = feeds.keys() & named.keys()
        if twice:
            raise InputError(f"input {min(twice)!r} is given twice")
        _, results = self._run({**feeds, **named})
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs by name."""
        compiled, results = self._run(feeds)
        return dict(zip(compiled.graph.output_names, results, strict=True))

    @property
    def state(self) -> dict[str, Array]:
        """The arrays that runs update, by name: the memory itself."""
        return {name: value.data for name, value in self._graph.states.items() if value.data is not None}

    def compiled(self, sizes: Mapping[str, int] | None = None) -> Compiled:
        """The plan and program for given sizes of the symbolic dims (default: there are none)."""
        sizes = dict(sizes or {})
        missing = self._graph.symbols - sizes.keys()
        if missing:
            names = ", ".join(sorted(missing))
            raise ShapeError(f"the size of {names} is not known yet", hint="compile(..., dims={'N': 1}), or call it once")
        key = tuple(sorted(sizes.items()))
        with self._lock:
            if key not in self._compiled:
                if len(self._compiled) >= MAX_PROGRAMS:
                    del self._compiled[next(iter(self._compiled))]
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
        last = self._last()
        return ledger_of(last.graph, last.plan)

    def profile(self, *args: Any, runs: int = 10, **named: Any) -> list[StepTime]:
        """Seconds of each step, best of `runs`, on the given inputs."""
        feeds = {**dict(zip(self.inputs, args, strict=False)), **named}
        arrays, sizes = self._check(feeds)
        return self.compiled(sizes).program.profile(arrays, runs)

    def _last(self) -> Compiled:
        if not self._compiled:
            return self.compiled()
        return next(reversed(self._compiled.values()))

    def _run(self, feeds: Mapping[str, Any]) -> tuple[Compiled, list[Array]]:
        arrays, sizes = self._check(feeds)
        compiled = self.compiled(sizes)
        if not compiled.plan.states:
            return compiled, compiled.program.run(arrays)
        with self._stateful:
            return compiled, compiled.program.run(arrays)

    def _check(self, feeds: Mapping[str, Any]) -> tuple[list[Array], dict[str, int]]:
        unknown = feeds.keys() - self.inputs.keys()
        if unknown:
            raise InputError(f"the model has no input {min(unknown)!r}: {self._signature()}")
        sizes: dict[str, int] = {}
        arrays: list[Array] = []
        for name, type in self.inputs.items():
            if name not in feeds:
                raise InputError(f"input {name!r} ({type}) is missing", hint=f"the model takes {self._signature()}")
            arrays.append(_array(name, type, feeds[name], sizes))
        return arrays, sizes

    def _signature(self) -> str:
        return ", ".join(f"{name}: {type}" for name, type in self.inputs.items())

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {type}" for name, type in self.outputs.items())
        return f"<graphc.Executable {self._graph.name!r}: ({self._signature()}) -> ({outputs})>"


def ledger_of(graph: Graph, plan: Plan) -> list[LedgerEntry]:
    """One entry for each node of the user's model: of the machine form and its plan."""
    entries: dict[str, LedgerEntry] = {}
    for step in plan.steps:
        how = "kernel" if len(step.nodes) == 1 else f"fused: {' + '.join(step.nodes)}"
        for origin in step.origins:
            entries.setdefault(origin, LedgerEntry(origin, step.label, plan.kernels[step.kernel].family, how))
    for node in graph.nodes:
        for origin in node.origins:
            entries.setdefault(origin, LedgerEntry(origin, "", "alias", "shares memory, no kernel"))
    for origin, reason in graph.eliminated.items():
        entries.setdefault(origin, LedgerEntry(origin, "", "removed", f"by {reason}"))
    return list(entries.values())


def _array(name: str, type: TensorType, given: Any, sizes: dict[str, int]) -> Array:
    array = np.asarray(given)
    if array.dtype != type.dtype.numpy:
        raise InputError(f"input {name!r} has dtype {array.dtype}, the model takes {type}", hint=f"x.astype(np.{type.dtype.name})")
    if array.ndim != type.rank:
        raise InputError(f"input {name!r} has shape {array.shape}, the model takes {type}")
    for axis, (size, dim) in enumerate(zip(array.shape, type.shape, strict=True)):
        if isinstance(dim, int):
            if size != dim:
                raise InputError(f"input {name!r} has shape {array.shape}, the model takes {type}: axis {axis} is {size}, not {dim}")
        elif sizes.setdefault(str(dim), size) != size:
            raise InputError(f"input {name!r} has {dim}={size} (axis {axis}), but {dim}={sizes[str(dim)]} in another place")
        elif not isinstance(dim, Dim) or dim.symbols != {str(dim)}:
            raise ShapeError(f"input {name!r} has a dimension {dim} that is no plain symbol", hint="fix it with dims={...}")
    return np.ascontiguousarray(array).reshape(array.shape)
