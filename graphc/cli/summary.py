"""graphc summary: the nodes of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from graphc.cli import options, show

if TYPE_CHECKING:
    from graphc.cli.models import Sizes
    from graphc.inspect.summary import Summary


@click.command(name="summary", short_help="Table of nodes: shapes, parameters, FLOPs.")
@options.model_argument
@options.sizes_options
@options.json_option
def command(model: str, sizes: Sizes, as_json: bool) -> None:
    """Show the nodes of MODEL with their output shapes, parameters and FLOPs (a multiply-add is 2), and the totals.

    \b
    Example:
      graphc summary examples/digits/lenet5.onnx --dims N=1
    """
    from graphc.cli import models
    from graphc.cli.text import json_text
    from graphc.inspect.summary import summarize

    made = summarize(models.load(model, sizes))
    if as_json:
        click.echo(json_text(_data(made)))
    else:
        _show(made)


def _show(summary: Summary) -> None:
    from graphc.inspect.units import count, nbytes, plural

    show.line(f"{summary.name}: {plural(len(summary.rows), 'node')}", "bold")
    rows: list[tuple[object, ...]] = [("input", name, _shape(type), "", "") for name, type in summary.inputs]
    rows += [("state", name, _shape(type), "", "") for name, type in summary.states]
    for row in summary.rows:
        types = ", ".join(_shape(type) for type in row.outputs)
        rows.append((row.op, row.name, types, f"{row.parameters:,}" if row.parameters else "", count(row.flops) if row.flops else ""))
    rows += [("output", name, _shape(type), "", "") for name, type in summary.outputs]
    show.table(["op", "~name", "~shape", ">params", ">FLOPs"], rows)
    at = ", ".join(f"{name}={size}" for name, size in summary.sizes.items())
    show.line()
    show.line(f"{summary.parameters:,} parameters ({nbytes(summary.parameter_bytes)})")
    show.line(f"{count(summary.flops, 'FLOP')}, activations {nbytes(summary.activation_bytes)}" + (f" at {at}" if at else ""))


def _shape(type: Any) -> str:
    return str(type)


def _data(summary: Summary) -> dict[str, Any]:
    def typed(name: str, type: Any) -> dict[str, Any]:
        return {"name": name, "dtype": type.dtype.name, "shape": [dim if isinstance(dim, int) else str(dim) for dim in type.shape]}

    nodes = [
        {
            "name": row.name, "op": row.op, "outputs": [typed("", type) | {"name": None} for type in row.outputs],
            "parameters": row.parameters, "flops": row.flops, "source": row.source,
        }
        for row in summary.rows
    ]  # fmt: skip
    return {
        "model": summary.name,
        "inputs": [typed(*entry) for entry in summary.inputs], "states": [typed(*entry) for entry in summary.states],
        "outputs": [typed(*entry) for entry in summary.outputs],
        "nodes": nodes, "ops": summary.ops, "parameters": summary.parameters, "parameter_bytes": summary.parameter_bytes,
        "activation_bytes": summary.activation_bytes, "flops": summary.flops,
        "dims": dict(summary.sizes), "metadata": dict(summary.metadata),
    }  # fmt: skip
