"""The stages of a compilation as text: the graph as imported, after any pass, the plan, the kernels."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import InputError
from graphc.ir.graph import Graph
from graphc.ir.text import print_graph
from graphc.kernel.canonical import spec_text
from graphc.kernel.spec import KernelSpec
from graphc.passes.base import Context
from graphc.passes.pipeline import run_passes, until
from graphc.schedule.plan import Plan


def graph_after(graph: Graph, name: str, context: Context) -> Graph:
    """A copy of the graph after the passes up to and including `name`. Raises UnsupportedError for an unknown pass."""
    return run_passes(graph.copy(), until(name), context)


def graph_text(graph: Graph) -> str:
    return print_graph(graph)


def kernel_numbers(plan: Plan, only: Sequence[int]) -> list[int]:
    """The kernels to show: those of `only`, or all. An InputError for a number that there is not."""
    for number in only:
        if not 0 <= number < len(plan.kernels):
            raise InputError(f"there is no kernel {number}", hint=f"the plan has kernels 0 to {len(plan.kernels) - 1}")
    return list(only) or list(range(len(plan.kernels)))


def kernel_title(plan: Plan, number: int) -> str:
    """`k3 conv: c1, c3`: number, family and the steps that call it."""
    labels = ", ".join(step.label for step in plan.steps if step.kernel == number)
    return f"k{number} {plan.kernels[number].family}: {labels}"


def kernel_text(spec: KernelSpec) -> str:
    """The spec's canonical text, the key of the code cache."""
    return spec_text(spec)
