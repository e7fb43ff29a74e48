"""graphc compile: compile a model, fill the cache, show what happened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.cli.build import Build
    from graphc.cli.models import Sizes


@click.command(name="compile", short_help="Compile a model and show what each stage did.")
@options.model_argument
@options.sizes_options
@options.target_option
@options.accuracy_option
@options.tune_option
@options.threads_option
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan's text to this file.")
@options.json_option
def command(
    model: str, sizes: Sizes, target: str, accuracy: str, tune: bool, threads: int | None,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compile MODEL: what each pass rewrote, the kernels by family, the time of each stage, memory.

    The machine code and packed weights stay in the cache, so that the model starts faster from then on. For a --target that this
    machine cannot run, machine code is made and not loaded.

    \b
    Example:
      graphc compile examples/digits/lenet5.onnx --dims N=16 --target avx2
    """
    from graphc.cli import build as stages
    from graphc.files import write_atomic

    build = stages.start(model, sizes, target)
    plan = stages.make_plan(build, accuracy, tune)
    stages.make_program(build, threads)
    if output is not None:
        write_atomic(output, lambda file: file.write(f"{plan}\n".encode()))
    _show_json(build) if as_json else _show(build)


def _show(build: Build) -> None:
    from graphc.inspect.ledger import families
    from graphc.inspect.units import count, nbytes, plural, seconds

    plan = build.plan
    assert plan is not None
    text = f"{plan.name} for {plan.target.name}: {plural(build.nodes, 'node')} -> {plural(len(plan.steps), 'step')}"
    show.line(f"{text}, {plural(len(plan.kernels), 'kernel')}, {count(plan.flops, 'FLOP')}", "bold")
    show.table(
        ["pass", ">rewrites", ">nodes left", ">time"],
        [(result.name, result.count or "-", result.nodes, seconds(result.seconds)) for result in build.passes],
    )
    show.line()
    rows = [(family, steps, kernels, count(flops, "FLOP")) for family, steps, kernels, flops in families(plan)]
    show.table(["kernel family", ">steps", ">kernels", ">work"], rows)
    show.line()
    show.table(["stage", ">time"], [*((stage, seconds(time)) for stage, time in build.times.items()), ("total", seconds(_total(build)))])
    show.line()
    show.line(f"{plural(build.compiled, 'kernel')} compiled, {build.cached} from the cache")
    if build.memory is None:
        show.line(f"this machine cannot run {plan.target.name}: not loaded")
    else:
        memory = build.memory
        parts = f"arena {nbytes(memory.arena)}, weights {nbytes(memory.weights)}, code {nbytes(memory.code)}"
        show.line(f"memory {nbytes(memory.total)}: {parts}")


def _total(build: Build) -> float:
    return sum(build.times.values())


def _show_json(build: Build) -> None:
    from graphc.cli.build import pass_rows
    from graphc.cli.text import json_text
    from graphc.inspect.ledger import families

    plan = build.plan
    assert plan is not None
    memory = build.memory
    data: dict[str, Any] = {
        "model": plan.name, "target": plan.target.name, "nodes": build.nodes, "steps": len(plan.steps), "kernels": len(plan.kernels),
        "flops": plan.flops, "passes": pass_rows(build), "seconds": build.times, "kernels_compiled": build.compiled,
        "kernels_cached": build.cached, "arena_bytes": plan.arena_bytes,
        "memory": None if memory is None else {**vars(memory), "total": memory.total},
        "families": [dict(zip(("family", "steps", "kernels", "flops"), row, strict=True)) for row in families(plan)],
    }  # fmt: skip
    click.echo(json_text(data))
