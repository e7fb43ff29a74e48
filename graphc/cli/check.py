"""graphc check: whether a model can be compiled, and what stands in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show
from graphc.errors import GraphcError

if TYPE_CHECKING:
    from graphc.cli.models import Sizes
    from graphc.ir.graph import Graph


@click.command(name="check", short_help="Whether a model can be compiled; exit code 1 if not.")
@options.model_argument
@options.sizes_options
@options.target_option
@click.option("--grad", is_flag=True, help="Also list the nodes that have no gradient, so that what lies before them cannot be trained.")
@options.json_option
def command(model: str, sizes: Sizes, target: str, grad: bool, as_json: bool) -> None:
    """Load MODEL, infer its shapes, make a plan for it, and report what is not supported. Symbolic dimensions are tried at 1.

    Exit code 0: it compiles (with --grad: and can be trained). 1: it does not. 2: there is no such file.

    \b
    Examples:
      graphc check examples/digits/lenet5.onnx
      graphc check --grad examples/digits/lenet5.onnx
    """
    from graphc.cli import models
    from graphc.cli.text import json_text

    models.require_file(model)
    report: dict[str, Any] = {"model": model, "ok": False, "problems": []}
    try:
        graph = models.load(model, sizes)
        report.update(_facts(graph))
        report["problems"] = _without_gradient(graph) if grad else []
        _plan(graph, target)
        report["ok"] = not report["problems"]
    except GraphcError as error:
        report["problems"].append({"kind": type(error).__name__, "where": error.where, "reason": error.reason, "hint": error.hint})
    if as_json:
        click.echo(json_text(report))
    else:
        _show(report)
    if not report["ok"]:
        raise click.exceptions.Exit(1)


def _facts(graph: Graph) -> dict[str, Any]:
    from collections import Counter

    return {
        "nodes": len(graph.nodes),
        "ops": dict(Counter(node.op.name for node in graph.nodes).most_common()),
        "inputs": {value.name: str(value.type) for value in graph.inputs},
        "outputs": {name: str(value.type) for name, value in zip(graph.output_names, graph.outputs, strict=True)},
        "symbolic_dims": sorted(graph.symbols),
    }


def _without_gradient(graph: Graph) -> list[dict[str, str]]:
    """A problem for each node that the loss cannot be differentiated through."""
    from graphc.autodiff.reverse import unsupported_gradients
    from graphc.inspect.sizes import assume_one

    hint = "freeze the parameters before it"
    missing = unsupported_gradients(graph.bind(assume_one(graph)))
    return [{"kind": "no gradient", "where": entry.where, "reason": entry.reason, "hint": hint} for entry in missing]


def _plan(graph: Graph, target: str) -> None:
    """Passes and plan, no code."""
    from graphc.backend import find
    from graphc.driver import lower
    from graphc.inspect.sizes import assume_one
    from graphc.passes.base import Context

    lower(graph.bind(assume_one(graph)), Context(find("cpu").target(target)))


def _show(report: dict[str, Any]) -> None:
    from graphc.inspect.units import plural

    for problem in report["problems"]:
        where = f"{problem['where']}: " if problem["where"] else ""
        show.line(f"{problem['kind']}: {where}{problem['reason']}", "red")
        if problem["hint"]:
            show.line(f"  try: {problem['hint']}")
    if "nodes" in report:
        ops = ", ".join(f"{name} {number}" for name, number in report["ops"].items())
        show.line(f"{plural(report['nodes'], 'node')}: {ops}")
        for kind in ("inputs", "outputs"):
            show.line(f"{kind}: " + ", ".join(f"{name} {type}" for name, type in report[kind].items()))
        dims = ", ".join(report["symbolic_dims"])
        show.line(f"symbolic dimensions: {dims or 'none'}")
    show.line("ok: it can be compiled" if report["ok"] else "not ok", "green" if report["ok"] else "red")
