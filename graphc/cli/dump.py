"""graphc dump: any stage of a compilation as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from graphc.cli import options
from graphc.errors import InputError

if TYPE_CHECKING:
    from graphc.cli.build import Build
    from graphc.cli.models import Sizes

STAGES = ("graph", "plan", "kernel", "ir", "asm")


@click.command(name="dump", short_help="Print a stage as text: graph, plan, kernels, LLVM IR, assembly.")
@options.model_argument
@click.option(
    "--stage", type=click.Choice(STAGES),
    help="graph: as imported; plan: steps and memory; kernel: what each kernel computes; ir: LLVM IR; asm: assembly. [default: graph]",
)  # fmt: skip
@click.option("--after", metavar="PASS", help="The graph after this pass (`graphc passes` lists them).")
@click.option("--kernel", "kernels", type=click.IntRange(0), multiple=True, metavar="N", help="Only kernel N; may be repeated.")
@options.sizes_options
@options.target_option
@options.accuracy_option
def command(
    model: str, stage: str | None, after: str | None, kernels: tuple[int, ...], sizes: Sizes,
    target: str, accuracy: str,
) -> None:  # fmt: skip
    """Print a stage of MODEL's compilation.

    \b
    Examples:
      graphc dump examples/digits/lenet5.onnx --after fuse-epilogue
      graphc dump examples/digits/lenet5.onnx --stage plan
      graphc dump examples/digits/lenet5.onnx --stage asm --kernel 1
    """
    from graphc.cli import build as stages
    from graphc.cli import models
    from graphc.inspect.stages import graph_after, graph_text
    from graphc.passes.base import Context

    if after is not None and stage not in (None, "graph"):
        raise InputError(f"--after shows a graph, --stage {stage} comes after all passes", hint="one of the two")
    if kernels and stage not in ("kernel", "ir", "asm"):
        raise InputError("--kernel needs a stage that has kernels", hint="--stage kernel, ir or asm")
    if after is None and stage in (None, "graph"):
        click.echo(graph_text(models.load(model, sizes)).rstrip())
        return
    build = stages.start(model, sizes, target)
    if after is not None:
        click.echo(graph_text(graph_after(build.graph, after, Context(build.target, accuracy))).rstrip())
        return
    plan = stages.make_plan(build, accuracy)
    click.echo(str(plan) if stage == "plan" else _kernels(build, stage or "", kernels))


def _kernels(build: Build, stage: str, only: tuple[int, ...]) -> str:
    from graphc.inspect.stages import kernel_numbers, kernel_text, kernel_title

    plan = build.plan
    assert plan is not None
    comment = {"ir": ";", "asm": "#"}.get(stage, "#")
    show: dict[str, Callable[[int], str]] = {
        "kernel": lambda number: kernel_text(plan.specs[number]),
        "ir": lambda number: _ir(build, number),
        "asm": lambda number: _assembly(build, number),
    }
    parts = [f"{comment} {kernel_title(plan, number)}\n{show[stage](number)}" for number in kernel_numbers(plan, only)]
    return "\n\n".join(parts)


def _ir(build: Build, number: int) -> str:
    from graphc_cpu.emit.ir import module
    from graphc_cpu.kernel_code import emit_kernel

    assert build.plan is not None
    return module(build.target.triple, [emit_kernel(build.plan.specs[number], build.target, f"kernel{number}")])


def _assembly(build: Build, number: int) -> str:
    from graphc_cpu import jit

    return jit.assembly(_ir(build, number), build.target)
