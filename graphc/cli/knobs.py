"""graphc knobs: settings from the environment."""

from __future__ import annotations

import os
import pkgutil
from importlib import import_module

import click

from graphc.cli import options, show

PACKAGES = ("graphc", "graphc_dsl", "graphc_onnx", "graphc_reference", "graphc_cpu")


@click.command(name="knobs", short_help="List the settings from the environment.")
@options.json_option
def command(as_json: bool) -> None:
    """List the environment variables that steer graphc: type, default, present value, meaning.

    \b
    Example:
      GRAPHC_VERIFY=1 graphc knobs
    """
    from graphc.cli.text import json_text
    from graphc.knobs import registry

    load_all()
    rows = [
        {"name": name, "type": knob.type.__name__, "default": knob.default, "value": knob.get(), "set": name in os.environ, "doc": knob.doc}
        for name, knob in sorted(registry.items())
    ]
    if as_json:
        click.echo(json_text(rows))
        return
    shown = []
    for row in rows:
        kind = f"{row['type']}, default {_text(row['default'])}" if row["set"] else row["type"]
        shown.append((row["name"], _text(row["value"]) + ("*" if row["set"] else ""), f"{row['doc']} ({kind})"))
    show.table(["name", ">value", "~meaning"], shown)
    if any(row["set"] for row in rows):
        show.line("* set in the environment", "dim")


def load_all() -> None:
    """Import every module of graphc, so that every knob is declared."""
    for name in PACKAGES:
        package = import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)


def _text(value: object) -> str:
    return {True: "1", False: "0"}[value] if isinstance(value, bool) else str(value) or '""'
