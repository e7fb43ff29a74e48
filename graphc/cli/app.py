"""The command group: finds commands by name, turns errors into one line on stderr and exit code 2.

Nothing heavy is imported here or at the top of a command's file, so that `graphc --help` answers at once.
"""

from __future__ import annotations

import traceback
from importlib import import_module
from typing import Any

import click

from graphc import __version__
from graphc.cli.text import printable
from graphc.errors import GraphcError
from graphc.knobs import knob

DEBUG = knob("GRAPHC_DEBUG", int, 0, "above 0: the command line shows the Python traceback of an error")
COMMANDS = (
    "run", "compile", "summary", "explain", "dump", "check", "verify", "train", "bench", "profile", "ops", "passes", "knobs", "cache",
)  # fmt: skip


class Commands(click.Group):
    """Loads graphc.cli.NAME and takes its `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"graphc.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GraphcError as error:
            _report(error)
            return ctx.exit(2)


def _report(error: GraphcError) -> None:
    if DEBUG.get():
        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(printable(f"error: {error}", keep="\n"), err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(printable(f"  {note}", keep="\n"), err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="graphc")
def cli() -> None:
    """graphc compiles CNNs and RNNs to vectorised machine code.

    MODEL is an ONNX file, or a model in a Python file: net.py, or net.py:lenet5 where the file holds several.

    \b
    Example:
      graphc run examples/digits/lenet5.onnx examples/digits/*.png
    """
