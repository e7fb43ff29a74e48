"""Compiling step by step, with the time of each stage: what `compile`, `dump` and `check` show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphc.cli import models, show

if TYPE_CHECKING:
    from graphc.backend import Memory
    from graphc.ir.graph import Graph
    from graphc.passes.base import Pass
    from graphc.schedule.plan import Plan
    from graphc.target import Target


@dataclass(frozen=True)
class PassResult:
    """What one pass did: `count` rewrites, and the nodes that were left."""

    name: str
    count: int
    nodes: int
    seconds: float


@dataclass
class Build:
    """The stages so far. `times`: stage -> seconds. `nodes`: of the imported graph."""

    graph: Graph
    target: Target
    nodes: int = 0
    passes: list[PassResult] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    plan: Plan | None = None
    memory: Memory | None = None
    cached: int = 0
    compiled: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.times[stage] = time.perf_counter() - start


def start(model: str, sizes: models.Sizes, target: str) -> Build:
    """Import; dims that are left are 1."""
    from graphc.backend import find

    chosen = find("cpu").target(target)
    began = time.perf_counter()
    graph = models.static(models.load(model, sizes))
    return Build(graph, chosen, len(graph.nodes), times={"import": time.perf_counter() - began})


def make_plan(build: Build, accuracy: str, tune: bool = False) -> Plan:
    """Passes and plan; edits `build.graph` into the machine form."""
    from graphc.backend import find
    from graphc.driver import lower
    from graphc.passes.base import Context

    last = time.perf_counter()

    def observe(step: Pass, graph: Graph, count: int) -> None:
        nonlocal last
        now = time.perf_counter()
        build.passes.append(PassResult(step.name, count, len(graph.nodes), now - last))
        last = time.perf_counter()

    began = last
    _, build.plan = lower(build.graph, Context(build.target, accuracy, find("cpu").chooser(build.target, tune)), observe)
    build.times["passes"] = sum(result.seconds for result in build.passes)
    build.times["plan"] = time.perf_counter() - began - build.times["passes"]
    return build.plan


def make_program(build: Build, threads: int | None) -> None:
    """Machine code and, where this machine runs the target, packed weights and a loaded program. Fills the cache."""
    from graphc_cpu import cache, host
    from graphc_cpu.kernel_code import compile_kernels
    from graphc_cpu.program import CpuProgram
    from graphc_cpu.weights import WeightBuffer

    assert build.plan is not None
    store = cache.default()
    before = store.stats().hits if store else 0
    with show.working("compiling kernels"), build.timed("codegen"):
        objects = compile_kernels(build.plan)
    build.cached = (store.stats().hits if store else 0) - before
    build.compiled = len(objects) - build.cached
    if host.missing_features(build.target):
        return
    with show.working("packing weights"), build.timed("pack"):
        weights = WeightBuffer(build.plan)
    with build.timed("load"):
        build.memory = CpuProgram(build.plan, objects, weights, threads or build.target.cores).memory


def pass_rows(build: Build) -> list[dict[str, Any]]:
    return [vars(result) for result in build.passes]
