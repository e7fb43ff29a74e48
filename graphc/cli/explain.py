"""graphc explain: the fusion ledger, where every node of the model ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.cli.models import Sizes


@click.command(name="explain", short_help="Which kernel each node of the model became part of.")
@options.model_argument
@options.sizes_options
@options.target_option
@options.accuracy_option
@options.json_option
def command(model: str, sizes: Sizes, target: str, accuracy: str, as_json: bool) -> None:
    """Show the fusion ledger of MODEL: the kernels in order with the nodes that each computes, then the nodes that need none, and why.

    \b
    Example:
      graphc explain examples/digits/lenet5.onnx
    """
    from graphc.cli import build as stages
    from graphc.cli.text import json_text
    from graphc.executable import ledger_of
    from graphc.inspect.ledger import kernels
    from graphc.inspect.units import count, nbytes

    build = stages.start(model, sizes, target)
    plan = stages.make_plan(build, accuracy)
    entries = ledger_of(build.graph, plan)
    if as_json:
        data = {"model": plan.name, "steps": [vars(use) for use in kernels(plan)], "ledger": [vars(entry) for entry in entries]}
        click.echo(json_text(data))
        return
    rows = []
    for use in kernels(plan):
        cost = count(use.flops) if use.flops else "", nbytes(use.bytes) if use.bytes else ""
        rows.append((use.step, use.family, use.label, ", ".join(use.origins), *cost))
    show.table([">step", "family", "~kernel", "~nodes of the model", ">FLOPs", ">bytes"], rows)
    without = [(entry.node, f"{entry.family}: {entry.reason}") for entry in entries if not entry.kernel]
    if without:
        show.line()
        show.table(["~node without a kernel", "~why"], without)
