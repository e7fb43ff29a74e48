"""graphc passes: the passes in order."""

from __future__ import annotations

import click

from graphc.cli import options, show


@click.command(name="passes", short_help="List the passes in order, each with its reason.")
@options.json_option
def command(as_json: bool) -> None:
    """List the passes in the order in which they run, and why each stands where it stands.

    \b
    Example:
      graphc passes
    """
    from graphc.cli.text import json_text
    from graphc.passes.pipeline import MACHINE, PORTABLE

    rows = [(form, step.name, step.reason) for form, steps in (("portable", PORTABLE), ("machine", MACHINE)) for step in steps]
    if as_json:
        click.echo(json_text([dict(zip(("form", "name", "reason"), row, strict=True)) for row in rows]))
    else:
        show.table(["form", "pass", "~reason"], rows)
