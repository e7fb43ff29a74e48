"""The reference as a back end: `graphc.compile(model, backend="reference")` runs the graph as the passes left it, op by op in numpy."""

from __future__ import annotations

import time
from collections.abc import Sequence

from graphc import target as targets
from graphc.backend import Memory, StepTime
from graphc.errors import BackendError
from graphc.ir.graph import Array, Graph
from graphc.kernel.chooser import Chooser, Predicted
from graphc.schedule.plan import Plan
from graphc.target import Target
from graphc_reference.executable import ReferenceExecutable, evaluate_node


class ReferenceProgram:
    """See `graphc.backend.Program`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph.flat()
        self._executable = ReferenceExecutable(self._graph)
        weights = sum(value.data.nbytes for value in graph.values.values() if value.data is not None)
        self.memory = Memory(0, weights, 0)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        feeds = {value.name: array for value, array in zip(self._graph.inputs, inputs, strict=True)}
        states = {name: value.data for name, value in self._graph.states.items() if value.data is not None}
        self._executable.state.update(states)
        results = list(self._executable.results(feeds).values())
        for name, memory in states.items():
            memory[...] = self._executable.state[name]
        return results

    def profile(self, inputs: Sequence[Array], runs: int) -> list[StepTime]:
        feeds = {value.name: array for value, array in zip(self._graph.inputs, inputs, strict=True)}
        values = self._executable.values(feeds)
        times = []
        for node in self._graph.nodes:
            arrays = [values[value.name] for value in node.inputs]
            cost = node.op.cost([value.type for value in node.inputs], [value.type for value in node.outputs])
            best = float("inf")
            for _ in range(runs):
                start = time.perf_counter()
                evaluate_node(node, arrays)
                best = min(best, time.perf_counter() - start)
            times.append(StepTime(node.name, node.op.family, best, cost.flops, cost.bytes, node.origins))
        return times


class ReferenceBackend:
    """See `graphc.backend.Backend`. A target decides which layouts and fusions the passes choose, not how anything is computed."""

    name = "reference"

    def target(self, target: str | Target) -> Target:
        if isinstance(target, Target):
            return target
        return targets.named("sse2" if target == "host" else target)

    def chooser(self, target: Target, tune: bool) -> Chooser:
        if tune:
            raise BackendError("the reference has nothing to tune", hint="tune=False")
        return Predicted(target)

    def compile(self, graph: Graph, plan: Plan, threads: int | None) -> ReferenceProgram:
        if threads is not None and threads > 1:
            raise BackendError(f"the reference runs on one thread, not {threads}", hint="threads=1")
        return ReferenceProgram(graph)


backend = ReferenceBackend()
