"""The CPU back end: a plan becomes kernels, kernels become machine code, and one native call runs them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphc.ir.graph import Graph
from graphc.schedule.plan import Plan
from graphc.target import Target
from graphc_cpu import host, program_cache
from graphc_cpu.program import CpuProgram
from graphc_cpu.program_cache import KeptPrograms
from graphc_cpu.weights import WeightBuffer

if TYPE_CHECKING:
    from graphc.kernel.chooser import Chooser


class CpuBackend:
    """See `graphc.backend.Backend`. What compiles is imported when something is compiled: a start of a kept program needs none of it."""

    name = "cpu"

    def target(self, target: str | Target) -> Target:
        return host.resolve(target)

    def chooser(self, target: Target, tune: bool) -> Chooser:
        """A machine's measured limits, where there are any, apply to "host" alone: choices for a named target are the same everywhere."""
        from graphc.kernel.chooser import Predicted
        from graphc_cpu import machine

        if tune:
            from graphc_cpu.tune import Tuned

            return Tuned(target)
        return Predicted(target, machine.known(target) if target == host.host_target() else None)

    def compile(self, graph: Graph, plan: Plan, threads: int | None) -> CpuProgram:
        from graphc_cpu.kernel_code import compile_kernels

        host.check_runs(plan.target)
        objects = compile_kernels(plan)
        return CpuProgram(plan, objects, WeightBuffer(plan), threads)

    def kept(self, model: Path, target: Target, options: str) -> KeptPrograms | None:
        host.check_runs(target)
        return program_cache.find(model, target, options)


backend = CpuBackend()
