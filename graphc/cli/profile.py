"""graphc profile: time, work and speed of every kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.backend import StepTime
    from graphc.cli.models import Sizes


@click.command(name="profile", short_help="Time of every kernel.")
@options.model_argument
@click.option("--runs", type=click.IntRange(1), metavar="N", default=20, show_default=True, help="Runs; the best time of each step counts.")
@click.option("--sort", type=click.Choice(["order", "time"]), default="order", show_default=True, help="Order of the rows.")
@options.seed_option
@options.sizes_options
@options.threads_option
@options.target_option
@options.accuracy_option
@options.json_option
def command(model: str, runs: int, sort: str, seed: int, sizes: Sizes, **given: Any) -> None:
    """Run MODEL step by step on random inputs: best time of each kernel, its share, GFLOP/s and GB/s.

    \b
    Example:
      graphc profile examples/digits/lenet5.onnx --dims N=64 --sort time
    """
    from graphc.cli import models
    from graphc.cli.text import json_text
    from graphc.driver import compile
    from graphc.inspect.samples import random_inputs

    graph = models.static(models.load(model, sizes)).flat()
    with show.working("compiling"):
        executable = compile(graph, target=given["target"], threads=given["threads"], accuracy=given["accuracy"])
    with show.working("running"):
        steps = executable.profile(*random_inputs(graph, seed).values(), runs=runs)
    if sort == "time":
        steps = sorted(steps, key=lambda step: -step.seconds)
    if given["as_json"]:
        click.echo(json_text({"model": graph.name, "steps": [vars(step) for step in steps]}))
    else:
        show_steps(steps)


def show_steps(steps: Sequence[StepTime]) -> None:
    """The table, and its total."""
    from graphc.inspect.units import seconds, three

    total = sum(step.seconds for step in steps)
    rows = []
    for step in steps:
        speed = three(step.flops / step.seconds / 1e9) if step.flops else ""
        moved = three(step.bytes / step.seconds / 1e9) if step.bytes else ""
        rows.append((step.label, step.family, seconds(step.seconds), f"{step.seconds / total:.1%}", speed, moved))
    rows.append(("total", "", seconds(total), "", three(sum(step.flops for step in steps) / total / 1e9), ""))
    show.table(["~kernel", "family", ">time", ">share", ">GFLOP/s", ">GB/s"], rows)
